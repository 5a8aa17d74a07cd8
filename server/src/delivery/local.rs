//! Delivery on this node: into the receivers' mailboxes.
//!
//! Policy for a full mailbox: it is counted; a message or IQ goes back to its sender with
//! `resource-constraint`, a presence or roster event closes the receiver's stream with
//! `policy-violation`: a session that missed one would show a wrong state for ever.

use std::sync::Arc;

use tracing::debug;

use althing_cluster::routes::BindIndex;
use althing_proto::jid::BareJid;
use althing_proto::stanza::{Kind, Stanza};
use althing_proto::stream::error::{StreamCondition, StreamError};

use crate::metrics::{Delivery, Dropped};
use crate::node::NodeContext;
use crate::session::SessionHandle;
use crate::session::effect::UserEvent;
use crate::session::messages::EndReason;
use crate::session::registry::Refused;

/// Puts `stanza` into one session's mailbox, the only one or not (`alone`), and keeps to the policy where it is full.
pub fn deliver_to(
    node: &Arc<NodeContext>,
    session: &Arc<SessionHandle>,
    stanza: Stanza,
    alone: bool,
) -> Result<(), Refused> {
    debug!(stop = "delivery.local", to = %session.jid);
    let presence = matches!(stanza.kind(), Kind::Presence(_));
    let result = session.deliver(stanza, alone);
    match result {
        Ok(()) => node.metrics.delivery(Delivery::Delivered),
        Err(Refused::Full) => {
            node.metrics.mailbox_full();
            if presence {
                node.metrics.dropped(Dropped::MailboxFull);
                close_congested(session);
            }
        }
        // The caller knows whether another receiver has it.
        Err(Refused::Ending | Refused::Gone) => {}
    }
    result
}

/// Tells the sessions of `account` on this node; how many were told.
pub fn notify_account(node: &Arc<NodeContext>, account: &BareJid, event: &UserEvent) -> u64 {
    let mut here = Vec::new();
    node.routes.visit_account(account, &mut |_, route| {
        if route.node == node.node_id {
            here.push(route.index);
        }
    });
    here.into_iter().filter(|index| notify(node, *index, event)).count() as u64
}

/// Tells one session; `false` if it was not there.
pub fn notify(node: &Arc<NodeContext>, index: BindIndex, event: &UserEvent) -> bool {
    let Some(session) = node.sessions.get(index) else { return false };
    let result = session.notify(event.clone());
    if result == Err(Refused::Full) {
        node.metrics.mailbox_full();
        close_congested(&session);
    }
    result.is_ok()
}

/// Closes the stream of a session that takes nothing more. Works from any runtime.
pub fn close_congested(session: &Arc<SessionHandle>) {
    if !session.pressure().begin_closing() {
        return;
    }
    let session = Arc::clone(session);
    tokio::spawn(async move {
        let error = StreamError::new(
            StreamCondition::PolicyViolation,
            "too many stanzas are waiting: limits.mailbox_stanzas or limits.mailbox_bytes",
        );
        session.end(EndReason::Error(error)).await;
    });
}
