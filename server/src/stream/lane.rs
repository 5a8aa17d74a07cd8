//! What a connection does with its session: work for it, and questions on its behalf.

use std::sync::Arc;

use minidom::Element;
use tracing::debug;

use althing_proto::stream::error::{StreamCondition, StreamError};

use super::silence::{self, Noticed};
use crate::delivery;
use crate::metrics::Direction;
use crate::node::NodeContext;
use crate::session::SessionHandle;
use crate::session::effect::left_behind;
use crate::session::messages::{EndReason, Progress, Work};
use crate::session::outbox::{Entry, Outbox};

/// Asks a silent client whether it is there, or ends its session; `false` once it is to end.
pub(super) async fn ask(
    node: &NodeContext,
    session: &SessionHandle,
    outbox: &Outbox,
    noticed: Noticed,
) -> bool {
    match noticed {
        Noticed::Silent => {
            let ping = silence::ping(&session.jid);
            if outbox.push(Entry::Stanza(None), ping.to_bytes()).is_ok() {
                node.metrics.stanza(ping.kind(), Direction::Out);
            }
            true
        }
        Noticed::Gone => {
            let error = StreamError::new(
                StreamCondition::ConnectionTimeout,
                "nothing was heard for limits.client_ping_s, nor an answer in limits.client_ping_timeout_s",
            );
            if outbox.is_managed() {
                // It may come again.
                node.metrics.stream_error(error.condition);
                outbox.detach(outbox.last_words(Some(&error)));
            } else {
                session.end(EndReason::Error(error)).await;
            }
            false
        }
    }
}

/// The first stop of a stanza's way: it has no span yet, so the event names it.
pub(super) fn log_arrival(element: &Element, session: &SessionHandle) {
    let (kind, id, jid) = (element.name(), element.attr("id"), &session.jid);
    debug!(stop = "stream.connection", direction = "in", kind, id, %jid);
}

/// Lets the session do the work, waiting in its stead for whatever it needs; `false` once it has ended.
pub(super) async fn advance(node: &Arc<NodeContext>, session: &SessionHandle, mut work: Work) -> bool {
    loop {
        match session.advance(work).await {
            Ok(Progress::Done) => return true,
            Ok(Progress::Waiting(future, mut rest)) => {
                for effect in future.await.into_iter().rev() {
                    rest.effects.push_front(effect);
                }
                if node.sessions.get(session.index).is_none() {
                    // Its mailbox may be closed, and the effects would be lost with it.
                    delivery::drive(node, left_behind(rest.effects, &session.jid)).await;
                    return false;
                }
                work = rest;
            }
            Ok(Progress::Ended) | Err(_) => return false,
        }
    }
}
