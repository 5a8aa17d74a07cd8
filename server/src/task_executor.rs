//! Runs what other nodes ask of this one: one `match` over the kinds of tasks.
//!
//! Before each task: the lease must hold, this node's table must have what the sender's had, and the sender must not
//! be declared down. A task acts on this node's sessions only; it never routes.
//!
//! It runs on the links' runtime, where no arbiter is: sessions get messages, and what must wait is spawned.

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::timeout;
use tracing::debug;

use althing_cluster::executor::{Begun, TaskExecutor, TaskRefusal, TaskSource};
use althing_cluster::routes::{BindIndex, NodeState};
use althing_cluster::task::{
    BroadcastLocal, ClusterTask, DeliverCopy, DeliverStanza, DeliverToAccount, DescribeSession, DrainInbox,
    EndAccount, EndSession, FanOutPresence, NodeNumbers, ProbeAccount, PushPrivacyChange, PushRosterItem,
    ReadPreferences, ReplaceSession, SessionFound, SessionInfo, ShowAvatar, ShowPresence, TaskAudience,
    TaskReply,
};
use althing_cluster::wire;
use althing_proto::jid::FullJid;
use althing_proto::stanza::{Kind, Stanza};
use althing_proto::stream::error::StreamCondition;

use crate::components::balance::lane_named;
use crate::delivery::remote::arrivals::{self, Arrived};
use crate::delivery::remote::groups::Group;
use crate::delivery::{account, bounce, drive_aside, fan_out, inbox, keep, local, probes, remote, usage};
use crate::modules::figures_of_node;
use crate::node::NodeContext;
use crate::router::component;
use crate::session::SessionHandle;
use crate::session::avatar::Avatar;
use crate::session::copies::Share;
use crate::session::effect::{Audience, UserEvent};
use crate::session::ending;
use crate::session::giving;
use crate::session::losses::{self, Lost};
use crate::session::messages::EndReason;
use crate::session::registry::Refused;
use crate::stream::hand_over;

/// How long a task waits for the node to serve again. Longer than from T1 to T2: by then the lease is there or
/// lost, and presence that nobody repeats has met the sessions or their end. With [`CATCH_UP`] less than the time
/// that links give a task.
const LEASE: Duration = Duration::from_secs(20);

/// How long a task waits for this node's table to have what the sender's had. A node that stays behind for as long has
/// lost its lease before: refused while its sessions live, a stanza would come behind those that were sent after it.
const CATCH_UP: Duration = Duration::from_secs(20);

/// How long what a displaced session has sent may take to be brought before its successor begins: less than that one's node
/// waits for the answer (`server/src/stream/login.rs`).
const REPLACED: Duration = Duration::from_secs(5);

/// Waits until this node's table has that index; `false` if it will not in time, or the lease is lost before.
async fn catch_up(node: &NodeContext, index: u64) -> bool {
    tokio::select! {
        caught_up = timeout(CATCH_UP, node.routes.wait_for(index)) => matches!(caught_up, Ok(true)),
        () = node.lease.lost() => false,
    }
}

/// The store of this node, for nodes that hold none.
#[async_trait]
pub trait StoreServer: Send + Sync {
    /// Answers a query; query and answer are the store's own bytes.
    ///
    /// # Errors
    /// Why not, in words.
    async fn read(&self, query: Bytes) -> Result<Bytes, String>;

    /// Does a command; command and answer are the store's own bytes.
    ///
    /// # Errors
    /// Why not, in words.
    async fn write(&self, command: Bytes) -> Result<Bytes, String>;
}

/// The executor of one node. It is made before the node, for the links need it and the node needs the links.
pub struct NodeExecutor {
    node: OnceLock<Weak<NodeContext>>,
    store: Option<Arc<dyn StoreServer>>,
}

impl NodeExecutor {
    /// An executor whose node is not there yet: it refuses all tasks.
    #[must_use]
    pub fn new(store: Option<Arc<dyn StoreServer>>) -> Arc<Self> {
        Arc::new(NodeExecutor { node: OnceLock::new(), store })
    }

