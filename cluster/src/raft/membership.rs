//! One of openraft's groups, as the keeping of members sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use openraft::errors::{ChangeMembershipError, ClientWriteError, InitializeError, RaftError};
use openraft::storage::RaftStateMachine;
use openraft::{ChangeMembers, Instant as _, Raft, RaftTypeConfig};

use super::types::Member;
use crate::members::group::{Change, Group, GroupError, GroupName, GroupView, Progress};
use crate::members::message::Place;
use crate::node_id::NodeId;

/// A group of openraft's.
pub struct RaftGroup<C, SM>
where
    C: RaftTypeConfig,
    SM: RaftStateMachine<C>,
{
    raft: Raft<C, SM>,
    name: GroupName,
}

impl<C, SM> RaftGroup<C, SM>
where
    C: RaftTypeConfig,
    SM: RaftStateMachine<C>,
{
    /// That group, under that name.
    #[must_use]
    pub const fn new(raft: Raft<C, SM>, name: GroupName) -> Self {
        RaftGroup { raft, name }
    }
}

#[async_trait]
impl<C, SM> Group for RaftGroup<C, SM>
where
    C: RaftTypeConfig<NodeId = NodeId, Node = Member>,
    SM: RaftStateMachine<C>,
{
    fn name(&self) -> GroupName {
        self.name
    }

    fn view(&self) -> GroupView {
        let metrics = self.raft.metrics();
        let metrics = openraft::async_runtime::WatchReceiver::borrow_watched(&metrics).clone();
        let membership = metrics.membership_config.membership();
        let configs = membership.get_joint_config();
        let mut progress = BTreeMap::new();
        for (node, matched) in metrics.replication.iter().flatten() {
            let lag = matched
                .as_ref()
                .map(|matched| metrics.last_log_index.unwrap_or(0).saturating_sub(matched.index));
            let heartbeat = metrics.heartbeat.as_ref().and_then(|heartbeats| heartbeats.get(node));
            let heard = heartbeat.and_then(Option::as_ref).map(|heard| heard.elapsed());
            progress.insert(*node, Progress { heard, lag });
        }
        let leads = metrics.state.is_leader() && metrics.current_leader == Some(metrics.id);
        if leads {
            progress.insert(metrics.id, Progress { heard: Some(Duration::ZERO), lag: Some(0) });
        }
        GroupView {
            leader: metrics.current_leader,
            leads,
            members: membership.nodes().map(|(node, member)| (*node, member.clone())).collect(),
            voters: configs.last().cloned().unwrap_or_default(),
            joint: configs.len() > 1,
            progress,
        }
    }

    async fn is_initialized(&self) -> Result<bool, GroupError> {
        self.raft.is_initialized().await.map_err(|error| GroupError::Failed(error.to_string()))
    }

    async fn initialize(&self, voters: BTreeMap<NodeId, Member>) -> Result<(), GroupError> {
        match self.raft.initialize(voters).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(error) => Err(GroupError::Failed(error.to_string())),
        }
    }

    async fn change(&self, change: Change) -> Result<(), GroupError> {
        let view = self.view();
        let (change, retain) = match change {
            Change::Put(node, member) => {
                let nodes = BTreeMap::from([(node, member)]);
                // An address may change, an id may not: what is there is replaced only when it is there.
                let known = view.members.contains_key(&node);
                (if known { ChangeMembers::SetNodes(nodes) } else { ChangeMembers::AddNodes(nodes) }, true)
            }
            Change::Voters(voters) => (ChangeMembers::ReplaceAllVoters(voters), true),
            Change::Replace { old, node, member } => replace(&view.voters, old, node, member),
        };
        match self.raft.change_membership(change, retain).await {
            Ok(_) => Ok(()),
            Err(RaftError::APIError(error)) => Err(refused::<C>(error)),
            Err(error) => Err(GroupError::Failed(error.to_string())),
        }
    }
}

/// The new node is there before it votes, and the old ones are gone once they do not: all in one joint change.
fn replace(
    voters: &BTreeSet<NodeId>,
    old: BTreeSet<NodeId>,
    node: NodeId,
    member: Member,
) -> (ChangeMembers<NodeId, Member>, bool) {
    let comes = ChangeMembers::AddNodes(BTreeMap::from([(node, member)]));
    let (voted, learned): (BTreeSet<NodeId>, BTreeSet<NodeId>) =
        old.into_iter().partition(|node| voters.contains(node));
    let learners_go = ChangeMembers::RemoveNodes(learned);
    if voted.is_empty() {
        return (ChangeMembers::Batch(vec![comes, learners_go]), true);
    }
    let mut next: BTreeSet<NodeId> = voters.difference(&voted).copied().collect();
    next.insert(node);
    // Voters that do not vote any more are not kept as learners: they leave with the second half of the change.
    (ChangeMembers::Batch(vec![comes, learners_go, ChangeMembers::ReplaceAllVoters(next)]), false)
}

fn refused<C>(error: ClientWriteError<C>) -> GroupError
where
    C: RaftTypeConfig<NodeId = NodeId, Node = Member>,
{
    match error {
        ClientWriteError::ForwardToLeader(forward) => {
            let place = forward.leader_id.zip(forward.leader_node);
            GroupError::NotLeader(place.map(|(node, Member { name, address })| Place { node, name, address }))
        }
        ClientWriteError::ChangeMembershipError(ChangeMembershipError::InProgress(_)) => {
            GroupError::Busy("another change of members is on its way".to_owned())
        }
        other => GroupError::Failed(other.to_string()),
    }
}
