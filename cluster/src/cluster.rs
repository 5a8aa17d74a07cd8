//! One node's part in the cluster, assembled: links, both groups, lease, members, on a runtime of their own, so that
//! a login storm cannot starve heartbeats.

mod assemble;
mod removed;
mod store;
mod view;

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::disk::LowNodes;
use crate::executor::{LaneService, TaskExecutor, TaskRefusal};
use crate::lease::{Lease, LeaseTimes};
use crate::link::frame::Lane;
use crate::link::hello::{ClusterId, Hello};
use crate::link::{LinkTls, Links};
use crate::members::{Discovery, Seed};
use crate::node_id::NodeId;
use crate::raft::state_machine::RouteEvents;
use crate::raft::{
    AppliedRoutes, GroupHandle, GroupTimes, RaftRoutes, RouteGroup, RouteStateMachine, StoreGroup,
    StoreMachine,
};
use crate::routes::command::NodeDown;
use crate::routes::{NodeState, Routes};
use crate::store_log::{Replica, StoreLog};

pub use crate::raft::GroupNumbers;
pub use view::{ClusterView, MemberView};

/// Threads of the cluster's runtime. What they do is short; the disk has threads of its own.
const WORKERS: usize = 2;
/// Longest wait for each step of an orderly end.
const FAREWELL: Duration = Duration::from_secs(3);
/// sled's page cache for each log, in bytes.
const LOG_CACHE: u64 = 16 << 20;

/// How a node takes part.
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// The node's id.
    pub node: NodeId,
    /// Its stable name, which its certificate bears.
    pub name: String,
    /// Under which `host:port` others reach it.
    pub address: String,
    /// The fixed initial set: names and addresses.
    pub initial: Vec<Seed>,
    /// The directory of the logs; made when missing.
    pub dir: PathBuf,
    /// What links prove themselves with.
    pub tls: LinkTls,
    /// Times of the groups.
    pub groups: GroupTimes,
    /// Times of the lease.
    pub lease: LeaseTimes,
    /// A random number that names the cluster if this node begins it.
    pub fresh: ClusterId,
}

/// What the cluster tells while it runs.
pub struct Hooks {
    /// A batch of that group was answered: so many commands, in that time.
    pub on_batch: Arc<dyn Fn(&'static str, usize, Duration) + Send + Sync>,
    /// This node, as the leader, has declared a node down.
    pub on_down: Box<dyn Fn(NodeId) + Send + Sync>,
}

/// Why a node cannot take part.
#[derive(Debug, thiserror::Error)]
#[error("the cluster cannot be joined: {0}")]
pub struct ClusterError(String);

impl ClusterError {
    fn of(error: impl std::fmt::Display) -> Self {
        ClusterError(error.to_string())
    }
}

/// One node's part in the cluster. Dropping it ends it at once, as a crash would; [`Cluster::stop`] is orderly.
pub struct Cluster {
    runtime: Mutex<Option<Runtime>>,
    parts: Parts,
    routes: Arc<RaftRoutes>,
    events: Mutex<Option<RouteEvents>>,
    events_waiting: Arc<AtomicUsize>,
    waiting: watch::Receiver<String>,
    failure: watch::Receiver<Option<String>>,
}

#[derive(Clone)]
struct Parts {
    links: Arc<Links>,
    table: AppliedRoutes,
    route_group: GroupHandle<RouteGroup, RouteStateMachine>,
    store_group: GroupHandle<StoreGroup, StoreMachine>,
    lease: Lease,
    /// Set when the node leaves: from then on it does not come up again.
    leaving: watch::Sender<bool>,
    /// Whose disks are nearly full.
    low: Arc<LowNodes>,
}

/// Answers where only the groups have something to say.
struct Silent;

#[async_trait]
impl LaneService for Silent {
    async fn answer(&self, _: NodeId, _: Lane, _: Bytes) -> Result<Bytes, TaskRefusal> {
        Err(TaskRefusal::Failed("nobody answers that here".to_owned()))
    }
}

/// The discovery lane.
struct Doorman(Discovery);

#[async_trait]
impl LaneService for Doorman {
    async fn answer(&self, _: NodeId, _: Lane, _: Bytes) -> Result<Bytes, TaskRefusal> {
        Err(TaskRefusal::Failed("nobody answers that here".to_owned()))
    }

    async fn discover(&self, from: &Hello, request: Bytes) -> Result<Bytes, TaskRefusal> {
        self.0.answer(from, request).await
    }
}

impl Cluster {
    /// Takes part: opens the logs, starts the groups, and goes on in the background until the node has found its
    /// cluster and serves; [`Cluster::lease`] tells when. Tasks of other nodes run by `executor`, the rows of the
    /// store are kept by `replica`. Blocks for as long as recovery takes; not to be called on an async runtime.
    ///
    /// # Errors
    /// [`ClusterError`]: disk, certificates, address.
    pub fn start(
        config: ClusterConfig,
        listener: TcpListener,
        executor: Arc<dyn TaskExecutor>,
        replica: Arc<dyn Replica>,
        hooks: Hooks,
    ) -> Result<Self, ClusterError> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let builder = builder.worker_threads(WORKERS).thread_name("cluster").enable_all();
        let runtime = builder.build().map_err(ClusterError::of)?;
        let (parts, routes, events, waiting, failure) =
            runtime.block_on(assemble::assemble(config, listener, executor, replica, hooks))?;
        let events_waiting = events.waiting();
        let (runtime, events) = (Mutex::new(Some(runtime)), Mutex::new(Some(events)));
        Ok(Cluster { runtime, parts, routes, events, events_waiting, waiting, failure })
    }

