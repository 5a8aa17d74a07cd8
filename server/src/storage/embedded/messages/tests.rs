//! What only rows on disk can get wrong: texts that nobody has, figures that do not add up.

use std::collections::BTreeMap;

use althing_cluster::routes::BindIndex;
use althing_proto::jid::Jid;
use althing_proto::stanza_id::StanzaId;
use althing_proto::time::Timestamp;
use proptest::prelude::*;

use super::super::super::conformance::messages::{JULIET, ROMEO, id, message};
use super::super::super::conformance::{account, jid};
use super::super::super::messages::rules::{ArchiveRow, InboxRow, MailboxHead};
use super::super::super::messages::{
    ArchiveDefault, ArchivePreferences, ArchiveQuery, DeviceId, Drain, KeepInInbox, KeepMessage, Settle,
    SweepRules, Taker,
};
use super::super::super::{EmbeddedOptions, Storage};
use super::super::command::Command;
use super::super::keys;
use super::super::tests::with_sled;
use super::body::BodyHead;
use super::command::{
    DrainInbox, NoteDevice, PurgeInbox, ReleaseMessages, RetractMessage, SetArchivePreferences,
    SettleMessages, SweepMessages,
};
use super::scope::decode;

/// The same message between other users.
pub(in super::super) fn between(mut message: KeepMessage, from: &str, to: &str) -> KeepMessage {
    for (owner, (own, peer)) in message.owners.iter_mut().zip([(from, to), (to, from)]) {
        (owner.owner, owner.peer) = (jid(own), jid(peer).into());
    }
    message
}

/// A page with one resource of a contact looks at so many messages, and goes on where it has ended.
#[tokio::test]
async fn a_page_with_a_resource_that_is_seldom_there_ends_and_goes_on() {
    const MESSAGES: u64 = 12_000;
    let dir = tempfile::tempdir().unwrap();
    let storage = Storage::open_embedded(dir.path(), EmbeddedOptions::default()).unwrap();
    storage.accounts.create(&jid(JULIET), account(1)).await.unwrap();
    let kept: Vec<_> = (1..=MESSAGES)
        .map(|number| {
            let mut message = message(number, 10);
            message.owners.retain(|owner| owner.owner == jid(JULIET));
            let resource = if number == 11_000 { "seldom" } else { "often" };
            message.owners[0].peer = Jid::new(&format!("{ROMEO}/{resource}")).unwrap();
            message.owners[0].archive = Some(ArchiveDefault::Always);
            message.owners[0].inbox = None;
            storage.keep(message)
        })
        .collect();
    for kept in kept {
        kept.await.unwrap();
    }
    for backwards in [false, true] {
        let with = Some(Jid::new(&format!("{ROMEO}/seldom")).unwrap());
        let mut query = ArchiveQuery { with, limit: 9, backwards, ..ArchiveQuery::default() };
        let (mut found, mut pages) = (Vec::new(), 0);
        loop {
            let page = storage.archive.page(&jid(JULIET), query.clone()).await.unwrap().unwrap();
            found.extend(page.messages.iter().map(|message| message.id));
            pages += 1;
            assert_eq!(page.complete, page.looked.is_none());
            match (page.looked, backwards) {
                (Some(looked), false) => query.after = vec![looked],
                (Some(looked), true) => query.before = vec![looked],
                (None, _) => break,
            }
        }
        assert_eq!((found, pages), (vec![id(11_000)], 3));
    }
}

