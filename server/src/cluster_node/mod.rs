//! A node's part in a cluster: what ties the crate `cluster` to the node's store, sessions, metrics and admin door.

mod events;
mod status;
mod store;

use std::net::TcpListener;
use std::sync::Arc;

use anyhow::Context;
use prometheus::Registry as MetricsRegistry;

use althing_cluster::cluster::{Cluster, ClusterConfig, Hooks};
use althing_cluster::lease::LeaseTimes;
use althing_cluster::link::LinkTls;
use althing_cluster::link::hello::ClusterId;
use althing_cluster::members::Seed;
use althing_cluster::node_id::NodeId;
use althing_cluster::raft::GroupTimes;

use crate::config::Config;
use crate::metrics::{ClusterCollector, ClusterMetrics};
use crate::storage::embedded::{Embedded, EmbeddedReplica};
use crate::storage::replicated::Replicated;
use crate::storage::{EmbeddedOptions, Storage};
use crate::task_executor::NodeExecutor;

pub(crate) use events::{count_suspensions, follow};
pub(crate) use status::source;

/// What a node of a cluster has beside what every node has.
pub(crate) struct ClusterPart {
    /// Its part in the cluster.
    pub(crate) cluster: Arc<Cluster>,
    /// The replicated store.
    pub(crate) storage: Storage,
    /// Runs tasks of other nodes; still without its node.
    pub(crate) executor: Arc<NodeExecutor>,
    /// What is counted.
    pub(crate) metrics: ClusterMetrics,
}

impl ClusterPart {
    /// Takes part in the cluster of the configuration. Returns when logs and store are open; the node finds the
    /// others in the background.
    ///
    /// # Errors
    /// What could not be read, opened or listened on, in words for the operator.
    pub(crate) async fn start(
        config: &Config,
        node: NodeId,
        fresh: ClusterId,
        registry: &MetricsRegistry,
    ) -> anyhow::Result<Self> {
        let options = EmbeddedOptions {
            cache_bytes: config.storage.cache_bytes(),
            reserve_bytes: config.storage.reserve_bytes(),
            ..EmbeddedOptions::default()
        };
        let embedded = Arc::new(Embedded::open(&config.node.data_dir, options)?);
        let replica = Arc::new(EmbeddedReplica::new(Arc::clone(&embedded)));
        let late = Arc::new(store::LateStore::default());
        let executor = NodeExecutor::new(Some(Arc::clone(&late) as Arc<_>));
        let metrics = ClusterMetrics::register(registry)?;
        let listener = TcpListener::bind(config.cluster.listen)
            .with_context(|| format!("cluster.listen: cannot listen on {}", config.cluster.listen))?;
        let (batches, downs) = (metrics.clone(), metrics.clone());
        let hooks = Hooks {
            on_batch: Arc::new(move |group, commands, took| batches.batch(group, commands, took)),
            on_down: Box::new(move |_| downs.node_down()),
        };
        let part = cluster_config(config, node, fresh)?;
        let tasks = Arc::clone(&executor);
        // It reads logs, and may take as long as a store to open.
        let started =
            tokio::task::spawn_blocking(move || Cluster::start(part, listener, tasks, replica, hooks));
        let cluster = Arc::new(started.await.context("the cluster could not be started")??);
        registry.register(Box::new(ClusterCollector::new(Arc::clone(&cluster))?))?;
        let remote = Arc::new(store::LinkStore(Arc::clone(cluster.links())));
        let replicated = Arc::new(Replicated::new(cluster.store_log(), Some(embedded), remote));
        late.set(Arc::clone(&replicated));
        Ok(ClusterPart { cluster, storage: Storage::replicated(replicated), executor, metrics })
    }
}

fn cluster_config(config: &Config, node: NodeId, fresh: ClusterId) -> anyhow::Result<ClusterConfig> {
    let (cluster, name) = (&config.cluster, config.node.name.clone());
    let address = cluster
        .advertised(&name)
        .context("cluster.advertise: not set, and cluster.initial does not have this node")?;
    let initial = cluster.initial_set().into_iter();
    Ok(ClusterConfig {
        node,
        name,
        address,
        initial: initial.map(|node| Seed { name: node.name, address: node.address }).collect(),
        dir: config.node.data_dir.join("cluster"),
        tls: link_tls(config)?,
        groups: GroupTimes { heartbeat: cluster.heartbeat(), election: cluster.election() },
        lease: LeaseTimes { suspend: cluster.suspend(), close: cluster.close(), down: cluster.down() },
        fresh,
    })
}

fn link_tls(config: &Config) -> anyhow::Result<LinkTls> {
    let read = |key: &str, path: &Option<std::path::PathBuf>| -> anyhow::Result<Vec<u8>> {
        let path = path.as_ref().with_context(|| format!("cluster.{key}: not set"))?;
        std::fs::read(path).with_context(|| format!("cluster.{key}: {} cannot be read", path.display()))
    };
    let cluster = &config.cluster;
    let (ca, certificate) = (read("ca", &cluster.ca)?, read("certificate", &cluster.certificate)?);
    LinkTls::from_pem(&ca, &certificate, &read("key", &cluster.key)?).context("[cluster]: the certificates")
}
