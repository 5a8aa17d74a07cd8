//! A node that stops gives the sessions whose streams can be resumed to other nodes, where they wait for their clients
//! (XEP-0198 §5): nobody else notices.
//!
//! The session's route goes first, by `Move`, and with the session all that it knows; then its connection ends. A node that
//! does not take it passes it to the next; where none does, or there is no time, it ends here.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, timeout_at};
use tracing::{debug, info, warn};

use althing_cluster::link::LinkError;
use althing_cluster::node_id::{Incarnation, NodeId};
use althing_cluster::routes::NodeState;
use althing_cluster::task::{GiveStream, TaskReply};
use althing_proto::jid::FullJid;
use althing_proto::stream::Framing;
use althing_proto::stream::error::StreamCondition;

use super::SessionHandle;
use super::actor::Session;
use super::handed_over::HandedOver;
use super::messages::{EndReason, Work};
use super::outbox::Outbox;
use super::pressure::Pressure;
use crate::node::NodeContext;
use crate::stream::login;

/// Sessions that are on their way at the same time.
const AT_ONCE: usize = 128;

/// How long a node may take to take one.
const TAKE: Duration = Duration::from_secs(5);

/// How long all of them together wait until what their clients have sent is safe and stored.
const STORED: Duration = Duration::from_secs(2);

/// A node that can take sessions, and its start.
pub type Target = (NodeId, Incarnation);

/// Gives sessions to other nodes while this one stops.
pub struct Giver {
    node: Arc<NodeContext>,
    targets: Vec<Target>,
    turns: Arc<Semaphore>,
    next: AtomicUsize,
    /// No other begins after that.
    until: Instant,
    /// They wait for their store until then.
    stored: Instant,
}

impl Giver {
    /// For this node, with the others that are up, and for so long.
    #[must_use]
    pub fn new(node: &Arc<NodeContext>, patience: Duration) -> Self {
        let up = |peer: NodeId| match node.routes.node_state(peer) {
            Some(NodeState::Up(incarnation)) if peer != node.node_id => Some((peer, incarnation)),
            _ => None,
        };
        let targets = node.links.peers().into_iter().filter_map(up).collect();
        let (turns, now) = (Arc::new(Semaphore::new(AT_ONCE)), Instant::now());
        let (until, stored) = (now + patience, now + STORED);
        Giver { node: Arc::clone(node), targets, turns, next: AtomicUsize::new(0), until, stored }
    }

