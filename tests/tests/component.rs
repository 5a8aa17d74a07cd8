//! External components from outside: over TLS, when they read nothing, when there are too many, when the node stops.

#![allow(clippy::unwrap_used, clippy::panic, reason = "the whole file is a test")]

use std::time::Duration;

use althing_proto::ns;
use althing_tests::client::{Client, condition_of, stanza_error};
use althing_tests::component::{Component, answer_to};
use althing_tests::login::newcomer;
use althing_tests::node::TestNode;
use althing_tests::setup::COMPONENT_SECRET;
use althing_tests::stream::Event;

const GATEWAY: &str = "gateway.localhost";
const BOTS: &str = "bots.localhost";

fn message(to: &str, id: usize, bytes: usize) -> String {
    format!("<message to='{to}' id='m{id}'><body>{}</body></message>", "x".repeat(bytes))
}

/// What ends the stream: the condition of an error, or nothing.
async fn end(component: &mut Component) -> Option<String> {
    loop {
        match component.event().await.unwrap() {
            Event::Element(element) if element.is("error", ns::STREAM) => {
                return Some(condition_of(&element));
            }
            Event::End | Event::Eof => return None,
            Event::Element(_) | Event::Header(_) => {}
        }
    }
}

async fn is_told(client: &mut Client, component: &mut Component) {
    client.send(&message(component.domain(), 7, 10)).await.unwrap();
    let got = component.element().await.unwrap();
    assert_eq!((got.name(), got.attr("from")), ("message", Some(client.jid())));
}

/// T11: the same over plain TCP and TLS.
#[tokio::test]
async fn t11_a_component_attaches_over_tls_as_in_clear_text() {
    let node = TestNode::start("").await.unwrap();
    let endpoint = node.endpoint();
    let mut alice = newcomer(&endpoint, "alice").await.unwrap();
    for (domain, secure) in [(GATEWAY, true), (BOTS, false)] {
        let mut component = Component::attach_over(&endpoint, domain, secure).await.unwrap();
        is_told(&mut alice, &mut component).await;
    }
}

/// XEP-0114 §3: what is wrong with a handshake, told as the specification names it; a good one later works.
#[tokio::test]
async fn wrong_handshakes_are_refused_by_name() {
    let node = TestNode::start("[components]\nhandshake_timeout_s = 2\n").await.unwrap();
    let endpoint = node.endpoint();
    let (mut wrong, id) = Component::open(&endpoint, GATEWAY).await.unwrap();
    wrong.send(&format!("<handshake>{}</handshake>", answer_to(&format!("{id}x")))).await.unwrap();
    assert_eq!(end(&mut wrong).await.as_deref(), Some("not-authorized"));
    let (mut early, _) = Component::open(&endpoint, GATEWAY).await.unwrap();
    early.send(&format!("<message from='{GATEWAY}' to='a@localhost'/>")).await.unwrap();
    assert_eq!(end(&mut early).await.as_deref(), Some("not-authorized"));
    let (mut stranger, _) = Component::open(&endpoint, "stranger.localhost").await.unwrap();
    assert_eq!(end(&mut stranger).await.as_deref(), Some("host-unknown"));
    let (mut silent, _) = Component::open(&endpoint, GATEWAY).await.unwrap();
    assert_eq!(end(&mut silent).await.as_deref(), Some("connection-timeout"));
    Component::attach(&endpoint, GATEWAY).await.unwrap();
    let (_, metrics) = node.http("/metrics").await.unwrap();
    for line in ["result=\"attached\"} 1", "result=\"not_authorized\"} 2", "result=\"refused\"} 2"] {
        assert!(
            metrics.contains(&format!("althing_component_handshakes_total{{{line}")),
            "{line} in {metrics}"
        );
    }
    assert!(!node.log().contains("known to all tests"), "the secret is in the log");
}

