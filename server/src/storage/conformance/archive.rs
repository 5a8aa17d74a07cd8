//! The part of the suite on archives.

use althing_proto::jid::Jid;
use althing_proto::stanza_id::StanzaId;
use althing_proto::time::Timestamp;

use super::super::messages::{
    ArchiveDefault, ArchiveEnds, ArchivePage, ArchivePreferences, ArchiveQuery, Drain, KeepFor, KeepMessage,
    Kept, MAX_MESSAGE_BYTES, MAX_PAGE_BYTES, MAX_PREFERENCES, MessageName, SweepRules, Taker,
    UnknownStanzaId,
};
use super::super::{Storage, StorageError};
use super::messages::{JULIET, ROMEO, id, keep, message};
use super::{account, change, jid, named, with_users};

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn query() -> ArchiveQuery {
    ArchiveQuery { limit: 100, ..ArchiveQuery::default() }
}

fn ids(numbers: impl IntoIterator<Item = u64>) -> Vec<StanzaId> {
    numbers.into_iter().map(id).collect()
}

/// Keeps a message of juliet with that address, for her alone.
async fn keep_with(storage: &Storage, number: u64, stamp: u64, with: &str) -> Kept {
    let peer = Jid::new(with).unwrap();
    let archive = Some(ArchiveDefault::Always);
    let owners =
        vec![KeepFor { owner: jid(JULIET), peer, outgoing: number.is_multiple_of(2), archive, inbox: None }];
    let message = KeepMessage { stamp: at(stamp), owners, ..message(number, 0) };
    storage.keep(message).await.unwrap()[0]
}

async fn page(storage: &Storage, query: ArchiveQuery) -> ArchivePage {
    storage.archive.page(&jid(JULIET), query).await.unwrap().unwrap()
}

/// The ids of a page, and whether it is complete.
async fn found(storage: &Storage, query: ArchiveQuery) -> (Vec<StanzaId>, bool) {
    let page = page(storage, query).await;
    (page.messages.iter().map(|message| message.id).collect(), page.complete)
}

pub(super) async fn an_archive_is_paged_both_ways(storage: Storage) {
    with_users(&storage).await;
    keep(&storage, 1..=25).await;
    let mut forwards = Vec::new();
    loop {
        let after = forwards.last().copied().into_iter().collect();
        let (page, complete) = found(&storage, ArchiveQuery { after, limit: 10, ..query() }).await;
        forwards.extend(page);
        if complete {
            break;
        }
    }
    assert_eq!(forwards, ids(1..=25));
    let backwards = |before| ArchiveQuery { before, backwards: true, limit: 10, ..query() };
    assert_eq!(found(&storage, backwards(vec![])).await, (ids(16..=25), false));
    assert_eq!(found(&storage, backwards(ids([16]))).await, (ids(6..=15), false));
    assert_eq!(found(&storage, backwards(ids([6]))).await, (ids(1..=5), true));
    assert_eq!(found(&storage, backwards(ids([11]))).await, (ids(1..=10), true), "exactly a page");
    let between = ArchiveQuery { after: ids([3, 5]), before: ids([12, 9]), ..query() };
    assert_eq!(found(&storage, between).await, (ids(6..=8), true));
    let nothing = ArchiveQuery { after: ids([9]), before: ids([3]), ..query() };
    assert_eq!(found(&storage, nothing).await, (ids([]), true));

    let first = page(&storage, ArchiveQuery { limit: 2, ..query() }).await;
    assert_eq!((first.count, first.messages[0].stamp), (Some(25), at(1)));
    assert_eq!(first.messages[0].xml, message(1, 0).xml);
    let none = page(&storage, ArchiveQuery { limit: 0, ..query() }).await;
    assert_eq!(none, ArchivePage { count: Some(25), ..ArchivePage::default() });
    let ends = ArchiveEnds { first: (id(1), at(1)), last: (id(25), at(25)) };
    assert_eq!(storage.archive.ends(&jid(JULIET)).await, Ok(Some(ends)));
}

