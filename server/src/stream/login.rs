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

use althing_proto::jid::{BareJid, ResourcePart};
use althing_proto::sasl::{Mechanism, SaslCondition, TlsInfo};
use althing_proto::stream::BindError;
use althing_proto::stream::error::StreamCondition;

use crate::listener::tls::channel_bindings;
use crate::metrics::Handshake;
use crate::node::NodeContext;
use crate::session::SessionHandle;
use crate::session::actor::Session;
use crate::session::messages::{EndReason, Progress, Work};
use crate::session::outbox::Outbox;

/// How long a displaced session may take to say farewell before the new bind is answered all the same: its
/// route is gone already, so nothing reaches it.
const DISPLACED: Duration = Duration::from_secs(5);

/// Does the TLS handshake as a server, within `patience`: what is left of `limits.login_timeout_s`.
///
/// # Errors
/// Whatever ended it; there is nobody to tell.
pub async fn accept_tls(
    node: &NodeContext,
    tcp: TcpStream,
    direct: bool,
    patience: Duration,
) -> std::io::Result<(Box<TlsStream<TcpStream>>, TlsInfo)> {
    let context = node.tls().ok_or_else(|| std::io::Error::other("no certificate is configured"))?;
    let config = if direct { &context.direct } else { &context.starttls };
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
/// has been ended with `<conflict/>` when this returns (promise 1; RFC 6120 §7.7.2.2).
///
/// # Errors
/// [`BindError`] for the client.
pub async fn bind(
    node: &Arc<NodeContext>,
    user: &BareJid,
    resource: &ResourcePart,
    outbox: &Rc<Outbox>,
) -> Result<Arc<SessionHandle>, BindError> {
    let jid = user.with_resource(resource);
    let others = node.routes.locate_account(user).len();
    if others >= node.config.limits.sessions_per_account && node.routes.locate(&jid).is_none() {
        info!(%jid, others, "resource not bound: limits.sessions_per_account");
        return Err(BindError::ResourceConstraint);
    }
    let bound = node.routes.bind(&jid).await.map_err(|error| {
        info!(%jid, %error, "resource not bound");
        BindError::Unavailable
    })?;
    let session = Session::begin(node, jid.clone(), bound.index, outbox);
    node.sessions.insert(Arc::clone(&session));
    if let Some(old) = bound.displaced.and_then(|route| node.sessions.get(route.index)) {
        let reason = EndReason::Error(StreamCondition::Conflict.into());
        if timeout(DISPLACED, old.end(reason)).await.is_err() {
            info!(%jid, "the displaced session is slow to end");
        }
    }
    // A later bind on another arbiter, or the node's stop, may have looked for this session before it was there:
    // whoever comes second sees the other. The client learns it as if it had happened a moment later.
    let owner = node.routes.locate(&jid).is_some_and(|route| route.index == bound.index);
    let reason = match (owner, *node.stopping.borrow()) {
        (true, false) => None,
        (false, _) => Some(StreamCondition::Conflict),
        (true, true) => Some(StreamCondition::SystemShutdown),
    };
    if let Some(reason) = reason {
        session.end(EndReason::Error(reason.into())).await;
        return Ok(session);
    }
    match session.advance(Work::default()).await {
        Ok(Progress::Done) => {
            debug!(%jid, "resource bound");
            Ok(session)
        }
        // It could not load its roster: it has ended itself, and says so on the stream.
        _ => Ok(session),
    }
}
