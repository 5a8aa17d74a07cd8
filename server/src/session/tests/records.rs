//! What the store knows of a stream: a client is told no number that would be forgotten with its node.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;

use althing_proto::jid::FullJid;
use althing_proto::stream::management::Count;

use crate::node::NodeContext;
use crate::session::inbound::Inbound;
use crate::session::records;
use crate::storage::StorageError;
use crate::storage::messages::{KeepMessage, Kept};
use crate::storage::streams::{Handled, StreamChange, StreamRecord, Streams};

/// A store that has no leader for the first changes.
struct Late {
    inner: Arc<dyn Streams>,
    refuses: AtomicUsize,
}

#[async_trait]
impl Streams for Late {
    async fn change(&self, changes: Vec<StreamChange>) -> Result<(), StorageError> {
        let refuses =
            self.refuses.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if refuses.is_ok() {
            return Err(StorageError::Unavailable { why: "it has no leader".to_owned() });
        }
        self.inner.change(changes).await
    }

    async fn keep(&self, message: KeepMessage, handled: Handled) -> Result<Vec<Kept>, StorageError> {
        self.inner.keep(message, handled).await
    }

    async fn get(&self, jid: &FullJid) -> Result<Option<StreamRecord>, StorageError> {
        self.inner.get(jid).await
    }

    async fn list(&self, after: Option<&FullJid>, limit: usize) -> Result<Vec<StreamRecord>, StorageError> {
        self.inner.list(after, limit).await
    }

    async fn secret(&self, candidate: [u8; 32]) -> Result<[u8; 32], StorageError> {
        self.inner.secret(candidate).await
    }
}

/// A node whose store refuses so many changes of streams.
fn node(refuses: usize) -> Arc<NodeContext> {
    let mut node = NodeContext::for_tests();
    let inner = Arc::clone(&node.storage.streams);
    node.storage.streams = Arc::new(Late { inner, refuses: AtomicUsize::new(refuses) });
    Arc::new(node)
}

/// R1: while the store has no record of a stream nothing that is handled is told; the record is made all the same, as soon as
/// that is possible.
#[tokio::test]
async fn r1_nothing_is_told_of_a_stream_that_the_store_does_not_know() {
    let node = node(2);
    let jid = FullJid::new("a@localhost/r").unwrap();
    node.has_account(&jid.to_bare()).await;
    let bind = node.routes.bind(&jid).await.unwrap().index;
    let writer = Arc::default();
    let inbound = Inbound::new(Count(0), Arc::clone(&writer));
    inbound.record(&node, records::key(&jid, [7; 32]), bind, 60);
    for _ in 0..3 {
        drop(inbound.begin());
    }
    assert_eq!((inbound.safe(), inbound.asked(), inbound.due()), (Count(3), Count(0), None));
    tokio::time::timeout(Duration::from_secs(20), writer.notified()).await.expect("nothing is told");
    assert_eq!(inbound.due(), Some(Count(3)));
    let record = node.storage.streams.get(&jid).await.unwrap().unwrap();
    assert_eq!((record.bind, record.handled), (bind, Count(3)));
}

/// R1: a client that is told that nothing is known writes all of it once more; where nobody can say it is to come again.
#[tokio::test]
async fn r1_a_store_that_does_not_answer_does_not_say_that_nothing_is_known() {
    let node = node(0);
    let jid = FullJid::new("a@localhost/r").unwrap();
    node.has_account(&jid.to_bare()).await;
    assert_eq!(records::close(&node, &jid, &[7; 32]).await, Ok(None));
    let node = self::node(1);
    assert!(records::close(&node, &jid, &[7; 32]).await.is_err());
}
