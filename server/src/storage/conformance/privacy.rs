//! The part of the suite that is about privacy lists.

use althing_proto::jid::{BareJid, Jid};
use althing_proto::privacy::{
    BlockDelta, Connected, Item, Kinds, Lists, PrivacyChange, PrivacyChanged, PrivacyError, SessionKey,
    Subject,
};
use althing_proto::roster::RosterChange;

use super::super::{PrivacyLimits, Storage, StorageError, WhichList};
use super::{account, change as change_roster, jid, with_users};

const LIMITS: PrivacyLimits = PrivacyLimits { entries: 3_000, entry_bytes: 100_000, lists: 3, items: 5 };

fn peer(text: &str) -> Jid {
    Jid::new(text).unwrap()
}

fn peers(texts: &[&str]) -> Vec<Jid> {
    texts.iter().map(|text| peer(text)).collect()
}

fn rule(order: u32, subject: Subject, allow: bool, kinds: Kinds) -> Item {
    Item { order, subject, allow, kinds }
}

fn set(name: &str, rules: Vec<Item>) -> PrivacyChange {
    PrivacyChange::SetList { name: name.to_owned(), rules }
}

/// The sessions of a user, seen by the first.
fn sessions(binds: &[u64]) -> Connected {
    let key = |bind: &u64| SessionKey { start: 1, bind: *bind };
    let latest = binds.iter().copied().max().unwrap_or_default();
    Connected { own: key(&binds[0]), others: binds[1..].iter().map(key).collect(), latest }
}

async fn change(storage: &Storage, change: PrivacyChange) -> Result<PrivacyChanged, PrivacyError> {
    storage.privacy.change(&jid("juliet@example.com"), change, LIMITS).await.unwrap()
}

async fn load(storage: &Storage, which: WhichList) -> Lists {
    storage.privacy.load(&jid("juliet@example.com"), which).await.unwrap()
}

async fn denied(storage: &Storage, text: &str) -> Kinds {
    storage.privacy.judge(&jid("juliet@example.com"), &peer(text)).await.unwrap().denied
}

async fn blocked(storage: &Storage) -> Vec<String> {
    let lists = load(storage, WhichList::Default).await;
    let list = lists.list.unwrap_or_default();
    list.blocked().map(ToString::to_string).collect()
}

pub(super) async fn blocks_come_and_go(storage: Storage) {
    with_users(&storage).await;
    assert_eq!(load(&storage, WhichList::Default).await, Lists::default());
    let change = |wanted| change(&storage, wanted);
    let first = change(PrivacyChange::Block(peers(&["romeo@x/a", "y"]))).await.unwrap();
    assert_eq!((first.version, first.changed, first.default), (1, true, Some(first.list)));
    assert_eq!(first.blocks, BlockDelta::Blocked(peers(&["romeo@x/a", "y"])));
    let more = change(PrivacyChange::Block(peers(&["y", "z@x", "z@x"]))).await.unwrap();
    assert_eq!(more.blocks, BlockDelta::Blocked(peers(&["z@x"])), "only what is new");
    let again = change(PrivacyChange::Block(peers(&["y"]))).await.unwrap();
    assert_eq!((again.version, again.changed), (2, false));
    assert_eq!(blocked(&storage).await, ["romeo@x/a", "y", "z@x"]);

    for (who, is_blocked) in
        [("romeo@x/a", true), ("romeo@x/b", false), ("any@y/r", true), ("z@x/r", true), ("x", false)]
    {
        let expected = if is_blocked { Kinds::ALL } else { Kinds::NONE };
        assert_eq!(denied(&storage, who).await, expected, "{who}");
    }
    let gone = change(PrivacyChange::Unblock(peers(&["y", "nobody@x"]))).await.unwrap();
    assert_eq!((gone.blocks, gone.reload), (BlockDelta::Unblocked(peers(&["y"])), false));
    assert_eq!(denied(&storage, "any@y/r").await, Kinds::NONE);
    let all = change(PrivacyChange::Unblock(Vec::new())).await.unwrap();
    assert_eq!((all.version, all.blocks), (4, BlockDelta::Unblocked(Vec::new())));
    assert!(blocked(&storage).await.is_empty());
    assert!(!change(PrivacyChange::Unblock(Vec::new())).await.unwrap().changed);
    let head = &load(&storage, WhichList::None).await.heads[0];
    assert_eq!((head.entries, head.bytes, head.changed), (0, 0, 4));
}

