//! Components: parts of the service with a domain of their own, inside this process or attached from outside.
//!
//! | file          | what                                                                                 |
//! |---------------|--------------------------------------------------------------------------------------|
//! | `balance.rs`  | PURE: which of several connections of a domain a stanza goes to                      |
//! | `inbox.rs`    | the bounded queue in front of a component                                            |
//! | `registry.rs` | the components of this node, as others see them                                      |
//! | `seen.rs`     | PURE: whose presence a component has seen                                            |
//! | `attach.rs`   | how one enters the route table and leaves it                                         |
//! | `host.rs`     | the task that runs one                                                               |
//!
//! A component is attached as the full JID `domain/RANDOM` in the route table, so every node finds every connection of
//! a domain by one look. `server/src/router/component.rs` is the router's step; a connection over the network
//! (XEP-0114) is `server/src/stream/component.rs`, an implementation of [`Component`] like those inside the process.

pub mod attach;
pub mod balance;
pub mod host;
pub mod inbox;
pub mod registry;
pub mod seen;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use althing_proto::disco::{Info, Item};
use althing_proto::stream::error::StreamError;

use crate::config::Config;
use crate::node::NodeContext;
use crate::pipeline::Effects;

pub use inbox::{Inbox, Letter};
pub use registry::{ComponentHandle, ComponentRegistry};

/// A component: four facets in one trait. What it is, for service discovery; what it does with the stanzas that arrive;
/// how it takes a change of the configuration; what it counts.
///
/// It runs in a task of its own behind an inbox of its own, so a slow one delays nobody else. It gives results as
/// effects, which go through the router as everybody's do.
#[async_trait]
pub trait Component: Send + 'static {
    /// What service discovery says of it (XEP-0030), beside the features of service discovery itself; looked at once,
    /// when it starts. `None` for one that answers for itself.
    fn description(&self) -> Option<Info> {
        None
    }

    /// What it holds, for service discovery (XEP-0030 §4), where it has a description.
    fn items(&self) -> Vec<Item> {
        Vec::new()
    }

    /// Takes letters from the front of `letters`, as many as it likes, and does what they ask. What is left comes
    /// again with those that arrived meanwhile. It may be dropped where it waits, when the component is to end.
    ///
    /// # Errors
    /// Why the component ends. Letters that are left go back to the router.
    async fn receive(
        &mut self,
        letters: &mut VecDeque<Letter>,
        node: &Arc<NodeContext>,
    ) -> Result<Effects, Ending>;

    /// After so long without a letter [`Component::tick`] is called, again and again. `None`: never.
    fn patience(&self) -> Option<Duration> {
        None
    }

    /// Nothing came for [`Component::patience`].
    ///
    /// # Errors
    /// Why the component ends.
    async fn tick(&mut self, _node: &Arc<NodeContext>) -> Result<Effects, Ending> {
        Ok(Effects::new())
    }

    /// The configuration has changed while it runs.
    ///
    /// # Errors
    /// Why the component ends: it is configured no more, for example.
    fn configure(&mut self, _config: &Config) -> Result<(), Ending> {
        Ok(())
    }

    /// What it counts beside what its host does.
    fn statistics(&self) -> Vec<Statistic> {
        Vec::new()
    }

    /// Its last chance to say something to whomever it serves.
    async fn end(&mut self, _reason: &Ending) {}
}

/// Why a component ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// By itself, or because its peer is gone; last words for that peer, if there are any.
    Gone(Bytes),
    /// By this server, for that reason.
    Error(StreamError),
    /// The node has lost its lease: it may act no more, and the route stays for the others to end.
    LeaseLost,
}

/// A number at run time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statistic {
    /// What it counts, in lower case with underscores.
    pub name: &'static str,
    /// How much.
    pub value: u64,
}

/// Why an inbox did not take a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// As many stanzas or bytes wait as may.
    Full,
    /// The component is about to end, or has ended.
    Ending,
}

/// The components that `host` lists for service discovery: domain and name, in the order of their domains.
///
/// Those that are attached now, on whatever node. A component below a served domain is listed by the longest such
/// domain alone, another one by all.
#[must_use]
pub fn listed(node: &NodeContext, host: &str) -> Vec<(String, Option<String>)> {
    let config = node.config();
    let external = config.components.external.iter();
    let mut found: Vec<(String, Option<String>)> =
        external.map(|external| (external.domain.clone(), external.name.clone())).collect();
    for handle in node.components.all() {
        if !found.iter().any(|(domain, _)| domain == handle.domain()) {
            let identity = handle.description.as_ref().and_then(|info| info.identities.first());
            let name = identity.and_then(|identity| identity.name.clone());
            found.push((handle.domain().to_owned(), name));
        }
    }
    found.retain(|(domain, _)| is_listed_by(domain, host, &node.config().xmpp.domains));
    found.retain(|(domain, _)| node.components.is_attached(node.routes.as_ref(), domain));
    found.sort();
    found
}

fn is_listed_by(component: &str, host: &str, served: &[String]) -> bool {
    let is_above = |above: &str| {
        component.strip_suffix(above).is_some_and(|below| below.len() > 1 && below.ends_with('.'))
    };
    match served.iter().filter(|domain| is_above(domain)).max_by_key(|domain| domain.len()) {
        Some(nearest) => nearest == host,
        None => true,
    }
}

/// What the components of this node count: domain, then numbers, in the order of the domains. Those of one domain
/// are added up. One that is too busy to answer soon is left out of the numbers of its own.
pub async fn statistics(node: &NodeContext) -> Vec<(String, Vec<Statistic>)> {
    let mut found: std::collections::BTreeMap<String, Vec<Statistic>> = std::collections::BTreeMap::new();
    // All are asked at once: one that is busy makes nobody wait longer.
    let ask = |handle: Arc<ComponentHandle>| async move {
        let numbers = handle.statistics().await;
        (handle, numbers)
    };
    let asked = node.components.all().into_iter().map(ask);
    for (handle, of_one) in futures_util::future::join_all(asked).await {
        let numbers = found.entry(handle.domain().to_owned()).or_default();
        for one in of_one {
            match numbers.iter_mut().find(|number| number.name == one.name) {
                Some(number) => number.value += one.value,
                None => numbers.push(one),
            }
        }
    }
    found.into_iter().collect()
}
