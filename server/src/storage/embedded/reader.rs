//! The threads that read. A read is a closure over the rows, so that a new one needs no new message.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;

use super::super::StorageError;
use super::rows::Rows;

/// Most reads that a thread takes from its queue at once.
const GROUP: usize = 64;

/// A read, its answer included.
pub(super) type Read = Box<dyn FnOnce(&Rows) + Send>;

/// The queues of the reader threads.
pub(super) struct Readers {
    queues: Vec<mpsc::Sender<Read>>,
    next: AtomicUsize,
}

impl Readers {
    /// Readers behind these queues.
    pub(super) fn new(queues: Vec<mpsc::Sender<Read>>) -> Self {
        Readers { queues, next: AtomicUsize::new(0) }
    }

    /// The queue whose turn it is.
    pub(super) fn next(&self) -> Result<&mpsc::Sender<Read>, StorageError> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        self.queues.get(turn % self.queues.len().max(1)).ok_or(StorageError::Closed)
    }

    /// Gives a read to one of the threads, by turns.
    pub(super) fn send(&self, read: Read) -> Result<(), StorageError> {
        self.next()?.try_send(read).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => StorageError::Busy,
            mpsc::error::TrySendError::Closed(_) => StorageError::Closed,
        })
    }
}

/// Runs until all senders are gone and the queue is empty.
pub(super) fn run(rows: &Arc<Rows>, mut queue: mpsc::Receiver<Read>) {
    let mut group = Vec::with_capacity(GROUP);
    while queue.blocking_recv_many(&mut group, GROUP) > 0 {
        for read in group.drain(..) {
            if catch_unwind(AssertUnwindSafe(|| read(rows))).is_err() {
                let _remembered = rows.fail_panicked();
            }
        }
    }
}