/// XEP-0191 §5: both protocols see one list.
pub(super) async fn the_block_list_is_a_part_of_the_default_list(storage: Storage) {
    with_users(&storage).await;
    let change = |wanted| change(&storage, wanted);
    let (any, b) = (Subject::Any, Subject::Jid(peer("b@x")));
    let rules = vec![
        rule(3, Subject::Jid(peer("a@x")), false, Kinds::ALL),
        rule(5, any, true, Kinds::MESSAGE),
        rule(9, b, false, Kinds::ALL),
    ];
    let made = change(set("public", rules.clone())).await.unwrap();
    assert_eq!((made.edited.as_deref(), made.default), (Some("public"), None));
    assert!(blocked(&storage).await.is_empty(), "no default list yet");
    change(PrivacyChange::SetDefault { name: Some("public".to_owned()), sessions: sessions(&[1]) })
        .await
        .unwrap();
    assert_eq!(blocked(&storage).await, ["a@x", "b@x"]);
    assert_eq!(load(&storage, WhichList::Named("public".to_owned())).await.list.unwrap().rules(), rules);
    assert_eq!(denied(&storage, "b@x/r").await, Kinds::ALL.without(Kinds::MESSAGE), "rules are in order");

    // A block goes before all else, an unblock takes a rule away wherever it stands.
    change(PrivacyChange::Block(peers(&["b@x"]))).await.unwrap();
    assert_eq!(denied(&storage, "b@x/r").await, Kinds::ALL);
    let gone = change(PrivacyChange::Unblock(peers(&["b@x"]))).await.unwrap();
    assert!(gone.reload && gone.blocks == BlockDelta::Unblocked(peers(&["b@x"])));
    assert_eq!(load(&storage, WhichList::Default).await.list.unwrap().rules(), rules[..2]);

    // A list that is replaced loses what is not in it any more.
    change(set("public", vec![rule(1, Subject::Jid(peer("c@x")), false, Kinds::ALL)])).await.unwrap();
    assert_eq!(blocked(&storage).await, ["c@x"]);
    assert_eq!((denied(&storage, "a@x").await, denied(&storage, "c@x").await), (Kinds::NONE, Kinds::ALL));
}

/// XEP-0016 §2.1: groups and subscriptions are those of the roster.
pub(super) async fn rules_may_ask_for_the_roster(storage: Storage) {
    with_users(&storage).await;
    let groups = vec!["Enemies".to_owned()];
    change_roster(&storage, "juliet@example.com", "e@x", RosterChange::Set { name: None, groups })
        .await
        .unwrap();
    let change = |wanted| change(&storage, wanted);
    let group = Subject::Group("Enemies".to_owned());
    let none = Subject::Subscription(althing_proto::roster::Subscription::None);
    change(set("l", vec![rule(1, group, false, Kinds::MESSAGE), rule(2, none, false, Kinds::IQ)]))
        .await
        .unwrap();
    change(PrivacyChange::SetDefault { name: Some("l".to_owned()), sessions: sessions(&[1]) }).await.unwrap();
    assert_eq!(denied(&storage, "e@x/r").await, Kinds::MESSAGE.or(Kinds::IQ));
    assert_eq!(denied(&storage, "stranger@x/r").await, Kinds::IQ);
    let judged = storage.privacy.judge(&jid("juliet@example.com"), &peer("e@x/r")).await.unwrap();
    assert_eq!(judged.item.unwrap().jid, jid("e@x"));
}

/// XEP-0016 §2.2 rule 11, §2.4, §2.5, §2.8: what applies to another session stays.
pub(super) async fn a_list_that_others_use_stays(storage: Storage) {
    with_users(&storage).await;
    let change = |wanted| change(&storage, wanted);
    let rules = || vec![rule(1, Subject::Any, false, Kinds::PRESENCE_OUT)];
    change(set("one", rules())).await.unwrap();
    change(set("two", rules())).await.unwrap();
    let name = |name: &str| Some(name.to_owned());
    let default = |list: Option<&str>, binds: &[u64]| PrivacyChange::SetDefault {
        name: list.map(str::to_owned),
        sessions: sessions(binds),
    };
    let active = |list: Option<&str>, binds: &[u64]| PrivacyChange::SetActive {
        name: list.map(str::to_owned),
        sessions: sessions(binds),
    };
    let remove = |list: &str, binds: &[u64]| PrivacyChange::RemoveList {
        name: list.to_owned(),
        sessions: sessions(binds),
    };
    for wanted in [default(Some("none"), &[1]), active(Some("none"), &[1]), remove("none", &[1])] {
        assert_eq!(change(wanted).await, Err(PrivacyError::UnknownList));
    }
    change(default(Some("one"), &[1, 2])).await.unwrap();
    assert_eq!(change(default(Some("two"), &[1, 2])).await, Err(PrivacyError::InUse));
    assert_eq!(change(default(None, &[1, 2])).await, Err(PrivacyError::InUse));
    assert_eq!(change(remove("one", &[1, 2])).await, Err(PrivacyError::InUse));
    assert!(!change(default(Some("one"), &[1, 2])).await.unwrap().changed, "the same is no change");
    // The other has a list of its own: the default is free, that list is not.
    let taken = change(active(Some("two"), &[2, 1])).await.unwrap();
    assert!(!taken.changed && taken.list != 0);
    assert_eq!(change(remove("two", &[1, 2])).await, Err(PrivacyError::InUse));
    change(default(None, &[1, 2])).await.unwrap();
    change(default(Some("two"), &[1, 2])).await.unwrap();
    // One that nobody has told this node of yet is not forgotten, one that has ended is.
    change(active(Some("one"), &[9, 1, 2])).await.unwrap();
    change(active(None, &[1, 2])).await.unwrap();
    assert_eq!(change(remove("one", &[1, 2, 9])).await, Err(PrivacyError::InUse));
    change(active(None, &[10, 1, 2])).await.unwrap();
    let removed = change(remove("one", &[1, 2, 9])).await.unwrap();
    assert_eq!((removed.edited, removed.default.is_some()), (name("one"), true));
    // Its own list may go, the default as well where it applies to nobody else.
    let removed = change(remove("two", &[1])).await.unwrap();
    assert_eq!(removed.default, None);
    assert!(load(&storage, WhichList::Default).await.heads.is_empty());
}

