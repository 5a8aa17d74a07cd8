//! The database of a log: opening, keys, flushing, removing in steps.

use std::fs::File;
use std::io::{self, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use sled::{Batch, Db};

use super::LogOptions;
use crate::{durable, wire};

/// Version of the layout below.
const FORMAT: u32 = 1;
/// Keys of single values; they sort before all entries.
const FORMAT_KEY: &[u8] = b"\0format";
pub(super) const VOTE_KEY: &[u8] = b"\0vote";
pub(super) const COMMITTED_KEY: &[u8] = b"\0committed";
pub(super) const PURGED_KEY: &[u8] = b"\0purged";
/// First byte of the key of an entry; its index follows as a big-endian u64.
const ENTRY: u8 = 1;

/// sled's directory, sled's file in it, and the file that says that the log has been in use.
const DIRECTORY: &str = "log";
const DATABASE_FILE: &str = "db";
const USED_FILE: &str = "log.used";

/// Entries that are removed at one go: sled is slow at removing many, and appends wait meanwhile.
const REMOVE_STEP: usize = 1_000;

/// The database and its file.
pub(super) struct Disk {
    pub(super) db: Db,
    file: File,
}

impl Disk {
    /// Opens or makes the database below `dir`; see [`super::LogStore::open`].
    pub(super) fn open(dir: &Path, options: LogOptions) -> io::Result<Self> {
        let path = dir.join(DIRECTORY);
        durable::create_private(&path)?;
        durable::await_release(&path.join(DATABASE_FILE)).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => io::Error::new(error.kind(), "another process has the log open"),
            _ => error,
        })?;
        let config = sled::Config::new()
            .path(&path)
            .cache_capacity(options.cache_bytes)
            .mode(sled::Mode::HighThroughput)
            .flush_every_ms(None);
        // On damaged files sled panics as often as it returns an error.
        let db = catch_unwind(AssertUnwindSafe(|| config.open()))
            .map_err(|_| invalid("the log cannot be opened"))??;
        let disk = Disk { file: File::options().write(true).open(path.join(DATABASE_FILE))?, db };
        for directory in [&path, dir] {
            File::open(directory)?.sync_all()?;
        }
        check_format(dir, &disk)?;
        Ok(disk)
    }

    /// Returns when everything written before is on disk. sled's own flush is not enough: on Linux it calls
    /// `sync_file_range`, which neither empties the disk's cache nor writes the file's length.
    pub(super) fn flush(&self) -> io::Result<()> {
        self.db.flush()?;
        self.file.sync_data()
    }

    /// Removes up to [`REMOVE_STEP`] of the latest entries from `from` on, so that no crash leaves a hole.
    /// Says whether there were any.
    pub(super) fn remove_latest(&self, from: u64) -> io::Result<bool> {
        self.remove(self.db.range(key(from)..).rev())
    }

    /// Removes up to [`REMOVE_STEP`] of the earliest entries through `through`. Says whether there were any.
    pub(super) fn remove_earliest(&self, through: u64) -> io::Result<bool> {
        self.remove(self.db.range(key(0)..=key(through)))
    }

    fn remove(&self, rows: impl Iterator<Item = sled::Result<(sled::IVec, sled::IVec)>>) -> io::Result<bool> {
        let mut batch = Batch::default();
        let mut any = false;
        for row in rows.take(REMOVE_STEP) {
            batch.remove(row?.0);
            any = true;
        }
        self.db.apply_batch(batch)?;
        Ok(any)
    }
}

/// A log without a format is new, unless a file says that it was in use: sled takes some kinds of damage for
/// an empty database.
fn check_format(dir: &Path, disk: &Disk) -> io::Result<()> {
    let used = dir.join(USED_FILE);
    match read::<u32>(&disk.db, FORMAT_KEY)? {
        Some(FORMAT) => Ok(()),
        Some(other) => Err(invalid(&format!(
            "the log {} has format {other}, this release reads {FORMAT}: start the release that made it, or give the node an \
             empty node.data_dir, and the others bring it up to date",
            dir.display()
        ))),
        None if used.try_exists()? || !disk.db.is_empty() => {
            Err(invalid("the log has lost its format number"))
        }
        None => {
            disk.db.insert(FORMAT_KEY, encode(&FORMAT)?)?;
            disk.flush()?;
            let mut file = File::create(&used)?;
            writeln!(file, "The log beside this file has been in use.")?;
            file.sync_all()?;
            File::open(dir)?.sync_all()
        }
    }
}

pub(super) fn key(index: u64) -> [u8; 9] {
    let mut key = [ENTRY; 9];
    key[1..].copy_from_slice(&index.to_be_bytes());
    key
}

/// The index in the key of an entry; `None` for other keys.
pub(super) fn index_of(key: &[u8]) -> Option<u64> {
    let index = key.strip_prefix(&[ENTRY])?;
    index.try_into().ok().map(u64::from_be_bytes)
}

pub(super) fn encode<T: serde::Serialize>(value: &T) -> io::Result<Vec<u8>> {
    wire::encode(value).map_err(io::Error::other)
}

pub(super) fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    wire::decode(bytes).map_err(|error| invalid(&format!("a row of the log does not decode ({error})")))
}

pub(super) fn read<T: serde::de::DeserializeOwned>(db: &Db, key: &[u8]) -> io::Result<Option<T>> {
    db.get(key)?.map(|value| decode(&value)).transpose()
}

pub(super) fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
