//! The router's step for components: a domain of its own, served by one connection or several, here or elsewhere.
//!
//! The order of the chain is local domain, component, other servers. A stanza for a component passes no pipeline: the
//! component decides, as another server would. One whose lane (`server/src/components/balance.rs`) has its connection
//! on this node goes into its inbox, else by a task to the node that has it, in order for each lane.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::timeout;
use tracing::debug;

use althing_cluster::routes::{BindIndex, Route};
use althing_cluster::task::{DeliverStanza, SessionFound};
use althing_proto::jid::FullJid;
use althing_proto::stanza::{Kind, Stanza};

use crate::components::balance::{Domain, lane_named, lane_of};
use crate::components::{ComponentHandle, Letter, Refused, attach};
use crate::delivery::remote::{self, Parcel, Posted};
use crate::metrics::{Delivery, Dropped};
use crate::node::NodeContext;

/// How long a connection may be on its way here after the table has it, as for sessions.
const ON_ITS_WAY: Duration = Duration::from_secs(5);

/// How long a task waits until what a connection has left is on its way elsewhere.
const LEFT: Duration = Duration::from_secs(10);

/// Where a stanza for a component goes now.
#[derive(Debug, Clone)]
pub struct Place {
    /// The domain.
    pub domain: Arc<Domain>,
    /// The sender's lane.
    pub lane: u8,
    /// The connection that has it.
    pub route: Route,
}

impl Place {
    /// The address by which stanzas of the lane are kept in order.
    #[must_use]
    pub fn address(&self) -> &FullJid {
        self.domain.lane(self.lane)
    }
}

/// The place of a component that `stanza` is for; `None` where none is attached.
#[must_use]
pub fn find(node: &NodeContext, stanza: &Stanza) -> Option<Place> {
    let domain = node.components.domain(node.routes.as_ref(), stanza.to()?.domain())?;
    let lane = lane_of(stanza.from());
    let route = node.components.connection(node.routes.as_ref(), &domain, lane)?;
    Some(Place { domain, lane, route })
}

/// Who owns an address on an envelope: a session its full JID, a component's connection its lanes.
#[must_use]
pub fn owner(node: &NodeContext, to: &FullJid) -> Option<Route> {
    let Some(lane) = lane_named(to) else { return node.routes.locate(to) };
    let domain = node.components.domain(node.routes.as_ref(), to.domain())?;
    node.components.connection(node.routes.as_ref(), &domain, lane)
}

/// What became of a stanza for a component.
pub(super) enum Given {
    /// It is there, or on its way, or was dropped by the policy.
    Taken,
    /// As `Taken`; a client that sends more goes on when this is done.
    Braked(BoxFuture<'static, ()>),
    /// Too much waits for the component.
    Congested,
    /// It cannot be delivered.
    Impossible,
    /// The connection is about to end: to be looked up once more when this is done.
    Ending(BoxFuture<'static, ()>),
}

impl From<Posted> for Given {
    fn from(posted: Posted) -> Self {
        match posted {
            Posted::Taken => Given::Taken,
            Posted::Braked(pause) => Given::Braked(pause),
            Posted::Congested => Given::Congested,
            Posted::Impossible => Given::Impossible,
        }
    }
}

/// Gives a stanza to the connection at `place`; `tries` attempts have failed for it.
pub(super) fn give(node: &Arc<NodeContext>, stanza: &Stanza, place: &Place, tries: u8) -> Given {
    debug!(stop = "router.component", to = %place.address());
    let (address, route) = (place.address(), &place.route);
    if route.node != node.node_id {
        let parcel =
            Parcel { stanza: stanza.clone(), tries, copies: None, only: false, losses: node.lease.losses() };
        return remote::post(node, address, route, parcel).into();
    }
    let Some(handle) = node.components.get(route.index) else {
        if tries > 0 {
            return Given::Impossible;
        }
        // The table has a bind a moment before the component is here.
        let (own, index, to) = (Arc::clone(node), route.index, address.clone());
        let here = async move { drop(soon(&own, &to, index).await) };
        return remote::keep(node, address, route.index, stanza.clone(), here).into();
    };
    match put(node, &handle, place.lane, stanza) {
        Ok(()) if handle.inbox.is_congested() => {
            Given::Braked(Box::pin(async move { handle.inbox.brake().await }))
        }
        Ok(()) => Given::Taken,
        Err(Refused::Full) => Given::Congested,
        Err(Refused::Ending) if tries > 0 => Given::Ending(Box::pin(async move { handle.detached().await })),
        Err(Refused::Ending) => {
            attach::give_back(node, &handle, Letter { lane: place.lane, stanza: stanza.clone() }).into()
        }
    }
}

/// Puts a stanza into the inbox, and keeps to the policy where that is full: presence is dropped, and counts as taken.
fn put(node: &NodeContext, handle: &ComponentHandle, lane: u8, stanza: &Stanza) -> Result<(), Refused> {
    match handle.put(lane, stanza.clone()) {
        Ok(()) => node.metrics.delivery(Delivery::Delivered),
        Err(Refused::Full) => {
            node.metrics.component_inbox_full();
            if !matches!(stanza.kind(), Kind::Presence(_)) {
                return Err(Refused::Full);
            }
            node.metrics.dropped(Dropped::InboxFull);
        }
        Err(Refused::Ending) => return Err(Refused::Ending),
    }
    Ok(())
}

/// The end of a task of another node for a component of this one.
pub async fn deliver_task(node: &Arc<NodeContext>, task: &DeliverStanza, stanza: &Stanza) -> SessionFound {
    let no_session = || SessionFound::NoSession { applied: node.routes.applied() };
    let (lane, handle) = (lane_named(&task.to), soon(node, &task.to, task.owner).await);
    let handle = handle.filter(|handle| handle.domain() == task.to.domain().as_str());
    let (Some(lane), Some(handle)) = (lane, handle) else {
        node.remote.settled(&task.to, LEFT).await;
        return no_session();
    };
    match put(node, &handle, lane, stanza) {
        Ok(()) if handle.inbox.is_congested() => SessionFound::Slowly,
        Ok(()) => SessionFound::Done,
        Err(Refused::Full) => SessionFound::Congested,
        Err(Refused::Ending) => {
            // What the sender has sent before and the connection has left must be elsewhere first.
            handle.detached().await;
            node.remote.settled(&task.to, LEFT).await;
            no_session()
        }
    }
}

/// The connection of this node that `index` attached and that owns the lane `to`, also where it is about to be here.
pub async fn soon(node: &NodeContext, to: &FullJid, index: BindIndex) -> Option<Arc<ComponentHandle>> {
    if let Some(handle) = node.components.get(index) {
        return Some(handle);
    }
    owner(node, to).filter(|route| route.index == index)?;
    timeout(ON_ITS_WAY, node.components.added(index)).await.ok()
}

/// One attempt for the connection of this node that `index` attached; whether it is dealt with.
pub fn put_here(node: &NodeContext, index: BindIndex, lane: u8, stanza: &Stanza) -> bool {
    node.components.get(index).is_some_and(|handle| put(node, &handle, lane, stanza).is_ok())
}
