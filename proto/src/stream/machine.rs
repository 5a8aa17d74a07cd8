//! The stream machine's door: inputs, the loop over bytes, and how a stream ends (RFC 6120 §4).

use std::sync::Arc;
use std::time::Duration;

use minidom::Element;

use super::action::{Action, Output};
use super::config::StreamConfig;
use super::error::{StreamCondition, StreamError};
use super::framing::Framing;
use super::input::{Input, Transport};
use super::state::State;
use super::websocket::WebSocket;
use super::{features, header};
use crate::entropy::Entropy;
use crate::jid::{BareJid, DomainPart, FullJid, Jid};
use crate::ns;
use crate::sasl::{Mechanism, TlsInfo};
use crate::time::Timestamp;
use crate::xml::build::ElementExt as _;
use crate::xml::limits::Limits;
use crate::xml::reader::{StreamHeader, StreamReader, XmlEvent};

/// Most bytes that are kept while the machine waits for an answer; more end the stream with
/// `policy-violation`. Whoever reads the socket should stop when
/// [`wants_bytes`](StreamMachine::wants_bytes) says so, and read no more than this at once.
pub const MAX_WAITING_BYTES: usize = 64 * 1024;

/// How long a peer has to end its stream after we have ended ours (RFC 6120 §4.4 asks for patience, not
/// for how much).
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// Octets of a stream id: unguessable, as RFC 6120 §4.7.3 demands.
const STREAM_ID_BYTES: usize = 16;

/// One client's connection without its socket (RFC 6120 §4 to §7).
///
/// It asks for what it cannot do itself by [`Action`]s and does not look at a byte past the step that asked,
/// until the answer comes. After [`Action::Close`] it does nothing more.
pub struct StreamMachine {
    pub(super) config: Arc<StreamConfig>,
    pub(super) state: State,
    pub(super) entropy: Entropy,
    /// The connection's TLS; `None` without.
    pub(super) tls: Option<TlsInfo>,
    /// The domain that the client's header names; `None` before the first header.
    pub(super) domain: Option<DomainPart>,
    pub(super) auth_failures: u32,
    /// The mechanism of the exchange under way.
    pub(super) mechanism: Option<Mechanism>,
    /// Iqs before login, and binds that failed: each costs work, so there may be few.
    pub(super) requests: u32,
    pub(super) reader: StreamReader,
    /// What a WebSocket needs besides; `None` over TCP.
    pub(super) websocket: Option<Box<WebSocket>>,
    /// Bytes that came while an answer was due.
    waiting: Vec<u8>,
    /// Whether our header was sent on the stream of now; a restart begins a new one.
    header_sent: bool,
    /// Whether whitespace may come before the next header: the end of the stream before a restart.
    padding: bool,
    login_deadline: Timestamp,
    lang: Option<String>,
}

impl StreamMachine {
    /// A machine for a new connection. `seed` must be random and used once.
    #[must_use]
    pub fn new(config: Arc<StreamConfig>, transport: Transport, seed: [u8; 32], now: Timestamp) -> Self {
        let (tls, framing) = match transport {
            Transport::Plain => (None, Framing::Tcp),
            Transport::DirectTls(info) => (Some(info), Framing::Tcp),
            Transport::WebSocket(tls) => (tls, Framing::WebSocket),
        };
        StreamMachine {
            state: State::Header { user: None },
            entropy: Entropy::from_seed(seed),
            tls,
            domain: None,
            auth_failures: 0,
            mechanism: None,
            requests: 0,
            reader: reader(framing, config.limits_before),
            websocket: (framing == Framing::WebSocket).then(Box::default),
            waiting: Vec::new(),
            header_sent: false,
            padding: false,
            login_deadline: now.after(config.login_timeout),
            lang: None,
            config,
        }
    }

    /// Takes an input at the time `now` and appends to `out` what is to be done, in order.
    pub fn handle(&mut self, input: Input<'_>, now: Timestamp, out: &mut Vec<Action>) {
        let out = &mut Output::new(out, self.framing());
        match input {
            Input::Bytes(bytes) => self.read(bytes, out),
            Input::TlsEstablished(info) => {
                if let State::TlsHandshake = self.state {
                    self.tls = Some(info);
                    self.restart(None);
                }
            }
            Input::Credentials(reply) => self.credentials(reply, out),
            Input::PasswordChecked(verdict) => self.password_checked(verdict, out),
            Input::Bound(result) => self.bound(result, out),
            Input::Resumed(result) => self.resumed(result, out),
            Input::PreLoginReply(reply) => self.pre_login_reply(&reply, out),
            Input::Timer => self.timer(now, out),
            Input::PeerClosed => {
                if let Some(websocket) = &mut self.websocket {
                    websocket.closed = true;
                }
                self.close(out);
            }
            Input::Fail(error) => self.fail(error, out),
            Input::End => self.end(now, out),
        }
        self.read_waiting(out);
        out.flush();
    }

    /// Whether its settings are these.
    #[must_use]
    pub fn has_config(&self, config: &Arc<StreamConfig>) -> bool {
        Arc::ptr_eq(&self.config, config)
    }

