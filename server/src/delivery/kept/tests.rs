//! Messages that the store does not take at once.

use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use tokio::time::timeout;

use althing_cluster::lease::{Lease, LeaseTimes, boot_time};
use althing_cluster::routes::BindIndex;
use althing_proto::jid::FullJid;
use althing_proto::stream::management::Count;

use super::*;
use crate::config::HostMessages;
use crate::delivery::places;
use crate::session::inbound::Inbound;
use crate::storage::messages::ArchiveQuery;
use crate::storage::streams::{Handled, StreamChange, StreamKey, StreamRecord};
use crate::storage::{Messages, Storage, Streams};

/// A store that cannot be used for the first messages.
struct Failing {
    store: Storage,
    failures: AtomicU32,
    /// How many changes of records fail.
    forgetful: AtomicU32,
}

fn fails(times: &AtomicU32) -> Result<(), StorageError> {
    let one = |left: u32| left.checked_sub(1);
    let failed = times.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one).is_ok();
    if failed { Err(StorageError::Unavailable { why: "it fails".to_owned() }) } else { Ok(()) }
}

impl Failing {
    fn node(failures: u32) -> Arc<NodeContext> {
        Failing::forgetful_node(failures).0
    }

    fn forgetful_node(failures: u32) -> (Arc<NodeContext>, Arc<Failing>) {
        let mut node = NodeContext::for_tests();
        let (store, [failures, forgetful]) = (node.storage.clone(), [failures, 0].map(AtomicU32::new));
        let failing = Arc::new(Failing { store, failures, forgetful });
        (node.storage.messages, node.storage.streams) = (failing.clone(), failing.clone());
        (Arc::new(node), failing)
    }
}

#[async_trait]
impl Messages for Failing {
    async fn keep(&self, message: KeepMessage) -> Result<Vec<Kept>, StorageError> {
        fails(&self.failures)?;
        self.store.messages.keep(message).await
    }

    async fn retract(&self, sender: &BareJid, id: StanzaId, tombstone: Bytes) -> Result<bool, StorageError> {
        self.store.messages.retract(sender, id, tombstone).await
    }
}

#[async_trait]
impl Streams for Failing {
    async fn change(&self, changes: Vec<StreamChange>) -> Result<(), StorageError> {
        fails(&self.forgetful)?;
        self.store.streams.change(changes).await
    }

    async fn keep(&self, message: KeepMessage, handled: Handled) -> Result<Vec<Kept>, StorageError> {
        fails(&self.failures)?;
        self.store.streams.keep(message, handled).await
    }

    async fn get(&self, jid: &FullJid) -> Result<Option<StreamRecord>, StorageError> {
        self.store.streams.get(jid).await
    }

    async fn list(&self, after: Option<&FullJid>, limit: usize) -> Result<Vec<StreamRecord>, StorageError> {
        self.store.streams.list(after, limit).await
    }

    async fn secret(&self, candidate: [u8; 32]) -> Result<[u8; 32], StorageError> {
        self.store.streams.secret(candidate).await
    }
}

/// A message of `jid` to `account`, which has come as the stanza of that hold.
async fn message(node: &Arc<NodeContext>, jid: &FullJid, account: &BareJid, own: &Hold) -> Plan {
    let xml = format!(
        "<message xmlns='jabber:client' from='{jid}' to='{account}' type='chat'><body>x</body></message>"
    );
    let stanza = Stanza::parse(xml.parse().unwrap()).unwrap();
    let place = places::room(node, None).await.unwrap();
    Plan::new(node, &stanza, keeping(&stanza), Some(account.clone()), (Some(own), place)).unwrap()
}

/// A message of `jid` to `account`, by a stream that the store knows; it is being kept while somebody has got it.
async fn keep_one(node: &Arc<NodeContext>, jid: &FullJid, account: &BareJid) -> Arc<Inbound> {
    for user in [&jid.to_bare(), account] {
        node.has_account(user).await;
    }
    let inbound = Inbound::new(Count(0), Arc::default());
    let key = StreamKey { jid: jid.clone(), hash: [7; 32] };
    inbound.record(node, key, BindIndex(1), 60);
    let own = inbound.begin();
    own.is_last(true);
    let plan = message(node, jid, account, &own).await;
    plan.keep_live(node, vec![Taker { bind: BindIndex(2), device: None }], Some(own.clone()));
    inbound
}

/// R1, R7: what its receiver has got is not sent back because the store cannot be used for a moment; it is safe when it is kept,
/// and with it the store knows that it is handled.
#[tokio::test]
async fn r1_r7_what_somebody_has_got_is_tried_again() {
    let node = Failing::node(2);
    let jid = FullJid::new("a@localhost/x").unwrap();
    let account = BareJid::new("b@localhost").unwrap();
    let inbound = keep_one(&node, &jid, &account).await;
    assert_eq!(inbound.safe(), Count(0));
    timeout(Duration::from_secs(20), inbound.all_safe()).await.unwrap();
    assert_eq!(node.storage.inbox.summary(&account).await.unwrap().messages, 1);
    let record = node.storage.streams.get(&jid).await.unwrap().unwrap();
    assert_eq!(record.handled, Count(1));
}

