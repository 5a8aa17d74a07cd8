//! The part of the suite on kept messages: what waits, and how long.

use althing_cluster::routes::BindIndex;
use althing_proto::jid::{BareJid, Jid};
use althing_proto::privacy::PrivacyChange;
use althing_proto::stanza_id::StanzaId;
use althing_proto::time::Timestamp;

use super::super::messages::{
    ArchiveDefault, ArchiveQuery, DeviceId, Drain, Drained, Due, InboxQuota, InboxSummary, KeepFor,
    KeepInInbox, KeepMessage, Kept, MAX_MESSAGE_BYTES, MAX_OWNERS, MAX_PAGE, MAX_PAGE_BYTES, MessageName,
    Settle, SweepRules, Swept, Taker,
};
use super::super::{PrivacyLimits, Storage, StorageError};
use super::{account, jid, with_users};

pub(in super::super) const ROMEO: &str = "romeo@example.com";
pub(in super::super) const JULIET: &str = "juliet@example.com";

pub(in super::super) fn id(number: u64) -> StanzaId {
    StanzaId::derived(b"test", &[&number.to_be_bytes()])
}

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

/// A message of romeo to juliet that both archive and that waits for her; it expires 1,000 ms after its stamp.
pub(in super::super) fn message(number: u64, size: usize) -> KeepMessage {
    let (romeo, juliet) = (jid(ROMEO), jid(JULIET));
    let full = |user: &str| Jid::new(&format!("{user}/orchard")).unwrap();
    let text = format!("<message id='{number}'/>");
    let quota = InboxQuota { messages: 1_000, bytes: 100 << 20 };
    let inbox = KeepInInbox { takers: Vec::new(), expires: at(number + 1_000), quota, each_device: false };
    let (always, owner) = (Some(ArchiveDefault::Always), juliet.clone());
    KeepMessage {
        name: Some(MessageName(number % 7)),
        id: id(number),
        stamp: at(number),
        xml: [text.as_bytes(), &vec![b' '; size.saturating_sub(text.len())]].concat().into(),
        owners: vec![
            KeepFor { owner: romeo, peer: juliet.into(), outgoing: true, archive: always, inbox: None },
            KeepFor { owner, peer: full(ROMEO), outgoing: false, archive: always, inbox: Some(inbox) },
        ],
    }
}

fn waiting(message: &mut KeepMessage) -> &mut KeepInInbox {
    message.owners.last_mut().unwrap().inbox.as_mut().unwrap()
}

pub(super) async fn keep(storage: &Storage, numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        storage.keep(message(number, 0)).await.unwrap();
    }
}

fn taker(bind: u64) -> Taker {
    Taker { bind: BindIndex(bind), device: None }
}

fn drain(bind: u64, pass: u32, live: &[u64]) -> Drain {
    let live = live.iter().map(|bind| BindIndex(*bind)).collect();
    Drain { taker: taker(bind), pass, live, after: None, limit: 100 }
}

async fn drained(storage: &Storage, drain: Drain) -> Vec<StanzaId> {
    let Drained { messages, next } = storage.inbox.drain(&jid(JULIET), drain).await.unwrap();
    assert_eq!(next, None);
    messages.into_iter().map(|message| message.id).collect()
}

fn settle(number: u64) -> Settle {
    Settle { user: jid(JULIET), id: id(number), device: None }
}

async fn archived(storage: &Storage, user: &str) -> Vec<StanzaId> {
    let query = ArchiveQuery { limit: 100, ..ArchiveQuery::default() };
    let page = storage.archive.page(&jid(user), query).await.unwrap().unwrap();
    assert_eq!(page.count, Some(page.messages.len() as u64));
    page.messages.into_iter().map(|message| message.id).collect()
}

async fn listed(storage: &Storage) -> Vec<StanzaId> {
    let list = storage.inbox.list(&jid(JULIET), None, None, 100).await.unwrap();
    list.into_iter().map(|entry| entry.id).collect()
}

fn ids(numbers: impl IntoIterator<Item = u64>) -> Vec<StanzaId> {
    numbers.into_iter().map(id).collect()
}

