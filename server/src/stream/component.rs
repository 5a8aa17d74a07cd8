//! One external component's connection (XEP-0114) from accept to close: the only file that reads and writes its socket.
//!
//! The reader takes one stanza after the other and routes it: what one needs from the store holds up those behind it,
//! so their order stays. It is not slowed down by users who read slowly, for it speaks for many: it gets
//! `resource-constraint` for those. The writer is [`External`], a component like those inside the process: its inbox
//! is bounded, and one that takes nothing for `limits.outbox_stall_s` is closed.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use minidom::Element;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use althing_proto::jid::{BareJid, DomainPart, Jid};
use althing_proto::stanza::{ParseError, Stanza, StanzaCondition, StanzaError};
use althing_proto::stream::component::{
    ComponentAction, ComponentConfig, ComponentInput, ComponentMachine, last_words,
};
use althing_proto::stream::error::{StreamCondition, StreamError};

use super::connection::linger;
use super::login::accept_tls;
use super::socket::{self, Socket};
use crate::components::attach::{attach, cut_off, detach};
use crate::components::registry::{Changed, Origin};
use crate::components::{Component, ComponentHandle, Ending, Letter, host};
use crate::config::Config;
use crate::delivery::{self, drive};
use crate::metrics::{Attachment, Direction, Dropped, Listener};
use crate::node::NodeContext;
use crate::pipeline::Effects;

/// Bytes read at a time.
const READ_BYTES: usize = 64 * 1024;

/// How long the component may take to take the last words and the end of TLS.
const GOODBYE: Duration = Duration::from_secs(5);

/// Wait for a timer that is not set.
const NEVER: Duration = Duration::from_secs(24 * 3_600);

/// Serves one accepted connection to its end.
pub async fn serve(node: Arc<NodeContext>, tcp: TcpStream, peer: IpAddr, listener: Listener) {
    debug!(%peer, listener = listener.name(), "connection accepted");
    if let Err(error) = run(node, tcp, peer, listener).await {
        debug!(%peer, %error, "connection lost");
    }
}

async fn run(node: Arc<NodeContext>, tcp: TcpStream, peer: IpAddr, listener: Listener) -> io::Result<()> {
    let opened = node.now();
    socket::prepare(&tcp, Duration::from_secs(node.config().limits.tcp_keepalive_s))?;
    let seed = node.random::<32>().ok_or_else(|| io::Error::other("no randomness"))?;
    let patience = Duration::from_secs(node.config().components.handshake_timeout_s);
    let socket = match listener {
        Listener::ComponentTls => Socket::Tls(accept_tls(&node, tcp, listener, patience).await?.0),
        _ => Socket::Plain(tcp),
    };
    let shown = node.components.external();
    let machine = ComponentMachine::new(Arc::clone(&shown), seed, opened);
    let mut opening = Opening {
        node,
        shown,
        machine,
        socket,
        peer,
        buffer: vec![0; READ_BYTES],
        handle: None,
        early: VecDeque::new(),
    };
    let result = opening.shake_hands().await;
    let Opening { node, shown, machine, mut socket, buffer, handle, mut early, .. } = opening;
    let Some(handle) = handle else {
        result?;
        timeout(GOODBYE, socket.shutdown()).await??;
        linger(&mut socket).await;
        return Ok(());
    };
    if let Err(error) = &result {
        debug!(jid = %handle.jid, %error, "connection lost");
        handle.end(Ending::Gone(Bytes::new()));
    }
    let (reader, writer) = tokio::io::split(socket);
    let reading = Reading { node: Arc::clone(&node), handle: Arc::clone(&handle), machine, reader, buffer };
    if reading.machine.is_ended() {
        // Its end came right behind the handshake, and was answered: nothing may be written behind that.
        reading.take_all(&mut early).await;
        reading.handle.end(Ending::Gone(Bytes::new()));
    }
    let reading = actix_rt::spawn(reading.run(early));
    let external = External::new(&node, &handle, shown, writer);
    host::run(node, handle, external).await;
    // It ends by itself: it has been told, and every wait of it is bounded.
    let _ = reading.await;
    Ok(())
}

/// A connection before its handshake is done.
struct Opening {
    node: Arc<NodeContext>,
    /// The secrets by which the machine judges: those of the moment when the connection was accepted.
    shown: Arc<ComponentConfig>,
    machine: ComponentMachine,
    socket: Socket,
    peer: IpAddr,
    buffer: Vec<u8>,
    /// Set once it is attached.
    handle: Option<Arc<ComponentHandle>>,
    /// What came right behind the handshake.
    early: VecDeque<Element>,
}

