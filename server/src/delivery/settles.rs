//! Messages that waited and have arrived: they go from the store, all that have gathered in one change.
//!
//! What is not noted, or lost with the node, stays pending for a session that has ended, and is delivered once more.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::warn;

use crate::metrics::Dropped;
use crate::node::NodeContext;
use crate::storage::StorageError;
use crate::storage::messages::{MAX_PAGE, Settle};

/// Most messages whose arrival waits. While the store does not answer, later ones are not noted.
const MAX_WAITING: usize = 65_536;

/// How often a change is tried while the store does not answer, and how long it rests in between.
const ATTEMPTS: u32 = 5;
const REST: Duration = Duration::from_secs(1);

/// How long the end of a session waits for what has arrived at it.
const PATIENCE: Duration = Duration::from_secs(2);

/// The arrivals of one node on their way into the store.
#[derive(Debug, Default)]
pub struct Settles {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Settle>,
    /// Whether somebody is writing, and will look here once more.
    writing: bool,
    /// How many were noted, and how many of them are done with.
    noted: u64,
    done: u64,
    /// Who wants to know when so many are.
    watchers: Vec<(u64, oneshot::Sender<()>)>,
}

impl Settles {
    /// Notes that a message has arrived.
    pub fn note(node: &Arc<NodeContext>, settle: Settle) {
        let begin = {
            let mut state = node.waiting.settles.state.lock();
            if state.waiting.len() >= MAX_WAITING {
                node.metrics.dropped(Dropped::SettlesFull);
                return;
            }
            state.waiting.push_back(settle);
            state.noted += 1;
            !std::mem::replace(&mut state.writing, true)
        };
        if begin {
            node.remote.runtime().spawn(write(Arc::clone(node)));
        }
    }

    /// Waits until what was noted so far is in the store, or a while.
    pub async fn flush(&self) {
        let done = {
            let mut state = self.state.lock();
            if state.done == state.noted {
                return;
            }
            let (watcher, done) = oneshot::channel();
            let noted = state.noted;
            state.watchers.push((noted, watcher));
            done
        };
        // Time is up, or nobody writes any more: it is delivered once more then.
        let _ = timeout(PATIENCE, done).await;
    }

    /// What is written next.
    fn take(&self) -> Option<Vec<Settle>> {
        let mut state = self.state.lock();
        let count = state.waiting.len().min(MAX_PAGE);
        state.writing = count > 0;
        (count > 0).then(|| state.waiting.drain(..count).collect())
    }

    fn done(&self, count: usize) {
        let mut state = self.state.lock();
        state.done += count as u64;
        let done = state.done;
        for (_, watcher) in state.watchers.extract_if(.., |(wanted, _)| *wanted <= done) {
            // It may have gone.
            let _ = watcher.send(());
        }
    }
}

/// Writes until nothing waits. While one change is on its way the next gathers.
async fn write(node: Arc<NodeContext>) {
    while let Some(settles) = node.waiting.settles.take() {
        let count = settles.len();
        for attempt in 1..=ATTEMPTS {
            // Done twice it is as if it were done once.
            match node.storage.inbox.settle(settles.clone()).await {
                Ok(_) => break,
                Err(StorageError::Busy | StorageError::Unavailable { .. } | StorageError::Unknown)
                    if attempt < ATTEMPTS =>
                {
                    tokio::time::sleep(REST).await;
                }
                Err(error) => {
                    warn!(%error, messages = count, "messages that have arrived will be delivered once more");
                    break;
                }
            }
        }
        node.waiting.settles.done(count);
    }
}
