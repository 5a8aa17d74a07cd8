//! A node for tests of its parts.

use std::hash::RandomState;
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use prometheus::Registry as MetricsRegistry;
use ring::rand::SystemRandom;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use althing_cluster::lease::Lease;
use althing_cluster::link::Links;
use althing_cluster::node_id::{Incarnation, NodeId};
use althing_cluster::routes::LocalRoutes;
use althing_proto::jid::BareJid;
use althing_proto::sasl::{Credentials, ScramKeys};
use althing_proto::time::Timestamp;

use super::NodeContext;
use super::bounds::Bounds;
use super::offered::Offered;
use super::parts::{component_config, stream_config};
use crate::components::ComponentRegistry;
use crate::config::Config;
use crate::delivery::remote::Remote;
use crate::metrics::{NodeMetrics, Waiting};
use crate::modules::{CommandSessions, ExternalServices, Limiter, REGISTRY, Reports, Searches};
use crate::pipeline::Registry;
use crate::session::SessionRegistry;
use crate::session::admission::Admission;
use crate::session::logouts::Logouts;
use crate::session::requests::Requests;
use crate::storage::{Account, Storage};
use crate::task_executor::NodeExecutor;

impl NodeContext {
    /// A node for tests of its parts: storage in memory, the domain `localhost`, no sockets. Tests replace what
    /// they make up before they share it.
    pub(crate) fn for_tests() -> Self {
        let config = Config::default();
        let executor = NodeExecutor::new(None);
        let metrics = NodeMetrics::register(&MetricsRegistry::new(), "test").unwrap();
        NodeContext {
            node_id: NodeId::new(1),
            routes: Arc::new(LocalRoutes::new(NodeId::new(1), Incarnation(1))),
            lease: Lease::always(),
            links: Arc::new(Links::alone(NodeId::new(1), Incarnation(1), executor)),
            remote: Remote::new(tokio::runtime::Handle::current()),
            seen_keys: RandomState::new(),
            started: crate::clock::now(),
            logouts: Logouts::default(),
            workers: std::sync::OnceLock::new(),
            records: crate::session::records::Records::default(),
            stream_secret: std::sync::OnceLock::new(),
            losses: crate::session::losses::Told::default(),
            waiting: crate::delivery::keep::Waiting::default(),
            searches: Searches::new(&config.search),
            external_services: ExternalServices::read(&config).unwrap(),
            reports: Reports::default(),
            pushes: crate::modules::Pushes::default(),
            requests: Requests::new(NodeId::new(1), crate::clock::now(), metrics.clone()),
            commands: CommandSessions::default(),
            sessions: SessionRegistry::default(),
            components: ComponentRegistry::new(component_config(&config).unwrap()),
            modules: Registry::new(REGISTRY.iter().copied()),
            metrics,
            statistics: crate::statistics::Statistics::default(),
            connections: Arc::default(),
            registration: Limiter::new(&config.registration),
            offered: ArcSwap::from_pointee(Offered::before_modules(
                stream_config(&config, false, [7; 32]).unwrap(),
            )),
            decoy_secret: [7; 32],
            admission: Admission::new(1, 1, Waiting::for_tests()),
            hashing: Semaphore::new(1),
            stopping: watch::Sender::new(false),
            tls: ArcSwapOption::empty(),
            random: SystemRandom::new(),
            storage: Storage::memory(),
            bounds: Bounds::new(&config.limits),
            config: ArcSwap::from_pointee(config),
        }
    }

    /// Sees to it that `user` has an account, which no password opens.
    pub(crate) async fn has_account(&self, user: &BareJid) {
        let keys = || ScramKeys { iterations: 4096, salt: vec![1], stored_key: vec![2], server_key: vec![3] };
        let credentials = Credentials { sha1: keys(), sha256: keys(), sha512: keys() };
        let account = Account { credentials, created: Timestamp::from_millis(0) };
        self.storage.accounts.create(user, account).await.unwrap();
    }

    /// Changes the configuration of a node that nobody serves by yet.
    pub(crate) fn configure(&self, change: impl FnOnce(&mut Config)) {
        let mut config = Config::clone(&self.config());
        change(&mut config);
        self.waiting.changes(&self.config(), &config, Instant::now());
        self.config.store(Arc::new(config));
    }
}
