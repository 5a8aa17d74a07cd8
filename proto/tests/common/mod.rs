//! The server's side of a conversation without sockets: a machine and a shell that performs its actions.

// Each test file uses its own part of this.
#![allow(dead_code)]

use std::sync::Arc;
use std::time::Duration;

use althing_proto::jid::DomainPart;
use althing_proto::ns;
use althing_proto::sasl::{Credentials, Mechanism, SaslCondition, TlsInfo, decoy};
use althing_proto::stream::management::Count;
use althing_proto::stream::{
    Action, Bar, BindError, CredentialsReply, Framing, Input, PasswordVerdict, ResumeError, Resumption,
    StreamConfig, StreamMachine, Transport,
};
use althing_proto::time::Timestamp;
use althing_proto::xml::limits::Limits;
use althing_proto::xml::{Element, writer};

pub(crate) const START: Timestamp = Timestamp::from_millis(1_000_000);
pub(crate) const PASSWORD: &str = "r0m30myr0m30";

/// Settings of a careful server.
pub(crate) fn config() -> StreamConfig {
    StreamConfig {
        domains: ["example.com", "example.net"]
            .map(|name| DomainPart::new(name).unwrap().into_owned())
            .to_vec(),
        starttls: true,
        allow_plaintext: false,
        mechanisms: Mechanism::ALL.to_vec(),
        registration: false,
        limits_before: Limits::BEFORE_LOGIN,
        limits_after: Limits::AFTER_LOGIN,
        idle: Some(Duration::from_secs(180)),
        login_timeout: Duration::from_secs(30),
        max_auth_failures: 3,
        features_after_login: vec![Element::bare("ver", ns::ROSTER_VERSIONING)],
        decoy_secret: [7; 32],
        scram_iterations: 4096,
    }
}

pub(crate) fn tls() -> TlsInfo {
    TlsInfo { exporter: Some(vec![1; 32]), server_end_point: Some(vec![2; 32]) }
}

/// Performs the actions of a machine. It knows the accounts `juliet` and, disabled, `tybalt`.
pub(crate) struct Shell {
    pub(crate) machine: StreamMachine,
    pub(crate) now: Timestamp,
    /// What would be sent, all of it.
    pub(crate) sent: Vec<u8>,
    /// First-level elements of the bound client, and what else the shell was told, in order.
    pub(crate) told: Vec<String>,
    /// How logins and streams ended, in order.
    pub(crate) outcomes: Vec<String>,
    pub(crate) ended: bool,
    /// What the next bind is answered with, if it is not to succeed.
    pub(crate) bind_error: Option<BindError>,
    /// What the next attempt to resume is answered with, if it is not to succeed.
    pub(crate) resume_error: Option<ResumeError>,
    account: Credentials,
}

impl Shell {
    pub(crate) fn new(config: StreamConfig, transport: Transport) -> Self {
        Shell {
            machine: StreamMachine::new(Arc::new(config), transport, [42; 32], START),
            now: START,
            sent: Vec::new(),
            told: Vec::new(),
            outcomes: Vec::new(),
            ended: false,
            bind_error: None,
            resume_error: None,
            account: Credentials::derive(PASSWORD, 4096, *b"0123456789abcdef").unwrap(),
        }
    }

    /// Hands in an input, and the answers to what it asks for, until nothing is asked any more. Gives what was
    /// sent meanwhile.
    pub(crate) fn handle(&mut self, input: Input<'_>) -> String {
        let already = self.sent.len();
        let mut actions = Vec::new();
        self.machine.handle(input, self.now, &mut actions);
        while !actions.is_empty() {
            let mut next = Vec::new();
            for action in actions {
                assert!(!self.ended, "{action:?} after the end");
                if let Some(answer) = self.perform(action) {
                    self.machine.handle(answer, self.now, &mut next);
                }
            }
            actions = next;
        }
        match self.machine.framing() {
            Framing::Tcp => String::from_utf8(self.sent[already..].to_vec()).unwrap(),
            Framing::WebSocket => spoken(&self.sent[already..]).join("\n"),
        }
    }

    pub(crate) fn feed(&mut self, bytes: impl AsRef<[u8]>) -> String {
        self.handle(Input::Bytes(bytes.as_ref()))
    }

