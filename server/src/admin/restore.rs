//! A backup on its way into a running node.

use std::time::{Duration, Instant};

use anyhow::bail;

use super::protocol::Answer;
use crate::backup::file::Head;
use crate::node::NodeContext;
use crate::storage::embedded::backup::FORMAT;
use crate::storage::{RestoreStep, StorageError};

/// How long a step is repeated that the store does not take now: less than the socket allows a request.
const PATIENCE: Duration = Duration::from_secs(15);

/// Begins, when the backup fits this server.
pub(super) async fn begin(node: &NodeContext, id: u64, head: &Head) -> anyhow::Result<Answer> {
    if head.format != FORMAT {
        bail!(
            "the backup has rows of format {}, made by release {}; this node reads format {FORMAT}: restore it with the release \
             that made it",
            head.format,
            head.release
        );
    }
    let config = node.config();
    let missing: Vec<_> = head
        .domains
        .iter()
        .filter(|domain| !config.xmpp.domains.contains(domain))
        .map(String::as_str)
        .collect();
    if !missing.is_empty() {
        bail!(
            "the backup is of {}, which this node does not serve, and its accounts could not log in: set xmpp.domains on all \
             nodes",
            missing.join(", ")
        );
    }
    step(node, id, RestoreStep::Begin).await
}

/// The last step.
pub(super) async fn finish(node: &NodeContext, id: u64) -> anyhow::Result<Answer> {
    let done = step(node, id, RestoreStep::Finish).await?;
    tracing::info!("a backup was restored");
    Ok(done)
}

/// Any step: each may be repeated, also where nobody knows what became of it.
pub(super) async fn step(node: &NodeContext, id: u64, step: RestoreStep) -> anyhow::Result<Answer> {
    let began = Instant::now();
    loop {
        match node.storage.backups.restore(id, step.clone()).await {
            Ok(changed) => return Ok(Answer::Done { changed }),
            Err(StorageError::Busy | StorageError::Unavailable { .. } | StorageError::Unknown)
                if began.elapsed() < PATIENCE => {}
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
