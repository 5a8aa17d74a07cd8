//! One presence to the available sessions of many accounts: serialized once, grouped by node.

use std::sync::Arc;

use tracing::debug;

use althing_proto::jid::BareJid;
use althing_proto::stanza::{Broadcast, Stanza};

use super::{drive_aside, local, route};
use crate::node::NodeContext;

/// Sends `stanza` to every available session of the accounts in `to`; accounts of other domains get it by
/// the router.
pub fn to_accounts(node: &Arc<NodeContext>, stanza: Stanza, to: &[BareJid]) {
    debug!(stop = "delivery.fan_out", receivers = to.len());
    let broadcast = Broadcast::new(stanza);
    for account in to {
        if !node.serves(account.domain().as_str()) {
            drive_aside(node, route(node, broadcast.stanza().with_to(account.clone()), None));
            continue;
        }
        let sessions = node.routes.locate_account(account);
        let mut available = sessions.iter().filter(|(_, route)| route.priority.is_some()).peekable();
        if available.peek().is_none() {
            continue;
        }
        let copy = broadcast.copy_for(account);
        for (_, route) in available {
            if let Some(session) = node.sessions.get(route.index) {
                // A full mailbox is dealt with there; a session that has gone is seen no more.
                let _ = local::deliver_to(node, &session, copy.clone(), false);
            }
        }
    }
}
