//! Builds and stops one whole node from its configuration: no process-wide state.

use std::net::TcpListener;

use actix_web::dev::ServerHandle;
use anyhow::Context;
use prometheus::Registry;

use crate::admin::{self, Health};
use crate::config::Config;
use crate::metrics::NodeMetrics;

/// One running node.
#[derive(Debug)]
pub struct Node {
    http: ServerHandle,
}

impl Node {
    /// Starts a node; returns when it serves.
    ///
    /// # Errors
    ///
    /// What could not be opened or listened on.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        let registry = Registry::new();
        NodeMetrics::register(&registry, &config.node.name)?;
        let health = Health::new(crate::clock::now);
        let listener = TcpListener::bind(config.listen.http)
            .with_context(|| format!("listen.http: {}", config.listen.http))?;
        let server = admin::serve(listener, &config.http, registry, health.clone())?;
        let http = server.handle();
        actix_rt::spawn(server);
        health.set_started();
        health.set_listening(true);
        Ok(Node { http })
    }

    /// Stops the node in order; `reason` goes to the log.
    ///
    /// # Errors
    ///
    /// What could not be written any more.
    pub async fn stop(self, reason: &str) -> anyhow::Result<()> {
        tracing::info!(reason, "node stops");
        self.http.stop(true).await;
        Ok(())
    }
}
