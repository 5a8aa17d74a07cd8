//! What the store knows of a stream: a client is told no number that would be forgotten with its node.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Mutex, Notify};
use tokio::time::timeout;

use althing_proto::jid::FullJid;
use althing_proto::stream::management::Count;

use crate::node::NodeContext;
use crate::session::inbound::Inbound;
use crate::session::records;
use crate::storage::StorageError;
use crate::storage::messages::{KeepMessage, Kept};
use crate::storage::streams::{Handled, StreamChange, StreamRecord, Streams};

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

/// A node whose store refuses so many changes of streams.
fn node(refuses: usize) -> Arc<NodeContext> {
    let mut node = NodeContext::for_tests();
    let inner = Arc::clone(&node.storage.streams);
    let refuses = Arc::new(AtomicUsize::new(refuses));
    node.storage.streams = Arc::new(Late { inner, refuses, held: Arc::default() });
    Arc::new(node)
}

/// A stream of a node on such a store, which knows it; how many changes it refuses, what holds it, what wakes its writer.
async fn stream() -> (Arc<NodeContext>, FullJid, Arc<Inbound>, (Arc<AtomicUsize>, Arc<Mutex<()>>), Arc<Notify>)
{
    let mut node = NodeContext::for_tests();
    let inner = Arc::clone(&node.storage.streams);
    let (refuses, held): (Arc<AtomicUsize>, Arc<Mutex<()>>) = Default::default();
    node.storage.streams = Arc::new(Late { inner, refuses: Arc::clone(&refuses), held: Arc::clone(&held) });
    let node = Arc::new(node);
    let jid = FullJid::new("a@localhost/r").unwrap();
    node.has_account(&jid.to_bare()).await;
    let bind = node.routes.bind(&jid).await.unwrap().index;
    let writer = Arc::default();
    let inbound = Inbound::new(Count(0), Arc::clone(&writer));
    inbound.record(&node, records::key(&jid, [7; 32]), bind, 60);
    timeout(PATIENCE, inbound.all_stored()).await.expect("the record is made");
    (node, jid, inbound, (refuses, held), writer)
}

/// R1, R2: what a client has heard is in the store, which keeps it when the node is lost: at once it is told what is there, and
/// the rest as soon as it is.
#[tokio::test]
async fn r1_r2_a_client_is_told_no_more_than_the_store_has() {
    let (node, jid, inbound, (_, held), writer) = stream().await;
    let holds = held.lock().await;
    drop(inbound.begin());
    drop(inbound.begin());
    assert_eq!((inbound.safe(), inbound.asked(), inbound.due()), (Count(2), Count(0), None));
    drop(inbound.begin());
    assert_eq!(inbound.due(), None);
    drop(holds);
    timeout(PATIENCE, writer.notified()).await.expect("it is told");
    let told = inbound.due().unwrap();
    assert!([Count(2), Count(3)].contains(&told), "{told:?}");
    let record = node.storage.streams.get(&jid).await.unwrap().unwrap();
    assert!(record.handled.since(told).is_some(), "{told:?} was told, {:?} is stored", record.handled);
}

/// R2: what the store refuses is written as soon as it takes it, and the client hears of it then.
#[tokio::test]
async fn r2_what_the_store_refuses_is_told_later() {
    let (node, jid, inbound, (refuses, _), writer) = stream().await;
    refuses.store(1, Ordering::SeqCst);
    drop(inbound.begin());
    assert_eq!(inbound.asked(), Count(0));
    timeout(PATIENCE, writer.notified()).await.expect("it is told");
    assert_eq!(inbound.due(), Some(Count(1)));
    assert_eq!(refuses.load(Ordering::SeqCst), 0);
    assert_eq!(node.storage.streams.get(&jid).await.unwrap().unwrap().handled, Count(1));
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
    timeout(PATIENCE, writer.notified()).await.expect("nothing is told");
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
