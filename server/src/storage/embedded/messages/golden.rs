//! The bytes of commands, replies, queries and rows of kept messages: they last.

use althing_cluster::routes::BindIndex;
use althing_cluster::wire;
use althing_proto::jid::BareJid;
use althing_proto::stanza_id::StanzaId;
use althing_proto::time::Timestamp;
use bytes::Bytes;
use serde::Serialize;

use super::super::super::messages::rules::{ArchiveRow, ArchiveWish, InboxRow, MailboxHead};
use super::super::super::messages::{
    ArchiveDefault, ArchiveEnds, ArchivePage, ArchivePreferences, ArchiveQuery, ArchivedMessage, DeviceId,
    Drain, Due, InboxEntry, InboxMessage, InboxQuota, InboxSummary, KeepFor, KeepInInbox, KeepMessage, Kept,
    MessageName, Settle, SweepRules, Swept, Taker, UnknownStanzaId,
};
use super::super::command::Command;
use super::super::query::{Answer, Query};
use super::super::reply::Reply;
use super::super::tagged::assert_golden;
use super::command::*;

const ID: StanzaId = StanzaId::from_bytes([0xee; 16]);

fn user() -> BareJid {
    BareJid::new("j@d").unwrap()
}

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn taker() -> Taker {
    Taker { bind: BindIndex(300), device: Some(DeviceId(4)) }
}

fn rules() -> SweepRules {
    SweepRules { now: at(7), archive_before: Some(at(3)), archive_bytes: None }
}