pub(super) async fn an_archive_is_asked_by_peer_time_and_id(storage: Storage) {
    with_users(&storage).await;
    // Two peers by turns, and one that only begins alike; the clock goes back once.
    for number in 1..=30 {
        let with = ["r@a/1", "r@a/2", "r@ab", "s@a"][usize::try_from(number % 4).unwrap()];
        let stamp = if number == 15 { 3 } else { number * 10 };
        assert_eq!(keep_with(&storage, number, stamp, with).await, Kept::At(number));
    }
    let with = |with: &str| ArchiveQuery { with: Some(Jid::new(with).unwrap()), ..query() };
    let numbers = |wanted: &'static [u64]| (1..=30).filter(|number| wanted.contains(&(number % 4)));
    assert_eq!(found(&storage, with("r@a")).await, (ids(numbers(&[0, 1])), true));
    assert_eq!(found(&storage, with("r@a/1")).await, (ids(numbers(&[0])), true));
    assert_eq!(found(&storage, with("r@ab/1")).await, (ids([]), true));
    assert_eq!(found(&storage, with("r@ab")).await, (ids(numbers(&[2])), true));
    let part = ArchiveQuery { after: ids([9]), limit: 3, ..with("r@a") };
    assert_eq!(found(&storage, part).await, (ids([12, 13, 16]), false));
    let part = ArchiveQuery { before: ids([9]), backwards: true, limit: 2, ..with("r@a/1") };
    assert_eq!(found(&storage, part).await, (ids([4, 8]), true));

    let span = |start: Option<u64>, end: Option<u64>| ArchiveQuery {
        start: start.map(at),
        end: end.map(at),
        ..query()
    };
    assert_eq!(found(&storage, span(Some(50), Some(70))).await, (ids(5..=7), true));
    assert_eq!(found(&storage, span(Some(51), Some(59))).await, (ids([]), true));
    assert_eq!(
        found(&storage, span(Some(140), Some(150))).await,
        (ids([14, 15]), true),
        "stamps never go back"
    );
    assert_eq!(found(&storage, span(None, Some(9))).await, (ids([]), true));
    assert_eq!(found(&storage, span(Some(300), None)).await, (ids([30]), true));
    assert_eq!(found(&storage, span(Some(301), None)).await, (ids([]), true));
    let both = ArchiveQuery { start: Some(at(100)), ..with("s@a") };
    assert_eq!(found(&storage, both).await, (ids([11, 15, 19, 23, 27]), true));
    assert_eq!(page(&storage, with("r@a")).await.count, None);

    let only = |numbers: &[u64]| ArchiveQuery { ids: ids(numbers.iter().copied()), ..query() };
    assert_eq!(found(&storage, only(&[9, 2, 2, 4])).await, (ids([2, 4, 9]), true));
    let limited = ArchiveQuery { limit: 2, ..only(&[9, 2, 4]) };
    assert_eq!(found(&storage, limited).await, (ids([2, 4]), false));
    for unknown in [
        only(&[9, 99]),
        ArchiveQuery { after: ids([99]), ..query() },
        ArchiveQuery { before: ids([99]), ..query() },
    ] {
        let answer = storage.archive.page(&jid(JULIET), unknown.clone()).await;
        assert_eq!(answer, Ok(Err(UnknownStanzaId(id(99)))), "{unknown:?}");
    }
    // What is in another's archive is not in this one.
    let answer = storage.archive.page(&jid(ROMEO), only(&[9])).await;
    assert_eq!(answer, Ok(Err(UnknownStanzaId(id(9)))));
    let answer = storage.archive.page(&jid(JULIET), only(&[9; 501])).await;
    assert!(matches!(answer, Err(StorageError::TooLarge { .. })), "{answer:?}");
}

