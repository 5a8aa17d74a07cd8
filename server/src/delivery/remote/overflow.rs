//! Presence and roster events for a node whose link is full: they wait here, in order.
//!
//! They cannot go back to a sender, and a session that missed one would show a wrong state for ever. So when the
//! link takes no more they wait in a queue of their own, one a node, and go on as soon as the link has room; until
//! then messages to the node are refused as by the full link, so that none overtakes a presence. The queue is
//! dropped when the node is declared down: its sessions are gone. Policy when this queue is full too
//! ([`MAX_TASKS`] or [`MAX_BYTES`]): the event is dropped, counted as `link_full` and logged with the node. The
//! node has then taken nothing for long, and is about to be declared down or to lose its lease.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tracing::{error, warn};

use althing_cluster::link::LinkError;
use althing_cluster::node_id::NodeId;
use althing_cluster::task::ClusterTask;

use crate::metrics::Dropped;
use crate::node::NodeContext;

/// Most tasks that wait for one node.
pub const MAX_TASKS: usize = 4_096;

/// Most bytes of them, as they are sent.
pub const MAX_BYTES: usize = 32 << 20;

/// How often a full link is tried again. It says nothing by itself when it has room.
const RETRY: Duration = Duration::from_millis(20);

/// The queues, one for each node whose link is full.
#[derive(Debug, Default)]
pub struct Overflow {
    queues: Mutex<HashMap<NodeId, Queue>>,
    /// How many there are: without any, nobody takes the lock.
    count: AtomicUsize,
}

#[derive(Debug, Default)]
struct Queue {
    /// Each with its bytes.
    tasks: VecDeque<(ClusterTask, usize)>,
    bytes: usize,
}

impl Queue {
    fn push(&mut self, task: ClusterTask) -> bool {
        // Encoded once more than would be needed: only while a link is full. One that cannot be encoded is not sent.
        let Ok(encoded) = task.encode() else { return false };
        let bytes = encoded.len();
        if self.tasks.len() >= MAX_TASKS || self.bytes + bytes > MAX_BYTES {
            return false;
        }
        self.bytes += bytes;
        self.tasks.push_back((task, bytes));
        true
    }
}

impl Overflow {
    /// Whether something waits for `node`.
    #[must_use]
    pub fn holds(&self, node: NodeId) -> bool {
        self.count.load(Ordering::Acquire) > 0 && self.queues.lock().contains_key(&node)
    }

    /// Sends a task that wants no reply to `target`, behind all that wait for it. As a rule nothing does, and no lock is
    /// taken: whoever sends two tasks whose order matters has seen the first one queued when it sends the second.
    pub fn tell(&self, node: &Arc<NodeContext>, target: NodeId, task: ClusterTask) {
        if !self.holds(target) && !Self::is_full(node, target, &task) {
            return;
        }
        let mut queues = self.queues.lock();
        if let Some(queue) = queues.get_mut(&target) {
            if !queue.push(task) {
                node.metrics.dropped(Dropped::LinkFull);
                warn!(member = %target, "presence dropped: the node takes nothing, and too much waits for it");
            }
            return;
        }
        if Self::is_full(node, target, &task) {
            let mut queue = Queue::default();
            queue.push(task);
            queues.insert(target, queue);
            self.count.store(queues.len(), Ordering::Release);
            node.remote.runtime().spawn(drain(Arc::clone(node), target));
        }
    }

    /// Hands a task to the link; whether that has no room for it.
    fn is_full(node: &NodeContext, target: NodeId, task: &ClusterTask) -> bool {
        match node.links.post(target, task) {
            Ok(()) => {}
            Err(LinkError::Full) => return true,
            // It is down, and its sessions with it.
            Err(LinkError::NotMember(_) | LinkError::PeerDown) => node.metrics.dropped(Dropped::SessionGone),
            Err(problem) => {
                node.metrics.dropped(Dropped::Undeliverable);
                error!(member = %target, task = task.kind().label(), error = %problem, "task not sent");
            }
        }
        false
    }

    /// Drops what waits for `target`, which was declared down: at its return it would be told of old.
    pub fn forget(&self, target: NodeId) {
        let mut queues = self.queues.lock();
        queues.remove(&target);
        self.count.store(queues.len(), Ordering::Release);
    }

    /// Whether nothing waits for any node.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Sends what waits as far as the link takes it; `false` when nothing is left.
    fn go_on(&self, node: &NodeContext, target: NodeId) -> bool {
        let mut queues = self.queues.lock();
        let Some(queue) = queues.get_mut(&target) else { return false };
        while let Some((task, bytes)) = queue.tasks.front() {
            let bytes = *bytes;
            match node.links.post(target, task) {
                Err(LinkError::Full) => return true,
                Err(LinkError::NotMember(_) | LinkError::PeerDown) => {
                    queue.tasks.clear();
                    break;
                }
                Ok(()) => {}
                Err(problem) => error!(member = %target, error = %problem, "task not sent"),
            }
            queue.tasks.pop_front();
            queue.bytes = queue.bytes.saturating_sub(bytes);
        }
        queues.remove(&target);
        self.count.store(queues.len(), Ordering::Release);
        false
    }
}

async fn drain(node: Arc<NodeContext>, target: NodeId) {
    while node.remote.overflow().go_on(&node, target) {
        tokio::time::sleep(RETRY).await;
    }
}

#[cfg(test)]
mod tests {
    use althing_cluster::routes::BindIndex;
    use althing_cluster::task::ShowPresence;
    use althing_proto::jid::FullJid;
    use bytes::Bytes;

    use super::*;

    #[test]
    fn answers_of_a_megabyte_weigh_a_megabyte() {
        let mut queue = Queue::default();
        let shown = || ShowPresence {
            to: FullJid::new("a@b/c").unwrap(),
            owner: BindIndex(1),
            presences: vec![Bytes::from(vec![b'x'; 1 << 20])],
        };
        let taken = (0..100).take_while(|_| queue.push(shown().into())).count();
        assert_eq!(taken, 31, "of 1 MiB and a few bytes each");
    }
}
