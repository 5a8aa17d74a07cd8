//! Delivery on this node: into the receivers' mailboxes.
//!
//! Policy for a full mailbox: it is counted; a message or IQ goes back to its sender with
//! `resource-constraint`, a presence or roster event closes the receiver's stream with
//! `policy-violation`: a session that missed one would show a wrong state for ever.

use std::sync::Arc;

use tracing::debug;

use althing_cluster::routes::Route;
use althing_proto::jid::BareJid;
use althing_proto::stanza::{Kind, Stanza};
use althing_proto::stream::error::{StreamCondition, StreamError};

use crate::metrics::{Delivery, Dropped};
use crate::node::NodeContext;
use crate::session::SessionHandle;
use crate::session::effect::UserEvent;
use crate::session::messages::EndReason;
use crate::session::registry::Refused;

/// How a delivery went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivered {
    /// At least one receiver has it.
    Some,
    /// No receiver was there.
    None,
    /// No receiver took it, and at least one had a full mailbox.
    Congested,
}

/// Puts `stanza` into the mailboxes of the sessions at `routes`.
pub fn deliver(node: &Arc<NodeContext>, stanza: &Stanza, routes: &[Route]) -> Delivered {
    let mut delivered = Delivered::None;
    for route in routes {
        let Some(session) = node.sessions.get(route.index) else { continue };
        match deliver_to(node, &session, stanza.clone(), routes.len() == 1) {
            Ok(()) => delivered = Delivered::Some,
            Err(Refused::Full) if delivered == Delivered::None => delivered = Delivered::Congested,
            Err(_) => {}
        }
    }
    delivered
}

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
        Err(Refused::Gone) => {}
    }
    result
}

/// Tells all sessions of `account`.
pub fn notify_account(node: &Arc<NodeContext>, account: &BareJid, event: &UserEvent) {
    for (_, route) in node.routes.locate_account(account) {
        if let Some(session) = node.sessions.get(route.index)
            && session.notify(event.clone()) == Err(Refused::Full)
        {
            node.metrics.mailbox_full();
            close_congested(&session);
        }
    }
}

fn close_congested(session: &Arc<SessionHandle>) {
    let session = Arc::clone(session);
    actix_rt::spawn(async move {
        let error = StreamError::new(
            StreamCondition::PolicyViolation,
            "too many stanzas are waiting: limits.mailbox_stanzas",
        );
        session.end(EndReason::Error(error)).await;
    });
}
