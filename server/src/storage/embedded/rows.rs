//! The opened database: its rows, its lock against half-written batches, its first failure.

mod history;
mod profile;

use std::fs::{File, TryLockError};
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use althing_cluster::{durable, wire};
use althing_proto::jid::BareJid;
use althing_proto::roster::RosterItem;
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use serde::de::DeserializeOwned;
use sled::{Db, IVec, Tree};

use super::super::roster_rules::RosterHead;
use super::super::{Account, Roster, Standing, StorageError};
use super::apply::Batch;
use super::fault::Fault;
use super::undo::{Purpose, Undo};
use super::{EmbeddedOptions, keys, replace, writer};

/// The database of one data directory.
pub(super) struct Rows {
    path: PathBuf,
    db: Db,
    tree: Tree,
    /// sled's file, for syncing it.
    file: File,
    /// Held for writing while a batch goes in, for reading by whoever reads more than one row: sled's
    /// range scans would see a batch half done.
    batch: RwLock<()>,
    /// Old values for open snapshots, one a purpose. Locked after `batch`.
    undo: Mutex<Vec<Undo>>,
    /// Where the undo of snapshots puts what is too much for memory.
    spill: Tree,
    /// Grows when the rows begin to be replaced, and when they are whole again: odd in between.
    replacements: AtomicU64,
    /// Whether a backup is being restored, as the rows say.
    restoring: AtomicBool,
    failure: OnceLock<StorageError>,
    /// Locked for as long as the database is open. Declared last: let go of after `db`.
    lock: File,
}