impl Opening {
    async fn shake_hands(&mut self) -> io::Result<()> {
        let mut stopping = self.node.stopping.subscribe();
        while !self.machine.is_established() && !self.machine.is_ended() {
            let mut actions = Vec::new();
            let now = self.node.now();
            let patience = self.machine.deadline().map_or(NEVER, |deadline| deadline.since(now));
            let input = tokio::select! {
                count = self.socket.read(&mut self.buffer) => match count? {
                    0 => ComponentInput::PeerClosed,
                    count => ComponentInput::Bytes(self.buffer.get(..count).unwrap_or_default()),
                },
                () = sleep(patience) => ComponentInput::Timer,
                () = self.node.lease.lost() => ComponentInput::Fail(cut_off()),
                _ = stopping.wait_for(|stopping| *stopping) => {
                    ComponentInput::Fail(StreamCondition::SystemShutdown.into())
                }
            };
            self.machine.handle(input, self.node.now(), &mut actions);
            self.perform(actions.into()).await?;
        }
        Ok(())
    }

    async fn perform(&mut self, mut actions: VecDeque<ComponentAction>) -> io::Result<()> {
        while let Some(action) = actions.pop_front() {
            match action {
                ComponentAction::Send(bytes) => {
                    timeout(GOODBYE, async {
                        self.socket.write_all(&bytes).await?;
                        self.socket.flush().await
                    })
                    .await??;
                }
                ComponentAction::Attach(domain) => {
                    let attached = self.attach(&domain).await;
                    let mut more = Vec::new();
                    let answer = ComponentInput::Attached(attached);
                    self.machine.handle(answer, self.node.now(), &mut more);
                    actions.extend(more);
                }
                ComponentAction::Element(element) => self.early.push_back(element),
                ComponentAction::StreamFailed(condition) => self.failed(condition),
                // The loop above looks at the machine's state.
                ComponentAction::Close => {}
            }
        }
        Ok(())
    }

    async fn attach(&mut self, domain: &DomainPart) -> Result<(), StreamError> {
        let known = &self.node.config().components.external;
        let exclusive = known.iter().any(|known| known.exclusive && known.domain == domain.as_str());
        let origin = Origin { peer: Some(self.peer), description: None };
        self.still_right(domain)?;
        let handle = attach(&self.node, domain.as_str(), exclusive, origin).await?;
        // Once more: a reload has told the components that were there then, and this one may not have been.
        if let Err(error) = self.still_right(domain) {
            detach(&self.node, &handle, VecDeque::new()).await;
            return Err(error);
        }
        self.node.metrics.component_handshake(Attachment::Attached);
        self.handle = Some(handle);
        Ok(())
    }

    /// Whether the secret that was shown is the one of now: a reload may have come since the connection was accepted.
    fn still_right(&self, domain: &DomainPart) -> Result<(), StreamError> {
        match self.node.components.changed_since(&self.shown, domain.as_str()) {
            None => Ok(()),
            Some(Changed::Removed) => Err(StreamCondition::HostUnknown.into()),
            Some(Changed::Secret) => Err(StreamCondition::NotAuthorized.into()),
        }
    }

    fn failed(&self, condition: StreamCondition) {
        if self.handle.is_none() {
            let result = match condition {
                StreamCondition::NotAuthorized => Attachment::NotAuthorized,
                _ => Attachment::Refused,
            };
            self.node.metrics.component_handshake(result);
            let (peer, domain) = (self.peer, self.machine.domain().map(tracing::field::display));
            warn!(%peer, to = domain, condition = condition.name(), "component refused");
        }
        self.node.metrics.stream_error(condition);
    }
}