/// XEP-0424 §5: what somebody has sent is found by the name that the client gave it, though there is much since; not what others
/// have sent, nor what is gone.
pub(super) async fn an_archive_finds_what_its_owner_has_named(storage: Storage) {
    with_users(&storage).await;
    // Juliet has sent those with even numbers, and romeo one: of that it has no name in her archive.
    for number in 1..=40 {
        let with = if number < 30 { "r@a/1" } else { "s@a" };
        assert_eq!(keep_with(&storage, number, number, with).await, Kept::At(number));
    }
    let called = |name: u64| ArchiveQuery { name: Some(MessageName(name)), ..query() };
    assert_eq!(found(&storage, called(3)).await, (ids([10, 24, 38]), true), "every seventh, if it is hers");
    assert_eq!(found(&storage, called(9)).await, (ids([]), true));
    let with = |with: &str| ArchiveQuery { with: Some(Jid::new(with).unwrap()), ..called(3) };
    assert_eq!(found(&storage, with("r@a")).await, (ids([10, 24]), true));
    assert_eq!(found(&storage, with("s@a/2")).await, (ids([]), true));
    let last = ArchiveQuery { backwards: true, limit: 1, ..called(3) };
    assert_eq!(found(&storage, last.clone()).await, (ids([38]), false));
    assert_eq!(found(&storage, ArchiveQuery { before: ids([38]), ..last }).await, (ids([24]), false));
    let among = ArchiveQuery { ids: ids([24, 25]), ..called(3) };
    assert_eq!(found(&storage, among).await, (ids([24]), true));
    assert_eq!(page(&storage, called(3)).await.count, None);
    let rules = SweepRules { now: at(40), archive_before: Some(at(20)), archive_bytes: None };
    storage.retention.sweep(&jid(JULIET), rules, 100).await.unwrap();
    assert_eq!(found(&storage, called(3)).await, (ids([24, 38]), true));
    // To oneself it is sent too.
    let mut own = message(50, 0);
    own.owners.remove(0);
    own.owners[0].peer = jid(JULIET).into();
    storage.keep(own).await.unwrap();
    assert_eq!(found(&storage, called(1)).await, (ids([22, 36, 50]), true));
}

/// Nor is what only waits: it has a number and no place in the archive.
pub(super) async fn what_is_not_archived_is_not_found_there(storage: Storage) {
    with_users(&storage).await;
    let mut second = message(2, 0);
    second.owners.iter_mut().for_each(|owner| owner.archive = None);
    keep(&storage, [1]).await;
    assert_eq!(storage.keep(second).await, Ok(vec![Kept::Not, Kept::At(2)]));
    keep(&storage, [3]).await;
    assert_eq!(found(&storage, query()).await, (ids([1, 3]), true));
    assert_eq!(page(&storage, query()).await.count, Some(2));
    let answer = storage.archive.page(&jid(JULIET), ArchiveQuery { after: ids([2]), ..query() }).await;
    assert_eq!(answer, Ok(Err(UnknownStanzaId(id(2)))));
    assert_eq!(storage.archive.ends(&jid("nobody@example.com")).await, Ok(None));
}

pub(super) async fn large_pages_end_early(storage: Storage) {
    with_users(&storage).await;
    for number in 1..=20 {
        storage.keep(message(number, MAX_MESSAGE_BYTES)).await.unwrap();
    }
    let fitting = (MAX_PAGE_BYTES / MAX_MESSAGE_BYTES) as u64;
    assert_eq!(found(&storage, query()).await, (ids(1..=fitting), false));
    let last = ArchiveQuery { backwards: true, ..query() };
    assert_eq!(found(&storage, last).await, (ids(21 - fitting..=20), false));
}