impl Rows {
    /// Opens or makes the database below `dir`, and ends deletions that a crash cut short.
    pub(super) fn open(dir: &Path, options: EmbeddedOptions) -> Result<Self, StorageError> {
        let path = dir.join(keys::DIRECTORY);
        // For the owner's eyes only: the keys in it would let anybody else log in.
        durable::create_private(&path).map_err(|error| io(&path, "create", &error))?;
        let lock = lock(dir, &path)?;
        // Another process cannot be the cause of a wait: it would hold the lock file too.
        let name = path.join(keys::DATABASE_FILE);
        durable::await_release(&name).map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock => StorageError::Locked { path: path.clone() },
            _ => io(&name, "lock", &error),
        })?;
        let (db, tree, spill) = guarded(&path, "open", || {
            // No flusher of sled's own: an answer is given only after the writer's flush.
            let config =
                sled::Config::new().path(&path).cache_capacity(options.cache_bytes).flush_every_ms(None);
            let db = config.open()?;
            let tree = db.open_tree(keys::TREE)?;
            let spill = db.open_tree(keys::UNDO_TREE)?;
            Ok((db, tree, spill))
        })?;
        let file = sync_directories(dir, &path)?;
        let rows = Rows {
            path,
            db,
            tree,
            file,
            batch: RwLock::new(()),
            undo: Mutex::new(Vec::new()),
            spill,
            replacements: AtomicU64::new(0),
            restoring: AtomicBool::new(false),
            failure: OnceLock::new(),
            lock,
        };
        guarded(&rows.path, "read", || rows.check_format())??;
        guarded(&rows.path, "empty", || {
            rows.spill.clear()?;
            replace::empty_if_unfinished(&rows)
        })?;
        guarded(&rows.path, "read", || rows.look_whether_restoring())?;
        guarded(&rows.path, "finish a deletion in", || {
            for key in rows.tree.scan_prefix(keys::DELETIONS).keys() {
                let key = key?;
                let user = keys::user(&key).ok_or_else(|| {
                    Fault::Row(format!("the row {:?} names nobody", String::from_utf8_lossy(&key)))
                })?;
                writer::delete_rest(&rows, &user)?;
            }
            rows.flush()
        })?;
        Ok(rows)
    }

    /// A store without a format is new, unless the lock file says that it once had one: sled takes some
    /// kinds of damage for an empty database.
    fn check_format(&self) -> Result<Result<(), StorageError>, Fault> {
        let expected = keys::FORMAT_VERSION;
        let Some(found) = self.db.get(keys::FORMAT)? else {
            let was_used = self.lock.metadata().map_err(sled::Error::Io)?.len() > 0;
            if was_used || !self.tree.is_empty() {
                return Err(Fault::Row("it has no format number".to_owned()));
            }
            self.db.insert(keys::FORMAT, &expected.to_be_bytes())?;
            self.flush()?;
            let mut lock = &self.lock;
            writeln!(lock, "The store beside this file has been in use.").map_err(sled::Error::Io)?;
            lock.sync_all().map_err(sled::Error::Io)?;
            return Ok(Ok(()));
        };
        let found = <[u8; 4]>::try_from(found.as_ref())
            .map(u32::from_be_bytes)
            .map_err(|_| Fault::Row("its format is not a number".to_owned()))?;
        if found == expected {
            return Ok(Ok(()));
        }
        Ok(Err(StorageError::WrongVersion { path: self.path.clone(), found, expected }))
    }

    /// The tree of rows, for the writer.
    pub(super) fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Writes a batch: all of it or nothing, for readers and for a crash.
    pub(super) fn write(&self, batch: &Batch) -> Result<(), Fault> {
        let mut writes = sled::Batch::default();
        for (key, value) in batch {
            match value {
                Some(value) => writes.insert(key.as_slice(), value),
                None => writes.remove(key.as_slice()),
            }
        }
        let _writing = self.batch.write();
        let mut undo = self.undo.lock();
        undo.retain(Undo::is_wanted);
        undo.iter_mut().try_for_each(|undo| undo.keep(&self.tree, batch))?;
        self.tree.apply_batch(writes)?;
        if let Some(row) = batch.get(keys::RESTORING) {
            self.restoring.store(row.is_some(), Ordering::SeqCst);
        }
        Ok(())
    }

    fn look_whether_restoring(&self) -> Result<(), Fault> {
        self.restoring.store(self.tree.contains_key(keys::RESTORING)?, Ordering::SeqCst);
        Ok(())
    }

    /// Whether a backup is being restored: then nobody reads.
    pub(super) fn is_restoring(&self) -> bool {
        self.restoring.load(Ordering::SeqCst)
    }

    /// Reads for those whom the store serves.
    pub(super) fn serving<T>(&self, read: impl FnOnce(&Rows) -> Result<T, Fault>) -> Result<T, Fault> {
        if self.is_restoring() { Err(Fault::Restoring) } else { self.reading(read) }
    }

    /// Begins a snapshot of all rows: its number, the token that keeps it open, the mark that belongs to it.
    /// Only in the writer's thread, so that it falls between two groups of commands.
    pub(super) fn begin_snapshot(&self, purpose: Purpose) -> Result<(u64, Arc<()>, Option<Bytes>), Fault> {
        if self.is_replacing() {
            return Err(Fault::Replacing);
        }
        let mark = self.mark()?;
        let mut undo = self.undo.lock();
        undo.retain(Undo::is_wanted);
        if undo.iter().any(|undo| undo.purpose() == purpose) {
            return Err(Fault::Superseded);
        }
        let id = self.db.generate_id()?;
        let oldest = undo.iter().map(Undo::id).min().unwrap_or(id);
        let (begun, token) = Undo::begin((id, purpose), oldest, self.spill.clone());
        undo.push(begun);
        Ok((id, token, mark))
    }

    /// The next rows of a snapshot; `None` after the last.
    pub(super) fn next_of_snapshot(&self, id: u64) -> Result<Option<Bytes>, Fault> {
        let _reading = self.batch.read();
        let mut undo = self.undo.lock();
        undo.iter_mut().find(|undo| undo.id() == id).ok_or(Fault::Superseded)?.next(&self.tree)
    }

    /// How far the log of the store group has been applied; `None` for an empty store.
    pub(super) fn mark(&self) -> Result<Option<Bytes>, Fault> {
        Ok(self.tree.get(keys::MARK)?.map(|mark| Bytes::copy_from_slice(&mark)))
    }

    /// How many commands after the mark have been applied.
    pub(super) fn ahead(&self) -> Result<u64, Fault> {
        let Some(ahead) = self.tree.get(keys::AHEAD)? else { return Ok(0) };
        <[u8; 8]>::try_from(ahead.as_ref())
            .map(u64::from_be_bytes)
            .map_err(|_| Fault::Row("the number of commands after the mark is none".to_owned()))
    }

    /// How often the rows began to be replaced or were whole again.
    pub(super) fn replacements(&self) -> u64 {
        self.replacements.load(Ordering::SeqCst)
    }

    /// Whether the rows are being replaced, and worth nothing.
    pub(super) fn is_replacing(&self) -> bool {
        self.replacements() % 2 == 1
    }

    /// Says that the rows are being replaced from now on, and closes open snapshots. The number tells this
    /// replacement from others.
    pub(super) fn begin_replacing(&self) -> u64 {
        self.undo.lock().clear();
        let step = if self.is_replacing() { 2 } else { 1 };
        self.replacements.fetch_add(step, Ordering::SeqCst) + step
    }

    /// Says that the rows are whole again.
    pub(super) fn end_replacing(&self) {
        self.replacements.fetch_add(1, Ordering::SeqCst);
    }

    /// Reads; refused when the rows were being replaced meanwhile.
    pub(super) fn reading<T>(&self, read: impl FnOnce(&Rows) -> Result<T, Fault>) -> Result<T, Fault> {
        let before = self.replacements();
        if before % 2 == 1 {
            return Err(Fault::Replacing);
        }
        let result = read(self)?;
        if self.replacements() == before { Ok(result) } else { Err(Fault::Replacing) }
    }

    /// Returns when everything written before is on disk. sled's own flush is not enough: on Linux it
    /// calls `sync_file_range`, which empties neither the disk's cache nor writes the file's length.
    pub(super) fn flush(&self) -> Result<(), Fault> {
        self.db.flush()?;
        self.file.sync_data().map_err(sled::Error::Io)?;
        Ok(())
    }

    /// The failure after which nothing more is written.
    pub(super) fn failure(&self) -> Option<StorageError> {
        self.failure.get().cloned()
    }

    /// Remembers the first failure to write.
    pub(super) fn fail(&self, fault: Fault) -> StorageError {
        self.fail_with(fault.at(&self.path, "write"))
    }

    /// Remembers that a thread of the store has panicked: sled's state can no longer be trusted.
    pub(super) fn fail_panicked(&self) -> StorageError {
        self.fail_with(StorageError::Corrupt {
            path: self.path.clone(),
            what: "a thread of the store panicked".to_owned(),
        })
    }

    fn fail_with(&self, error: StorageError) -> StorageError {
        tracing::error!(%error, "the store writes no more");
        self.failure.get_or_init(|| error).clone()
    }

    /// The error for the operator.
    pub(super) fn explain(&self, fault: Fault, what: &'static str) -> StorageError {
        fault.at(&self.path, what)
    }

    /// Bytes on disk.
    pub(super) fn size_on_disk(&self) -> Result<u64, Fault> {
        Ok(self.db.size_on_disk()?)
    }

    /// One account.
    pub(super) fn account(&self, user: &BareJid) -> Result<Option<Account>, Fault> {
        self.read(&keys::account(user))
    }

    /// The account and how it stands, as of one moment.
    pub(super) fn standing(&self, user: &BareJid) -> Result<Option<Standing>, Fault> {
        let _reading = self.batch.read();
        let Some(account) = self.account(user)? else { return Ok(None) };
        Ok(Some(Standing { account, disabled: self.read(&keys::disabled(user))? }))
    }

    /// Users of a domain, see [`super::super::Accounts::list`].
    pub(super) fn accounts(
        &self,
        domain: &str,
        after: Option<&BareJid>,
        limit: usize,
    ) -> Result<Vec<BareJid>, Fault> {
        self.users(&keys::accounts_of(domain), after.map(keys::account), limit)
    }

    /// Those of them that are disabled, see [`super::super::Accounts::list_disabled`].
    pub(super) fn disabled(
        &self,
        domain: &str,
        after: Option<&BareJid>,
        limit: usize,
    ) -> Result<Vec<BareJid>, Fault> {
        self.users(&keys::disabled_of(domain), after.map(keys::disabled), limit)
    }

    /// The users of rows that begin with `prefix` and have nothing but a user in their keys.
    fn users(&self, prefix: &[u8], after: Option<Vec<u8>>, limit: usize) -> Result<Vec<BareJid>, Fault> {
        self.scan(prefix, after.as_deref(), limit, |key, _| {
            keys::user(&key).ok_or_else(|| {
                Fault::Row(format!("the row {:?} names nobody", String::from_utf8_lossy(&key)))
            })
        })
    }

    /// A whole roster, as it was between two batches.
    pub(super) fn roster(&self, owner: &BareJid) -> Result<Roster, Fault> {
        let prefix = keys::roster(owner);
        let rows = self.scan(&prefix, None, usize::MAX, |key, value| Ok((key, value)))?;
        // Decoded without the lock: it is most of the work.
        let mut roster = Roster::default();
        if rows.first().is_none_or(|(key, _)| *key != prefix) {
            // Not the head of now: it may have come since, with items that were not seen.
            roster.version = self.new_head(owner)?.version;
        }
        for (key, value) in rows {
            if key == prefix {
                roster.version = decode::<RosterHead>(&key, &value)?.version;
            } else {
                roster.items.push(decode(&key, &value)?);
            }
        }
        Ok(roster)
    }

    /// The head of a roster, also of one that never had an item.
    fn roster_head(&self, owner: &BareJid) -> Result<RosterHead, Fault> {
        Ok(match self.read(&keys::roster(owner))? {
            Some(head) => head,
            None => self.new_head(owner)?,
        })
    }

    /// The head of a roster that never had an item.
    fn new_head(&self, owner: &BareJid) -> Result<RosterHead, Fault> {
        Ok(self.account(owner)?.map(|account| RosterHead::of_new(account.created)).unwrap_or_default())
    }

    /// One item of a roster.
    pub(super) fn roster_item(
        &self,
        owner: &BareJid,
        contact: &BareJid,
    ) -> Result<Option<RosterItem>, Fault> {
        self.read(&keys::roster_item(owner, contact))
    }

    /// One private row.
    pub(super) fn private(
        &self,
        user: &BareJid,
        namespace: &str,
        key: &str,
    ) -> Result<Option<Vec<u8>>, Fault> {
        Ok(self.tree.get(keys::private(user, namespace, key))?.map(|value| value.to_vec()))
    }

    /// Private rows, see [`super::super::PrivateData::list`].
    pub(super) fn private_rows(
        &self,
        user: &BareJid,
        namespace: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Vec<u8>)>, Fault> {
        let prefix = keys::private_in(user, namespace);
        let after = after.map(|after| keys::private(user, namespace, after));
        self.scan(&prefix, after.as_deref(), limit, |key, value| {
            let name = String::from_utf8_lossy(key.get(prefix.len()..).unwrap_or_default());
            Ok((name.into_owned(), value.to_vec()))
        })
    }

    /// Reads several rows as they were between two batches.
    pub(super) fn between_batches<T>(
        &self,
        read: impl FnOnce(&Tree) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let _reading = self.batch.read();
        read(&self.tree)
    }

    fn read<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, Fault> {
        self.tree.get(key)?.map(|value| decode(key, &value)).transpose()
    }

    /// Up to `limit` rows whose keys begin with `prefix` and come after `after`.
    fn scan<T>(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
        row: impl Fn(IVec, IVec) -> Result<T, Fault>,
    ) -> Result<Vec<T>, Fault> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let start = match after {
            Some(after) if after > prefix => Excluded(after),
            _ => Included(prefix),
        };
        let _reading = self.batch.read();
        let mut found = Vec::new();
        for entry in self.tree.range::<&[u8], _>((start, Unbounded)).take(limit) {
            let (key, value) = entry?;
            if !key.starts_with(prefix) {
                break;
            }
            found.push(row(key, value)?);
        }
        Ok(found)
    }
}

