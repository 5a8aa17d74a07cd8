//! Whole conversations, as they stand on the wire, and the hostile ones.

// A test that cannot go on should say so; the lint lets only the test functions themselves do it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use althing_proto::stream::error::{StreamCondition, StreamError};
use althing_proto::stream::{
    Action, BindError, Input, MAX_WAITING_BYTES, StreamConfig, StreamMachine, Transport,
};
use althing_proto::xml::limits::Limits;
use common::{AUTH_PLAIN, BIND, HEADER, START, Shell, config, established, logged_in, secure, tls};
use proptest::prelude::*;

const STARTTLS: &str = "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";
const ABORT: &str = "<abort xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>";
const RESPONSE: &str = "<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>AAAA</response>";
const REGISTER: &str = "<iq type='get' id='r1'><query xmlns='jabber:iq:register'/></iq>";

/// Plays the client's lines; gives the conversation, a line for each side's turn.
fn converse(mut shell: Shell, lines: &[&str]) -> String {
    let mut log = String::new();
    for line in lines {
        let told = shell.told.len();
        let answer = shell.feed(line);
        log += &format!("C: {line}\n");
        for told in &shell.told[told..] {
            log += &format!("*: {told}\n");
        }
        if !answer.is_empty() {
            log += &format!("S: {answer}\n");
        }
    }
    if shell.ended {
        log += "S closes the connection\n";
    }
    log
}

fn plain() -> Shell {
    Shell::new(config(), Transport::Plain)
}

fn open_house() -> Shell {
    let config = StreamConfig { registration: true, ..config() };
    let mut shell = Shell::new(config, Transport::DirectTls(tls()));
    shell.feed(HEADER);
    shell
}

fn auth(mechanism: &str, data: &str) -> String {
    format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='{mechanism}'>{data}</auth>")
}

/// Whether `sent` is a stream error of that condition with which the stream ends.
fn assert_error(shell: &Shell, sent: &str, condition: &str) {
    let error = format!("<stream:error><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>");
    assert!(sent.contains(&error), "{condition}: {sent}");
    assert!(sent.ends_with("</stream:error></stream:stream>"), "{sent}");
    assert!(shell.ended && shell.machine.is_ended());
}

#[test]
fn starttls_plain_bind_stanzas_and_an_orderly_end() {
    insta::assert_snapshot!(converse(
        plain(),
        &[
            HEADER,
            STARTTLS,
            HEADER,
            AUTH_PLAIN,
            HEADER,
            BIND,
            " \n",
            "<presence/><message to='romeo@example.net'><body>Art thou not Romeo?</body></message>",
            "<iq type='set' id='b2'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>",
            "</stream:stream>",
        ]
    ));
}

#[test]
fn registration_failed_logins_and_the_end_of_patience() {
    insta::assert_snapshot!(converse(
        open_house(),
        &[
            REGISTER,
            &auth("PLAIN", ""),
            ABORT,
            &auth("PLAIN", "AGp1bGlldABwdw=="),
            &auth("SCRAM-SHA-9", "biws"),
            HEADER,
        ]
    ));
}

#[test]
fn binds_that_fail_may_be_tried_again() {
    let mut shell = logged_in();
    shell.told.clear();
    shell.bind_error = Some(BindError::Conflict);
    let bad = BIND.replace("balcony", "bal\u{7f}cony");
    insta::assert_snapshot!(converse(
        shell,
        &[
            BIND,
            &bad,
            &BIND.replace(" id='b1'", ""),
            &BIND.replace("'set'", "'get'"),
            &BIND.replace("</bind>", "<resource>b</resource></bind>"),
            BIND,
        ]
    ));
}

#[test]
fn errors_before_our_header_come_after_it() {
    let open = |from: &str, to: &str| plain().feed(HEADER.replacen(from, to, 1));
    insta::assert_snapshot!(format!(
        "{}\n{}\n",
        open("to='example.com'", "to='example.org' from='juliet@example.org'"),
        plain().feed("GET / HTTP/1.1\r\n\r\n"),
    ));
}

