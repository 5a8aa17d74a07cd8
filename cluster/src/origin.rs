//! PURE: how a group does what it is asked once, though the asking node repeats itself until it has an answer.
//!
//! A node has one batch of commands on its way at a time, under a number that it never uses again. Each replica
//! remembers the last number of each node with its answer: who asks again gets the same answer, and nothing is
//! done twice.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::node_id::{Incarnation, NodeId};

/// Where a batch comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The node that asks.
    pub node: NodeId,
    /// Which start of its process: numbers begin anew with each.
    pub start: Incarnation,
    /// Grows by one from batch to batch.
    pub number: u64,
}

/// Whether a batch has been there before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen<R> {
    /// Never: it is to be done.
    New,
    /// It was done, and this was the answer.
    Done(R),
    /// A later one of the same node was done: nobody waits for this one any more.
    Superseded,
}

/// The last batch of each node and its answer: part of a group's replicated state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered<R>(BTreeMap<NodeId, (Incarnation, u64, R)>);

impl<R> Default for Answered<R> {
    fn default() -> Self {
        Answered(BTreeMap::new())
    }
}

impl<R: Clone> Answered<R> {
    /// Whether the batch of `origin` was done before.
    #[must_use]
    pub fn seen(&self, origin: Origin) -> Seen<R> {
        match self.0.get(&origin.node) {
            Some((start, number, answer)) if (*start, *number) == (origin.start, origin.number) => {
                Seen::Done(answer.clone())
            }
            Some((start, number, _)) if (*start, *number) > (origin.start, origin.number) => Seen::Superseded,
            _ => Seen::New,
        }
    }

    /// The batch of `origin` was done with that answer.
    pub fn remember(&mut self, origin: Origin, answer: R) {
        self.0.insert(origin.node, (origin.start, origin.number, answer));
    }

    /// The node will never ask again.
    pub fn forget(&mut self, node: NodeId) {
        self.0.remove(&node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(start: u64, number: u64) -> Origin {
        Origin { node: NodeId::new(1), start: Incarnation(start), number }
    }

    #[test]
    fn a_repetition_gets_the_same_answer_and_an_older_one_none() {
        let mut answered = Answered::default();
        assert_eq!(answered.seen(origin(1, 1)), Seen::New);
        answered.remember(origin(1, 1), "a");
        answered.remember(origin(1, 2), "b");
        assert_eq!(answered.seen(origin(1, 2)), Seen::Done("b"));
        assert_eq!(answered.seen(origin(1, 1)), Seen::Superseded);
        assert_eq!(answered.seen(origin(1, 3)), Seen::New);
    }

    #[test]
    fn a_new_start_begins_anew_and_ends_the_one_before() {
        let mut answered = Answered::default();
        answered.remember(origin(1, 900), "a");
        assert_eq!(answered.seen(origin(2, 1)), Seen::New);
        answered.remember(origin(2, 1), "b");
        assert_eq!(answered.seen(origin(1, 901)), Seen::Superseded);
        let elsewhere = Origin { node: NodeId::new(2), ..origin(1, 1) };
        assert_eq!(answered.seen(elsewhere), Seen::New);
        answered.forget(NodeId::new(1));
        assert_eq!(answered.seen(origin(1, 1)), Seen::New);
    }
}
