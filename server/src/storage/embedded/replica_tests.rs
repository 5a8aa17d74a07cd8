//! Replicas that apply the same commands have the same rows: however the commands are grouped, whatever crashes,
//! and also when the rows came as a snapshot.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use althing_cluster::store_log::{Replica, RowReader, Seal};
use althing_proto::jid::Jid;
use althing_proto::privacy::{Connected, Item, Kinds, PrivacyChange, SessionKey, Subject};
use althing_proto::roster::{Direction, RosterChange, SubscriptionEvent, SubscriptionKind};
use althing_proto::time::Timestamp;
use bytes::Bytes;
use proptest::prelude::*;

use super::super::conformance::messages::message;
use super::super::conformance::{account, jid, named};
use super::super::profile::{Logout, Word};
use super::super::{
    Accounts, Engine as _, PrivacyLimits, PrivateData, RosterLimits, Rosters as _, RowBound, StorageError,
};
use super::apply::DELETIONS_PER_BATCH;
use super::chunk;
use super::command::{
    ChangePrivacy, ChangeRoster, Command, CreateAccount, DeleteAccount, DeletePrivate, NoteLogouts, PutPart,
    PutPrivate, PutPrivateWithin, SealDocument, SetCredentials, SetDisabled,
};
use super::messages::tests as messages;
use super::reply::Reply;
use super::tests::with_sled;
use super::{Embedded, EmbeddedOptions, EmbeddedReplica, keys};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

struct Node {
    dir: tempfile::TempDir,
    store: Arc<Embedded>,
    replica: EmbeddedReplica,
}

fn open(dir: &Path) -> (Arc<Embedded>, EmbeddedReplica) {
    let options = EmbeddedOptions { cache_bytes: 8 << 20, readers: 1, queue: 1_024, reserve_bytes: 0 };
    let store = Arc::new(Embedded::open(dir, options).unwrap());
    (store.clone(), EmbeddedReplica::new(store))
}

/// Makes that number the mark.
fn seal(mark: usize) -> Seal {
    Box::new(move |_| mark.to_string().into())
}

impl Node {
    fn new() -> Node {
        let dir = tempfile::tempdir().unwrap();
        let (store, replica) = open(dir.path());
        Node { dir, store, replica }
    }

    async fn apply(&self, commands: &[Command], mark: usize) -> Vec<Reply> {
        let commands = commands.iter().map(|command| command.encode().unwrap()).collect();
        let replies = self.replica.apply(commands, seal(mark)).await.unwrap();
        replies.iter().map(|reply| Reply::decode(reply).unwrap()).collect()
    }

    /// Ends the process, and begins another.
    async fn restart(self) -> Node {
        let Node { dir, store, replica } = self;
        store.close().await.unwrap();
        drop((store, replica));
        let (store, replica) = open(dir.path());
        Node { dir, store, replica }
    }

    /// All that is on disk.
    async fn end(self) -> Map {
        self.store.close().await.unwrap();
        let mut rows = Map::new();
        with_sled(self.dir.path(), |_, tree| {
            rows.extend(tree.iter().map(Result::unwrap).map(|(key, value)| (key.to_vec(), value.to_vec())));
        });
        rows
    }
}

async fn copy(mut from: Box<dyn RowReader>, to: &Node) {
    let mut writer = to.replica.replace_rows().await.unwrap();
    while let Some(rows) = from.next().await.unwrap() {
        writer.write(rows).await.unwrap();
    }
    writer.finish(from.mark().unwrap()).await.unwrap();
}

fn create(user: &str) -> Command {
    Command::CreateAccount(CreateAccount { user: jid(user), account: account(1) })
}

fn delete(user: &str) -> Command {
    Command::DeleteAccount(DeleteAccount { user: jid(user) })
}

fn put(user: &str, key: usize, size: usize) -> Command {
    let (namespace, key) = ("urn:a".to_owned(), format!("k{key}"));
    Command::PutPrivate(PutPrivate { user: jid(user), namespace, key, value: vec![7; size] })
}