/// R5: id to stanza and dates, user to ids.
pub(super) async fn r5_a_message_is_kept_once_for_all_its_owners(storage: Storage) {
    with_users(&storage).await;
    assert_eq!(storage.keep(message(1, 0)).await, Ok(vec![Kept::At(1), Kept::At(1)]));
    let mut second = message(2, 0);
    let nobody = KeepFor { owner: jid("nobody@example.com"), ..second.owners[0].clone() };
    second.owners[0].archive = None;
    second.owners.push(nobody);
    let kept = vec![Kept::Not, Kept::At(2), Kept::UnknownUser];
    assert_eq!(storage.keep(second).await, Ok(kept));
    // Again, with another text: nothing is done but for who did not have it.
    let again = KeepMessage { xml: "<other/>".into(), ..message(2, 0) };
    assert_eq!(storage.keep(again).await, Ok(vec![Kept::At(2), Kept::At(2)]));
    assert_eq!(archived(&storage, ROMEO).await, ids([1, 2]));
    assert_eq!(archived(&storage, JULIET).await, ids([1, 2]));
    let entries = storage.inbox.list(&jid(JULIET), None, None, 9).await.unwrap();
    assert_eq!(
        entries.iter().map(|entry| (entry.id, entry.seq)).collect::<Vec<_>>(),
        [(id(1), 1), (id(2), 2)]
    );
    let first = &entries[0];
    assert_eq!(
        (first.from.as_str(), first.stamp, first.expires),
        ("romeo@example.com/orchard", at(1), at(1_001))
    );
    assert_eq!(usize::try_from(first.size).unwrap(), message(1, 0).xml.len());
    assert!(first.takers.is_empty() && first.devices.is_empty());
    let waiting = storage.inbox.get(&jid(JULIET), id(2)).await.unwrap().unwrap();
    assert_eq!((waiting.xml, waiting.stamp, waiting.seq), (message(2, 0).xml, at(2), 2));
    assert_eq!(storage.inbox.get(&jid(ROMEO), id(2)).await, Ok(None), "it waits for juliet");
    assert_eq!(storage.inbox.get(&jid(JULIET), id(3)).await, Ok(None));
}

/// R19: quota by number and by size.
pub(super) async fn r19_a_full_inbox_takes_nothing(storage: Storage) {
    with_users(&storage).await;
    let kept = |number, messages, bytes| {
        let mut new = message(number, 100);
        waiting(&mut new).quota = InboxQuota { messages, bytes };
        storage.keep(new)
    };
    assert!(kept(1, 2, 200).await.is_ok() && kept(2, 2, 200).await.is_ok());
    assert_eq!(kept(3, 2, 1_000).await, Err(StorageError::Full { what: "messages", limit: 2 }));
    assert_eq!(kept(3, 9, 299).await, Err(StorageError::Full { what: "bytes", limit: 299 }));
    assert!(kept(2, 2, 200).await.is_ok(), "it is there");
    assert_eq!(archived(&storage, ROMEO).await, ids([1, 2]), "nor for the others");
    let summary = storage.inbox.summary(&jid(JULIET)).await;
    assert_eq!(summary, Ok(InboxSummary { messages: 2, bytes: 200 }));
    assert_eq!(storage.inbox.settle(vec![settle(1)]).await, Ok(1));
    assert!(kept(3, 2, 200).await.is_ok());
}

/// R2, R6: in the order of keeping; what was acknowledged is gone, twice does no harm.
pub(super) async fn r2_r6_what_waits_is_taken_in_order_and_goes_when_it_has_arrived(storage: Storage) {
    with_users(&storage).await;
    keep(&storage, [5, 3, 4]).await;
    assert_eq!(drained(&storage, drain(7, 1, &[7])).await, ids([5, 3, 4]));
    assert_eq!(drained(&storage, drain(7, 1, &[7])).await, ids([5, 3, 4]), "the answer was lost");
    assert_eq!(drained(&storage, drain(7, 2, &[7])).await, ids([]), "they are on their way");
    assert_eq!(drained(&storage, drain(8, 1, &[7, 8])).await, ids([]));
    assert_eq!(storage.inbox.settle(vec![settle(5), settle(5), settle(9)]).await, Ok(1));
    assert_eq!(storage.inbox.settle(vec![settle(5)]).await, Ok(0));
    // The bind is gone, nobody had to say so.
    assert_eq!(drained(&storage, drain(8, 2, &[8])).await, ids([3, 4]));
    storage.inbox.release(vec![(jid(JULIET), id(3)), (jid(JULIET), id(5))]).await.unwrap();
    assert_eq!(drained(&storage, drain(8, 3, &[8])).await, ids([3]));
    assert_eq!(storage.inbox.settle(vec![settle(4), settle(3)]).await, Ok(2));
    assert_eq!(listed(&storage).await, ids([]));
    assert_eq!(storage.inbox.summary(&jid(JULIET)).await, Ok(InboxSummary::default()));
    assert_eq!(archived(&storage, JULIET).await, ids([5, 3, 4]), "the archive has them still");
}

