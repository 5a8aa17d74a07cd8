//! Asides: what a module waits for without the sender's later stanzas waiting too.
//!
//! Each module has a bounded queue and workers of its own, so that one that waits long delays no other. A job runs on
//! the runtime of whoever handed it in; what it comes to goes back to the session that it is for, or is driven without
//! one. Policy for a full queue: it is counted; a request or a message goes back to its sender with
//! `resource-constraint`, of anything else the module's part is left undone.

pub mod schedule;

use std::fmt;
use std::hash::BuildHasher;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use futures_util::future::{BoxFuture, FutureExt};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;
use tracing::{debug, error};

use althing_cluster::routes::BindIndex;
use althing_proto::jid::FullJid;
use althing_proto::stanza::{IqType, Kind, MessageType, Stanza, StanzaCondition, StanzaError};

use crate::delivery;
use crate::metrics::{Dropped, ModuleMetrics};
use crate::node::NodeContext;
use crate::pipeline::{Effects, Packet, Pass};
use crate::session::effect::left_behind;
use crate::session::inbound::Hold;
use schedule::{Next, Schedule, Urgency};

/// The bounds of a module's queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Jobs that may be there at the same time, in whatever stage.
    pub jobs: usize,
    /// How many of them run at the same time.
    pub workers: usize,
}

impl Default for Capacity {
    /// Enough for a module that asks the store.
    fn default() -> Self {
        Capacity { jobs: 4_096, workers: 64 }
    }
}

/// The queue of one module.
pub struct Queue {
    name: &'static str,
    schedule: Mutex<Schedule<Started>>,
    counts: ModuleMetrics,
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Queue {
    /// An empty queue of the module called `name`.
    #[must_use]
    pub fn new(name: &'static str, capacity: Capacity, counts: ModuleMetrics) -> Self {
        let schedule = Mutex::new(Schedule::new(capacity.jobs, capacity.workers));
        Queue { name, schedule, counts }
    }

    /// How many jobs there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.schedule.lock().held()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What a module wants to wait for, on behalf of one packet.
pub struct Job {
    queue: Arc<Queue>,
    packet: Packet,
    future: BoxFuture<'static, Effects>,
    /// Of the session's asides under way, where it came from a session's own client.
    permit: Option<OwnedSemaphorePermit>,
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").field("module", &self.queue.name).field("packet", &self.packet).finish()
    }
}

impl Job {
    /// For `queue`, which is that of the module that wants it.
    #[must_use]
    pub fn new(queue: Arc<Queue>, packet: Packet, future: BoxFuture<'static, Effects>) -> Self {
        Job { queue, packet, future, permit: None }
    }

    /// The job holds a permit until it has run.
    #[must_use]
    pub fn with_permit(mut self, permit: OwnedSemaphorePermit) -> Self {
        self.permit = Some(permit);
        self
    }

    /// The packet that it is for.
    #[must_use]
    pub fn packet(&self) -> &Packet {
        &self.packet
    }

    /// The same, of a session that has ended: what it comes to is what must happen all the same.
    #[must_use]
    pub fn left_behind(mut self, jid: &FullJid) -> Self {
        let jid = jid.clone();
        self.future = Box::pin(self.future.map(move |effects| left_behind(effects, &jid)));
        self
    }

    /// Waits for it here and now, in no queue.
    #[cfg(test)]
    pub(crate) async fn wait(self) -> Effects {
        self.future.await
    }