    /// From now on tasks are run for `node`.
    pub fn set_node(&self, node: &Arc<NodeContext>) {
        // A second one would be another node: the first stays.
        let _ = self.node.set(Arc::downgrade(node));
    }

    /// Whether the task may run now.
    async fn admit(
        &self,
        node: &NodeContext,
        source: TaskSource,
        bind: BindIndex,
    ) -> Result<(), TaskRefusal> {
        let own = source.node == node.node_id;
        let index = if own { 0 } else { source.applied.max(bind.log_index()) };
        // Until both hold at once: the lease may go while the table catches up. To refuse this task then and take the
        // next would turn their order round.
        loop {
            if node.routes.applied() < index && !catch_up(node, index).await {
                let applied = node.routes.applied();
                return Err(TaskRefusal::Failed(format!("the route table is at {applied}, not at {index}")));
            }
            // What the lost had kept for a session goes before what those write who have heard of the loss.
            if !node.losses.is_all(node) && timeout(CATCH_UP, node.losses.all(node)).await.is_err() {
                return Err(TaskRefusal::Failed("its sessions have not heard of a loss yet".to_owned()));
            }
            if node.lease.holds() {
                break;
            }
            if !matches!(timeout(LEASE, node.lease.serving()).await, Ok(true)) {
                return Err(TaskRefusal::Suspended);
            }
        }
        if own {
            return Ok(());
        }
        if node.routes.node_state(source.node) != Some(NodeState::Up(source.incarnation)) {
            return Err(TaskRefusal::StaleSender);
        }
        Ok(())
    }

    fn store(&self) -> Result<&Arc<dyn StoreServer>, TaskRefusal> {
        self.store.as_ref().ok_or_else(|| TaskRefusal::Failed("this node holds no store".to_owned()))
    }
}

#[async_trait]
impl TaskExecutor for NodeExecutor {
    async fn execute(&self, source: TaskSource, task: ClusterTask) -> Result<TaskReply, TaskRefusal> {
        match self.begin(source, task).await? {
            Begun::Done(reply) => Ok(reply),
            Begun::Later(rest) => rest.await,
        }
    }

    async fn begin(&self, source: TaskSource, task: ClusterTask) -> Result<Begun, TaskRefusal> {
        let node = self.node.get().and_then(Weak::upgrade).ok_or(TaskRefusal::Suspended)?;
        debug!(stop = "task_executor", task = task.kind().label(), member = %source.node);
        self.admit(&node, source, bind_of(&task)).await?;
        let presence = presence_of(&task);
        let begun = self.run(&node, source, task).await?;
        let Some(presence) = presence.filter(|_| source.node != node.node_id) else { return Ok(begun) };
        match begun {
            Begun::Done(reply) => {
                tell_if_lost(&node, source, &presence);
                Ok(Begun::Done(reply))
            }
            Begun::Later(rest) => Ok(Begun::Later(Box::pin(async move {
                let reply = rest.await?;
                tell_if_lost(&node, source, &presence);
                Ok(reply)
            }))),
        }
    }
}

/// The node that has sent presence may have been declared down in between: the word of its loss may have come first.
fn tell_if_lost(node: &NodeContext, source: TaskSource, presence: &Presences) {
    if node.routes.node_state(source.node) != Some(NodeState::Up(source.incarnation)) {
        let from = |xml: &Bytes| stanza(xml).ok()?.from()?.try_as_full().ok().cloned();
        losses::tell(node, Lost::new(presence.as_slice().iter().filter_map(from), &node.seen_keys));
    }
}

