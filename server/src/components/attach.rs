//! How a component enters the route table and leaves it.

use std::collections::{BTreeSet, VecDeque};
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;
use tracing::{debug, info};

use althing_cluster::lease::Standing;
use althing_cluster::routes::Route;
use althing_proto::stream::error::{StreamCondition, StreamError};

use super::balance::Domain;
use super::registry::Origin;
use super::{ComponentHandle, Ending, Inbox, Letter};
use crate::delivery::remote;
use crate::metrics::Dropped;
use crate::node::NodeContext;

/// Random bytes in the address of a connection: two of one domain never meet.
const ADDRESS_BYTES: usize = 12;

/// How long what a component has left may take to be on its way elsewhere before its route goes all the same.
const LEFT: Duration = Duration::from_secs(10);

/// How long it waits for the node to serve again.
const LEASE: Duration = Duration::from_secs(5);

/// Attaches a component of `domain` to this node. From now on stanzas come into its inbox: the caller runs it.
///
/// # Errors
/// For the component: `conflict` where it is `exclusive` and another connection is there, else why the server cannot.
pub async fn attach(
    node: &Arc<NodeContext>,
    domain: &str,
    exclusive: bool,
    origin: Origin,
) -> Result<Arc<ComponentHandle>, StreamError> {
    let internal = || StreamError::from(StreamCondition::InternalServerError);
    let domain = node.components.remember(Arc::new(Domain::new(domain).ok_or_else(internal)?));
    let address = node.random::<ADDRESS_BYTES>().ok_or_else(internal)?;
    let address: String = address.iter().map(|byte| format!("{byte:02x}")).collect();
    let jid = domain.bare().with_resource_str(&address).map_err(|_| internal())?;
    if !node.lease.holds() && !matches!(timeout(LEASE, node.lease.serving()).await, Ok(true)) {
        return Err(cut_off());
    }
    let losses = node.lease.losses();
    let bound = node.routes.bind(&jid).await.map_err(|error| {
        info!(%jid, %error, "component not attached");
        internal()
    })?;
    let inbox = {
        let config = node.config();
        let limits = &config.components;
        Inbox::new(limits.inbox_stanzas, limits.inbox_bytes)
    };
    let handle =
        ComponentHandle::new((jid, bound.index, losses), Arc::clone(&domain), node.now(), origin, inbox);
    let handle = Arc::new(handle);
    node.components.insert(Arc::clone(&handle));
    node.metrics.component_attached();
    // The log orders the binds: of several that come at the same time all nodes find the same one first.
    let mut earlier = false;
    node.routes.visit_account(domain.bare(), &mut |_, route: &Route| earlier |= route.index < bound.index);
    let refusal = if exclusive && earlier {
        let text = "another connection of this component is there, and it is configured to be the only one";
        Some(StreamError::new(StreamCondition::Conflict, text))
    } else if *node.stopping.borrow() {
        Some(StreamCondition::SystemShutdown.into())
    } else if node.lease.standing() == Standing::Lost {
        Some(cut_off())
    } else {
        None
    };
    match refusal {
        Some(error) => {
            detach(node, &handle, VecDeque::new()).await;
            Err(error)
        }
        None => {
            info!(jid = %handle.jid, peer = handle.peer.map(tracing::field::display), "component attached");
            Ok(handle)
        }
    }
}

/// Takes a component out of the route table. What it had not handled, `left` first, is looked up once more in its
/// order; what comes for it meanwhile waits behind that. Only then its route goes: who sends from another node learns of
/// the end when all that he had sent before is with another connection. Idempotent.
pub async fn detach(node: &Arc<NodeContext>, handle: &Arc<ComponentHandle>, left: VecDeque<Letter>) {
    let lost = node.lease.losses() != handle.losses;
    let mut lanes = BTreeSet::new();
    handle.inbox.close(left, |letter| {
        if lost {
            // A node without a lease acts no more, then or later.
            node.metrics.dropped(Dropped::SessionGone);
        } else {
            lanes.insert(letter.lane);
            give_back(node, handle, letter);
        }
    });
    if node.components.get(handle.index).is_none() {
        return;
    }
    let settled = lanes.iter().map(|lane| node.remote.settled(handle.lanes().lane(*lane), LEFT));
    join_all(settled).await;
    if !lost && let Err(error) = node.routes.unbind(&handle.jid, handle.index).await {
        debug!(jid = %handle.jid, %error, "the route had gone before its component");
    }
    node.components.remove(handle.index);
    node.metrics.component_detached();
    handle.set_detached();
    info!(jid = %handle.jid, "component detached");
}

/// A stanza for a component that is ending: it is looked up once more, behind those before it.
pub fn give_back(node: &Arc<NodeContext>, handle: &ComponentHandle, letter: Letter) -> remote::Posted {
    remote::keep(node, handle.lanes().lane(letter.lane), handle.index, letter.stanza, ready(()))
}

/// What a component is told by a node that has lost the others.
#[must_use]
pub fn cut_off() -> StreamError {
    let text = "this server has lost the other servers of its cluster: connect to another";
    StreamError::new(StreamCondition::SystemShutdown, text)
}

/// Ends the components of this node that were attached before so many losses of the lease.
pub fn end_lost(node: &NodeContext, losses: u64) {
    for handle in node.components.all().into_iter().filter(|handle| handle.losses < losses) {
        handle.end(Ending::LeaseLost);
    }
}