    /// Gives a session away; `false` where it has to end here: it has no stream that can be resumed, or there is no time.
    pub async fn give(&self, session: &Arc<SessionHandle>) -> bool {
        // Those that are to end here take no turn, and wait for none.
        if self.targets.is_empty() || timeout_at(self.until, session.can_move()).await != Ok(true) {
            return false;
        }
        let turn = timeout_at(self.until, Arc::clone(&self.turns).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else { return false };
        if Instant::now() >= self.until {
            return false;
        }
        // All of them get about as many.
        let first = self.next.fetch_add(1, Ordering::Relaxed) % self.targets.len();
        let targets: Vec<_> =
            self.targets.iter().cycle().skip(first).take(self.targets.len()).copied().collect();
        let giving = give(Arc::clone(&self.node), Arc::clone(session), targets, self.stored);
        // It comes to its end also where nobody has the time to wait for that: nothing is left half way.
        let given = tokio::spawn(async move {
            let given = giving.await;
            drop(turn);
            given
        });
        matches!(timeout_at(self.until + TAKE, given).await, Ok(Ok(true)))
    }
}

async fn give(
    node: Arc<NodeContext>,
    session: Arc<SessionHandle>,
    targets: Vec<Target>,
    stored: Instant,
) -> bool {
    let mut targets = targets.into_iter();
    let Some(mut asked) = targets.next() else { return false };
    let (given, closes) = oneshot::channel();
    let mut handed = match session.give(asked, closes, stored).await {
        Ok(handed) => handed,
        Err(why) => {
            debug!(jid = %session.jid, reason = ?why, "a session stays");
            return false;
        }
    };
    let taken = loop {
        match send(&node, &session.jid, asked, &handed).await {
            Answer::Taken => break true,
            // What is not there is found by its node (`session/orphans.rs`).
            Answer::Unknown => break true,
            // It stops too.
            Answer::Refused => {}
        }
        let Some(next) = targets.next() else { break false };
        match node.routes.move_to(&session.jid, handed.index, next).await {
            Ok(index) => (handed.index, asked) = (index, next),
            Err(_) => break false,
        }
    };
    if !taken {
        lost(&node, session.jid.clone(), handed).await;
    }
    // Its connection may be gone.
    let _ = given.send(());
    true
}

/// What a node says that is to take a session.
enum Answer {
    Taken,
    Refused,
    /// It may have it.
    Unknown,
}

async fn send(node: &NodeContext, jid: &FullJid, to: Target, handed: &HandedOver) -> Answer {
    let bytes = match handed.encode() {
        Ok(bytes) => bytes,
        Err(error) => {
            warn!(%jid, %error, "a session cannot be sent");
            return Answer::Refused;
        }
    };
    let sent = u32::try_from(handed.sent).unwrap_or(u32::MAX);
    let task = GiveStream { jid: jid.clone(), owner: handed.index, sent, session: bytes };
    match node.links.ask(to.0, task.into(), TAKE).await {
        Ok(TaskReply::GiveStream(true)) => Answer::Taken,
        Err(error @ (LinkError::Deadline | LinkError::Disconnected)) => {
            info!(%jid, member = %to.0, %error, "a session is not known to have been taken");
            Answer::Unknown
        }
        Err(error) => {
            info!(%jid, member = %to.0, %error, "a session is not taken");
            Answer::Refused
        }
        Ok(_) => Answer::Refused,
    }
}

/// Nobody has the session: it is here once more, without a connection, and ends as any other.
async fn lost(node: &Arc<NodeContext>, jid: FullJid, handed: HandedOver) {
    warn!(%jid, "a session is not taken by another node: it ends");
    let own = Arc::clone(node);
    let ended = on_an_arbiter(node, move || async move {
        let outbox = outbox(&own);
        let session = Session::resume(&own, jid, handed, &outbox, None);
        outbox.detach(Bytes::new());
        end_at_once(&own, session, EndReason::Error(StreamCondition::SystemShutdown.into())).await;
    });
    ended.await;
}

/// Ends a session that is there for nothing else.
pub(super) async fn end_at_once(node: &NodeContext, session: Arc<SessionHandle>, why: EndReason) {
    node.sessions.insert(Arc::clone(&session));
    // When this is answered it has loaded what it needs.
    let _ = session.advance(Work::default()).await;
    session.end(why).await;
}

/// Runs something where sessions are, and waits until it is done; `false` where it was not.
pub(super) async fn on_an_arbiter<F: Future<Output = ()> + 'static>(
    node: &NodeContext,
    run: impl FnOnce() -> F + Send + 'static,
) -> bool {
    let (finished, done) = oneshot::channel();
    let spawned = node.workers.get().is_some_and(|workers| {
        workers.spawn(move || {
            actix_rt::spawn(async move {
                run().await;
                // The asker may have lost its patience.
                let _ = finished.send(());
            });
        })
    });
    spawned && done.await.is_ok()
}

/// For a session without a connection.
pub(super) fn outbox(node: &NodeContext) -> Rc<Outbox> {
    let pressure = Arc::new(Pressure::new(node.bounds.mailbox_bytes.clone()));
    let waiting = node.metrics.presence_waiting();
    Rc::new(Outbox::new(node.bounds.outbox_bytes.clone(), pressure, Framing::Tcp, waiting))
}

/// Takes a session from a node that stops: it waits here for its client. `false`: not here.
pub async fn take(node: &Arc<NodeContext>, task: GiveStream) -> bool {
    if *node.stopping.borrow() || !node.lease.holds() {
        return false;
    }
    let mut handed = match HandedOver::decode(&task.session) {
        Ok(handed) => handed,
        Err(error) => {
            warn!(jid = %task.jid, %error, "what another node has given cannot be read");
            return false;
        }
    };
    handed.index = task.owner;
    handed.sent = usize::try_from(task.sent).unwrap_or(usize::MAX);
    let (own, jid) = (Arc::clone(node), task.jid);
    on_an_arbiter(node, move || async move { wait(&own, jid, handed).await }).await
}

/// The session waits without a connection.
async fn wait(node: &Arc<NodeContext>, jid: FullJid, handed: HandedOver) {
    let outbox = outbox(node);
    debug!(%jid, member = %handed.from, "session taken");
    let session = Session::resume(node, jid, handed, &outbox, None);
    outbox.detach(Bytes::new());
    node.sessions.insert(Arc::clone(&session));
    if let Some(reason) = login::overtaken(node, &session) {
        return session.end(reason).await;
    }
    let _ = session.advance(Work::default()).await;
    if !session.detach().await {
        debug!(jid = %session.jid, "a session that was taken has ended");
    }
}
