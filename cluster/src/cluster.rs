//! One node's part in the cluster, assembled: links, both groups, lease, members, on a runtime of their own, so that
//! a login storm cannot starve heartbeats.

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

use crate::durable::create_private;
use crate::executor::{LaneService, TaskExecutor, TaskRefusal};
use crate::lease::{Lease, LeaseTimes};
use crate::link::frame::Lane;
use crate::link::hello::{ClusterId, Hello, VERSION_MAX, VERSION_MIN};
use crate::link::{LinkLimits, LinkTimes, LinkTls, Links};
use crate::members::group::{Group as MemberGroup, GroupName};
use crate::members::voters::Rules;
use crate::members::{Discovery, IdentityFile, Place, Seed, Settle, Settled, keeper};
use crate::node_id::{Incarnation, NodeId};
use crate::raft::fatal;
use crate::raft::group::GroupParts;
use crate::raft::service::{Groups, Late};
use crate::raft::state_machine::{RouteEvents, RouteSpool};
use crate::raft::{
    AppliedRoutes, GroupHandle, GroupTimes, LogOptions, LogStore, RaftGroup, RaftRoutes, RouteGroup,
    RouteStateMachine, StoreGroup, StoreMachine, StoreSpool,
};
use crate::routes::command::NodeDown;
use crate::routes::{NodeState, Routes};
use crate::store_log::{Replica, StoreLog};
use crate::upkeep::granting::Granting;
use crate::upkeep::holder::Holder;

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
            runtime.block_on(assemble(config, listener, executor, replica, hooks))?;
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
        Arc::new(store::ClusterStore { group, routes, node: self.node() })
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

type Assembled =
    (Parts, Arc<RaftRoutes>, RouteEvents, watch::Receiver<String>, watch::Receiver<Option<String>>);

/// Opens what is on disk; blocks, so off the workers.
async fn open<T: Send + 'static>(
    what: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, ClusterError> {
    tokio::task::spawn_blocking(what).await.map_err(ClusterError::of)?.map_err(ClusterError::of)
}

fn log_options() -> LogOptions {
    LogOptions { cache_bytes: LOG_CACHE, ..LogOptions::default() }
}

async fn assemble(
    config: ClusterConfig,
    listener: TcpListener,
    executor: Arc<dyn TaskExecutor>,
    replica: Arc<dyn Replica>,
    hooks: Hooks,
) -> Result<Assembled, ClusterError> {
    let dirs = [config.dir.clone(), config.dir.join("routes"), config.dir.join("store")];
    let made = dirs.clone();
    open(move || made.iter().try_for_each(|dir| create_private(dir))).await?;
    let [dir, route_dir, store_dir] = dirs;
    let identity = open(move || IdentityFile::open(&dir)).await?;
    let identity = Arc::new(identity);
    let own = identity.clone();
    let incarnation = open(move || own.next_incarnation()).await?;

    let listener = Links::adopt(listener).map_err(ClusterError::of)?;
    let hello = Hello {
        // Known once the node has settled.
        cluster: ClusterId(0),
        node: config.node,
        name: config.name.clone(),
        incarnation,
        min: VERSION_MIN,
        max: VERSION_MAX,
    };
    let late = Arc::new(Late::<Groups>::default());
    let set = (LinkTimes::default(), LinkLimits::default());
    let links = Links::start(hello, config.tls.clone(), set, listener, executor, Some(late.clone()));
    let links = Arc::new(links);
    let lease = Lease::new(config.lease);

    let on_batch = |name: &'static str| {
        let hook = hooks.on_batch.clone();
        Box::new(move |commands: usize, took: Duration| hook(name, commands, took))
    };
    let granting = Arc::new(Late::<Arc<Granting>>::default());
    let mut machine = open({
        let dir = route_dir.clone();
        move || RouteStateMachine::open(&dir)
    })
    .await?;
    let (table, events) = (machine.routes(), machine.events());
    let (route_group, route_service) = GroupHandle::start(GroupParts {
        links: links.clone(),
        start: incarnation,
        dir: route_dir.clone(),
        times: config.groups,
        log: open(move || LogStore::open(&route_dir, log_options())).await?,
        machine,
        applied: table.watch(),
        spool: RouteSpool,
        members: granting.clone(),
        on_batch: on_batch("routes"),
    })
    .await
    .map_err(ClusterError::of)?;
    let machine = StoreMachine::open(replica.clone(), &store_dir).await.map_err(ClusterError::of)?;
    let (store_group, store_service) = GroupHandle::start(GroupParts {
        links: links.clone(),
        start: incarnation,
        dir: store_dir.clone(),
        times: config.groups,
        log: open(move || LogStore::open(&store_dir, log_options())).await?,
        applied: machine.applied(),
        machine,
        spool: StoreSpool(replica),
        members: Arc::new(Silent),
        on_batch: on_batch("store"),
    })
    .await
    .map_err(ClusterError::of)?;
    let parts = Parts {
        links: links.clone(),
        table: table.clone(),
        route_group,
        store_group,
        lease,
        leaving: watch::Sender::new(false),
    };
    let (waiting, failure) =
        background(&config, &parts, identity, incarnation, hooks.on_down, &granting, |doorman| {
            late.set(Groups { routes: route_service, store: store_service, members: doorman });
        });
    let (proposer, barrier) = (parts.route_group.proposer.clone(), parts.route_group.barrier.clone());
    let routes = Arc::new(RaftRoutes::new(links, table, proposer, barrier));
    Ok((parts, routes, events, waiting, failure))
}

