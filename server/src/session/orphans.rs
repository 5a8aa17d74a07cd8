//! Routes of this node without a session: it was on its way here when the node that gave it was lost, or ended half way. They
//! end as their sessions would have, so that nobody is routed to nowhere and no contact sees somebody for ever.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tracing::warn;

use althing_cluster::routes::table::is_session;
use althing_cluster::routes::{BindIndex, NodeState};
use althing_proto::jid::FullJid;
use althing_proto::ns;
use althing_proto::stanza::{Kind, PresenceType, Stanza};
use althing_proto::xml::Element;

use super::actor::Session;
use super::giving::{end_at_once, on_an_arbiter, outbox};
use super::handed_over::Carried;
use super::messages::EndReason;
use crate::node::NodeContext;
use crate::stream::MOST_ON_ITS_WAY;

/// Routes that had no session when they were looked at last.
#[derive(Debug, Default)]
pub struct Orphans(HashMap<BindIndex, FullJid>);

/// Looks from time to time, for as long as it is run.
pub async fn watch(node: Arc<NodeContext>) {
    let mut orphans = Orphans::default();
    loop {
        // Longer than a session may be on its way to its route.
        tokio::time::sleep(MOST_ON_ITS_WAY + Duration::from_secs(2)).await;
        if node.lease.holds() {
            orphans.look(&node).await;
        }
    }
}

impl Orphans {
    /// Ends those that had no session the last time either.
    pub async fn look(&mut self, node: &Arc<NodeContext>) {
        let own = node.links.incarnation();
        if node.routes.node_state(node.node_id) != Some(NodeState::Up(own)) {
            return;
        }
        let table = node.routes.table();
        let is_orphan =
            |(jid, index): &(FullJid, BindIndex)| is_session(jid) && node.sessions.get(*index).is_none();
        let routes =
            table.routes().filter(|(_, route)| route.node == node.node_id && route.incarnation == own);
        let found = routes.map(|(jid, route)| (jid.clone(), route.index)).filter(is_orphan);
        let before = std::mem::replace(&mut self.0, found.map(|(jid, index)| (index, jid)).collect());
        for (index, jid) in before {
            if self.0.remove(&index).is_some() {
                end(node, jid, index).await;
            }
        }
    }
}

async fn end(node: &Arc<NodeContext>, jid: FullJid, index: BindIndex) {
    let Some(route) = node.routes.locate(&jid).filter(|route| route.index == index) else { return };
    warn!(%jid, "a route has no session: it ends");
    let own = Arc::clone(node);
    on_an_arbiter(node, move || async move {
        let presence = route.priority.map(|_| available(&jid));
        let carried = Carried { said: presence.clone(), presence, ..Carried::default() };
        let outbox = outbox(&own);
        let session = Session::of_lost(&own, (jid, index), carried, &outbox);
        outbox.detach(Bytes::new());
        end_at_once(&own, session, EndReason::ClientGone).await;
    })
    .await;
}

/// What others may hold it for.
fn available(jid: &FullJid) -> Bytes {
    let element = Element::builder("presence", ns::CLIENT).build();
    let kind = Kind::Presence(PresenceType::Available);
    Stanza::from_parts(kind, Some(jid.clone().into()), None, element).to_standalone().into()
}