/// Commands on messages between these users.
pub(in super::super) fn any_command(users: &'static [&'static str]) -> BoxedStrategy<Command> {
    let user = move || prop::sample::select(users).prop_map(jid);
    let number = || 0..60_u64;
    let device = || prop::option::of((1..3_u64).prop_map(DeviceId));
    let taker =
        move || (1..4_u64, device()).prop_map(|(bind, device)| Taker { bind: BindIndex(bind), device });
    let live = || prop::collection::vec((1..4_u64).prop_map(BindIndex), 0..3);
    let wish =
        || prop::sample::select(vec![ArchiveDefault::Always, ArchiveDefault::Never, ArchiveDefault::Roster]);
    let at = Timestamp::from_millis;
    prop_oneof![
        20 => (
            (number(), prop::sample::select(users), prop::sample::select(users), 0..2_000_usize),
            prop::option::weighted(0.8, wish()),
            prop::option::weighted(0.8, prop::collection::vec(taker(), 0..3)),
            any::<bool>(),
            1..20_u32,
        ).prop_map(move |((number, from, to, size), archive, takers, each_device, most)| {
            let mut message = between(message(number, size), from, to);
            message.owners.iter_mut().for_each(|owner| owner.archive = archive);
            message.owners[1].inbox = takers.map(|takers| {
                let mut inbox = message.owners[1].inbox.clone().unwrap();
                inbox.quota.messages = most;
                KeepInInbox { takers, each_device, ..inbox }
            });
            Command::KeepMessage(message)
        }),
        2 => (user(), number()).prop_map(|(sender, number)| {
            let (id, tombstone) = (id(number), "<gone/>".into());
            Command::RetractMessage(RetractMessage { sender, id, tombstone })
        }),
        4 => (user(), taker(), 1..3_u32, live(), prop::option::of(0..9_u64), 0..9_u32).prop_map(
            |(user, taker, pass, live, after, limit)| {
                let drain = Drain { taker, pass, live, after, limit };
                Command::DrainInbox(DrainInbox { user, drain })
            }
        ),
        2 => prop::collection::vec((user(), number().prop_map(id)), 0..9)
            .prop_map(|messages| Command::ReleaseMessages(ReleaseMessages { messages })),
        6 => prop::collection::vec((user(), number(), device()), 0..30).prop_map(|messages| {
            let settle = |(user, number, device)| Settle { user, id: id(number), device };
            let messages = messages.into_iter().map(settle).collect();
            Command::SettleMessages(SettleMessages { messages })
        }),
        1 => (user(), device(), live(), 0..9_u64, 0..9_u32).prop_map(
            |(user, device, live, after, limit)| {
                Command::PurgeInbox(PurgeInbox { user, device, live, after, limit })
            }
        ),
        2 => (user(), 1..3_u64, 0..9_u64).prop_map(move |(user, device, seen)| {
            let (device, seen, forget) = (DeviceId(device), at(seen), at(seen / 2));
            Command::NoteDevice(NoteDevice { user, device, seen, forget })
        }),
        1 => (user(), wish(), user(), user()).prop_map(|(user, default, always, never)| {
            let (always, never) = (vec![always.into()], vec![never.into()]);
            let preferences = ArchivePreferences { default, always, never };
            Command::SetArchivePreferences(SetArchivePreferences { user, preferences })
        }),
        1 => (user(), 900..1_100_u64, prop::option::of(0..60_u64), prop::option::of(0..9_000_u64), 0..9_u32)
            .prop_map(move |(user, now, before, archive_bytes, limit)| {
                let rules = SweepRules { now: at(now), archive_before: before.map(at), archive_bytes };
                Command::SweepMessages(SweepMessages { user, rules, limit })
            }),
    ]
    .boxed()
}

