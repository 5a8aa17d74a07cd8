//! What only a store group can get wrong: stale reads, lost leaders, answers that do not come.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use althing_cluster::node_id::NodeId;
use althing_cluster::store_log::{StoreLog, StoreLogError};
use bytes::Bytes;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use super::super::conformance::messages::{JULIET, ROMEO, id, message};
use super::super::conformance::{account, jid};
use super::super::embedded::command::{Command, DeleteAccount, PutPrivate};
use super::super::embedded::query::{GetAccount, Query};
use super::super::messages::Kept;
use super::super::{Accounts, MAX_VALUE_BYTES, Messages, PrivateData, Storage, StorageError};
use super::fake::{Cluster, Links, Outside};
use super::{RemoteError, Replicated, Reply};

fn unavailable() -> StoreLogError {
    StoreLogError::Unavailable("an election is going on".to_owned())
}

#[tokio::test]
async fn a_replica_that_lags_answers_when_it_has_caught_up() {
    let cluster = Cluster::start(3);
    let juliet = jid("juliet@example.com");
    cluster.members[1].runs.send_replace(false);
    cluster.nodes[0].create(&juliet, account(1)).await.unwrap();
    let read = tokio::spawn({
        let (node, juliet) = (cluster.nodes[1].clone(), juliet.clone());
        async move { Accounts::get(&*node, &juliet).await }
    });
    assert_eq!(Accounts::get(&*cluster.nodes[2], &juliet).await, Ok(Some(account(1))));
    assert!(!read.is_finished(), "it does not have the account yet");
    cluster.members[1].runs.send_replace(true);
    assert_eq!(read.await.unwrap(), Ok(Some(account(1))));
}