#[test]
fn headers_that_break_the_rules_get_their_condition() {
    for (from, to, condition) in [
        (" version='1.0' xmlns", " xmlns", "unsupported-version"),
        ("version='1.0' xmlns", "version='0.9' xmlns", "unsupported-version"),
        ("'jabber:client'", "'jabber:server'", "invalid-namespace"),
        ("etherx", "ether", "invalid-namespace"),
        ("example.com", "example.org", "host-unknown"),
        ("<stream:stream", "<stream:flow", "bad-format"),
        ("<?xml version='1.0'?>", "<?xml version='1.0'?><!DOCTYPE x>", "restricted-xml"),
        ("<?xml version='1.0'?>", "<?xml version='1.0'?><!-- x -->", "restricted-xml"),
        ("<?xml version='1.0'?>", "\u{16}\u{3}\u{1}\u{2}", "not-well-formed"),
        ("to=", "to='a' to=", "not-well-formed"),
    ] {
        let mut shell = plain();
        let sent = shell.feed(HEADER.replacen(from, to, 1));
        assert!(sent.starts_with("<?xml version='1.0'?><stream:stream xmlns='jabber:client'"), "{sent}");
        assert_error(&shell, &sent, condition);
    }
}

#[test]
fn what_comes_at_the_wrong_time_ends_the_stream() {
    let plaintext = || {
        let mut shell = plain();
        shell.feed(HEADER);
        shell
    };
    let scram = || {
        let mut shell = secure();
        // n,,n=juliet,r=c
        assert!(shell.feed(auth("SCRAM-SHA-1", "biwsbj1qdWxpZXQscj1j")).contains("<challenge"));
        shell
    };
    let cases: [(&dyn Fn() -> Shell, &str, &str); 17] = [
        // P2: stanzas before login and before a resource is bound.
        (&secure, "<presence/>", "not-authorized"),
        (&plaintext, "<message><body>x</body></message>", "not-authorized"),
        (&logged_in, "<presence/>", "not-authorized"),
        (
            &logged_in,
            "<iq type='set' id='1'><session xmlns='urn:ietf:params:xml:ns:xmpp-session'/></iq>",
            "not-authorized",
        ),
        (
            &logged_in,
            "<iq to='romeo@example.net' type='set' id='1'>\
            <bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>",
            "not-authorized",
        ),
        (&scram, "<iq type='get' id='1'/>", "not-authorized"),
        (&scram, STARTTLS, "unsupported-stanza-type"),
        (&secure, "<x xmlns='urn:x'/>", "unsupported-stanza-type"),
        (&secure, "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>", "unsupported-stanza-type"),
        (&logged_in, AUTH_PLAIN, "unsupported-stanza-type"),
        (&logged_in, STARTTLS, "unsupported-stanza-type"),
        // Registration is not on, not for another domain, and not without TLS.
        (&secure, REGISTER, "not-authorized"),
        (&plaintext, REGISTER, "not-authorized"),
        (
            &open_house,
            "<iq type='get' id='1' to='example.net'><query xmlns='jabber:iq:register'/></iq>",
            "not-authorized",
        ),
        (&open_house, "<iq type='result' id='1'><query xmlns='jabber:iq:register'/></iq>", "not-authorized"),
        (&established, "text", "bad-format"),
        (&established, "</stream:flow>", "not-well-formed"),
    ];
    for (shell, line, condition) in cases {
        let mut shell = shell();
        let sent = shell.feed(line);
        assert_error(&shell, &sent, condition);
        assert!(!shell.told.iter().any(|told| told.starts_with('<')), "{line}");
    }
}

