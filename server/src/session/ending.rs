//! Ends sessions for reasons that are not their client's, on whatever nodes they are.

use std::time::Duration;

use althing_cluster::routes::Route;
pub use althing_cluster::task::SessionEnding as Ending;
use althing_cluster::task::{EndSession, SessionFound, TaskReply};
use althing_proto::jid::{BareJid, FullJid};
use althing_proto::stream::error::{StreamCondition, StreamError};

use crate::node::NodeContext;

/// How long a node may take to end a session of its own.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the client is told.
#[must_use]
pub fn error(ending: Ending) -> StreamError {
    match ending {
        Ending::Administrator => {
            StreamError::new(StreamCondition::PolicyViolation, "ended by an administrator")
        }
        // As where the account is gone: the stream may do nothing any more.
        Ending::Disabled => StreamError::new(StreamCondition::NotAuthorized, "the account is disabled"),
    }
}

/// Ends the session of that address, if there is one. How many have ended: one or none.
pub async fn end_session(node: &NodeContext, jid: &FullJid, ending: Ending) -> usize {
    match node.routes.locate(jid) {
        Some(route) => usize::from(end(node, jid.clone(), route, ending).await),
        None => 0,
    }
}

/// Ends all sessions that the account has now. How many have ended.
pub async fn end_account(node: &NodeContext, account: &BareJid, ending: Ending) -> usize {
    let mut sessions = Vec::new();
    node.routes.visit_account(account, &mut |jid, route| sessions.push((jid.clone(), *route)));
    let ended = sessions.into_iter().map(|(jid, route)| end(node, jid, route, ending));
    futures_util::future::join_all(ended).await.into_iter().filter(|ended| *ended).count()
}

async fn end(node: &NodeContext, jid: FullJid, route: Route, ending: Ending) -> bool {
    let task = EndSession { jid: jid.clone(), owner: route.index, ending };
    match node.links.ask(route.node, task.into(), PATIENCE).await {
        Ok(TaskReply::EndSession(found)) => found == SessionFound::Done,
        Ok(_) => false,
        Err(error) => {
            tracing::warn!(%jid, member = %route.node, %error, "a session is not known to have ended");
            false
        }
    }
}
