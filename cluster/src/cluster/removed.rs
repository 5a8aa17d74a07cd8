//! Node ids that were removed for good: down in their last possible incarnation, in the route table.

use std::time::Duration;

use async_trait::async_trait;

use crate::members::discovery::Removed;
use crate::node_id::{Incarnation, NodeId};
use crate::raft::{AppliedRoutes, Proposer, RouteGroup};
use crate::routes::NodeState;
use crate::routes::command::NodeDown;

/// After this no start of a node can follow.
const LAST: Incarnation = Incarnation(u64::MAX);
/// Longest wait for the entry.
const DEADLINE: Duration = Duration::from_secs(4);

pub(super) struct RemovedNodes {
    pub(super) table: AppliedRoutes,
    pub(super) proposer: Proposer<RouteGroup>,
}

#[async_trait]
impl Removed for RemovedNodes {
    fn is_removed(&self, node: NodeId) -> bool {
        self.table.node(node) == Some(NodeState::Down(LAST))
    }

    async fn remove(&self, node: NodeId) -> Result<(), String> {
        if self.is_removed(node) {
            return Ok(());
        }
        let down = NodeDown { node, incarnation: LAST };
        self.proposer.propose(down.into(), DEADLINE).await.map(|_| ()).map_err(|error| error.to_string())
    }
}
