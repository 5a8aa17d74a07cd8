//! A backup on its way out of a running node: it is there for as long as somebody asks for its parts.

use std::sync::Arc;
use std::time::Duration;

use althing_cluster::raft::store_machine;
use althing_cluster::store_log::RowReader;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::file::Head;
use crate::node::NodeContext;
use crate::storage::embedded::backup::FORMAT;
use crate::storage::{Engine, StorageError};

/// After so long without a question a backup is given up: while one is read, the store keeps what changes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Rows, or why there are none.
type Part = Result<Option<Bytes>, String>;

/// The backup that is being made, if there is one.
#[derive(Default)]
pub struct Making(Mutex<Option<Current>>);

struct Current {
    id: u64,
    /// `None`: nobody asks any more.
    questions: Option<mpsc::Sender<oneshot::Sender<Part>>>,
    /// Ends when the rows are let go of.
    reading: JoinHandle<()>,
}

impl Making {
    /// Begins a backup with this number.
    ///
    /// # Errors
    /// As [`Backups::read_rows`](crate::storage::Backups::read_rows); a disk that is nearly full.
    pub async fn begin(&self, node: &NodeContext, id: u64) -> Result<Head, StorageError> {
        let over = self.0.lock().take_if(|current| current.questions.is_none());
        if let Some(over) = over {
            // It ends as soon as it has noticed. One that has panicked has let go of its rows too.
            let _ = over.reading.await;
        }
        has_room(&*node.storage.engine).await?;
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
        let reading = tokio::spawn(read(reader, Arc::clone(&node.storage.engine), asked));
        *self.0.lock() = Some(Current { id, questions: Some(questions), reading });
        tracing::info!("a backup begins");
        Ok(head)
    }

    /// The next rows of that backup; `None` after the last.
    ///
    /// # Errors
    /// Why there are none, in words: it is over then.
    pub async fn next(&self, id: u64) -> Part {
        let over = || "this backup was given up: begin another one".to_owned();
        let questions = {
            let current = self.0.lock();
            current.as_ref().filter(|current| current.id == id).and_then(|of| of.questions.clone())
        };
        let (answer, part) = oneshot::channel();
        questions.ok_or_else(over)?.send(answer).await.map_err(|_| over())?;
        part.await.map_err(|_| over())?
    }

    /// Nobody asks for the rest of that backup any more.
    pub fn end(&self, id: u64) {
        if let Some(current) = self.0.lock().as_mut().filter(|current| current.id == id) {
            current.questions = None;
        }
    }
}

/// What changes while a backup is made takes room, and so may the backup itself: it is not made at the cost of what the
/// node has to keep.
async fn has_room(engine: &dyn Engine) -> Result<(), StorageError> {
    match engine.room().await? {
        Some(room) if room.is_low => {
            let mib = room.free >> 20;
            let why = format!(
                "the disk of this node's data is nearly full ({mib} MiB are free, storage.reserve_mib are to stay so), and a backup takes \
                 room there: make room, write it to another disk, or ask another node"
            );
            Err(StorageError::Backup { why })
        }
        _ => Ok(()),
    }
}

/// Answers until all was read, or nobody asks any more.
async fn read(
    mut reader: Box<dyn RowReader>,
    engine: Arc<dyn Engine>,
    mut asked: mpsc::Receiver<oneshot::Sender<Part>>,
) {
    while let Ok(Some(answer)) = timeout(PATIENCE, asked.recv()).await {
        let part = match has_room(&*engine).await {
            Ok(()) => reader.next().await.map_err(|error| error.to_string()),
            Err(full) => Err(full.to_string()),
        };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{EmbeddedOptions, Storage};

    fn node(dir: &std::path::Path, reserve_bytes: u64) -> NodeContext {
        let mut node = NodeContext::for_tests();
        let options = EmbeddedOptions { reserve_bytes, ..EmbeddedOptions::default() };
        node.storage = Storage::open_embedded(dir, options).unwrap();
        node
    }

    #[actix_rt::test]
    async fn one_that_nobody_asks_for_any_more_makes_room_for_the_next_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let (node, making) = (node(dir.path(), 0), Making::default());
        making.begin(&node, 1).await.unwrap();
        let second = making.begin(&node, 2).await.unwrap_err().to_string();
        assert!(second.contains("another backup is being made"), "{second}");
        assert!(making.next(2).await.is_err());
        making.end(2);
        assert!(making.begin(&node, 2).await.is_err(), "the end of another one");
        making.end(1);
        making.begin(&node, 2).await.unwrap();
        assert!(making.next(1).await.is_err());
        while making.next(2).await.unwrap().is_some() {}
        // What was read to its end holds nothing up either.
        making.end(2);
        making.begin(&node, 3).await.unwrap();
    }

    #[actix_rt::test]
    async fn none_is_made_at_the_cost_of_what_is_to_be_kept() {
        let dir = tempfile::tempdir().unwrap();
        let refused = Making::default().begin(&node(dir.path(), u64::MAX), 1).await.unwrap_err().to_string();
        assert!(refused.contains("nearly full"), "{refused}");
    }
}
