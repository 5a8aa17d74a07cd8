//! PURE: the stream of an external component that connects to the server (XEP-0114, the method "accept").
//!
//! Header, handshake, then stanzas. The component's content namespace is `jabber:component:accept`; its elements
//! are told in `jabber:client`, and what is written for a client can be written to it as it is.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use minidom::Element;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use subtle::ConstantTimeEq;

use super::error::{StreamCondition, StreamError};
use super::machine::MAX_WAITING_BYTES;
use crate::entropy::Entropy;
use crate::jid::{BareJid, DomainPart};
use crate::ns;
use crate::sasl::Secret;
use crate::time::Timestamp;
use crate::xml::limits::Limits;
use crate::xml::reader::{StreamHeader, StreamReader, XmlEvent};
use crate::xml::writer::{write_attribute, write_element};

/// Octets of a stream id. It goes into the handshake, so that one cannot be used again on another stream.
const STREAM_ID_BYTES: usize = 16;

/// The end of our side of the stream (RFC 6120 §4.4).
const STREAM_END: &[u8] = b"</stream:stream>";

/// What components may connect, and how.
#[derive(Debug, Clone)]
pub struct ComponentConfig {
    /// The domains, each with its secret.
    pub domains: Vec<(DomainPart, Secret)>,
    /// Limits on XML before the handshake.
    pub limits_before: Limits,
    /// Limits on XML after it.
    pub limits_after: Limits,
    /// Time from the connection's start to the handshake.
    pub handshake_timeout: Duration,
}

/// An event for [`ComponentMachine::handle`]. One that does not fit the state is ignored.
#[derive(Debug)]
pub enum ComponentInput<'a> {
    /// Bytes from the component, decrypted.
    Bytes(&'a [u8]),
    /// Answers [`ComponentAction::Attach`].
    Attached(Result<(), StreamError>),
    /// The time of [`ComponentMachine::deadline`] may have come.
    Timer,
    /// The connection is gone.
    PeerClosed,
    /// The server ends the stream with an error.
    Fail(StreamError),
}

/// A thing to do. Actions are done in the order they come.
#[derive(Debug, PartialEq)]
pub enum ComponentAction {
    /// Send these bytes.
    Send(Bytes),
    /// The handshake is right: attach the component to that domain; answer [`ComponentInput::Attached`].
    Attach(DomainPart),
    /// A first-level element of an attached component, in the namespace `jabber:client`.
    Element(Element),
    /// The stream error before it ends the stream: to be counted and logged, nothing more.
    StreamFailed(StreamCondition),
    /// Flush what was sent, then close the connection. The last action of each stream.
    Close,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The component's header is due.
    Header,
    /// Our header was sent, the handshake is due.
    Handshake,
    /// Waits for [`ComponentInput::Attached`].
    Attaching,
    Established,
    Ended,
}

/// One component's connection without its socket.
pub struct ComponentMachine {
    config: Arc<ComponentConfig>,
    state: State,
    reader: StreamReader,
    /// The id of our header.
    id: String,
    /// The place of the domain in the configuration, once the header was read.
    domain: Option<usize>,
    header_sent: bool,
    /// Bytes that came while an answer was due.
    waiting: Vec<u8>,
    deadline: Timestamp,
}

impl ComponentMachine {
    /// A machine for a new connection. `seed` must be random and used once.
    #[must_use]
    pub fn new(config: Arc<ComponentConfig>, seed: [u8; 32], now: Timestamp) -> Self {
        ComponentMachine {
            state: State::Header,
            reader: StreamReader::new(config.limits_before).with_content(ns::COMPONENT_ACCEPT),
            id: Entropy::from_seed(seed).token(STREAM_ID_BYTES),
            domain: None,
            header_sent: false,
            waiting: Vec::new(),
            deadline: now.after(config.handshake_timeout),
            config,
        }
    }

    /// Lets one that is attached follow other limits.
    pub fn set_limits(&mut self, limits: Limits) {
        self.reader.set_limits(limits);
    }

