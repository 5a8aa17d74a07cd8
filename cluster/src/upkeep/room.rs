//! What a node knows of its disk and of the others': a node whose disk is nearly full says so, and leads no group.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::disk::{Disk, LowNodes, Room};
use crate::node_id::NodeId;

/// For how long it is believed that a disk is low which its node says no more of. Longer than a node that is gone counts as
/// one with room.
const BELIEVED: Duration = Duration::from_secs(300);

/// This node's disk, and what is known of the others'.
#[derive(Clone)]
pub(crate) struct DiskWord {
    pub(crate) disk: Option<Arc<dyn Disk>>,
    pub(crate) low: Arc<LowNodes>,
}

impl DiskWord {
    /// Whether this node's has less room than is to stay free.
    pub(crate) fn is_low(&self) -> bool {
        self.disk.as_ref().is_some_and(|disk| *disk.watch().borrow() < Room::Enough)
    }
}

/// Who has said last, to the leader, that its disk is low; and when.
#[derive(Debug, Default)]
pub(crate) struct LowWords(BTreeMap<NodeId, Duration>);

impl LowWords {
    /// A node says whether its disk is low. Whoever is gone, or has left, is forgotten after a while.
    pub(crate) fn said(&mut self, node: NodeId, is_low: bool, now: Duration) {
        self.0.retain(|_, said| now.saturating_sub(*said) < BELIEVED);
        if is_low {
            self.0.insert(node, now);
        } else {
            self.0.remove(&node);
        }
    }

    /// Who they are.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.0.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_is_gone_is_not_low_for_ever() {
        let (mut words, at) = (LowWords::default(), Duration::from_secs);
        let [one, two, three] = [1, 2, 3].map(NodeId::new);
        words.said(one, true, at(1_000));
        words.said(two, true, at(1_000));
        words.said(two, false, at(1_001));
        words.said(three, true, at(1_299));
        assert_eq!(words.nodes().collect::<Vec<_>>(), [one, three]);
        words.said(three, true, at(1_300));
        assert_eq!(words.nodes().collect::<Vec<_>>(), [three]);
    }
}