/// A message that was on its way to a session is another's when that one is dead.
pub(super) async fn what_is_pending_for_the_living_is_left_alone(storage: Storage) {
    with_users(&storage).await;
    for (number, takers) in [(1, vec![1, 2]), (2, vec![1]), (3, vec![])] {
        let mut new = message(number, 0);
        waiting(&mut new).takers = takers.into_iter().map(taker).collect();
        storage.keep(new).await.unwrap();
    }
    assert_eq!(drained(&storage, drain(3, 1, &[2, 3])).await, ids([2, 3]));
    let entries = storage.inbox.list(&jid(JULIET), None, None, 9).await.unwrap();
    let takers: Vec<_> = entries.into_iter().map(|entry| entry.takers).collect();
    assert_eq!(takers, [vec![taker(1), taker(2)], vec![taker(3)], vec![taker(3)]]);
}

/// What arrives before it is kept is not known, and settled when it is told again; a message that is archived only waits
/// once that is asked for.
pub(super) async fn what_arrives_early_is_told_apart(storage: Storage) {
    with_users(&storage).await;
    keep(&storage, [1]).await;
    assert_eq!(storage.inbox.arrived(vec![settle(1), settle(2)]).await, Ok(vec![1]));
    assert_eq!(storage.inbox.arrived(vec![settle(1)]).await, Ok(vec![]), "she has it in her archive");
    let mut early = message(2, 0);
    waiting(&mut early).takers = vec![taker(7)];
    storage.keep(early).await.unwrap();
    assert_eq!(listed(&storage).await, ids([2]));
    assert_eq!(storage.inbox.arrived(vec![settle(2)]).await, Ok(vec![]));
    assert_eq!(listed(&storage).await, ids([]));

    let inbox = waiting(&mut message(3, 0)).clone();
    let full = KeepInInbox { quota: InboxQuota { messages: 0, bytes: 0 }, ..inbox.clone() };
    let juliet = jid(JULIET);
    let offline = async |number: u64, inbox: &KeepInInbox| {
        storage.inbox.offline(&juliet, id(number), inbox.clone()).await
    };
    assert_eq!(offline(3, &inbox).await, Ok(false));
    assert!(matches!(offline(1, &full).await, Err(StorageError::Full { .. })));
    assert_eq!(offline(1, &inbox).await, Ok(true));
    let entries = storage.inbox.list(&juliet, None, None, 9).await.unwrap();
    assert_eq!((entries.len(), entries[0].id, entries[0].seq), (1, id(1), 1));
    assert_eq!((entries[0].from.as_str(), entries[0].stamp), ("romeo@example.com/orchard", at(1)));
    assert_eq!(drained(&storage, drain(8, 1, &[8])).await, ids([1]));
    assert_eq!(offline(1, &full).await, Ok(true), "it is free again");
    assert_eq!(drained(&storage, drain(9, 1, &[8, 9])).await, ids([1]));
    assert_eq!(archived(&storage, JULIET).await, ids([1, 2]));
}