/// Starts what goes on beside: settling, leases, voters.
fn background(
    config: &ClusterConfig,
    parts: &Parts,
    identity: Arc<IdentityFile>,
    incarnation: Incarnation,
    on_down: Box<dyn Fn(NodeId) + Send + Sync>,
    granting: &Late<Arc<Granting>>,
    open_door: impl FnOnce(Arc<dyn LaneService>),
) -> (watch::Receiver<String>, watch::Receiver<Option<String>>) {
    let Parts { links, table, route_group, store_group, lease, leaving } = parts.clone();
    let groups: Vec<Arc<dyn MemberGroup>> = vec![
        Arc::new(RaftGroup::new(route_group.raft.clone(), GroupName::Routes)),
        Arc::new(RaftGroup::new(store_group.raft.clone(), GroupName::Store)),
    ];
    let removed = removed::RemovedNodes { table: table.clone(), proposer: route_group.proposer.clone() };
    open_door(Arc::new(Doorman(Discovery {
        node: config.node,
        name: config.name.clone(),
        incarnation,
        identity: identity.clone(),
        groups: groups.clone(),
        removed: Arc::new(removed),
        silence: config.lease.down,
    })));
    let grants =
        Arc::new(Granting::new(route_group.clone(), table.clone(), links.clone(), config.lease, on_down));
    granting.set(grants.clone());

    let known = route_group.metrics();
    let known = known.membership_config.nodes().filter(|(node, _)| **node != config.node);
    let known = known.map(|(_, member)| Seed { name: member.name.clone(), address: member.address.clone() });
    let status = watch::Sender::new("waits for the cluster".to_owned());
    let (waiting, failed) = (status.subscribe(), watch::Sender::new(None));
    let failure = failed.subscribe();
    let stopped = (fatal::stopped(route_group.raft.clone()), fatal::stopped(store_group.raft.clone()));
    let failing = failed.clone();
    tokio::spawn(async move {
        let (routes, store) = stopped;
        let error = tokio::select! { why = routes => why, why = store => why };
        tracing::error!(%error, "this node can take part no longer");
        failing.send_replace(Some(error));
    });
    let settle = Settle {
        own: Place { node: config.node, name: config.name.clone(), address: config.address.clone() },
        incarnation,
        initial: config.initial.clone(),
        known: known.collect(),
        groups: groups.clone(),
        identity: identity.clone(),
        asker: links.clone(),
        fresh: config.fresh,
        status,
    };
    let mut applied = table.watch();
    tokio::spawn({
        let links = links.clone();
        async move {
            loop {
                links.set_applied(*applied.borrow_and_update());
                if applied.changed().await.is_err() {
                    return;
                }
            }
        }
    });
    let holder = Holder { routes: route_group, table, links, lease, granting: grants.clone(), identity };
    tokio::spawn(async move {
        let settled = match settle.run().await {
            Ok(settled) => settled,
            Err(error) => {
                tracing::error!(%error, "this node cannot take part");
                failed.send_replace(Some(error.to_string()));
                return;
            }
        };
        for group in groups {
            tokio::spawn(keeper::keep(group, Rules::default()));
        }
        tokio::spawn(grants.run());
        let mut leaving = leaving.subscribe();
        tokio::spawn(async move {
            tokio::select! {
                () = holder.run(incarnation) => {}
                _ = leaving.wait_for(|leaving| *leaving) => {}
            }
        });
        if let Settled::Started(cluster) = settled
            && let Err(error) = settle.announce(cluster).await
        {
            tracing::error!(%error, "the cluster no longer wants this node");
            failed.send_replace(Some(error.to_string()));
        }
    });
    (waiting, failure)
}
