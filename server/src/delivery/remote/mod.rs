//! Stanzas for sessions on other nodes: as tasks over the links, in order for each receiver.
//!
//! In the good case a stanza costs one encoding and one entry in [`pending`], and nothing of the runtime. When a
//! session was not where the table had it, its target is held, and [`settle`](mod@settle) looks up once more for each stanza.

pub mod arrivals;
pub mod groups;
pub mod overflow;
pub mod pending;
mod settle;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tracing::debug;

use althing_cluster::executor::{TaskRefusal, TaskSource};
use althing_cluster::link::LinkError;
use althing_cluster::routes::{BindIndex, NodeState, Route};
use althing_cluster::task::{ClusterTask, DeliverCopy, DeliverStanza, SessionFound, TaskReply};
use althing_proto::jid::{FullJid, Jid};
use althing_proto::stanza::Stanza;

use super::keep::{Planned, taken_by_nobody};
use super::{Next, bounce, drive, kept, local};
use crate::metrics::Dropped;
use crate::node::NodeContext;
use crate::session::SessionHandle;
use crate::session::copies::Copies;
use crate::session::effect::Effect;
use crate::session::messages::EndReason;
use crate::session::pressure::BRAKE;
use arrivals::Arrivals;
use groups::{Group, Groups};
use overflow::Overflow;
use pending::{Behind, Brake, Outcome, Pending};

/// A stanza under way, and how often it has been tried.
#[derive(Debug, Clone)]
pub struct Parcel {
    /// The stanza as it was routed.
    pub stanza: Stanza,
    /// Attempts that have failed.
    pub tries: u8,
    /// Where it goes to other sessions of the account as well: until all of them have failed, this one is tried for
    /// its own target only.
    pub copies: Option<Copy>,
    /// It is for that very session, wherever it is, and for no other.
    pub only: bool,
    /// How often the node had lost its lease: after another loss it acts for nobody of before.
    pub losses: u64,
}

/// Why a stanza was not delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The node had no such session when it had applied that index, or has one that ends or moves.
    NoSession {
        /// The index.
        applied: u64,
        /// The session that was asked for.
        asked: BindIndex,
    },
    /// Nobody knows whether it was delivered there.
    Unsure(Route),
    /// It was not delivered there: this node had been declared down when it sent it.
    Stale,
    /// The session takes no more now.
    Congested,
    /// It cannot be delivered there, now or later.
    Never,
}

/// One of several copies of a stanza.
#[derive(Debug, Clone)]
pub struct Copy {
    /// All of them.
    pub copies: Arc<Copies>,
    /// Those that go to the same node.
    pub group: Group,
}

/// What became of a stanza that was to be sent to another node.
pub enum Posted {
    /// It is on its way, or waits for its turn.
    Taken,
    /// As `Taken`; a client that sent it goes on when that is done.
    Braked(BoxFuture<'static, ()>),
    /// Too much waits for the session or its node.
    Congested,
    /// It cannot be sent there.
    Impossible,
}

/// How often is looked whether what a session has sent is brought: soon at first. Nobody has to note for each answer who
/// waits for it.
const FIRST_LOOK: Duration = Duration::from_millis(2);
const LOOK: Duration = Duration::from_millis(32);

type Stanzas = Pending<Parcel, Failure>;

/// The stanzas of this node for sessions of others.
pub struct Remote {
    pending: Mutex<Stanzas>,
    /// How many targets are pending: without any, nobody takes the lock.
    targets: AtomicUsize,
    relieved: Notify,
    overflow: Overflow,
    /// Numbers of stanzas for several sessions.
    group: AtomicU64,
    /// Copies that other nodes have sent.
    groups: Mutex<Groups>,
    /// Stanzas that other nodes have sent and that wait for their sessions.
    arrivals: Arrivals,
    runtime: Handle,
}

impl Remote {
    /// Nothing is on its way. What has to wait does so on `runtime`: that of the links.
    #[must_use]
    pub fn new(runtime: Handle) -> Self {
        Remote {
            pending: Mutex::default(),
            targets: AtomicUsize::new(0),
            relieved: Notify::new(),
            overflow: Overflow::default(),
            group: AtomicU64::new(0),
            groups: Mutex::default(),
            arrivals: Arrivals::default(),
            runtime,
        }
    }

    /// The runtime for what belongs to no session.
    #[must_use]
    pub fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// The queues for presence and roster events that a full link did not take.
    #[must_use]
    pub fn overflow(&self) -> &Overflow {
        &self.overflow
    }