    fn urgency(&self) -> Urgency {
        match self.packet.stanza.kind() {
            Kind::Iq(_) | Kind::Message(_) => Urgency::High,
            Kind::Presence(_) => Urgency::Low,
        }
    }
}

/// The session that gets what its job came to.
#[derive(Debug, Clone)]
pub struct Home {
    /// Its full JID.
    pub jid: FullJid,
    /// The bind that began it.
    pub index: BindIndex,
    /// In the receiver's pass: whose later stanzas to the session wait.
    pub sender: Option<u64>,
    /// In the sender's pass, on a stream with XEP-0198: until what it comes to is performed, the stanza is not safe.
    pub hold: Option<Hold>,
}

/// A job in its queue.
struct Started {
    node: Arc<NodeContext>,
    job: Job,
    home: Option<Home>,
    runtime: Handle,
    since: Instant,
    /// How often the node had lost its lease.
    losses: u64,
}

/// Hands a job to its module's queue.
///
/// # Errors
/// Where the queue is full: what is to be done instead.
pub fn submit(node: &Arc<NodeContext>, job: Job, home: Option<Home>) -> Result<(), Effects> {
    let queue = Arc::clone(&job.queue);
    let (key, urgency) = (key(node, &job.packet), job.urgency());
    let started = Started {
        node: Arc::clone(node),
        job,
        home,
        runtime: Handle::current(),
        since: Instant::now(),
        losses: node.lease.losses(),
    };
    let offered = queue.schedule.lock().offer(key, urgency, started);
    match offered {
        Ok(next) => {
            queue.counts.queued(1);
            start(&queue, next);
            Ok(())
        }
        Err(refused) => {
            debug!(module = queue.name, "the queue of a module is full");
            queue.counts.dropped();
            let text = "too much is being done for others: try again later";
            let error = StanzaError::new(StanzaCondition::ResourceConstraint, text);
            let answer = answer(&refused.job.packet.stanza, error);
            if answer.is_empty() {
                node.metrics.dropped(Dropped::ModuleFull);
            }
            Err(answer)
        }
    }
}

/// Hands a job in that belongs to no session.
pub fn submit_alone(node: &Arc<NodeContext>, job: Job) -> Effects {
    submit(node, job, None).err().unwrap_or_default()
}

/// Jobs of one key run in order: those of one sender to one receiver.
fn key(node: &NodeContext, packet: &Packet) -> u64 {
    let from = packet.stanza.from().map(|from| from.as_str());
    let to = match &packet.pass {
        Pass::Account(account) => Some(account.as_str()),
        _ => packet.stanza.to().map(|to| to.as_str()),
    };
    node.seen_keys.hash_one((from, to))
}

/// The answer instead of what a module would have done: to a request or a message.
fn answer(stanza: &Stanza, error: StanzaError) -> Effects {
    let asks = match stanza.kind() {
        Kind::Iq(kind) => matches!(kind, IqType::Get | IqType::Set),
        Kind::Message(kind) => kind != MessageType::Error,
        Kind::Presence(_) => false,
    };
    let answer = if asks { stanza.error(error) } else { None };
    answer.map(crate::session::effect::Effect::Route).into_iter().collect()
}

fn start(queue: &Arc<Queue>, next: Next<Started>) {
    if let Some((key, started)) = next {
        let runtime = started.runtime.clone();
        runtime.spawn(run(Arc::clone(queue), key, started));
    }
}

async fn run(queue: Arc<Queue>, key: u64, started: Started) {
    let Started { node, job, home, since, losses, .. } = started;
    let mut turn = Turn { queue, key, running: true };
    let Job { packet, future, permit, .. } = job;
    // Whatever panicked is gone with its future.
    let effects = match AssertUnwindSafe(future).catch_unwind().await {
        Ok(effects) => effects,
        Err(_) => {
            error!(module = turn.queue.name, "a module has panicked: its packet is answered with an error");
            answer(&packet.stanza, StanzaCondition::InternalServerError.into())
        }
    };
    turn.queue.counts.waited(since.elapsed().as_secs_f64());
    drop(permit);
    turn.ran();
    if node.lease.losses() != losses {
        // Another start of this node, to the others: it owns nothing of before.
        node.metrics.dropped(Dropped::SessionGone);
        return;
    }
    hand_over(&node, effects, home).await;
}

/// Gives what a job came to whoever performs it; the next job of the key waits until that is so.
async fn hand_over(node: &Arc<NodeContext>, effects: Effects, home: Option<Home>) {
    let Some(home) = home else { return delivery::drive(node, effects).await };
    let left = match node.sessions.get(home.index) {
        Some(session) => session.take_back(effects, home.sender, home.hold).await,
        None => effects,
    };
    if !left.is_empty() {
        delivery::drive(node, left_behind(left, &home.jid)).await;
    }
}

/// The turn of a job: given on when it ends, however it ends.
struct Turn {
    queue: Arc<Queue>,
    key: u64,
    running: bool,
}

impl Turn {
    fn ran(&mut self) {
        if std::mem::take(&mut self.running) {
            let next = self.queue.schedule.lock().ran();
            start(&self.queue, next);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.ran();
        self.queue.counts.queued(-1);
        let next = self.queue.schedule.lock().handed_over(self.key);
        start(&self.queue, next);
    }
}

#[cfg(test)]
mod tests;
