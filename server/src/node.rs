//! Builds and stops one whole node from its configuration: no process-wide state, so that many run in one
//! process.

mod admins;
mod bounds;
mod offered;
mod parts;
mod reload;
mod retention;
mod stop;
#[cfg(test)]
mod testing;
mod ticks;

use std::hash::RandomState;
use std::net::TcpListener;
use std::sync::{Arc, OnceLock};

use actix_rt::Arbiter;
use actix_web::dev::ServerHandle;
use anyhow::Context;
use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use prometheus::Registry as MetricsRegistry;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tracing::{info, warn};

use althing_cluster::cluster::Cluster;
use althing_cluster::durable::create_private;
use althing_cluster::lease::Lease;
use althing_cluster::link::Links;
use althing_cluster::node_id::NodeId;
use althing_cluster::routes::{BindIndex, Routes};
use althing_proto::jid::Jid;
use althing_proto::privacy::SessionKey;
use althing_proto::stream::StreamConfig;
use althing_proto::time::Timestamp;

use crate::admin::{self, AdminSocket, Health, NodeAdmin};
use crate::cluster_node::{self};
use crate::components::ComponentRegistry;
use crate::config::{Backend, Config};
use crate::delivery::remote::Remote;
use crate::identity::Identity;
use crate::listener::tcp::{self, Connections, Workers};
use crate::listener::tls::TlsContext;
use crate::metrics::{Listener, NodeMetrics};
use crate::modules::{CommandSessions, ExternalServices, Limiter, Pushes, REGISTRY, Reports, Searches};
use crate::pipeline::Registry;
use crate::session::admission::Admission;
use crate::session::losses::Told;
use crate::session::records::{self, Records};
use crate::session::requests::Requests;
use crate::session::{SessionRegistry, logouts::Logouts, lost_lease, orphans};
use crate::statistics::Statistics;
use crate::storage::{PrivacyLimits, RosterLimits, Storage, StorageError};
use bounds::Bounds;
use offered::Offered;
use parts::{Foundation, admission, component_config, load_tls, stream_config, workers};

pub use bounds::Bound;
pub use reload::{Reloader, Source};

/// What every part of a node shares.
pub struct NodeContext {
    config: ArcSwap<Config>,
    /// Bounds that open sessions follow.
    pub bounds: Bounds,
    /// Durable data.
    pub storage: Storage,
    /// This node's id.
    pub node_id: NodeId,
    /// Who is where.
    pub routes: Arc<dyn Routes>,
    /// Whether this node may act now.
    pub lease: Lease,
    /// The other nodes.
    pub links: Arc<Links>,
    /// Stanzas on their way to sessions of other nodes.
    pub remote: Remote,
    /// Makes the hashes of addresses that sessions remember: nobody outside can choose them to collide.
    pub seen_keys: RandomState,
    /// When the node was started.
    pub started: Timestamp,
    /// IQs of the server itself that wait for their answers.
    pub requests: Requests,
    /// Who left, on the way into the store.
    pub logouts: Logouts,
    /// The arbiters that carry connections, for sessions without one.
    pub workers: OnceLock<Workers>,
    /// What the store knows of the node's streams.
    pub records: Records,
    /// By which messages of streams get their ids, on all nodes; not known at first.
    pub stream_secret: OnceLock<[u8; 32]>,
    /// Which losses its sessions have been told of.
    pub losses: Told,
    /// Messages on the way into the store, and out of it.
    pub waiting: crate::delivery::keep::Waiting,
    /// Who may search how often.
    pub searches: Searches,
    /// Services outside of XMPP that users are told of.
    pub external_services: ExternalServices,
    /// Who is to be told that something waits.
    pub pushes: Pushes,
    /// Who may report abuse how often.
    pub reports: Reports,
    /// Commands that wait for their askers.
    pub commands: CommandSessions,
    /// The sessions of this node.
    pub sessions: SessionRegistry,
    /// The components of this node.
    pub components: ComponentRegistry,
    /// The modules, in order.
    pub modules: Registry,
    /// Parts with figures of their own, beside the modules.
    pub statistics: Statistics,
    /// Counters and gauges.
    pub metrics: NodeMetrics,
    /// Open connections, for the limits.
    pub connections: Arc<Connections>,
    /// Who may register how often.
    pub registration: Limiter,
    offered: ArcSwap<Offered>,
    /// Makes the salt of unknown users: stable over restarts, so that it gives nobody away.
    pub decoy_secret: [u8; 32],
    /// Who may begin a session now.
    pub admission: Admission,
    /// One permit a core for work that fills one, such as PBKDF2.
    pub hashing: Semaphore,
    /// Turns true when the node stops.
    pub stopping: watch::Sender<bool>,
    tls: ArcSwapOption<TlsContext>,
    random: SystemRandom,
}

