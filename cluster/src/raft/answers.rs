//! What became of this node's own batches, told as soon as this node has applied them.
//!
//! The leader answers too, but its answer is lost when it is cut off after the batch went out. A bind would then be in
//! the table for seconds before the binding node learns of it.

use std::sync::Arc;

use tokio::sync::watch;

use crate::node_id::{Incarnation, NodeId};
use crate::origin::Origin;

/// A state machine that tells this node's own batches when it has applied them.
pub(crate) trait TellsAnswers<R> {
    /// Where it tells them from now on.
    fn tell_answers(&mut self, answers: OwnAnswers<R>);
}

/// The last answer of the log to one start of one node. Cheap to clone: the state machine tells, the proposer asks.
pub(crate) struct OwnAnswers<R> {
    node: NodeId,
    start: Incarnation,
    last: Arc<watch::Sender<Option<(u64, R)>>>,
}

impl<R> Clone for OwnAnswers<R> {
    fn clone(&self) -> Self {
        OwnAnswers { node: self.node, start: self.start, last: self.last.clone() }
    }
}

impl<R: Clone> OwnAnswers<R> {
    /// For this start of this node.
    pub(crate) fn new(node: NodeId, start: Incarnation) -> Self {
        OwnAnswers { node, start, last: Arc::new(watch::Sender::new(None)) }
    }

    /// Where batches come from that [`OwnAnswers::tell`] takes.
    pub(crate) fn origin(&self, number: u64) -> Origin {
        Origin { node: self.node, start: self.start, number }
    }

    /// This node has applied the batch of `origin`, whose ever it is.
    pub(crate) fn tell(&self, origin: Option<Origin>, answer: &R) {
        if let Some(Origin { node, start, number }) = origin
            && (node, start) == (self.node, self.start)
        {
            self.last.send_replace(Some((number, answer.clone())));
        }
    }

    /// Waits until this node has applied its batch `number`. One that comes by a snapshot is never told.
    pub(crate) async fn of(&self, number: u64) -> R {
        let mut last = self.last.subscribe();
        loop {
            if let Some((have, answer)) = &*last.borrow_and_update()
                && *have == number
            {
                return answer.clone();
            }
            // No error: this holds the sender.
            let _ = last.changed().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The leader that would have answered is cut off: the batch is in the log all the same.
    #[tokio::test]
    async fn a_batch_is_answered_where_it_is_applied() {
        let answers = OwnAnswers::new(NodeId::new(1), Incarnation(2));
        let asked = tokio::spawn({
            let answers = answers.clone();
            async move { answers.of(7).await }
        });
        let other_node = Origin { node: NodeId::new(2), ..answers.origin(7) };
        let other_start = Origin { start: Incarnation(1), ..answers.origin(7) };
        for origin in [None, Some(other_node), Some(other_start), Some(answers.origin(6))] {
            answers.tell(origin, &"not this");
        }
        answers.tell(Some(answers.origin(7)), &"this");
        assert_eq!(asked.await.unwrap(), "this");
        assert_eq!(answers.of(7).await, "this", "also who asks later");
    }
}
