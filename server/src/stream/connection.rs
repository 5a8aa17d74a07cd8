//! One client's connection from accept to close: the only file that reads and writes its socket.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::ready;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use minidom::Element;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tracing::debug;

use althing_proto::stream::error::{StreamCondition, StreamError};
use althing_proto::stream::{Action, Input, Resumption, StreamMachine, TlsInfo, Transport};

use super::lane::{advance, ask, log_arrival};
use super::silence::Silence;
use super::socket::{self, Socket};
use super::{login, resume, writer};
use crate::listener::tcp::ByAddress;
use crate::listener::web::{self, Upgraded};
use crate::metrics::Listener;
use crate::node::NodeContext;
use crate::session::SessionHandle;
use crate::session::messages::{EndReason, Work};
use crate::session::outbox::Outbox;
use crate::session::pressure::Pressure;
use crate::turns::Turns;
use crate::{auth, modules};

/// Bytes read at a time.
const READ_BYTES: usize = 16 * 1024;

/// Wait for a timer that is not set: longer than any login.
const NEVER: Duration = Duration::from_secs(24 * 3_600);

/// After our last words, what the peer still sends is read and dropped for so long and so much: closing a
/// socket with unread bytes resets it, and the peer would never see why.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 4 * 1024 * 1024;

thread_local! {
    /// One read buffer an arbiter: the machine consumes what was read before anything else runs, so an idle
    /// connection owns no buffer.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// Serves one accepted connection of a client to its end.
pub async fn serve(node: Arc<NodeContext>, tcp: TcpStream, peer: IpAddr, listener: Listener) {
    debug!(%peer, listener = listener.name(), "connection accepted");
    if let Err(error) = Connection::run(node, tcp, peer, listener).await {
        debug!(%peer, %error, "connection lost");
    }
}

struct Connection {
    node: Arc<NodeContext>,
    machine: StreamMachine,
    socket: Socket,
    peer: IpAddr,
    began: Instant,
    outbox: Rc<Outbox>,
    /// Set once a resource is bound.
    session: Option<Arc<SessionHandle>>,
    /// Whether the stream has ended with its end tag or an error: else it is unfinished (XEP-0198 §7).
    in_order: bool,
    /// What the client sent right behind its bind.
    early: VecDeque<Element>,
    /// What was read while the node was suspended, and the machine has not seen.
    kept: Vec<u8>,
    /// Its place among the connections of its address, where a proxy's is the socket's.
    _by_address: Option<ByAddress>,
}

impl Connection {
    async fn run(node: Arc<NodeContext>, tcp: TcpStream, peer: IpAddr, listener: Listener) -> io::Result<()> {
        let (began, opened) = (Instant::now(), node.now());
        let config = Arc::clone(&node.config());
        let limits = &config.limits;
        socket::prepare(&tcp, Duration::from_secs(limits.tcp_keepalive_s))?;
        let seed = node.random::<32>().ok_or_else(|| io::Error::other("no randomness"))?;
        let patience = Duration::from_secs(limits.login_timeout_s);
        let (mut socket, tls) = match listener {
            Listener::C2s | Listener::Web | Listener::Component => (Socket::Plain(tcp), None),
            Listener::C2sTls | Listener::WebTls | Listener::ComponentTls => {
                let accepted = login::accept_tls(&node, tcp, listener, patience);
                let (stream, info) = Turns::here(&node.metrics.turns).each(accepted).await?;
                (Socket::Tls(stream), Some(info))
            }
        };
        let (mut peer, mut first, mut by_address) = (peer, Vec::new(), None);
        let transport = match (listener, tls) {
            (Listener::Web | Listener::WebTls, tls) => {
                let left = patience.saturating_sub(began.elapsed());
                let Some(upgraded) = open_websocket(&node, &mut socket, peer, listener, left).await? else {
                    return part(&mut socket).await;
                };
                (peer, first, by_address) = (upgraded.peer, upgraded.early, upgraded.by_address);
                Transport::WebSocket(tls.or(upgraded.secured.then(TlsInfo::default)))
            }
            (_, Some(info)) => Transport::DirectTls(info),
            (_, None) => Transport::Plain,
        };
        let machine = StreamMachine::new(node.stream_config(), transport, seed, opened);
        let pressure = Arc::new(Pressure::new(node.bounds.mailbox_bytes.clone()));
        let outbox = Rc::new(Outbox::new(
            node.bounds.outbox_bytes.clone(),
            pressure,
            machine.framing(),
            node.metrics.presence_waiting(),
        ));
        let early = VecDeque::new();
        let mut connection = Connection {
            node,
            machine,
            socket,
            peer,
            began,
            outbox,
            session: None,
            in_order: false,
            early,
            kept: Vec::new(),
            _by_address: by_address,
        };
        let turns = Turns::here(&connection.node.metrics.turns);
        let result = turns.each(connection.log_in(&first)).await;
        drop(first);
        match connection.session.take() {
            Some(session) if result.is_ok() && connection.machine.is_established() => {
                connection.converse(session).await;
                Ok(())
            }
            Some(session) => {
                // What came right behind the bind counts, even if the end of the stream was in the same read.
                let elements = std::mem::take(&mut connection.early);
                advance(&connection.node, &session, Work { elements, ..Work::default() }).await;
                if connection.in_order || !session.detach().await {
                    session.end(EndReason::ClientGone).await;
                }
                result
            }
            None => {
                result?;
                part(&mut connection.socket).await
            }
        }
    }

    /// Drives the machine until a resource is bound or the stream has ended. `first` came before.
    async fn log_in(&mut self, first: &[u8]) -> io::Result<()> {
        let mut stopping = self.node.stopping.subscribe();
        if !first.is_empty() {
            let mut actions = Vec::new();
            self.machine.handle(Input::Bytes(first), self.node.now(), &mut actions);
            self.perform(actions.into()).await?;
        }
        while !self.machine.is_established() && !self.machine.is_ended() {
            let mut actions = Vec::new();
            let now = self.node.now();
            let patience = self.machine.deadline().map_or(NEVER, |deadline| deadline.since(now));
            tokio::select! {
                read = read(&self.node, &mut self.socket, &mut self.machine, &mut self.kept, &mut actions) => {
                    if read? == 0 {
                        self.machine.handle(Input::PeerClosed, self.node.now(), &mut actions);
                    }
                }
                () = sleep(patience) => self.machine.handle(Input::Timer, self.node.now(), &mut actions),
                () = self.node.lease.lost() => {
                    // At once, so that the client tries another node.
                    let text = "this server has lost the other servers of its cluster: try another";
                    let error = StreamError::new(StreamCondition::SystemShutdown, text);
                    self.machine.handle(Input::Fail(error), self.node.now(), &mut actions);
                }
                _ = stopping.wait_for(|stopping| *stopping) => {
                    let error = StreamCondition::SystemShutdown.into();
                    self.machine.handle(Input::Fail(error), self.node.now(), &mut actions);
                }
            }
            self.perform(actions.into()).await?;
        }
        Ok(())
    }

    /// Performs what the machine asks for during the login.
    async fn perform(&mut self, mut actions: VecDeque<Action>) -> io::Result<()> {
        while let Some(action) = actions.pop_front() {
            let mut more = Vec::new();
            match action {
                Action::Send(bytes) => {
                    let patience = Duration::from_secs(self.node.config().limits.login_timeout_s);
                    timeout(patience, async {
                        self.socket.write_all(&bytes).await?;
                        self.socket.flush().await
                    })
                    .await??;
                }
                Action::StartTls => {
                    self.start_tls(&mut more).await?;
                }
                Action::FetchCredentials { user } => {
                    let reply = auth::fetch_credentials(&self.node, &user).await;
                    self.machine.handle(Input::Credentials(reply), self.node.now(), &mut more);
                }
                Action::CheckPassword { user, password } => {
                    let verdict = auth::check_password(&self.node, &user, password).await;
                    self.machine.handle(Input::PasswordChecked(verdict), self.node.now(), &mut more);
                }
                Action::Bind { user, resource, .. } => {
                    let bound =
                        login::bind(&self.node, &user, &resource, &self.outbox, Some(self.peer)).await;
                    let result = bound.map(|session| {
                        self.node.metrics.session_set_up(self.began.elapsed().as_secs_f64());
                        let jid = session.jid.clone();
                        self.session = Some(session);
                        jid
                    });
                    self.machine.handle(Input::Bound(result), self.node.now(), &mut more);
                }
                Action::LoginEnded { mechanism, failure } => {
                    login::ended(&self.node, self.peer, mechanism, failure);
                }
                Action::StreamFailed(condition) => {
                    self.in_order = true;
                    login::failed(&self.node, self.peer, condition);
                }
                Action::Resume { user, previd, handled } => {
                    let (claim, peer) = ((previd.as_str(), handled), Some(self.peer));
                    let resumed = resume::resume(&self.node, &user, claim, &self.outbox, peer).await;
                    let result = resumed.map(|(session, handled)| {
                        let jid = session.jid.clone();
                        self.session = Some(session);
                        Resumption { jid, handled }
                    });
                    self.machine.handle(Input::Resumed(result), self.node.now(), &mut more);
                }
                Action::PreLogin(element) => {
                    let domain = self.machine.domain().cloned();
                    let answer = modules::before_login(&self.node, element, domain, self.peer).await;
                    self.machine.handle(Input::PreLoginReply(answer), self.node.now(), &mut more);
                }
                Action::Element(element) => self.early.push_back(element),
                Action::StreamClosed => self.in_order = true,
                // The loop above looks at the machine's state.
                Action::Close => {}
            }
            actions.extend(more);
        }
        Ok(())
    }

    /// RFC 6120 §5.4.3: the handshake, on the socket that was plain so far.
    async fn start_tls(&mut self, more: &mut Vec<Action>) -> io::Result<()> {
        let Socket::Plain(tcp) = std::mem::replace(&mut self.socket, Socket::Handshaking) else {
            return Err(io::Error::other("TLS on TLS"));
        };
        let patience = self.machine.deadline().map_or(NEVER, |deadline| deadline.since(self.node.now()));
        let (stream, info) = login::accept_tls(&self.node, tcp, Listener::C2s, patience).await?;
        self.socket = Socket::Tls(stream);
        self.machine.handle(Input::TlsEstablished(info), self.node.now(), more);
        Ok(())
    }

    /// Carries elements to the session and its bytes to the socket, until either side ends.
    async fn converse(self, session: Arc<SessionHandle>) {
        let Connection { node, mut machine, socket, peer, outbox, early, mut in_order, mut kept, .. } = self;
        let (mut reader, write_half) = tokio::io::split(socket);
        let writer = {
            let (node, outbox) = (Arc::clone(&node), Rc::clone(&outbox));
            actix_rt::spawn(async move { writer::run(&node, write_half, outbox).await })
        };
        let mut silence = Silence::new(&node.config().limits);
        let mut elements = early;
        for element in &elements {
            log_arrival(element, &session);
        }
        loop {
            if !elements.is_empty() {
                let work = Work { elements: std::mem::take(&mut elements), ..Work::default() };
                if !advance(&node, &session, work).await {
                    break;
                }
            }
            let mut actions = Vec::new();
            tokio::select! {
                // What has come is looked at before the silence is: the process may have stood still.
                biased;
                () = outbox.ended() => break,
                read = read(&node, &mut reader, &mut machine, &mut kept, &mut actions) => {
                    silence.heard();
                    if read.unwrap_or(0) == 0 {
                        // All clients may be cut off at once.
                        Turns::here(&node.metrics.turns).next().await;
                        machine.handle(Input::PeerClosed, node.now(), &mut actions);
                    }
                }
                noticed = silence.noticed(&node) => {
                    // A node that is suspended reads nothing, so it knows nothing of silence.
                    if !node.lease.holds() {
                        silence.heard();
                    } else if !ask(&node, &session, &outbox, noticed).await {
                        break;
                    }
                }
            }
            let mut last_words = BytesMut::new();
            for action in actions {
                match action {
                    Action::Element(element) => {
                        log_arrival(&element, &session);
                        elements.push_back(element);
                    }
                    Action::StreamFailed(condition) => {
                        in_order = true;
                        login::failed(&node, peer, condition);
                    }
                    Action::StreamClosed => in_order = true,
                    Action::Send(bytes) => last_words.extend_from_slice(&bytes),
                    // The machine asks for nothing else once a resource is bound.
                    _ => {}
                }
            }
            if !machine.is_ended() && !last_words.is_empty() {
                // The machine's own answer to a ping of the WebSocket.
                if outbox.push_ready(last_words.split().freeze()).is_err() {
                    outbox.hang_up();
                }
            }
            if machine.is_ended() {
                advance(&node, &session, Work { elements, ..Work::default() }).await;
                if in_order || !outbox.is_managed() {
                    outbox.close(last_words.freeze());
                } else {
                    outbox.detach(last_words.freeze());
                }
                break;
            }
        }
        // All clients may be cut off at once.
        Turns::here(&node.metrics.turns).next().await;
        if in_order || !session.detach().await {
            session.end(EndReason::ClientGone).await;
        }
        // It ends by itself: every wait of it is bounded.
        let _ = writer.await;
        linger(&mut reader).await;
    }
}

/// What comes before a stream on an HTTP port; `None` where no stream follows.
async fn open_websocket(
    node: &NodeContext,
    socket: &mut Socket,
    peer: IpAddr,
    listener: Listener,
    patience: Duration,
) -> io::Result<Option<Upgraded>> {
    let mut stopping = node.stopping.subscribe();
    let proxied = listener == Listener::Web && node.config().web.trusts(peer);
    tokio::select! {
        opened = timeout(patience, web::open(node, socket, peer, proxied)) => opened?,
        _ = stopping.wait_for(|stopping| *stopping) => Ok(None),
    }
}

/// Ends a connection without a session, in order.
async fn part(socket: &mut Socket) -> io::Result<()> {
    timeout(LINGER, socket.shutdown()).await??;
    linger(socket).await;
    Ok(())
}

/// Reads once and hands the bytes to the machine; 0 at the end of the stream. The lease is looked at after the
/// read: a process that was stopped in between sees that it is over before it acts on what has piled up. While the
/// node is suspended the bytes are kept and nothing more is read; where the lease is lost they are dropped. May be dropped
/// where it waits: the next call goes on with what is in `kept`.
async fn read(
    node: &NodeContext,
    socket: &mut (impl AsyncRead + Unpin),
    machine: &mut StreamMachine,
    kept: &mut Vec<u8>,
    actions: &mut Vec<Action>,
) -> io::Result<usize> {
    let mut count = kept.len();
    if count == 0 {
        count = poll_fn(|cx| {
            SCRATCH.with_borrow_mut(|scratch| {
                let mut buffer = ReadBuf::new(scratch);
                ready!(Pin::new(&mut *socket).poll_read(cx, &mut buffer))?;
                let bytes = buffer.filled();
                if bytes.is_empty() {
                } else if node.lease.holds() {
                    node.bring_up_to_date(machine);
                    machine.handle(Input::Bytes(bytes), crate::clock::now(), actions);
                } else {
                    kept.extend_from_slice(bytes);
                }
                std::task::Poll::Ready(io::Result::Ok(bytes.len()))
            })
        })
        .await?;
    }
    if !kept.is_empty() {
        if node.lease.serving().await {
            node.bring_up_to_date(machine);
            machine.handle(Input::Bytes(kept), crate::clock::now(), actions);
        }
        *kept = Vec::new();
    }
    Ok(count)
}

/// Reads and drops what the peer still sends, within bounds.
pub(super) async fn linger(socket: &mut (impl AsyncRead + Unpin)) {
    let drop_all = async {
        let mut left = LINGER_BYTES;
        while left > 0 {
            let read = poll_fn(|cx| {
                SCRATCH.with_borrow_mut(|scratch| {
                    let mut buffer = ReadBuf::new(scratch);
                    ready!(Pin::new(&mut *socket).poll_read(cx, &mut buffer))?;
                    std::task::Poll::Ready(io::Result::Ok(buffer.filled().len()))
                })
            })
            .await;
            match read {
                Ok(count) if count > 0 => left = left.saturating_sub(count),
                _ => return,
            }
        }
    };
    // Time is up: the peer has had its chance.
    let _ = timeout(LINGER, drop_all).await;
}

#[cfg(test)]
mod tests {
    use althing_cluster::lease::{Lease, LeaseTimes, boot_time};
    use tokio::io::duplex;

    use super::*;

    /// What a client has sent is not looked at without a lease, and not lost.
    #[actix_rt::test]
    async fn a_suspended_node_keeps_what_it_has_read() {
        const LONG: Duration = Duration::from_secs(600);
        let mut node = NodeContext::for_tests();
        let lease = Lease::new(LeaseTimes { suspend: LONG, close: LONG * 2, down: LONG * 3 });
        lease.begin_anew();
        node.lease = lease.clone();
        let mut machine = StreamMachine::new(node.stream_config(), Transport::Plain, [7; 32], node.now());
        let (mut near, mut far) = duplex(1_000);
        let header = b"<stream:stream xmlns='jabber:client' to='localhost' version='1.0' \
            xmlns:stream='http://etherx.jabber.org/streams'>";
        far.write_all(&header[..40]).await.unwrap();
        let (mut kept, mut actions) = (Vec::new(), Vec::new());
        {
            let mut reading = Box::pin(read(&node, &mut near, &mut machine, &mut kept, &mut actions));
            let early = timeout(Duration::from_millis(50), &mut reading).await;
            assert!(early.is_err(), "acted without a lease");
            // Something else is looked at meanwhile, such as a timer.
        }
        far.write_all(&header[40..]).await.unwrap();
        lease.grant(boot_time(), LONG);
        for part in [40, header.len() - 40] {
            let read = read(&node, &mut near, &mut machine, &mut kept, &mut actions).await;
            assert_eq!(read.unwrap(), part);
        }
        assert!(matches!(actions.first(), Some(Action::Send(_))), "the stream's header is not answered");
    }
}
