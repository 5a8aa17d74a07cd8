//! The side of each node: comes up under an incarnation, asks for leases, and comes back as another when it has
//! lost one.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::granting::Granting;
use super::room::DiskWord;
use crate::executor::TaskRefusal;
use crate::lease::{Lease, LeaseReply, LeaseRequest, Standing, boot_time};
use crate::link::Links;
use crate::members::IdentityFile;
use crate::node_id::Incarnation;
use crate::raft::{AppliedRoutes, GroupHandle, RouteGroup, RouteStateMachine, ask_member};
use crate::routes::command::NodeUp;
use crate::routes::{NodeState, RouteReply};
use crate::wire;

/// Between two requests, and between two ticks of the lease.
const ASK: Duration = Duration::from_millis(400);
const TICK: Duration = Duration::from_millis(100);
/// Longest wait for the leader's word on one request.
const WORD: Duration = Duration::from_secs(1);
/// Longest wait for the entry that says that this node is up.
const UP: Duration = Duration::from_secs(60);
/// Pause before what could not be done is tried again.
const PAUSE: Duration = Duration::from_millis(200);

/// Keeps the lease of this node.
pub(crate) struct Holder {
    pub(crate) routes: GroupHandle<RouteGroup, RouteStateMachine>,
    pub(crate) table: AppliedRoutes,
    pub(crate) links: Arc<Links>,
    pub(crate) lease: Lease,
    pub(crate) granting: Arc<Granting>,
    pub(crate) identity: Arc<IdentityFile>,
    pub(crate) disk: DiskWord,
}

impl Holder {
    /// Comes up, serves, comes back; under `first` at first. Runs until it is dropped.
    pub(crate) async fn run(self, first: Incarnation) {
        let mut incarnation = first;
        loop {
            if self.come_up(incarnation).await {
                self.serve(incarnation).await;
                tracing::warn!(
                    incarnation = incarnation.0,
                    "the lease is lost: this node comes back as another"
                );
            }
            incarnation = self.next().await;
        }
    }

    async fn next(&self) -> Incarnation {
        let mut told = false;
        loop {
            let identity = self.identity.clone();
            match tokio::task::spawn_blocking(move || identity.next_incarnation()).await {
                Ok(Ok(incarnation)) => return incarnation,
                // As long as it takes: the disk may be full, and have room again.
                Ok(Err(_)) if told => {}
                Ok(Err(error)) => {
                    told = true;
                    tracing::error!(%error, "no new incarnation can be written: the node stays away")
                }
                Err(error) => tracing::error!(%error, "no new incarnation"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Has the table say that this node is up, and gets a first lease; `false` if that incarnation is over.
    async fn come_up(&self, incarnation: Incarnation) -> bool {
        let node = self.links.node();
        loop {
            match self.routes.proposer.propose(NodeUp { node, incarnation }.into(), UP).await {
                Ok(RouteReply::Ended(_)) => break,
                Ok(_) => return false,
                Err(error) => {
                    tracing::info!(%error, "waits to come up");
                    // Some errors come at once.
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        self.links.set_incarnation(incarnation);
        loop {
            if self.table.node(node) != Some(NodeState::Up(incarnation)) {
                return false;
            }
            if let Some((sent, reply)) = self.ask(incarnation).await
                && self.has_applied(reply.commit).await
            {
                self.lease.begin_anew();
                self.lease.grant(sent, reply.granted());
                if self.lease.holds() {
                    tracing::info!(incarnation = incarnation.0, "this node serves");
                    return true;
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Renews the lease until it is lost.
    async fn serve(&self, incarnation: Incarnation) {
        let node = self.links.node();
        let renew = async {
            loop {
                tokio::time::sleep(ASK).await;
                if let Some((sent, reply)) = self.ask(incarnation).await
                    // Nearly applied is enough: a node that is far behind would route by what was long ago.
                    && self.has_applied(reply.commit).await
                {
                    self.lease.grant(sent, reply.granted());
                }
            }
        };
        let watch = async {
            loop {
                tokio::time::sleep(TICK).await;
                if self.table.node(node) != Some(NodeState::Up(incarnation)) {
                    tracing::error!(incarnation = incarnation.0, "the cluster has declared this node down");
                    self.lease.lose();
                }
                if self.lease.tick() == Standing::Lost {
                    return;
                }
            }
        };
        tokio::select! {
            () = renew => {}
            () = watch => {}
        }
    }

    /// Whether this node's table has that index, or has it in a moment. One whose group has stopped never will.
    async fn has_applied(&self, index: u64) -> bool {
        matches!(tokio::time::timeout(WORD, self.table.wait_for(index)).await, Ok(true))
    }

    /// Asks the leader; when it was asked, and what it granted.
    async fn ask(&self, incarnation: Incarnation) -> Option<(Duration, LeaseReply)> {
        let low = self.disk.is_low();
        let request = LeaseRequest { incarnation, applied: self.table.index(), low };
        let leader = self.routes.leader()?;
        let sent = boot_time();
        let reply = if leader == self.links.node() {
            tokio::time::timeout(WORD, self.granting.grant(leader, request)).await.ok()?
        } else {
            let bytes = Bytes::from(wire::encode(&request).ok()?);
            match ask_member::<RouteGroup>(&self.links, leader, bytes, WORD).await {
                Ok(reply) => wire::decode(&reply).map_err(|error| TaskRefusal::Malformed(error.to_string())),
                Err(error) => {
                    tracing::debug!(%error, "no word on the lease");
                    return None;
                }
            }
        };
        match reply {
            Ok(reply) => {
                let table = self.table.table();
                let is_gone = |state: &NodeState| matches!(state, NodeState::Down(_));
                let gone = table.nodes().iter().filter(|(_, state)| is_gone(state)).map(|(node, _)| *node);
                self.disk.low.set(reply.low.iter().copied(), gone, boot_time());
                Some((sent, reply))
            }
            Err(error) => {
                tracing::debug!(%error, "no lease");
                None
            }
        }
    }
}
