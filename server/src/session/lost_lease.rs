//! What happens to the sessions of a node that has lost its lease: they are closed, and nothing else is done.
//!
//! Their routes stay: they belong to a start of the node that is over, and the other nodes end them and tell their
//! contacts when they learn of it. A farewell from here would come from a node that may not act.

use std::sync::Arc;

use futures_util::future::join_all;
use tracing::warn;

use super::messages::EndReason;
use crate::components::attach;
use crate::node::NodeContext;

/// Closes all sessions each time the lease is lost, for as long as there is a lease.
pub async fn watch(node: Arc<NodeContext>) {
    let mut changes = node.lease.changes();
    let mut closed = 0;
    loop {
        // Counted, not seen: the node may serve again before anybody gets to look here.
        let losses = node.lease.losses();
        if losses > closed {
            closed = losses;
            // Aside: a session that is slow to end must not hide the next loss.
            actix_rt::spawn(close(Arc::clone(&node), losses));
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Closes all sessions, and ends all components, that began before so many losses.
async fn close(node: Arc<NodeContext>, losses: u64) {
    attach::end_lost(&node, losses);
    let mut sessions = node.sessions.all();
    sessions.retain(|session| session.losses < losses);
    if !sessions.is_empty() {
        warn!(sessions = sessions.len(), "the lease is lost: all sessions are closed");
    }
    join_all(sessions.iter().map(|session| session.end(EndReason::LeaseLost))).await;
}
