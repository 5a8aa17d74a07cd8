//! Puts what a node wants changed into the log, in batches: while one is on its way the next gathers.
//!
//! Where many commands come at the same time a batch gathers for some milliseconds from its first one on.
//!
//! One batch a node is under way at a time, so that each has a number and is done once, however often it must be
//! sent before somebody answers.
//!
//! A change of the store that nobody waits for any more, for it was dropped or its time is over, is not taken into a batch,
//! and a batch of such changes is not sent again: a node that stood still would have them done behind what happened
//! meanwhile, perhaps by somebody else on its behalf. The next batch has a later number, behind which the group does not take
//! the one before. What cannot be taken back is what was sent last: it may be in the log already, or get there until the next
//! one does.
//!
//! | queue            | bound           | when full           |
//! |------------------|-----------------|---------------------|
//! | commands to come | [`QUEUE`]       | the proposer waits, within its deadline |

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use openraft::storage::RaftStateMachine;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::answers::OwnAnswers;
use super::leader::Leader;
use super::types::Group;
use crate::disk::Gate;

/// Most commands that wait for their batch.
pub const QUEUE: usize = 16_384;
/// Most bytes of one batch, about: the log keeps larger values badly.
const MAX_BYTES: usize = 64 << 10;

/// So many commands of one batch say that the next ones come together too.
const BUSY: usize = 4;
/// How long a batch gathers then.
const GATHERS: Duration = Duration::from_millis(4);