#[tokio::test]
async fn a_write_that_was_not_made_is_repeated() {
    let cluster = Cluster::start(1);
    cluster.members[0].faults.lock().extend([unavailable(), unavailable()]);
    assert_eq!(cluster.nodes[0].create(&jid("juliet@example.com"), account(1)).await, Ok(true));
    assert_eq!(cluster.members[0].tried.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_write_of_unknown_fate_is_not_repeated() {
    let cluster = Cluster::start(3);
    let juliet = jid("juliet@example.com");
    cluster.members[0].faults.lock().push_back(StoreLogError::Unknown);
    assert_eq!(cluster.nodes[0].create(&juliet, account(1)).await, Err(StorageError::Unknown));
    assert_eq!(cluster.members[0].tried.load(Ordering::SeqCst), 1);

    // Whoever asks by another node learns it too.
    cluster.members[0].faults.lock().push_back(StoreLogError::Unknown);
    assert_eq!(cluster.outsider.create(&juliet, account(1)).await, Err(StorageError::Unknown));
    cluster.links.faults.lock().push_back(RemoteError::Unknown("the link broke".to_owned()));
    assert_eq!(cluster.outsider.create(&juliet, account(1)).await, Err(StorageError::Unknown));
    assert_eq!(cluster.links.tried.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn the_next_replica_is_asked_when_one_refuses() {
    let cluster = Cluster::start(3);
    let juliet = jid("juliet@example.com");
    let refused = || RemoteError::Refused("the node is suspended".to_owned());
    cluster.links.faults.lock().extend([refused(), refused()]);
    assert_eq!(cluster.outsider.create(&juliet, account(1)).await, Ok(true));
    cluster.links.faults.lock().extend([refused(), RemoteError::Unknown("the link broke".to_owned())]);
    assert_eq!(Accounts::get(&*cluster.outsider, &juliet).await, Ok(Some(account(1))));
    assert_eq!(cluster.links.tried.load(Ordering::SeqCst), 6);
}

#[tokio::test]
async fn without_a_group_requests_end_at_the_deadline() {
    let outside = Outside { replicas: 0, turn: AtomicUsize::new(0) };
    let store = Replicated::new(Arc::new(outside), None, Arc::new(Links::default()));
    let store = Replicated { deadline: Duration::from_millis(150), ..store };
    let juliet = jid("juliet@example.com");
    for error in [
        Accounts::get(&store, &juliet).await.unwrap_err(),
        store.create(&juliet, account(1)).await.unwrap_err(),
    ] {
        let text = error.to_string();
        assert!(matches!(error, StorageError::Unavailable { .. }), "{text}");
        assert!(text.contains("no node is known to hold a replica"), "{text}");
    }
}

#[tokio::test]
async fn a_replica_that_never_catches_up_ends_at_the_deadline() {
    let cluster = Cluster::start(1);
    let juliet = jid("juliet@example.com");
    cluster.nodes[0].create(&juliet, account(1)).await.unwrap();
    cluster.members[0].runs.send_replace(false);
    let slow = Replicated::new(
        cluster.members[0].clone(),
        Some(cluster.members[0].rows.clone()),
        Arc::new(Links::default()),
    );
    let slow = Replicated { deadline: Duration::from_millis(150), ..slow };
    assert_eq!(Accounts::delete(&slow, &juliet).await, Err(StorageError::Unknown), "it is in the log by now");
    let error = Accounts::get(&slow, &juliet).await.unwrap_err();
    assert!(matches!(error, StorageError::Unavailable { .. }), "{error}");
}

#[tokio::test]
async fn a_node_without_a_replica_passes_nothing_on() {
    let cluster = Cluster::start(1);
    let user = jid("juliet@example.com");
    let query = Query::GetAccount(GetAccount { user: user.clone() }).encode().unwrap();
    let command = Command::DeleteAccount(DeleteAccount { user }).encode().unwrap();
    for refused in
        [cluster.outsider.answer_read(query).await, cluster.outsider.answer_write(command.clone()).await]
    {
        assert!(refused.unwrap_err().contains("no replica"));
    }
    assert_eq!(cluster.links.tried.load(Ordering::SeqCst), 0);
    let damaged = command.slice(..command.len() - 1);
    assert!(cluster.nodes[0].answer_write(damaged.clone()).await.is_err());
    assert!(cluster.nodes[0].answer_read(damaged).await.is_err());
    assert_eq!(cluster.members[0].tried.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn what_is_too_large_never_gets_into_the_log() {
    let cluster = Cluster::start(1);
    let put = PutPrivate {
        user: jid("juliet@example.com"),
        namespace: "urn:a".to_owned(),
        key: "k".to_owned(),
        value: vec![0; MAX_VALUE_BYTES + 1],
    };
    let bytes = Command::PutPrivate(put).encode().unwrap();
    let reply = cluster.nodes[0].answer_write(bytes).await.unwrap();
    let refused = Reply::decode(&reply).unwrap().done();
    assert!(matches!(refused, Err(StorageError::TooLarge { what: "value", .. })), "{refused:?}");
    assert_eq!(cluster.members[0].tried.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn long_lists_come_in_pages_that_nobody_sees() {
    let cluster = Cluster::start(3);
    let juliet = jid("juliet@example.com");
    cluster.outsider.create(&juliet, account(1)).await.unwrap();
    let expected: Vec<_> = (0..200_u8).map(|number| (format!("k{number:03}"), vec![number])).collect();
    for (key, value) in &expected {
        cluster.outsider.put(&juliet, "urn:a", key, value.clone()).await.unwrap();
    }
    for node in [&cluster.outsider, &cluster.nodes[2]] {
        let list = |after, limit| PrivateData::list(&**node, &juliet, "urn:a", after, limit);
        assert_eq!(list(None, usize::MAX).await.unwrap(), expected);
        assert_eq!(list(Some("k009"), 150).await.unwrap(), expected[10..160]);
        assert_eq!(list(None, 0).await.unwrap(), []);
    }
}

/// A group without a leader, which gives each command up after a while.
struct Leaderless {
    after: Duration,
    tried: AtomicUsize,
}

#[async_trait::async_trait]
impl StoreLog for Leaderless {
    fn is_replica(&self) -> bool {
        true
    }

    fn replicas(&self) -> Vec<NodeId> {
        Vec::new()
    }

    async fn write(&self, _: Bytes) -> Result<Bytes, StoreLogError> {
        Err(unavailable())
    }

    async fn write_in_order(&self, _: Bytes, _: Instant) -> Result<Bytes, StoreLogError> {
        self.tried.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(self.after).await;
        Err(unavailable())
    }

    async fn barrier(&self) -> Result<(), StoreLogError> {
        Err(unavailable())
    }
}

/// R19: a message that has had its place in the log for long, and was given up, is not tried behind later ones: that it is not
/// kept is certain then, and not that nobody knows.
#[tokio::test]
async fn r19_a_message_that_has_had_its_place_for_long_is_given_up_for_sure() {
    let cluster = Cluster::start(1);
    let log = Arc::new(Leaderless { after: Duration::from_millis(1_500), tried: AtomicUsize::new(0) });
    let rows = Some(cluster.members[0].rows.clone());
    let node = Replicated::new(log.clone(), rows, Arc::<Links>::default());
    let node = Replicated { deadline: Duration::from_secs(1), ..node };
    let kept = Messages::keep(&node, message(1, 0)).await;
    assert!(matches!(kept, Err(StorageError::Unavailable { .. })), "{kept:?}");
    assert_eq!(log.tried.load(Ordering::SeqCst), 1);
}

/// A message that asks once more where to go is not passed by the next one of its sender.
#[tokio::test]
async fn messages_of_one_sender_keep_their_order_through_other_nodes() {
    let cluster = Cluster::start(3);
    for user in [ROMEO, JULIET] {
        cluster.nodes[0].create(&jid(user), account(1)).await.unwrap();
    }
    let refused = || RemoteError::Refused("the node is suspended".to_owned());
    cluster.links.faults.lock().extend([refused(), refused(), refused()]);
    let keep = |number| Messages::keep(&*cluster.outsider, message(number, 0));
    let (first, second, third) = tokio::join!(keep(1), keep(2), keep(3));
    for (kept, place) in [(first, 1), (second, 2), (third, 3)] {
        assert_eq!(kept, Ok(vec![Kept::At(place), Kept::At(place)]));
    }
}

/// R19: nor where nobody knows what became of it: it is asked for once more in its turn, and is kept once.
#[tokio::test]
async fn r19_messages_of_one_sender_keep_their_order_where_a_replica_is_lost() {
    let cluster = Cluster::start(3);
    for user in [ROMEO, JULIET] {
        cluster.nodes[0].create(&jid(user), account(1)).await.unwrap();
    }
    let unknown = || RemoteError::Unknown("the link broke".to_owned());
    cluster.links.faults.lock().extend([unknown(), unknown()]);
    let keep = |number| Messages::keep(&*cluster.outsider, message(number, 0));
    let (first, second, third) = tokio::join!(keep(1), keep(2), keep(3));
    for (kept, place) in [(first, 1), (second, 2), (third, 3)] {
        assert_eq!(kept, Ok(vec![Kept::At(place), Kept::At(place)]));
    }
    // It is there already, but for the word of it. One comes that says so of itself.
    cluster.links.lost.store(1, Ordering::SeqCst);
    cluster.members[1].faults.lock().push_back(StoreLogError::Unknown);
    let (fourth, fifth) = tokio::join!(keep(4), keep(5));
    for (kept, place) in [(fourth, 4), (fifth, 5)] {
        assert_eq!(kept, Ok(vec![Kept::At(place), Kept::At(place)]));
    }
    let (messages, unanswered) = (5, 2 + 1 + 1);
    assert_eq!(cluster.links.tried.load(Ordering::SeqCst), messages + unanswered);
}

/// A message of unknown fate is given up in the end, and those behind it have their turns.
#[tokio::test]
async fn what_nobody_knows_of_is_given_up_at_the_deadline() {
    let cluster = Cluster::start(1);
    for user in [ROMEO, JULIET] {
        cluster.nodes[0].create(&jid(user), account(1)).await.unwrap();
    }
    let outside = Arc::new(Outside { replicas: 1, turn: AtomicUsize::new(0) });
    let node = Replicated::new(outside, None, cluster.links.clone());
    let node = Replicated { deadline: Duration::from_millis(100), ..node };
    let unknown = || RemoteError::Unknown("the link broke".to_owned());
    cluster.links.faults.lock().extend((0..100).map(|_| unknown()));
    assert_eq!(Messages::keep(&node, message(1, 0)).await, Err(StorageError::Unknown));
    // The last word is certain, and what came before it is not.
    let refused = || RemoteError::Refused("the node is suspended".to_owned());
    *cluster.links.faults.lock() = std::iter::once(unknown()).chain((0..100).map(|_| refused())).collect();
    assert_eq!(Messages::keep(&node, message(1, 0)).await, Err(StorageError::Unknown));
    cluster.links.faults.lock().clear();
    assert_eq!(Messages::keep(&node, message(2, 0)).await, Ok(vec![Kept::At(1), Kept::At(1)]));
}

/// Who waits until all of a sender is kept waits in that sender's lane.
#[tokio::test]
async fn what_was_sent_before_is_kept_when_that_is_said_through_other_nodes_too() {
    let cluster = Cluster::start(3);
    for user in [ROMEO, JULIET] {
        cluster.nodes[0].create(&jid(user), account(1)).await.unwrap();
    }
    let storage = Storage::replicated(cluster.outsider.clone());
    let refused = || RemoteError::Refused("the node is suspended".to_owned());
    cluster.links.faults.lock().extend([refused(), refused(), refused()]);
    let keeping = tokio::spawn(storage.keep(message(1, 0)));
    storage.kept_so_far(&jid(ROMEO)).await.unwrap();
    assert!(storage.inbox.get(&jid(JULIET), id(1)).await.unwrap().is_some());
    assert_eq!(keeping.await.unwrap(), Ok(vec![Kept::At(1), Kept::At(1)]));
}

/// The group as a node sees it that loses its replica while a message is under way.
struct Turning {
    has_replica: AtomicBool,
    tried: watch::Sender<usize>,
    lost: Semaphore,
}

#[async_trait::async_trait]
impl StoreLog for Turning {
    fn is_replica(&self) -> bool {
        self.has_replica.load(Ordering::SeqCst)
    }

    fn replicas(&self) -> Vec<NodeId> {
        vec![NodeId::new(0)]
    }

    async fn write(&self, _: Bytes) -> Result<Bytes, StoreLogError> {
        self.tried.send_modify(|tried| *tried += 1);
        // Nobody closes it.
        drop(self.lost.acquire().await);
        Err(unavailable())
    }

    async fn write_in_order(&self, command: Bytes, _: Instant) -> Result<Bytes, StoreLogError> {
        self.write(command).await
    }

    async fn barrier(&self) -> Result<(), StoreLogError> {
        Err(unavailable())
    }
}

#[tokio::test]
async fn a_message_that_is_still_under_way_here_is_not_passed_through_another_node() {
    let cluster = Cluster::start(1);
    for user in [ROMEO, JULIET] {
        cluster.nodes[0].create(&jid(user), account(1)).await.unwrap();
    }
    let (has_replica, tried, lost) = (AtomicBool::new(true), watch::Sender::new(0), Semaphore::new(0));
    let log = Arc::new(Turning { has_replica, tried, lost });
    let rows = Some(cluster.members[0].rows.clone());
    let node = Arc::new(Replicated::new(log.clone(), rows, cluster.links.clone()));
    let keep = |number| {
        let node = node.clone();
        tokio::spawn(async move { Messages::keep(&*node, message(number, 0)).await })
    };
    let first = keep(1);
    log.tried.subscribe().wait_for(|tried| *tried == 1).await.unwrap();
    log.has_replica.store(false, Ordering::SeqCst);
    let second = keep(2);
    // It would be there by now.
    cluster.nodes[0].create(&jid("witness@example.com"), account(1)).await.unwrap();
    assert_eq!(cluster.links.tried.load(Ordering::SeqCst), 0);
    log.lost.close();
    for (kept, place) in [(first, 1), (second, 2)] {
        assert_eq!(kept.await.unwrap(), Ok(vec![Kept::At(place), Kept::At(place)]));
    }
}