    fn perform(&mut self, action: Action) -> Option<Input<'static>> {
        match action {
            Action::Send(bytes) => {
                self.sent.extend_from_slice(&bytes);
                None
            }
            Action::StartTls => {
                self.told.push("handshake".to_owned());
                Some(Input::TlsEstablished(tls()))
            }
            Action::FetchCredentials { user } => {
                let found =
                    |bar| CredentialsReply::Found { credentials: Box::new(self.account.clone()), bar };
                Some(Input::Credentials(match user.node().map(|node| node.as_str()) {
                    Some("juliet") => found(None),
                    Some("tybalt") => found(Some(Bar::Disabled)),
                    Some("broken") => CredentialsReply::Unavailable,
                    _ => CredentialsReply::Unknown,
                }))
            }
            Action::CheckPassword { user, password } => {
                let name = user.node().map(|node| node.as_str().to_owned()).unwrap_or_default();
                let known = matches!(name.as_str(), "juliet" | "tybalt");
                let credentials =
                    if known { self.account.clone() } else { decoy(&[7; 32], user.as_str(), 4096) };
                let right = credentials.verify_password(password.expose());
                Some(Input::PasswordChecked(match name.as_str() {
                    "broken" => PasswordVerdict::Unavailable,
                    "tybalt" if right => PasswordVerdict::Barred(Bar::Disabled),
                    _ if right => PasswordVerdict::Right,
                    _ => PasswordVerdict::Wrong,
                }))
            }
            Action::Bind { user, resource, requested } => {
                self.told.push(format!("bind {}", if requested { "requested" } else { "made" }));
                Some(Input::Bound(match self.bind_error.take() {
                    Some(error) => Err(error),
                    None => Ok(user.with_resource(&resource)),
                }))
            }
            Action::Resume { user, previd, handled } => {
                self.told.push(format!("resume {previd} from {handled}"));
                let jid = || user.with_resource_str("orchard").unwrap();
                Some(Input::Resumed(match self.resume_error.take() {
                    Some(error) => Err(error),
                    None => Ok(Resumption { jid: jid(), handled: Count(7) }),
                }))
            }
            Action::PreLogin(element) => {
                self.told.push(format!("before login {}", writer::to_string(&element, ns::CLIENT)));
                Some(Input::PreLoginReply(Element::bare("iq", ns::CLIENT)))
            }
            Action::Element(element) => {
                self.told.push(writer::to_string(&element, ns::CLIENT));
                None
            }
            Action::LoginEnded { mechanism, failure } => {
                let mechanism = mechanism.map_or("?", Mechanism::name);
                let failure = failure.map_or("success", SaslCondition::name);
                self.outcomes.push(format!("{mechanism}: {failure}"));
                None
            }
            Action::StreamFailed(condition) => {
                self.outcomes.push(condition.name().to_owned());
                None
            }
            Action::StreamClosed => {
                self.told.push("stream closed".to_owned());
                None
            }
            Action::Close => {
                self.ended = true;
                None
            }
        }
    }
}

/// A frame of a WebSocket client: `first` is its first byte, 0x81 for a whole text.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match u16::try_from(payload.len()).unwrap() {
        short @ 0..=125 => out.push(0x80 | u8::try_from(short).unwrap()),
        length => {
            out.push(0x80 | 126);
            out.extend_from_slice(&length.to_be_bytes());
        }
    }
    let mask = [0x37, 0xFA, 0x21, 0x3D];
    out.extend_from_slice(&mask);
    out.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
    out
}

/// What a WebSocket server sent, in words: texts as they are, `close CODE`, `pong TEXT`.
pub(crate) fn spoken(mut bytes: &[u8]) -> Vec<String> {
    let mut spoken = Vec::new();
    while let [first, length, rest @ ..] = bytes {
        let (length, rest) = match length {
            126 => (usize::from(u16::from_be_bytes([rest[0], rest[1]])), &rest[2..]),
            short => (usize::from(*short), rest),
        };
        let (payload, after) = rest.split_at(length);
        bytes = after;
        let text = || String::from_utf8(payload.to_vec()).unwrap();
        spoken.push(match first {
            0x81 => text(),
            0x88 => format!("close {}", u16::from_be_bytes([payload[0], payload[1]])),
            0x8A => format!("pong {}", text()),
            other => panic!("frame {other:02x}"),
        });
    }
    spoken
}

pub(crate) const HEADER: &str = "<?xml version='1.0'?><stream:stream to='example.com' version='1.0' \
     xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>";
/// PLAIN for juliet with the right password.
pub(crate) const AUTH_PLAIN: &str = "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>\
     AGp1bGlldAByMG0zMG15cjBtMzA=</auth>";
pub(crate) const BIND: &str = "<iq type='set' id='b1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
     <resource>balcony</resource></bind></iq>";

/// A server whose client is on TLS, before login.
pub(crate) fn secure() -> Shell {
    let mut shell = Shell::new(config(), Transport::DirectTls(tls()));
    shell.feed(HEADER);
    shell
}

/// A server whose client has logged in but not bound.
pub(crate) fn logged_in() -> Shell {
    let mut shell = secure();
    assert!(shell.feed(AUTH_PLAIN).contains("<success"));
    shell.feed(HEADER);
    shell
}

/// A server whose client is bound to `juliet@example.com/balcony`.
pub(crate) fn established() -> Shell {
    let mut shell = logged_in();
    shell.feed(BIND);
    assert!(shell.machine.is_established());
    shell.told.clear();
    shell
}