/// Who is blocked, and who writes to a disabled account that nobody uses, reaches neither inbox nor archive; decided
/// where it is kept.
pub(super) async fn what_is_not_wanted_is_not_kept(storage: Storage) {
    with_users(&storage).await;
    let juliet = jid(JULIET);
    let since = |since| storage.accounts.set_disabled(&juliet, since);
    since(Some(at(1))).await.unwrap();
    assert_eq!(storage.keep(message(1, 0)).await, Ok(vec![Kept::At(1), Kept::Refused]));
    since(None).await.unwrap();
    let limits = PrivacyLimits { entries: 9, entry_bytes: 900, lists: 2, items: 2 };
    let block = PrivacyChange::Block(vec![jid(ROMEO).into()]);
    storage.privacy.change(&juliet, block, limits).await.unwrap().unwrap();
    let mut live = message(2, 0);
    waiting(&mut live).takers = vec![taker(7)];
    assert_eq!(storage.keep(live).await, Ok(vec![Kept::At(2), Kept::Refused]));
    let mut own = message(3, 0);
    own.owners.remove(0);
    own.owners[0].peer = Jid::new("juliet@example.com/balcony").unwrap();
    assert_eq!(storage.keep(own).await, Ok(vec![Kept::At(1)]), "nobody blocks oneself");
    assert_eq!(archived(&storage, JULIET).await, ids([3]));
}