impl NodeExecutor {
    /// The one `match` over the kinds.
    async fn run(
        &self,
        node: &Arc<NodeContext>,
        source: TaskSource,
        task: ClusterTask,
    ) -> Result<Begun, TaskRefusal> {
        Ok(Begun::Done(match task {
            ClusterTask::DeliverStanza(task) => {
                return deliver(node, task, Share::Alone, TaskReply::DeliverStanza).await;
            }
            ClusterTask::DeliverCopy(DeliverCopy { to, owner, xml, number, here }) => {
                let share = Share::Copy(node.remote.copies_of(source, Group { number, here }));
                let task = DeliverStanza { to, owner, xml };
                return deliver(node, task, share, TaskReply::DeliverCopy).await;
            }
            ClusterTask::FanOutPresence(FanOutPresence { recipients, xml }) => {
                TaskReply::FanOutPresence(fan_out::to_sessions(node, stanza(&xml)?, &recipients))
            }
            ClusterTask::BroadcastLocal(task) => TaskReply::BroadcastLocal(broadcast(node, &task)?),
            ClusterTask::ReplaceSession(task) => {
                let node = Arc::clone(node);
                let replaced = async move { Ok(TaskReply::ReplaceSession(replace(&node, &task).await)) };
                return Ok(Begun::Later(Box::pin(replaced)));
            }
            ClusterTask::EndSession(task) => TaskReply::EndSession(end(node, &task).await),
            ClusterTask::TakeStream(task) => {
                let to = (source.node, source.incarnation);
                TaskReply::TakeStream(hand_over(node, to, &task).await)
            }
            ClusterTask::GiveStream(task) => TaskReply::GiveStream(giving::take(node, task).await),
            ClusterTask::DescribeSession(task) => TaskReply::DescribeSession(describe(node, &task)),
            ClusterTask::PushRosterItem(PushRosterItem { account: owner, item }) => {
                let malformed = |error| TaskRefusal::Malformed(format!("roster item: {error}"));
                let event = UserEvent::Roster(account::decode(&item).map_err(malformed)?);
                TaskReply::PushRosterItem(local::notify_account(node, &owner, &event))
            }
            ClusterTask::NodeFigures(_) => TaskReply::NodeFigures(figures_of_node(node).await),
            ClusterTask::NodeStats(_) => TaskReply::NodeStats(NodeNumbers {
                started: node.started,
                sessions: node.sessions.len() as u64,
                applied: node.routes.applied(),
            }),
            ClusterTask::ReadStore(task) => {
                let answer = self.store()?.read(task.query).await;
                TaskReply::ReadStore(answer.map_err(TaskRefusal::Failed)?)
            }
            ClusterTask::WriteStore(task) => {
                let answer = self.store()?.write(task.command).await;
                TaskReply::WriteStore(answer.map_err(TaskRefusal::Failed)?)
            }
            ClusterTask::ProbeAccount(ProbeAccount { account, from }) => {
                let event = UserEvent::Probe { from };
                TaskReply::ProbeAccount(local::notify_account(node, &account, &event))
            }
            ClusterTask::ProbeSessions(task) => {
                TaskReply::ProbeSessions(probes::answer(node, source.node, &task))
            }
            ClusterTask::CountShown(task) => {
                TaskReply::CountShown(probes::count_shown(node, &task.sessions, &task.to))
            }
            ClusterTask::CountFetching(task) => {
                TaskReply::CountFetching(inbox::count_fetching(node, &task.sessions))
            }
            ClusterTask::FindUsed(task) => TaskReply::FindUsed(usage::used_here(node, &task.sessions)),
            ClusterTask::AnswerIq(task) => {
                node.requests.answered(&stanza(&task.xml)?);
                TaskReply::AnswerIq(())
            }
            ClusterTask::ShowPresence(task) => TaskReply::ShowPresence(show(node, task)?),
            ClusterTask::ShowAvatar(ShowAvatar { account, revision, hash }) => {
                let event = UserEvent::Avatar(Avatar { revision, hash });
                TaskReply::ShowAvatar(local::notify_account(node, &account, &event))
            }
            ClusterTask::EndAccount(EndAccount { account }) => {
                TaskReply::EndAccount(local::notify_account(node, &account, &UserEvent::Removed))
            }
            ClusterTask::DrainInbox(DrainInbox { account }) => {
                TaskReply::DrainInbox(local::notify_account(node, &account, &UserEvent::Drain))
            }
            ClusterTask::ReadPreferences(ReadPreferences { account }) => {
                TaskReply::ReadPreferences(local::notify_account(node, &account, &UserEvent::Archive))
            }
            ClusterTask::PushPrivacyChange(PushPrivacyChange { account, change }) => {
                let malformed = |error| TaskRefusal::Malformed(format!("privacy lists: {error}"));
                let event = UserEvent::Privacy(Arc::new(wire::decode(&change).map_err(malformed)?));
                TaskReply::PushPrivacyChange(local::notify_account(node, &account, &event))
            }
            ClusterTask::DeliverToAccount(DeliverToAccount { account, audience, xml }) => {
                let audience = match audience {
                    TaskAudience::Available => Audience::Available,
                    TaskAudience::Interested => Audience::Interested,
                };
                let event = UserEvent::Stanza { stanza: stanza(&xml)?, audience };
                TaskReply::DeliverToAccount(local::notify_account(node, &account, &event))
            }
        }))
    }
}

