//! The cluster, as `althing cluster status` shows it.

use std::sync::Arc;

use althing_cluster::cluster::{Cluster, ClusterView};
use althing_cluster::node_id::NodeId;
use althing_cluster::routes::NodeState;

use crate::admin::status::{ClusterStatus, GroupStatus, MemberState, MemberStatus, NodeStatus, StatusSource};

/// Looks at the cluster at each request.
#[must_use]
pub(crate) fn source(cluster: &Arc<Cluster>, name: &str) -> StatusSource {
    let (cluster, name) = (Arc::clone(cluster), name.to_owned());
    Arc::new(move || show(&cluster.view(), &name))
}

/// PURE: the same in the words of the admin door.
fn show(view: &ClusterView, own: &str) -> ClusterStatus {
    let name_of = |node: &NodeId| {
        let known = view.members.iter().find(|member| member.id == *node);
        known.map_or_else(|| node.to_string(), |member| member.name.clone())
    };
    let names = |nodes: &[NodeId]| {
        let mut names: Vec<String> = nodes.iter().map(name_of).collect();
        names.sort();
        names
    };
    let groups = view.groups.iter().map(|group| GroupStatus {
        name: group.name.to_owned(),
        leader: group.leader.as_ref().map(name_of),
        term: group.term,
        last_log: Some(group.last_log),
        applied: Some(group.applied),
        voters: names(&group.voters),
        learners: names(&group.learners),
    });
    let members = view.members.iter().map(|member| MemberStatus {
        id: member.id.to_string(),
        name: member.name.clone(),
        address: member.address.clone(),
        state: match member.state {
            Some(NodeState::Up(_)) => MemberState::Up,
            Some(NodeState::Down(_)) => MemberState::Down,
            None => MemberState::Unknown,
        },
        connected: member.id == view.node || member.lanes.iter().any(|lane| lane.version.is_some()),
        sessions: member.sessions,
    });
    let remaining = u64::try_from(view.lease_remaining.as_millis()).unwrap_or(u64::MAX);
    ClusterStatus {
        node: NodeStatus {
            id: view.node.to_string(),
            name: own.to_owned(),
            incarnation: view.incarnation.0,
            standing: view.standing.into(),
            lease_remaining_ms: Some(remaining),
        },
        groups: groups.collect(),
        members: members.collect(),
        sessions: view.sessions,
        waiting_for: view.waiting_for.clone(),
    }
}
