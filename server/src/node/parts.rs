//! What a node is made of, from its configuration.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use prometheus::Registry as MetricsRegistry;
use ring::rand::{SecureRandom, SystemRandom};
use tracing::warn;

use althing_cluster::lease::Lease;
use althing_cluster::link::Links;
use althing_cluster::link::hello::ClusterId;
use althing_cluster::node_id::{Incarnation, NodeId};
use althing_cluster::routes::{LocalRoutes, Routes};
use althing_proto::jid::DomainPart;
use althing_proto::sasl::{Mechanism, Secret};
use althing_proto::stream::StreamConfig;
use althing_proto::stream::component::ComponentConfig;
use althing_proto::xml::limits::Limits;

use crate::admin::Health;
use crate::cluster_node::ClusterPart;
use crate::config::{Backend, Config, External, Hidden, LEAST_SECRET};
use crate::listener::tls::TlsContext;
use crate::metrics::NodeMetrics;
use crate::modules::REGISTRY;
use crate::session::admission::Admission;
use crate::storage::{EmbeddedOptions, Storage};
use crate::task_executor::NodeExecutor;

/// What a node stands on, by itself or in a cluster.
pub(super) struct Foundation {
    pub(super) storage: Storage,
    pub(super) executor: Arc<NodeExecutor>,
    pub(super) routes: Arc<dyn Routes>,
    pub(super) lease: Lease,
    pub(super) links: Arc<Links>,
    pub(super) runtime: tokio::runtime::Handle,
    pub(super) part: Option<ClusterPart>,
}

impl Foundation {
    pub(super) async fn lay(
        config: &Config,
        node: NodeId,
        registry: &MetricsRegistry,
    ) -> anyhow::Result<Self> {
        if config.cluster.enabled {
            let mut fresh = [0; 16];
            anyhow::ensure!(
                SystemRandom::new().fill(&mut fresh).is_ok(),
                "the system has no randomness to give"
            );
            let fresh = ClusterId(u128::from_be_bytes(fresh));
            let part = ClusterPart::start(config, node, fresh, registry).await?;
            let cluster = &part.cluster;
            return Ok(Foundation {
                storage: part.storage.clone(),
                executor: Arc::clone(&part.executor),
                routes: cluster.routes(),
                lease: cluster.lease().clone(),
                links: Arc::clone(cluster.links()),
                runtime: cluster.runtime().context("the cluster has stopped")?,
                part: Some(part),
            });
        }
        let executor = NodeExecutor::new(None);
        let tasks = Arc::clone(&executor) as Arc<_>;
        Ok(Foundation {
            storage: open_storage(config)?,
            executor,
            // Messages that wait name the binds they are pending for: those of an earlier start must not come again.
            // Microseconds: no node makes a million binds a second.
            routes: Arc::new(LocalRoutes::beginning_at(
                node,
                Incarnation(1),
                crate::clock::now().as_millis().saturating_mul(1_000),
            )),
            lease: Lease::always(),
            links: Arc::new(Links::alone(node, Incarnation(1), tasks)),
            runtime: tokio::runtime::Handle::current(),
            part: None,
        })
    }
}

fn open_storage(config: &Config) -> anyhow::Result<Storage> {
    Ok(match config.storage.backend {
        Backend::Memory => Storage::memory(),
        Backend::Embedded => {
            let options = EmbeddedOptions {
                cache_bytes: config.storage.cache_bytes(),
                reserve_bytes: config.storage.reserve_bytes(),
                ..EmbeddedOptions::default()
            };
            Storage::open_embedded(&config.node.data_dir, options)?
        }
    })
}

pub(super) fn load_tls(
    config: &Config,
    metrics: &NodeMetrics,
    health: &Health,
) -> anyhow::Result<Option<Arc<TlsContext>>> {
    if config.tls.certificate.is_none() {
        return Ok(None);
    }
    let tls = TlsContext::load(&config.tls).context("[tls]")?;
    if !tls.is_valid(crate::clock::now()) {
        warn!(until = %tls.not_after.to_xep0082(), "the certificate is not valid now: clients will refuse it");
    }
    publish_certificate(&tls, metrics, health);
    Ok(Some(Arc::new(tls)))
}

/// Says until when the certificate is valid that is shown from now on.
pub(super) fn publish_certificate(tls: &TlsContext, metrics: &NodeMetrics, health: &Health) {
    health.set_certificate_expiry(tls.not_after);
    metrics.certificate_expires(tls.not_after);
}

pub(super) fn stream_config(
    config: &Config,
    tls: bool,
    decoy_secret: [u8; 32],
) -> anyhow::Result<StreamConfig> {
    let domains =
        config.xmpp.domains.iter().map(|domain| DomainPart::new(domain).map(|part| part.into_owned()));
    let mechanisms = config.auth.mechanisms.iter().filter_map(|name| Mechanism::from_name(name));
    let limits = &config.limits;
    let limits_after = stream_limits(config);
    Ok(StreamConfig {
        domains: domains.collect::<Result<_, _>>().context("xmpp.domains")?,
        starttls: tls,
        allow_plaintext: config.auth.allow_plaintext,
        mechanisms: mechanisms.collect(),
        registration: config.registration.enabled,
        limits_before: Limits { stanza_bytes: limits.stanza_bytes_before_login, ..limits_after },
        limits_after,
        idle: limits.client_ping(),
        login_timeout: Duration::from_secs(limits.login_timeout_s),
        max_auth_failures: config.auth.max_failures,
        features_after_login: REGISTRY.iter().flat_map(|module| module.stream_features()).collect(),
        decoy_secret,
        scram_iterations: config.auth.scram_iterations,
    })
}

/// What external components may attach: reads the files with their secrets.
pub(super) fn component_config(config: &Config) -> anyhow::Result<ComponentConfig> {
    let domain = |external: &External| -> anyhow::Result<_> {
        let key = || format!("components.external: {}", external.domain);
        let domain = DomainPart::new(&external.domain).with_context(key)?.into_owned();
        let secret = Hidden::read(external.secret.as_ref(), external.secret_file.as_deref());
        let secret = secret.with_context(key)?.map_or_else(String::new, |secret| secret.expose().to_owned());
        anyhow::ensure!(
            secret.chars().count() >= LEAST_SECRET,
            "{}: its secret can be guessed: at least {LEAST_SECRET} characters, drawn at random",
            key()
        );
        Ok((domain, Secret::new(secret)))
    };
    let limits = stream_limits(config);
    let components = &config.components;
    Ok(ComponentConfig {
        domains: components.external.iter().map(domain).collect::<Result<_, _>>()?,
        limits_before: Limits { stanza_bytes: config.limits.stanza_bytes_before_login, ..limits },
        limits_after: limits,
        handshake_timeout: Duration::from_secs(components.handshake_timeout_s),
    })
}

fn stream_limits(config: &Config) -> Limits {
    let limits = &config.limits;
    Limits {
        stanza_bytes: limits.stanza_bytes,
        depth: limits.depth,
        attributes: limits.attributes,
        children: limits.children,
    }
}

pub(super) fn workers(config: &Config) -> usize {
    match config.runtime.workers {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        workers => workers,
    }
}

/// How many may begin a session at once.
pub(super) fn admission(config: &Config, metrics: &NodeMetrics) -> Admission {
    Admission::new(config.limits.binds_at_once, config.limits.binds_waiting, metrics.turns.binds_waiting())
}
