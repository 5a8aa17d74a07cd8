//! Reading and writing of one socket: they are scheduled apart, and the end of either is seen at once. Tigase had a thread
//! and a lock for it; here the task of the connection is the only one that has the reading half, and the writer the only
//! one that has the other, so that neither waits for the other.

#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

use std::time::Duration;

use althing_tests::client::Client;
use althing_tests::endpoint::Endpoint;
use althing_tests::login::{Account, logged_in, newcomer, register_at};
use althing_tests::node::TestNode;
use althing_tests::script::parser::Security;
use althing_tests::stream::{Event, Stream};
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Nobody is closed for reading too slowly while a test runs.
const OVERLAY: &str = "[limits]\noutbox_stall_s = 3600\nclient_ping_s = 3600\n";

/// A client that reads only when it is told to.
async fn deaf(endpoint: &Endpoint) -> (Stream, String) {
    let account = Account::fresh("deaf");
    register_at(endpoint, &account).await.unwrap();
    logged_in(endpoint, &account, Some("r"), Security::DirectTls).await.unwrap()
}

/// Writes to `to` until nothing goes any further: all buffers on the way are full.
async fn fill(endpoint: &Endpoint, to: &str) -> JoinHandle<()> {
    let mut sender = newcomer(endpoint, "flood").await.unwrap();
    let (to, body) = (to.to_owned(), "x".repeat(16_000));
    let (sent, mut progress) = watch::channel(0_usize);
    let sending = tokio::spawn(async move {
        loop {
            let message = format!("<message to='{to}' type='headline'><body>{body}</body></message>");
            if sender.send(&message).await.is_err() {
                return;
            }
            sent.send_modify(|count| *count += 1);
        }
    });
    while tokio::time::timeout(Duration::from_millis(400), progress.changed()).await.is_ok_and(|r| r.is_ok())
    {
    }
    sending
}

/// T4: to whom nothing can be written is read from all the same, and its requests are handled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t4_who_reads_nothing_is_read_from() {
    let node = TestNode::start(OVERLAY).await.unwrap();
    let endpoint = node.endpoint();
    let (mut deaf, jid) = deaf(&endpoint).await;
    let mut carol = newcomer(&endpoint, "carol").await.unwrap();
    let sending = fill(&endpoint, &jid).await;
    for number in 0..10 {
        let to = carol.jid().to_owned();
        deaf.send(&format!("<message to='{to}' id='m{number}'><body>still here</body></message>"))
            .await
            .unwrap();
        let message = carol.recv_until(|stanza| stanza.name() == "message").await.unwrap();
        assert_eq!(message.attr("id"), Some(format!("m{number}").as_str()));
    }
    sending.abort();
}

/// T10: the end of a peer is seen at once, also while what is to be written to it cannot be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t10_the_close_of_a_peer_that_reads_nothing_is_seen_at_once() {
    let node = TestNode::start(OVERLAY).await.unwrap();
    let endpoint = node.endpoint();
    let (mut deaf, jid) = deaf(&endpoint).await;
    let mut carol = newcomer(&endpoint, "carol").await.unwrap();
    let to = carol.jid().to_owned();
    deaf.send(&format!("<presence to='{to}'/>")).await.unwrap();
    carol.recv_until(|stanza| stanza.name() == "presence").await.unwrap();
    let sending = fill(&endpoint, &jid).await;
    // It goes without a word, and without having read.
    let (mut socket, ..) = deaf.into_parts();
    socket.shutdown().await.unwrap();
    let gone = carol.recv_until(|stanza| stanza.attr("type") == Some("unavailable")).await.unwrap();
    assert_eq!(gone.attr("from"), Some(jid.as_str()));
    sending.abort();
}

/// T10: what waits to be written is written before the stream ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t10_what_waits_is_written_before_the_end() {
    const MESSAGES: usize = 500;
    let node = TestNode::start(OVERLAY).await.unwrap();
    let endpoint = node.endpoint();
    let (mut deaf, jid) = deaf(&endpoint).await;
    let mut bob: Client = newcomer(&endpoint, "bob").await.unwrap();
    // The first one waits until it is known that nothing has to come before it; what comes later does not.
    bob.send(&format!("<message to='{jid}' id='first'><body>hello</body></message>")).await.unwrap();
    while !matches!(deaf.event().await.unwrap(), Event::Element(message) if message.attr("id") == Some("first"))
    {
    }
    for number in 0..MESSAGES {
        bob.send(&format!("<message to='{jid}' id='{number}'><body>hello</body></message>")).await.unwrap();
    }
    // Handled behind them, and answered by the one who has not read yet: all of them are in its outbox.
    let to = bob.jid().to_owned();
    bob.ping().await.unwrap();
    deaf.send(&format!("<message to='{to}' id='last'><body>bye</body></message></stream:stream>"))
        .await
        .unwrap();
    bob.recv_until(|stanza| stanza.attr("id") == Some("last")).await.unwrap();
    let mut ids = Vec::new();
    loop {
        match deaf.event().await.unwrap() {
            Event::Element(element) => ids.extend(element.attr("id").map(str::to_owned)),
            Event::Header(_) => {}
            Event::End | Event::Eof => break,
        }
    }
    assert_eq!(ids, (0..MESSAGES).map(|number| number.to_string()).collect::<Vec<_>>());
}
