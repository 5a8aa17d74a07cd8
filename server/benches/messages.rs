//! What kept messages cost in the embedded store: keeping and settling them, draining, pages, bytes on disk.
//!
//! `cargo bench -p althing-server --bench messages`

// A benchmark's result is what it prints, and a failure of its own set-up ends it.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::time::Instant;

use althing_proto::jid::{BareJid, Jid};
use althing_proto::sasl::Credentials;
use althing_proto::stanza_id::StanzaId;
use althing_proto::time::Timestamp;
use althing_server::storage::messages::{
    ArchiveDefault, ArchiveQuery, InboxQuota, KeepFor, KeepInInbox, KeepMessage, Settle, Taker,
};
use althing_server::storage::{Account, EmbeddedOptions, Storage};

use althing_cluster::routes::BindIndex;

const USERS: u64 = 1_000;
const MESSAGES: u64 = 100_000;

fn user(number: u64) -> BareJid {
    BareJid::new(&format!("user{}@example.com", number % USERS)).unwrap()
}

fn id(number: u64) -> StanzaId {
    StanzaId::derived(b"bench", &[&number.to_be_bytes()])
}

/// A chat message of some 300 bytes between two users, on its way to a session.
fn message(number: u64, archive: bool) -> KeepMessage {
    let (from, to) = (user(number), user(number / USERS + number + 1));
    let body = "Wherefore art thou? ".repeat(4);
    let xml = format!(
        "<message xmlns='jabber:client' type='chat' id='{number}' from='{from}/phone' to='{to}'><body>{body}</body>\
         <origin-id xmlns='urn:xmpp:sid:0' id='{number:032}'/></message>"
    );
    let archive = archive.then_some(ArchiveDefault::Always);
    let quota = InboxQuota { messages: u32::MAX, bytes: u64::MAX };
    let takers = vec![Taker { bind: BindIndex(7), device: None }];
    let expires = Timestamp::from_millis(u64::MAX);
    let inbox = KeepInInbox { takers, expires, quota, each_device: false };
    let peer: Jid = to.clone().into();
    let sender = KeepFor { owner: from.clone(), peer, outgoing: true, archive, inbox: None };
    let receiver = KeepFor { owner: to, peer: from.into(), outgoing: false, archive, inbox: Some(inbox) };
    KeepMessage {
        name: None,
        id: id(number),
        stamp: Timestamp::from_millis(number),
        xml: xml.into(),
        owners: vec![sender, receiver],
    }
}

/// Keeps and settles messages, `tasks` at a time, as sessions would: settled by hundreds.
async fn chat(storage: &Storage, tasks: u64, first: u64, count: u64, archive: bool) {
    let start = Instant::now();
    let running: Vec<_> = (0..tasks)
        .map(|task| {
            let storage = storage.clone();
            tokio::spawn(async move {
                let mut arrived = Vec::new();
                for number in (first + task..first + count).step_by(usize::try_from(tasks).unwrap()) {
                    let message = message(number, archive);
                    let settle =
                        Settle { user: message.owners[1].owner.clone(), id: message.id, device: None };
                    storage.keep(message).await.unwrap();
                    arrived.push(settle);
                    if arrived.len() == 100 {
                        storage.inbox.settle(std::mem::take(&mut arrived)).await.unwrap();
                    }
                }
                if !arrived.is_empty() {
                    storage.inbox.settle(arrived).await.unwrap();
                }
            })
        })
        .collect();
    for task in running {
        task.await.unwrap();
    }
    let seconds = start.elapsed().as_secs_f64();
    let (rate, mean) = (count as f64 / seconds, seconds / count as f64 * tasks as f64 * 1e6);
    let archived = if archive { "archive" } else { "no archive" };
    println!("keep and settle, {archived:<12} {tasks:>5} at a time {rate:>9.0}/s  mean {mean:>8.1} us");
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    // In the target directory: a temporary directory may be in memory, where a flush costs nothing.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let storage = Storage::open_embedded(dir.path(), EmbeddedOptions::default()).unwrap();
    let credentials = Credentials::derive("secret", 4096, [7; 16]).unwrap();
    let account = Account { credentials, created: Timestamp::from_millis(0) };
    for number in 0..USERS {
        storage.accounts.create(&user(number), account.clone()).await.unwrap();
    }
    chat(&storage, 1_024, 0, MESSAGES, false).await;
    let before = storage.engine.size_on_disk().await.unwrap();
    for round in 1..=3 {
        chat(&storage, 1_024, round * MESSAGES, MESSAGES, true).await;
        let grown = storage.engine.size_on_disk().await.unwrap().saturating_sub(before);
        println!("{} bytes on disk an archived message", grown / (round * MESSAGES));
    }
    chat(&storage, 64, 4 * MESSAGES, MESSAGES, true).await;
    chat(&storage, 1, 5 * MESSAGES, 1_000, true).await;

    // The first archived message is one of the first user.
    let peer = message(MESSAGES, true).owners[0].peer.clone();
    for (what, with) in [("all", None), ("with a peer", Some(peer))] {
        let (start, pages) = (Instant::now(), 2_000);
        for _ in 0..pages {
            let (with, limit) = (with.clone(), 50);
            let query = ArchiveQuery { with, limit, backwards: true, ..ArchiveQuery::default() };
            let page = storage.archive.page(&user(0), query).await.unwrap().unwrap();
            assert!(!page.messages.is_empty());
        }
        println!(
            "last page of 50, {what:<12} {:>8.1} us",
            start.elapsed().as_secs_f64() / f64::from(pages) * 1e6
        );
    }
    storage.close().await.unwrap();
}
