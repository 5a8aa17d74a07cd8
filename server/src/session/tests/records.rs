//! What the store knows of a stream: a client is told no number that would be forgotten with its node.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Mutex, Notify};
use tokio::time::timeout;

use althing_cluster::routes::BindIndex;
use althing_proto::jid::FullJid;
use althing_proto::stream::management::Count;

use crate::node::NodeContext;
use crate::session::inbound::Inbound;
use crate::session::records;
use crate::storage::StorageError;
use crate::storage::messages::{KeepMessage, Kept};
use crate::storage::streams::{Handled, StreamChange, StreamRecord, Streams};

/// Of the stream's token.
const HASH: [u8; 32] = [7; 32];

/// Longer than the store ever takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A store that has no leader for the next changes, and makes none while `held`.
struct Late {
    inner: Arc<dyn Streams>,
    refuses: Arc<AtomicUsize>,
    held: Arc<Mutex<()>>,
}

#[async_trait]
impl Streams for Late {
    async fn change(&self, changes: Vec<StreamChange>) -> Result<(), StorageError> {
        let _held = self.held.lock().await;
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

/// A stream of a node on such a store.
struct Stream {
    node: Arc<NodeContext>,
    jid: FullJid,
    bind: BindIndex,
    inbound: Arc<Inbound>,
    /// How many changes of streams the store refuses.
    refuses: Arc<AtomicUsize>,
    /// It makes none while this is held.
    held: Arc<Mutex<()>>,
    /// Wakes the stream's writer.
    writer: Arc<Notify>,
}

impl Stream {
    /// One that the store is asked to know while it refuses so many changes.
    async fn recorded(refuses: usize) -> Self {
        let mut node = NodeContext::for_tests();
        let inner = Arc::clone(&node.storage.streams);
        let (refuses, held) = (Arc::new(AtomicUsize::new(refuses)), Arc::default());
        node.storage.streams =
            Arc::new(Late { inner, refuses: Arc::clone(&refuses), held: Arc::clone(&held) });
        let node = Arc::new(node);
        let jid = FullJid::new("a@localhost/r").unwrap();
        node.has_account(&jid.to_bare()).await;
        let bind = node.routes.bind(&jid).await.unwrap().index;
        let writer = Arc::default();
        let inbound = Inbound::new(Count(0), Arc::clone(&writer));
        inbound.record(&node, records::key(&jid, HASH), bind, 60);
        Stream { node, jid, bind, inbound, refuses, held, writer }
    }

    /// One that the store knows.
    async fn known() -> Self {
        let stream = Stream::recorded(0).await;
        timeout(PATIENCE, stream.inbound.all_stored()).await.expect("the record is made");
        stream
    }

    async fn stored(&self) -> Option<StreamRecord> {
        self.node.storage.streams.get(&self.jid).await.unwrap()
    }
}

/// R1, R2: what a client has heard is in the store, which keeps it when the node is lost: at once it is told what is there, and
/// the rest as soon as it is.
#[tokio::test]
async fn r1_r2_a_client_is_told_no_more_than_the_store_has() {
    let stream = Stream::known().await;
    let inbound = &stream.inbound;
    let holds = stream.held.lock().await;
    drop(inbound.begin());
    drop(inbound.begin());
    assert_eq!((inbound.safe(), inbound.asked(), inbound.due()), (Count(2), Count(0), None));
    drop(inbound.begin());
    assert_eq!(inbound.due(), None);
    drop(holds);
    timeout(PATIENCE, stream.writer.notified()).await.expect("it is told");
    let told = inbound.due().unwrap();
    assert!([Count(2), Count(3)].contains(&told), "{told:?}");
    let record = stream.stored().await.unwrap();
    assert!(record.handled.since(told).is_some(), "{told:?} was told, {:?} is stored", record.handled);
}

/// R2: what the store refuses is written as soon as it takes it, and the client hears of it then.
#[tokio::test]
async fn r2_what_the_store_refuses_is_told_later() {
    let stream = Stream::known().await;
    let inbound = &stream.inbound;
    stream.refuses.store(1, Ordering::SeqCst);
    drop(inbound.begin());
    assert_eq!(inbound.asked(), Count(0));
    timeout(PATIENCE, stream.writer.notified()).await.expect("it is told");
    assert_eq!(inbound.due(), Some(Count(1)));
    assert_eq!(stream.refuses.load(Ordering::SeqCst), 0);
    assert_eq!(stream.stored().await.unwrap().handled, Count(1));
}

/// R1: while the store has no record of a stream nothing that is handled is told; the record is made all the same, as soon as
/// that is possible.
#[tokio::test]
async fn r1_nothing_is_told_of_a_stream_that_the_store_does_not_know() {
    let stream = Stream::recorded(2).await;
    let inbound = &stream.inbound;
    for _ in 0..3 {
        drop(inbound.begin());
    }
    assert_eq!((inbound.safe(), inbound.asked(), inbound.due()), (Count(3), Count(0), None));
    timeout(PATIENCE, stream.writer.notified()).await.expect("nothing is told");
    assert_eq!(inbound.due(), Some(Count(3)));
    let record = stream.stored().await.unwrap();
    assert_eq!((record.bind, record.handled), (stream.bind, Count(3)));
}

/// R1: a client that is told that nothing is known writes all of it once more; where nobody can say it is to come again.
#[tokio::test]
async fn r1_a_store_that_does_not_answer_does_not_say_that_nothing_is_known() {
    let stream = Stream::known().await;
    let other = [8; 32];
    assert_eq!(records::close(&stream.node, &stream.jid, &other).await, Ok(None));
    stream.refuses.store(1, Ordering::SeqCst);
    assert!(records::close(&stream.node, &stream.jid, &other).await.is_err());
}
