//! `althing restore`: takes a backup in, all of it or nothing.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Seek as _, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use clap::Args;

use super::NodeDoor;
use super::backup::{Progress, counted, note, number};
use crate::admin::AdminClient;
use crate::admin::protocol::{Answer, Request};
use crate::backup::file::{Head, Reader, Totals};
use crate::config::Config;

/// Arguments of `althing restore`.
#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    /// TOML file with the node's configuration: its data directory has the admin socket
    #[arg(long, value_name = "FILE", env = "ALTHING_CONFIG", required_unless_present_any = ["socket", "check"])]
    config: Option<PathBuf>,
    /// The admin socket itself; wins over --config
    #[arg(long, value_name = "FILE")]
    socket: Option<PathBuf>,
    /// Only say whether the backup is whole, and what it is of; no node is asked
    #[arg(long)]
    check: bool,
    /// The backup; "-": standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Reads the file to its end before anything is changed, and once more.
pub(super) fn restore(args: &RestoreArgs) -> anyhow::Result<()> {
    let door = NodeDoor { config: args.config.clone(), socket: args.socket.clone() };
    let file = if args.file.as_os_str() == "-" {
        from_input(&door)
    } else {
        File::open(&args.file).map_err(Into::into)
    };
    let mut file = file.with_context(|| refused(&args.file))?;
    let checked = Reader::open(BufReader::new(&file)).and_then(Reader::check);
    let (head, totals) = checked.with_context(|| refused(&args.file))?;
    note(format_args!(
        "{}: of {}, made at {} by {}; {}",
        args.file.display(),
        head.domains.join(", "),
        head.made,
        head.node,
        counted(&totals)
    ))?;
    if args.check {
        return Ok(());
    }
    file.rewind()?;
    actix_rt::System::new().block_on(async {
        let mut node = door.connect().await?;
        take_in(&mut node, file, head, totals).await.context("the backup is not restored")?;
        note("restored: the server serves")
    })
}

fn refused(file: &Path) -> String {
    format!("{}: nothing was changed", file.display())
}

/// Standard input as a file: it is read twice. Nobody else can open it, and it goes with the process.
fn from_input(door: &NodeDoor) -> anyhow::Result<File> {
    let dir = match (&door.socket, &door.config) {
        (Some(socket), _) => socket.parent().map(Path::to_owned).unwrap_or_default(),
        (None, Some(config)) => Config::data_dir(config)?,
        (None, None) => std::env::temp_dir(),
    };
    let path = dir.join(format!("restore.{}", number()?));
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create_new(true).mode(0o600).open(&path);
    let mut file = file.with_context(|| format!("{} cannot be written", path.display()))?;
    fs::remove_file(&path)?;
    spool(&mut io::stdin().lock(), &mut file, || {
        let disk = rustix::fs::statvfs(&dir)?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    })?;
    file.rewind()?;
    Ok(file)
}

/// Bytes that are to stay free on the disk of a running node, from which the store takes nothing new.
const SPARE: u64 = 256 << 20;

/// Copies as long as there is room: a node whose disk is full is over.
fn spool(
    from: &mut impl Read,
    to: &mut impl Write,
    free: impl Fn() -> io::Result<u64>,
) -> anyhow::Result<()> {
    const STEP: u64 = 8 << 20;
    loop {
        ensure!(
            free()? >= SPARE + STEP,
            "it waits beside the node's data until it was checked, and there is not enough room for that: give it as a file"
        );
        if io::copy(&mut from.by_ref().take(STEP), to)? == 0 {
            return Ok(());
        }
    }
}

async fn take_in(node: &mut AdminClient, file: File, head: Head, all: Totals) -> anyhow::Result<()> {
    let id = number()?;
    while !done(node, &Request::RestoreBegin { id, head: head.clone() }).await? {}
    let (mut file, mut progress) = (Reader::open(BufReader::new(file))?, Progress::default());
    // The checksum is looked at once more before the end: the file may be another one by now.
    while let Some(parts) = file.next_rows()? {
        for rows in parts {
            done(node, &Request::RestoreRows { id, rows }).await?;
        }
        progress.tell(|| format!("{} of {} rows", file.totals().rows, all.rows))?;
    }
    done(node, &Request::RestoreFinish { id }).await?;
    Ok(())
}

async fn done(node: &mut AdminClient, request: &Request) -> anyhow::Result<bool> {
    match node.ask(request).await? {
        Answer::Done { changed } => Ok(changed),
        _ => bail!("the node answers something else than was asked"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_that_comes_by_standard_input_does_not_fill_the_disk_of_the_node() {
        let bytes = vec![7; 20 << 20];
        let mut copied = Vec::new();
        spool(&mut &bytes[..], &mut copied, || Ok(u64::MAX)).unwrap();
        assert_eq!(copied, bytes);
        let free = std::cell::Cell::new(SPARE + (16 << 20));
        let less = || {
            free.set(free.get() - (8 << 20));
            Ok(free.get())
        };
        copied.clear();
        let refused = spool(&mut &bytes[..], &mut copied, less).unwrap_err().to_string();
        assert!(refused.contains("not enough room"), "{refused}");
        assert_eq!(copied.len(), 8 << 20);
    }
}
