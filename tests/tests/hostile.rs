//! Hostile peers: each gets its named stream error or is closed in bounded time and memory, while another
//! client on the same node is served as if nothing were.

#![allow(clippy::unwrap_used, clippy::panic, reason = "the whole file is a test")]

mod corpus;

use std::time::{Duration, Instant};

use althing_proto::ns;
use althing_tests::client::{Client, condition_of};
use althing_tests::endpoint::Endpoint;
use althing_tests::login::{Account, connect, logged_in, newcomer, register_at};
use althing_tests::node::TestNode;
use althing_tests::script::parser::Security;
use althing_tests::stream::{Event, Stream, header_text};
use althing_tests::tls::Versions;
use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

use corpus::{Expected, Opening, Port};

/// Small, so that a slow sender is seen to be cut off.
const OVERLAY: &str = "[limits]\nlogin_timeout_s = 2\noutbox_bytes = 1048576\n";
/// No opening may hold a connection longer: the login timeout and generous room for a crowded machine.
const CLOSED_WITHIN: Duration = Duration::from_secs(8);
/// How much the process may have grown after the whole corpus.
const GROWTH: u64 = 64 << 20;
/// What the bystander may wait for a ping, at the 99th percentile.
const P99: Duration = Duration::from_millis(50);
/// Pings whose measurement says something about a 99th percentile.
const MIN_PINGS: usize = 500;

/// Pings from another client until told to stop; the round trips.
async fn bystander(mut client: Client, stop: watch::Receiver<bool>) -> Result<Vec<Duration>> {
    let mut trips = Vec::new();
    while !*stop.borrow() || trips.len() < MIN_PINGS {
        let start = Instant::now();
        client.ping().await?;
        trips.push(start.elapsed());
        // Not as fast as it can: the corpus should meet an idle node too.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(trips)
}

/// Plays one opening on a bare socket and tells what the server said: the condition of its stream error, or
/// nothing, in any case followed by the end of the connection.
async fn play(endpoint: &Endpoint, opening: &Opening) -> Result<Option<String>> {
    let address = match opening.port {
        Port::StartTls => endpoint.c2s,
        Port::DirectTls => endpoint.c2s_tls,
    };
    let (mut reader, mut writer) = TcpStream::connect(address).await?.into_split();
    let chunks = (opening.chunks)(&endpoint.domain);
    let writing = tokio::spawn(async move {
        for chunk in chunks {
            // The server may close in the middle: that is what it is here for.
            if writer.write_all(&chunk).await.is_err() {
                break;
            }
        }
        writer
    });
    let mut answer = Vec::new();
    let mut chunk = [0_u8; 4096];
    // A reset instead of an end still is one: the server does not read all that a hostile peer has to say.
    while let Ok(count @ 1..) = reader.read(&mut chunk).await {
        answer.extend_from_slice(&chunk[..count]);
        ensure!(answer.len() < 1 << 20, "the server answers without end");
    }
    writing.abort();
    let text = String::from_utf8_lossy(&answer);
    Ok(condition_in(&text))
}

/// The condition of the stream error in raw XML.
fn condition_in(text: &str) -> Option<String> {
    let error = &text[text.find("<stream:error")?..];
    let end = error.find("/>").or_else(|| error.find("</"))?;
    let name = error[..end].rsplit('<').next()?;
    Some(name.split([' ', '>', '/']).next().unwrap_or_default().to_owned())
}

async fn check(endpoint: &Endpoint, opening: &Opening) -> Result<()> {
    let said = tokio::time::timeout(CLOSED_WITHIN, play(endpoint, opening))
        .await
        .with_context(|| format!("still open after {CLOSED_WITHIN:?}"))??;
    match opening.expected {
        Expected::Closed => Ok(()),
        Expected::Error(names) => {
            let said = said.unwrap_or_else(|| "nothing".to_owned());
            ensure!(names.contains(&said.as_str()), "expected one of {names:?}, the server said {said}");
            Ok(())
        }
    }
}

/// The whole corpus, one after another and then all at once, beside a client that measures.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_openings_are_refused_and_nobody_else_notices() {
    let mut node = TestNode::start(OVERLAY).await.unwrap();
    let endpoint = node.endpoint();
    let client = newcomer(&endpoint, "bystander").await.unwrap();
    let (stop, stopped) = watch::channel(false);
    let measuring = tokio::spawn(bystander(client, stopped));
    let before = node.resident().unwrap();

    let mut failures = Vec::new();
    for opening in corpus::ALL {
        if let Err(error) = check(&endpoint, opening).await {
            failures.push(format!("{}: {error:#}", opening.name));
        }
    }
    let all = corpus::ALL.iter().map(|opening| {
        let endpoint = endpoint.clone();
        tokio::spawn(async move { check(&endpoint, opening).await })
    });
    for (opening, result) in corpus::ALL.iter().zip(futures_util::future::join_all(all).await) {
        if let Err(error) = result.unwrap() {
            failures.push(format!("{}, with all others: {error:#}", opening.name));
        }
    }

    stop.send(true).unwrap();
    let mut trips = measuring.await.unwrap().unwrap();
    trips.sort();
    let p99 = trips[trips.len() * 99 / 100];
    let after = node.resident().unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(node.is_alive(), "the node is gone");
    assert!(after < before + GROWTH, "resident memory grew from {before} to {after} bytes");
    assert!(p99 < P99, "p99 of {} pings was {p99:?}, the worst {:?}", trips.len(), trips[trips.len() - 1]);
}

