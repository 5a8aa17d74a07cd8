//! The leader's side: grants leases, and declares down whoever has gone without for too long.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use super::clock::AckClock;
use super::room::LowWords;
use crate::executor::{LaneService, TaskRefusal};
use crate::lease::{Granter, LeaseReply, LeaseRequest, LeaseTimes, boot_time};
use crate::link::Links;
use crate::link::frame::Lane;
use crate::members::dead::is_known_dead;
use crate::node_id::{Incarnation, NodeId};
use crate::raft::{AppliedRoutes, GroupHandle, RouteGroup, RouteStateMachine};
use crate::routes::command::{NodeDown, RouteBatch};
use crate::routes::{NodeState, RouteCommand};
use crate::wire;

/// Between two looks at who has gone without a lease.
const LOOK: Duration = Duration::from_millis(250);

/// Grants leases while this node leads the group of routes.
pub(crate) struct Granting {
    routes: GroupHandle<RouteGroup, RouteStateMachine>,
    table: AppliedRoutes,
    links: Arc<Links>,
    times: LeaseTimes,
    state: Mutex<State>,
    /// Told of each node that was declared down.
    on_down: Box<dyn Fn(NodeId) + Send + Sync>,
}

struct State {
    /// The term in which this node leads, and what it has granted in it.
    leading: Option<(u64, Granter)>,
    acks: AckClock,
    low: LowWords,
}

impl Granting {
    pub(crate) fn new(
        routes: GroupHandle<RouteGroup, RouteStateMachine>,
        table: AppliedRoutes,
        links: Arc<Links>,
        times: LeaseTimes,
        on_down: Box<dyn Fn(NodeId) + Send + Sync>,
    ) -> Self {
        let acks = AckClock::new(boot_time(), Instant::now());
        let state = Mutex::new(State { leading: None, acks, low: LowWords::default() });
        Granting { routes, table, links, times, state, on_down }
    }

    /// Looks at the group: when a quorum acknowledged this node as its leader last. `None` while it does not lead.
    fn look(&self, state: &mut State) -> Option<Duration> {
        let (boot, now) = (boot_time(), Instant::now());
        let leads = self.routes.leadership();
        let acked = leads.and_then(|leads| now.checked_sub(leads.acked?));
        let acked = state.acks.look(acked, boot, now);
        match (&state.leading, leads) {
            (Some((known, _)), Some(leads)) if *known == leads.term => {}
            (_, Some(leads)) => state.leading = Some((leads.term, Granter::new(self.times, boot))),
            (_, None) => state.leading = None,
        }
        acked.filter(|_| leads.is_some())
    }

    /// Grants a lease to a node, if this one leads and may.
    pub(crate) async fn grant(&self, node: NodeId, request: LeaseRequest) -> Result<LeaseReply, TaskRefusal> {
        let refused = |why: &str| TaskRefusal::Failed(why.to_owned());
        // An entry of an earlier leader that declares the node down may still be on its way into the table: nobody
        // is granted anything before the table has all of them.
        let commit = self.routes.read_index().await.map_err(TaskRefusal::Failed)?;
        if self.table.index() < commit {
            return Err(refused("the leader has not applied its log yet"));
        }
        let mut state = self.state.lock();
        state.low.said(node, request.low, boot_time());
        let acked = self.look(&mut state).ok_or_else(|| refused("this node does not lead"))?;
        if self.table.node(node) != Some(NodeState::Up(request.incarnation)) {
            return Err(refused("that start of the node is not up"));
        }
        let low = state.low.nodes().collect();
        let (_, granter) = state.leading.as_mut().ok_or_else(|| refused("this node does not lead"))?;
        let granted = granter.grant(node, request.incarnation, boot_time(), acked);
        let granted = granted.ok_or_else(|| refused("there is no lease to grant"))?;
        // Rounded down: the node must not have it for longer than it was granted.
        Ok(LeaseReply { granted_ms: u64::try_from(granted.as_millis()).unwrap_or(0), commit, low })
    }

    /// Declares down who is silent, while this node leads. Runs until it is dropped.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut interval = tokio::time::interval(LOOK);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            if self.look(&mut self.state.lock()).is_none() {
                continue;
            }
            let up: Vec<(NodeId, Incarnation)> = self.up();
            let mut dead = BTreeSet::new();
            for (node, incarnation) in &up {
                if let Some(peer) = self.links.peer(*node)
                    && is_known_dead(&self.links.status(*node), &peer.address).await
                {
                    dead.insert((*node, *incarnation));
                }
            }
            let candidates = {
                let mut state = self.state.lock();
                // A second look: seconds may have passed.
                let acked = self.look(&mut state);
                match (&mut state.leading, acked) {
                    (Some((_, granter)), Some(_)) => granter.down_candidates(boot_time(), self.up(), &dead),
                    _ => continue,
                }
            };
            for (node, incarnation) in candidates {
                let reason =
                    if dead.contains(&(node, incarnation)) { "its process is gone" } else { "it is silent" };
                tracing::warn!(member = %node, reason, "member is declared down");
                self.declare_down(node, incarnation).await;
            }
        }
    }

    fn up(&self) -> Vec<(NodeId, Incarnation)> {
        let table = self.table.table();
        let own = self.links.node();
        let up = table.nodes().iter().filter_map(|(node, state)| match state {
            NodeState::Up(incarnation) if *node != own => Some((*node, *incarnation)),
            _ => None,
        });
        up.collect()
    }

    /// Writes the entry, by this leader and now, or not at all: repeated later it could strike a node that has been
    /// granted a lease by the next leader.
    async fn declare_down(&self, node: NodeId, incarnation: Incarnation) {
        let command = RouteCommand::from(NodeDown { node, incarnation });
        let Ok(batch) = RouteBatch::new(vec![command]) else { return };
        match self.routes.write_once(batch).await {
            Ok(()) => (self.on_down)(node),
            Err(error) => tracing::warn!(member = %node, %error, "the entry was not written"),
        }
    }
}

#[async_trait]
impl LaneService for Granting {
    async fn answer(&self, from: NodeId, _: Lane, request: Bytes) -> Result<Bytes, TaskRefusal> {
        let request = wire::decode(&request).map_err(|error| TaskRefusal::Malformed(error.to_string()))?;
        let reply = self.grant(from, request).await?;
        wire::encode(&reply).map(Bytes::from).map_err(|error| TaskRefusal::Failed(error.to_string()))
    }
}