    /// Takes an input at the time `now` and appends to `out` what is to be done, in order.
    pub fn handle(&mut self, input: ComponentInput<'_>, now: Timestamp, out: &mut Vec<ComponentAction>) {
        match input {
            ComponentInput::Bytes(bytes) => self.read(bytes, out),
            ComponentInput::Attached(result) if self.state == State::Attaching => match result {
                Ok(()) => {
                    out.push(ComponentAction::Send(Bytes::from_static(b"<handshake/>")));
                    self.reader.set_limits(self.config.limits_after);
                    self.state = State::Established;
                    let waiting = std::mem::take(&mut self.waiting);
                    self.read(&waiting, out);
                }
                Err(error) => self.fail(&error, out),
            },
            ComponentInput::Attached(_) => {}
            ComponentInput::Timer => {
                if self.deadline().is_some_and(|deadline| now >= deadline) {
                    let text = "no handshake came in time";
                    self.fail(&StreamError::new(StreamCondition::ConnectionTimeout, text), out);
                }
            }
            ComponentInput::PeerClosed => self.close(out),
            ComponentInput::Fail(error) => self.fail(&error, out),
        }
    }

    /// When to hand in [`ComponentInput::Timer`]: the end of the time for the handshake.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        (!matches!(self.state, State::Established | State::Ended)).then_some(self.deadline)
    }

    /// The domain that the component asks for, once its header was read and if it is configured.
    #[must_use]
    pub fn domain(&self) -> Option<&DomainPart> {
        self.config.domains.get(self.domain?).map(|(domain, _)| domain)
    }

    /// Whether the handshake is done and the stream has not ended.
    #[must_use]
    pub fn is_established(&self) -> bool {
        self.state == State::Established
    }

    /// Whether all is over: [`ComponentAction::Close`] was given.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.state == State::Ended
    }

    fn read(&mut self, mut input: &[u8], out: &mut Vec<ComponentAction>) {
        loop {
            match self.state {
                State::Ended => return,
                State::Attaching if self.waiting.len() + input.len() > MAX_WAITING_BYTES => {
                    let text = "too many bytes before the answer to the handshake";
                    return self.fail(&StreamError::new(StreamCondition::PolicyViolation, text), out);
                }
                State::Attaching => return self.waiting.extend_from_slice(input),
                State::Header | State::Handshake | State::Established => {}
            }
            match self.reader.next(&mut input) {
                Ok(None) => return,
                Ok(Some(XmlEvent::StreamStart(header))) => self.open(&header, out),
                Ok(Some(XmlEvent::StreamEnd)) => return self.end(out),
                // Its error ends its stream (RFC 6120 §4.9.1.1); an answer would tell it nothing.
                Ok(Some(XmlEvent::Element(element))) if element.is("error", ns::STREAM) => {
                    return self.end(out);
                }
                Ok(Some(XmlEvent::Element(element))) => self.element(element, out),
                Err(error) => {
                    return self.fail(&StreamError::new(error.condition(), error.to_string()), out);
                }
            }
        }
    }

    /// The component's header: `to` is the domain that it wants to be (§3). It has no version.
    fn open(&mut self, header: &StreamHeader, out: &mut Vec<ComponentAction>) {
        let content = header.content_namespace.as_deref();
        if header.namespace != ns::STREAM || content != Some(ns::COMPONENT_ACCEPT) {
            let text = "this listener is for streams of jabber:component:accept";
            return self.fail(&StreamError::new(StreamCondition::InvalidNamespace, text), out);
        }
        if header.name != "stream" {
            return self.fail(&StreamCondition::BadFormat.into(), out);
        }
        let to = header.to.as_deref().and_then(|to| BareJid::new(to).ok()).filter(|to| to.node().is_none());
        self.domain = to.and_then(|to| {
            self.config.domains.iter().position(|(domain, _)| domain.as_str() == to.domain().as_str())
        });
        if self.domain.is_none() {
            let text = "no component of that domain is configured here";
            return self.fail(&StreamError::new(StreamCondition::HostUnknown, text), out);
        }
        let header = self.header();
        out.push(ComponentAction::Send(header));
        self.state = State::Handshake;
    }

    /// Our header, without a version, as §3 shows it: there are no features.
    fn header(&mut self) -> Bytes {
        let mut header = b"<?xml version='1.0'?><stream:stream".to_vec();
        write_attribute("xmlns", ns::COMPONENT_ACCEPT, &mut header);
        write_attribute("xmlns:stream", ns::STREAM, &mut header);
        write_attribute("id", &self.id, &mut header);
        if let Some(domain) = self.domain() {
            write_attribute("from", domain.as_str(), &mut header);
        }
        header.push(b'>');
        self.header_sent = true;
        Bytes::from(header)
    }

    fn element(&mut self, element: Element, out: &mut Vec<ComponentAction>) {
        if self.state == State::Established {
            return out.push(ComponentAction::Element(element));
        }
        let Some((domain, secret)) = self.domain.and_then(|domain| self.config.domains.get(domain)) else {
            return;
        };
        let right = element.is("handshake", ns::CLIENT) && is_handshake(&element.text(), &self.id, secret);
        if right {
            out.push(ComponentAction::Attach(domain.clone()));
            self.state = State::Attaching;
        } else {
            // Also for stanzas before it (RFC 6120 §4.9.3.12).
            self.fail(&StreamCondition::NotAuthorized.into(), out);
        }
    }

    fn fail(&mut self, error: &StreamError, out: &mut Vec<ComponentAction>) {
        if self.state == State::Ended {
            return;
        }
        if !self.header_sent {
            // §3: header, error, end, also where it is the header that is wrong.
            let header = self.header();
            out.push(ComponentAction::Send(header));
        }
        out.push(ComponentAction::Send(last_words(Some(error))));
        out.push(ComponentAction::StreamFailed(error.condition));
        self.close(out);
    }

    fn end(&mut self, out: &mut Vec<ComponentAction>) {
        if self.header_sent {
            out.push(ComponentAction::Send(last_words(None)));
        }
        self.close(out);
    }

    fn close(&mut self, out: &mut Vec<ComponentAction>) {
        if self.state != State::Ended {
            self.state = State::Ended;
            self.waiting = Vec::new();
            out.push(ComponentAction::Close);
        }
    }
}

