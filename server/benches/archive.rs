//! What a large archive costs: one user with many messages, pages of it from everywhere, a backup of it and its restore. For each: the time, and
//! by how much the process grew at most.
//!
//! `ALTHING_BENCH_MESSAGES=2000000 cargo bench -p althing-server --bench archive`; 100,000 where nothing is said.

// A benchmark's result is what it prints, and a failure of its own set-up ends it.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::{BufReader, BufWriter};
use std::path::Path;
use std::time::{Duration, Instant};

use althing_proto::jid::{BareJid, Jid};
use althing_proto::sasl::Credentials;
use althing_proto::stanza_id::StanzaId;
use althing_proto::time::Timestamp;
use althing_server::backup::file::{Head, Reader, Writer};
use althing_server::storage::embedded::backup::FORMAT;
use althing_server::storage::messages::{ArchiveDefault, ArchivePage, ArchiveQuery, KeepFor, KeepMessage};
use althing_server::storage::{Account, EmbeddedOptions, RestoreStep, Storage};

/// Contacts of the user, who write by turns; the first with a resource of its own once in a while.
const CONTACTS: u64 = 500;
/// One message of that many is with a resource that is seldom there.
const SELDOM: u64 = 100_000;
/// How often each page is asked for, each time elsewhere.
const REPEATED: u64 = 50;
/// Messages that are being kept at the same time.
const AT_ONCE: u64 = 1_024;

fn user() -> BareJid {
    BareJid::new("juliet@example.com").unwrap()
}

fn id(number: u64) -> StanzaId {
    StanzaId::derived(b"bench", &[&number.to_be_bytes()])
}

fn stamp(number: u64) -> Timestamp {
    Timestamp::from_millis(number * 1_000)
}

fn contact(number: u64) -> Jid {
    let resource = if number % SELDOM == SELDOM / 2 { "seldom" } else { "phone" };
    Jid::new(&format!("contact{}@example.net/{resource}", number % CONTACTS)).unwrap()
}

/// A chat message of some 300 bytes.
fn message(number: u64) -> KeepMessage {
    let (user, peer) = (user(), contact(number));
    let body = "Wherefore art thou? ".repeat(4);
    let xml = format!(
        "<message xmlns='jabber:client' type='chat' id='{number}' from='{peer}' to='{user}'><body>{body}</body>\
         <origin-id xmlns='urn:xmpp:sid:0' id='{number:032}'/></message>"
    );
    let owner =
        KeepFor { owner: user, peer, outgoing: false, archive: Some(ArchiveDefault::Always), inbox: None };
    KeepMessage { name: None, id: id(number), stamp: stamp(number), xml: xml.into(), owners: vec![owner] }
}

/// A figure of this process in MiB.
fn memory(what: &str) -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(what)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(f64::NAN) / 1024.0
}

/// How much this process grows.
struct Growth(f64);

impl Growth {
    fn begin() -> Self {
        // The peak begins anew. Where the system does not let us, it is that of the whole run.
        let _ = fs::write("/proc/self/clear_refs", "5");
        Growth(memory("VmRSS"))
    }

    fn said(&self) -> String {
        format!("{:+.1} MiB at most", memory("VmHWM") - self.0)
    }
}

