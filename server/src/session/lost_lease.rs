//! What happens to the sessions of a node that has lost its lease: they are closed, and nothing else is done.
//!
//! Their routes stay: they belong to a start of the node that is over, and the other nodes end them and tell their
//! contacts when they learn of it. A farewell from here would come from a node that may not act.

use std::sync::Arc;

use futures_util::future::join_all;
use tracing::warn;

use althing_cluster::lease::Standing;

use super::messages::EndReason;
use crate::node::NodeContext;

/// Closes all sessions each time the lease is lost, for as long as there is a lease.
pub async fn watch(node: Arc<NodeContext>) {
    let mut changes = node.lease.changes();
    while changes.wait_for(|standing| *standing == Standing::Lost).await.is_ok() {
        close_all(&node).await;
        if changes.wait_for(|standing| *standing != Standing::Lost).await.is_err() {
            return;
        }
    }
}

/// Closes all sessions of a node that has lost its lease.
pub async fn close_all(node: &NodeContext) {
    let sessions = node.sessions.all();
    if !sessions.is_empty() {
        warn!(sessions = sessions.len(), "the lease is lost: all sessions are closed");
    }
    join_all(sessions.iter().map(|session| session.end(EndReason::LeaseLost))).await;
}
