//! The log and the vote of one Raft group, in a database of their own.
//!
//! One thread writes, in the order of the calls: it takes what has gathered, writes one batch, flushes once,
//! then reports. Whatever is not on disk yet, and a bounded part of what is, can be read from memory; other
//! reads go to the blocking pool. So nothing here ever waits for the disk on a worker of the runtime.

mod disk;
mod writer;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::Arc;

use openraft::alias::{LogIdOf, VoteOf};
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftTypeConfig};
use parking_lot::RwLock;
use sled::Db;
use tokio::sync::{mpsc, oneshot};

use crate::disk::Gate;
use disk::{COMMITTED_KEY, Disk, PURGED_KEY, VOTE_KEY, decode, encode, index_of, invalid, key, read};
use writer::{Done, Job, Writer};

/// Most jobs that wait; above it the caller does too.
const QUEUE: usize = 4_096;
/// Most bytes of one answer to a follower, but for a single entry above it.
const READ_BYTES: usize = 1 << 20;
/// How a log is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogOptions {
    /// sled's page cache, in bytes.
    pub cache_bytes: u64,
    /// Encoded bytes of the latest entries that stay in memory once they are on disk.
    pub tail_bytes: usize,
}

impl Default for LogOptions {
    fn default() -> Self {
        LogOptions { cache_bytes: 32 << 20, tail_bytes: 16 << 20 }
    }
}

/// The log of one group. When the last handle is dropped, its thread finishes what is queued and closes the
/// database.
pub struct LogStore<C: RaftTypeConfig> {
    shared: Arc<Shared<C>>,
    jobs: mpsc::Sender<Job<C>>,
    appends: u64,
}

/// Reads a log, for replication and for applying.
pub struct LogReader<C: RaftTypeConfig> {
    shared: Arc<Shared<C>>,
}

struct Shared<C: RaftTypeConfig> {
    db: Db,
    state: RwLock<State<C>>,
}

/// What the log looks like to its readers: ahead of the disk by what is queued.
struct State<C: RaftTypeConfig> {
    vote: Option<VoteOf<C>>,
    committed: Option<LogIdOf<C>>,
    purged: Option<LogIdOf<C>>,
    last: Option<LogIdOf<C>>,
    tail: BTreeMap<u64, Recent<C>>,
    tail_bytes: usize,
}

/// An entry in memory.
struct Recent<C: RaftTypeConfig> {
    entry: C::Entry,
    bytes: usize,
    /// The append that brought it.
    append: u64,
}

impl<C: RaftTypeConfig<Entry: Clone>> LogStore<C> {
    /// Opens or makes the log below `dir`. Blocks for as long as recovery takes.
    ///
    /// # Errors
    /// What the file system reports; [`io::ErrorKind::InvalidData`] for a log of another format, a damaged one,
    /// and one that looks empty but was not: a node that has lost its vote must not vote under its old id.
    pub fn open(dir: &Path, options: LogOptions) -> io::Result<Self> {
        LogStore::open_behind(dir, options, Gate::default())
    }

    /// The same for a log that writes while `gate` is open, and waits else.
    ///
    /// # Errors
    /// As [`LogStore::open`].
    pub fn open_behind(dir: &Path, options: LogOptions, gate: Gate) -> io::Result<Self> {
        let disk = Disk::open(dir, options)?;
        let state = State::load(&disk.db)?;
        let purged = state.purged.as_ref().map(|id| id.index);
        let shared = Arc::new(Shared { db: disk.db.clone(), state: RwLock::new(state) });
        let (jobs, queue) = mpsc::channel(QUEUE);
        let writer = Writer { disk, shared: shared.clone(), options, purging: purged, failure: None, gate };
        std::thread::Builder::new().name("raft-log".to_owned()).spawn(move || writer.run(queue))?;
        Ok(LogStore { shared, jobs, appends: 0 })
    }

    async fn send(&self, job: Job<C>) -> io::Result<()> {
        self.jobs.send(job).await.map_err(|_| gone())
    }

    async fn perform(&self, job: impl FnOnce(Done) -> Job<C>) -> io::Result<()> {
        let (done, answer) = oneshot::channel();
        self.send(job(done)).await?;
        answer.await.map_err(|_| gone())?
    }
}

impl<C: RaftTypeConfig> State<C> {
    fn load(db: &Db) -> io::Result<Self> {
        let purged: Option<LogIdOf<C>> = read(db, PURGED_KEY)?;
        let last = match db.last()? {
            Some((key, value)) if index_of(&key) > purged.as_ref().map(|id| id.index) => {
                Some(decode::<C::Entry>(&value)?.log_id())
            }
            _ => purged.clone(),
        };
        Ok(State {
            vote: read(db, VOTE_KEY)?,
            committed: read(db, COMMITTED_KEY)?,
            purged,
            last,
            tail: BTreeMap::new(),
            tail_bytes: 0,
        })
    }

    /// The part of `range` that is in the log; the end is exclusive.
    fn clamp(&self, range: &impl RangeBounds<u64>) -> std::ops::Range<u64> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        let first = self.purged.as_ref().map_or(0, |id| id.index + 1);
        start.max(first)..end.min(self.last.as_ref().map_or(0, |id| id.index + 1))
    }

    /// Forgets entries in memory for which `is_gone` holds.
    fn forget(&mut self, is_gone: impl Fn(u64) -> bool) {
        let bytes = &mut self.tail_bytes;
        self.tail.retain(|index, recent| {
            let gone = is_gone(*index);
            *bytes -= if gone { recent.bytes } else { 0 };
            !gone
        });
    }
}

