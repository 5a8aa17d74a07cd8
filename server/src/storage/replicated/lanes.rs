//! The order in which a node keeps messages through other nodes' replicas.
//!
//! A replica puts what it is given into its own proposer, which keeps the order. A node without one asks by task, and one
//! that is refused asks once more; meanwhile later messages of the sender would pass. So each sender has a *lane*: the
//! next begins when the one before has its place, or will have none. Where a node becomes a replica, or its disk has room
//! for one again, a sender goes on by its own log when its lane is empty; where it is one no longer, nobody enters a lane before what
//! is under way in the log of this node is done.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use althing_proto::jid::BareJid;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedMutexGuard};
use tokio::time::timeout;

/// Between two looks whether this node has a replica again.
const LOOK: Duration = Duration::from_millis(50);

/// A lane, and how many are in it or wait for it.
#[derive(Default)]
struct Lane {
    turn: Arc<tokio::sync::Mutex<()>>,
    users: usize,
}

/// All lanes of a node. They are as many as senders with messages under way, which are bounded.
#[derive(Default)]
pub(super) struct Lanes {
    lanes: Mutex<HashMap<Option<BareJid>, Lane>>,
    /// Messages under way by the log of this node.
    here: AtomicUsize,
    none_here: Notify,
}

/// The way of one message.
pub(super) enum Way {
    /// By the log of this node, which keeps the order.
    Here(Here),
    /// In its sender's lane, wherever it goes.
    Lane(InLane),
}

/// Is counted as long as it lives.
pub(super) struct Here(Arc<Lanes>);

/// A place in a lane.
pub(super) struct InLane {
    lanes: Arc<Lanes>,
    sender: Option<BareJid>,
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Lanes {
    /// The way of the next message of `sender`; `is_replica`: this node has a log for it.
    pub(super) fn way(self: &Arc<Self>, sender: impl FnOnce() -> Option<BareJid>, is_replica: bool) -> Way {
        let mut lanes = self.lanes.lock();
        if is_replica && lanes.is_empty() {
            return self.here();
        }
        let sender = sender();
        if is_replica && !lanes.contains_key(&sender) {
            return self.here();
        }
        let lane = lanes.entry(sender.clone()).or_default();
        lane.users += 1;
        Way::Lane(InLane { lanes: Arc::clone(self), sender, turn: Arc::clone(&lane.turn) })
    }

    fn here(self: &Arc<Self>) -> Way {
        self.here.fetch_add(1, Ordering::SeqCst);
        Way::Here(Here(Arc::clone(self)))
    }

    /// Returns when nothing is under way in the log of this node, or what comes next goes into it too.
    async fn until_none_here(&self, is_replica: impl Fn() -> bool) {
        loop {
            let mut done = std::pin::pin!(self.none_here.notified());
            done.as_mut().enable();
            if self.here.load(Ordering::SeqCst) == 0 || is_replica() {
                return;
            }
            let _either = timeout(LOOK, done).await;
        }
    }
}

impl InLane {
    /// Waits for the turn, which lasts as long as what is returned. Who asks first has it first.
    pub(super) async fn turn(&self, is_replica: impl Fn() -> bool) -> OwnedMutexGuard<()> {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        self.lanes.until_none_here(is_replica).await;
        turn
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        if self.0.here.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.none_here.notify_waiters();
        }
    }
}

impl Drop for InLane {
    fn drop(&mut self) {
        let mut lanes = self.lanes.lanes.lock();
        if let Some(lane) = lanes.get_mut(&self.sender) {
            lane.users -= 1;
            if lane.users == 0 {
                lanes.remove(&self.sender);
            }
        }
    }
}
