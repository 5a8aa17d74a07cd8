//! The steps of a node's stop, each with a bound.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;
use tracing::{info, warn};

use althing_proto::stream::error::StreamCondition;

use super::NodeContext;
use crate::components::Ending;
use crate::session::SessionHandle;
use crate::session::giving::Giver;
use crate::session::messages::EndReason;

/// How long the sessions may take to end.
const FAREWELL: Duration = Duration::from_secs(10);

/// How long sessions begin to be given to other nodes: what is left of [`FAREWELL`] is for the rest.
const GIVING: Duration = Duration::from_secs(5);

/// How long other nodes may take to take the last tasks.
const LAST_TASKS: Duration = Duration::from_secs(3);

/// Gives the sessions whose streams can be resumed to other nodes, and ends the rest and the components of this node, each
/// with its farewell.
pub(super) async fn end_sessions(context: &Arc<NodeContext>, sessions: Vec<Arc<SessionHandle>>) {
    let reason = || EndReason::Error(StreamCondition::SystemShutdown.into());
    let giver = Giver::new(context, GIVING);
    let leave = async |session: &Arc<SessionHandle>| {
        let given = giver.give(session).await;
        if !given {
            session.end(reason()).await;
        }
        usize::from(given)
    };
    let sessions = async {
        let given: usize = join_all(sessions.iter().map(leave)).await.into_iter().sum();
        if given > 0 {
            info!(sessions = given, "sessions wait on other nodes for their clients");
        }
    };
    let ended = async { tokio::join!(sessions, end_components(context)) };
    if timeout(FAREWELL, ended).await.is_err() {
        warn!("some sessions did not end in time");
    }
}

/// Ends the streams of all components, and waits until what they have not taken is on its way elsewhere.
async fn end_components(context: &NodeContext) {
    let components = context.components.all();
    for component in &components {
        component.end(Ending::Error(StreamCondition::SystemShutdown.into()));
    }
    futures_util::future::join_all(components.iter().map(|component| component.detached())).await;
}

/// Gives the writers a moment to bring out their last words.
pub(super) async fn wait_for_sockets(context: &NodeContext) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(2);
    let open = || context.connections.open() + context.components.connections.open();
    while open() > 0 && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Gives the modules a moment to end what they do aside: others may have to hear of it.
pub(super) async fn wait_for_asides(context: &NodeContext) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(2);
    let busy = || context.modules.members().iter().any(|member| !member.queue.is_empty());
    while busy() && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Gives the other nodes a moment to take what the sessions have said last: once they know that this node is gone
/// they take nothing of it any more.
pub(super) async fn wait_for_tasks(context: &NodeContext) {
    let taken = async {
        while !context.remote.overflow().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        context.links.settled().await;
    };
    if tokio::time::timeout(LAST_TASKS, taken).await.is_err() {
        warn!("some nodes are slow: contacts there may not learn that sessions have ended");
    }
}
