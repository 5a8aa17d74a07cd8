//! `althing backup`: writes a copy of all that a running server keeps.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Args;
use ring::rand::{SecureRandom, SystemRandom};

use super::NodeDoor;
use crate::admin::AdminClient;
use crate::admin::protocol::{Answer, Request};
use crate::backup::file::{Head, Totals, Writer};

/// How often long work says how far it is.
const PROGRESS: Duration = Duration::from_secs(2);

/// Arguments of `althing backup`.
#[derive(Debug, Args)]
pub(super) struct BackupArgs {
    #[command(flatten)]
    door: NodeDoor,
    /// Where the backup is written; must not be there yet, and only its owner may read it. "-": standard output
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// What it says goes to standard error, for standard output may be the backup.
pub(super) fn backup(args: &BackupArgs) -> anyhow::Result<()> {
    actix_rt::System::new().block_on(async {
        let mut node = args.door.connect().await?;
        let (head, totals) = if args.file.as_os_str() == "-" {
            let (head, totals, _) = copy(&mut node, BufWriter::new(io::stdout())).await?;
            (head, totals)
        } else {
            let place = Place::make(&args.file)?;
            let (head, totals, out) = copy(&mut node, BufWriter::new(place.file.try_clone()?)).await?;
            drop(out);
            place.keep()?;
            (head, totals)
        };
        let when =
            head.index.map_or_else(String::new, |index| format!(", as of entry {index} of the store group"));
        note(format_args!("{}: whole{when}", counted(&totals)))
    })
}

/// Copies all rows.
async fn copy<W: Write>(node: &mut AdminClient, out: W) -> anyhow::Result<(Head, Totals, W)> {
    let id = number()?;
    let Answer::BackupBegun { head } = node.ask(&Request::BackupBegin { id }).await? else {
        bail!("the node answers something else than was asked");
    };
    let written = "the backup cannot be written";
    let mut writer = Writer::begin(out, &head).context(written)?;
    let mut progress = Progress::default();
    loop {
        let Answer::BackupRows { rows } = node.ask(&Request::BackupRows { id }).await? else {
            bail!("the node answers something else than was asked");
        };
        if rows.is_empty() {
            break;
        }
        writer.rows(&rows).context(written)?;
        progress.tell(|| counted(&writer.totals()))?;
    }
    let (out, totals) = writer.finish().context(written)?;
    Ok((head, totals, out))
}

/// A number for a backup or a restore, which nobody else has.
pub(super) fn number() -> anyhow::Result<u64> {
    let mut bytes = [0; 8];
    ensure!(SystemRandom::new().fill(&mut bytes).is_ok(), "the system has no randomness to give");
    Ok(u64::from_be_bytes(bytes))
}

/// How much it is, in words.
pub(super) fn counted(totals: &Totals) -> String {
    let mib = totals.bytes.div_ceil(1 << 20);
    format!("{} accounts, {} rows, {mib} MiB", totals.accounts, totals.rows)
}

/// Writes a line to standard error.
pub(super) fn note(line: impl std::fmt::Display) -> anyhow::Result<()> {
    Ok(writeln!(io::stderr(), "{line}")?)
}

/// Says from time to time how far it is.
pub(super) struct Progress(Instant);

impl Default for Progress {
    fn default() -> Self {
        Progress(Instant::now())
    }
}

impl Progress {
    /// Says it, if it is time to.
    pub(super) fn tell(&mut self, text: impl FnOnce() -> String) -> anyhow::Result<()> {
        if self.0.elapsed() < PROGRESS {
            return Ok(());
        }
        self.0 = Instant::now();
        note(format_args!("{} so far", text()))
    }
}

/// A file that gets its name when it is whole. Until then it has another one, and goes where it is given up.
struct Place {
    path: PathBuf,
    part: PathBuf,
    /// Locked, so that nobody takes it for what a crash has left.
    file: File,
    kept: bool,
}

impl Place {
    fn make(path: &Path) -> anyhow::Result<Self> {
        ensure!(!path.exists(), "{} is there already: a backup takes the place of nothing", path.display());
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let cannot = || format!("{} cannot be written", part.display());
        match File::open(&part) {
            Ok(left) => {
                let is_locked = matches!(left.try_lock(), Err(TryLockError::WouldBlock));
                ensure!(!is_locked, "{} is being written by another backup", part.display());
                fs::remove_file(&part).with_context(cannot)?;
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(cannot),
        }
        // It has what passwords are checked by.
        let file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part).with_context(cannot)?;
        // Where the file system has no locks there is none.
        let _ = file.try_lock();
        Ok(Place { path: path.to_owned(), part, file, kept: false })
    }

    fn keep(mut self) -> anyhow::Result<()> {
        let keep = || {
            self.file.sync_all()?;
            match fs::hard_link(&self.part, &self.path) {
                Ok(()) => fs::remove_file(&self.part)?,
                // Not all file systems know hard links.
                Err(_) if !self.path.exists() => fs::rename(&self.part, &self.path)?,
                // Not over one that has come meanwhile.
                Err(error) => return Err(error),
            }
            let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
            File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
        };
        keep().with_context(|| format!("{} cannot be written", self.path.display()))?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.kept {
            // Nothing more can be done about it.
            let _ = fs::remove_file(&self.part);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_whole_or_not_there_and_its_owners() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b");
        let names =
            || fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
        drop(Place::make(&path).unwrap());
        assert!(names().is_empty());
        Place::make(&path).unwrap().keep().unwrap();
        assert_eq!(names(), ["b"]);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(Place::make(&path).is_err());
    }

    #[test]
    fn a_backup_that_is_being_written_is_left_alone_and_what_a_crash_has_left_goes() {
        let dir = tempfile::tempdir().unwrap();
        let (path, part) = (dir.path().join("b"), dir.path().join("b.part"));
        fs::write(&part, "left by a crash").unwrap();
        let mut first = Place::make(&path).unwrap();
        first.file.write_all(b"first").unwrap();
        let second = format!("{:#}", Place::make(&path).err().unwrap());
        assert!(second.contains("is being written by another backup"), "{second}");
        first.keep().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert!(!part.exists());
    }
}
