//! A store into another one: what comes along, what does not, and what is refused meanwhile.

use althing_cluster::routes::BindIndex;
use althing_cluster::store_log::Replica as _;
use althing_proto::privacy::{Connected, PrivacyChange, SessionKey};
use althing_proto::stanza_id::StanzaId;

use super::super::super::Accounts as _;
use super::super::super::conformance::messages::{JULIET, id, message};
use super::super::super::conformance::{account, change, jid, named};
use super::super::super::messages::{Drain, Taker};
use super::super::super::{EmbeddedOptions, PrivacyLimits, RosterNews, Storage};
use super::super::EmbeddedReplica;
use super::super::tagged::assert_golden;
use super::super::tests::with_sled;
use super::*;

fn open(dir: &std::path::Path) -> Storage {
    Storage::open_embedded(dir, EmbeddedOptions { cache_bytes: 8 << 20, ..EmbeddedOptions::default() })
        .unwrap()
}

fn drain(bind: u64, live: &[u64]) -> Drain {
    let live = live.iter().map(|bind| BindIndex(*bind)).collect();
    let taker = Taker { bind: BindIndex(bind), device: None };
    Drain { taker, pass: 1, live, after: None, limit: 100 }
}

async fn taken_by(storage: &Storage, drain: Drain) -> Vec<StanzaId> {
    let drained = storage.inbox.drain(&jid(JULIET), drain).await.unwrap();
    drained.messages.into_iter().map(|message| message.id).collect()
}

/// Two users, a roster, many messages of which one is on its way to a session, a list in force in a session, a stream.
async fn fill(storage: &Storage) {
    for (user, number) in [(JULIET, 1), ("romeo@example.com", 2)] {
        storage.accounts.create(&jid(user), account(number)).await.unwrap();
    }
    change(storage, JULIET, "nurse@example.com", named("Nurse")).await.unwrap();
    for number in 1..=40 {
        storage.keep(message(number, 9_000)).await.unwrap();
    }
    assert_eq!(taken_by(storage, Drain { limit: 1, ..drain(77, &[77]) }).await, [id(1)]);
    let sessions = || Connected { own: SessionKey { start: 0, bind: 77 }, others: Vec::new(), latest: 77 };
    let peer = jid("tybalt@example.com").into();
    let edit = PrivacyChange::Block(vec![peer]);
    let limits = PrivacyLimits { entries: 9, entry_bytes: 900, lists: 9, items: 9 };
    for step in [edit, PrivacyChange::SetActive { name: Some("blocked".to_owned()), sessions: sessions() }] {
        storage.privacy.change(&jid(JULIET), step, limits).await.unwrap().unwrap();
    }
    storage.streams.secret([5; 32]).await.unwrap();
}

async fn all(storage: &Storage) -> Vec<Bytes> {
    let mut reader = storage.backups.clone().read_rows().await.unwrap();
    let mut parts = Vec::new();
    while let Some(rows) = reader.next().await.unwrap() {
        parts.extend(cut(&rows).unwrap().0);
    }
    parts
}

async fn put_back(storage: &Storage, id: u64, parts: Vec<Bytes>) {
    while !storage.backups.restore(id, RestoreStep::Begin).await.unwrap() {}
    for rows in parts {
        assert!(rows.len() <= PART_BYTES);
        assert!(storage.backups.restore(id, RestoreStep::Rows(rows)).await.unwrap());
    }
    // Its answer may be lost.
    for _ in 0..2 {
        assert!(storage.backups.restore(id, RestoreStep::Finish).await.unwrap());
    }
}

fn rows(dir: &std::path::Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    with_sled(dir, |_, tree| {
        let rows = tree.iter().map(|row| row.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap());
        let is_version = |key: &[u8]| keys::is_roster_head(key) || keys::is_roster_change(key);
        found = rows.filter(|(key, _)| !keys::is_of_the_server(key) && !is_version(key)).collect();
    });
    found
}

