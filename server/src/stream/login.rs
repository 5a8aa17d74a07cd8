//! What the stream machine asks for before a resource is bound: TLS, the bind itself, and the word on how a
//! login ended.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{debug, info};

use althing_cluster::lease::Standing;
use althing_cluster::routes::{BindIndex, NodeState, Route};
use althing_cluster::task::ReplaceSession;
use althing_proto::jid::{BareJid, FullJid, ResourcePart};
use althing_proto::sasl::{Mechanism, SaslCondition, TlsInfo};
use althing_proto::stream::BindError;
use althing_proto::stream::error::StreamCondition;

use crate::listener::tls::channel_bindings;
use crate::metrics::{BindRefused, Handshake, Listener};
use crate::node::NodeContext;
use crate::session::SessionHandle;
use crate::session::actor::Session;
use crate::session::effect::{Effect, SessionChange};
use crate::session::messages::{EndReason, Progress, Work};
use crate::session::outbox::Outbox;

/// How long a displaced session may take to say farewell before the new bind is answered all the same: its
/// route is gone already, so nothing reaches it.
const DISPLACED: Duration = Duration::from_secs(5);

/// How long a login waits until the sessions of the node have heard of all losses.
const LOSSES: Duration = Duration::from_secs(5);

/// How long a bind waits for the node to serve again.
const LEASE: Duration = Duration::from_secs(5);

/// How long the node of a displaced session may take to answer before it is asked again.
const REPLACE: Duration = Duration::from_secs(10);

/// Pause before a node that did not answer is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// Does the TLS handshake as a server, within `patience`: what is left of `limits.login_timeout_s`.
///
/// # Errors
/// Whatever ended it; there is nobody to tell.
pub async fn accept_tls(
    node: &NodeContext,
    tcp: TcpStream,
    listener: Listener,
    patience: Duration,
) -> std::io::Result<(Box<TlsStream<TcpStream>>, TlsInfo)> {
    let context = node.tls().ok_or_else(|| std::io::Error::other("no certificate is configured"))?;
    let config = match listener {
        Listener::C2sTls => &context.direct,
        Listener::C2s | Listener::Component | Listener::ComponentTls => &context.starttls,
        Listener::Web | Listener::WebTls => &context.web,
    };
    let began = Instant::now();
    let accepted = timeout(patience, TlsAcceptor::from(Arc::clone(config)).accept(tcp)).await;
    let stream = match accepted.map_err(std::io::Error::from).and_then(|result| result) {
        Ok(stream) => stream,
        Err(error) => {
            node.metrics.handshake(Handshake::Failed, began.elapsed().as_secs_f64());
            return Err(error);
        }
    };
    let connection = stream.get_ref().1;
    let version = match connection.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_3) => Handshake::Tls13,
        _ => Handshake::Tls12,
    };
    node.metrics.handshake(version, began.elapsed().as_secs_f64());
    let (exporter, server_end_point) = channel_bindings(connection, &context);
    Ok((Box::new(stream), TlsInfo { exporter, server_end_point }))
}

/// Counts and logs how a login ended. The log does not say who: a user name in the wrong field may be a
/// password.
pub fn ended(node: &NodeContext, peer: IpAddr, mechanism: Option<Mechanism>, failure: Option<SaslCondition>) {
    node.metrics.login(mechanism, failure);
    let mechanism = mechanism.map(Mechanism::name);
    match failure {
        None => debug!(%peer, mechanism, "login succeeded"),
        Some(condition) => info!(%peer, mechanism, condition = condition.name(), "login failed"),
    }
}

/// Counts and logs a stream error of the stream machine.
pub fn failed(node: &NodeContext, peer: IpAddr, condition: StreamCondition) {
    node.metrics.stream_error(condition);
    debug!(%peer, condition = condition.name(), "stream ended with an error");
}

