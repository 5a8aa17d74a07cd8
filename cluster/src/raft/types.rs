//! The types of the Raft groups.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::node_id::NodeId;
use crate::routes::{RouteBatch, RouteReplies};

/// What a group's membership keeps of a node: enough to reach it and to tell an operator who it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Member {
    /// The node's stable name.
    pub name: String,
    /// Where it takes links, as host and port; resolved anew at each connect.
    pub address: String,
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.name, self.address)
    }
}

openraft::declare_raft_types!(
    /// The group that orders the changes of the route table.
    pub RouteGroup:
        D = RouteBatch,
        R = RouteReplies,
        NodeId = NodeId,
        Node = Member,
);
