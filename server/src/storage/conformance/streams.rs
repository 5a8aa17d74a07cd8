//! The part of the suite on records of streams.

use althing_cluster::routes::BindIndex;
use althing_proto::jid::FullJid;
use althing_proto::stream::management::Count;
use althing_proto::time::Timestamp;

use super::super::messages::{Kept, Settle};
use super::super::streams::{Handled, KeepPlace, MAX_CHANGES, StreamChange, StreamKey, StreamRecord};
use super::super::{Storage, StorageError};
use super::messages::{JULIET, id, message};
use super::{account, jid, with_users};

pub(in super::super) fn stream(user: &str, resource: &str, seed: u8) -> StreamKey {
    StreamKey { jid: FullJid::new(&format!("{user}/{resource}")).unwrap(), hash: [seed; 32] }
}

pub(in super::super) fn began(key: StreamKey, bind: u64, handled: u32) -> StreamRecord {
    StreamRecord { key, bind: BindIndex(bind), handled: Count(handled), seconds: 10 }
}

fn handled(key: &StreamKey, number: u32) -> Handled {
    Handled { key: key.clone(), number: Count(number), place: None }
}

/// The same, said with what is kept in that place of the session of that bind.
fn placed(key: &StreamKey, number: u32, (bind, turn, place): (u64, u32, u64)) -> Handled {
    let place = KeepPlace { bind: BindIndex(bind), turn, number: place };
    Handled { place: Some(place), ..handled(key, number) }
}

async fn change(storage: &Storage, changes: impl IntoIterator<Item = StreamChange>) {
    storage.streams.change(changes.into_iter().collect()).await.unwrap();
}

async fn number(storage: &Storage, key: &StreamKey) -> Option<u32> {
    let record = storage.streams.get(&key.jid).await.unwrap();
    record.filter(|record| record.key == *key).map(|record| record.handled.0)
}

pub(super) async fn a_record_is_of_the_last_stream_and_its_number_only_grows(storage: Storage) {
    with_users(&storage).await;
    let (old, new) = (stream(JULIET, "r", 1), stream(JULIET, "r", 2));
    change(&storage, [StreamChange::Began(began(old.clone(), 5, u32::MAX - 1))]).await;
    let words =
        [u32::MAX, u32::MAX - 1, 1, u32::MAX].map(|number| StreamChange::Handled(handled(&old, number)));
    change(&storage, words).await;
    assert_eq!(number(&storage, &old).await, Some(1), "counts go round, and not back");
    change(&storage, [StreamChange::Began(began(old.clone(), 6, 0))]).await;
    let record = storage.streams.get(&old.jid).await.unwrap().unwrap();
    assert_eq!((record.bind, record.handled), (BindIndex(6), Count(1)), "it goes on under another bind");
    let next = began(new.clone(), 7, 0);
    change(
        &storage,
        [StreamChange::Began(next), StreamChange::Handled(handled(&old, 9)), StreamChange::Ended(old)],
    )
    .await;
    assert_eq!(number(&storage, &new).await, Some(0), "the end of the one before does not touch it");
    change(&storage, [StreamChange::Ended(new.clone()), StreamChange::Handled(handled(&new, 9))]).await;
    assert_eq!(storage.streams.get(&new.jid).await, Ok(None));
}

/// A message and what is handled with it are kept both or neither.
pub(super) async fn r1_a_message_advances_the_stream_that_it_came_by(storage: Storage) {
    with_users(&storage).await;
    let key = stream("romeo@example.com", "orchard", 1);
    change(&storage, [StreamChange::Began(began(key.clone(), 5, 0))]).await;
    let kept = storage.keep_and_handle(message(1, 0), Some(handled(&key, 3))).await.unwrap();
    assert!(kept.iter().all(|kept| matches!(kept, Kept::At(_))), "{kept:?}");
    assert_eq!(number(&storage, &key).await, Some(3));
    assert!(storage.inbox.get(&jid(JULIET), id(1)).await.unwrap().is_some());
    let mut refused = message(2, 0);
    refused.owners[1].inbox.as_mut().unwrap().quota.messages = 1;
    let refused = storage.keep_and_handle(refused, Some(handled(&key, 4))).await;
    assert!(matches!(refused, Err(StorageError::Full { .. })));
    assert_eq!(number(&storage, &key).await, Some(3));
    // Once more, of unknown fate: neither is done twice.
    let again = storage.keep_and_handle(message(1, 0), Some(handled(&key, 3))).await.unwrap();
    assert_eq!((again, number(&storage, &key).await), (kept, Some(3)));
}