/// Checks that every row has the rows that belong to it, and that all figures are right.
pub(in super::super) fn assert_whole(rows: &BTreeMap<Vec<u8>, Vec<u8>>) {
    let mut users: BTreeMap<Vec<u8>, MailboxHead> = BTreeMap::new();
    let mut holders: BTreeMap<StanzaId, std::collections::BTreeSet<(Vec<u8>, u64)>> = BTreeMap::new();
    let (mut with, mut named) = (0_usize, 0_usize);
    let mut archived_rows = 0_usize;
    for (key, value) in rows {
        let user = || key[1..key.len() - 8].to_vec();
        match key[0] {
            b'e' => {
                let (row, seq): (ArchiveRow, u64) = (decode(key, value).unwrap(), keys::seq(key).unwrap());
                let counted = users.entry(user()).or_default();
                counted.archived += 1;
                counted.archived_bytes += u64::from(row.size);
                counted.stamp = counted.stamp.max(row.stamp);
                holders.entry(row.id).or_default().insert((user(), seq));
                archived_rows += 1;
                if let Some(name) = row.name {
                    named += 1;
                    let name = name.0.to_be_bytes();
                    let found = [b"n", user().as_slice(), &name, &seq.to_be_bytes()].concat();
                    assert!(rows.contains_key(&found), "it is found by its name");
                }
            }
            b'i' => {
                let (row, seq): (InboxRow, u64) = (decode(key, value).unwrap(), keys::seq(key).unwrap());
                users.entry(user()).or_default().wait(&row);
                holders.entry(row.id).or_default().insert((user(), seq));
            }
            b'f' => with += 1,
            _ => {}
        }
    }
    let names = rows.keys().filter(|key| key[0] == b'n').count();
    assert_eq!(names, named, "no name is of a message that is gone");
    assert_eq!(with, archived_rows, "each archived message is found by its other side");
    for (user, counted) in users {
        let key = [b"u", user.as_slice()].concat();
        let head: MailboxHead = decode(&key, rows.get(&key).expect("figures")).unwrap();
        assert_eq!((head.archived, head.archived_bytes), (counted.archived, counted.archived_bytes));
        assert_eq!((head.waiting, head.waiting_bytes), (counted.waiting, counted.waiting_bytes));
        assert!(head.stamp >= counted.stamp && head.expires <= counted.expires);
    }
    for (key, value) in rows.iter().filter(|(key, _)| key[0] == b'c') {
        let text = StanzaId::from_bytes(key[1..].try_into().unwrap());
        let (head, _) = BodyHead::split(key, &value.as_slice().into()).unwrap();
        let has = holders.remove(&text).expect("somebody has each text");
        let released: u64 = match rows.get(&keys::released(text)) {
            Some(bits) => decode(key, bits).unwrap(),
            None => 0,
        };
        for (owner, seq) in &head.owners {
            let prefix = keys::archive(owner)[1..].to_vec();
            let let_go = released & head.bit(owner, *seq).unwrap() != 0;
            assert_eq!(has.contains(&(prefix, *seq)), !let_go, "{owner} {seq}");
        }
        assert!(has.len() <= head.owners.len());
    }
    assert!(holders.is_empty(), "these have no text: {holders:?}");
    for key in rows.keys().filter(|key| key[0] == b'k') {
        assert!(
            rows.contains_key([b"c", &key[1..]].concat().as_slice()),
            "a text is gone, and who let go of it is not"
        );
    }
}

#[tokio::test]
async fn what_nobody_has_any_more_is_gone_from_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let options = EmbeddedOptions { cache_bytes: 8 << 20, readers: 1, queue: 1_024, reserve_bytes: 0 };
    let storage = Storage::open_embedded(dir.path(), options).unwrap();
    for user in [ROMEO, JULIET] {
        storage.accounts.create(&jid(user), account(1)).await.unwrap();
    }
    for number in 1..=10 {
        storage.keep(message(number, 0)).await.unwrap();
    }
    let settled = (1..=10).map(|number| Settle { user: jid(JULIET), id: id(number), device: None });
    assert_eq!(storage.inbox.settle(settled.collect()).await, Ok(10));
    let rules = SweepRules {
        now: Timestamp::from_millis(1),
        archive_before: Some(Timestamp::from_millis(6)),
        archive_bytes: None,
    };
    for user in [ROMEO, JULIET] {
        assert_eq!(storage.retention.sweep(&jid(user), rules, 100).await.unwrap().archive, 5);
    }
    storage.accounts.delete(&jid(JULIET)).await.unwrap();
    let all = SweepRules { archive_bytes: Some(0), ..rules };
    storage.close().await.unwrap();
    let kinds = |dir: &std::path::Path| {
        let mut kinds = BTreeMap::new();
        with_sled(dir, |_, tree| {
            for key in tree.iter().keys() {
                *kinds.entry(char::from(key.unwrap()[0])).or_insert(0) += 1;
            }
        });
        kinds
    };
    let expected = BTreeMap::from([('a', 1), ('c', 5), ('e', 5), ('f', 5), ('k', 5), ('n', 5), ('u', 1)]);
    assert_eq!(kinds(dir.path()), expected, "romeo's five, which juliet has let go of");
    let storage = Storage::open_embedded(dir.path(), options).unwrap();
    assert_eq!(storage.retention.sweep(&jid(ROMEO), all, 100).await.unwrap().archive, 5);
    storage.close().await.unwrap();
    assert_eq!(kinds(dir.path()), BTreeMap::from([('a', 1), ('u', 1)]));
}