impl<C: RaftTypeConfig<Entry: Clone>> Shared<C> {
    /// Entries of `range` in order, up to `limit` bytes but at least one.
    async fn entries(
        self: &Arc<Self>,
        range: impl RangeBounds<u64>,
        limit: usize,
    ) -> io::Result<Vec<C::Entry>> {
        let (range, recent) = {
            let state = self.state.read();
            let range = state.clamp(&range);
            if range.is_empty() {
                return Ok(Vec::new());
            }
            let recent = state.tail.range(range.clone());
            (range, recent.map(|(index, row)| (*index, (row.entry.clone(), row.bytes))).collect())
        };
        let mut rows: BTreeMap<u64, (C::Entry, usize)> = recent;
        let from_disk = rows.first_key_value().map_or(range.end, |(index, _)| *index);
        if range.start < from_disk {
            let shared = self.clone();
            let disk = range.start..from_disk;
            let read = tokio::task::spawn_blocking(move || shared.read(disk, limit));
            let (older, is_whole) = read.await.map_err(io::Error::other)??;
            if !is_whole {
                rows.clear();
            }
            rows.extend(older);
        }
        let mut bytes = 0;
        let fits = |(_, (entry, size)): (u64, (C::Entry, usize))| {
            let is_first = bytes == 0;
            bytes += size.max(1);
            (is_first || bytes <= limit).then_some(entry)
        };
        Ok(rows.into_iter().map_while(fits).collect())
    }

    /// Entries on disk, and whether these are all.
    #[expect(clippy::type_complexity, reason = "named nowhere else")]
    fn read(
        &self,
        range: std::ops::Range<u64>,
        limit: usize,
    ) -> io::Result<(Vec<(u64, (C::Entry, usize))>, bool)> {
        let (mut rows, mut bytes) = (Vec::new(), 0);
        for row in self.db.range(key(range.start)..key(range.end)) {
            let (found, value) = row?;
            if bytes > limit {
                return Ok((rows, false));
            }
            bytes += value.len();
            let index = index_of(&found).ok_or_else(|| invalid("the log has a strange key"))?;
            rows.push((index, (decode(&value)?, value.len())));
        }
        Ok((rows, true))
    }
}

impl<C: RaftTypeConfig<Entry: Clone>> RaftLogReader<C> for LogReader<C> {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> io::Result<Vec<C::Entry>> {
        self.shared.entries(range, usize::MAX).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<C::Entry>> {
        self.shared.entries(start..end, READ_BYTES).await
    }

    async fn read_vote(&mut self) -> io::Result<Option<VoteOf<C>>> {
        Ok(self.shared.state.read().vote.clone())
    }
}

impl<C: RaftTypeConfig<Entry: Clone>> RaftLogStorage<C> for LogStore<C> {
    type LogReader = LogReader<C>;

    async fn get_log_state(&mut self) -> io::Result<LogState<C>> {
        let state = self.shared.state.read();
        Ok(LogState { last_purged_log_id: state.purged.clone(), last_log_id: state.last.clone() })
    }

    async fn get_log_reader(&mut self) -> LogReader<C> {
        LogReader { shared: self.shared.clone() }
    }

    async fn save_vote(&mut self, vote: &VoteOf<C>) -> io::Result<()> {
        let value = encode(vote)?;
        self.perform(|done| Job::Put { key: VOTE_KEY, value, done }).await?;
        self.shared.state.write().vote = Some(vote.clone());
        Ok(())
    }

    /// Is on disk with the next append or vote: after a crash an older one is found, so reads wait until the
    /// group has recovered.
    async fn save_committed(&mut self, committed: Option<LogIdOf<C>>) -> io::Result<()> {
        let value = committed.as_ref().map(encode).transpose()?;
        self.send(Job::Committed(value)).await?;
        self.shared.state.write().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogIdOf<C>>> {
        Ok(self.shared.state.read().committed.clone())
    }

    async fn append<I>(&mut self, entries: I, flushed: IOFlushed<C>) -> io::Result<()>
    where
        I: IntoIterator<Item = C::Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.appends += 1;
        let append = self.appends;
        let encoded = entries.into_iter().map(|entry| encode(&entry).map(|bytes| (entry, bytes)));
        let encoded: Vec<_> = encoded.collect::<io::Result<_>>()?;
        let mut rows = Vec::with_capacity(encoded.len());
        {
            let mut state = self.shared.state.write();
            for (entry, bytes) in encoded {
                let id = entry.log_id();
                let recent = Recent { entry, bytes: bytes.len(), append };
                state.tail_bytes += bytes.len();
                if let Some(old) = state.tail.insert(id.index, recent) {
                    state.tail_bytes -= old.bytes;
                }
                rows.push((id.index, bytes));
                state.last = Some(id);
            }
        }
        self.send(Job::Append { rows, append, flushed }).await
    }

    async fn truncate_after(&mut self, last: Option<LogIdOf<C>>) -> io::Result<()> {
        let from = last.as_ref().map_or(0, |id| id.index + 1);
        {
            let mut state = self.shared.state.write();
            state.forget(|index| index >= from);
            if state.last.as_ref().map(|id| id.index) >= Some(from) {
                state.last = last.max(state.purged.clone());
            }
        }
        self.perform(|done| Job::Truncate { from, done }).await
    }

    async fn purge(&mut self, id: LogIdOf<C>) -> io::Result<()> {
        let (through, marker) = (id.index, encode(&id)?);
        {
            let mut state = self.shared.state.write();
            state.forget(|index| index <= through);
            if state.last < Some(id.clone()) {
                state.last = Some(id.clone());
            }
            state.purged = Some(id);
        }
        self.perform(|done| Job::Purge { through, marker, done }).await
    }
}

fn gone() -> io::Error {
    io::Error::other("the raft log is closed")
}
