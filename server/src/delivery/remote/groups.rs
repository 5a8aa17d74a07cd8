//! PURE: the copies of one stanza that another node has sent to several sessions of this one, found together again.
//!
//! Each comes as a task of its own, in the order of its receiver. Where all of them are left in mailboxes of sessions that
//! end, the stanza is looked up once more, here: the sender's node has been told that it was delivered.

use std::collections::VecDeque;
use std::sync::Arc;

use althing_cluster::executor::TaskSource;
use althing_cluster::routes::Route;

use crate::delivery::receivers::Receiver;
use crate::session::copies::Copies;

/// Most groups that are remembered. Their copies come close together; of a forgotten one nobody notices that all have
/// failed.
pub const MAX_GROUPS: usize = 64;

/// Which stanza of its sender's node a copy is of, and how many copies go where it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group {
    /// The number of the stanza.
    pub number: u64,
    /// How many sessions of the receiver's node get it; 0 where others elsewhere do too, or where nobody misses it.
    pub here: u32,
}

impl Group {
    /// The group of the copy for the session of `route`, one of `receivers`.
    #[must_use]
    pub fn of(number: u64, route: &Route, receivers: &[Receiver], presence: bool) -> Group {
        let elsewhere = presence || receivers.iter().any(|other| other.route.node != route.node);
        let here = if elsewhere { 0 } else { u32::try_from(receivers.len()).unwrap_or(0) };
        Group { number, here }
    }
}

/// The groups whose copies have come last.
#[derive(Debug, Default)]
pub struct Groups {
    latest: VecDeque<(TaskSource, u64, Arc<Copies>)>,
}

impl Groups {
    /// The copies of a group that `source` has sent.
    pub fn of(&mut self, source: TaskSource, group: Group) -> Arc<Copies> {
        if group.here == 0 {
            // Somebody else has it: this one is never the last that fails.
            return Copies::new(2);
        }
        let known = |(of, number, _): &&(TaskSource, u64, Arc<Copies>)| {
            (of.node, of.incarnation, *number) == (source.node, source.incarnation, group.number)
        };
        if let Some((.., copies)) = self.latest.iter().rev().find(known) {
            return Arc::clone(copies);
        }
        if self.latest.len() >= MAX_GROUPS {
            self.latest.pop_front();
        }
        let copies = Copies::new(group.here as usize);
        self.latest.push_back((source, group.number, Arc::clone(&copies)));
        copies
    }
}

#[cfg(test)]
mod tests {
    use althing_cluster::node_id::{Incarnation, NodeId};

    use super::*;

    fn source(node: u64) -> TaskSource {
        TaskSource { node: NodeId::new(node), incarnation: Incarnation(1), applied: 0 }
    }

    #[test]
    fn copies_of_one_stanza_count_together() {
        let mut groups = Groups::default();
        let pair = Group { number: 7, here: 2 };
        assert!(!groups.of(source(1), pair).failed());
        assert!(!groups.of(source(2), pair).failed(), "of another node");
        assert!(!groups.of(source(1), Group { number: 8, here: 2 }).failed(), "another stanza");
        assert!(groups.of(source(1), pair).failed());
        let elsewhere = Group { number: 9, here: 0 };
        assert!(!groups.of(source(1), elsewhere).failed() && !groups.of(source(1), elsewhere).failed());
    }

    #[test]
    fn few_are_remembered() {
        let mut groups = Groups::default();
        for number in 0..3 * MAX_GROUPS as u64 {
            let _ = groups.of(source(1), Group { number, here: 2 });
        }
        assert_eq!(groups.latest.len(), MAX_GROUPS);
    }
}