    /// The number of the next stanza for several sessions.
    pub fn next_group(&self) -> u64 {
        self.group.fetch_add(1, Ordering::Relaxed)
    }

    /// The copies, of those that the node `source` has sent, that `group` belongs to.
    pub fn copies_of(&self, source: TaskSource, group: Group) -> Arc<Copies> {
        self.groups.lock().of(source, group)
    }

    /// Stanzas of other nodes that wait for their sessions.
    #[must_use]
    pub fn arrivals(&self) -> &Arrivals {
        &self.arrivals
    }

    /// Waits until nothing that `from` has sent is out or waits here. The caller sets the deadline.
    pub async fn brought(&self, from: &FullJid) {
        let is_of = |parcel: &Parcel| parcel.stanza.from().is_some_and(|of| of.as_str() == from.as_str());
        let mut pause = FIRST_LOOK;
        while self.targets.load(Ordering::Acquire) > 0 && self.pending.lock().has(is_of) {
            sleep(pause).await;
            pause = (pause * 2).min(LOOK);
        }
    }

    /// Queues a stanza if earlier ones for `to` are still under way to another owner than `owner`, or held.
    pub fn wait_behind(
        &self,
        to: &FullJid,
        owner: Option<BindIndex>,
        (stanza, losses): (&Stanza, u64),
    ) -> Behind {
        if self.targets.load(Ordering::Acquire) == 0 {
            return Behind::Nothing;
        }
        let parcel = || Parcel { stanza: stanza.clone(), tries: 0, copies: None, only: false, losses };
        self.pending.lock().wait_behind(to, owner, stanza.to_bytes().len(), parcel)
    }

    fn note(&self, pending: &Stanzas) {
        self.targets.store(pending.len(), Ordering::Release);
    }

    /// Waits until nothing waits for `to` to be found, [`BRAKE`] at most: the pace of a client that goes on sending.
    pub async fn found(&self, to: &FullJid) {
        self.until(BRAKE, |pending| !pending.is_waited_for(to)).await;
    }

    /// Waits until nothing waits here to be looked up once more for `to`, `patience` at most.
    pub async fn settled(&self, to: &FullJid, patience: Duration) {
        self.until(patience, |pending| !pending.is_held(to)).await;
    }

    /// Waits until fewer stanzas are out to `to`, [`BRAKE`] at most.
    async fn relief(&self, to: &FullJid) {
        self.until(BRAKE, |pending| !pending.is_crowded(to)).await;
    }

