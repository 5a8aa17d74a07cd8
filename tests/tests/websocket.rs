//! Streams over WebSockets (RFC 7395) on a real node: the same sessions as over TCP, and the same patience with
//! hostile peers. Messages and frames in every form are tested in `proto`; browsers and libraries in `tests/clients`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "the whole file is a test")]

use std::time::Duration;

use althing_proto::ns;
use althing_tests::deadline::within;
use althing_tests::login::{Account, newcomer, register_at};
use althing_tests::node::TestNode;
use althing_tests::websocket::{Message, PATH, WebSocket, ask, connect, handshake_fields};
use minidom::Element;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn account(node: &TestNode, name: &str) -> Account {
    let account = Account::fresh(name);
    register_at(&node.endpoint(), &account).await.unwrap();
    account
}

fn is_message(element: &Element) -> bool {
    element.is("message", ns::CLIENT)
}

/// T11: a stanza is the same over TCP and over a WebSocket, both ways.
#[tokio::test]
async fn t11_a_websocket_and_a_tcp_stream_talk_to_each_other() {
    let node = TestNode::start("").await.unwrap();
    let endpoint = node.endpoint();
    let alice = account(&node, "alice").await;
    let mut web = WebSocket::open(&endpoint, true, "").await.unwrap();
    let jid = web.log_in(&alice).await.unwrap();
    let mut tcp = newcomer(&endpoint, "bob").await.unwrap();

    tcp.send(&format!("<message to='{jid}' id='1'><body>&lt;\u{e9}</body></message>")).await.unwrap();
    let message = web.element_until(is_message).await.unwrap();
    assert_eq!(message.attr("from"), Some(tcp.jid()));
    assert_eq!(message.get_child("body", ns::CLIENT).unwrap().text(), "<\u{e9}");

    let body = "x".repeat(70_000);
    let to = tcp.jid().to_owned();
    web.send(&format!("<message xmlns='jabber:client' to='{to}'><body>{body}</body></message>"))
        .await
        .unwrap();
    let message = tcp.recv_until(is_message).await.unwrap();
    assert_eq!(message.attr("from"), Some(jid.as_str()));
    assert_eq!(message.get_child("body", ns::CLIENT).unwrap().text(), body);

    web.send_frame(0x89, b"there?").await.unwrap();
    assert_eq!(web.recv().await.unwrap(), Message::Pong(b"there?".to_vec()));
    web.send(&format!("<close xmlns='{}'/>", ns::FRAMING)).await.unwrap();
    assert!(web.element().await.unwrap().is("close", ns::FRAMING));
    assert_eq!(web.recv().await.unwrap(), Message::Close(1000));
    assert_eq!(web.recv().await.unwrap(), Message::Eof);
}

#[tokio::test]
async fn the_end_of_the_server_is_an_end_in_order() {
    let mut node = TestNode::start("").await.unwrap();
    let alice = account(&node, "alice").await;
    let mut web = WebSocket::open(&node.endpoint(), true, "").await.unwrap();
    web.log_in(&alice).await.unwrap();
    let mut early = WebSocket::open(&node.endpoint(), true, "").await.unwrap();
    early.begin().await.unwrap();
    let ending = tokio::spawn(async move { node.terminate().await });
    for mut web in [web, early] {
        let error = web.element().await.unwrap();
        assert!(error.is("error", ns::STREAM) && error.has_child("system-shutdown", ns::STREAM_ERRORS));
        assert!(web.element().await.unwrap().is("close", ns::FRAMING));
        assert_eq!(web.recv().await.unwrap(), Message::Close(1000));
        assert_eq!(web.recv().await.unwrap(), Message::Eof);
    }
    assert!(ending.await.unwrap().unwrap());
}

/// A client that vanishes without a word is gone for its server too.
#[tokio::test]
async fn a_lost_connection_ends_the_session() {
    let node = TestNode::start("").await.unwrap();
    let alice = account(&node, "alice").await;
    let mut web = WebSocket::open(&node.endpoint(), true, "").await.unwrap();
    let jid = web.log_in(&alice).await.unwrap();
    let mut tcp = newcomer(&node.endpoint(), "bob").await.unwrap();
    web.send(&format!("<presence xmlns='jabber:client' to='{}'/>", tcp.jid())).await.unwrap();
    let from = |stanza: &Element| stanza.name() == "presence" && stanza.attr("from") == Some(&jid);
    assert_eq!(tcp.recv_until(from).await.unwrap().attr("type"), None);
    drop(web);
    assert_eq!(tcp.recv_until(from).await.unwrap().attr("type"), Some("unavailable"));
}

#[tokio::test]
async fn without_tls_nobody_logs_in_but_behind_a_proxy_that_has_it() {
    let node = TestNode::start("[web]\ntrusted_proxies = [\"127.0.0.0/8\"]\n").await.unwrap();
    let alice = account(&node, "alice").await;
    let mut plain = WebSocket::open(&node.endpoint(), false, "").await.unwrap();
    let features = plain.begin().await.unwrap();
    let offered: Vec<&str> = features.children().map(Element::name).collect();
    assert_eq!(offered, ["limits"], "no way to log in: {features:?}");
    let more = "X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\n";
    let mut proxied = WebSocket::open(&node.endpoint(), false, more).await.unwrap();
    proxied.log_in(&alice).await.unwrap();
}