#[test]
fn failures_of_sasl_name_their_condition_and_leave_the_stream() {
    for (line, condition) in [
        (auth("PLAIN", "!"), "incorrect-encoding"),
        (auth("PLAIN", "AGp1bGlldABwdw"), "incorrect-encoding"),
        (auth("PLAIN", " AGp1bGlldABwdw=="), "incorrect-encoding"),
        (auth("PLAIN", "="), "malformed-request"),
        (auth("PLAIN", "AAAA"), "malformed-request"),
        (auth("SCRAM-SHA-1", "AAAA"), "malformed-request"),
        // romeo@example.com as authzid of juliet
        (auth("PLAIN", "cm9tZW9AZXhhbXBsZS5jb20AanVsaWV0AHIwbTMwbXlyMG0zMA=="), "invalid-authzid"),
        // y,,n=juliet,r=c although -PLUS was offered
        (auth("SCRAM-SHA-1", "eSwsbj1qdWxpZXQscj1j"), "not-authorized"),
        (auth("scram-sha-1", "biws"), "invalid-mechanism"),
        ("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>".to_owned(), "invalid-mechanism"),
        (RESPONSE.to_owned(), "malformed-request"),
        (ABORT.to_owned(), "aborted"),
        (format!("{}{AUTH_PLAIN}", auth("PLAIN", "")), "malformed-request"),
        (format!("{}{ABORT}", auth("SCRAM-SHA-512", "")), "aborted"),
    ] {
        let mut shell = secure();
        let sent = shell.feed(&line);
        let failure = format!("<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><{condition}/>");
        assert!(sent.contains(&failure), "{line}: {sent}");
        assert!(shell.feed(AUTH_PLAIN).contains("<success"), "{line}");
    }
}

#[test]
fn without_tls_nobody_logs_in() {
    let mut shell = plain();
    assert!(!shell.feed(HEADER).contains("mechanism"));
    for name in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"] {
        assert!(plain().feed(format!("{HEADER}{}", auth(name, "biws"))).contains("<encryption-required/>"));
    }
}

#[test]
fn without_binding_data_no_plus_is_offered() {
    let mut shell = Shell::new(config(), Transport::DirectTls(althing_proto::stream::TlsInfo::default()));
    let features = shell.feed(HEADER);
    assert!(features.contains("SCRAM-SHA-1<") && !features.contains("-PLUS"), "{features}");
    assert!(!features.contains("sasl-channel-binding"));
    assert!(shell.feed(auth("SCRAM-SHA-1-PLUS", "biws")).contains("<invalid-mechanism/>"));
    // y is true here: nothing was offered.
    assert!(shell.feed(auth("SCRAM-SHA-1", "eSwsbj1qdWxpZXQscj1j")).contains("<challenge"));
}

#[test]
fn bytes_between_starttls_and_the_handshake_are_never_taken_for_tls() {
    for injected in [AUTH_PLAIN, HEADER, " ", "\u{16}"] {
        let mut shell = plain();
        let sent = shell.feed(format!("{HEADER}{STARTTLS}{injected}"));
        assert_error(&shell, &sent, "not-authorized");
        assert!(!sent.contains("<proceed") && shell.told.is_empty());
    }
    // After <proceed/> the channel is not ours: nothing more is written to it.
    let mut machine = StreamMachine::new(Arc::new(config()), Transport::Plain, [1; 32], START);
    let mut actions = Vec::new();
    machine.handle(Input::Bytes(format!("{HEADER}{STARTTLS}").as_bytes()), START, &mut actions);
    assert_eq!(actions.last(), Some(&Action::StartTls));
    actions.clear();
    machine.handle(Input::Bytes(b" "), START, &mut actions);
    assert_eq!(actions, [Action::Close]);
}

#[test]
fn starttls_twice_or_unoffered_fails() {
    let off = StreamConfig { starttls: false, ..config() };
    let mut off = Shell::new(off, Transport::Plain);
    assert!(!off.feed(HEADER).contains("starttls"));
    for mut shell in [secure(), off] {
        let sent = shell.feed(STARTTLS);
        assert_eq!(sent, "<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/></stream:stream>");
        assert!(shell.ended);
    }
}