/// A node whose lease is lost meanwhile says nothing of it: that would be an error about what may be kept, to somebody who
/// writes it once more on another stream. Nor is it safe.
#[tokio::test]
async fn r1_a_node_without_a_lease_sends_nothing_back() {
    let second = Duration::from_secs(1);
    let times = LeaseTimes { suspend: 600 * second, close: 1_200 * second, down: 1_800 * second };
    let lease = Lease::new(times);
    lease.begin_anew();
    lease.grant(boot_time(), 600 * second);
    let mut node = Arc::into_inner(Failing::node(u32::MAX)).unwrap();
    node.lease = lease.clone();
    let node = Arc::new(node);
    let jid = FullJid::new("a@localhost/x").unwrap();
    let inbound = keep_one(&node, &jid, &BareJid::new("b@localhost").unwrap()).await;
    lease.lose();
    // It is held until it is done with.
    let done = async {
        while Arc::strong_count(&inbound) > 1 {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(20), done).await.unwrap();
    assert_eq!(inbound.safe(), Count(0));
}

/// R1: of two messages of a stream the store refuses the first one. Should the node die before its sender has heard of that,
/// neither counts as handled: the sender writes both once more.
#[tokio::test]
async fn r1_no_number_covers_a_message_that_was_refused_before_its_sender_was_told() {
    let node = Arc::new(NodeContext::for_tests());
    let jid = FullJid::new("a@localhost/x").unwrap();
    let [full, other] = ["b@localhost", "c@localhost"].map(|jid| BareJid::new(jid).unwrap());
    for user in [&jid.to_bare(), &full, &other] {
        node.has_account(user).await;
    }
    let inbound = Inbound::new(Count(0), Arc::default());
    inbound.record(&node, StreamKey { jid: jid.clone(), hash: [7; 32] }, BindIndex(1), 60);
    let handled = async || node.storage.streams.get(&jid).await.unwrap().unwrap().handled;
    for (to, most) in [(&full, 0), (&other, 9)] {
        node.configure(|config| config.offline.messages = most);
        let own = inbound.begin();
        own.is_last(true);
        message(&node, &jid, to, &own).await.keep_absent(&node, Some(own.clone()));
    }
    assert_eq!(handled().await, Count(0));
    assert_eq!(node.storage.inbox.summary(&other).await.unwrap().messages, 1);
    timeout(Duration::from_secs(20), inbound.all_safe()).await.unwrap();
    // What comes next counts on it that the sender was told.
    let own = inbound.begin();
    own.is_last(true);
    message(&node, &jid, &other, &own).await.keep_absent(&node, Some(own.clone()));
    assert_eq!(handled().await, Count(3));
    let counted = [Keep::Kept, Keep::Refused].map(|what| node.metrics.keeping.count(what));
    assert!(counted[0].0 >= 1 && counted[0].0 == counted[0].1, "each with its time: {counted:?}");
    assert_eq!(counted[1].0, 1);
}

/// R2: what is handled besides messages is noted behind; where the store fails for a moment, with what comes next.
#[tokio::test]
async fn r2_what_could_not_be_noted_is_noted_later() {
    let (node, failing) = Failing::forgetful_node(0);
    let jid = FullJid::new("a@localhost/x").unwrap();
    node.has_account(&jid.to_bare()).await;
    let inbound = Inbound::new(Count(0), Arc::default());
    inbound.record(&node, StreamKey { jid: jid.clone(), hash: [7; 32] }, BindIndex(1), 60);
    drop(inbound.begin());
    failing.forgetful.store(1, Ordering::Relaxed);
    assert!(node.records.flush(&node).await.is_err());
    assert_eq!(node.storage.streams.get(&jid).await.unwrap().unwrap().handled, Count(0));
    node.records.flush(&node).await.unwrap();
    assert_eq!(node.storage.streams.get(&jid).await.unwrap().unwrap().handled, Count(1));
}

/// An acknowledgement waits for the store as soon as one of those the message is kept for is of a host that commits: its
/// receiver, or its sender, where that one's archive has it. Where both are of others it waits for nothing.
#[tokio::test]
async fn r1_an_acknowledgement_waits_where_one_of_the_owners_is_of_a_host_that_commits() {
    for (from, to, archives, waits) in [
        ("a@localhost/x", "b@localhost", true, true),
        ("a@localhost/x", "b@quick.localhost", true, true),
        ("a@quick.localhost/x", "b@localhost", true, true),
        ("a@quick.localhost/x", "b@quick.localhost", true, false),
        ("a@localhost/x", "b@quick.localhost", false, false),
        ("a@elsewhere/x", "b@quick.localhost", true, false),
    ] {
        let (node, failing) = Failing::forgetful_node(u32::MAX);
        node.configure(|config| {
            config.xmpp.domains.push("quick.localhost".to_owned());
            let quick = HostMessages { domain: "quick.localhost".to_owned(), durability: Durability::Memory };
            config.messages.hosts.push(quick);
            config.archive.enabled = archives;
        });
        let jid = FullJid::new(from).unwrap();
        let account = BareJid::new(to).unwrap();
        let inbound = keep_one(&node, &jid, &account).await;
        let stored = async || {
            let query = ArchiveQuery { limit: 9, ..ArchiveQuery::default() };
            node.storage.archive.page(&account, query).await.unwrap().unwrap().messages.len()
        };
        if !waits {
            // The store takes nothing yet.
            timeout(Duration::from_secs(20), inbound.all_safe()).await.unwrap();
            failing.failures.store(0, Ordering::Relaxed);
            let kept = async {
                while archives && stored().await == 0 {
                    tokio::task::yield_now().await;
                }
            };
            timeout(Duration::from_secs(20), kept).await.unwrap();
            continue;
        }
        assert_eq!(inbound.safe(), Count(0), "{from} to {to}");
        failing.failures.store(2, Ordering::Relaxed);
        timeout(Duration::from_secs(20), inbound.all_safe()).await.unwrap();
        assert_eq!(stored().await, 1, "{from} to {to}");
    }
}
