//! Streams over a WebSocket (RFC 7395), as their messages stand on the wire, and the hostile ones.

// A test that cannot go on should say so; the lint lets only the test functions themselves do it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use althing_proto::stream::error::{StreamCondition, StreamError};
use althing_proto::stream::{Input, Transport};
use althing_proto::xml::Element;
use althing_proto::xml::limits::Limits;
use common::{AUTH_PLAIN, Shell, config, frame, spoken, tls};
use proptest::prelude::*;

const OPEN: &str = "<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='example.com' version='1.0'/>";
const CLOSE: &str = "<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>";
const BIND: &str = "<iq xmlns='jabber:client' type='set' id='b1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
     <resource>balcony</resource></bind></iq>";

fn say(shell: &mut Shell, message: &str) -> String {
    shell.feed(frame(0x81, message.as_bytes()))
}

fn fresh() -> Shell {
    Shell::new(config(), Transport::WebSocket(Some(tls())))
}

fn opened() -> Shell {
    let mut shell = fresh();
    say(&mut shell, OPEN);
    shell
}

fn established() -> Shell {
    let mut shell = opened();
    for message in [AUTH_PLAIN, OPEN, BIND] {
        say(&mut shell, message);
    }
    assert!(shell.machine.is_established());
    shell.told.clear();
    shell
}

#[test]
fn t1_open_plain_bind_stanzas_and_an_orderly_end() {
    let mut shell = fresh();
    let mut log = String::new();
    for message in [
        OPEN,
        AUTH_PLAIN,
        OPEN,
        BIND,
        "<?xml version='1.0'?><presence xmlns='jabber:client'/>",
        "<message xmlns='jabber:client' to='romeo@example.net'><body>Art thou not Romeo?</body></message>",
        "<iq xmlns='jabber:client' type='set' id='b2'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>",
        CLOSE,
    ] {
        let told = shell.told.len();
        let answer = say(&mut shell, message);
        log += &format!("C: {message}\n");
        for told in &shell.told[told..] {
            log += &format!("*: {told}\n");
        }
        for line in answer.lines() {
            log += &format!("S: {line}\n");
        }
    }
    assert!(shell.ended);
    insta::assert_snapshot!(log);
}

/// RFC 7395 §3.3.3: each message can be parsed by itself.
#[test]
fn whatever_is_sent_is_a_document() {
    let mut shell = established();
    shell.handle(Input::Fail(StreamError::from(StreamCondition::SystemShutdown)));
    let mut spoken = spoken(&shell.sent);
    assert_eq!(spoken.pop().as_deref(), Some("close 1000"));
    assert_eq!(spoken.len(), 8);
    for message in spoken {
        assert!(message.parse::<Element>().is_ok(), "{message}");
    }
}

