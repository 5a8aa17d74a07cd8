//! PURE: what a whole batch does to the table: each once, with a reply a command and what else has happened.

use super::command::{NodeDown, NodeUp, RouteBatch, RouteCommand, RouteReplies, RouteReply};
use super::table::{BindIndex, RouteTable};
use super::{Ended, RouteEvent};
use crate::origin::Seen;

/// What applying a batch has led to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AppliedBatch {
    /// One reply a command, in their order.
    pub replies: RouteReplies,
    /// What else has happened; nothing for a batch that was done before.
    pub events: Vec<RouteEvent>,
}

impl RouteTable {
    /// Applies the batch that stands at `log_index`, unless it was done before.
    pub fn apply_batch(&mut self, log_index: u64, batch: RouteBatch) -> AppliedBatch {
        let origin = batch.origin();
        match origin.map_or(Seen::New, |origin| self.answered.seen(origin)) {
            Seen::New => {}
            Seen::Done(replies) => return AppliedBatch { replies, events: Vec::new() },
            Seen::Superseded => {
                let replies = RouteReplies(vec![RouteReply::Stale; batch.len()]);
                return AppliedBatch { replies, events: Vec::new() };
            }
        }
        let mut events = Vec::new();
        let mut replies = Vec::with_capacity(batch.len());
        for (at, command) in batch.into_commands().into_iter().enumerate() {
            let node = match &command {
                RouteCommand::NodeUp(NodeUp { node, .. }) | RouteCommand::NodeDown(NodeDown { node, .. }) => {
                    Some(*node)
                }
                _ => None,
            };
            let jid = match &command {
                RouteCommand::Bind(bind) => Some(bind.jid.clone()),
                _ => None,
            };
            let mut reply = self.apply(BindIndex::at(log_index, at), command);
            match (&mut reply, node, jid) {
                (RouteReply::Ended(sessions), Some(node), _) => {
                    let sessions = std::mem::take(sessions);
                    events.push(RouteEvent::Ended(Ended { index: log_index, node, sessions }));
                }
                (RouteReply::Bound { displaced: Some(route), .. }, _, Some(jid)) => {
                    events.push(RouteEvent::Displaced { jid, route: *route });
                }
                _ => {}
            }
            replies.push(reply);
        }
        let replies = RouteReplies(replies);
        if let Some(origin) = origin {
            self.answered.remember(origin, replies.clone());
        }
        AppliedBatch { replies, events }
    }
}