fn put_within(user: &str, key: usize, size: usize) -> Command {
    let Command::PutPrivate(row) = put(user, key, size) else { panic!("a put") };
    Command::PutPrivateWithin(PutPrivateWithin { row, bound: RowBound { rows: 3, bytes: 250 } })
}

fn part(user: &str, upload: u64, part: u32) -> Command {
    let (document, bytes) = ("d".to_owned(), vec![9; 1_000].into());
    Command::PutPart(PutPart { user: jid(user), document, upload, part, bytes })
}

fn seal_document(user: &str, upload: u64, parts: u32, word: &str) -> Command {
    let words = vec![Word { field: 1, text: word.to_owned() }, Word { field: 2, text: "same".to_owned() }];
    let (document, last, note, shown) = ("d".to_owned(), "last".into(), "note".into(), "shown".into());
    let user = jid(user);
    Command::SealDocument(SealDocument { user, document, upload, parts, last, note, words, shown })
}

fn left(user: &str, at: u64) -> Command {
    let logout = Logout { user: jid(user), at: Timestamp::from_millis(at), presence: "<p/>".into() };
    Command::NoteLogouts(NoteLogouts { logouts: vec![logout] })
}

fn roster(user: &str, contact: &str, change: RosterChange) -> Command {
    let (owner, contact, limits) = (jid(user), jid(contact), RosterLimits { items: 9, requests: 2 });
    Command::ChangeRoster(ChangeRoster { owner, contact, change, limits })
}

/// A message that these have, the last one waiting.
fn keep(number: u64, owners: &[&str]) -> Command {
    let mut message = message(number, 300);
    message.owners.drain(..2 - owners.len());
    for (kept, owner) in message.owners.iter_mut().zip(owners) {
        kept.owner = jid(owner);
    }
    Command::KeepMessage(message)
}

