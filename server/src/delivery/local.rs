//! Delivery on this node: into the receivers' mailboxes.
//!
//! Policy for a full mailbox: it is counted; a message or IQ goes back to its sender with
//! `resource-constraint`, a presence or roster event closes the receiver's stream with
//! `policy-violation`: a session that missed one would show a wrong state for ever.

use std::sync::Arc;
use std::time::Duration;

use tracing::debug;

use althing_cluster::routes::BindIndex;
use althing_proto::jid::{BareJid, FullJid};
use althing_proto::stanza::{Kind, Stanza};
use althing_proto::stream::error::{StreamCondition, StreamError};

use crate::metrics::{Delivery, Dropped};
use crate::node::NodeContext;
use crate::session::SessionHandle;
use crate::session::copies::Share;
use crate::session::effect::UserEvent;
use crate::session::messages::EndReason;
use crate::session::registry::Refused;

/// Puts `stanza` into one session's mailbox, and keeps to the policy where it is full.
pub fn deliver_to(
    node: &Arc<NodeContext>,
    session: &Arc<SessionHandle>,
    stanza: Stanza,
    share: Share,
) -> Result<(), Refused> {
    debug!(stop = "delivery.local", to = %session.jid);
    let presence = matches!(stanza.kind(), Kind::Presence(_));
    let result = session.deliver(stanza, share);
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

/// Shows a session the presences that it has asked for, and keeps to the policy where its mailbox is full.
pub fn show(node: &Arc<NodeContext>, session: &Arc<SessionHandle>, presences: Vec<Stanza>) {
    let count = presences.len();
    if count == 0 {
        return;
    }
    match session.show(presences) {
        Ok(()) => node.metrics.deliveries(Delivery::Delivered, count as u64),
        Err(Refused::Full) => {
            node.metrics.mailbox_full();
            node.metrics.dropped(Dropped::MailboxFull);
            close_congested(session);
        }
        Err(Refused::Ending | Refused::Gone) => {}
    }
}

/// How long a session may be on its way here after the table has its bind: far longer than it takes to start it. A
/// stanza that is given up before would come behind those that were sent after it.
const ON_ITS_WAY: Duration = Duration::from_secs(5);

/// The session of this node that has `to` by the bind `owner`, also where it is about to be here: the table has a bind
/// a moment before its session is there. `None` where it is not, or the bind is over.
pub async fn session_soon(node: &NodeContext, to: &FullJid, owner: BindIndex) -> Option<Arc<SessionHandle>> {
    if let Some(session) = node.sessions.get(owner) {
        return Some(session);
    }
    let is_owner = || node.routes.locate(to).is_some_and(|route| route.index == owner);
    let is_over = async {
        loop {
            let applied = node.routes.applied();
            if !is_owner() || !node.routes.wait_for(applied + 1).await {
                return;
            }
        }
    };
    tokio::select! {
        biased;
        session = node.sessions.added(owner) => Some(session),
        () = is_over => None,
        () = tokio::time::sleep(ON_ITS_WAY) => None,
    }
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