/// Why a command has no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// The group has no leader, or none that answers. Nothing was done.
    #[error("the {0} group has no leader that answers")]
    NotTaken(&'static str),
    /// It is under way: whether it is done will be known later.
    #[error("the {0} group did not answer in time")]
    Unknown(&'static str),
    /// The command can never be done.
    #[error("the command does not fit the log")]
    Unfit,
    /// The node stops.
    #[error("the node stops")]
    Stopped,
}

/// Told of each batch that was answered: commands, and how long it took.
pub type OnBatch = Box<dyn Fn(usize, Duration) + Send + Sync>;

/// Whether a command is under way: who comes first decides.
#[derive(Debug, Clone, Default)]
struct Stage(Arc<AtomicU8>);

impl Stage {
    const WAITING: u8 = 0;
    const TAKEN: u8 = 1;
    const GIVEN_UP: u8 = 2;

    /// `false` if it was given up before.
    fn take(&self) -> bool {
        self.leave(Stage::TAKEN)
    }

    /// `false` if it was taken before.
    fn give_up(&self) -> bool {
        self.leave(Stage::GIVEN_UP)
    }

    fn is_given_up(&self) -> bool {
        self.0.load(Ordering::SeqCst) == Stage::GIVEN_UP
    }

    fn leave(&self, for_: u8) -> bool {
        self.0.compare_exchange(Stage::WAITING, for_, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}

/// Somebody waits for a command. Dropped, it is given up, if it can be.
struct Wanted(Stage);

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.give_up();
    }
}

struct Job<C: Group> {
    command: C::Command,
    stage: Stage,
    /// It is not to be begun later.
    until: Option<Instant>,
    /// `None` where nobody waits.
    reply: Option<oneshot::Sender<C::Reply>>,
}

/// Proposes for one node. Cheap to clone.
pub struct Proposer<C: Group> {
    jobs: mpsc::Sender<Job<C>>,
}

impl<C: Group> Clone for Proposer<C> {
    fn clone(&self) -> Self {
        Proposer { jobs: self.jobs.clone() }
    }
}

impl<C: Group> Proposer<C> {
    /// Starts a proposer. `answers` are those of its own batches; `applied` is how far this node has applied the log;
    /// `on_batch` is called after each batch; while the gate is closed nothing is applied here and none waits for that. To be called on the runtime of the group.
    pub(crate) fn start<M: RaftStateMachine<C>>(
        leader: Leader<C, M>,
        answers: OwnAnswers<C::R>,
        applied: watch::Receiver<u64>,
        (on_batch, gate): (OnBatch, Gate),
    ) -> Self {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let own = Proposer { jobs };
        let worker = Worker { leader, answers, number: 0, applied, on_batch, gate };
        tokio::spawn(worker.run(queue, own.jobs.downgrade()));
        own
    }

    /// Proposes a command; its reply once it is applied on this node. May be dropped: a command of the store is given up then if
    /// it is not under way yet, one of the routes is done all the same.
    ///
    /// # Errors
    /// [`ProposeError`].
    pub async fn propose(&self, command: C::Command, deadline: Duration) -> Result<C::Reply, ProposeError> {
        if C::size(&command) > MAX_BYTES * 3 / 2 {
            return Err(ProposeError::Unfit);
        }
        let (reply, mut answer) = oneshot::channel();
        let stage = Stage::default();
        let until = C::GIVES_UP.then(|| Instant::now() + deadline);
        let job = Job { command, stage: stage.clone(), until, reply: Some(reply) };
        let _wanted = C::GIVES_UP.then(|| Wanted(stage.clone()));
        let all = async {
            self.jobs.send(job).await.map_err(|_| ProposeError::Stopped)?;
            (&mut answer).await.map_err(|_| match &stage {
                stage if stage.give_up() => ProposeError::Stopped,
                stage if stage.is_given_up() => ProposeError::NotTaken(C::NAME),
                _ => ProposeError::Unknown(C::NAME),
            })
        };
        match tokio::time::timeout(deadline, all).await {
            Ok(result) => result,
            Err(_) if stage.give_up() => Err(ProposeError::NotTaken(C::NAME)),
            Err(_) => {
                // Closed before it is looked at: what comes later is undone, what has just come counts.
                answer.close();
                answer.try_recv().map_err(|_| ProposeError::Unknown(C::NAME))
            }
        }
    }
}

struct Worker<C: Group, M: RaftStateMachine<C>> {
    leader: Leader<C, M>,
    answers: OwnAnswers<C::R>,
    /// That of the last batch.
    number: u64,
    applied: watch::Receiver<u64>,
    on_batch: OnBatch,
    gate: Gate,
}

/// What is kept of a command under way, and who waits for its reply.
type Waiting<C> = (<C as Group>::Trace, Option<oneshot::Sender<<C as Group>::Reply>>);

/// A batch and who waits for its replies.
struct Gathered<C: Group> {
    commands: Vec<C::Command>,
    waiting: Vec<Waiting<C>>,
    /// Then nobody does any more. `None`: somebody always does.
    until: Option<Instant>,
}

impl<C: Group> Gathered<C> {
    fn new() -> Self {
        Gathered { commands: Vec::new(), waiting: Vec::new(), until: None }
    }

    /// Takes a command, unless it was given up, or is so now.
    fn take(&mut self, job: Job<C>, now: Instant) {
        let Job { command, stage, until, reply } = job;
        if until.is_some_and(|until| until <= now) {
            stage.give_up();
        }
        if !stage.take() {
            return;
        }
        self.until =
            if self.commands.is_empty() { until } else { self.until.zip(until).map(|(a, b)| a.max(b)) };
        self.waiting.push((C::trace(&command), reply));
        self.commands.push(command);
    }
}

/// PURE: how long the next batch gathers from its first command on, after one of so many and with so many that
/// wait. Where many change something at the same time they begin anew when they are answered: without a pause two batches of
/// half of them take turns, and each batch costs all nodes a write to disk.
fn gathers_for(previous: usize, waiting: usize) -> Duration {
    if previous < BUSY || waiting >= previous { Duration::ZERO } else { GATHERS }
}

impl<C: Group, M: RaftStateMachine<C>> Worker<C, M> {
    async fn run(mut self, mut queue: mpsc::Receiver<Job<C>>, own: mpsc::WeakSender<Job<C>>) {
        let (mut held, mut previous) = (None::<Job<C>>, 0);
        loop {
            let first = match held.take() {
                Some(job) => job,
                None => match queue.recv().await {
                    Some(job) => job,
                    None => return,
                },
            };
            let pause = gathers_for(previous, queue.len() + 1);
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            let (mut gathered, now) = (Gathered::new(), Instant::now());
            let mut bytes = 0;
            let mut next = Some(first);
            while let Some(job) = next.take() {
                bytes += C::size(&job.command);
                if bytes > MAX_BYTES && !gathered.commands.is_empty() {
                    held = Some(job);
                    break;
                }
                gathered.take(job, now);
                if gathered.commands.len() < C::MAX_COMMANDS {
                    next = queue.try_recv().ok();
                }
            }
            previous = gathered.commands.len();
            if !gathered.commands.is_empty() {
                self.submit(gathered, &own).await;
            }
        }
    }

    async fn submit(&mut self, gathered: Gathered<C>, own: &mpsc::WeakSender<Job<C>>) {
        let (began, count) = (Instant::now(), gathered.commands.len());
        self.number += 1;
        let batch = match C::batch(self.answers.origin(self.number), gathered.commands) {
            Ok(batch) => batch,
            Err(error) => {
                // Who waits sees its sender dropped.
                tracing::error!(group = C::NAME, %error, "a batch cannot be written: its commands are dropped");
                return;
            }
        };
        let answered = tokio::select! {
            answered = self.leader.propose(batch, gathered.until) => answered,
            // The leader's answer may be lost with the leader.
            replies = self.answers.of(self.number) => Some((0, replies)),
        };
        let Some((index, replies)) = answered else {
            tracing::debug!(group = C::NAME, "nobody waits for a batch any more");
            return;
        };
        let took = began.elapsed();
        (self.on_batch)(count, took);
        let (waiting, mut applied, own) = (gathered.waiting, self.applied.clone(), own.clone());
        let gate = self.gate.clone();
        // The next batch need not wait until this one is applied here.
        tokio::spawn(async move {
            let is_open = tokio::select! {
                reached = applied.wait_for(|applied| *applied >= index) => reached.is_ok(),
                // It is committed, and who has it by now is asked instead of this node.
                () = gate.closed() => true,
            };
            if !is_open {
                return;
            }
            for ((trace, waiter), reply) in waiting.into_iter().zip(C::replies(replies)) {
                let Some(waiter) = waiter else { continue };
                let Err(reply) = waiter.send(reply) else { continue };
                if let Some(command) = C::undo(trace, &reply)
                    && let Some(jobs) = own.upgrade()
                {
                    // No deadline: the table would keep what nobody holds. An error says that the node stops.
                    let _ =
                        jobs.send(Job { command, stage: Stage::default(), until: None, reply: None }).await;
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_gathers_only_where_more_are_to_be_expected() {
        assert_eq!(gathers_for(BUSY - 1, 1), Duration::ZERO, "who is alone waits for nobody");
        assert_eq!(gathers_for(BUSY, 1), GATHERS);
        assert_eq!(gathers_for(9, 8), GATHERS);
        assert_eq!(gathers_for(9, 9), Duration::ZERO, "as many are there already");
    }
}
