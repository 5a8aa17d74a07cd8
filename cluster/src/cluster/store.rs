//! The store group, as the store uses it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;

use crate::disk::{LowNodes, ReplicaRoom, have_room};
use crate::lease::boot_time;
use crate::node_id::NodeId;
use crate::raft::{
    AppliedRoutes, GroupHandle, ProposeError, RouteGroup, RouteStateMachine, StoreGroup, StoreMachine,
};
use crate::routes::NodeState;
use crate::store_log::{StoreLog, StoreLogError};

/// Longest wait for the group. Above two elections.
const DEADLINE: Duration = Duration::from_secs(8);

/// The same for a command that keeps its place. Who waits for it waits for longer: then it is certain that it is not done.
const IN_ORDER: Duration = Duration::from_secs(25);

pub(super) struct ClusterStore {
    pub(super) group: GroupHandle<StoreGroup, StoreMachine>,
    pub(super) routes: GroupHandle<RouteGroup, RouteStateMachine>,
    pub(super) node: NodeId,
    pub(super) table: AppliedRoutes,
    pub(super) low: Arc<LowNodes>,
}

#[async_trait]
impl StoreLog for ClusterStore {
    fn is_replica(&self) -> bool {
        self.replicas().contains(&self.node)
    }

    fn replicas(&self) -> Vec<NodeId> {
        let metrics = self.group.metrics();
        let mut voters: Vec<NodeId> = metrics.membership_config.voter_ids().collect();
        if voters.is_empty() {
            // A node that holds no replica knows nothing of the group. Those that vote on the routes hold one, as a
            // rule; one that does not says so, and the next is asked.
            return self.routes.numbers().voters;
        }
        // The leader needs no round trip for a linearizable read.
        voters.sort_by_key(|node| Some(*node) != metrics.current_leader);
        voters
    }

    async fn write(&self, command: Bytes) -> Result<Bytes, StoreLogError> {
        self.propose(command, DEADLINE).await
    }

    async fn write_in_order(&self, command: Bytes, deadline: Instant) -> Result<Bytes, StoreLogError> {
        self.propose(command, deadline.saturating_duration_since(Instant::now()).min(IN_ORDER)).await
    }

    fn has_room(&self) -> bool {
        if self.low.is_empty() {
            return true;
        }
        let now = boot_time();
        let known = |node: NodeId| ReplicaRoom {
            is_low: self.low.has(node),
            gone_for: match self.table.node(node) {
                Some(NodeState::Up(_)) => Duration::ZERO,
                Some(NodeState::Down(_)) => self.low.gone_for(node, now),
                None => Duration::MAX,
            },
        };
        have_room(&self.replicas().into_iter().map(known).collect::<Vec<_>>())
    }

    async fn barrier(&self) -> Result<(), StoreLogError> {
        match self.group.barrier.pass(DEADLINE).await {
            true => Ok(()),
            false => Err(StoreLogError::Unavailable("the store group has no leader that answers".to_owned())),
        }
    }
}

impl ClusterStore {
    async fn propose(&self, command: Bytes, deadline: Duration) -> Result<Bytes, StoreLogError> {
        self.group.proposer.propose(command, deadline).await.map_err(|error| match error {
            ProposeError::Unknown(_) => StoreLogError::Unknown,
            other => StoreLogError::Unavailable(other.to_string()),
        })
    }
}
