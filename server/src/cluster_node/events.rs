//! What the route log brings about on this node, beside what its own sessions asked for.

use std::sync::Arc;

use tokio::sync::mpsc;

use althing_cluster::cluster::Cluster;
use althing_cluster::lease::Standing;
use althing_cluster::routes::{Ended, NodeState, RouteEvent};
use althing_proto::stream::error::StreamCondition;

use crate::metrics::ClusterMetrics;
use crate::node::NodeContext;
use crate::session::losses;
use crate::session::messages::EndReason;

/// Losses that wait to be told; above it the log's events wait.
const LOSSES: usize = 64;

/// Follows the log until the cluster ends.
pub(crate) async fn follow(node: Arc<NodeContext>, cluster: Arc<Cluster>) {
    let Some(mut events) = cluster.events() else { return };
    let (sender, ended) = mpsc::channel::<Ended>(LOSSES);
    actix_rt::spawn(losses::announce(Arc::clone(&node), ended));
    while let Some(event) = events.next().await {
        match event {
            RouteEvent::Ended(ended) => {
                if matches!(node.routes.node_state(ended.node), Some(NodeState::Down(_))) {
                    // Who waits for a reply of it waits no more; it is dialed anew, for it may come back.
                    node.remote.overflow().forget(ended.node);
                    cluster.redial(ended.node);
                }
                if sender.send(ended).await.is_err() {
                    return;
                }
            }
            RouteEvent::Displaced { route, .. } if route.node == node.node_id => {
                // The binding node asks for it too; if it has died since, nobody does.
                if let Some(session) = node.sessions.get(route.index) {
                    actix_rt::spawn(async move {
                        session.end(EndReason::Error(StreamCondition::Conflict.into())).await;
                    });
                }
            }
            RouteEvent::Displaced { .. } => {}
        }
    }
}

/// Counts how often the lease runs out.
pub(crate) async fn count_suspensions(cluster: Arc<Cluster>, metrics: ClusterMetrics) {
    let mut changes = cluster.lease().changes();
    let mut before = *changes.borrow_and_update();
    while changes.changed().await.is_ok() {
        let now = *changes.borrow_and_update();
        if before == Standing::Serving && now != Standing::Serving {
            metrics.suspended();
            tracing::warn!("the lease has run out: this node is suspended");
        }
        before = now;
    }
}