impl NodeContext {
    /// The configuration in force; another may take its place at any time. Hold it for one thing to do, not longer.
    #[must_use]
    pub fn config(&self) -> Guard<Arc<Config>> {
        self.config.load()
    }

    /// The wall clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        crate::clock::now()
    }

    /// Random bytes; `None` where the system has none to give.
    #[must_use]
    pub fn random<const N: usize>(&self) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        self.random.fill(&mut bytes).ok().map(|()| bytes)
    }

    /// Whether `domain` is served here.
    #[must_use]
    pub fn serves(&self, domain: &str) -> bool {
        self.config().xmpp.domains.iter().any(|served| served == domain)
    }

    /// Whether `jid` is one of `xmpp.admins`, or a resource of one.
    #[must_use]
    pub fn is_admin(&self, jid: &Jid) -> bool {
        let account = jid.as_str().split_once('/').map_or(jid.as_str(), |(bare, _)| bare);
        self.config().xmpp.admins.iter().any(|admin| admin == account)
    }

    /// The bounds of a roster.
    #[must_use]
    pub fn roster_limits(&self) -> RosterLimits {
        let config = self.config();
        let limits = &config.limits;
        let bound = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        RosterLimits { items: bound(limits.roster_items), requests: bound(limits.pending_subscriptions) }
    }

    /// The bounds of privacy lists.
    #[must_use]
    pub fn privacy_limits(&self) -> PrivacyLimits {
        let config = self.config();
        let limits = &config.limits;
        let bound = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        PrivacyLimits {
            entries: bound(limits.block_entries),
            entry_bytes: bound(limits.block_bytes),
            lists: bound(limits.privacy_lists),
            items: bound(limits.privacy_items),
        }
    }

    /// Names the session of a bind in the store, which outlives this start of the node.
    #[must_use]
    pub fn session_key(&self, bind: BindIndex) -> SessionKey {
        // A cluster counts its binds in a log that lasts.
        let start = if self.config().cluster.enabled { 0 } else { self.started.as_millis() };
        SessionKey { start, bind: bind.0 }
    }

    /// The certificate and what goes with it, if one is configured.
    #[must_use]
    pub fn tls(&self) -> Option<Arc<TlsContext>> {
        self.tls.load_full()
    }
}

/// One running node.
pub struct Node {
    context: Arc<NodeContext>,
    health: Arc<Health>,
    http: ServerHandle,
    /// `None` where the store is in memory and the node has no directory.
    admin: Option<AdminSocket>,
    /// `None` where the node is a server by itself.
    cluster: Option<Arc<Cluster>>,
    arbiters: Vec<Arbiter>,
    tasks: Vec<JoinHandle<()>>,
    /// `None` where nobody knows where the configuration came from.
    reloader: Option<Arc<Reloader>>,
}