fn decode<T: DeserializeOwned>(key: &[u8], value: &[u8]) -> Result<T, Fault> {
    wire::decode(value).map_err(|error| Fault::row(key, &error))
}

fn io(path: &Path, what: &'static str, error: &std::io::Error) -> StorageError {
    StorageError::Io { path: path.to_owned(), what, error: error.to_string() }
}

/// Takes the lock that keeps a second process out. sled has one too, but its refusal cannot be told from
/// other failures to open.
fn lock(dir: &Path, path: &Path) -> Result<File, StorageError> {
    let name = dir.join(keys::LOCK_FILE);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&name)
        .map_err(|error| io(&name, "open", &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StorageError::Locked { path: path.to_owned() }),
        Err(TryLockError::Error(error)) => Err(io(&name, "lock", &error)),
    }
}

/// Makes the names of new files and directories durable, and gives sled's file.
fn sync_directories(dir: &Path, path: &Path) -> Result<File, StorageError> {
    for directory in [path, dir] {
        File::open(directory)
            .and_then(|opened| opened.sync_all())
            .map_err(|error| io(directory, "sync", &error))?;
    }
    let name = path.join(keys::DATABASE_FILE);
    File::options().read(true).write(true).open(&name).map_err(|error| io(&name, "open", &error))
}

/// Runs a step of opening. On damaged files sled panics as often as it returns an error; the operator
/// is to read the same words for both.
fn guarded<T>(
    path: &Path,
    what: &'static str,
    step: impl FnOnce() -> Result<T, Fault>,
) -> Result<T, StorageError> {
    match catch_unwind(AssertUnwindSafe(step)) {
        Ok(result) => result.map_err(|fault| fault.at(path, what)),
        Err(_) => Err(StorageError::Corrupt { path: path.to_owned(), what: format!("cannot {what} it") }),
    }
}
