//! What a node looks at from time to time, as long as it runs.

use std::sync::Arc;
use std::time::Duration;

use tracing::warn;

use crate::admin::Health;
use crate::node::NodeContext;

/// How often the runtime shows that it is alive (`/livez`).
const TICK: Duration = Duration::from_secs(5);
/// Between two looks at the room on the disk: what a fast disk takes in it is far less than the reserve.
const LOOK: Duration = Duration::from_secs(1);

/// Shows that the runtime is alive, and reads what is too dear to read at every scrape.
pub(super) async fn tick(health: Arc<Health>, context: Arc<NodeContext>) {
    let mut interval = tokio::time::interval(TICK);
    loop {
        interval.tick().await;
        health.tick();
        context.metrics.storage_queue(context.storage.engine.queued());
        if let Ok(bytes) = context.storage.engine.size_on_disk().await {
            context.metrics.storage_size(bytes);
        }
    }
}

/// Sees to it that nothing new is kept while the disk has too little room.
pub(super) async fn watch_room(context: Arc<NodeContext>) {
    let mut interval = tokio::time::interval(LOOK);
    let mut told = false;
    loop {
        interval.tick().await;
        match context.storage.engine.room().await {
            Ok(Some(room)) => {
                told = false;
                context.metrics.storage_room(room.free, room.is_low);
            }
            Ok(None) => return,
            Err(error) => {
                if !std::mem::replace(&mut told, true) {
                    warn!(%error, "nobody knows how much room the disk has");
                }
            }
        }
    }
}
