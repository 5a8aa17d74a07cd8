//! The one thread that writes: a batch and a flush for whatever has gathered.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use openraft::RaftTypeConfig;
use openraft::storage::IOFlushed;
use sled::Batch;
use tokio::sync::{mpsc, oneshot};

use super::disk::{COMMITTED_KEY, Disk, PURGED_KEY, invalid, key};
use super::{LogOptions, Shared};
use crate::disk::Gate;

/// Most jobs that share one flush.
const GROUP: usize = 1_024;
/// Between two looks whether the disk has room again.
const LOOK: Duration = Duration::from_millis(200);
/// Something for the writer to do.
pub(super) enum Job<C: RaftTypeConfig> {
    Append {
        rows: Vec<(u64, Vec<u8>)>,
        append: u64,
        flushed: IOFlushed<C>,
    },
    Put {
        key: &'static [u8],
        value: Vec<u8>,
        done: Done,
    },
    /// Needs no flush of its own.
    Committed(Option<Vec<u8>>),
    Truncate {
        from: u64,
        done: Done,
    },
    Purge {
        through: u64,
        marker: Vec<u8>,
        done: Done,
    },
}

/// Is answered when the job and everything before it are on disk.
pub(super) type Done = oneshot::Sender<io::Result<()>>;

/// The one that writes.
pub(super) struct Writer<C: RaftTypeConfig> {
    pub(super) disk: Disk,
    pub(super) shared: Arc<Shared<C>>,
    pub(super) options: LogOptions,
    /// Entries through this index are purged, and some may still be on disk.
    pub(super) purging: Option<u64>,
    /// After a failed write nobody knows what the disk has: the first failure answers all that follows.
    pub(super) failure: Option<String>,
    /// Closed while the disk has no room for entries.
    pub(super) gate: Gate,
}

impl<C: RaftTypeConfig> Writer<C> {
    /// Runs until all senders are gone and the queue is empty.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Job<C>>) {
        let mut group = Vec::with_capacity(GROUP);
        loop {
            if self.purging.is_none() || self.failure.is_some() {
                if queue.blocking_recv_many(&mut group, GROUP) == 0 {
                    return;
                }
            } else {
                while group.len() < GROUP {
                    match queue.try_recv() {
                        Ok(job) => group.push(job),
                        Err(mpsc::error::TryRecvError::Empty) => break,
                        // The rest is purged when the log is opened again.
                        Err(mpsc::error::TryRecvError::Disconnected) if group.is_empty() => return,
                        Err(mpsc::error::TryRecvError::Disconnected) => break,
                    }
                }
            }
            if !self.wait_for_room(&queue, &group) {
                self.failure = Some("the node ends, and the disk has no room".to_owned());
            }
            let result = self.commit(&group);
            self.report(&mut group, &result);
        }
    }

    /// Waits while there is no room for `group`. `false` when all are gone who could want them.
    ///
    /// None passes another, for what is flushed counts for all before it. So an entry that waits keeps a vote from being
    /// written, and the group's core with it, which learns of no other leader then: what the group has let in is written
    /// while there is room for votes, and the group closes its door before.
    fn wait_for_room(&self, queue: &mpsc::Receiver<Job<C>>, group: &[Job<C>]) -> bool {
        let needs_room = |job: &Job<C>| !matches!(job, Job::Committed(_));
        if !group.iter().any(needs_room) || self.failure.is_some() || self.gate.look() {
            return true;
        }
        tracing::warn!("the raft log stands still until the disk has room");
        while !self.gate.look() {
            if queue.is_closed() {
                return false;
            }
            std::thread::sleep(LOOK);
        }
        tracing::info!("the raft log goes on");
        true
    }

    /// Writes a group and flushes, unless the group can wait for the next flush.
    fn commit(&mut self, group: &[Job<C>]) -> io::Result<()> {
        if let Some(failure) = &self.failure {
            return Err(io::Error::other(failure.clone()));
        }
        let written = catch_unwind(AssertUnwindSafe(|| self.write(group)));
        let result = written.unwrap_or_else(|_| Err(invalid("the database panicked")));
        if let Err(error) = &result {
            tracing::error!(%error, "the raft log writes no more");
            self.failure = Some(error.to_string());
        }
        result
    }

    fn write(&mut self, group: &[Job<C>]) -> io::Result<()> {
        let mut batch = Batch::default();
        for job in group {
            match job {
                Job::Append { rows, .. } => {
                    rows.iter().for_each(|(index, bytes)| batch.insert(&key(*index), bytes.as_slice()));
                }
                Job::Put { key, value, .. } => batch.insert(*key, value.as_slice()),
                Job::Committed(Some(value)) => batch.insert(COMMITTED_KEY, value.as_slice()),
                Job::Committed(None) => batch.remove(COMMITTED_KEY),
                Job::Truncate { from, .. } => {
                    self.disk.db.apply_batch(std::mem::take(&mut batch))?;
                    while self.disk.remove_latest(*from)? {}
                }
                Job::Purge { through, marker, .. } => {
                    batch.insert(PURGED_KEY, marker.as_slice());
                    self.purging = self.purging.max(Some(*through));
                }
            }
        }
        self.disk.db.apply_batch(batch)?;
        if group.iter().any(|job| !matches!(job, Job::Committed(_))) {
            self.disk.flush()?;
        }
        // After the flush: an entry goes only when the mark that it is purged is on disk.
        if let Some(through) = self.purging
            && !self.disk.remove_earliest(through)?
        {
            self.purging = None;
        }
        Ok(())
    }

    fn report(&self, group: &mut Vec<Job<C>>, result: &io::Result<()>) {
        let copy =
            || result.as_ref().map(|_| ()).map_err(|error| io::Error::new(error.kind(), error.to_string()));
        for job in group.drain(..) {
            match job {
                Job::Append { append, flushed, .. } => {
                    if result.is_ok() {
                        self.trim(append);
                    }
                    flushed.io_completed(copy());
                }
                Job::Put { done, .. } | Job::Truncate { done, .. } | Job::Purge { done, .. } => {
                    let _gone = done.send(copy());
                }
                Job::Committed(_) => {}
            }
        }
    }

    /// Bounds what is in memory, after that append is on disk.
    fn trim(&self, append: u64) {
        let mut state = self.shared.state.write();
        while state.tail_bytes > self.options.tail_bytes {
            match state.tail.first_entry() {
                Some(first) if first.get().append <= append => {
                    state.tail_bytes -= first.remove().bytes;
                }
                _ => return,
            }
        }
    }
}
