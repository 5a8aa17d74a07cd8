//! The disk of a node, as its groups see it: what may wait for room waits, for a write that the system refuses is the end
//! of a log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

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

    /// Looks whether it is open. Blocks for a moment.
    pub(crate) fn look(&self) -> bool {
        self.disk.as_ref().is_none_or(|disk| disk.look() >= self.least)
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

/// For how long a node that is gone counts as it was: it may only be starting anew.
const RESTART: Duration = Duration::from_secs(30);

/// The nodes that have said that little room is left on their disks, as the leader of the routes knows it, and those that are gone.
#[derive(Debug, Default)]
pub struct LowNodes(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    low: BTreeSet<NodeId>,
    /// Since when.
    gone: BTreeMap<NodeId, Duration>,
}

impl LowNodes {
    /// What the leader has said last, and who was gone then. `now` is of any clock that only grows.
    pub(crate) fn set(
        &self,
        low: impl IntoIterator<Item = NodeId>,
        gone: impl IntoIterator<Item = NodeId>,
        now: Duration,
    ) {
        let mut known = self.0.lock();
        known.low = low.into_iter().collect();
        known.gone = gone.into_iter().map(|node| (node, *known.gone.get(&node).unwrap_or(&now))).collect();
    }

    /// Whether the node is one of them.
    #[must_use]
    pub fn has(&self, node: NodeId) -> bool {
        self.0.lock().low.contains(&node)
    }

    /// For how long it has been gone, as far as is known.
    pub(crate) fn gone_for(&self, node: NodeId, now: Duration) -> Duration {
        self.0.lock().gone.get(&node).map_or(Duration::ZERO, |since| now.saturating_sub(*since))
    }

    /// Whether there are any.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.lock().low.is_empty()
    }
}

/// What is known of a node that holds a replica of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReplicaRoom {
    pub(crate) is_low: bool,
    /// Zero while it is there.
    pub(crate) gone_for: Duration,
}

/// PURE: whether what is new is taken: a majority of the replicas has room for it, those with that start anew; or none is
/// short of room. One that is gone for long has none: the others would go on with the room that they are to keep.
pub(crate) fn have_room(replicas: &[ReplicaRoom]) -> bool {
    let has_room = |replica: &&ReplicaRoom| !replica.is_low && replica.gone_for < RESTART;
    replicas.iter().filter(has_room).count() > replicas.len() / 2
        || !replicas.iter().any(|replica| replica.is_low)
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

    const HERE: ReplicaRoom = ReplicaRoom { is_low: false, gone_for: Duration::ZERO };
    const LOW: ReplicaRoom = ReplicaRoom { is_low: true, ..HERE };

    fn gone(seconds: u64) -> ReplicaRoom {
        ReplicaRoom { gone_for: Duration::from_secs(seconds), ..HERE }
    }

    #[test]
    fn what_is_new_is_taken_while_a_majority_has_room_or_only_starts_anew() {
        assert!(have_room(&[HERE, HERE, HERE]) && have_room(&[HERE, HERE, LOW]));
        // A node is restarted while the disk of another is low: nobody is refused anything for that.
        assert!(have_room(&[HERE, gone(29), LOW]));
        assert!(!have_room(&[HERE, gone(30), LOW]), "it does not come back, and the low one would fill up");
        assert!(!have_room(&[HERE, LOW, LOW]));
        let gone_and_low = ReplicaRoom { is_low: true, ..gone(1) };
        assert!(!have_room(&[HERE, LOW, gone_and_low]), "it has no more room when it is back");
        assert!(have_room(&[HERE, gone(1), gone(1), LOW, HERE]));
        assert!(!have_room(&[HERE, gone(99), gone(1), LOW, LOW]));
        // Without a majority there is another refusal.
        assert!(have_room(&[HERE, gone(99), gone(99)]) && have_room(&[]));
    }

    #[test]
    fn a_node_is_gone_since_it_was_first_missed_until_it_is_back() {
        let (nodes, one) = (LowNodes::default(), NodeId::new(1));
        let at = Duration::from_secs;
        nodes.set([], [one], at(10));
        nodes.set([one], [one, NodeId::new(2)], at(15));
        assert!(nodes.has(one) && !nodes.has(NodeId::new(2)));
        assert_eq!((nodes.gone_for(one, at(17)), nodes.gone_for(NodeId::new(2), at(17))), (at(7), at(2)));
        nodes.set([], [], at(20));
        nodes.set([], [one], at(21));
        assert_eq!((nodes.gone_for(one, at(22)), nodes.is_empty()), (at(1), true));
    }
}
