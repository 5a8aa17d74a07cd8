//! A node that stops gives the sessions whose streams can be resumed to other nodes, where they wait for their clients
//! (XEP-0198 §5): nobody else notices.
//!
//! The session's route goes first, by `Move`, and with the session all that it knows; then its connection ends. A node that
//! does not take it passes it to the next; where none does it ends here.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};
use tracing::{debug, info, warn};

use althing_cluster::node_id::{Incarnation, NodeId};
use althing_cluster::routes::NodeState;
use althing_cluster::task::{GiveStream, TaskReply};
use althing_proto::jid::FullJid;
use althing_proto::stream::Framing;

use super::SessionHandle;
use super::actor::Session;
use super::handed_over::HandedOver;
use super::messages::Work;
use super::outbox::Outbox;
use super::pressure::Pressure;
use crate::delivery;
use crate::node::NodeContext;
use crate::router::steps;
use crate::stream::login;

/// Sessions that are on their way at the same time.
const AT_ONCE: usize = 128;

/// How long a node may take to take one.
const TAKE: Duration = Duration::from_secs(5);

/// A node that can take sessions, and its start.
pub type Target = (NodeId, Incarnation);

/// Gives sessions to other nodes while this one stops.
pub struct Giver {
    node: Arc<NodeContext>,
    targets: Vec<Target>,
    turns: Semaphore,
    next: AtomicUsize,
}

impl Giver {
    /// For this node, with the others that are up.
    #[must_use]
    pub fn new(node: &Arc<NodeContext>) -> Self {
        let up = |peer: NodeId| match node.routes.node_state(peer) {
            Some(NodeState::Up(incarnation)) if peer != node.node_id => Some((peer, incarnation)),
            _ => None,
        };
        let targets = node.links.peers().into_iter().filter_map(up).collect();
        Giver { node: Arc::clone(node), targets, turns: Semaphore::new(AT_ONCE), next: AtomicUsize::new(0) }
    }

    /// Gives a session away; `false` where it has to end here, or has no stream that can be resumed.
    pub async fn give(&self, session: &SessionHandle) -> bool {
        if self.targets.is_empty() {
            return false;
        }
        // Nobody closes it.
        let _turn = self.turns.acquire().await;
        // All of them get about as many.
        let first = self.next.fetch_add(1, Ordering::Relaxed) % self.targets.len();
        let (later, sooner) = self.targets.split_at(first);
        let mut targets = sooner.iter().chain(later);
        let Some(target) = targets.next() else { return false };
        let (given, closes) = oneshot::channel();
        let mut handed = match session.give(*target, closes).await {
            Ok(handed) => handed,
            Err(why) => {
                debug!(jid = %session.jid, reason = ?why, "a session stays");
                return false;
            }
        };
        let mut asked = *target;
        let taken = loop {
            match self.send(&session.jid, asked, &handed).await {
                Ok(true) => break true,
                // It stops too.
                Ok(false) => {}
                Err(()) => break false,
            }
            let Some(next) = targets.next() else { break false };
            match self.node.routes.move_to(&session.jid, handed.index, *next).await {
                Ok(index) => (handed.index, asked) = (index, *next),
                Err(_) => break false,
            }
        };
        if !taken {
            self.lost(&session.jid, handed).await;
        }
        // Its connection may be gone.
        let _ = given.send(());
        true
    }

    async fn send(&self, jid: &FullJid, to: Target, handed: &HandedOver) -> Result<bool, ()> {
        let bytes = handed.encode().map_err(|error| warn!(%jid, %error, "a session cannot be sent"))?;
        let sent = u32::try_from(handed.sent).unwrap_or(u32::MAX);
        let task = GiveStream { jid: jid.clone(), owner: handed.index, sent, session: bytes };
        match self.node.links.ask(to.0, task.into(), TAKE).await {
            Ok(TaskReply::GiveStream(taken)) => Ok(taken),
            Ok(_) => Err(()),
            Err(error) => {
                info!(%jid, member = %to.0, %error, "a session is not known to have been taken");
                Err(())
            }
        }
    }

    /// Nobody has the session: it ends, as if its client had gone.
    async fn lost(&self, jid: &FullJid, mut handed: HandedOver) {
        warn!(%jid, "a session is not taken by another node: it ends");
        // An error says that it has another owner.
        let _ = self.node.routes.unbind(jid, handed.index).await;
        let (messages, answers) = super::actor::elsewhere(handed.take_unsent(), jid);
        for message in messages {
            let effects = steps::once_more(&self.node, message, 1).await;
            delivery::drive(&self.node, effects).await;
        }
        delivery::drive(&self.node, answers).await;
    }
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
    let (taken, done) = oneshot::channel();
    let spawned = node.workers.get().is_some_and(|workers| {
        workers.spawn(move || {
            actix_rt::spawn(async move {
                wait(&own, jid, handed).await;
                // The asker may have lost its patience.
                let _ = taken.send(());
            });
        })
    });
    spawned && done.await.is_ok()
}

/// The session waits without a connection.
async fn wait(node: &Arc<NodeContext>, jid: FullJid, handed: HandedOver) {
    let pressure = Arc::new(Pressure::new(node.bounds.mailbox_bytes.clone()));
    let waiting = node.metrics.presence_waiting();
    let outbox = Rc::new(Outbox::new(node.bounds.outbox_bytes.clone(), pressure, Framing::Tcp, waiting));
    debug!(%jid, member = %handed.from, "session taken");
    let session = Session::resume(node, jid, handed, &outbox, None);
    node.sessions.insert(Arc::clone(&session));
    if let Some(reason) = login::overtaken(node, &session) {
        return session.end(reason).await;
    }
    let _ = session.advance(Work::default()).await;
    if !session.detach().await {
        debug!(jid = %session.jid, "a session that was taken has ended");
    }
}