pub(super) async fn archives_keep_what_their_owners_want(storage: Storage) {
    with_users(&storage).await;
    let juliet = jid(JULIET);
    assert_eq!(storage.archive.preferences(&juliet).await, Ok(None));
    let set = async |default, always: &[&str], never: &[&str]| {
        let jids = |list: &[&str]| list.iter().map(|jid| Jid::new(jid).unwrap()).collect();
        let preferences = ArchivePreferences { default, always: jids(always), never: jids(never) };
        storage.archive.set_preferences(&jid(JULIET), preferences.clone()).await.unwrap();
        assert_eq!(storage.archive.preferences(&jid(JULIET)).await, Ok(Some(preferences)));
    };
    set(ArchiveDefault::Never, &[], &[]).await;
    assert_eq!(keep_with(&storage, 1, 1, "r@a").await, Kept::Not);
    set(ArchiveDefault::Never, &["r@a"], &["r@a/loud"]).await;
    assert_eq!(keep_with(&storage, 2, 2, "r@a/1").await, Kept::At(1));
    assert_eq!(keep_with(&storage, 3, 3, "r@a/loud").await, Kept::Not);
    assert_eq!(keep_with(&storage, 4, 4, "s@a").await, Kept::Not);
    set(ArchiveDefault::Roster, &[], &["never@a"]).await;
    change(&storage, JULIET, "nurse@a", named("Nurse")).await.unwrap();
    change(&storage, JULIET, "never@a", named("Never")).await.unwrap();
    for (number, with, kept) in
        [(5, "nurse@a/x", Kept::At(2)), (6, "never@a", Kept::Not), (7, "s@a", Kept::Not)]
    {
        assert_eq!(keep_with(&storage, number, number, with).await, kept, "{with}");
    }
    set(ArchiveDefault::Always, &[], &[]).await;
    let mut new = message(8, 0);
    new.owners[1].archive = Some(ArchiveDefault::Never);
    storage.keep(new).await.unwrap();
    assert_eq!(found(&storage, query()).await, (ids([2, 5, 8]), true), "the default counts only before");
    let many = vec![Jid::new("a@b").unwrap(); MAX_PREFERENCES + 1];
    let preferences = ArchivePreferences { default: ArchiveDefault::Always, always: many, never: Vec::new() };
    let refused = storage.archive.set_preferences(&juliet, preferences.clone()).await;
    assert!(matches!(refused, Err(StorageError::TooLarge { .. })), "{refused:?}");
    let (nobody, preferences) =
        (jid("nobody@example.com"), ArchivePreferences { always: Vec::new(), ..preferences });
    let refused = storage.archive.set_preferences(&nobody, preferences).await;
    assert_eq!(refused, Err(StorageError::UnknownUser { user: nobody }));
}

/// XEP-0424 §5.
pub(super) async fn a_retraction_leaves_a_tombstone(storage: Storage) {
    with_users(&storage).await;
    keep(&storage, 1..=3).await;
    let retract = |sender: &str, number| {
        let (storage, sender) = (storage.clone(), jid(sender));
        async move { storage.messages.retract(&sender, id(number), "<gone/>".into()).await }
    };
    assert_eq!(retract(JULIET, 2).await, Ok(false), "it is not hers");
    assert_eq!(retract(ROMEO, 9).await, Ok(false));
    assert_eq!(retract(ROMEO, 2).await, Ok(true));
    assert_eq!(retract(ROMEO, 2).await, Ok(false));
    for user in [ROMEO, JULIET] {
        let page = storage.archive.page(&jid(user), query()).await.unwrap().unwrap();
        let texts: Vec<_> = page.messages.iter().map(|message| (message.id, message.retracted)).collect();
        assert_eq!(texts, [(id(1), false), (id(2), true), (id(3), false)]);
        assert_eq!(page.messages[1].xml, "<gone/>");
    }
    let after = ArchiveQuery { after: ids([2]), ..query() };
    assert_eq!(found(&storage, after).await, (ids([3]), true), "its id is a place still");
    let taker = Taker { bind: althing_cluster::routes::BindIndex(1), device: None };
    let drain = Drain { taker, pass: 1, live: vec![taker.bind], after: Some(1), limit: 1 };
    let drained = storage.inbox.drain(&jid(JULIET), drain).await.unwrap();
    let waiting: Vec<_> = drained.messages.iter().map(|message| (message.id, message.retracted)).collect();
    assert_eq!(waiting, [(id(3), false)]);
    assert_eq!(
        storage.inbox.summary(&jid(JULIET)).await.unwrap().messages,
        2,
        "it waits for nobody any more"
    );
    // One whose receiver only has it waiting.
    let mut new = message(4, 0);
    new.owners.remove(0);
    new.owners[0].archive = None;
    storage.keep(new).await.unwrap();
    assert_eq!(retract(ROMEO, 4).await, Ok(true));
    assert_eq!(storage.inbox.summary(&jid(JULIET)).await.unwrap().messages, 2);
    // One of an account that was deleted, and made again: there another message has its number.
    storage.accounts.delete(&jid(JULIET)).await.unwrap();
    storage.accounts.create(&jid(JULIET), account(3)).await.unwrap();
    keep(&storage, 5..=5).await;
    assert_eq!(retract(ROMEO, 1).await, Ok(true));
    assert_eq!(storage.inbox.summary(&jid(JULIET)).await.unwrap().messages, 1);
}
