//! Puts what a node wants changed into the log, in batches: while one is on its way the next gathers.
//!
//! One batch a node is under way at a time, so that each has a number and is done once, however often it must be
//! sent before somebody answers.
//!
//! | queue            | bound           | when full           |
//! |------------------|-----------------|---------------------|
//! | commands to come | [`QUEUE`]       | the proposer waits, within its deadline |

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use openraft::storage::RaftStateMachine;
use tokio::sync::{mpsc, oneshot, watch};

use super::answers::OwnAnswers;
use super::leader::Leader;
use super::types::Group;
use crate::disk::Gate;

/// Most commands that wait for their batch.
pub const QUEUE: usize = 16_384;
/// Most bytes of one batch, about: the log keeps larger values badly.
const MAX_BYTES: usize = 64 << 10;

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

    fn leave(&self, for_: u8) -> bool {
        self.0.compare_exchange(Stage::WAITING, for_, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}

struct Job<C: Group> {
    command: C::Command,
    stage: Stage,
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

    /// Proposes a command; its reply once it is applied on this node.
    ///
    /// # Errors
    /// [`ProposeError`].
    pub async fn propose(&self, command: C::Command, deadline: Duration) -> Result<C::Reply, ProposeError> {
        if C::size(&command) > MAX_BYTES * 3 / 2 {
            return Err(ProposeError::Unfit);
        }
        let (reply, mut answer) = oneshot::channel();
        let stage = Stage::default();
        let job = Job { command, stage: stage.clone(), reply: Some(reply) };
        let all = async {
            self.jobs.send(job).await.map_err(|_| ProposeError::Stopped)?;
            (&mut answer).await.map_err(|_| ProposeError::Stopped)
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
}

impl<C: Group, M: RaftStateMachine<C>> Worker<C, M> {
    async fn run(mut self, mut queue: mpsc::Receiver<Job<C>>, own: mpsc::WeakSender<Job<C>>) {
        let mut held: Option<Job<C>> = None;
        loop {
            let first = match held.take() {
                Some(job) => job,
                None => match queue.recv().await {
                    Some(job) => job,
                    None => return,
                },
            };
            let mut gathered = Gathered { commands: Vec::new(), waiting: Vec::new() };
            let mut bytes = 0;
            let mut next = Some(first);
            while let Some(job) = next.take() {
                bytes += C::size(&job.command);
                if bytes > MAX_BYTES && !gathered.commands.is_empty() {
                    held = Some(job);
                    break;
                }
                if job.stage.take() {
                    gathered.waiting.push((C::trace(&job.command), job.reply));
                    gathered.commands.push(job.command);
                }
                if gathered.commands.len() < C::MAX_COMMANDS {
                    next = queue.try_recv().ok();
                }
            }
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
        let (index, replies) = tokio::select! {
            answered = self.leader.propose(batch) => answered,
            // The leader's answer may be lost with the leader.
            replies = self.answers.of(self.number) => (0, replies),
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
                    let _ = jobs.send(Job { command, stage: Stage::default(), reply: None }).await;
                }
            }
        });
    }
}
