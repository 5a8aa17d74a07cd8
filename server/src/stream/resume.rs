//! A client resumes a stream (XEP-0198 §5): its session is fetched, from this node or another, and goes on here.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use althing_cluster::node_id::{Incarnation, NodeId};
use althing_cluster::routes::{BindIndex, Route};
use althing_cluster::task::{StreamTaken, TakeStream, TaskReply};
use althing_proto::jid::{BareJid, FullJid};
use althing_proto::stream::ResumeError;
use althing_proto::stream::management::{Count, TooHigh};

use super::login;
use crate::delivery::{keep, local};
use crate::metrics::Resumed;
use crate::node::NodeContext;
use crate::session::SessionHandle;
use crate::session::actor::Session;
use crate::session::handed_over::{Claim, HandedOver, NotHanded, hash, session_of};
use crate::session::messages::Work;
use crate::session::outbox::Outbox;
use crate::session::records;

/// How long another node may take to hand a session over: longer than it takes to change the route table, or to fail.
const TAKE: Duration = Duration::from_secs(28);

/// How long a session may be on its way to the node that its route names.
pub(crate) const MOST_ON_ITS_WAY: Duration = TAKE;

/// How long this node's table may take to have what the other's has.
const CATCH_UP: Duration = Duration::from_secs(10);

/// How long a session may take to get to somebody else who claims it.
const MOVES: Duration = Duration::from_secs(20);

/// How often a session is looked for that others resume at the same time.
const ATTEMPTS: u32 = 4;

const UNKNOWN: ResumeError = ResumeError::Unknown { handled: None };

/// Resumes the stream that `previd` names, for a client that has handled so much of it. The session, and how much of the
/// client's is handled.
///
/// # Errors
/// [`ResumeError`] for the client, which may bind.
pub(crate) async fn resume(
    node: &Arc<NodeContext>,
    user: &BareJid,
    (previd, handled): (&str, Count),
    outbox: &Rc<Outbox>,
    peer: Option<IpAddr>,
) -> Result<(Arc<SessionHandle>, Count), ResumeError> {
    if node.config().limits.resume_s == 0 {
        return Err(ResumeError::Unsupported);
    }
    if !node.lease.holds() || *node.stopping.borrow() {
        return Err(ResumeError::Unavailable);
    }
    let Some(jid) = session_of(previd, user) else {
        node.metrics.streams.resumed(Resumed::Failed);
        return Err(UNKNOWN);
    };
    let _place = node.admission.enter().await.map_err(|_| ResumeError::Unavailable)?;
    let claim = Claim { hash: hash(previd, &jid), handled };
    let fetched = find(node, &jid, claim).await;
    node.metrics.streams.resumed(match &fetched {
        Ok(handed) if handed.from == node.node_id => Resumed::Here,
        Ok(_) => Resumed::Elsewhere,
        Err(_) => Resumed::Failed,
    });
    let handed = match fetched {
        Err(UNKNOWN) => {
            // §5: as far as the store knows; the client may bind.
            let closed = records::close(node, &jid, &claim.hash).await;
            // What it writes from now on comes after what the lost node has kept of it, here too. In time or not.
            let _ = timeout(CATCH_UP, node.losses.all(node)).await;
            return Err(closed.map_or(ResumeError::Unavailable, |handled| ResumeError::Unknown { handled }));
        }
        fetched => fetched?,
    };
    let handled = handed.handled;
    debug!(%jid, member = %handed.from, "stream resumed");
    let session = Session::resume(node, jid, handed, outbox, peer);
    node.sessions.insert(Arc::clone(&session));
    // A later bind, or the node's stop, may have looked for this session before it was there.
    if let Some(reason) = login::overtaken(node, &session) {
        session.end(reason).await;
        return Ok((session, handled));
    }
    // When this is answered it has loaded what it needs; or it has ended itself, and says so on the stream.
    let _ = session.advance(Work::default()).await;
    Ok((session, handled))
}

/// Fetches the session from where it is: from the next owner where somebody else has resumed it meanwhile, for the
/// latest of several resumers is the one who is there (§5).
async fn find(node: &Arc<NodeContext>, jid: &FullJid, claim: Claim) -> Result<HandedOver, ResumeError> {
    let mut asked = None;
    for _ in 0..ATTEMPTS {
        let other = || node.routes.locate(jid).filter(|route| Some(route.index) != asked);
        let mut route = other();
        if route.is_none() && node.routes.barrier().await.is_ok() {
            // It may have been bound elsewhere a moment ago.
            route = other();
        }
        let Some(route) = route else { return Err(UNKNOWN) };
        asked = Some(route.index);
        match fetch(node, jid, &route, claim).await {
            Err(ResumeError::Unknown { .. }) => {}
            fetched => return fetched,
        }
    }
    Err(UNKNOWN)
}

