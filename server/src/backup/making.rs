//! A backup on its way out of a running node: it is there for as long as somebody asks for its parts.

use std::sync::Arc;
use std::time::Duration;

use althing_cluster::raft::store_machine;
use althing_cluster::store_log::RowReader;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::file::Head;
use crate::node::NodeContext;
use crate::storage::StorageError;
use crate::storage::embedded::backup::FORMAT;

/// After so long without a question a backup is given up: while one is read, the store keeps what changes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Rows, or why there are none.
type Part = Result<Option<Bytes>, String>;

/// The backup that is being made, if there is one.
#[derive(Default)]
pub struct Making(Mutex<Option<(u64, mpsc::Sender<oneshot::Sender<Part>>)>>);

impl Making {
    /// Begins a backup with this number.
    ///
    /// # Errors
    /// As [`Backups::read_rows`](crate::storage::Backups::read_rows).
    pub async fn begin(&self, node: &NodeContext, id: u64) -> Result<Head, StorageError> {
        let reader = Arc::clone(&node.storage.backups).read_rows().await?;
        let config = node.config();
        let head = Head {
            made: node.now().to_xep0082(),
            release: env!("CARGO_PKG_VERSION").to_owned(),
            node: config.node.name.clone(),
            domains: config.xmpp.domains.clone(),
            format: FORMAT,
            index: reader.mark().and_then(|mark| store_machine::index_of(&mark)),
        };
        let (questions, asked) = mpsc::channel(1);
        *self.0.lock() = Some((id, questions));
        tokio::spawn(read(reader, asked));
        tracing::info!("a backup begins");
        Ok(head)
    }

    /// The next rows of that backup; `None` after the last.
    ///
    /// # Errors
    /// Why there are none, in words: it is over then.
    pub async fn next(&self, id: u64) -> Part {
        let over = || "this backup was given up: begin another one".to_owned();
        let questions =
            self.0.lock().as_ref().filter(|(of, _)| *of == id).map(|(_, questions)| questions.clone());
        let (answer, part) = oneshot::channel();
        questions.ok_or_else(over)?.send(answer).await.map_err(|_| over())?;
        part.await.map_err(|_| over())?
    }
}

/// Answers until all was read, or nobody asks any more.
async fn read(mut reader: Box<dyn RowReader>, mut asked: mpsc::Receiver<oneshot::Sender<Part>>) {
    while let Ok(Some(answer)) = timeout(PATIENCE, asked.recv()).await {
        let part = reader.next().await.map_err(|error| error.to_string());
        let last = !matches!(part, Ok(Some(_)));
        if let Err(error) = &part {
            tracing::warn!(%error, "a backup was not read to its end");
        } else if last {
            tracing::info!("a backup was read to its end");
        }
        // Who is gone does not want it.
        let _gone = answer.send(part);
        if last {
            return;
        }
    }
    tracing::warn!("a backup was given up: nobody asks for the rest");
}