#[test]
fn a_slow_login_times_out_and_a_bound_stream_does_not() {
    let mut shell = secure();
    assert_eq!(shell.machine.deadline(), Some(START.after(Duration::from_secs(30))));
    shell.now = START.after(Duration::from_millis(29_999));
    assert_eq!(shell.handle(Input::Timer), "");
    shell.now = START.after(Duration::from_secs(30));
    let sent = shell.handle(Input::Timer);
    assert_error(&shell, &sent, "connection-timeout");

    let mut shell = established();
    shell.now = START.after(Duration::from_secs(3000));
    assert_eq!((shell.handle(Input::Timer), shell.machine.deadline()), (String::new(), None));
}

#[test]
fn the_server_ends_a_stream_and_waits_for_the_client() {
    let mut shell = established();
    assert_eq!(shell.handle(Input::End), "</stream:stream>");
    assert!(!shell.ended);
    // What was under way is not lost.
    assert_eq!(shell.feed("<message/></stream:stream>"), "");
    assert_eq!(shell.told, ["<message/>", "stream closed"]);
    assert!(shell.ended);

    let mut silent = established();
    silent.handle(Input::End);
    silent.now = silent.machine.deadline().unwrap();
    assert_eq!(silent.handle(Input::Timer), "");
    assert!(silent.ended);
}

#[test]
fn the_server_ends_a_stream_with_an_error() {
    let error = || Input::Fail(StreamError::from(StreamCondition::SystemShutdown));
    for mut shell in [plain(), secure(), logged_in(), established()] {
        let sent = shell.handle(error());
        assert_error(&shell, &sent, "system-shutdown");
        assert_eq!(shell.handle(error()), "");
        assert_eq!(shell.feed(HEADER), "");
    }
}

#[test]
fn a_lost_connection_ends_without_a_word() {
    for mut shell in [plain(), secure(), established()] {
        assert_eq!(shell.handle(Input::PeerClosed), "");
        assert!(shell.ended && !shell.told.contains(&"stream closed".to_owned()));
    }
}

/// RFC 6120 §4.7.4, §8.1.5: the stream's language, unless a stanza has its own; what is in it is left alone.
#[test]
fn a_stanza_without_a_language_is_in_that_of_its_stream() {
    let told = |lang: &str, stanza: &str| {
        let header = HEADER.replace("to='example.com'", &format!("to='example.com'{lang}"));
        let mut shell = Shell::new(config(), Transport::DirectTls(tls()));
        for line in [&header, AUTH_PLAIN, &header, BIND] {
            shell.feed(line);
        }
        shell.told.clear();
        shell.feed(stanza);
        shell.told.concat()
    };
    let (stanza, body) = ("<message to='a@b'><body>x</body></message>", "<body>x</body></message>");
    assert_eq!(told(" xml:lang='is'", stanza), format!("<message to='a@b' xml:lang='is'>{body}"));
    let own = format!("<message xml:lang='de'><subject xml:lang='fr'/>{body}");
    assert_eq!(told(" xml:lang='is'", &own), own);
    for lang in ["", " xml:lang='en'", " xml:lang=''", " xml:lang='no tag'"] {
        assert_eq!(told(lang, stanza), stanza, "{lang}");
    }
    let nonza = "<r xmlns='urn:xmpp:sm:3'/>";
    assert_eq!(told(" xml:lang='is'", nonza), nonza);
}

#[test]
fn the_login_cannot_move_to_another_domain() {
    let mut shell = secure();
    shell.feed(AUTH_PLAIN);
    let sent = shell.feed(HEADER.replace("example.com", "example.net"));
    assert_error(&shell, &sent, "not-authorized");
}

#[test]
fn limits_grow_with_the_login() {
    let stanza = format!("<message><body>{}</body></message>", "x".repeat(Limits::BEFORE_LOGIN.stanza_bytes));
    let mut shell = secure();
    let sent = shell.feed(&stanza);
    assert_error(&shell, &sent, "policy-violation");
    let mut shell = established();
    shell.feed(&stanza);
    assert_eq!(shell.told, [stanza]);
}

