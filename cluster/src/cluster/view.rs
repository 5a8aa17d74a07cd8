//! What a node shows of the cluster, for operators.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Cluster;
use crate::lease::Standing;
use crate::link::LaneStatus;
use crate::node_id::{Incarnation, NodeId};
use crate::raft::GroupNumbers;
use crate::raft::state_machine::RouteEvents;
use crate::routes::NodeState;
use crate::routes::table::is_session;

/// One member as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberView {
    /// Its id.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// Where it takes links.
    pub address: String,
    /// What the route table says of it; `None` if it was never up.
    pub state: Option<NodeState>,
    /// Its lanes; empty for this node itself.
    pub lanes: Vec<LaneStatus>,
    /// Sessions that it holds, by the route table.
    pub sessions: usize,
}

/// The cluster as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterView {
    /// This node.
    pub node: NodeId,
    /// Under which it acts.
    pub incarnation: Incarnation,
    /// Whether it may act.
    pub standing: Standing,
    /// How long its lease still holds.
    pub lease_remaining: Duration,
    /// The groups: routes, store.
    pub groups: Vec<GroupNumbers>,
    /// All members, by name.
    pub members: Vec<MemberView>,
    /// Sessions of all nodes.
    pub sessions: usize,
    /// What the node waits for before it takes part; `None` when it does.
    pub waiting_for: Option<String>,
}

impl Cluster {
    /// What the log brings about, in its order. The first call has it, later ones get nothing.
    #[must_use]
    pub fn events(&self) -> Option<RouteEvents> {
        self.events.lock().take()
    }

    /// How many of those events nobody has taken yet.
    #[must_use]
    pub fn events_waiting(&self) -> usize {
        self.events_waiting.load(Ordering::Relaxed)
    }

    /// The groups as this node sees them now; cheap.
    #[must_use]
    pub fn groups(&self) -> Vec<GroupNumbers> {
        vec![self.parts.route_group.numbers(), self.parts.store_group.numbers()]
    }

    /// The members with the state of the links to them; cheap, but without their sessions.
    #[must_use]
    pub fn members(&self) -> Vec<MemberView> {
        let metrics = self.parts.route_group.metrics();
        let members = metrics.membership_config.nodes().map(|(node, member)| MemberView {
            id: *node,
            name: member.name.clone(),
            address: member.address.clone(),
            state: self.parts.table.node(*node),
            lanes: self.parts.links.status(*node),
            sessions: 0,
        });
        let mut members: Vec<_> = members.collect();
        members.sort_by(|a, b| a.name.cmp(&b.name));
        members
    }

    /// Everything, as this node sees it now. Looks at the whole route table.
    #[must_use]
    pub fn view(&self) -> ClusterView {
        let table = self.parts.table.table();
        let mut sessions: BTreeMap<NodeId, usize> = BTreeMap::new();
        for (_, route) in table.routes().filter(|(jid, _)| is_session(jid)) {
            *sessions.entry(route.node).or_default() += 1;
        }
        let mut members = self.members();
        for member in &mut members {
            member.sessions = sessions.get(&member.id).copied().unwrap_or(0);
        }
        ClusterView {
            node: self.parts.links.node(),
            incarnation: self.parts.links.incarnation(),
            standing: self.parts.lease.standing(),
            lease_remaining: self.parts.lease.remaining(),
            groups: self.groups(),
            members,
            sessions: table.sessions(),
            waiting_for: self.waiting_for(),
        }
    }
}