fn preferences() -> ArchivePreferences {
    ArchivePreferences { default: ArchiveDefault::Roster, always: vec![user().into()], never: Vec::new() }
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

#[test]
fn golden_bytes_of_commands() {
    let inbox = KeepInInbox {
        takers: vec![taker()],
        expires: at(9),
        quota: InboxQuota { messages: 5, bytes: 300 },
        each_device: true,
    };
    let owners = vec![KeepFor {
        owner: user(),
        peer: user().into(),
        outgoing: true,
        archive: Some(ArchiveDefault::Never),
        inbox: Some(inbox),
    }];
    let drain = Drain { taker: taker(), pass: 2, live: vec![BindIndex(1)], after: Some(6), limit: 8 };
    let settle = Settle { user: user(), id: ID, device: None };
    let quota = InboxQuota { messages: 5, bytes: 5 };
    let offline = KeepInInbox { takers: Vec::new(), expires: at(9), quota, each_device: true };
    let samples = [
        (
            "0032eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee05017801036a4064036a40640101010101fb2c0101040905fb2c01010107",
            Command::KeepMessage(KeepMessage {
                id: ID,
                stamp: at(5),
                xml: bytes("x"),
                owners,
                name: Some(MessageName(7)),
            }),
        ),
        (
            "0033036a4064eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee0174",
            Command::RetractMessage(RetractMessage { sender: user(), id: ID, tombstone: bytes("t") }),
        ),
        ("0034036a4064fb2c010104020101010608", Command::DrainInbox(DrainInbox { user: user(), drain })),
        (
            "003501036a4064eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee",
            Command::ReleaseMessages(ReleaseMessages { messages: vec![(user(), ID)] }),
        ),
        (
            "003601036a4064eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee00",
            Command::SettleMessages(SettleMessages { messages: vec![settle.clone()] }),
        ),
        (
            "005a01036a4064eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee00",
            Command::ArrivedMessages(SettleMessages { messages: vec![settle.clone()] }),
        ),
        (
            "005b036a4064eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee0009050501",
            Command::OfflineMessage(OfflineMessage { user: user(), id: ID, inbox: offline }),
        ),
        (
            "0037036a4064010401010608",
            Command::PurgeInbox(PurgeInbox {
                user: user(),
                device: Some(DeviceId(4)),
                live: vec![BindIndex(1)],
                after: 6,
                limit: 8,
            }),
        ),
        (
            "0038036a4064040502",
            Command::NoteDevice(NoteDevice { user: user(), device: DeviceId(4), seen: at(5), forget: at(2) }),
        ),
        (
            "0039036a40640201036a406400",
            Command::SetArchivePreferences(SetArchivePreferences {
                user: user(),
                preferences: preferences(),
            }),
        ),
        (
            "003a036a40640701030008",
            Command::SweepMessages(SweepMessages { user: user(), rules: rules(), limit: 8 }),
        ),
    ];
    assert_golden!(Command, samples);
}

#[test]
fn golden_bytes_of_replies() {
    let samples = [
        (
            "00320500fb2c0101020304",
            Reply::Kept(vec![Kept::At(300), Kept::Not, Kept::UnknownUser, Kept::Refused, Kept::Closed]),
        ),
        ("00330201020103", Reply::Drained(DrainedRows { seqs: vec![1, 2], next: Some(3) })),
        ("003403", Reply::Count(3)),
        ("005a020105", Reply::Places(vec![1, 5])),
        ("00350300", Reply::Purged(Purged { count: 3, next: None })),
        ("0036010201", Reply::Swept(Swept { inbox: 1, archive: 2, more: true })),
    ];
    assert_golden!(Reply, samples);
}

#[test]
fn golden_name_of_a_message() {
    assert_eq!(MessageName::of(&user(), "m1"), MessageName(0xb507b7b2d9012e09));
    assert_ne!(MessageName::of(&user(), "m1"), MessageName::of(&user(), "m2"));
    assert_ne!(MessageName::of(&user(), "m1"), MessageName::of(&BareJid::new("k@d").unwrap(), "m1"));
}

#[test]
fn golden_bytes_of_queries() {
    let query = ArchiveQuery {
        with: Some(user().into()),
        start: Some(at(1)),
        end: None,
        after: vec![ID],
        before: Vec::new(),
        ids: Vec::new(),
        limit: 8,
        backwards: true,
        name: Some(MessageName(7)),
    };
    let list = ListInbox { user: user(), device: None, after: Some(6), limit: 8 };
    let of = || OfUser { user: user() };
    let find = FindDue { domain: "d".to_owned(), after: Some(user()), rules: rules(), look: 9 };
    let samples = [
        ("0032036a40640201fb2c01", Query::ReadInbox(ReadInbox { user: user(), seqs: vec![1, 300] })),
        ("0033036a406400010608", Query::ListInbox(list)),
        (
            "0034036a4064eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee",
            Query::GetInboxMessage(GetInboxMessage { user: user(), id: ID }),
        ),
        ("0035036a4064", Query::GetInboxSummary(of())),
        (
            "0036036a406401036a406401010001eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee000008010107",
            Query::ReadArchive(ReadArchive { user: user(), query }),
        ),
        ("0037036a4064", Query::GetArchiveEnds(of())),
        ("0038036a4064", Query::GetArchivePreferences(of())),
        ("0039016401036a40640701030009", Query::FindDue(find)),
    ];
    assert_golden!(Query, samples);
}

#[test]
fn golden_bytes_of_answers() {
    let message = InboxMessage { id: ID, seq: 2, stamp: at(5), xml: bytes("x"), retracted: false };
    let entry = InboxEntry {
        id: ID,
        seq: 2,
        from: user().into(),
        stamp: at(5),
        expires: at(9),
        size: 1,
        takers: vec![taker()],
        devices: vec![DeviceId(4)],
    };
    let archived = ArchivedMessage { id: ID, stamp: at(5), xml: bytes("x"), retracted: true };
    let page = ArchivePage { messages: vec![archived], complete: true, count: Some(1), looked: Some(ID) };
    let samples = [
        ("003201eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee0205017800", Answer::InboxMessages(vec![message.clone()])),
        (
            "003301eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee02036a406405090101fb2c0101040104",
            Answer::InboxEntries(vec![entry]),
        ),
        ("003401eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee0205017800", Answer::InboxMessage(Some(message))),
        ("003501fb2c01", Answer::InboxSummary(InboxSummary { messages: 1, bytes: 300 })),
        (
            "00360001eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee0501780101010101eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee",
            Answer::ArchivePage(Ok(page)),
        ),
        ("003601eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee", Answer::ArchivePage(Err(UnknownStanzaId(ID)))),
        (
            "003701eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee05eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee06",
            Answer::ArchiveEnds(Some(ArchiveEnds { first: (ID, at(5)), last: (ID, at(6)) })),
        ),
        ("0038010201036a406400", Answer::ArchivePreferences(Some(preferences()))),
        ("003901036a406401036a4064", Answer::Due(Due { users: vec![user()], next: Some(user()) })),
    ];
    assert_golden!(Answer, samples);
}

#[test]
fn golden_bytes_of_rows() {
    fn golden<T: Serialize>(value: &T, golden: &str) {
        let bytes = wire::encode(value).unwrap();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, golden);
    }
    let head = MailboxHead {
        next: 300,
        stamp: at(5),
        archived: 2,
        archived_bytes: 400,
        waiting: 1,
        waiting_bytes: 200,
        expires: at(9),
        wish: ArchiveWish::Plain(ArchiveDefault::Roster),
        devices: vec![(DeviceId(4), at(5))],
    };
    golden(&head, "fb2c010502fb900101c8090102010405");
    golden(
        &ArchiveRow {
            id: ID,
            stamp: at(5),
            with: user().into(),
            outgoing: true,
            size: 200,
            name: Some(MessageName(7)),
        },
        "eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee05036a406401c80107",
    );
    let waiting = InboxRow {
        id: ID,
        from: user().into(),
        stamp: at(5),
        expires: at(9),
        size: 200,
        takers: vec![(taker(), 2)],
        devices: vec![DeviceId(4)],
    };
    golden(&waiting, "eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee036a40640509c801fb2c010104020104");
}