impl Node {
    /// Starts a node; returns when it serves.
    ///
    /// # Errors
    /// What could not be read, opened or listened on, in words for the operator.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        Self::start_from(config, None).await
    }

    /// As [`start`](Self::start), for a node whose configuration can be read again at its `source`.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_from(config: Config, source: Option<Source>) -> anyhow::Result<Self> {
        let registry = MetricsRegistry::new();
        let metrics = NodeMetrics::register(&registry, &config.node.name)?;
        let health = Health::new(crate::clock::now);
        let http_listener = TcpListener::bind(config.listen.http)
            .with_context(|| format!("listen.http: cannot listen on {}", config.listen.http))?;
        let metrics_registry = registry.clone();
        let server = admin::serve(http_listener, &config.http, registry, Arc::clone(&health))?;
        let http = server.handle();
        // None of the tasks that are aborted at the stop: it answers probes until the last session has ended.
        actix_rt::spawn(async move {
            if let Err(error) = server.await {
                warn!(%error, "the HTTP server ended");
            }
        });
        let mut tasks = Vec::new();

        let tls = load_tls(&config, &metrics, &health)?;
        if config.storage.backend == Backend::Embedded {
            let dir = &config.node.data_dir;
            create_private(dir)
                .with_context(|| format!("node.data_dir: {} cannot be made", dir.display()))?;
        }
        let identity = Identity::load_or_create(&config)?;
        let node_id = NodeId::new(identity.node_id);
        let Foundation { storage, executor, routes, lease, links, runtime, part } =
            Foundation::lay(&config, node_id, &metrics_registry).await?;
        let context = Arc::new(NodeContext {
            node_id,
            routes,
            lease,
            links,
            remote: Remote::new(runtime),
            seen_keys: RandomState::new(),
            started: crate::clock::now(),
            logouts: Logouts::default(),
            workers: OnceLock::new(),
            records: Records::default(),
            stream_secret: OnceLock::new(),
            losses: Told::default(),
            waiting: crate::delivery::keep::Waiting::default(),
            searches: Searches::new(&config.search),
            external_services: ExternalServices::read(&config)?,
            reports: Reports::default(),
            pushes: Pushes::default(),
            requests: Requests::new(node_id, crate::clock::now(), metrics.clone()),
            commands: CommandSessions::default(),
            sessions: SessionRegistry::default(),
            components: ComponentRegistry::new(component_config(&config)?),
            modules: Registry::counted(REGISTRY.iter().copied(), |name| metrics.module(name)),
            statistics: Statistics::default(),
            connections: Arc::default(),
            registration: Limiter::new(&config.registration),
            offered: ArcSwap::from_pointee(Offered::before_modules(stream_config(
                &config,
                tls.is_some(),
                identity.decoy_secret,
            )?)),
            decoy_secret: identity.decoy_secret,
            admission: admission(&config, &metrics),
            hashing: Semaphore::new(workers(&config)),
            stopping: watch::Sender::new(false),
            tls: ArcSwapOption::new(tls),
            random: SystemRandom::new(),
            storage: storage.metered(&metrics),
            metrics,
            bounds: Bounds::new(&config.limits),
            config: ArcSwap::from_pointee(config),
        });
        context.offer(StreamConfig::clone(&context.stream_config()));
        executor.set_node(&context);
        tasks.push(actix_rt::spawn(lost_lease::watch(Arc::clone(&context))));
        tasks.push(actix_rt::spawn(orphans::watch(Arc::clone(&context))));
        health.add_condition("storage", {
            let storage = context.storage.clone();
            move || match storage.engine.failure() {
                Some(error) => Err(error.to_string()),
                None if storage.backups.is_restoring() => Err(StorageError::Restoring.to_string()),
                None => Ok(()),
            }
        });

        if let Some(part) = &part {
            health.add_condition("cluster", {
                let cluster = Arc::clone(&part.cluster);
                move || cluster.waiting_for().map_or(Ok(()), Err)
            });
            let (cluster, counts) = (&part.cluster, part.metrics.clone());
            tasks.push(actix_rt::spawn(cluster_node::follow(Arc::clone(&context), Arc::clone(cluster))));
            tasks.push(actix_rt::spawn(cluster_node::count_suspensions(Arc::clone(cluster), counts)));
        }
        let arbiters: Vec<Arbiter> = (0..workers(&context.config())).map(|_| Arbiter::new()).collect();
        let spread = Workers::new(arbiters.iter().map(Arbiter::handle));
        context.workers.get_or_init(|| spread.clone());
        let config = context.config();
        let listen = &config.listen;
        for (kind, key, addresses) in [
            (Listener::C2s, "listen.c2s", &listen.c2s),
            (Listener::C2sTls, "listen.c2s_tls", &listen.c2s_tls),
            (Listener::Web, "listen.web", &listen.web),
            (Listener::WebTls, "listen.web_tls", &listen.web_tls),
            (Listener::Component, "components.listen", &context.config().components.listen),
            (Listener::ComponentTls, "components.listen_tls", &context.config().components.listen_tls),
        ] {
            for address in addresses {
                let listener =
                    tcp::bind(*address).with_context(|| format!("{key}: cannot listen on {address}"))?;
                tasks.push(actix_rt::spawn(tcp::accept(
                    Arc::clone(&context),
                    listener,
                    kind,
                    spread.clone(),
                )));
            }
        }
        let looking = Arc::clone(&context);
        tasks.push(actix_rt::spawn(async move { admins::tell_of_missing(&looking).await }));
        tasks.push(actix_rt::spawn(ticks::tick(Arc::clone(&health), Arc::clone(&context))));
        tasks.push(actix_rt::spawn(ticks::watch_room(Arc::clone(&context))));
        tasks.push(actix_rt::spawn(records::learn_secret(Arc::clone(&context))));
        tasks.push(actix_rt::spawn(retention::run(Arc::clone(&context), crate::clock::now)));
        let reloader = source
            .map(|source| Reloader::new(Arc::clone(&context), Arc::clone(&health), source))
            .map(Arc::new);
        let admin = open_admin(&context, part.as_ref().map(|part| &part.cluster), reloader.clone())?;
        health.set_started();
        health.set_listening(true);
        info!(node = %config.node.name, domains = ?config.xmpp.domains, "node serves");
        drop(config);
        Ok(Node {
            context,
            health,
            http,
            admin,
            cluster: part.map(|part| part.cluster),
            arbiters,
            tasks,
            reloader,
        })
    }

    /// What the parts of the node share.
    #[must_use]
    pub fn context(&self) -> &Arc<NodeContext> {
        &self.context
    }

    /// Reads the configuration again, if it is known where; what became of it is in log and metrics.
    pub fn reload(&self) {
        if let Some(reloader) = &self.reloader {
            // The error has been logged.
            let _ = reloader.reload();
        }
    }

    /// Returns with the reason once the node can never take part in its cluster.
    pub async fn failed(&self) -> String {
        if let Some(cluster) = &self.cluster {
            let mut failure = cluster.failure();
            if let Ok(reason) = failure.wait_for(Option::is_some).await
                && let Some(reason) = reason.clone()
            {
                return reason;
            }
        }
        std::future::pending().await
    }

    /// Stops the node in order: no new connections, every stream ended with `system-shutdown`, the store
    /// flushed and closed. `reason` goes to the log.
    ///
    /// # Errors
    /// What could not be written any more.
    pub async fn stop(self, reason: &str) -> anyhow::Result<()> {
        // First, so that a login under way either sees it or is among the sessions.
        self.context.stopping.send_replace(true);
        let sessions = self.context.sessions.all();
        info!(reason, sessions = sessions.len(), "node stops");
        self.health.set_draining();
        drop(self.admin);
        for task in self.tasks {
            task.abort();
        }
        stop::end_sessions(&self.context, sessions).await;
        self.context.records.close(&self.context).await;
        stop::wait_for_sockets(&self.context).await;
        stop::wait_for_asides(&self.context).await;
        for arbiter in self.arbiters {
            arbiter.stop();
            // Its thread ends when its tasks are dropped.
            let _ = tokio::task::spawn_blocking(move || arbiter.join()).await;
        }
        if let Some(cluster) = &self.cluster {
            stop::wait_for_tasks(&self.context).await;
            cluster.stop().await;
        }
        // Last: until here `/readyz` says why no client is wanted.
        self.http.stop(false).await;
        self.context.storage.close().await.context("the store could not be closed in order")?;
        info!("node has stopped");
        Ok(())
    }
}

/// The operator's door into the running node.
fn open_admin(
    context: &Arc<NodeContext>,
    cluster: Option<&Arc<Cluster>>,
    reloader: Option<Arc<Reloader>>,
) -> anyhow::Result<Option<AdminSocket>> {
    if context.config().storage.backend == Backend::Memory {
        return Ok(None);
    }
    let status = match cluster {
        Some(cluster) => cluster_node::source(cluster, &context.config().node.name),
        None => admin::status::single(context),
    };
    let backend = NodeAdmin::new(Arc::clone(context), status, reloader);
    AdminSocket::open(&context.config().node.data_dir, Arc::new(backend)).map(Some)
}