#[tokio::test]
async fn all_that_users_have_comes_along_and_nothing_of_the_server_that_had_it() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (from, to) = (open(one.path()), open(other.path()));
    fill(&from).await;
    let secret = to.streams.secret([9; 32]).await.unwrap();
    let parts = all(&from).await;
    assert!(parts.len() > 4, "many commands");
    put_back(&to, 1, parts).await;
    assert_eq!(to.accounts.get(&jid(JULIET)).await.unwrap(), Some(account(1)));
    assert_eq!(to.streams.secret([8; 32]).await.unwrap(), secret, "running nodes know it by heart");
    // The first message was on its way to a session: here another one may have that number.
    let waits = taken_by(&to, drain(5, &[5, 77])).await;
    assert_eq!(waits, (1..=40).map(id).collect::<Vec<_>>());
    from.close().await.unwrap();
    to.close().await.unwrap();
    let (from, to) = (rows(one.path()), rows(other.path()));
    let keys = |rows: &[(Vec<u8>, Vec<u8>)]| rows.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>();
    assert_eq!(keys(&from), keys(&to));
    let differ = from.iter().zip(&to).filter(|(one, other)| one != other).map(|((key, _), _)| key);
    let differ: Vec<_> = differ.filter(|key| !keys::is_inbox(key)).collect();
    assert!(differ.len() == 1 && keys::is_privacy_head(differ[0]), "{differ:?}");
}

/// A client knows versions of its roster that came after the backup. None of them is one of the restored roster, where others
/// changes have been made since (RFC 6121 §2.6).
#[tokio::test]
async fn what_a_client_knows_of_a_roster_from_before_a_restore_is_no_version_of_it() {
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let [from, one, other] = [0, 1, 2].map(|number| open(dirs[number].path()));
    fill(&from).await;
    let romeo = "romeo@example.com";
    let parts = all(&from).await;
    let mut known = Vec::new();
    for owner in [JULIET, romeo] {
        let lost = change(&from, owner, "lost@example.com", named("Lost")).await.unwrap();
        known.push((owner, lost.version, 1));
    }
    put_back(&one, 7, parts.clone()).await;
    for owner in [JULIET, romeo] {
        let lost = change(&one, owner, "lost-too@example.com", named("Lost")).await.unwrap();
        known.push((owner, lost.version, 1));
    }
    put_back(&other, 8, parts).await;
    for owner in [JULIET, romeo] {
        change(&other, owner, "friar@example.com", named("Friar")).await.unwrap();
    }
    for (owner, version, most) in known {
        let news = other.rosters.since(&jid(owner), version, most).await.unwrap();
        let RosterNews::Whole(roster) = news else {
            panic!("{owner} is told of changes since {version}: {news:?}")
        };
        assert_eq!(roster.items.len(), if owner == JULIET { 2 } else { 1 });
    }
    // From here on as ever.
    let version = other.rosters.load(&jid(JULIET)).await.unwrap().version;
    change(&other, JULIET, "paris@example.com", named("Paris")).await.unwrap();
    let news = other.rosters.since(&jid(JULIET), version, 9).await.unwrap();
    assert!(!matches!(news, RosterNews::Whole(_)), "{news:?}");
}

/// A beginning whose answer was lost is asked for once more, and may come late.
#[tokio::test]
async fn a_late_beginning_takes_nothing_away() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (from, to) = (open(one.path()), open(other.path()));
    fill(&from).await;
    let parts = all(&from).await;
    while !to.backups.restore(4, RestoreStep::Begin).await.unwrap() {}
    for (number, rows) in parts.into_iter().enumerate() {
        to.backups.restore(4, RestoreStep::Rows(rows)).await.unwrap();
        if number == 1 {
            assert!(to.backups.restore(4, RestoreStep::Begin).await.unwrap());
        }
    }
    let accounts = all(&from).await.remove(0);
    to.backups.restore(4, RestoreStep::Rows(accounts)).await.unwrap();
    to.backups.restore(4, RestoreStep::Finish).await.unwrap();
    assert_eq!(to.accounts.get(&jid(JULIET)).await.unwrap(), Some(account(1)));
    let version = async |storage: &Storage| storage.rosters.load(&jid(JULIET)).await.unwrap().version;
    let (before, after) = (version(&from).await, version(&to).await);
    assert_eq!(after % (1 << 42), before, "its accounts came twice");
    assert_eq!(to.inbox.summary(&jid(JULIET)).await.unwrap().messages, 40);
}