/// What a hostile client does after it has logged in, and the error it gets.
async fn after_login(endpoint: &Endpoint, text: &str) -> String {
    let account = Account::fresh("hostile");
    register_at(endpoint, &account).await.unwrap();
    let (stream, jid) = logged_in(endpoint, &account, None, Security::StartTls).await.unwrap();
    let mut client = Client::new(stream, jid);
    // The server may close before it has read everything.
    let _ = client.send(text).await;
    client.expect_stream_error().await.unwrap()
}

#[tokio::test]
async fn hostile_clients_are_cut_off_after_login_too() {
    let node = TestNode::start(OVERLAY).await.unwrap();
    let endpoint = node.endpoint();
    let long = "x".repeat(300 * 1024);
    let deep = "<a>".repeat(1000);
    let wide: String = (0..1000).map(|index| format!(" a{index}=''")).collect();
    let many = "<a/>".repeat(10_000);
    let cases = [
        (
            "a stanza of 300 KiB",
            format!("<message to='x@localhost'><body>{long}</body></message>"),
            "policy-violation",
        ),
        ("1,000 deep", format!("<message>{deep}"), "policy-violation"),
        ("1,000 attributes", format!("<message{wide}/>"), "policy-violation"),
        ("10,000 children", format!("<message>{many}</message>"), "policy-violation"),
        ("a forged sender", "<message from='admin@localhost' to='x@localhost'/>".to_owned(), "invalid-from"),
        ("a comment", "<message><!-- --></message>".to_owned(), "restricted-xml"),
        ("a processing instruction", "<message><?php?></message>".to_owned(), "restricted-xml"),
        ("an entity", "<message><body>&lol;</body></message>".to_owned(), "restricted-xml"),
        ("crossed tags", "<message><body></message></body>".to_owned(), "not-well-formed"),
        ("an attribute twice", "<message to='a' to='b'/>".to_owned(), "not-well-formed"),
        (
            "an unknown first-level child",
            "<letter xmlns='urn:example:post'/>".to_owned(),
            "unsupported-stanza-type",
        ),
    ];
    for (name, text, expected) in cases {
        assert_eq!(after_login(&endpoint, &text).await, expected, "{name}");
    }
}

/// CVE-2011-0411 and its kin: what came before the handshake must not count as said under TLS.
#[tokio::test]
async fn bytes_pipelined_after_starttls_are_not_obeyed() {
    let node = TestNode::start(OVERLAY).await.unwrap();
    let endpoint = node.endpoint();
    let mut stream = Stream::connect(&endpoint, Security::Plain, Versions::Any).await.unwrap();
    stream.header().await.unwrap();
    let injected = format!("<starttls xmlns='{}'/>{}<evil/>", ns::TLS, header_text(&endpoint.domain));
    stream.send(&injected).await.unwrap();
    loop {
        match stream.event().await.unwrap() {
            Event::Element(element) if element.is("error", ns::STREAM) => {
                assert_ne!(condition_of(&element), "no condition");
            }
            Event::Element(element) => assert!(!element.is("proceed", ns::TLS), "the server went on to TLS"),
            Event::Header(_) => panic!("the server obeyed what came before the handshake"),
            Event::End | Event::Eof => break,
        }
    }
}

/// A message to `jid` that is large enough to fill buffers soon.
fn large_message(jid: &str, number: usize) -> String {
    let body = "x".repeat(16 * 1024);
    format!("<message to='{jid}' type='chat' id='{number}'><body>{body}</body></message>")
}