/// RFC 7395 §3.9.
#[test]
fn starttls_is_never_offered() {
    let mut shell = Shell::new(config(), Transport::WebSocket(None));
    let features = say(&mut shell, OPEN);
    assert!(features.contains("<stream:features") && !features.contains("starttls"), "{features}");
    let answer = say(&mut shell, "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
    assert!(answer.starts_with("<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"), "{answer}");
    assert!(shell.ended && shell.told.is_empty());
}

#[test]
fn a_ping_is_answered_at_any_time() {
    let mut shell = opened();
    assert_eq!(shell.feed(frame(0x89, b"are you there")), "pong are you there");
    let mut shell = established();
    let bytes =
        [frame(0x01, b"<presence xmlns="), frame(0x89, b"1"), frame(0x80, b"'jabber:client'/>")].concat();
    assert_eq!(shell.feed(bytes), "pong 1");
    assert_eq!(shell.told, ["<presence/>"]);
}

#[test]
fn messages_that_break_the_rules_end_the_stream() {
    let presence = "<presence xmlns='jabber:client'/>";
    let long = format!("<message xmlns='jabber:client'><body>{}</body></message>", "x".repeat(11_000));
    type Begin = fn() -> Shell;
    let cases: [(Begin, Vec<u8>, &str, u16); 17] = [
        // One element, whole, from its first character on (§3.3.3).
        (established, frame(0x81, b" <presence xmlns='jabber:client'/>"), "bad-format", 1000),
        (established, frame(0x81, b" "), "bad-format", 1000),
        (established, frame(0x81, b""), "not-well-formed", 1000),
        (established, frame(0x81, b"<presence xmlns='jabber:client'>"), "not-well-formed", 1000),
        (established, frame(0x81, [presence, presence].concat().as_bytes()), "not-well-formed", 1000),
        (established, frame(0x81, format!("{presence}x").as_bytes()), "not-well-formed", 1000),
        (established, frame(0x81, b"</stream:stream>"), "not-well-formed", 1000),
        // No prefix is bound by a header.
        (established, frame(0x81, b"<stream:error/>"), "not-well-formed", 1000),
        (established, frame(0x81, b"<!DOCTYPE x><presence xmlns='jabber:client'/>"), "restricted-xml", 1000),
        (
            established,
            frame(0x81, b"<presence xmlns='jabber:client'>\xFF</presence>"),
            "unsupported-encoding",
            1007,
        ),
        (established, frame(0x82, presence.as_bytes()), "bad-format", 1003),
        (established, frame(0xC1, presence.as_bytes()), "bad-format", 1002),
        (established, frame(0x81, OPEN.as_bytes()), "bad-format", 1000),
        // Limits hold before the login as after it, and before the bytes are there.
        (opened, frame(0x81, long.as_bytes()), "policy-violation", 1009),
        (opened, frame(0x81, presence.as_bytes()), "not-authorized", 1000),
        (fresh, frame(0x81, presence.as_bytes()), "bad-format", 1000),
        (fresh, frame(0x81, OPEN.replace("example.com", "example.org").as_bytes()), "host-unknown", 1000),
    ];
    for (number, (shell, bytes, condition, code)) in cases.into_iter().enumerate() {
        let mut shell = shell();
        let sent = shell.feed(bytes);
        assert!(sent.contains(&format!("><{condition} ")), "{number}: {condition}: {sent}");
        assert!(sent.ends_with(&format!("{CLOSE}\nclose {code}")), "{number}: {sent}");
        assert!(shell.ended && shell.told.is_empty(), "{number}: {:?}", shell.told);
    }
    // Our <open/> first, also where the client's was wrong (§3.5).
    assert!(say(&mut fresh(), presence).starts_with("<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' id="));
    let mut shell = established();
    say(&mut shell, &long);
    assert_eq!(shell.told.len(), 1);
    assert!(long.len() > Limits::BEFORE_LOGIN.stanza_bytes);
}

/// RFC 7395 §3.6: a WebSocket that ends ends the stream; RFC 6455 §5.5.1: the code is given back.
#[test]
fn the_closing_handshake_goes_both_ways() {
    let mut shell = established();
    assert_eq!(shell.feed(frame(0x88, &1001_u16.to_be_bytes())), "close 1001");
    assert!(shell.ended && !shell.told.contains(&"stream closed".to_owned()));

    let mut shell = established();
    assert_eq!(shell.handle(Input::End), CLOSE);
    assert!(!shell.ended);
    assert_eq!(say(&mut shell, CLOSE), "close 1000");
    assert!(shell.ended);

    let mut shell = established();
    assert_eq!(shell.handle(Input::PeerClosed), "");
    assert!(shell.ended);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However the bytes are cut, by frames and by reads, the same is sent and told.
    #[test]
    fn t1_cuts_make_no_difference(
        frames in 1_usize..60,
        reads in 1_usize..60,
        all in prop::bool::ANY,
    ) {
        let script = [
            OPEN, AUTH_PLAIN, OPEN, BIND, "<presence xmlns='jabber:client'/>",
            "<message xmlns='jabber:client'><body>\u{e9}\u{1f600} &amp; co</body></message>", CLOSE,
        ];
        let mut whole = fresh();
        for message in script {
            say(&mut whole, message);
        }
        let mut bytes = Vec::new();
        for message in script {
            let pieces: Vec<&[u8]> = message.as_bytes().chunks(frames).collect();
            for (at, piece) in pieces.iter().enumerate() {
                let (first, last) = (at == 0, at + 1 == pieces.len());
                bytes.extend(frame(u8::from(first) | if last { 0x80 } else { 0 }, piece));
            }
        }
        let mut cut = fresh();
        for piece in bytes.chunks(if all { bytes.len() } else { reads }) {
            cut.feed(piece);
        }
        prop_assert_eq!(spoken(&whole.sent), spoken(&cut.sent));
        prop_assert_eq!(whole.told, cut.told);
        prop_assert!(whole.ended && cut.ended);
    }
}
