//! Runs tasks: those in order one after another, each within a time, whatever the executor does.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::executor::{TaskExecutor, TaskRefusal, TaskSource};
use crate::link::counts::Counts;
use crate::link::server::Sender;
use crate::task::{ClusterTask, TaskReply};

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
                runner.run(job).await;
            }
        });
        jobs
    }

    /// Runs one job to its end.
    pub(crate) async fn run(&self, job: Job) {
        let result = match job.task {
            Ok(task) => {
                let kind = task.kind();
                let result = self.execute(job.source, task).await;
                self.counts.ran(kind, result.is_ok());
                result
            }
            Err(refusal) => Err(refusal),
        };
        match job.done {
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

    /// A panic or a hang of one task must not end the order of all that follow from its node.
    async fn execute(&self, source: TaskSource, task: ClusterTask) -> Result<TaskReply, TaskRefusal> {
        let kind = task.kind();
        let run = AssertUnwindSafe(self.executor.execute(source, task)).catch_unwind();
        match timeout(self.limit, run).await {
            Ok(Ok(Ok(reply))) if reply.kind() != kind => {
                Err(TaskRefusal::Failed(format!("{} was answered as {}", kind.label(), reply.kind().label())))
            }
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