/// Makes this node the owner of the full JID and starts its session. An older session of the same full JID
/// has been ended with `<conflict/>` when this returns, or its node is down (promise 1; RFC 6120 §7.7.2.2).
///
/// # Errors
/// [`BindError`] for the client. A node without a lease binds nobody.
pub async fn bind(
    node: &Arc<NodeContext>,
    user: &BareJid,
    resource: &ResourcePart,
    outbox: &Rc<Outbox>,
    peer: Option<IpAddr>,
) -> Result<Arc<SessionHandle>, BindError> {
    let jid = user.with_resource(resource);
    if !node.lease.holds() && !matches!(timeout(LEASE, node.lease.serving()).await, Ok(true)) {
        node.metrics.turns.bind_refused(BindRefused::Unavailable);
        info!(%jid, "resource not bound: the node is suspended");
        return Err(BindError::Unavailable);
    }
    let others = node.routes.locate_account(user).len();
    if others >= node.config().limits.sessions_per_account && node.routes.locate(&jid).is_none() {
        node.metrics.turns.bind_refused(BindRefused::Sessions);
        info!(%jid, others, "resource not bound: limits.sessions_per_account");
        return Err(BindError::ResourceConstraint);
    }
    // Held until the session has begun, but not while an older one is ended: that may wait until its node is down.
    let place = node.admission.enter().await.map_err(|_| {
        node.metrics.turns.bind_refused(BindRefused::Waiting);
        info!(%jid, "resource not bound: limits.binds_waiting");
        BindError::ResourceConstraint
    })?;
    let bound = node.routes.bind(&jid).await.map_err(|error| {
        node.metrics.turns.bind_refused(BindRefused::Unavailable);
        info!(%jid, %error, "resource not bound");
        BindError::Unavailable
    })?;
    let session = Session::begin(node, jid.clone(), bound.index, outbox, peer);
    node.sessions.insert(Arc::clone(&session));
    let mut first = Work::default();
    let place = bound.displaced.is_none().then_some(place);
    if let Some(old) = bound.displaced
        && end_displaced(node, &jid, bound.index, &old).await != Displaced::Ended
    {
        first.effects.push_back(Effect::Session(SessionChange::TookOver));
    }
    // A later bind on another arbiter, or the node's stop, may have looked for this session before it was there:
    // whoever comes second sees the other. The client learns it as if it had happened a moment later.
    if let Some(reason) = overtaken(node, &session) {
        session.end(reason).await;
        return Ok(session);
    }
    // What its user writes comes after what a lost node has kept of it. In time or not.
    let _ = timeout(LOSSES, node.losses.all(node)).await;
    let begun = session.advance(first).await;
    drop(place);
    match begun {
        Ok(Progress::Done) => {
            debug!(%jid, "resource bound");
            Ok(session)
        }
        // It could not load its roster: it has ended itself, and says so on the stream.
        _ => Ok(session),
    }
}

/// Why a session that has just begun is over already, if it is.
pub(crate) fn overtaken(node: &NodeContext, session: &SessionHandle) -> Option<EndReason> {
    if node.lease.standing() == Standing::Lost {
        return Some(EndReason::LeaseLost);
    }
    let owner = node.routes.locate(&session.jid).is_some_and(|route| route.index == session.index);
    let condition = match (owner, *node.stopping.borrow()) {
        (true, false) => return None,
        (false, _) => StreamCondition::Conflict,
        (true, true) => StreamCondition::SystemShutdown,
    };
    Some(EndReason::Error(condition.into()))
}

/// What became of a displaced session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Displaced {
    /// It has ended, and said farewell.
    Ended,
    /// It is still about to end: it says nothing to its contacts any more.
    Slow,
    /// Its node is down: it said nothing.
    Lost,
}

/// Ends the session that the bind `by` has displaced. Returns when it has ended, or when its start of its node is
/// over: then its node acts no more. Gives up when this bind is displaced itself, or this node may not act.
async fn end_displaced(node: &NodeContext, jid: &FullJid, by: BindIndex, old: &Route) -> Displaced {
    if old.node == node.node_id {
        if let Some(session) = node.sessions.get(old.index) {
            let reason = EndReason::Error(StreamCondition::Conflict.into());
            if timeout(DISPLACED, session.end(reason)).await.is_err() {
                info!(%jid, "the displaced session is slow to end");
                session.pressure().set_displaced();
                return Displaced::Slow;
            }
        }
        return Displaced::Ended;
    }
    let task = ReplaceSession { jid: jid.clone(), owner: old.index, by };
    let is_up = || node.routes.node_state(old.node) == Some(NodeState::Up(old.incarnation));
    let is_owner = || node.routes.locate(jid).is_some_and(|route| route.index == by);
    while is_up() && is_owner() && !*node.stopping.borrow() && node.lease.standing() != Standing::Lost {
        match node.links.ask(old.node, task.clone().into(), REPLACE).await {
            Ok(_) => return Displaced::Ended,
            Err(error) => {
                debug!(%jid, member = %old.node, %error, "the displaced session is not known to end")
            }
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
    Displaced::Lost
}