/// Whether `text` is the SHA-1 of stream id and secret in hexadecimal (§3). Takes the same time for every wrong one of
/// the right length.
fn is_handshake(text: &str, id: &str, secret: &Secret) -> bool {
    let text = text.trim().to_ascii_lowercase();
    handshake(id, secret).as_bytes().ct_eq(text.as_bytes()).into()
}

/// What a component says for that stream id and secret (§3): the SHA-1 of both, in lower-case hexadecimal.
#[must_use]
pub fn handshake(id: &str, secret: &Secret) -> String {
    use std::fmt::Write as _;

    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, [id, secret.expose()].concat().as_bytes());
    hash.as_ref().iter().fold(String::with_capacity(40), |mut hex, byte| {
        // Writing to a string does not fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// The stream error, if there is one, and the end of the stream.
#[must_use]
pub fn last_words(error: Option<&StreamError>) -> Bytes {
    let mut out = Vec::new();
    if let Some(error) = error {
        write_element(&error.to_element(), ns::COMPONENT_ACCEPT, &mut out);
    }
    out.extend_from_slice(STREAM_END);
    Bytes::from(out)
}

impl std::fmt::Debug for ComponentMachine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ComponentMachine")
            .field("domain", &self.domain())
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_000_000);
    const HEADER: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' \
         xmlns:stream='http://etherx.jabber.org/streams' to='plays.shakespeare.lit'>";

    /// A machine and all that it has asked for.
    struct Shell(ComponentMachine, Vec<ComponentAction>);

    impl Shell {
        fn new() -> Self {
            let domain = |name| DomainPart::new(name).unwrap().into_owned();
            let config = ComponentConfig {
                domains: vec![
                    (domain("irc.shakespeare.lit"), Secret::new("another secret")),
                    (domain("plays.shakespeare.lit"), Secret::new("a plain secret")),
                ],
                limits_before: Limits::BEFORE_LOGIN,
                limits_after: Limits::AFTER_LOGIN,
                handshake_timeout: Duration::from_secs(10),
            };
            Shell(ComponentMachine::new(Arc::new(config), [42; 32], START), Vec::new())
        }

        fn handle(&mut self, input: ComponentInput<'_>) {
            self.0.handle(input, START, &mut self.1);
        }

        fn bytes(mut self, bytes: &str) -> Self {
            self.handle(ComponentInput::Bytes(bytes.as_bytes()));
            self
        }

        fn sent(&self) -> String {
            let sent = self.1.iter().filter_map(|action| match action {
                ComponentAction::Send(bytes) => Some(&bytes[..]),
                _ => None,
            });
            String::from_utf8(sent.flatten().copied().collect()).unwrap()
        }

        fn greeted() -> (Self, String) {
            let shell = Shell::new().bytes(HEADER);
            let sent = shell.sent();
            let (_, rest) = sent.split_once("id='").unwrap();
            let id = rest.split('\'').next().unwrap().to_owned();
            assert!(sent.contains(" from='plays.shakespeare.lit'>") && !sent.contains("version='1.0'>"));
            (shell, id)
        }

        fn attached() -> Self {
            let (shell, id) = Shell::greeted();
            let hash = handshake(&id, &Secret::new("a plain secret"));
            let mut shell = shell.bytes(&format!("<handshake>{hash}</handshake>"));
            shell.handle(ComponentInput::Attached(Ok(())));
            shell
        }

        fn failed(&self, condition: StreamCondition) {
            assert!(self.1.contains(&ComponentAction::StreamFailed(condition)), "{:?}", self.1);
            assert!(self.sent().ends_with("</stream:error></stream:stream>"), "{}", self.sent());
            assert_eq!(self.sent().matches("<stream:stream").count(), 1, "{}", self.sent());
            assert_eq!(self.1.last(), Some(&ComponentAction::Close));
            assert!(self.0.is_ended());
        }
    }

    /// XEP-0114 §3: header, handshake, acknowledgement, stanzas.
    #[test]
    fn t18_a_component_connects_and_its_stanzas_are_told_as_a_clients() {
        let shell = Shell::attached();
        assert!(shell.0.is_established());
        let attach = ComponentAction::Attach(DomainPart::new("plays.shakespeare.lit").unwrap().into_owned());
        assert!(shell.1.contains(&attach));
        assert!(shell.sent().ends_with("<handshake/>"));
        let shell = shell.bytes(
            "<message from='a@plays.shakespeare.lit' to='b@c'><body>hi</body>\
             <x xmlns='urn:x'><body xmlns='jabber:component:accept'/></x></message>",
        );
        let Some(ComponentAction::Element(message)) = shell.1.last() else { panic!("{:?}", shell.1) };
        assert!(message.is("message", ns::CLIENT));
        assert_eq!(message.get_child("body", ns::CLIENT).unwrap().text(), "hi");
        assert!(message.get_child("x", "urn:x").unwrap().has_child("body", ns::CLIENT));
        let shell = shell.bytes("</stream:stream>");
        assert!(shell.sent().ends_with("</stream:stream>") && shell.0.is_ended());
    }

    /// The example of §3; its secret is "test".
    #[test]
    fn the_handshake_is_the_sha_1_of_id_and_secret() {
        let hash = handshake("3BF96D32", &Secret::new("test"));
        assert_eq!(hash, "aaee83c26aeeafcbabeabfcbcd50df997e0a2a1e");
    }

    #[test]
    fn a_handshake_in_capitals_will_do_and_a_wrong_one_will_not() {
        let (shell, id) = Shell::greeted();
        let right = handshake(&id, &Secret::new("a plain secret")).to_uppercase();
        let shell = shell.bytes(&format!("<handshake>{right}</handshake>"));
        assert!(matches!(shell.1.last(), Some(ComponentAction::Attach(_))));
        for wrong in [
            format!("<handshake>{}</handshake>", handshake(&id, &Secret::new("another secret"))),
            format!("<handshake>{}</handshake>", handshake("other", &Secret::new("a plain secret"))),
            "<handshake/>".to_owned(),
            format!("<handshake xmlns='urn:x'>{right}</handshake>"),
            "<message from='a@plays.shakespeare.lit' to='b@c'/>".to_owned(),
        ] {
            let shell = Shell::greeted().0.bytes(&wrong);
            shell.failed(StreamCondition::NotAuthorized);
            assert!(!shell.1.iter().any(|action| matches!(action, ComponentAction::Attach(_))), "{wrong}");
        }
    }

    /// §3: header, error and end, whatever is wrong with the component's header.
    #[test]
    fn wrong_headers_are_answered_with_a_header_and_an_error() {
        let header = |change: (&str, &str)| Shell::new().bytes(&HEADER.replace(change.0, change.1));
        header(("plays.", "no.")).failed(StreamCondition::HostUnknown);
        header((" to='plays.shakespeare.lit'", "")).failed(StreamCondition::HostUnknown);
        header(("plays.", "a@plays.")).failed(StreamCondition::HostUnknown);
        header(("component:accept", "client")).failed(StreamCondition::InvalidNamespace);
        header(("component:accept", "component:connect")).failed(StreamCondition::InvalidNamespace);
        header(("<stream:stream ", "<stream:flow ")).failed(StreamCondition::BadFormat);
    }

    #[test]
    fn a_refused_attachment_ends_the_stream() {
        let (shell, id) = Shell::greeted();
        let hash = handshake(&id, &Secret::new("a plain secret"));
        let mut shell = shell.bytes(&format!("<handshake>{hash}</handshake>"));
        shell.handle(ComponentInput::Attached(Err(StreamCondition::Conflict.into())));
        shell.failed(StreamCondition::Conflict);
    }

    #[test]
    fn what_comes_before_the_answer_waits_within_a_bound() {
        let begun = || {
            let (shell, id) = Shell::greeted();
            let hash = handshake(&id, &Secret::new("a plain secret"));
            shell.bytes(&format!("<handshake>{hash}</handshake><presence to='a@b'/>"))
        };
        let mut shell = begun();
        assert!(matches!(shell.1.last(), Some(ComponentAction::Attach(_))));
        shell.handle(ComponentInput::Attached(Ok(())));
        assert!(matches!(shell.1.last(), Some(ComponentAction::Element(_))));
        begun().bytes(&" ".repeat(MAX_WAITING_BYTES)).failed(StreamCondition::PolicyViolation);
    }

    #[test]
    fn the_time_for_the_handshake_is_bounded() {
        let (mut shell, _) = Shell::greeted();
        let deadline = shell.0.deadline().unwrap();
        shell.handle(ComponentInput::Timer);
        assert!(!shell.0.is_ended(), "too early");
        shell.0.handle(ComponentInput::Timer, deadline, &mut shell.1);
        shell.failed(StreamCondition::ConnectionTimeout);
        assert_eq!(Shell::attached().0.deadline(), None);
    }

    #[test]
    fn limits_hold_before_and_after_the_handshake() {
        let long = format!("<handshake>{}</handshake>", "a".repeat(Limits::BEFORE_LOGIN.stanza_bytes));
        Shell::greeted().0.bytes(&long).failed(StreamCondition::PolicyViolation);
        let body = |bytes| format!("<message><body>{}</body></message>", "a".repeat(bytes));
        let mut shell = Shell::attached().bytes(&body(Limits::BEFORE_LOGIN.stanza_bytes));
        assert!(matches!(shell.1.last(), Some(ComponentAction::Element(_))));
        shell.0.set_limits(Limits::BEFORE_LOGIN);
        shell.bytes(&body(Limits::BEFORE_LOGIN.stanza_bytes)).failed(StreamCondition::PolicyViolation);
    }

    #[test]
    fn no_secret_is_shown() {
        let shell = Shell::new();
        assert!(!format!("{:?} {:?}", shell.0, shell.0.config).contains("plain secret"));
    }
}
