//! The disk of a node, as its groups see it: what may wait for room waits, for a write that the system refuses is the end
//! of a log.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::node_id::NodeId;

/// How much room there is. What is enough for one is enough for all that stand before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Room {
    /// Nothing is written.
    Nothing,
    /// The route table's log and all votes go on, the store stands still here.
    Routes,
    /// All goes on, and nothing new is to come by this node.
    Low,
    /// No need to think of it.
    #[default]
    Enough,
}

/// The disk that logs and rows of a node are on.
pub trait Disk: Send + Sync + 'static {
    /// Asks the system. Blocks for a moment.
    fn look(&self) -> Room;

    /// What the looks of everybody have shown.
    fn watch(&self) -> watch::Receiver<Room>;

    /// Asks the system for how many bytes there is room before there is less than `least`. Blocks for a moment.
    fn spare(&self, least: Room) -> u64;
}

/// What one group needs of the disk.
#[derive(Clone, Default)]
pub struct Gate {
    disk: Option<Arc<dyn Disk>>,
    least: Room,
}

impl Gate {
    /// Open while `disk` has at least that much; always without a disk.
    #[must_use]
    pub fn new(disk: Option<Arc<dyn Disk>>, least: Room) -> Self {
        Gate { disk, least }
    }

    /// Whether it was open when somebody looked last.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.disk.as_ref().is_none_or(|disk| *disk.watch().borrow() >= self.least)
    }

    /// Looks whether it is open, or there is as much as `needs` if that is less. Blocks for a moment.
    pub(crate) fn look(&self, needs: Room) -> bool {
        self.disk.as_ref().is_none_or(|disk| disk.look() >= self.least.min(needs))
    }

    /// The same disk, for what needs `least`.
    pub(crate) fn for_more(&self, least: Room) -> Self {
        Gate { disk: self.disk.clone(), least }
    }

    /// How many bytes may be written before it closes. Blocks for a moment.
    pub(crate) fn spare(&self) -> u64 {
        self.disk.as_ref().map_or(u64::MAX, |disk| disk.spare(self.least))
    }

    /// Returns when it is open.
    pub async fn opened(&self) {
        let Some(disk) = &self.disk else { return };
        let mut room = disk.watch();
        // An error says that nobody looks any more: the node ends.
        let _ended = room.wait_for(|room| *room >= self.least).await;
    }

    /// Returns when it is closed.
    pub async fn closed(&self) {
        let Some(disk) = &self.disk else { return std::future::pending().await };
        let mut room = disk.watch();
        if room.wait_for(|room| *room < self.least).await.is_err() {
            std::future::pending().await
        }
    }
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").field("least", &self.least).finish_non_exhaustive()
    }
}

/// The nodes that have said that little room is left on their disks, as the leader of the routes knows it.
#[derive(Debug, Default)]
pub struct LowNodes(Mutex<BTreeSet<NodeId>>);

impl LowNodes {
    /// What the leader has said last.
    pub(crate) fn set(&self, nodes: impl IntoIterator<Item = NodeId>) {
        *self.0.lock() = nodes.into_iter().collect();
    }

    /// Whether the node is one of them.
    #[must_use]
    pub fn has(&self, node: NodeId) -> bool {
        self.0.lock().contains(&node)
    }

    /// Whether there are any.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// A disk that has as much room as a test says.
    pub(crate) struct TestDisk {
        level: watch::Sender<Room>,
        spare: AtomicU64,
    }

    impl TestDisk {
        pub(crate) fn new(room: Room) -> Arc<Self> {
            Arc::new(TestDisk { level: watch::Sender::new(room), spare: AtomicU64::new(u64::MAX) })
        }

        pub(crate) fn set(&self, room: Room) {
            self.level.send_replace(room);
        }

        pub(crate) fn set_spare(&self, bytes: u64) {
            self.spare.store(bytes, Ordering::SeqCst);
        }
    }

    impl Disk for TestDisk {
        fn look(&self) -> Room {
            *self.level.borrow()
        }

        fn watch(&self) -> watch::Receiver<Room> {
            self.level.subscribe()
        }

        fn spare(&self, least: Room) -> u64 {
            if self.look() < least { 0 } else { self.spare.load(Ordering::SeqCst) }
        }
    }
}