#[test]
fn a_client_that_does_not_wait_is_kept_within_bounds() {
    let mut machine = StreamMachine::new(Arc::new(config()), Transport::DirectTls(tls()), [1; 32], START);
    let mut actions = Vec::new();
    machine.handle(Input::Bytes(format!("{HEADER}{AUTH_PLAIN}").as_bytes()), START, &mut actions);
    assert!(!machine.wants_bytes());
    actions.clear();
    machine.handle(Input::Bytes(&vec![b' '; MAX_WAITING_BYTES]), START, &mut actions);
    assert_eq!(actions, []);
    machine.handle(Input::Bytes(b" "), START, &mut actions);
    assert_eq!(actions.last(), Some(&Action::Close));
    assert!(
        matches!(&actions[0], Action::Send(error) if error.windows(16).any(|part| part == b"policy-violation"))
    );
}

#[test]
fn each_login_and_each_stream_error_is_reported_once() {
    let mut shell = secure();
    shell.feed(auth("X-MINE", ""));
    shell.feed(auth("SCRAM-SHA-1", ""));
    shell.feed(ABORT);
    shell.feed(RESPONSE);
    let failed = ["?: invalid-mechanism", "SCRAM-SHA-1: aborted", "?: malformed-request", "policy-violation"];
    assert_eq!(shell.outcomes, failed);
    let mut shell = established();
    shell.feed("<a></b>");
    assert_eq!(shell.outcomes, ["PLAIN: success", "not-well-formed"]);
}

#[test]
fn requests_before_login_are_counted() {
    let mut shell = open_house();
    let sent = shell.feed(REGISTER.repeat(11));
    assert_eq!(shell.told.len(), 10);
    assert_error(&shell, &sent, "policy-violation");
}

#[test]
fn stream_ids_and_resources_follow_from_the_seed_and_differ() {
    let ids = |sent: &[u8]| {
        let text = String::from_utf8(sent.to_vec()).unwrap();
        text.split(" id='")
            .skip(1)
            .map(|rest| rest.split('\'').next().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let ids = ids(&logged_in().sent);
    assert_eq!(ids.len(), 2);
    assert!(ids[0] != ids[1] && ids.iter().all(|id| id.len() >= 22));
    assert_eq!(logged_in().sent, logged_in().sent);
}

/// Conversations that need no answer from the server to be written down.
fn scripts() -> impl Strategy<Value = String> {
    let steps = prop::sample::select(vec![
        HEADER.to_owned(),
        AUTH_PLAIN.to_owned(),
        BIND.to_owned(),
        "<presence/>".to_owned(),
        "<message><body>\u{e9}\u{1f600} &amp; co</body></message>".to_owned(),
        " \n".to_owned(),
        REGISTER.to_owned(),
        auth("PLAIN", ""),
        auth("SCRAM-SHA-1", "biwsbj1qdWxpZXQscj1j"),
        RESPONSE.to_owned(),
        ABORT.to_owned(),
        STARTTLS.to_owned(),
        "</stream:stream>".to_owned(),
        "<".to_owned(),
    ]);
    let good = [HEADER, AUTH_PLAIN, HEADER, BIND].map(str::to_owned);
    (0..=good.len(), prop::collection::vec(steps, 0..8))
        .prop_map(move |(start, rest)| good[..start].concat() + &rest.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However the bytes are cut, the same is sent and told.
    #[test]
    fn cuts_make_no_difference(
        script in scripts(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        each in any::<bool>(),
    ) {
        let config = || StreamConfig { registration: true, ..config() };
        let mut whole = Shell::new(config(), Transport::DirectTls(tls()));
        whole.feed(&script);
        let mut cut = Shell::new(config(), Transport::DirectTls(tls()));
        let mut places: Vec<usize> = if each {
            (0..script.len()).collect()
        } else {
            cuts.iter().map(|cut| cut.index(script.len() + 1)).collect()
        };
        places.push(script.len());
        places.sort_unstable();
        let mut from = 0;
        for to in places {
            cut.feed(&script.as_bytes()[from..to]);
            from = to;
        }
        prop_assert_eq!(String::from_utf8(whole.sent).unwrap(), String::from_utf8(cut.sent).unwrap());
        prop_assert_eq!(whole.told, cut.told);
        prop_assert_eq!(whole.ended, cut.ended);
    }
}