pub(super) async fn a_long_inbox_is_taken_by_pages(storage: Storage) {
    with_users(&storage).await;
    keep(&storage, 1..=25).await;
    let (mut after, mut found, mut pages) = (None, Vec::new(), 0);
    loop {
        let page = Drain { after, limit: 10, ..drain(1, 1, &[1]) };
        let Drained { messages, next } = storage.inbox.drain(&jid(JULIET), page.clone()).await.unwrap();
        let again = storage.inbox.drain(&jid(JULIET), page).await.unwrap();
        assert_eq!(again.messages, messages);
        found.extend(messages.into_iter().map(|message| message.id));
        pages += 1;
        after = next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!((found, pages), (ids(1..=25), 3));
    let list = storage.inbox.list(&jid(JULIET), None, Some(20), 3).await.unwrap();
    assert_eq!(list.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [21, 22, 23]);
    // A page has a bound in bytes.
    let large = MAX_MESSAGE_BYTES as u64;
    for number in 101..=120 {
        storage.keep(message(number, MAX_MESSAGE_BYTES)).await.unwrap();
    }
    let page = storage.inbox.drain(&jid(JULIET), drain(1, 2, &[1])).await.unwrap();
    assert_eq!(page.messages.len() as u64, MAX_PAGE_BYTES as u64 / large);
    assert_eq!(page.next, Some(25 + MAX_PAGE_BYTES as u64 / large));
}

/// R23: what one device has had is still there for the other.
pub(super) async fn r23_each_device_gets_what_waits(storage: Storage) {
    with_users(&storage).await;
    let (juliet, phone, desk) = (jid(JULIET), DeviceId(1), DeviceId(2));
    for device in [phone, desk] {
        storage.inbox.note_device(&juliet, device, at(5), at(0)).await.unwrap();
    }
    let mut new = message(1, 0);
    waiting(&mut new).each_device = true;
    storage.keep(new).await.unwrap();
    keep(&storage, [2]).await;
    let of = |bind, device| {
        let drain = drain(bind, 1, &[bind, 9]);
        Drain { taker: Taker { bind: BindIndex(bind), device: Some(device) }, ..drain }
    };
    assert_eq!(drained(&storage, of(1, phone)).await, ids([1, 2]));
    let settle = |number, device| Settle { device: Some(device), ..settle(number) };
    assert_eq!(storage.inbox.settle(vec![settle(1, phone), settle(2, phone), settle(1, phone)]).await, Ok(2));
    let left = async |device| storage.inbox.list(&juliet, Some(device), None, 9).await.unwrap().len();
    assert_eq!((left(phone).await, left(desk).await), (0, 1));
    assert_eq!(drained(&storage, of(2, desk)).await, ids([1]));
    assert_eq!(drained(&storage, of(3, DeviceId(3))).await, ids([]), "it was not there then");
    assert_eq!(storage.inbox.settle(vec![settle(1, desk)]).await, Ok(1));
    assert_eq!(storage.inbox.summary(&juliet).await, Ok(InboxSummary::default()));
}

/// R18, R23: in a full inbox a message waits for who is getting it, and for no other device; for nobody there is no room.
pub(super) async fn r18_r23_a_full_inbox_has_room_for_who_is_there(storage: Storage) {
    with_users(&storage).await;
    let (juliet, phone, desk) = (jid(JULIET), DeviceId(1), DeviceId(2));
    for device in [phone, desk] {
        storage.inbox.note_device(&juliet, device, at(5), at(0)).await.unwrap();
    }
    for number in 1..=3 {
        let mut new = message(number, 0);
        let inbox = waiting(&mut new);
        (inbox.each_device, inbox.quota.messages) = (true, 2);
        inbox.takers = vec![Taker { bind: BindIndex(7), device: Some(phone) }];
        storage.keep(new.clone()).await.unwrap();
        waiting(&mut new).takers.clear();
        new.id = id(number + 10);
        let full = storage.keep(new).await;
        assert_eq!(full.is_err(), number > 1, "{number}: {full:?}");
    }
    assert_eq!(listed(&storage).await, ids([1, 11, 2, 3]));
    let left = async |device| storage.inbox.list(&juliet, Some(device), None, 9).await.unwrap().len();
    assert_eq!((left(phone).await, left(desk).await), (4, 4), "whoever comes may take what nobody gets");
    let settle = |number| Settle { device: Some(phone), ..settle(number) };
    assert_eq!(storage.inbox.settle([1, 11, 2, 3].map(settle).into()).await, Ok(4));
    assert_eq!((left(phone).await, left(desk).await), (0, 2));
    assert_eq!(listed(&storage).await, ids([1, 11]));
}

/// XEP-0013 §2.6, R17: all at once, but nothing that somebody is getting.
pub(super) async fn an_inbox_is_purged(storage: Storage) {
    with_users(&storage).await;
    let mut new = message(500, 0);
    waiting(&mut new).takers = vec![taker(7)];
    keep(&storage, 1..=300).await;
    storage.keep(new).await.unwrap();
    assert_eq!(storage.inbox.purge(&jid(JULIET), None, vec![BindIndex(7)]).await, Ok(300));
    assert_eq!(listed(&storage).await, ids([500]));
    assert_eq!(storage.inbox.purge(&jid(JULIET), Some(DeviceId(1)), Vec::new()).await, Ok(1));
    assert_eq!(storage.inbox.purge(&jid("nobody@example.com"), None, Vec::new()).await, Ok(0));
    assert_eq!(storage.inbox.summary(&jid(JULIET)).await, Ok(InboxSummary::default()));
}

/// R22: what has waited for too long goes, by the clock that the sweep is given.
pub(super) async fn r22_what_is_kept_for_too_long_goes(storage: Storage) {
    with_users(&storage).await;
    keep(&storage, [1, 2, 300, 301]).await;
    let rules = |now, archive_before: Option<u64>| SweepRules {
        now: at(now),
        archive_before: archive_before.map(at),
        archive_bytes: None,
    };
    let due = async |rules| {
        let Due { users, next } = storage.retention.due("example.com", None, rules, 10).await.unwrap();
        assert_eq!(next, None);
        users.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(due(rules(1_000, None)).await, [""; 0]);
    assert_eq!(due(rules(1_001, None)).await, [JULIET]);
    let sweep =
        async |user: &str, rules, limit| storage.retention.sweep(&jid(user), rules, limit).await.unwrap();
    assert_eq!(sweep(JULIET, rules(1_002, None), 9).await, Swept { inbox: 2, archive: 0, more: false });
    assert_eq!(listed(&storage).await, ids([300, 301]));
    assert_eq!(due(rules(1_002, None)).await, [""; 0]);

    assert_eq!(due(rules(1_002, Some(3))).await, [JULIET, ROMEO]);
    assert_eq!(sweep(ROMEO, rules(1_002, Some(3)), 1).await, Swept { inbox: 0, archive: 1, more: true });
    assert_eq!(archived(&storage, ROMEO).await, ids([2, 300, 301]));
    assert_eq!(archived(&storage, JULIET).await, ids([1, 2, 300, 301]), "it is hers still");
    assert_eq!(sweep(ROMEO, rules(1_002, Some(3)), 9).await, Swept { inbox: 0, archive: 1, more: false });
    assert_eq!(archived(&storage, ROMEO).await, ids([300, 301]));

    // All at once, in steps, with what waits: the youngest that fits stays.
    let size = message(300, 0).xml.len() as u64;
    let last = SweepRules { archive_bytes: Some(size), ..rules(2_000, Some(2)) };
    assert_eq!(due(last).await, [JULIET, ROMEO]);
    assert_eq!(sweep(JULIET, last, 3).await, Swept { inbox: 2, archive: 1, more: true });
    assert_eq!(sweep(JULIET, last, 3).await, Swept { inbox: 0, archive: 2, more: false });
    assert_eq!((listed(&storage).await, archived(&storage, JULIET).await), (ids([]), ids([301])));
    assert_eq!(sweep("nobody@example.com", last, 3).await, Swept::default());
}

/// Users who have to be looked at come in pages.
pub(super) async fn the_sweep_looks_at_some_users_at_a_time(storage: Storage) {
    let users: Vec<BareJid> = (0..25).map(|number| jid(&format!("user{number:02}@example.com"))).collect();
    for (number, user) in users.iter().enumerate() {
        storage.accounts.create(user, account(1)).await.unwrap();
        let mut new = message(number as u64, 0);
        new.owners.remove(0);
        new.owners[0].owner = user.clone();
        waiting(&mut new).expires = at(if number.is_multiple_of(5) { 10 } else { 20 });
        storage.keep(new).await.unwrap();
    }
    let rules = SweepRules { now: at(15), archive_before: None, archive_bytes: None };
    let (mut after, mut found) = (None, Vec::new());
    loop {
        let due = storage.retention.due("example.com", after.as_ref(), rules, 10).await.unwrap();
        found.extend(due.users);
        after = due.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(found, users.into_iter().step_by(5).collect::<Vec<_>>());
    assert_eq!(storage.retention.due("example", None, rules, 10).await, Ok(Due::default()));
}

pub(super) async fn messages_go_with_the_account(storage: Storage) {
    with_users(&storage).await;
    keep(&storage, 1..=450).await;
    assert_eq!(storage.inbox.settle((1..=100).map(settle).collect()).await, Ok(100));
    storage.inbox.note_device(&jid(JULIET), DeviceId(1), at(1), at(0)).await.unwrap();
    let juliet = jid(JULIET);
    let (deleted, created) =
        tokio::join!(storage.accounts.delete(&juliet), storage.accounts.create(&juliet, account(7)));
    assert_eq!((deleted, created), (Ok(true), Ok(true)));
    assert_eq!((listed(&storage).await, archived(&storage, JULIET).await), (ids([]), ids([])));
    assert_eq!(storage.inbox.summary(&jid(JULIET)).await, Ok(InboxSummary::default()));
    assert_eq!(storage.archive.ends(&jid(ROMEO)).await.unwrap().unwrap().first, (id(1), at(1)));
    assert_eq!(
        storage.keep(message(451, 0)).await,
        Ok(vec![Kept::At(451), Kept::At(1)]),
        "the count begins anew"
    );
    assert_eq!(storage.inbox.get(&jid(JULIET), id(1)).await, Ok(None));
}

pub(super) async fn messages_are_bounded(storage: Storage) {
    with_users(&storage).await;
    assert!(storage.keep(message(1, MAX_MESSAGE_BYTES)).await.is_ok());
    let mut crowded = message(2, 0);
    crowded.owners = vec![crowded.owners[0].clone(); MAX_OWNERS + 1];
    let too_large = |refused: &StorageError| matches!(refused, StorageError::TooLarge { .. });
    for refused in [
        storage.keep(message(2, MAX_MESSAGE_BYTES + 1)).await.unwrap_err(),
        storage.keep(crowded).await.unwrap_err(),
        storage.inbox.settle(vec![settle(1); MAX_PAGE + 1]).await.unwrap_err(),
        storage.inbox.release(vec![(jid(JULIET), id(1)); MAX_PAGE + 1]).await.unwrap_err(),
        storage
            .messages
            .retract(&jid(ROMEO), id(1), vec![0; MAX_MESSAGE_BYTES + 1].into())
            .await
            .unwrap_err(),
    ] {
        assert!(too_large(&refused), "{refused:?}");
    }
    let nobody = jid("nobody@example.com");
    let refused = storage.inbox.note_device(&nobody, DeviceId(1), at(1), at(0)).await;
    assert_eq!(refused, Err(StorageError::UnknownUser { user: nobody.clone() }));
    assert_eq!(storage.inbox.drain(&nobody, drain(1, 1, &[1])).await, Ok(Drained::default()));
    assert_eq!(listed(&storage).await, ids([1]));
}