    /// Gives other settings to a bound client: their limits hold from the next byte on. A login goes on by the settings
    /// with which it began.
    pub fn set_config(&mut self, config: Arc<StreamConfig>) {
        if self.is_established() {
            self.reader.set_limits(config.limits_after);
            self.config = config;
        } else if self.config.limits_after != config.limits_after || self.config.idle != config.idle {
            // What is announced after login (XEP-0478) is what holds then; the login goes on as it has begun.
            let (limits_after, idle) = (config.limits_after, config.idle);
            let begun = StreamConfig::clone(&self.config);
            self.config = Arc::new(StreamConfig { limits_after, idle, ..begun });
        }
    }

    /// When to hand in [`Input::Timer`]: the end of the time for login, or for the peer's end of stream.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        match self.state {
            State::Established { .. } | State::Ended => None,
            State::Ending { deadline, .. } => Some(deadline),
            _ => Some(self.login_deadline),
        }
    }

    /// Whether bytes would be looked at now. While not, reading the socket should pause: it is how a client
    /// that is too fast is slowed down.
    #[must_use]
    pub fn wants_bytes(&self) -> bool {
        !matches!(self.state, State::TlsHandshake | State::Ended) && !self.state.waits()
    }

    /// Whether a resource is bound and the stream has not ended.
    #[must_use]
    pub fn is_established(&self) -> bool {
        matches!(self.state, State::Established { .. })
    }

    /// Whether all is over: [`Action::Close`] was given.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// The account, once the client has logged in and until its resource is bound; then see
    /// [`jid`](Self::jid).
    #[must_use]
    pub fn user(&self) -> Option<&BareJid> {
        match &self.state {
            State::Header { user } => user.as_ref(),
            State::Bind { user } | State::Binding { user, .. } | State::Resuming { user, .. } => Some(user),
            _ => None,
        }
    }

    /// The bound address.
    #[must_use]
    pub fn jid(&self) -> Option<&FullJid> {
        match &self.state {
            State::Established { jid } => Some(jid),
            State::Ending { jid, .. } => jid.as_ref(),
            _ => None,
        }
    }

    /// The domain that the client addressed, once its header was read.
    #[must_use]
    pub fn domain(&self) -> Option<&DomainPart> {
        self.domain.as_ref()
    }

    /// The language of the client's header: the default of its stanzas (RFC 6120 §4.7.4).
    #[must_use]
    pub fn lang(&self) -> Option<&str> {
        self.lang.as_deref()
    }

    /// The form of the stream on its transport.
    #[must_use]
    pub fn framing(&self) -> Framing {
        if self.websocket.is_some() { Framing::WebSocket } else { Framing::Tcp }
    }

    /// Whether the connection is encrypted.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    fn read_waiting(&mut self, out: &mut Output<'_>) {
        if !self.waiting.is_empty() && !self.state.waits() {
            let waiting = std::mem::take(&mut self.waiting);
            self.read(&waiting, out);
        }
    }

    fn read(&mut self, mut input: &[u8], out: &mut Output<'_>) {
        if self.websocket.is_some() {
            return self.read_frames(input, out);
        }
        loop {
            match self.state {
                State::Ended => return,
                // The handshake eats all bytes: those that are left came in plaintext before it, perhaps from
                // somebody in between who wants them taken for the client's own. No error can be told any more.
                State::TlsHandshake if !input.is_empty() => return self.close(out),
                _ if self.state.waits() => return self.keep(input, out),
                _ => {}
            }
            if self.padding {
                let blank = input.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
                input = input.get(blank..).unwrap_or_default();
                self.padding = input.is_empty();
            }
            match self.reader.next(&mut input) {
                Ok(None) => return,
                Ok(Some(event)) => self.event(event, input, out),
                Err(error) => {
                    return self.fail(StreamError::new(error.condition(), error.to_string()), out);
                }
            }
        }
    }

    pub(super) fn keep(&mut self, input: &[u8], out: &mut Output<'_>) {
        if self.waiting.len() + input.len() > MAX_WAITING_BYTES {
            let text = "too many bytes before the answer to the last request";
            return self.fail(StreamError::new(StreamCondition::PolicyViolation, text), out);
        }
        self.waiting.extend_from_slice(input);
    }

    /// `rest` is what follows in the same chunk of bytes.
    pub(super) fn event(&mut self, event: XmlEvent, rest: &[u8], out: &mut Output<'_>) {
        match event {
            XmlEvent::StreamStart(header) => self.open(&header, out),
            XmlEvent::StreamEnd => self.peer_ended(out),
            // The peer's error ends its stream (§4.9.1.1); an answer would tell it nothing.
            XmlEvent::Element(element) if element.is("error", ns::STREAM) => self.peer_ended(out),
            XmlEvent::Element(element) => self.element(element, rest, out),
        }
    }

    fn element(&mut self, element: Element, rest: &[u8], out: &mut Output<'_>) {
        match &self.state {
            State::Established { .. } => self.bound_element(element, out),
            State::Ending { jid: Some(_), .. } => out.push(Action::Element(element)),
            State::Ending { jid: None, .. } | State::Ended => {}
            State::Bind { .. } if element.is_ns(ns::STREAM_MANAGEMENT) => self.manage(&element, out),
            State::Bind { .. } => self.bind(&element, out),
            _ => self.negotiate(element, rest, out),
        }
    }

    fn open(&mut self, header: &StreamHeader, out: &mut Output<'_>) {
        if matches!(self.state, State::Ending { .. }) {
            return;
        }
        let opening = match header::check(header, &self.config.domains) {
            Ok(opening) => opening,
            Err(error) => return self.fail(error, out),
        };
        let State::Header { user } = std::mem::replace(&mut self.state, State::Login) else {
            return self.fail(StreamCondition::BadFormat.into(), out);
        };
        let moved = user.as_ref().is_some_and(|user| user.domain().as_str() != opening.domain.as_str());
        self.domain = Some(opening.domain);
        self.lang = opening.lang;
        self.send_header(opening.from.as_ref(), out);
        if moved {
            let text = "the login was for another domain";
            return self.fail(StreamError::new(StreamCondition::NotAuthorized, text), out);
        }
        match user {
            Some(user) => {
                out.send(&features::after_login(&self.config));
                self.state = State::Bind { user };
            }
            None => out.send(&features::before_login(&self.config, self.tls.as_ref(), out.framing())),
        }
    }

    fn send_header(&mut self, to: Option<&Jid>, out: &mut Output<'_>) {
        let id = self.entropy.token(STREAM_ID_BYTES);
        let from = self.domain.as_ref().or(self.config.domains.first());
        match out.framing() {
            Framing::Tcp => header::write(Framing::Tcp, &id, from, to, out.bytes()),
            framing @ Framing::WebSocket => {
                let mut open = Vec::new();
                header::write(framing, &id, from, to, &mut open);
                framing.write(&open, out.bytes());
            }
        }
        self.header_sent = true;
    }

    /// Begins a new stream on the same connection (§4.3.3).
    pub(super) fn restart(&mut self, user: Option<BareJid>) {
        let limits = if user.is_some() { self.config.limits_after } else { self.config.limits_before };
        self.reader = reader(self.framing(), limits);
        self.header_sent = false;
        // Not after TLS: what comes first there is the first of its channel.
        self.padding = user.is_some();
        self.state = State::Header { user };
    }

    fn timer(&mut self, now: Timestamp, out: &mut Output<'_>) {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return;
        }
        match self.state {
            State::Ending { .. } => self.close(out),
            _ => {
                let text = "no resource was bound in time";
                self.fail(StreamError::new(StreamCondition::ConnectionTimeout, text), out);
            }
        }
    }

    /// Ends the stream with an error (§4.9.1): our header first if it was not sent, then the error, our end
    /// tag, and the connection.
    pub(super) fn fail(&mut self, error: StreamError, out: &mut Output<'_>) {
        match self.state {
            State::Ended => return,
            // Our end tag was the last word, or the channel belongs to the TLS handshake.
            State::Ending { .. } | State::TlsHandshake => return self.close(out),
            _ => {}
        }
        if !self.header_sent {
            self.send_header(None, out);
        }
        out.send(&error.to_element());
        self.send_end(out);
        out.push(Action::StreamFailed(error.condition));
        self.close(out);
    }

    /// Ends the stream in order (§4.4).
    fn end(&mut self, now: Timestamp, out: &mut Output<'_>) {
        let jid = match std::mem::replace(&mut self.state, State::Ended) {
            ending @ (State::Ended | State::Ending { .. }) => {
                self.state = ending;
                return;
            }
            // There is no stream to end.
            State::TlsHandshake => return out.push(Action::Close),
            _ if !self.header_sent => return out.push(Action::Close),
            State::Established { jid } => Some(jid),
            _ => None,
        };
        self.send_end(out);
        self.state = State::Ending { jid, deadline: now.after(END_TIMEOUT) };
    }

    fn peer_ended(&mut self, out: &mut Output<'_>) {
        out.push(Action::StreamClosed);
        if !matches!(self.state, State::Ending { .. }) {
            self.send_end(out);
        }
        self.close(out);
    }

    pub(super) fn send_end(&mut self, out: &mut Output<'_>) {
        out.framing().write_end(out.bytes());
    }

    pub(super) fn close(&mut self, out: &mut Output<'_>) {
        if !matches!(self.state, State::Ended) {
            self.state = State::Ended;
            self.waiting = Vec::new();
            if let Some(websocket) = &mut self.websocket {
                websocket.close(out);
            }
            out.push(Action::Close);
        }
    }
}

/// A reader for a new stream.
fn reader(framing: Framing, limits: Limits) -> StreamReader {
    match framing {
        Framing::Tcp => StreamReader::new(limits),
        Framing::WebSocket => StreamReader::document(limits),
    }
}

// Neither seed nor keys belong in a log.
impl std::fmt::Debug for StreamMachine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamMachine")
            .field("user", &self.user())
            .field("jid", &self.jid())
            .field("encrypted", &self.is_encrypted())
            .field("ended", &self.is_ended())
            .finish_non_exhaustive()
    }
}