/// Any change of privacy lists, with bounds that some of them pass.
fn any_privacy_change() -> impl Strategy<Value = PrivacyChange> {
    let peer =
        || prop::sample::select(vec!["x@example.net", "y@example.net/r", "example.org", "z@example.net"]);
    let peers = |least| prop::collection::vec(peer().prop_map(|text| Jid::new(text).unwrap()), least..4);
    let name = || prop::sample::select(vec!["one", "two", "three"]).prop_map(str::to_owned);
    let maybe = || prop::option::of(name());
    let sessions = || {
        (1..4_u64, prop::collection::vec(1..4_u64, 0..2)).prop_map(|(own, others)| {
            let key = |bind| SessionKey { start: 0, bind };
            Connected { own: key(own), others: others.into_iter().map(key).collect(), latest: 3 }
        })
    };
    let rule = (peer(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(peer, any, allow, all)| {
        let subject = if any { Subject::Any } else { Subject::Jid(Jid::new(peer).unwrap()) };
        Item { order: 0, subject, allow, kinds: if all { Kinds::ALL } else { Kinds::MESSAGE } }
    });
    let rules = prop::collection::vec(rule, 1..5).prop_map(|mut rules| {
        (0..).zip(&mut rules).for_each(|(order, rule)| rule.order = order);
        rules
    });
    prop_oneof![
        4 => peers(1).prop_map(PrivacyChange::Block),
        2 => peers(0).prop_map(PrivacyChange::Unblock),
        4 => (name(), rules).prop_map(|(name, rules)| PrivacyChange::SetList { name, rules }),
        2 => (name(), sessions()).prop_map(|(name, sessions)| PrivacyChange::RemoveList { name, sessions }),
        2 => (maybe(), sessions()).prop_map(|(name, sessions)| PrivacyChange::SetDefault { name, sessions }),
        2 => (maybe(), sessions()).prop_map(|(name, sessions)| PrivacyChange::SetActive { name, sessions }),
    ]
}

fn any_command() -> impl Strategy<Value = Command> {
    let user = || prop::sample::select(vec!["a@example.com", "b@example.com", "c@example.org"]);
    let contact = prop::sample::select(vec!["a@example.com", "x@example.net", "y@example.net"]);
    let subscription = |direction, kind| {
        RosterChange::Subscription(SubscriptionEvent { direction, kind, request: Some(b"<p/>".to_vec()) })
    };
    let change = prop::sample::select(vec![
        named("N"),
        RosterChange::Remove,
        subscription(Direction::Inbound, SubscriptionKind::Subscribe),
        subscription(Direction::Outbound, SubscriptionKind::Subscribed),
    ]);
    prop_oneof![
        15 => messages::any_command(&["a@example.com", "b@example.com", "c@example.org"]),
        3 => user().prop_flat_map(super::streams::any_command),
        2 => user().prop_map(create),
        1 => user().prop_map(delete),
        1 => (user(), any::<u8>()).prop_map(|(user, seed)| {
            let credentials = account(seed).credentials;
            Command::SetCredentials(SetCredentials { user: jid(user), credentials })
        }),
        2 => (user(), prop::option::of(0..9_u64)).prop_map(|(user, since)| {
            let since = since.map(Timestamp::from_millis);
            Command::SetDisabled(SetDisabled { user: jid(user), since })
        }),
        6 => (user(), contact, change).prop_map(|(user, contact, change)| roster(user, contact, change)),
        6 => (user(), 0..40_usize, 0..60_000_usize).prop_map(|(user, key, size)| put(user, key, size)),
        2 => (user(), 0..6_usize, 0..200_usize).prop_map(|(user, key, size)| put_within(user, key, size)),
        3 => (user(), 1..3_u64, 0..3_u32).prop_map(|(user, upload, number)| part(user, upload, number)),
        2 => (user(), 1..3_u64, 0..3_u32, prop::sample::select(vec!["x", "y"]))
            .prop_map(|(user, upload, parts, word)| seal_document(user, upload, parts, word)),
        1 => (user(), 0..9_u64).prop_map(|(user, at)| left(user, at)),
        6 => (user(), any_privacy_change()).prop_map(|(user, change)| {
            let limits = PrivacyLimits { entries: 3, entry_bytes: 60, lists: 2, items: 3 };
            Command::ChangePrivacy(ChangePrivacy { owner: jid(user), change, limits })
        }),
        1 => (user(), 0..40_usize).prop_map(|(user, key)| {
            let (user, namespace) = (jid(user), "urn:a".to_owned());
            Command::DeletePrivate(DeletePrivate { user, namespace, key: format!("k{key}") })
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]
    #[test]
    fn replicas_have_the_same_rows(
        commands in prop::collection::vec(any_command(), 1..200),
        group in 1..50_usize,
        other_group in 1..50_usize,
        snapshot_at in 0.0..1.0_f64,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            // Enough for a snapshot of several chunks.
            let mut all = vec![create("a@example.com"), create("b@example.com"), create("c@example.org")];
            all.extend((0..24).map(|key| put("b@example.com", key, 60_000)));
            all.extend(commands);
            let commands = all;
            let (first, second, late) = (Node::new(), Node::new(), Node::new());
            late.apply(&[create("gone@example.com"), put("gone@example.com", 1, 10)], 1).await;

            let mut replies = Vec::new();
            for (number, commands) in commands.chunks(other_group).enumerate() {
                replies.extend(second.apply(commands, number).await);
            }

            let groups: Vec<_> = commands.chunks(group).collect();
            let taken_after = ((groups.len() as f64) * snapshot_at) as usize + 1;
            let taken_after = taken_after.min(groups.len());
            let frozen = Node::new();
            let mut first_replies = Vec::new();
            for (number, commands) in groups[..taken_after].iter().enumerate() {
                first_replies.extend(first.apply(commands, number).await);
                frozen.apply(commands, number).await;
            }
            // The snapshot is read while the rest is applied.
            let mut reader = first.replica.read_rows().await.unwrap();
            let mut writer = late.replica.replace_rows().await.unwrap();
            let mut read = frozen.end().await;
            read.remove(keys::MARK).unwrap();
            let mut rest = groups.iter().enumerate().skip(taken_after);
            loop {
                let rows = reader.next().await.unwrap();
                if let Some((number, commands)) = rest.next() {
                    first_replies.extend(first.apply(commands, number).await);
                }
                let Some(rows) = rows else { break };
                for (key, value) in chunk::rows(&rows).unwrap() {
                    assert_eq!(read.remove(key).as_deref(), Some(value), "it was another at the mark");
                }
                writer.write(rows).await.unwrap();
            }
            for (number, commands) in rest {
                first_replies.extend(first.apply(commands, number).await);
            }
            assert_eq!(first_replies, replies);
            assert!(read.is_empty(), "rows are missing in the snapshot");

            writer.finish(reader.mark().unwrap()).await.unwrap();
            assert_eq!(late.replica.mark().await.unwrap(), Some((taken_after - 1).to_string().into()));
            for (number, commands) in groups.iter().enumerate().skip(taken_after) {
                late.apply(commands, number).await;
            }
            // The other one got there in other steps: its mark is another.
            second.apply(&[], groups.len() - 1).await;
            let expected = first.end().await;
            messages::assert_whole(&expected);
            assert_eq!(second.end().await, expected);
            assert_eq!(late.end().await, expected);
        });
    }
}

/// The deletion of very many rows goes by steps: whatever follows in the same group, and whatever is still
/// in the view of that group, must not make a difference.
#[tokio::test]
async fn a_deletion_in_steps_leaves_the_same_rows() {
    let user = "juliet@example.com";
    let mut commands = vec![create(user), create("romeo@example.com"), roster(user, "x@d", named("X"))];
    commands.extend((0..450).map(|number| keep(number, &[user])));
    commands.extend((0..DELETIONS_PER_BATCH + 500).map(|key| put(user, key, 1)));
    commands.extend([delete(user), create(user), put(user, 9_999, 1), put("romeo@example.com", 1, 1)]);

    let (whole, single, cut) = (Node::new(), Node::new(), Node::new());
    whole.apply(&commands, 1).await;
    let (before, after) = commands.split_at(commands.len() - 4);
    for command in before.chunks(100).chain(after.chunks(1)) {
        single.apply(command, 1).await;
    }
    // Cut off between the first step and the rest.
    cut.apply(before, 1).await;
    cut.store.close().await.unwrap();
    with_sled(cut.dir.path(), |_, tree| {
        let user = jid(user);
        tree.remove(keys::account(&user)).unwrap();
        tree.remove(keys::mailbox(&user)).unwrap();
        tree.insert(keys::deletion(&user), b"").unwrap();
        tree.insert(keys::AHEAD, &1_u64.to_be_bytes()).unwrap();
    });
    let cut = cut.restart().await;
    assert_eq!(cut.apply(after, 1).await[0], Reply::Lost(()), "it was applied before the crash");

    let expected = whole.end().await;
    assert_eq!(expected.len(), 5, "two accounts, two rows, the mark");
    assert_eq!(single.end().await, expected);
    assert_eq!(cut.end().await, expected);
}

/// A group of commands that takes several batches, of which a failure keeps the last ones from being written.
#[tokio::test]
async fn what_a_crash_let_through_is_not_applied_twice() {
    let mut commands = vec![create("juliet@example.com"), create("romeo@example.com")];
    for _ in 0..3_000 {
        commands.push(roster("juliet@example.com", "nurse@example.com", named("Nurse")));
    }
    commands.extend((0..100).map(|number| keep(number, &["juliet@example.com", "romeo@example.com"])));
    commands.extend((0..2_100).map(|key| put("juliet@example.com", key, 1)));
    commands.push(Command::SetCredentials(SetCredentials {
        user: jid("romeo@example.com"),
        credentials: account(2).credentials,
    }));
    let healthy = Node::new();
    healthy.apply(&[create("romeo@example.com")], 1).await;
    healthy.apply(&commands, 2).await;

    let node = Node::new();
    node.apply(&[create("romeo@example.com")], 1).await;
    let good = node.replica.flush().await;
    assert!(good.is_ok());
    node.store.close().await.unwrap();
    let romeo = keys::account(&jid("romeo@example.com"));
    let mut kept = None;
    with_sled(node.dir.path(), |_, tree| kept = tree.insert(&romeo, b"\xff\xff").unwrap());
    let node = node.restart().await;
    let encoded = commands.iter().map(|command| command.encode().unwrap()).collect();
    assert!(node.replica.apply(encoded, seal(2)).await.is_err(), "a damaged row stops the replica");
    assert!(matches!(node.store.failure(), Some(StorageError::Corrupt { .. })));
    assert!(node.replica.apply(Vec::new(), seal(3)).await.is_err(), "for good");
    assert!(node.store.close().await.is_err());
    with_sled(node.dir.path(), |_, tree| {
        assert!(tree.get(keys::AHEAD).unwrap().is_some(), "a part was written");
        tree.insert(&romeo, kept.unwrap()).unwrap();
    });
    let (store, replica) = open(node.dir.path());
    let node = Node { dir: node.dir, store, replica };
    assert_eq!(node.replica.mark().await.unwrap(), Some("1".into()));

    // A replica that begins from such a state by a snapshot must know of it too.
    let copied = Node::new();
    copy(node.replica.read_rows().await.unwrap(), &copied).await;
    for node in [&node, &copied] {
        // In other groups than before.
        for part in commands.chunks(1_000) {
            node.apply(part, 2).await;
        }
        let loaded = node.store.load(&jid("juliet@example.com")).await.unwrap();
        assert_eq!(loaded.version, 3_001, "from the time of the account, 1, on");
    }
    let expected = healthy.end().await;
    assert_eq!(node.end().await, expected);
    assert_eq!(copied.end().await, expected);
}

#[tokio::test]
async fn mark_and_rows_come_back_together() {
    let node = Node::new();
    assert_eq!(node.replica.mark().await.unwrap(), None);
    node.apply(&[create("juliet@example.com")], 7).await;
    node.replica.flush().await.unwrap();
    let node = node.restart().await;
    assert_eq!(node.replica.mark().await.unwrap(), Some("7".into()));
    assert_eq!(Accounts::get(&*node.store, &jid("juliet@example.com")).await, Ok(Some(account(1))));
}

#[tokio::test]
async fn a_store_whose_replacement_was_cut_off_is_empty() {
    let node = Node::new();
    let juliet = jid("juliet@example.com");
    node.apply(&[create("juliet@example.com"), put("juliet@example.com", 1, 1)], 1).await;
    let source = Node::new();
    source.apply(&[create("romeo@example.com")], 2).await;
    let rows = source.replica.read_rows().await.unwrap().next().await.unwrap().unwrap();

    let mut writer = node.replica.replace_rows().await.unwrap();
    writer.write(rows).await.unwrap();
    assert_eq!(node.replica.mark().await.unwrap(), None);
    let refused = Accounts::get(&*node.store, &juliet).await;
    assert!(matches!(refused, Err(StorageError::Unavailable { .. })), "{refused:?}");
    assert!(node.replica.apply(Vec::new(), seal(9)).await.is_err());
    assert!(node.replica.read_rows().await.is_err());

    drop(writer);
    let node = node.restart().await;
    assert_eq!(node.replica.mark().await.unwrap(), None);
    for user in ["juliet@example.com", "romeo@example.com"] {
        assert_eq!(Accounts::get(&*node.store, &jid(user)).await, Ok(None));
    }
    assert_eq!(PrivateData::get(&*node.store, &juliet, "urn:a", "k1").await, Ok(None));
    node.apply(&[create("juliet@example.com")], 1).await;
    assert!(node.end().await.contains_key(keys::MARK));
}

#[tokio::test]
async fn a_replacement_that_was_left_behind_writes_nothing() {
    let node = Node::new();
    let mut left = node.replica.replace_rows().await.unwrap();
    let new = node.replica.replace_rows().await.unwrap();
    assert!(left.write(Bytes::new()).await.is_err());
    assert!(left.finish("1".into()).await.is_err());
    new.finish("2".into()).await.unwrap();
    assert_eq!(node.replica.mark().await.unwrap(), Some("2".into()));
    assert_eq!(node.store.failure(), None);
}

#[tokio::test]
async fn bytes_that_are_no_rows_are_refused() {
    let node = Node::new();
    let mut writer = node.replica.replace_rows().await.unwrap();
    for bytes in [&b"\0\0\0\x09k"[..], b"\0\0\0\x05mmark\0\0\0\0"] {
        let error = writer.write(Bytes::from_static(bytes)).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
    }
}

#[tokio::test]
async fn one_snapshot_is_read_at_a_time_and_a_replacement_ends_it() {
    let node = Node::new();
    node.apply(&[create("juliet@example.com")], 1).await;
    let reader = node.replica.read_rows().await.unwrap();
    assert!(node.replica.read_rows().await.is_err());
    drop(reader);
    let mut reader = node.replica.read_rows().await.unwrap();
    let writer = node.replica.replace_rows().await.unwrap();
    writer.finish("2".into()).await.unwrap();
    assert!(reader.next().await.is_err(), "its rows are gone");
    assert_eq!(node.store.failure(), None);
}

#[actix_rt::test]
async fn the_rows_of_a_server_by_itself_are_not_taken_into_a_cluster() {
    let node = Node::new();
    node.store.create(&jid("romeo@example.com"), account(1)).await.unwrap();
    let error = node.replica.mark().await.unwrap_err();
    assert!(error.to_string().contains("empty node.data_dir"), "{error}");
}

/// It would have other rows than its peers from then on.
#[tokio::test]
async fn a_change_of_a_later_release_stops_a_replica_before_it_and_costs_nothing() {
    stops_before(Bytes::from_static(b"\xff\xff\x00"), "kind 65535").await;
    // A kind that is known, with more fields, or with fewer.
    let known = put("juliet@example.com", 3, 1);
    let (bytes, kind) = (known.encode().unwrap(), format!("kind {}:", known.tag()));
    stops_before([&bytes[..], b"\x00"].concat().into(), &kind).await;
    stops_before(bytes.slice(..bytes.len() - 1), &kind).await;
}

async fn stops_before(later: Bytes, says: &str) {
    let node = Node::new();
    node.apply(&[create("juliet@example.com")], 1).await;
    let known = put("juliet@example.com", 1, 1).encode().unwrap();
    let refused = node.replica.apply(vec![known, later], seal(2)).await.unwrap_err().to_string();
    assert!(refused.contains(says) && refused.contains("with the release"), "{refused}");
    assert!(node.replica.apply(Vec::new(), seal(3)).await.is_err(), "for good");
    assert!(node.store.close().await.is_err());
    let (store, replica) = open(node.dir.path());
    let node = Node { dir: node.dir, store, replica };
    assert_eq!(node.replica.mark().await.unwrap(), Some("1".into()), "the log is read from there again");
    let commands = [put("juliet@example.com", 1, 1), put("juliet@example.com", 2, 1)];
    let replies = node.apply(&commands, 2).await;
    assert!(replies.iter().all(|reply| *reply == Reply::Done(true)), "{replies:?}");
}
