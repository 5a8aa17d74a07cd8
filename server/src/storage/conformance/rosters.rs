//! The suite's part on rosters.

use althing_proto::roster::{Direction, RosterChange, RosterError, Subscription, SubscriptionKind};
use althing_proto::time::Timestamp;

use super::super::roster_rules::HISTORY;
use super::super::{Account, Roster, RosterNews, Storage};
use super::{LIMITS, account, change, jid, named, stanza, with_users};

pub(super) async fn rosters_keep_what_is_set(storage: Storage) {
    with_users(&storage).await;
    let juliet = jid("juliet@example.com");
    assert_eq!(storage.rosters.load(&juliet).await, Ok(Roster::default()));

    let first = change(&storage, "juliet@example.com", "nurse@example.com", named("Nurse")).await.unwrap();
    let second = change(&storage, "juliet@example.com", "benvolio@example.com", named("B")).await.unwrap();
    assert_eq!((first.version, second.version), (1, 2));
    let roster = storage.rosters.load(&juliet).await.unwrap();
    assert_eq!(roster.version, 2);
    assert_eq!(roster.items, [second.outcome.item.clone().unwrap(), first.outcome.item.clone().unwrap()]);

    let item = storage.rosters.item(&juliet, &jid("nurse@example.com")).await.unwrap();
    assert_eq!(item, first.outcome.item);
    assert_eq!(storage.rosters.item(&juliet, &jid("nobody@example.com")).await, Ok(None));
    assert_eq!(
        storage.rosters.load(&jid("romeo@example.com")).await,
        Ok(Roster { version: 1, items: vec![] })
    );

    let removed = change(&storage, "juliet@example.com", "nurse@example.com", RosterChange::Remove).await;
    assert_eq!(removed.unwrap().version, 3);
    let again = change(&storage, "juliet@example.com", "nurse@example.com", RosterChange::Remove).await;
    assert_eq!(again, Err(RosterError::UnknownItem));
    let roster = storage.rosters.load(&juliet).await.unwrap();
    assert_eq!((roster.version, roster.items.len()), (3, 1));
}

pub(super) async fn the_version_grows_with_what_clients_see(storage: Storage) {
    with_users(&storage).await;
    let (juliet, romeo) = ("juliet@example.com", "romeo@example.com");
    let asked =
        change(&storage, juliet, romeo, stanza(Direction::Inbound, SubscriptionKind::Subscribe)).await;
    let asked = asked.unwrap();
    assert_eq!((asked.version, asked.outcome.push, asked.outcome.route), (0, false, true));
    let roster = storage.rosters.load(&jid(juliet)).await.unwrap();
    assert_eq!((roster.version, roster.items.len()), (0, 1), "the request is kept, to be delivered again");
    assert!(!roster.items[0].listed && roster.items[0].pending_in.is_some());

    let granted =
        change(&storage, juliet, romeo, stanza(Direction::Outbound, SubscriptionKind::Subscribed)).await;
    assert_eq!(granted.unwrap().version, 1);
    let item = storage.rosters.item(&jid(juliet), &jid(romeo)).await.unwrap().unwrap();
    assert_eq!((item.subscription, item.pending_in, item.listed), (Subscription::From, None, true));
}

pub(super) async fn a_client_learns_what_it_has_missed(storage: Storage) {
    with_users(&storage).await;
    let juliet = jid("juliet@example.com");
    let contact = |number: u64| format!("c{number}@example.net");
    let since = async |version| storage.rosters.since(&juliet, version, 10).await.unwrap();
    let nothing = |version| RosterNews::Changes { version, changes: vec![] };
    assert_eq!(since(0).await, nothing(0));
    assert_eq!(since(1).await, RosterNews::Whole(Roster::default()), "a version that never was");
    for number in 1..=20 {
        change(&storage, "juliet@example.com", &contact(number), named("C")).await.unwrap();
    }
    assert_eq!(since(20).await, nothing(20));
    change(&storage, "juliet@example.com", &contact(3), named("Three")).await.unwrap();
    change(&storage, "juliet@example.com", &contact(4), RosterChange::Remove).await.unwrap();
    change(&storage, "juliet@example.com", &contact(3), named("III")).await.unwrap();
    let RosterNews::Changes { version: 23, changes } = since(20).await else { panic!("the whole roster") };
    let named: Vec<_> = changes
        .iter()
        .map(|change| {
            (change.version, change.contact.as_str(), change.item.as_ref().map(|item| item.name.as_deref()))
        })
        .collect();
    assert_eq!(named, [(22, "c4@example.net", None), (23, "c3@example.net", Some(Some("III")))]);
    assert_eq!(since(22).await, RosterNews::Changes { version: 23, changes: changes[1..].to_vec() });
    let whole = RosterNews::Whole(storage.rosters.load(&juliet).await.unwrap());
    assert_eq!(since(1).await, whole, "more than was wanted");
    for _ in 0..HISTORY {
        change(&storage, "juliet@example.com", &contact(1), super::named("C")).await.unwrap();
    }
    let RosterNews::Changes { version: 123, changes } = since(23).await else { panic!("the whole roster") };
    assert_eq!(changes.len(), 1);
    assert!(matches!(since(22).await, RosterNews::Whole(_)), "nobody remembers");
}

pub(super) async fn an_account_made_again_repeats_no_version(storage: Storage) {
    let juliet = jid("juliet@example.com");
    let born = |millis| Account { created: Timestamp::from_millis(millis), ..account(0) };
    storage.accounts.create(&juliet, born(1_000)).await.unwrap();
    let first = change(&storage, "juliet@example.com", "a@example.net", named("A")).await.unwrap().version;
    storage.accounts.delete(&juliet).await.unwrap();
    storage.accounts.create(&juliet, born(2_000)).await.unwrap();
    let second = change(&storage, "juliet@example.com", "b@example.net", named("B")).await.unwrap().version;
    assert_eq!((first, second), (1_001, 2_001));
    assert!(matches!(storage.rosters.since(&juliet, first, 10).await, Ok(RosterNews::Whole(_))));
}

pub(super) async fn rosters_are_bounded(storage: Storage) {
    with_users(&storage).await;
    let juliet = "juliet@example.com";
    for number in 0..LIMITS.items {
        change(&storage, juliet, &format!("c{number}@example.net"), named("C")).await.unwrap();
    }
    assert_eq!(change(&storage, juliet, "more@example.net", named("M")).await, Err(RosterError::RosterFull));
    change(&storage, juliet, "c0@example.net", named("changed")).await.unwrap();
    change(&storage, juliet, "c1@example.net", RosterChange::Remove).await.unwrap();
    change(&storage, juliet, "more@example.net", named("M")).await.unwrap();

    let subscribe = || stanza(Direction::Inbound, SubscriptionKind::Subscribe);
    for number in 0..LIMITS.requests {
        change(&storage, juliet, &format!("s{number}@example.org"), subscribe()).await.unwrap();
    }
    let refused = change(&storage, juliet, "s9@example.org", subscribe()).await;
    assert_eq!(refused, Err(RosterError::TooManyRequests));
    assert_eq!(storage.rosters.item(&jid(juliet), &jid("s9@example.org")).await, Ok(None));
    change(&storage, juliet, "c0@example.net", subscribe()).await.unwrap();
    change(&storage, juliet, "s0@example.org", stanza(Direction::Outbound, SubscriptionKind::Unsubscribed))
        .await
        .unwrap();
    change(&storage, juliet, "s9@example.org", subscribe()).await.unwrap();
}