    async fn until(&self, patience: Duration, is_so: impl Fn(&Stanzas) -> bool) {
        let relieved = async {
            loop {
                let notified = self.relieved.notified();
                tokio::pin!(notified);
                // Enabled before the look: it does not miss what comes in between.
                notified.as_mut().enable();
                if is_so(&self.pending.lock()) {
                    return;
                }
                notified.await;
            }
        };
        // Time is up: the sender goes on all the same.
        let _ = timeout(patience, relieved).await;
    }
}

/// Sends a stanza to the session of `route`, whose address is `to`.
pub fn post(node: &Arc<NodeContext>, to: &FullJid, route: &Route, parcel: Parcel) -> Posted {
    debug!(stop = "delivery.remote", %to, member = %route.node);
    if node.remote.overflow.holds(route.node) {
        return Posted::Congested;
    }
    let task = task(to, route, &parcel.stanza, parcel.copies.as_ref().map(|copy| copy.group));
    let copies = parcel.copies.as_ref().map(|copy| Arc::clone(&copy.copies));
    let number = match hold(node, to, route.index, parcel, Pending::sent) {
        Ok(number) => number,
        Err(posted) => return posted,
    };
    let answered = {
        // Weak, for the links hold it and the node holds the links.
        let (node, to, route, copies) = (Arc::downgrade(node), to.clone(), *route, copies.clone());
        move |reply| {
            let Some(node) = node.upgrade() else { return };
            finish(&node, &to, number, outcome(reply, route), copies.as_deref());
        }
    };
    match node.links.ask_then(route.node, &task, answered) {
        Ok(()) => {
            if node.routes.node_state(route.node) != Some(NodeState::Up(route.incarnation)) {
                // Declared down since the route was read: the link may be one that was dialed after that, and the
                // answer would come when the node is back, if ever.
                finish(node, to, number, Outcome::Failed(Failure::Unsure(*route)), copies.as_deref());
                return Posted::Taken;
            }
            match node.remote.pending.lock().brake(to, BRAKE) {
                Brake::None => Posted::Taken,
                Brake::For(pause) => Posted::Braked(Box::pin(sleep(pause))),
                Brake::UntilRelieved => {
                    let (node, to) = (Arc::clone(node), to.clone());
                    Posted::Braked(Box::pin(async move { node.remote.relief(&to).await }))
                }
            }
        }
        Err(LinkError::NotMember(_) | LinkError::PeerDown) => {
            finish(node, to, number, Outcome::Failed(Failure::Unsure(*route)), copies.as_deref());
            Posted::Taken
        }
        Err(problem) => {
            finish(node, to, number, Outcome::Done, None);
            if problem == LinkError::Full { Posted::Congested } else { Posted::Impossible }
        }
    }
}

/// Takes a stanza for a session of this node that is about to end: it is looked up once more when that has ended, and
/// what comes later for the same address waits behind it, so that its successor gets all in order.
pub fn returned(node: &Arc<NodeContext>, session: &Arc<SessionHandle>, stanza: Stanza) -> Posted {
    let ending = Arc::clone(session);
    // It has been told before: this only waits until its route is gone.
    keep(node, &session.jid, session.index, stanza, async move { ending.end(EndReason::Known).await })
}

/// Takes a stanza for a session of this node whose bind is in the table, but which is not here yet: it is looked up
/// once more when it is. `None` if the stanza is for no full JID.
pub fn expected(node: &Arc<NodeContext>, route: &Route, stanza: &Stanza) -> Option<Posted> {
    let to = stanza.to()?.try_as_full().ok()?.clone();
    let (own, address, owner) = (Arc::clone(node), to.clone(), route.index);
    Some(keep(node, &to, owner, stanza.clone(), async move {
        // Not in time: it is looked up all the same.
        let _ = local::session_soon(&own, &address, owner).await;
    }))
}

/// Takes a stanza that waits here for `until`, and is looked up once more then; what comes later for the same address
/// waits behind it.
pub fn keep(
    node: &Arc<NodeContext>,
    to: &FullJid,
    owner: BindIndex,
    stanza: Stanza,
    until: impl Future<Output = ()> + Send + 'static,
) -> Posted {
    let losses = node.lease.losses();
    keep_parcel(node, to, owner, Parcel { stanza, tries: 0, copies: None, only: false, losses }, until)
}

fn keep_parcel(
    node: &Arc<NodeContext>,
    to: &FullJid,
    owner: BindIndex,
    parcel: Parcel,
    until: impl Future<Output = ()> + Send + 'static,
) -> Posted {
    let number = match hold(node, to, owner, parcel, Pending::waits) {
        Ok(number) => number,
        Err(posted) => return posted,
    };
    let (own, to) = (Arc::clone(node), to.clone());
    node.remote.runtime.spawn(async move {
        until.await;
        let applied = own.routes.applied();
        let gone = Failure::NoSession { applied, asked: owner };
        finish(&own, &to, number, Outcome::Failed(gone), None);
    });
    Posted::Taken
}

/// Notes a stanza as on its way to a session, or as one that waits here; what became of it where it has to queue.
fn hold(
    node: &NodeContext,
    to: &FullJid,
    owner: BindIndex,
    parcel: Parcel,
    note: fn(&mut Stanzas, &FullJid, BindIndex, Parcel) -> u64,
) -> Result<u64, Posted> {
    let mut pending = node.remote.pending.lock();
    let bytes = parcel.stanza.to_bytes().len();
    match pending.wait_behind(to, Some(owner), bytes, || parcel.clone()) {
        Behind::Nothing => {}
        Behind::Queued => return Err(Posted::Taken),
        Behind::Full => return Err(Posted::Congested),
    }
    let number = note(&mut pending, to, owner, parcel);
    node.remote.note(&pending);
    Ok(number)
}

/// Takes a stanza that was in the mailbox of the session `index` when that ended: as one that arrives now.
pub fn left_in_mailbox(
    node: &Arc<NodeContext>,
    index: BindIndex,
    farewell: impl Future<Output = ()> + Send + 'static,
    stanza: Stanza,
) {
    let node = Arc::clone(node);
    match node.sessions.get(index).map(|session| returned(&node, &session, stanza.clone())) {
        Some(Posted::Congested) => crowded_out(&node, stanza),
        Some(_) => {}
        // Once the route is gone: until then it would come back here.
        None => {
            node.remote.runtime().clone().spawn(async move {
                farewell.await;
                drive(&node, vec![Effect::Route(stanza)]).await;
            });
        }
    }
}

/// Takes a stanza that was in the mailbox of the session `index` when that moved: it is sent after it, before all that
/// comes later for the same address.
pub fn send_after(
    node: &Arc<NodeContext>,
    to: &FullJid,
    index: BindIndex,
    moved: impl Future<Output = ()> + Send + 'static,
    stanza: Stanza,
) {
    let losses = node.lease.losses();
    let parcel = Parcel { stanza: stanza.clone(), tries: 0, copies: None, only: true, losses };
    if let Posted::Congested = keep_parcel(node, to, index, parcel, moved) {
        crowded_out(node, stanza);
    }
}

/// What a session has left, where too much waits for its address already.
fn crowded_out(node: &Arc<NodeContext>, stanza: Stanza) {
    let own = Arc::clone(node);
    let account = stanza.to().map(Jid::to_bare);
    let known = account.and_then(|account| Some((kept::id_of(&stanza, &account)?, account)));
    if let Some((id, account)) = known.filter(|(_, account)| kept::is_pending(node, account)) {
        // It is in the store, or soon: from there it comes in its order.
        node.remote.runtime.spawn(async move {
            let free = taken_by_nobody(&own, &stanza, &account, Planned::Already(id), None);
            if let Next::Wait(freed) = free {
                drive(&own, freed.await).await;
            }
        });
        return;
    }
    node.metrics.dropped(Dropped::Undeliverable);
    let effects = bounce::congested(node, &stanza);
    node.remote.runtime.spawn(async move { drive(&own, effects).await });
}

/// The task that hands a stanza to the session of `route`, whose address is `to`.
fn task(to: &FullJid, route: &Route, stanza: &Stanza, group: Option<Group>) -> ClusterTask {
    let (to, owner, xml) = (to.clone(), route.index, Bytes::from(stanza.to_standalone()));
    match group {
        None => DeliverStanza { to, owner, xml }.into(),
        Some(Group { number, here }) => DeliverCopy { to, owner, xml, number, here }.into(),
    }
}

/// What a reply to [`DeliverStanza`] or [`DeliverCopy`] says of the stanza.
fn outcome(reply: Result<TaskReply, LinkError>, route: Route) -> Outcome<Failure> {
    match reply {
        Ok(TaskReply::DeliverStanza(found) | TaskReply::DeliverCopy(found)) => match found {
            SessionFound::Done => Outcome::Done,
            SessionFound::Slowly => Outcome::Slowly,
            SessionFound::NoSession { applied } => {
                Outcome::Failed(Failure::NoSession { applied, asked: route.index })
            }
            SessionFound::Congested => Outcome::Failed(Failure::Congested),
        },
        Ok(_)
        | Err(
            LinkError::TooLarge(_)
            | LinkError::TooOld { .. }
            | LinkError::Wire(_)
            | LinkError::Refused(TaskRefusal::Unknown(_) | TaskRefusal::Malformed(_)),
        ) => Outcome::Failed(Failure::Never),
        Err(LinkError::Refused(TaskRefusal::StaleSender)) => Outcome::Failed(Failure::Stale),
        Err(_) => Outcome::Failed(Failure::Unsure(route)),
    }
}

/// Notes what became of a stanza that was sent; of two that know, the first is believed.
fn finish(
    node: &Arc<NodeContext>,
    to: &FullJid,
    number: u64,
    outcome: Outcome<Failure>,
    copies: Option<&Copies>,
) {
    let next = {
        let mut pending = node.remote.pending.lock();
        if !pending.is_out(to, number) {
            return;
        }
        let outcome = match (outcome, copies) {
            (outcome, None) => outcome,
            (Outcome::Failed(why), Some(copies)) if copies.failed() => Outcome::Failed(why),
            (Outcome::Failed(_), Some(_)) => Outcome::Done,
            (outcome, Some(_)) => outcome,
        };
        let next = pending.answered(to, number, outcome);
        node.remote.note(&pending);
        next
    };
    if next.relieved {
        node.remote.relieved.notify_waiters();
    }
    if next.go_on {
        node.remote.runtime.spawn(settle::go_on(Arc::clone(node), to.clone()));
    }
}