/// The component's side of an attached connection: from its socket to the router.
struct Reading<R> {
    node: Arc<NodeContext>,
    handle: Arc<ComponentHandle>,
    machine: ComponentMachine,
    reader: R,
    buffer: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Reading<R> {
    async fn run(mut self, mut elements: VecDeque<Element>) {
        loop {
            self.take_all(&mut elements).await;
            let count = tokio::select! {
                biased;
                _ = self.handle.asked_to_end() => break,
                count = self.reader.read(&mut self.buffer) => count.unwrap_or(0),
            };
            // Looked at after the read: what has piled up while the process stood still is not acted on.
            if !self.node.lease.holds() && !self.node.lease.serving().await {
                break;
            }
            let mut actions = Vec::new();
            let input = match self.buffer.get(..count) {
                None | Some([]) => ComponentInput::PeerClosed,
                Some(bytes) => ComponentInput::Bytes(bytes),
            };
            // Open streams follow a reload.
            self.machine.set_limits(self.node.components.external().limits_after);
            self.machine.handle(input, self.node.now(), &mut actions);
            let mut words = BytesMut::new();
            for action in actions {
                match action {
                    ComponentAction::Element(element) => elements.push_back(element),
                    ComponentAction::Send(bytes) => words.extend_from_slice(&bytes),
                    ComponentAction::StreamFailed(condition) => {
                        info!(jid = %self.handle.jid, condition = condition.name(), "component's stream fails");
                        self.node.metrics.stream_error(condition);
                    }
                    // The machine asks for nothing else after the handshake.
                    _ => {}
                }
            }
            if self.machine.is_ended() {
                self.take_all(&mut elements).await;
                self.handle.end(Ending::Gone(words.freeze()));
                break;
            }
        }
        linger(&mut self.reader).await;
    }

    /// Takes what has come, to the first that ends the stream: what is behind that means nothing (RFC 6120 §4.9.1.1).
    async fn take_all(&self, elements: &mut VecDeque<Element>) {
        for element in elements.drain(..) {
            if let Err(error) = self.take(element, self.handle.lanes().bare()).await {
                self.node.metrics.stream_error(error.condition);
                self.handle.end(Ending::Gone(last_words(Some(&error))));
                return;
            }
        }
    }

    /// One first-level element: checked, then routed.
    async fn take(&self, element: Element, domain: &BareJid) -> Result<(), StreamError> {
        let is_ours = |jid: &Jid| jid.domain() == domain.domain();
        let stanza = match Stanza::parse(element) {
            Ok(stanza) => match stanza.from() {
                Some(from) if is_ours(from) => stanza,
                Some(_) => return Err(invalid_from()),
                // §3 wants it. Others take one without for the component's own, and so do we.
                None => stanza.with_from(domain.clone()),
            },
            Err(ParseError::Answer(answer, condition)) => {
                let answer = match answer.to() {
                    Some(to) if is_ours(to) => *answer,
                    Some(_) => return Err(invalid_from()),
                    None => answer.with_to(domain.clone()),
                };
                self.node.metrics.stanza_error(condition);
                self.answer(answer);
                return Ok(());
            }
            Err(ParseError::Stream(error)) => return Err(error),
            Err(ParseError::Ignore(why)) => {
                debug!(stop = "stream.component", reason = why, "stanza dropped");
                self.node.metrics.dropped(Dropped::Malformed);
                return Ok(());
            }
            Err(ParseError::NotAStanza(element)) => {
                let text = format!("<{}/> is no stanza", element.name());
                return Err(StreamError::new(StreamCondition::UnsupportedStanzaType, text));
            }
        };
        let stanza = stanza.without_forgeries(|domain| self.node.serves(domain));
        self.node.metrics.component_stanza(stanza.kind(), Direction::In);
        self.handle.count_sent();
        debug!(
            stop = "stream.component",
            direction = "in",
            kind = stanza.kind().element_name(),
            id = stanza.id(),
            jid = %self.handle.jid
        );
        if stanza.to().is_none() {
            let error = StanzaError::new(StanzaCondition::BadRequest, "a component's stanza needs a 'to'");
            match stanza.error(error) {
                Some(answer) => {
                    self.node.metrics.stanza_error(StanzaCondition::BadRequest);
                    self.answer(answer);
                }
                None => self.node.metrics.dropped(Dropped::Malformed),
            }
            return Ok(());
        }
        drive(&self.node, delivery::from_component(&self.node, stanza).into()).await;
        Ok(())
    }

    /// A word of the stream itself on a stanza that cannot be routed.
    fn answer(&self, answer: Stanza) {
        if self.handle.put(0, answer).is_err() {
            self.node.metrics.dropped(Dropped::InboxFull);
        }
    }
}

fn invalid_from() -> StreamError {
    StreamError::new(StreamCondition::InvalidFrom, "the 'from' attribute is not of the component's domain")
}

/// The writing side of an attached connection.
struct External<W> {
    node: Arc<NodeContext>,
    handle: Arc<ComponentHandle>,
    /// The secrets among which it has shown its own.
    shown: Arc<ComponentConfig>,
    writer: W,
    buffer: Vec<u8>,
    written: usize,
    /// Where the letters end in `buffer` that are not written yet.
    ends: VecDeque<usize>,
    stall: Duration,
    keepalive: Duration,
}

impl<W: AsyncWrite + Send + Unpin + 'static> External<W> {
    fn new(
        node: &Arc<NodeContext>,
        handle: &Arc<ComponentHandle>,
        shown: Arc<ComponentConfig>,
        writer: W,
    ) -> Self {
        External {
            node: Arc::clone(node),
            handle: Arc::clone(handle),
            shown,
            writer,
            buffer: Vec::new(),
            written: 0,
            ends: VecDeque::new(),
            stall: Duration::from_secs(node.config().limits.outbox_stall_s),
            keepalive: Duration::from_secs(node.config().components.keepalive_s),
        }
    }

