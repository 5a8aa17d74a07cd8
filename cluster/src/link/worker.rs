//! Runs tasks: those in order one after another, each within a time, whatever the executor does.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::executor::{Begun, TaskExecutor, TaskRefusal, TaskSource};
use crate::link::counts::Counts;
use crate::link::server::Sender;
use crate::task::{ClusterTask, TaskKind, TaskReply};

/// Tasks of one node that wait to be run in order. Full: that node's connection is not read on.
pub(crate) const QUEUE: usize = 1024;

/// Who gets to know what a task came to.
pub(crate) enum Done {
    /// The node that sent it, by a reply or an acknowledgement.
    Remote {
        /// That node.
        sender: Arc<Sender>,
        /// The number of its frame.
        number: u64,
        /// Whether it is a request.
        wants_reply: bool,
        /// Whether all before it are done.
        in_order: bool,
    },
    /// Someone on this node.
    Local(Option<oneshot::Sender<Result<TaskReply, TaskRefusal>>>),
}

/// One task to run.
pub(crate) struct Job {
    pub(crate) source: TaskSource,
    pub(crate) task: Result<ClusterTask, TaskRefusal>,
    pub(crate) done: Done,
}

/// The shared part of all workers.
#[derive(Clone)]
pub(crate) struct Runner {
    pub(crate) executor: Arc<dyn TaskExecutor>,
    /// Longest time of one task.
    pub(crate) limit: Duration,
    pub(crate) counts: Arc<Counts>,
}

impl Runner {
    /// Starts a worker that runs jobs in order. It ends when nobody can send it jobs any more.
    pub(crate) fn start(&self) -> mpsc::Sender<Job> {
        let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE);
        let runner = self.clone();
        tokio::spawn(async move {
            while let Some(job) = queue.recv().await {
                runner.begin(job).await;
            }
        });
        jobs
    }

    /// Runs one job to its end.
    pub(crate) async fn run(&self, job: Job) {
        let Job { source, task, done } = job;
        let task = match task {
            Ok(task) => task,
            Err(refusal) => return done.with(Err(refusal)),
        };
        let kind = task.kind();
        let result = self.within(kind, self.executor.execute(source, task)).await;
        self.ended(kind, done, result);
    }

    /// Runs one job until those behind it may run; what is left of it then goes on by itself.
    async fn begin(&self, job: Job) {
        let Job { source, task, done } = job;
        let task = match task {
            Ok(task) => task,
            Err(refusal) => return done.with(Err(refusal)),
        };
        let kind = task.kind();
        match self.within(kind, self.executor.begin(source, task)).await {
            Ok(Begun::Done(reply)) => self.ended(kind, done, Ok(reply)),
            Ok(Begun::Later(rest)) => {
                let runner = self.clone();
                tokio::spawn(async move {
                    let result = runner.within(kind, rest).await;
                    runner.ended(kind, done, result);
                });
            }
            Err(refusal) => self.ended(kind, done, Err(refusal)),
        }
    }

    fn ended(&self, kind: TaskKind, done: Done, result: Result<TaskReply, TaskRefusal>) {
        let result = match result {
            Ok(reply) if reply.kind() != kind => {
                let answered = reply.kind().label();
                Err(TaskRefusal::Failed(format!("{} was answered as {answered}", kind.label())))
            }
            result => result,
        };
        self.counts.ran(kind, result.is_ok());
        done.with(result);
    }

    /// A panic or a hang of one task must not end the order of all that follow from its node.
    async fn within<T>(
        &self,
        kind: TaskKind,
        run: impl Future<Output = Result<T, TaskRefusal>>,
    ) -> Result<T, TaskRefusal> {
        match timeout(self.limit, AssertUnwindSafe(run).catch_unwind()).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => {
                tracing::error!(task = kind.label(), "task panicked");
                Err(TaskRefusal::Failed("it panicked".to_owned()))
            }
            Err(_) => {
                tracing::error!(task = kind.label(), "task took too long");
                Err(TaskRefusal::Failed("it took too long".to_owned()))
            }
        }
    }
}

impl Done {
    /// Tells who is to know.
    fn with(self, result: Result<TaskReply, TaskRefusal>) {
        match self {
            Done::Remote { sender, number, wants_reply, in_order } => {
                sender.finished(number, wants_reply, in_order, result);
            }
            Done::Local(waiter) => {
                if let Some(waiter) = waiter {
                    // Nobody waits any more: its deadline is over.
                    let _ = waiter.send(result);
                }
            }
        }
    }
}