/// R1: what is kept says of what is before it only if all that is kept too; where something was refused the next turn does, or
/// whoever knows.
pub(super) async fn r1_no_number_covers_what_was_refused(storage: Storage) {
    with_users(&storage).await;
    let key = stream("romeo@example.com", "orchard", 1);
    change(&storage, [StreamChange::Began(began(key.clone(), 5, 0))]).await;
    let keep = async |mail, count, most, place| {
        let mut message = message(mail, 0);
        message.owners[1].inbox.as_mut().unwrap().quota.messages = most;
        storage.keep_and_handle(message, Some(placed(&key, count, place))).await.is_ok()
    };
    assert!(keep(1, 1, 99, (5, 0, 1)).await);
    assert!(!keep(2, 2, 1, (5, 0, 2)).await);
    assert!(keep(3, 3, 99, (5, 0, 3)).await);
    assert_eq!(number(&storage, &key).await, Some(1));
    assert!(keep(4, 4, 99, (5, 1, 1)).await);
    assert_eq!(number(&storage, &key).await, Some(4), "it waited until the second one was told");
    assert!(keep(5, 9, 99, (5, 0, 4)).await);
    assert!(keep(6, 9, 99, (4, 1, 2)).await, "of the session before");
    assert_eq!(number(&storage, &key).await, Some(4));
    assert!(keep(7, 6, 99, (5, 1, 3)).await);
    assert!(keep(8, 7, 99, (5, 1, 4)).await);
    assert!(keep(9, 9, 99, (5, 1, 6)).await);
    assert_eq!(number(&storage, &key).await, Some(4), "they have overtaken one");
    assert!(keep(10, 5, 99, (5, 1, 2)).await);
    assert_eq!(number(&storage, &key).await, Some(7), "all but one are there");
    change(&storage, [StreamChange::Began(began(key.clone(), 6, 7))]).await;
    assert!(keep(11, 8, 99, (6, 0, 1)).await);
    assert_eq!(number(&storage, &key).await, Some(8), "it goes on");
}

/// R1: what comes once more in its place, for nobody knew what had become of it, is not kept anew where it was settled meanwhile.
pub(super) async fn r1_what_was_settled_is_not_kept_anew_in_its_place(storage: Storage) {
    with_users(&storage).await;
    let key = stream("romeo@example.com", "orchard", 1);
    change(&storage, [StreamChange::Began(began(key.clone(), 5, 0))]).await;
    let keep = async |mail, count, place| {
        let mut message = message(mail, 0);
        message.owners.remove(0);
        message.owners[0].archive = None;
        storage.keep_and_handle(message, Some(placed(&key, count, place))).await.unwrap()
    };
    let settle = |mail| vec![Settle { user: jid(JULIET), id: id(mail), device: None }];
    // The second one comes before its turn.
    for (mail, place) in [(1, 1), (3, 3_u32)] {
        let kept = keep(mail, place, (5, 0, u64::from(place))).await;
        assert!(matches!(kept[..], [Kept::At(_)]), "{kept:?}");
        assert_eq!(keep(mail, place, (5, 0, u64::from(place))).await, kept, "it is there");
        assert_eq!(storage.inbox.settle(settle(mail)).await, Ok(1));
        assert_eq!(keep(mail, place, (5, 0, u64::from(place))).await, [Kept::Not]);
        assert_eq!(storage.inbox.get(&jid(JULIET), id(mail)).await, Ok(None));
    }
    change(&storage, [StreamChange::Closed(key.clone())]).await;
    assert_eq!(keep(1, 1, (5, 0, 1)).await, [Kept::Not], "it was kept before that");
    assert_eq!(keep(2, 2, (5, 0, 2)).await, [Kept::Closed]);
}