    /// This node's id.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.parts.links.node()
    }

    /// The route table.
    #[must_use]
    pub fn routes(&self) -> Arc<dyn Routes> {
        self.routes.clone()
    }

    /// Tasks for other nodes.
    #[must_use]
    pub fn links(&self) -> &Arc<Links> {
        &self.parts.links
    }

    /// Whether this node may act.
    #[must_use]
    pub fn lease(&self) -> &Lease {
        &self.parts.lease
    }

    /// The store group.
    #[must_use]
    pub fn store_log(&self) -> Arc<dyn StoreLog> {
        let (group, routes) = (self.parts.store_group.clone(), self.parts.route_group.clone());
        let (table, low) = (self.parts.table.clone(), self.parts.low.clone());
        Arc::new(store::ClusterStore { group, routes, node: self.node(), table, low })
    }

    /// Ends what waits for a peer that was declared down, and dials it anew. What it had not taken is dropped: the
    /// sessions that it was for are gone.
    pub fn redial(&self, node: NodeId) {
        let (links, table) = (self.parts.links.clone(), self.parts.table.clone());
        let runtime = self.runtime.lock().as_ref().map(|runtime| runtime.handle().clone());
        if let (Some(runtime), Some(peer)) = (runtime, links.peer(node)) {
            runtime.spawn(async move {
                // What it was sent since it is back is for sessions that it has.
                if !matches!(table.node(node), Some(NodeState::Down(_))) {
                    return;
                }
                let left = links.add_peer(&peer);
                tracing::debug!(member = %node, left = left.len(), "dialed anew: tasks for what has ended are dropped");
            });
        }
    }

    /// The runtime that links and tasks run on; `None` once the cluster is stopped.
    #[must_use]
    pub fn runtime(&self) -> Option<tokio::runtime::Handle> {
        self.runtime.lock().as_ref().map(|runtime| runtime.handle().clone())
    }

    /// What the node waits for before it takes part; `None` when it does.
    #[must_use]
    pub fn waiting_for(&self) -> Option<String> {
        let waiting = self.waiting.borrow().clone();
        match (waiting.is_empty(), self.parts.lease.holds()) {
            (false, _) => Some(waiting),
            (true, true) => None,
            (true, false) => Some(match self.parts.route_group.leader() {
                None => "waits for a leader of the route table".to_owned(),
                Some(_) => "waits for a lease from the leader".to_owned(),
            }),
        }
    }

    /// Why the node can never take part, once that is known: the process should end and say so.
    #[must_use]
    pub fn failure(&self) -> watch::Receiver<Option<String>> {
        self.failure.clone()
    }

    /// Leaves in order: hands leadership on, lets the others know that this start is over, closes logs and links.
    /// Whoever had sessions here is told that they have ended.
    pub async fn stop(&self) {
        let Some(runtime) = self.runtime.lock().take() else { return };
        let parts = self.parts.clone();
        let left = runtime.spawn(async move { parts.leave().await });
        // It is bounded; that it panicked is in the log.
        let _ = left.await;
        let ended = tokio::task::spawn_blocking(move || runtime.shutdown_timeout(FAREWELL));
        let _ = ended.await;
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.lock().take() {
            runtime.shutdown_background();
        }
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("node", &self.node()).finish_non_exhaustive()
    }
}

impl Parts {
    async fn leave(&self) {
        let (node, incarnation) = (self.links.node(), self.links.incarnation());
        let bounded = async |what: &str, step: std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>>| {
            if tokio::time::timeout(FAREWELL, step).await.is_err() {
                tracing::warn!(reason = what, "a step of the end took too long: the others will find out");
            }
        };
        bounded("handing on the store's leadership", Box::pin(self.store_group.hand_on())).await;
        bounded("handing on the routes' leadership", Box::pin(self.route_group.hand_on())).await;
        self.leaving.send_replace(true);
        let down = NodeDown { node, incarnation };
        match self.route_group.proposer.propose(down.into(), FAREWELL).await {
            Ok(_) => tracing::info!("the cluster knows that this node is gone"),
            Err(error) => tracing::warn!(%error, "the cluster could not be told: it will find out"),
        }
        self.lease.lose();
        let (routes, store) = (&self.route_group.raft, &self.store_group.raft);
        // An error says that it has ended already.
        bounded("ending the routes", Box::pin(async { drop(routes.shutdown().await) })).await;
        bounded("ending the store", Box::pin(async { drop(store.shutdown().await) })).await;
    }
}
