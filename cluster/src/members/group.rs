//! A Raft group, as the keeping of its members sees it. [`crate::raft::RaftGroup`] makes one of openraft's.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::message::Place;
use crate::node_id::NodeId;
use crate::raft::Member;

/// Which group. On the wire: new ones are added at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum GroupName {
    /// The route table's.
    Routes,
    /// The store's.
    Store,
}

impl GroupName {
    /// The name, for logs.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            GroupName::Routes => "routes",
            GroupName::Store => "store",
        }
    }
}

/// How the leader sees a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// How long ago it last answered; `None` if it has not answered this leader yet.
    pub heard: Option<Duration>,
    /// How many entries of the log it has yet to get; `None` if that is not known.
    pub lag: Option<u64>,
}

/// The state of a group on this node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupView {
    /// Who leads, as far as this node knows.
    pub leader: Option<NodeId>,
    /// Whether this node leads.
    pub leads: bool,
    /// All members, voters and learners.
    pub members: BTreeMap<NodeId, Member>,
    /// Those that vote. While a change of them is half done, those that will.
    pub voters: BTreeSet<NodeId>,
    /// Whether a change of voters is half done. Only its finish is allowed then.
    pub joint: bool,
    /// How the members do, on the leader only.
    pub progress: BTreeMap<NodeId, Progress>,
}

impl GroupView {
    /// Where the leader is.
    #[must_use]
    pub fn leader_place(&self) -> Option<Place> {
        let node = self.leader?;
        let Member { name, address } = self.members.get(&node)?.clone();
        Some(Place { node, name, address })
    }
}

/// A change of the members. Each is one joint change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A new member, which does not vote; or another address of one that is there.
    Put(NodeId, Member),
    /// These vote; the others stay as learners. Finishes a change that is half done too.
    Voters(BTreeSet<NodeId>),
    /// A new member takes the place, and the vote if it had one, of those, which are removed for good.
    Replace {
        /// Who goes.
        old: BTreeSet<NodeId>,
        /// Who comes.
        node: NodeId,
        /// What is to be kept of it.
        member: Member,
    },
}

/// Why a group was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// Another node leads.
    #[error("another node leads the group")]
    NotLeader(Option<Place>),
    /// Not now: another change is on its way, or there is no quorum.
    #[error("{0}")]
    Busy(String),
    /// The group has stopped, or refuses the change as such.
    #[error("{0}")]
    Failed(String),
}

/// One Raft group on this node.
#[async_trait]
pub trait Group: Send + Sync + 'static {
    /// Which.
    fn name(&self) -> GroupName;

    /// Its state now.
    fn view(&self) -> GroupView;

    /// Whether it has any data, be it only a vote.
    ///
    /// # Errors
    /// [`GroupError::Failed`], when it has stopped.
    async fn is_initialized(&self) -> Result<bool, GroupError>;

    /// Begins it, with those voters. To be called on one node only, ever; nothing happens when it has begun.
    ///
    /// # Errors
    /// [`GroupError::Failed`].
    async fn initialize(&self, voters: BTreeMap<NodeId, Member>) -> Result<(), GroupError>;

    /// Changes its members; returns when the change is committed. Only where it leads.
    ///
    /// # Errors
    /// [`GroupError`].
    async fn change(&self, change: Change) -> Result<(), GroupError>;
}