async fn fill(storage: &Storage, messages: u64) {
    let (start, grown) = (Instant::now(), Growth::begin());
    let mut number = 0;
    while number < messages {
        let some: Vec<_> =
            (number..messages.min(number + AT_ONCE)).map(|each| storage.keep(message(each))).collect();
        number += AT_ONCE;
        for kept in some {
            kept.await.unwrap();
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{messages} messages kept in {seconds:.1} s, {:.0}/s, {}",
        messages as f64 / seconds,
        grown.said()
    );
}

/// Asks for pages of a kind; the query is made from the number of the turn.
async fn pages(storage: &Storage, what: &str, query: impl Fn(u64) -> ArchiveQuery) {
    let grown = Growth::begin();
    let (mut all, mut slowest, mut found) = (Duration::ZERO, Duration::ZERO, 0);
    for turn in 0..REPEATED {
        let asked = query(turn);
        let begun = Instant::now();
        found += storage.archive.page(&user(), asked).await.unwrap().unwrap().messages.len();
        let took = begun.elapsed();
        (all, slowest) = (all + took, slowest.max(took));
    }
    let mean = all / u32::try_from(REPEATED).unwrap();
    let found = found as f64 / REPEATED as f64;
    println!("{what:<44} {found:>6.1} messages  mean {mean:>10.1?}  max {slowest:>10.1?}  {}", grown.said());
}

async fn walk(storage: &Storage, messages: u64) {
    let (start, grown) = (Instant::now(), Growth::begin());
    let (mut pages, mut seen, mut slowest) = (0_u32, 0, Duration::ZERO);
    let mut query = ArchiveQuery { limit: 250, ..ArchiveQuery::default() };
    loop {
        let begun = Instant::now();
        let page: ArchivePage = storage.archive.page(&user(), query.clone()).await.unwrap().unwrap();
        slowest = slowest.max(begun.elapsed());
        (pages, seen) = (pages + 1, seen + page.messages.len() as u64);
        match page.messages.last() {
            Some(last) if !page.complete => query.after = vec![last.id],
            _ => break,
        }
    }
    assert_eq!(seen, messages);
    let mean = start.elapsed() / pages;
    println!("all of it, {pages} pages of 250: mean {mean:.1?}, max {slowest:.1?}, {}", grown.said());
}

async fn back_up(storage: &Storage, file: &Path) {
    let (start, grown) = (Instant::now(), Growth::begin());
    let mut reader = storage.backups.clone().read_rows().await.unwrap();
    let head = Head {
        made: Timestamp::from_millis(0).to_xep0082(),
        release: String::new(),
        node: String::new(),
        domains: Vec::new(),
        format: FORMAT,
        index: None,
    };
    let mut writer = Writer::begin(BufWriter::new(File::create(file).unwrap()), &head).unwrap();
    while let Some(rows) = reader.next().await.unwrap() {
        writer.rows(&rows).unwrap();
    }
    let (out, totals) = writer.finish().unwrap();
    out.into_inner().unwrap().sync_all().unwrap();
    let (took, mib) = (start.elapsed(), totals.bytes >> 20);
    println!("backup of {} rows, {mib} MiB: {took:.1?}, {}", totals.rows, grown.said());
}

async fn restore(storage: &Storage, file: &Path) {
    let (start, grown) = (Instant::now(), Growth::begin());
    while !storage.backups.restore(1, RestoreStep::Begin).await.unwrap() {}
    let mut reader = Reader::open(BufReader::new(File::open(file).unwrap())).unwrap();
    while let Some(parts) = reader.next_rows().unwrap() {
        for rows in parts {
            storage.backups.restore(1, RestoreStep::Rows(rows)).await.unwrap();
        }
    }
    storage.backups.restore(1, RestoreStep::Finish).await.unwrap();
    println!("restored in {:.1?}, {}", start.elapsed(), grown.said());
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let messages = std::env::var("ALTHING_BENCH_MESSAGES").ok().map_or(100_000, |text| text.parse().unwrap());
    // In the target directory: a temporary directory may be in memory, where a flush costs nothing.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let storage = Storage::open_embedded(&dir.path().join("one"), EmbeddedOptions::default()).unwrap();
    let credentials = Credentials::derive("secret", 4096, [7; 16]).unwrap();
    let account = Account { credentials, created: Timestamp::from_millis(0) };
    storage.accounts.create(&user(), account).await.unwrap();
    fill(&storage, messages).await;

    let all = || ArchiveQuery { limit: 50, ..ArchiveQuery::default() };
    let somewhere = |turn: u64| messages / REPEATED * turn + messages / REPEATED / 2;
    pages(&storage, "the first page of 50", |_| all()).await;
    pages(&storage, "the last one", |_| ArchiveQuery { backwards: true, ..all() }).await;
    pages(&storage, "from a time on", |turn| ArchiveQuery { start: Some(stamp(somewhere(turn))), ..all() })
        .await;
    pages(&storage, "the last one until a time", |turn| ArchiveQuery {
        end: Some(stamp(somewhere(turn))),
        backwards: true,
        ..all()
    })
    .await;
    pages(&storage, "behind a message", |turn| ArchiveQuery { after: vec![id(somewhere(turn))], ..all() })
        .await;
    pages(&storage, "before a message", |turn| ArchiveQuery {
        before: vec![id(somewhere(turn))],
        backwards: true,
        ..all()
    })
    .await;
    let with = |turn: u64| Some(contact(turn).to_bare().into());
    pages(&storage, "with a contact", |turn| ArchiveQuery { with: with(turn), ..all() }).await;
    pages(&storage, "the last one with a contact until a time", |turn| ArchiveQuery {
        with: with(turn),
        end: Some(stamp(somewhere(turn))),
        backwards: true,
        ..all()
    })
    .await;
    pages(&storage, "with a resource that is seldom there", |_| ArchiveQuery {
        with: Some(contact(SELDOM / 2)),
        ..all()
    })
    .await;
    pages(&storage, "with one that never was", |turn| ArchiveQuery {
        with: Some(Jid::new(&format!("contact{turn}@example.net/never")).unwrap()),
        ..all()
    })
    .await;
    walk(&storage, messages).await;

    let file = dir.path().join("backup");
    // The first one fills the cache: what the second grows by is its own.
    for _ in 0..2 {
        back_up(&storage, &file).await;
    }
    println!("{} MiB on disk", storage.engine.size_on_disk().await.unwrap() >> 20);
    storage.close().await.unwrap();
    let other = Storage::open_embedded(&dir.path().join("other"), EmbeddedOptions::default()).unwrap();
    restore(&other, &file).await;
    println!("{} MiB on disk", other.engine.size_on_disk().await.unwrap() >> 20);
    walk(&other, messages).await;
    other.close().await.unwrap();
}