/// A client that is sent to and never reads: it is closed after `outbox_stall_s`, costs little until then, and
/// the one that writes to it is held up no longer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_never_reads_costs_little() {
    const FLOOD: usize = 64 << 20;
    let node = TestNode::start(&format!("{OVERLAY}outbox_stall_s = 2\n")).await.unwrap();
    let endpoint = node.endpoint();
    let sleeper = Account::fresh("sleeper");
    register_at(&endpoint, &sleeper).await.unwrap();
    let (mut sleeping, jid) = logged_in(&endpoint, &sleeper, Some("deaf"), Security::StartTls).await.unwrap();
    let mut sender = newcomer(&endpoint, "flood").await.unwrap();
    let before = node.resident().unwrap();

    let message = large_message(&jid, 0).replace("'chat'", "'headline'");
    for _ in 0..FLOOD / message.len() {
        sender.send(&message).await.unwrap();
    }
    sender.ping().await.unwrap();
    let after = node.resident().unwrap();
    assert!(after < before + GROWTH, "resident memory grew from {before} to {after} bytes");

    // What the network still holds comes, then the end.
    let mut received = 0;
    loop {
        match sleeping.event().await {
            Ok(Event::Element(element)) if element.name() == "message" => received += message.len(),
            Ok(Event::Element(_) | Event::Header(_)) => {}
            // The end may cut a record of TLS in two.
            Ok(Event::End | Event::Eof) | Err(_) => break,
        }
    }
    assert!(received < FLOOD / 2, "{received} bytes of {FLOOD} were kept for it");
    // The account is not harmed.
    logged_in(&endpoint, &sleeper, Some("deaf"), Security::StartTls).await.unwrap();
}

/// Messages to one that reads late.
const MESSAGES: usize = 2_000;

/// A client that reads late, but reads: its sender is slowed down to its pace, and nothing is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reads_late_gets_everything_in_order() {
    let node = TestNode::start(OVERLAY).await.unwrap();
    let endpoint = node.endpoint();
    let late = Account::fresh("late");
    register_at(&endpoint, &late).await.unwrap();
    let (reading, jid) = logged_in(&endpoint, &late, Some("slow"), Security::StartTls).await.unwrap();
    reads_late(&endpoint, jid, reading).await;
}

/// The same where another client of the account reads all the time: neither is closed, neither misses anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reads_late_is_waited_for_beside_one_that_reads() {
    let node = TestNode::start(OVERLAY).await.unwrap();
    let endpoint = node.endpoint();
    let late = Account::fresh("late");
    register_at(&endpoint, &late).await.unwrap();
    let (mut slow, jid) = logged_in(&endpoint, &late, Some("slow"), Security::StartTls).await.unwrap();
    slow.send("<presence/>").await.unwrap();
    assert!(matches!(slow.event().await.unwrap(), Event::Element(own) if own.name() == "presence"));
    let mut fast = connect(&endpoint, &late, "fast").await.unwrap();
    fast.come_online().await.unwrap();
    let account = jid.split('/').next().unwrap().to_owned();
    let beside = tokio::spawn(async move {
        for _ in 0..MESSAGES {
            fast.recv_until(|element| element.name() == "message").await.unwrap();
        }
    });
    reads_late(&endpoint, account, slow).await;
    beside.await.unwrap();
}

/// Somebody writes to `jid` as fast as it goes, and the client `reading` begins to read when he is held up.
async fn reads_late(endpoint: &Endpoint, jid: String, mut reading: Stream) {
    let mut sender = newcomer(endpoint, "fast").await.unwrap();

    let (sent, mut progress) = watch::channel(0);
    let sending = tokio::spawn(async move {
        for number in 0..MESSAGES {
            sender.send(&large_message(&jid, number)).await.unwrap();
            sent.send_replace(number + 1);
        }
        sender
    });
    // Once the sender is held up, for no buffer takes more, the reader begins.
    while tokio::time::timeout(Duration::from_millis(400), progress.changed()).await.is_ok_and(|r| r.is_ok())
    {
    }
    assert!(*progress.borrow() < MESSAGES, "the sender was never held up: send more");

    for number in 0..MESSAGES {
        loop {
            if let Event::Element(element) = reading.event().await.unwrap()
                && element.name() == "message"
            {
                assert_eq!(element.attr("id"), Some(number.to_string().as_str()));
                break;
            }
        }
    }
    sending.await.unwrap().ping().await.unwrap();
}