/// R1: a client that was told how much is handled writes the rest on another stream. A node that was cut off and comes to
/// keep it later keeps nothing; a stream that goes on after all does.
pub(super) async fn r1_nothing_more_of_a_closed_stream_is_kept(storage: Storage) {
    with_users(&storage).await;
    let [closed, next] = [1, 2].map(|seed| stream("romeo@example.com", "orchard", seed));
    change(
        &storage,
        [StreamChange::Began(began(closed.clone(), 5, 3)), StreamChange::Closed(closed.clone())],
    )
    .await;
    let late = async |mail, count| {
        let kept = storage.keep_and_handle(message(mail, 0), Some(handled(&closed, count))).await.unwrap();
        change(&storage, [StreamChange::Handled(handled(&closed, count))]).await;
        kept
    };
    assert_eq!(late(1, 4).await, [Kept::Closed; 2]);
    assert_eq!(number(&storage, &closed).await, Some(3));
    change(&storage, [StreamChange::Began(began(next.clone(), 6, 0))]).await;
    assert_eq!(late(1, 5).await, [Kept::Closed; 2], "also when there is another one");
    assert_eq!(storage.inbox.get(&jid(JULIET), id(1)).await, Ok(None));
    let kept = storage.keep_and_handle(message(2, 0), Some(handled(&next, 1))).await.unwrap();
    assert!(kept.iter().all(|kept| matches!(kept, Kept::At(_))), "{kept:?}");
    change(&storage, [StreamChange::Began(began(closed.clone(), 7, 3))]).await;
    assert!(late(1, 4).await.iter().all(|kept| matches!(kept, Kept::At(_))));
    assert_eq!(number(&storage, &closed).await, Some(4));
    change(&storage, [StreamChange::Closed(next.clone())]).await;
    assert!(matches!(late(3, 5).await[..], [Kept::At(_), Kept::At(_)]), "what is closed is not the last one");
}

/// What was found gone before it went on, or by a node that had not heard of it, is not gone.
pub(super) async fn a_record_is_not_taken_for_gone_by_an_old_bind(storage: Storage) {
    with_users(&storage).await;
    let key = stream(JULIET, "a", 1);
    let at = |seconds: u64| Timestamp::from_millis(seconds * 1_000);
    let gone = |bind, second| StreamChange::GoneOf(key.clone(), BindIndex(bind), at(second));
    change(&storage, [StreamChange::Began(began(key.clone(), 6, 0)), gone(5, 100), gone(6, 200)]).await;
    change(&storage, [gone(6, 209)]).await;
    assert_eq!(number(&storage, &key).await, Some(0), "gone for nine seconds");
    change(&storage, [gone(6, 210)]).await;
    assert_eq!(number(&storage, &key).await, None);
}

pub(super) async fn records_go_when_nobody_comes_for_them(storage: Storage) {
    with_users(&storage).await;
    let (gone, back) = (stream(JULIET, "a", 1), stream(JULIET, "b", 2));
    let at = |seconds: u64| Timestamp::from_millis(seconds * 1_000);
    for key in [&gone, &back] {
        change(&storage, [StreamChange::Began(began(key.clone(), 5, 0))]).await;
        change(&storage, [100, 105, 109].map(|second| StreamChange::Gone(key.clone(), at(second)))).await;
        assert_eq!(number(&storage, key).await, Some(0));
    }
    change(&storage, [StreamChange::Began(began(back.clone(), 6, 0))]).await;
    change(&storage, [gone.clone(), back.clone()].map(|key| StreamChange::Gone(key, at(110)))).await;
    assert_eq!((number(&storage, &gone).await, number(&storage, &back).await), (None, Some(0)));
}

pub(super) async fn records_are_listed_in_pages_and_go_with_the_account(storage: Storage) {
    with_users(&storage).await;
    let keys: Vec<StreamKey> = (0..7).map(|seed| stream(JULIET, &format!("r{seed}"), seed)).collect();
    let other = stream("romeo@example.com", "orchard", 9);
    let records = keys.iter().chain([&other]).map(|key| StreamChange::Began(began(key.clone(), 5, 0)));
    change(&storage, records).await;
    change(&storage, [StreamChange::Began(began(stream("nobody@example.com", "r", 1), 5, 0))]).await;
    let list = async || {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = storage.streams.list(after.as_ref(), 3).await.unwrap();
            let Some(last) = page.last() else { return found };
            after = Some(last.key.jid.clone());
            found.extend(page.into_iter().map(|record| record.key));
        }
    };
    assert_eq!(list().await, keys.iter().chain([&other]).cloned().collect::<Vec<_>>());
    assert!(storage.accounts.delete(&jid(JULIET)).await.unwrap());
    assert_eq!(list().await, [other]);
    assert!(storage.accounts.create(&jid(JULIET), account(1)).await.unwrap());
    assert_eq!(number(&storage, &keys[0]).await, None);
    let many = vec![StreamChange::Ended(keys[0].clone()); MAX_CHANGES + 1];
    assert!(matches!(storage.streams.change(many).await, Err(StorageError::TooLarge { .. })));
}

pub(super) async fn the_secret_of_streams_is_made_once(storage: Storage) {
    assert_eq!(storage.streams.secret([1; 32]).await, Ok([1; 32]));
    assert_eq!(storage.streams.secret([2; 32]).await, Ok([1; 32]));
}
