//! Any inputs in any order, answers that nobody asked for among them: no panic, nothing after the end, and no
//! more output than the inputs account for.
#![no_main]

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use althing_proto::jid::{DomainPart, FullJid};
use althing_proto::ns;
use althing_proto::sasl::{Credentials, Mechanism, TlsInfo};
use althing_proto::stream::error::StreamCondition;
use althing_proto::stream::{
    Action, Bar, BindError, CredentialsReply, Framing, Input, PasswordVerdict, StreamConfig, StreamMachine, Transport,
};
use althing_proto::time::Timestamp;
use althing_proto::xml::Element;
use althing_proto::xml::limits::Limits;
use libfuzzer_sys::fuzz_target;

/// What a client says on the way in; the bytes between them are the fuzzer's.
const PHRASES: [&str; 12] = [
    "<?xml version='1.0'?><stream:stream to='example.com' version='1.0' xmlns='jabber:client' \
     xmlns:stream='http://etherx.jabber.org/streams'>",
    "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>",
    "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AGp1bGlldABwdw==</auth>",
    "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='SCRAM-SHA-1'>",
    "biwsbj1qdWxpZXQscj1j</auth>",
    "<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>",
    "</response>",
    "<abort xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>",
    "<iq type='set' id='1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>",
    "<iq type='get' id='r'><query xmlns='jabber:iq:register'/></iq>",
    "<message to='romeo@example.net'/>",
    "</stream:stream>",
];

/// The most that one input makes the server say beyond what its bytes account for: a header, features and an
/// error.
const PER_INPUT: usize = 4096;
/// The most that a byte from the client makes the server say: a short second bind, and its refusal.
const PER_BYTE: usize = 64;

static CREDENTIALS: LazyLock<Credentials> =
    LazyLock::new(|| Credentials::derive("pw", 4096, [3; 16]).expect("a good password"));

fn config() -> StreamConfig {
    StreamConfig {
        domains: DomainPart::new("example.com").map(|domain| vec![domain.into_owned()]).unwrap_or_default(),
        starttls: true,
        allow_plaintext: true,
        mechanisms: Mechanism::ALL.to_vec(),
        registration: true,
        limits_before: Limits::BEFORE_LOGIN,
        limits_after: Limits::AFTER_LOGIN,
        idle: Some(Duration::from_secs(180)),
        login_timeout: Duration::from_secs(30),
        max_auth_failures: 3,
        features_after_login: Vec::new(),
        decoy_secret: [7; 32],
        scram_iterations: 4096,
    }
}

/// The input that `kind` stands for; `text` is what a client may say.
fn input(kind: u8, text: &[u8]) -> Input<'_> {
    let tls = || TlsInfo { exporter: Some(vec![1; 32]), server_end_point: None };
    match kind % 24 {
        0 => Input::TlsEstablished(tls()),
        1 => Input::Credentials(CredentialsReply::Found {
            credentials: Box::new(CREDENTIALS.clone()),
            bar: None,
        }),
        2 => Input::Credentials(CredentialsReply::Unknown),
        3 => Input::Credentials(CredentialsReply::Unavailable),
        4 => Input::PasswordChecked(PasswordVerdict::Right),
        5 => Input::PasswordChecked(PasswordVerdict::Wrong),
        6 => Input::PasswordChecked(PasswordVerdict::Barred(Bar::Disabled)),
        7 => FullJid::new("juliet@example.com/r").map_or(Input::Timer, |jid| Input::Bound(Ok(jid))),
        8 => Input::Bound(Err(BindError::Conflict)),
        9 => Input::PreLoginReply(Element::bare("iq", ns::CLIENT)),
        10 => Input::Timer,
        11 if text.len() > 8 => Input::PeerClosed,
        12 if text.len() > 8 => Input::Fail(StreamCondition::SystemShutdown.into()),
        13 if text.len() > 8 => Input::End,
        _ => Input::Bytes(text),
    }
}

fuzz_target!(|data: &[u8]| {
    let transport = match data.first() {
        Some(first) if first % 4 == 2 => Transport::WebSocket(Some(TlsInfo::default())),
        Some(first) if first % 2 == 1 => {
            Transport::DirectTls(TlsInfo { exporter: Some(vec![1; 32]), ..TlsInfo::default() })
        }
        _ => Transport::Plain,
    };
    let mut machine = StreamMachine::new(Arc::new(config()), transport, [42; 32], Timestamp::from_millis(0));
    let mut rest = data.get(1..).unwrap_or_default();
    let (mut now, mut allowed, mut sent, mut closed) = (0, 0, 0, false);
    while let [kind, length, tail @ ..] = rest {
        let phrase = PHRASES.get(usize::from(*kind) % 32);
        let (text, tail) = match phrase {
            Some(phrase) => (phrase.as_bytes(), tail),
            None => tail.split_at_checked(usize::from(*length)).unwrap_or((tail, &[])),
        };
        rest = tail;
        now += u64::from(*length) * 10;
        allowed += PER_INPUT + PER_BYTE * text.len();
        let mut actions = Vec::new();
        let input = if phrase.is_some() { Input::Bytes(text) } else { input(*kind, text) };
        machine.handle(input, Timestamp::from_millis(now), &mut actions);
        for action in actions {
            assert!(!closed, "{action:?} after the end");
            match action {
                Action::Send(bytes) => {
                    sent += bytes.len();
                    // The heads of frames are no text.
                    assert!(machine.framing() == Framing::WebSocket || std::str::from_utf8(&bytes).is_ok());
                }
                Action::Close => closed = true,
                _ => {}
            }
        }
        assert!(sent <= allowed, "{sent} bytes sent, {allowed} accounted for");
        assert_eq!(closed, machine.is_ended());
        assert!(!closed || machine.deadline().is_none());
    }
});