pub(super) async fn privacy_lists_are_bounded(storage: Storage) {
    with_users(&storage).await;
    let change = |wanted| change(&storage, wanted);
    let many = |range: std::ops::Range<u32>| range.map(|n| peer(&format!("u{n}@x"))).collect::<Vec<_>>();
    for start in [0, 1_000, 2_000] {
        change(PrivacyChange::Block(many(start..start + 1_000))).await.unwrap();
    }
    let refused = change(PrivacyChange::Block(peers(&["more@x"]))).await;
    assert_eq!(refused, Err(PrivacyError::TooManyEntries));
    assert_eq!(load(&storage, WhichList::None).await.heads[0].entries, 3_000);
    assert_eq!(denied(&storage, "more@x").await, Kinds::NONE);
    assert!(!change(PrivacyChange::Block(many(5..7))).await.unwrap().changed, "known ones are no more");
    let items = |count| (0..count).map(|order| rule(order, Subject::Any, true, Kinds::IQ)).collect();
    change(set("a", items(5))).await.unwrap();
    assert_eq!(change(set("a", items(6))).await, Err(PrivacyError::TooManyItems));
    change(set("b", items(1))).await.unwrap();
    assert_eq!(change(set("c", items(1))).await, Err(PrivacyError::TooManyLists));
    let long = vec![peer(&format!("{}@x", "u".repeat(1_000))); 66];
    let refused =
        storage.privacy.change(&jid("juliet@example.com"), PrivacyChange::Block(long), LIMITS).await;
    assert!(matches!(refused, Err(StorageError::TooLarge { .. })), "{refused:?}");
    // All of it goes at once, with the account too.
    change(PrivacyChange::Unblock(Vec::new())).await.unwrap();
    assert_eq!(load(&storage, WhichList::None).await.heads[0].entries, 0);
    assert!(blocked(&storage).await.is_empty());
}

/// Two clients, on whatever node, that block at the same time both win.
pub(super) async fn blocks_at_the_same_time_lose_nothing(storage: Storage) {
    with_users(&storage).await;
    let tasks: Vec<_> = (0..40)
        .map(|n| {
            let storage = storage.clone();
            tokio::spawn(async move {
                let wanted = PrivacyChange::Block(vec![peer(&format!("u{n}@x"))]);
                change(&storage, wanted).await.unwrap().version
            })
        })
        .collect();
    let mut versions = Vec::new();
    for task in tasks {
        versions.push(task.await.unwrap());
    }
    versions.sort_unstable();
    assert_eq!(versions, (1..=40).collect::<Vec<_>>());
    assert_eq!(blocked(&storage).await.len(), 40);
}

pub(super) async fn privacy_lists_go_with_the_account(storage: Storage) {
    with_users(&storage).await;
    let juliet = jid("juliet@example.com");
    let block = || PrivacyChange::Block((0..1_500).map(|n| peer(&format!("u{n}@x"))).collect());
    change(&storage, block()).await.unwrap();
    storage.privacy.change(&jid("romeo@example.com"), block(), LIMITS).await.unwrap().unwrap();
    assert_eq!(storage.accounts.delete(&juliet).await, Ok(true));
    let refused = storage.privacy.change(&juliet, block(), LIMITS).await;
    assert_eq!(refused, Err(StorageError::UnknownUser { user: juliet.clone() }));
    assert_eq!(load(&storage, WhichList::Default).await, Lists::default());
    assert_eq!(storage.accounts.create(&juliet, account(1)).await, Ok(true));
    assert_eq!(load(&storage, WhichList::Default).await, Lists::default());
    assert_eq!(denied(&storage, "u1@x").await, Kinds::NONE);
    let romeo: BareJid = jid("romeo@example.com");
    let lists = storage.privacy.load(&romeo, WhichList::Default).await.unwrap();
    assert_eq!(lists.list.unwrap().entries.len(), 1_500);
}
