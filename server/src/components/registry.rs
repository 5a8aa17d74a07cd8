//! The components that are attached to this node, as others see them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::timeout;

use althing_cluster::routes::{BindIndex, Route, Routes};
use althing_proto::disco::Info;
use althing_proto::jid::{BareJid, DomainPart, DomainRef, FullJid};
use althing_proto::stanza::Stanza;
use althing_proto::stream::component::ComponentConfig;
use althing_proto::time::Timestamp;
use arc_swap::ArcSwap;

use super::balance::{Domain, claim};
use super::inbox::Handed;
use super::{Ending, Inbox, Letter, Refused, Statistic};
use crate::config::Config;
use crate::listener::tcp::Connections;
use crate::session::losses::Lost;

/// How long a component may take to say what it counts.
const ANSWER: Duration = Duration::from_secs(2);

/// One attached component.
#[derive(Debug)]
pub struct ComponentHandle {
    /// Its address in the route table.
    pub jid: FullJid,
    /// The bind that attached it.
    pub index: BindIndex,
    /// How often the node had lost its lease when it was attached: after another loss it is over.
    pub losses: u64,
    /// When it was attached.
    pub since: Timestamp,
    /// Where it connects from; `None` inside the process.
    pub peer: Option<IpAddr>,
    /// What service discovery says of it; `None` for one that answers for itself.
    pub description: Option<Info>,
    /// Its queue.
    pub inbox: Inbox,
    domain: Arc<Domain>,
    taken: AtomicU64,
    refused: AtomicU64,
    sent: AtomicU64,
    ending: watch::Sender<Option<Ending>>,
    detached: watch::Sender<bool>,
}

/// Where a component comes from.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    /// Where it connects from; `None` inside the process.
    pub peer: Option<IpAddr>,
    /// What service discovery says of it.
    pub description: Option<Info>,
}

impl ComponentHandle {
    /// A handle on a component that was attached as `jid` by the bind `index`.
    #[must_use]
    pub fn new(
        (jid, index, losses): (FullJid, BindIndex, u64),
        domain: Arc<Domain>,
        since: Timestamp,
        origin: Origin,
        inbox: Inbox,
    ) -> Self {
        ComponentHandle {
            jid,
            index,
            losses,
            since,
            peer: origin.peer,
            description: origin.description,
            inbox,
            domain,
            taken: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            ending: watch::Sender::new(None),
            detached: watch::Sender::new(false),
        }
    }

    /// Its domain.
    #[must_use]
    pub fn domain(&self) -> &str {
        self.domain.name()
    }

    /// Its domain with the addresses of the lanes.
    #[must_use]
    pub fn lanes(&self) -> &Arc<Domain> {
        &self.domain
    }

    /// Puts a stanza into its inbox.
    ///
    /// # Errors
    /// [`Refused`]; the caller keeps to the policy of [`inbox`](super::inbox).
    pub fn put(&self, lane: u8, stanza: Stanza) -> Result<(), Refused> {
        let result = self.inbox.put(Letter { lane, stanza });
        let counter = if result.is_ok() { &self.taken } else { &self.refused };
        counter.fetch_add(1, Ordering::Relaxed);
        result
    }

    /// It has sent a stanza.
    pub fn count_sent(&self) {
        self.sent.fetch_add(1, Ordering::Relaxed);
    }

    /// Asks it to end. The first reason holds.
    pub fn end(&self, reason: Ending) {
        self.ending.send_if_modified(|ending| {
            let first = ending.is_none();
            if first {
                *ending = Some(reason);
            }
            first
        });
    }

    /// Waits until it is asked to end.
    pub async fn asked_to_end(&self) -> Ending {
        let mut ending = self.ending.subscribe();
        match ending.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or(Ending::LeaseLost),
            // The sender is this handle's own.
            Err(_) => Ending::LeaseLost,
        }
    }

    /// Its route is gone, and what it had not handled is on its way elsewhere.
    pub(super) fn set_detached(&self) {
        self.detached.send_replace(true);
    }

    /// Waits until it is detached.
    pub async fn detached(&self) {
        // An error says that nobody can set it any more, which is as good.
        let _ = self.detached.subscribe().wait_for(|detached| *detached).await;
    }

    /// What it counts. Where it is too busy to answer soon: what others count of it.
    pub async fn statistics(&self) -> Vec<Statistic> {
        let (letters, bytes) = self.inbox.waiting();
        let count = |name, counter: &AtomicU64| Statistic { name, value: counter.load(Ordering::Relaxed) };
        let number = |name, value| Statistic { name, value };
        let mut numbers = vec![
            number("connections", 1),
            count("stanzas_taken", &self.taken),
            count("stanzas_refused", &self.refused),
            count("stanzas_sent", &self.sent),
            number("stanzas_waiting", letters as u64),
            number("bytes_waiting", bytes as u64),
        ];
        let (answer, own) = oneshot::channel();
        if self.inbox.tell(Handed::Asked(answer))
            && let Ok(Ok(own)) = timeout(ANSWER, own).await
        {
            numbers.extend(own);
        }
        numbers
    }
}

/// What a reload has done to a component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// It is configured no more.
    Removed,
    /// It has another secret.
    Secret,
}

