//! `althing restore`: takes a backup in, all of it or nothing.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Seek as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
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
    io::copy(&mut io::stdin().lock(), &mut file)?;
    file.rewind()?;
    Ok(file)
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