/// The latest bind that a task names: this node's table must have it before the task runs.
fn bind_of(task: &ClusterTask) -> BindIndex {
    match task {
        ClusterTask::DeliverStanza(task) => task.owner,
        ClusterTask::DeliverCopy(task) => task.owner,
        ClusterTask::ReplaceSession(task) => task.by,
        ClusterTask::EndSession(task) => task.owner,
        ClusterTask::TakeStream(task) => task.owner,
        ClusterTask::GiveStream(task) => task.owner,
        _ => BindIndex(0),
    }
}

/// Stanzas of a task that may be presence.
enum Presences {
    One(Bytes),
    Many(Vec<Bytes>),
}

impl Presences {
    fn as_slice(&self) -> &[Bytes] {
        match self {
            Presences::One(xml) => std::slice::from_ref(xml),
            Presences::Many(all) => all,
        }
    }
}

/// What a task carries that may be presence: for one session or for many.
fn presence_of(task: &ClusterTask) -> Option<Presences> {
    match task {
        ClusterTask::DeliverStanza(task) => Some(Presences::One(task.xml.clone())),
        ClusterTask::DeliverCopy(task) => Some(Presences::One(task.xml.clone())),
        ClusterTask::FanOutPresence(task) => Some(Presences::One(task.xml.clone())),
        ClusterTask::ShowPresence(task) => Some(Presences::Many(task.presences.clone())),
        _ => None,
    }
}

/// The stanza that another node has written.
fn stanza(xml: &[u8]) -> Result<Stanza, TaskRefusal> {
    Stanza::from_standalone(xml).ok_or_else(|| TaskRefusal::Malformed("no stanza".to_owned()))
}

/// The session of this node with that address that `owner` began.
fn session(node: &NodeContext, jid: &FullJid, owner: BindIndex) -> Option<Arc<SessionHandle>> {
    node.sessions.get(owner).filter(|session| session.jid == *jid)
}

async fn deliver(
    node: &Arc<NodeContext>,
    task: DeliverStanza,
    share: Share,
    reply: fn(SessionFound) -> TaskReply,
) -> Result<Begun, TaskRefusal> {
    let stanza = stanza(&task.xml)?;
    if lane_named(&task.to).is_some() {
        return Ok(Begun::Done(reply(component::deliver_task(node, &task, &stanza).await)));
    }
    let (own, to, owner) = (Arc::clone(node), task.to.clone(), task.owner);
    // Said to be absent while it is about to be here, it would get what comes a moment later first.
    let arrived = arrivals::when_here(node, &task.to, task.owner, move |session| {
        let session = session.filter(|session| session.jid == to);
        reply(hand_to(&own, session, owner, stanza, share))
    });
    Ok(match arrived {
        Arrived::Now(reply) => Begun::Done(reply),
        Arrived::Soon(later) => Begun::Later(Box::pin(async move {
            later.await.map_err(|_| TaskRefusal::Failed("nobody waits for the session".to_owned()))
        })),
    })
}

