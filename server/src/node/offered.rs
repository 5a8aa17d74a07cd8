//! What a node offers to its clients: settings of their streams, and what service discovery tells of the server.
//! Both follow from configuration and modules, once for all logins.

use std::sync::Arc;

use althing_proto::stream::{StreamConfig, StreamMachine};

use super::NodeContext;
use crate::modules::{self, Capabilities};
use crate::pipeline::{At, View};

/// What is offered now.
pub(super) struct Offered {
    stream: Arc<StreamConfig>,
    capabilities: Arc<Capabilities>,
}

impl Offered {
    /// Before the modules were asked: [`NodeContext::offer`] asks them.
    pub(super) fn before_modules(stream: StreamConfig) -> Self {
        Offered { stream: Arc::new(stream), capabilities: Arc::default() }
    }
}

impl NodeContext {
    /// What the listeners offer.
    #[must_use]
    pub fn stream_config(&self) -> Arc<StreamConfig> {
        Arc::clone(&self.offered.load().stream)
    }

    /// Lets an open stream follow the limits of now.
    pub fn bring_up_to_date(&self, machine: &mut StreamMachine) {
        let offered = self.offered.load();
        if !machine.has_config(&offered.stream) {
            machine.set_config(Arc::clone(&offered.stream));
        }
    }

    /// What the server can do, and the hashes of it (XEP-0115, XEP-0390).
    #[must_use]
    pub fn capabilities(&self) -> Arc<Capabilities> {
        Arc::clone(&self.offered.load().capabilities)
    }

    /// From now on streams begin with `stream` and the hashes of what the modules say now. To be called whenever
    /// configuration or modules are others. Open streams follow the limits; logins go on as they have begun.
    pub fn offer(self: &Arc<Self>, mut stream: StreamConfig) {
        let view = View { node: self, session: None, now: self.now() };
        let capabilities = Capabilities::of(modules::info(At::SERVER, &view));
        stream.features_after_login.extend(capabilities.stream_features());
        let offered = Offered { stream: Arc::new(stream), capabilities: Arc::new(capabilities) };
        self.offered.store(Arc::new(offered));
    }
}