/// T2, T13: a component that reads nothing: what waits for it is bounded, who writes to it is told, others are not
/// delayed, and it is closed in time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t2_t13_a_component_that_never_reads_is_told_of_and_closed() {
    const LARGE: usize = 100_000;
    let overlay = "[components]\ninbox_stanzas = 16\n[limits]\noutbox_stall_s = 8\n";
    let node = TestNode::start(overlay).await.unwrap();
    let endpoint = node.endpoint();
    let mut deaf = Component::attach(&endpoint, GATEWAY).await.unwrap();
    let mut bots = Component::attach(&endpoint, BOTS).await.unwrap();
    let mut alice = newcomer(&endpoint, "alice").await.unwrap();
    let mut bob = newcomer(&endpoint, "bob").await.unwrap();
    // More than sockets and inbox hold: each is slowed down, so the last are refused after a while.
    let mut refused = false;
    for number in 0.. {
        assert!(number < 1_000, "nothing was refused");
        alice.send(&message(GATEWAY, number, LARGE)).await.unwrap();
        if number % 8 == 0 {
            is_told(&mut bob, &mut bots).await;
        }
        while let Some(Event::Element(answer)) = alice.event_now().unwrap() {
            assert_eq!(stanza_error(&answer).unwrap(), "resource-constraint");
            refused = true;
        }
        if refused {
            break;
        }
    }
    is_told(&mut bob, &mut bots).await;
    let metrics = async {
        loop {
            let (_, metrics) = node.http("/metrics").await.unwrap();
            if metrics.contains("althing_slow_consumers_total 1") {
                return metrics;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let metrics = tokio::time::timeout(Duration::from_secs(30), metrics).await.expect("it is not closed");
    assert!(!metrics.contains("althing_component_inbox_full_total 0"), "{metrics}");
    // What the network holds comes; the end may cut a stanza in two.
    tokio::time::timeout(Duration::from_secs(30), async {
        while let Ok(Event::Element(_) | Event::Header(_)) = deaf.event().await {}
    })
    .await
    .unwrap();
    // Nobody is attached any more: what waited has come back, and so does what comes now.
    alice.send(&message(GATEWAY, 10_000, 1)).await.unwrap();
    let last = alice.recv_until(|stanza| stanza.attr("id") == Some("m10000")).await.unwrap();
    assert_eq!(stanza_error(&last).unwrap(), "service-unavailable");
}

/// The end of the stream in the same bytes as the handshake: nobody is attached afterwards, though the socket stays open.
#[tokio::test]
async fn who_ends_right_behind_the_handshake_is_not_attached() {
    let node = TestNode::start("").await.unwrap();
    let endpoint = node.endpoint();
    let mut alice = newcomer(&endpoint, "alice").await.unwrap();
    let (mut gateway, id) = Component::open(&endpoint, GATEWAY).await.unwrap();
    let last = format!("<message from='x@{GATEWAY}' to='{}'/>", alice.jid());
    gateway.send(&format!("<handshake>{}</handshake>{last}</stream:stream>", answer_to(&id))).await.unwrap();
    let Event::Element(answer) = gateway.event().await.unwrap() else { panic!("no answer") };
    assert!(answer.is("handshake", ns::CLIENT));
    assert_eq!(end(&mut gateway).await, None);
    assert_eq!(alice.recv().await.unwrap().attr("from"), Some(format!("x@{GATEWAY}").as_str()));
    alice.send(&message(GATEWAY, 1, 10)).await.unwrap();
    assert_eq!(stanza_error(&alice.recv().await.unwrap()).unwrap(), "service-unavailable");
}

/// Whoever holds a connection half open does not survive the rotation of a secret, nor does who is attached with the old
/// one; and the change of the file is told, though no key has another value.
#[tokio::test]
async fn t15_another_secret_ends_whoever_has_shown_the_old_one() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("secret");
    std::fs::write(&file, COMPONENT_SECRET).unwrap();
    let external = |domain: &str| {
        format!("[[components.external]]\ndomain = \"{domain}\"\nsecret_file = \"{}\"\n", file.display())
    };
    let mut node = TestNode::start(&external(GATEWAY)).await.unwrap();
    let endpoint = node.endpoint();
    let mut attached = Component::attach(&endpoint, GATEWAY).await.unwrap();
    let (mut waits, id) = Component::open(&endpoint, GATEWAY).await.unwrap();
    let (_, said) = node.reload().await.unwrap();
    assert!(!said.contains("components.external"), "{said}");
    is_told(&mut newcomer(&endpoint, "alice").await.unwrap(), &mut attached).await;

    std::fs::write(&file, "another secret, known to nobody yet").unwrap();
    let (code, said) = node.reload().await.unwrap();
    assert_eq!(code, 0, "{said}");
    assert!(said.starts_with("in force now: components.external\n"), "{said}");
    assert_eq!(end(&mut attached).await.as_deref(), Some("reset"));
    waits.send(&format!("<handshake>{}</handshake>", answer_to(&id))).await.unwrap();
    assert_eq!(end(&mut waits).await.as_deref(), Some("not-authorized"));

    std::fs::write(&file, COMPONENT_SECRET).unwrap();
    node.reload().await.unwrap();
    let (mut waits, id) = Component::open(&endpoint, GATEWAY).await.unwrap();
    node.rewrite(&external(BOTS)).unwrap();
    assert_eq!(node.reload().await.unwrap().0, 0);
    waits.send(&format!("<handshake>{}</handshake>", answer_to(&id))).await.unwrap();
    assert_eq!(end(&mut waits).await.as_deref(), Some("host-unknown"));
}

/// A node that stops tells its components, and one more than may connect is closed at once.
#[tokio::test]
async fn components_are_told_of_the_nodes_end_and_their_number_is_bounded() {
    let mut node = TestNode::start("[components]\nconnections = 1\n").await.unwrap();
    let endpoint = node.endpoint();
    let mut gateway = Component::attach(&endpoint, GATEWAY).await.unwrap();
    assert!(Component::open(&endpoint, BOTS).await.is_err());
    let stopping = tokio::spawn(async move {
        assert!(node.terminate().await.unwrap(), "it did not end in order");
    });
    assert_eq!(end(&mut gateway).await.as_deref(), Some("system-shutdown"));
    stopping.await.unwrap();
}
