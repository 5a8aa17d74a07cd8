//! What `althing cluster status` shows: one node's view of its cluster.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use althing_cluster::lease;

use crate::node::NodeContext;

/// Asked at each status request; it must answer at once.
pub type StatusSource = Arc<dyn Fn() -> ClusterStatus + Send + Sync>;

/// One node's view of its cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// The node that answers.
    pub node: NodeStatus,
    /// The Raft groups; none where the node is a server by itself.
    pub groups: Vec<GroupStatus>,
    /// All nodes of the cluster that this one knows, itself too.
    pub members: Vec<MemberStatus>,
    /// Sessions in the route table, of all nodes.
    pub sessions: usize,
    /// What the node waits for before it serves, in words for the operator.
    pub waiting_for: Option<String>,
}

impl ClusterStatus {
    /// Whether the node serves and knows a leader of every group that it belongs to.
    #[must_use]
    pub fn settled(&self) -> bool {
        self.node.standing == Standing::Serving
            && self.groups.iter().all(|group| group.leader.is_some() || group.is_foreign())
    }

    /// The name of the member with that id.
    #[must_use]
    pub fn name_of(&self, id: &str) -> Option<&str> {
        self.members.iter().find(|member| member.id == id).map(|member| member.name.as_str())
    }
}

/// The node that answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its id: 16 hexadecimal digits.
    pub id: String,
    /// `node.name`.
    pub name: String,
    /// How often it has been started.
    pub incarnation: u64,
    /// Whether it may act.
    pub standing: Standing,
    /// How long its lease still holds, in milliseconds; `None` where it needs none.
    pub lease_remaining_ms: Option<u64>,
}

/// Whether a node may act ([`lease::Standing`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// The lease holds.
    Serving,
    /// The lease is over; sessions are kept for a while.
    Suspended,
    /// The lease has been over for so long that the sessions are closed.
    Lost,
}

impl From<lease::Standing> for Standing {
    fn from(standing: lease::Standing) -> Self {
        match standing {
            lease::Standing::Serving => Standing::Serving,
            lease::Standing::Suspended => Standing::Suspended,
            lease::Standing::Lost => Standing::Lost,
        }
    }
}

/// One Raft group as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupStatus {
    /// `routes` or `store`.
    pub name: String,
    /// Name of the leader; `None` while none is known.
    pub leader: Option<String>,
    /// The Raft term.
    pub term: u64,
    /// Index of the last entry in this node's log; `None` where the node holds no log of the group.
    pub last_log: Option<u64>,
    /// Index of the last entry that this node has applied.
    pub applied: Option<u64>,
    /// Names of the members with a vote.
    pub voters: Vec<String>,
    /// Names of the members without one.
    pub learners: Vec<String>,
}

impl GroupStatus {
    /// Whether the node is outside the group, as one that holds no replica of the store.
    #[must_use]
    pub fn is_foreign(&self) -> bool {
        self.voters.is_empty() && self.learners.is_empty() && self.last_log == Some(0)
    }
}

/// One node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberStatus {
    /// Its id: 16 hexadecimal digits.
    pub id: String,
    /// Its `node.name`.
    pub name: String,
    /// `host:port` of its links; empty where it has none.
    pub address: String,
    /// What the route table says of it.
    pub state: MemberState,
    /// Whether this node has a link to it; true for itself.
    pub connected: bool,
    /// Its sessions in the route table.
    pub sessions: usize,
}

/// What the route table says of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberState {
    /// It is up.
    Up,
    /// It is down; its sessions are gone.
    Down,
    /// It was never up.
    Unknown,
}

/// The source of a node that is a server by itself.
#[must_use]
pub fn single(context: &Arc<NodeContext>) -> StatusSource {
    let context = Arc::clone(context);
    Arc::new(move || {
        let (id, name) = (context.node_id.to_string(), context.config().node.name.clone());
        let sessions = context.routes.sessions();
        ClusterStatus {
            node: NodeStatus {
                id: id.clone(),
                name: name.clone(),
                incarnation: 1,
                standing: context.lease.standing().into(),
                lease_remaining_ms: None,
            },
            groups: Vec::new(),
            members: vec![MemberStatus {
                id,
                name,
                address: String::new(),
                state: MemberState::Up,
                connected: true,
                sessions,
            }],
            sessions,
            waiting_for: None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[actix_rt::test]
    async fn a_single_node_serves_without_groups() {
        let status = single(&Arc::new(NodeContext::for_tests()))();
        assert!(status.settled());
        assert_eq!(status.name_of("0000000000000001"), Some("node-0"));
        let text = serde_json::to_string(&status).unwrap();
        assert!(text.contains("\"standing\":\"serving\""), "{text}");
        assert_eq!(serde_json::from_str::<ClusterStatus>(&text).unwrap(), status);
    }

    #[actix_rt::test]
    async fn without_leader_or_lease_a_node_is_not_settled() {
        let mut status = single(&Arc::new(NodeContext::for_tests()))();
        status.groups.push(GroupStatus {
            name: "routes".into(),
            leader: None,
            term: 3,
            last_log: Some(1),
            applied: Some(1),
            voters: vec!["node-0".into()],
            learners: vec![],
        });
        assert!(!status.settled());
        status.groups[0].leader = Some("node-0".into());
        assert!(status.settled());
        status.node.standing = Standing::Suspended;
        assert!(!status.settled());
    }
}
