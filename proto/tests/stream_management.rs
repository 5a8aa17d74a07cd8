//! XEP-0198 in the stream machine: what comes too early, a stream that is resumed, one that is not.

// A test that cannot go on should say so; the lint lets only the test functions themselves do it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use althing_proto::stream::management::{Count, TooHigh};
use althing_proto::stream::{ResumeError, Transport};
use common::{AUTH_PLAIN, BIND, Shell, config, established, frame, logged_in, secure, tls};

const ENABLE: &str = "<enable xmlns='urn:xmpp:sm:3' resume='true'/>";
const RESUME: &str = "<resume xmlns='urn:xmpp:sm:3' h='3' previd='some&apos;id'/>";

fn failed(condition: &str) -> String {
    format!(
        "<failed xmlns='urn:xmpp:sm:3'><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>"
    )
}

/// §3: "The server SHALL enforce this order and return a <failed/> element".
#[test]
fn what_comes_too_early_fails_and_can_be_done_later() {
    let mut shell = secure();
    for early in [ENABLE, RESUME] {
        assert_eq!(shell.feed(early), failed("unexpected-request"));
    }
    assert!(shell.feed(AUTH_PLAIN).contains("<success"));
    shell.feed(common::HEADER);
    assert_eq!(shell.feed(ENABLE), failed("unexpected-request"));
    assert_eq!(shell.feed("<resume xmlns='urn:xmpp:sm:3' h='3'/>"), failed("bad-request"));
    shell.feed(BIND);
    assert!(shell.machine.is_established());
}

#[test]
fn acks_before_a_bind_end_the_stream() {
    for element in ["<r xmlns='urn:xmpp:sm:3'/>", "<a xmlns='urn:xmpp:sm:3' h='0'/>"] {
        for mut shell in [secure(), logged_in()] {
            assert!(shell.feed(element).contains("<unsupported-stanza-type"));
            assert!(shell.ended);
        }
    }
}

#[test]
fn who_never_stops_failing_is_closed() {
    let mut shell = logged_in();
    let answers = shell.feed(ENABLE.repeat(30));
    assert_eq!(answers.matches("<failed").count(), 20);
    assert!(answers.contains("<policy-violation") && shell.ended);
}

/// What follows in the same bytes waits for the answer, and is the resumed stream's.
#[test]
fn a_resumed_stream_goes_on_with_what_follows() {
    let mut shell = logged_in();
    let answer = shell.feed(format!("{RESUME}<r xmlns='urn:xmpp:sm:3'/><presence/>"));
    assert_eq!(answer, "<resumed xmlns='urn:xmpp:sm:3' h='7' previd='some&apos;id'/>");
    assert_eq!(shell.machine.jid().unwrap().as_str(), "juliet@example.com/orchard");
    assert_eq!(shell.told[0], "resume some'id from 3");
    assert_eq!(shell.told[1..], ["<r xmlns='urn:xmpp:sm:3'/>", "<presence/>"]);
}

/// §5: "the server SHOULD allow the client to bind a resource at this point".
#[test]
fn where_nothing_is_resumed_a_bind_may_follow() {
    for (error, answer) in [
        (ResumeError::Unknown { handled: None }, failed("item-not-found")),
        (
            ResumeError::Unknown { handled: Some(Count(9)) },
            failed("item-not-found").replace("sm:3'", "sm:3' h='9'"),
        ),
        (ResumeError::Unsupported, failed("feature-not-implemented")),
    ] {
        let mut shell = logged_in();
        shell.resume_error = Some(error);
        let answers = shell.feed(format!("{RESUME}{BIND}"));
        assert!(answers.starts_with(&answer), "{answers}");
        assert!(shell.machine.is_established());
    }
}

/// A client that is told `<failed/>` gives its stream up, and does not know what of it is handled.
#[test]
fn one_whose_stream_may_still_be_there_is_to_come_again() {
    let mut shell = logged_in();
    shell.resume_error = Some(ResumeError::Unavailable);
    let answer = shell.feed(RESUME);
    assert!(
        answer.contains("<resource-constraint xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>"),
        "{answer}"
    );
    assert!(!answer.contains("<failed "), "{answer}");
    assert!(shell.ended);
}

/// §6, with the text before it, as RFC 6120 §4.9.2 orders them.
#[test]
fn one_who_acknowledges_too_much_is_told_how_much_it_was_sent() {
    let mut shell = logged_in();
    shell.resume_error = Some(ResumeError::TooHigh(TooHigh { handled: Count(10), sent: Count(8) }));
    let answer = shell.feed(RESUME);
    assert!(
        answer.contains("<undefined-condition xmlns='urn:ietf:params:xml:ns:xmpp-streams'/><text"),
        "{answer}"
    );
    assert!(answer.contains("<handled-count-too-high xmlns='urn:xmpp:sm:3' h='10' send-count='8'/>"));
    assert!(shell.ended);
}

/// What a bound client says is its session's to answer, a second `<enable/>` too.
#[test]
fn a_bound_clients_elements_are_its_sessions() {
    let mut shell = established();
    let a = "<a xmlns='urn:xmpp:sm:3' h='0'/>";
    assert_eq!(shell.feed(format!("{ENABLE}{RESUME}{a}")), "");
    assert_eq!(shell.told, [ENABLE, RESUME, a]);
}

#[test]
fn t1_over_a_websocket_each_is_a_message() {
    let mut shell = Shell::new(config(), Transport::WebSocket(Some(tls())));
    let mut say = |text: &str| shell.feed(frame(0x81, text.as_bytes()));
    let open = "<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='example.com' version='1.0'/>";
    say(open);
    assert_eq!(say(ENABLE), failed("unexpected-request"));
    assert!(say(AUTH_PLAIN).contains("<success"));
    say(open);
    assert_eq!(say(RESUME), "<resumed xmlns='urn:xmpp:sm:3' h='7' previd='some&apos;id'/>");
    assert_eq!(say("<r xmlns='urn:xmpp:sm:3'/>"), "");
    assert_eq!(shell.told.last().unwrap(), "<r xmlns='urn:xmpp:sm:3'/>");
}
