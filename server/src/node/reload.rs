//! Reads the configuration again while the node runs: all that can change does so at once, or nothing does.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::{info, warn};

use super::NodeContext;
use super::admins::tell_of_missing;
use super::parts::{component_config, publish_certificate, stream_config};
use crate::admin::Health;
use crate::admin::protocol::ReloadReport;
use crate::config::Config;
use crate::listener::tls::TlsContext;
use crate::modules::ExternalServices;
use crate::telemetry::LogFilter;

/// Where the configuration of a node comes from.
pub struct Source {
    /// The file.
    pub file: PathBuf,
    /// The filter of this process' log.
    pub log: LogFilter,
}

/// Brings a node's configuration up to date.
pub struct Reloader {
    context: Arc<NodeContext>,
    health: Arc<Health>,
    source: Source,
    /// One at a time.
    turn: Mutex<()>,
}

impl Reloader {
    pub(super) fn new(context: Arc<NodeContext>, health: Arc<Health>, source: Source) -> Self {
        context.metrics.config_loaded(context.config().fingerprint());
        Reloader { context, health, source, turn: Mutex::new(()) }
    }

    /// Reads file, environment and certificates again. What can change is in force when this returns; what takes a
    /// restart is told.
    ///
    /// # Errors
    /// What is wrong with them; then everything is as before.
    pub fn reload(&self) -> anyhow::Result<ReloadReport> {
        let _turn = self.turn.lock();
        let result = self.try_reload();
        match &result {
            Ok(report) => {
                self.context.metrics.config_reloaded(true);
                info!(changed = ?report.changed, restart = ?report.restart, "configuration reloaded");
                if report.changed.iter().any(|key| key == "xmpp.admins") {
                    let context = Arc::clone(&self.context);
                    tokio::spawn(async move { tell_of_missing(&context).await });
                }
            }
            Err(error) => {
                self.context.metrics.config_reloaded(false);
                warn!(error = %format!("{error:#}"), "configuration not reloaded: the old one stays");
            }
        }
        result
    }

    fn try_reload(&self) -> anyhow::Result<ReloadReport> {
        let node = &self.context;
        let wanted = Config::load(&self.source.file)?;
        let change = node.config().changed_to(&wanted).map_err(|findings| {
            let lines = findings.iter().map(|finding| format!("\n  {}: {}", finding.key, finding.what()));
            let lines: String = lines.collect();
            anyhow::anyhow!("it does not go with what takes a restart:{lines}")
        })?;
        let config = change.config;
        let tls = match &config.tls.certificate {
            None => None,
            Some(_) => Some(Arc::new(TlsContext::load(&config.tls).context("[tls]")?)),
        };
        if let Some(tls) = &tls
            && !tls.is_valid(crate::clock::now())
        {
            let (from, until) = (tls.not_before.to_xep0082(), tls.not_after.to_xep0082());
            bail!("[tls]: the certificate is valid from {from} to {until}, not now");
        }
        let stream = stream_config(&config, tls.is_some(), node.decoy_secret)?;
        let external = component_config(&config)?;
        let mut changed = change.changed;
        let key = "components.external";
        if external.domains != node.components.external().domains && !changed.iter().any(|name| name == key) {
            // The files of secrets have other contents, though they are the same files.
            changed.push(key.to_owned());
        }
        let services = ExternalServices::read(&config)?;
        let filter = LogFilter::parse(&config.log).context("log.filter")?;

        // From here on nothing can fail.
        self.source.log.set(filter);
        node.registration.set(&config.registration);
        node.searches.set(&config.search);
        node.external_services.set(services);
        node.bounds.set(&config.limits);
        let certificate_until = tls.as_ref().map(|tls| tls.not_after.to_xep0082());
        if let Some(tls) = &tls {
            publish_certificate(tls, &node.metrics, &self.health);
        }
        node.tls.store(tls);
        node.metrics.config_loaded(config.fingerprint());
        let config = Arc::new(config);
        node.waiting.changes(&node.config(), &config, Instant::now());
        node.config.store(Arc::clone(&config));
        node.components.set_external(external);
        node.components.configure(&config);
        // Last: it asks the modules, which look at the rest.
        node.offer(stream);
        Ok(ReloadReport { changed, restart: change.restart, certificate_until })
    }
}