    /// Writes some of what is in the buffer. The patience is for each bit of progress.
    async fn write_some(&mut self, patience: Duration) -> io::Result<()> {
        let rest = self.buffer.get(self.written..).unwrap_or_default();
        let count = timeout(patience, self.writer.write(rest)).await??;
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.written += count;
        Ok(())
    }

    fn broken(&self, error: &io::Error) -> Ending {
        // Our own patience, and not the kernel's: then its host is gone, not slow.
        if error.kind() == io::ErrorKind::TimedOut && error.raw_os_error().is_none() {
            self.node.metrics.slow_consumer();
            warn!(jid = %self.handle.jid, "component takes nothing: its connection is closed");
            let text = "the component reads too slowly: limits.outbox_stall_s";
            return Ending::Error(StreamError::new(StreamCondition::PolicyViolation, text));
        }
        debug!(jid = %self.handle.jid, %error, "connection lost");
        Ending::Gone(Bytes::new())
    }
}

#[async_trait]
impl<W: AsyncWrite + Send + Sync + Unpin + 'static> Component for External<W> {
    async fn receive(
        &mut self,
        letters: &mut VecDeque<Letter>,
        node: &Arc<NodeContext>,
    ) -> Result<Effects, Ending> {
        self.buffer.clear();
        self.ends.clear();
        self.written = 0;
        for letter in &*letters {
            self.buffer.extend_from_slice(&letter.stanza.to_bytes());
            self.ends.push_back(self.buffer.len());
        }
        while self.written < self.buffer.len() {
            if !node.lease.holds() && !node.lease.serving().await {
                return Err(Ending::LeaseLost);
            }
            self.write_some(self.stall).await.map_err(|error| self.broken(&error))?;
            while self.ends.front().is_some_and(|end| *end <= self.written) {
                self.ends.pop_front();
                if let Some(Letter { stanza, .. }) = letters.pop_front() {
                    debug!(stop = "stream.component", direction = "out", id = stanza.id(), jid = %self.handle.jid);
                    node.metrics.component_stanza(stanza.kind(), Direction::Out);
                }
            }
        }
        let flushed = timeout(self.stall, self.writer.flush()).await.map_err(io::Error::from);
        flushed.and_then(|result| result).map_err(|error| self.broken(&error))?;
        self.buffer.clear();
        self.written = 0;
        self.buffer.shrink_to(READ_BYTES);
        Ok(Effects::new())
    }

    fn patience(&self) -> Option<Duration> {
        Some(self.keepalive)
    }

    /// Whitespace between stanzas means nothing (RFC 6120 §4.6.1), but a peer that is gone does not acknowledge it.
    async fn tick(&mut self, _: &Arc<NodeContext>) -> Result<Effects, Ending> {
        self.buffer = b" ".to_vec();
        self.written = 0;
        self.write_some(self.stall).await.map_err(|error| self.broken(&error))?;
        let flushed = timeout(self.stall, self.writer.flush()).await.map_err(io::Error::from);
        flushed.and_then(|result| result).map_err(|error| self.broken(&error))?;
        Ok(Effects::new())
    }

    fn configure(&mut self, config: &Config) -> Result<(), Ending> {
        self.stall = Duration::from_secs(config.limits.outbox_stall_s);
        self.keepalive = Duration::from_secs(config.components.keepalive_s);
        let error = match self.node.components.changed_since(&self.shown, self.handle.domain()) {
            None => return Ok(()),
            Some(Changed::Removed) => {
                let text = "the component is no longer configured here";
                StreamError::new(StreamCondition::HostGone, text)
            }
            // RFC 6120 §4.9.3.16: what it has shown is revoked.
            Some(Changed::Secret) => {
                StreamError::new(StreamCondition::Reset, "the component has another secret now")
            }
        };
        Err(Ending::Error(error))
    }

    async fn end(&mut self, reason: &Ending) {
        let words = match reason {
            Ending::Gone(words) => words.clone(),
            Ending::Error(error) => {
                self.node.metrics.stream_error(error.condition);
                last_words(Some(error))
            }
            Ending::LeaseLost => {
                self.node.metrics.stream_error(StreamCondition::SystemShutdown);
                last_words(Some(&cut_off()))
            }
        };
        // Where a stanza was written in part no word would be understood, and the stanza goes elsewhere whole.
        let is_between = self.written == self.buffer.len() || self.written == 0;
        let farewell = async {
            if is_between && !words.is_empty() {
                self.writer.write_all(&words).await?;
                self.writer.flush().await?;
            }
            self.writer.shutdown().await
        };
        // The peer may be gone already.
        let _ = timeout(GOODBYE, farewell).await;
    }
}