/// Hands a stanza to the session that it is for, if that is here.
fn hand_to(
    node: &Arc<NodeContext>,
    session: Option<&Arc<SessionHandle>>,
    owner: BindIndex,
    stanza: Stanza,
    share: Share,
) -> SessionFound {
    let result = match session {
        Some(session) => local::deliver_to(node, session, stanza.clone(), share.clone()),
        None => Err(Refused::Gone),
    };
    if result.is_err()
        && !matches!(stanza.kind(), Kind::Presence(_))
        && matches!(&share, Share::Copy(copies) if copies.failed())
    {
        // The sender has been told of some of the copies that they were delivered, and they were left: what is to be done
        // now is for this node to do.
        match result {
            Err(Refused::Full) => drive_aside(node, bounce::congested(node, &stanza)),
            _ => remote::left_in_mailbox(node, owner, std::future::ready(()), stanza),
        }
        return SessionFound::Done;
    }
    match (result, session) {
        (Ok(()), Some(session)) if session.pressure().is_congested() => SessionFound::Slowly,
        (Ok(()), _) => SessionFound::Done,
        // The sender looks up once more, in order.
        (Err(Refused::Ending | Refused::Gone), _) => no_session(node),
        (Err(Refused::Full), _) => SessionFound::Congested,
    }
}

fn no_session(node: &NodeContext) -> SessionFound {
    SessionFound::NoSession { applied: node.routes.applied() }
}

/// Presence that a session is shown must be known of before: its sender may be declared down since.
fn show(node: &Arc<NodeContext>, task: ShowPresence) -> Result<u64, TaskRefusal> {
    let ShowPresence { to, owner, presences } = task;
    let Some(session) = session(node, &to, owner) else { return Ok(0) };
    let presences: Result<Vec<Stanza>, _> =
        presences.iter().map(|xml| stanza(xml).map(|presence| presence.with_to(to.clone()))).collect();
    Ok(probes::shown(node, &session, presences?))
}

/// To the sessions of the domain that it is from: users of another one have nothing to do with it.
fn broadcast(node: &Arc<NodeContext>, task: &BroadcastLocal) -> Result<u64, TaskRefusal> {
    let stanza = stanza(&task.xml)?;
    let domain = stanza.from().map(|from| from.domain());
    let sessions = node.sessions.all();
    let met = sessions.iter().filter(|session| {
        if Some(session.jid.domain()) != domain {
            return false;
        }
        let copy = stanza.with_to(session.jid.clone());
        local::deliver_to(node, session, copy, Share::Broadcast).is_ok()
    });
    Ok(met.count() as u64)
}

/// Ends the session, and answers when it has ended: not even its farewell comes after the new bind's first presence.
async fn replace(node: &NodeContext, task: &ReplaceSession) -> SessionFound {
    let session = session(node, &task.jid, task.owner);
    if let Some(session) = &session {
        session.end(EndReason::Error(StreamCondition::Conflict.into())).await;
    }
    // Nor does what it has sent come after what the new one sends.
    keep::brought(node, &task.jid, REPLACED).await;
    session.map_or_else(|| no_session(node), |_| SessionFound::Done)
}

async fn end(node: &NodeContext, task: &EndSession) -> SessionFound {
    let Some(session) = session(node, &task.jid, task.owner) else { return no_session(node) };
    session.end(EndReason::Error(ending::error(task.ending))).await;
    SessionFound::Done
}

fn describe(node: &NodeContext, task: &DescribeSession) -> Option<SessionInfo> {
    let route = node.routes.locate(&task.jid)?;
    let session = session(node, &task.jid, route.index)?;
    Some(SessionInfo {
        owner: session.index,
        since: session.since,
        priority: route.priority,
        address: session.peer.map(|peer| peer.to_string()),
        waiting: session.pressure().waiting() as u64,
    })
}

#[cfg(test)]
mod tests;