/// All components of this node, and the domains of those of the others.
#[derive(Debug)]
pub struct ComponentRegistry {
    handles: RwLock<HashMap<BindIndex, Arc<ComponentHandle>>>,
    /// Domains that have had a component, by name: few, for operators make them.
    domains: RwLock<HashMap<Box<str>, Arc<Domain>>>,
    /// Tells of each component that was attached.
    added: Notify,
    /// Open connections, for the limit.
    pub connections: Arc<Connections>,
    /// What external components may attach, and how.
    external: ArcSwap<ComponentConfig>,
}

impl ComponentRegistry {
    /// Nothing is attached.
    #[must_use]
    pub fn new(external: ComponentConfig) -> Self {
        ComponentRegistry {
            handles: RwLock::default(),
            domains: RwLock::default(),
            added: Notify::new(),
            connections: Arc::default(),
            external: ArcSwap::from_pointee(external),
        }
    }

    /// Adds a component.
    pub fn insert(&self, handle: Arc<ComponentHandle>) {
        self.handles.write().insert(handle.index, handle);
        self.added.notify_waiters();
    }

    /// Removes the component that `index` attached.
    pub fn remove(&self, index: BindIndex) {
        self.handles.write().remove(&index);
    }

    /// The component that `index` attached.
    #[must_use]
    pub fn get(&self, index: BindIndex) -> Option<Arc<ComponentHandle>> {
        self.handles.read().get(&index).cloned()
    }

    /// The component that `index` attached, as soon as it is here. The caller sets the deadline.
    pub async fn added(&self, index: BindIndex) -> Arc<ComponentHandle> {
        loop {
            let added = self.added.notified();
            tokio::pin!(added);
            // Enabled before the look: it does not miss what comes in between.
            added.as_mut().enable();
            if let Some(handle) = self.get(index) {
                return handle;
            }
            added.await;
        }
    }

    /// All components of this node, as they are now.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<ComponentHandle>> {
        self.handles.read().values().cloned().collect()
    }

    /// The domain of that name, if the route table has, or has had, a component of it.
    #[must_use]
    pub fn domain(&self, routes: &dyn Routes, name: &DomainRef) -> Option<Arc<Domain>> {
        if let Some(domain) = self.domains.read().get(name.as_str()) {
            return Some(Arc::clone(domain));
        }
        // Most domains are none of ours: the addresses of the lanes are made only where there is a connection.
        let mut found = false;
        routes.visit_account(&BareJid::from_parts(None, name), &mut |_, _| found = true);
        if !found {
            return None;
        }
        let domain = Arc::new(Domain::new(name.as_str())?);
        self.connection(routes, &domain, 0)?;
        Some(self.remember(domain))
    }

    /// The one value for a domain.
    pub(super) fn remember(&self, domain: Arc<Domain>) -> Arc<Domain> {
        Arc::clone(self.domains.write().entry(domain.name().into()).or_insert(domain))
    }

    /// Whether a component of that domain is attached, on whatever node.
    #[must_use]
    pub fn is_attached(&self, routes: &dyn Routes, name: &str) -> bool {
        let name = DomainPart::new(name).ok();
        name.and_then(|name| self.domain(routes, &name))
            .is_some_and(|domain| self.connection(routes, &domain, 0).is_some())
    }

    /// The connection that has a lane of the domain now. One of this node that is about to end has none any more, while
    /// the table still has it: what it has left goes elsewhere before others learn of its end.
    #[must_use]
    pub fn connection(&self, routes: &dyn Routes, domain: &Domain, lane: u8) -> Option<Route> {
        let mut found: Option<(u64, Route)> = None;
        let handles = self.handles.read();
        routes.visit_account(domain.bare(), &mut |_, route| {
            let claim = claim(lane, route.index);
            if found.is_none_or(|(best, _)| best < claim)
                && handles.get(&route.index).is_none_or(|handle| !handle.inbox.is_closed())
            {
                found = Some((claim, *route));
            }
        });
        found.map(|(_, route)| route)
    }

    /// What an external component meets.
    #[must_use]
    pub fn external(&self) -> Arc<ComponentConfig> {
        self.external.load_full()
    }

    /// From now on external components meet this: who may attach, by which secret.
    pub fn set_external(&self, external: ComponentConfig) {
        self.external.store(Arc::new(external));
    }

    /// What has become of a component's entry since `shown` was in force.
    #[must_use]
    pub fn changed_since(&self, shown: &Arc<ComponentConfig>, domain: &str) -> Option<Changed> {
        let now = self.external();
        if Arc::ptr_eq(shown, &now) {
            return None;
        }
        let secret_of = |config: &ComponentConfig| {
            let mut known = config.domains.iter();
            known.find(|(known, _)| known.as_str() == domain).map(|(_, secret)| secret.clone())
        };
        match secret_of(&now) {
            None => Some(Changed::Removed),
            secret => (secret_of(shown) != secret).then_some(Changed::Secret),
        }
    }

    /// Tells all components of a configuration that holds from now on (T15).
    pub fn configure(&self, config: &Arc<Config>) {
        for handle in self.all() {
            handle.inbox.tell(Handed::Configured(Arc::clone(config)));
        }
    }

    /// Tells all components of sessions that were lost with their node.
    pub fn tell_lost(&self, lost: &Arc<Lost>) {
        for handle in self.all() {
            handle.inbox.tell(Handed::Lost(Arc::clone(lost)));
        }
    }
}