async fn fetch(
    node: &Arc<NodeContext>,
    jid: &FullJid,
    route: &Route,
    claim: Claim,
) -> Result<HandedOver, ResumeError> {
    if route.node == node.node_id {
        let to = (node.node_id, node.links.incarnation());
        let handed = claimed(node, jid, route.index, claim, to).await;
        if handed == Err(NotHanded::Unavailable) {
            tokio::spawn(give_up(Arc::clone(node), jid.clone(), *route));
        }
        return handed.map_err(not_handed);
    }
    let task = TakeStream {
        jid: jid.clone(),
        owner: route.index,
        token: Bytes::copy_from_slice(&claim.hash),
        handled: claim.handled.0,
    };
    let bytes = match node.links.ask(route.node, task.into(), TAKE).await {
        Ok(TaskReply::TakeStream(StreamTaken::Taken(bytes))) => bytes,
        Ok(TaskReply::TakeStream(StreamTaken::TooHigh { handled, sent })) => {
            return Err(ResumeError::TooHigh(TooHigh { handled: Count(handled), sent: Count(sent) }));
        }
        Ok(TaskReply::TakeStream(StreamTaken::Unavailable)) => {
            tokio::spawn(give_up(Arc::clone(node), jid.clone(), *route));
            return Err(ResumeError::Unavailable);
        }
        Ok(_) => return Err(UNKNOWN),
        Err(error) => {
            info!(%jid, member = %route.node, %error, "a stream cannot be fetched");
            tokio::spawn(give_up(Arc::clone(node), jid.clone(), *route));
            return Err(UNKNOWN);
        }
    };
    let handed = HandedOver::decode(&bytes).map_err(|error| {
        warn!(%jid, member = %route.node, %error, "what another node has handed over cannot be read");
        tokio::spawn(give_up(Arc::clone(node), jid.clone(), *route));
        UNKNOWN
    })?;
    // Whoever asks this node's table finds the session from now on.
    let _ = timeout(CATCH_UP, node.routes.wait_for(handed.index.log_index())).await;
    Ok(handed)
}

fn not_handed(why: NotHanded) -> ResumeError {
    match why {
        NotHanded::Unknown | NotHanded::Moving => UNKNOWN,
        NotHanded::Unavailable => ResumeError::Unavailable,
        NotHanded::TooHigh(too_high) => ResumeError::TooHigh(too_high),
    }
}

/// A session may have been given to this node though nobody was told: then nobody has it, and its route goes.
async fn give_up(node: Arc<NodeContext>, jid: FullJid, old: Route) {
    let known = async {
        loop {
            let applied = node.routes.applied();
            if node.routes.locate(&jid).is_none_or(|route| route.index != old.index)
                || !node.routes.wait_for(applied + 1).await
            {
                return;
            }
        }
    };
    // A move that comes later than this does not come.
    let _ = timeout(TAKE, known).await;
    let Some(route) = node.routes.locate(&jid).filter(|route| route.node == node.node_id) else { return };
    if route.index != old.index && local::session_soon(&node, &jid, route.index).await.is_none() {
        warn!(%jid, "a session was lost on its way from another node");
        // An error says that it has another owner.
        let _ = node.routes.unbind(&jid, route.index).await;
        // What it was to take is for others.
        keep::tell_those_there(&node, &jid.to_bare());
    }
}

/// Hands a session of this node over to whoever claims it; where somebody else does at the same time, that is done first.
async fn claimed(
    node: &NodeContext,
    jid: &FullJid,
    owner: BindIndex,
    claim: Claim,
    to: (NodeId, Incarnation),
) -> Result<HandedOver, NotHanded> {
    let session = local::session_soon(node, jid, owner).await.filter(|session| session.jid == *jid);
    let handed = session.ok_or(NotHanded::Unknown)?.hand_over(claim, to).await;
    if handed == Err(NotHanded::Moving) {
        let _ = timeout(MOVES, node.sessions.gone(owner)).await;
    }
    handed
}

/// Hands a session of this node over to a node that asks for it.
pub(crate) async fn hand_over(
    node: &NodeContext,
    to: (NodeId, Incarnation),
    task: &TakeStream,
) -> StreamTaken {
    let Ok(hash) = <[u8; 32]>::try_from(&task.token[..]) else { return StreamTaken::Unknown };
    let claim = Claim { hash, handled: Count(task.handled) };
    match claimed(node, &task.jid, task.owner, claim, to).await {
        Ok(handed) => match handed.encode() {
            Ok(bytes) => StreamTaken::Taken(bytes),
            Err(error) => {
                warn!(jid = %task.jid, %error, "a session cannot be sent to another node");
                StreamTaken::Unknown
            }
        },
        Err(NotHanded::Unknown | NotHanded::Moving) => StreamTaken::Unknown,
        Err(NotHanded::Unavailable) => StreamTaken::Unavailable,
        Err(NotHanded::TooHigh(TooHigh { handled, sent })) => {
            StreamTaken::TooHigh { handled: handled.0, sent: sent.0 }
        }
    }
}