#[tokio::test]
async fn changes_meanwhile_are_not_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path());
    fill(&storage).await;
    let before: usize = all(&storage).await.iter().map(Bytes::len).sum();
    let mut reader = storage.backups.clone().read_rows().await.unwrap();
    let second = storage.backups.clone().read_rows().await.err().unwrap().to_string();
    assert!(second.contains("another backup is being made"), "{second}");
    storage.accounts.delete(&jid(JULIET)).await.unwrap();
    storage.accounts.create(&jid("late@example.com"), account(3)).await.unwrap();
    let mut during = 0;
    while let Some(rows) = reader.next().await.unwrap() {
        during += cut(&rows).unwrap().0.iter().map(Bytes::len).sum::<usize>();
    }
    assert_eq!(during, before);
}

/// A node that joins is not kept waiting by an operator who reads slowly, nor the other way round.
#[tokio::test]
async fn a_backup_and_a_snapshot_for_a_replica_are_read_at_the_same_time() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(Embedded::open(dir.path(), EmbeddedOptions::default()).unwrap());
    let replica = EmbeddedReplica::new(Arc::clone(&store));
    store.create(&jid(JULIET), account(1)).await.unwrap();
    let mut backup = Arc::clone(&store).read_rows().await.unwrap();
    store.create(&jid("romeo@example.com"), account(2)).await.unwrap();
    let mut snapshot = replica.read_rows().await.unwrap();
    store.create(&jid("nurse@example.com"), account(3)).await.unwrap();
    let accounts = |rows: Option<Bytes>| cut(&rows.unwrap()).unwrap().1;
    assert_eq!(accounts(snapshot.next().await.unwrap()), 2);
    assert_eq!(accounts(backup.next().await.unwrap()), 1);
    assert_eq!((backup.next().await.unwrap(), snapshot.next().await.unwrap()), (None, None));
}

#[tokio::test]
async fn a_store_is_never_half_there() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (from, to) = (open(one.path()), open(other.path()));
    fill(&from).await;
    let parts = all(&from).await;
    // Who has accounts keeps them.
    let refused = from.backups.restore(1, RestoreStep::Begin).await.unwrap_err().to_string();
    assert!(refused.contains("has accounts"), "{refused}");
    while !to.backups.restore(1, RestoreStep::Begin).await.unwrap() {}
    to.backups.restore(1, RestoreStep::Rows(parts[0].clone())).await.unwrap();
    for _ in 0..2 {
        assert_eq!(to.accounts.get(&jid(JULIET)).await, Err(StorageError::Restoring));
        assert_eq!(to.accounts.create(&jid("x@example.com"), account(1)).await, Err(StorageError::Restoring));
        assert!(to.backups.is_restoring());
        assert_eq!(to.backups.clone().read_rows().await.err(), Some(StorageError::Restoring));
    }
    to.close().await.unwrap();
    // Also after a restart; and another one begins anew.
    let to = open(other.path());
    assert_eq!(to.accounts.get(&jid(JULIET)).await, Err(StorageError::Restoring));
    while !to.backups.restore(2, RestoreStep::Begin).await.unwrap() {}
    let late = to.backups.restore(1, RestoreStep::Rows(parts[0].clone())).await.unwrap_err().to_string();
    assert!(late.contains("another restore"), "{late}");
    assert!(to.backups.restore(1, RestoreStep::Finish).await.is_err());
    put_back(&to, 2, parts).await;
    assert!(!to.backups.is_restoring());
    assert_eq!(to.accounts.get(&jid(JULIET)).await.unwrap(), Some(account(1)));
    assert!(to.backups.restore(3, RestoreStep::Begin).await.is_err());
}

#[test]
fn golden_bytes() {
    let commands = [
        ("008207", Command::BeginRestore(Restore { id: 7 })),
        ("008307026162", Command::RestoreRows(RestoreRows { id: 7, rows: Bytes::from_static(b"ab") })),
        ("008407", Command::FinishRestore(Restore { id: 7 })),
    ];
    assert_golden!(Command, commands);
}