/// The limit is the client's, not the proxy's.
#[tokio::test]
async fn clients_behind_a_proxy_are_counted_by_their_own_addresses() {
    let overlay = "[web]\ntrusted_proxies = [\"127.0.0.0/8\"]\n[limits]\nconnections_per_ip = 1\n";
    let node = TestNode::start(overlay).await.unwrap();
    let open = async |client: &str| {
        WebSocket::open(&node.endpoint(), false, &format!("X-Forwarded-For: {client}\r\n")).await
    };
    let first = open("203.0.113.9").await.unwrap();
    let refused = open("203.0.113.9").await.err().unwrap().to_string();
    assert!(refused.contains("HTTP/1.1 503 "), "{refused}");
    open("203.0.113.10").await.unwrap();
    drop(first);
    // Given back as soon as the node has seen the end.
    let again = async {
        while open("203.0.113.9").await.is_err() {}
        Ok(())
    };
    within("the place given back", Box::pin(again)).await.unwrap();
}

#[tokio::test]
async fn host_meta_says_where_the_websocket_is_and_nothing_else_is_seen() {
    let node = TestNode::start("").await.unwrap();
    let endpoint = node.endpoint();
    let (status, head, body) = ask(&endpoint, true, "/.well-known/host-meta", "").await.unwrap();
    assert_eq!(status, 200);
    assert!(head.contains("Access-Control-Allow-Origin: *"), "{head}");
    let xrd: Element = body[body.find("<XRD").unwrap()..].parse().unwrap();
    let link = xrd.children().next().unwrap();
    assert_eq!(link.attr("rel"), Some("urn:xmpp:alt-connections:websocket"));
    assert_eq!(link.attr("href"), Some("wss://localhost:5281/xmpp-websocket"));
    let (_, _, json) = ask(&endpoint, true, "/.well-known/host-meta.json", "").await.unwrap();
    assert!(json.contains("wss://localhost:5281/xmpp-websocket"), "{json}");
    for path in ["/metrics", "/readyz", "/livez", "/", "/xmpp-websocket/x"] {
        assert_eq!(ask(&endpoint, true, path, "").await.unwrap().0, 404, "{path}");
    }
    let evil = format!("{}Origin: https://evil.example\r\n", handshake_fields());
    assert_eq!(ask(&endpoint, true, PATH, &evil).await.unwrap().0, 403);
    let (_, metrics) = node.http("/metrics").await.unwrap();
    for (answer, count) in [("host_meta", 2), ("refused", 5), ("origin", 1)] {
        let line = format!("althing_web_requests_total{{answer=\"{answer}\"}} {count}\n");
        assert!(metrics.contains(&line), "{line}");
    }
}

/// T1 and the hostile: what is not finished in time is closed, whatever it is; what breaks the rules is told so.
#[tokio::test]
async fn slow_and_broken_requests_are_closed_in_time() {
    let node = TestNode::start("[limits]\nlogin_timeout_s = 2\n").await.unwrap();
    let endpoint = node.endpoint();
    // Nothing at all; half a request, slowly; a WebSocket without a word; a stream without a login.
    let mut waiting = Vec::new();
    waiting.push(connect(&endpoint, true).await.unwrap());
    let mut half = connect(&endpoint, true).await.unwrap();
    half.write_all(b"GET /xmpp-websocket HTTP/1.1\r\nHost: ").await.unwrap();
    waiting.push(half);
    for mut socket in waiting {
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(Duration::from_secs(8), socket.read_to_end(&mut rest)).await;
        assert!(closed.is_ok() && rest.is_empty());
    }
    let mut silent = WebSocket::open(&endpoint, true, "").await.unwrap();
    assert!(silent.element().await.unwrap().is("open", ns::FRAMING));
    assert!(silent.element().await.unwrap().has_child("connection-timeout", ns::STREAM_ERRORS));

    let mut large = connect(&endpoint, true).await.unwrap();
    large
        .write_all(&[b"GET / HTTP/1.1\r\nHost: a\r\nX: ".as_slice(), &[b'x'; 9_000]].concat())
        .await
        .unwrap();
    let mut answer = Vec::new();
    large.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 431 "));

    // A length of 2^40 is refused by its head.
    let mut huge = WebSocket::open(&endpoint, true, "").await.unwrap();
    huge.begin().await.unwrap();
    huge.send_bytes(&[0x81, 0xFF, 0, 0, 1, 0, 0, 0, 0, 0, 1, 2, 3, 4]).await.unwrap();
    assert!(huge.element().await.unwrap().has_child("policy-violation", ns::STREAM_ERRORS));
    assert!(huge.element().await.unwrap().is("close", ns::FRAMING));
    assert_eq!(huge.recv().await.unwrap(), Message::Close(1009));
}
