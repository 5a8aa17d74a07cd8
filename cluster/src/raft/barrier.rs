//! Linearizable reads: one question to the leader for all who read at the same time.

use std::time::Duration;

use openraft::storage::RaftStateMachine;
use tokio::sync::{mpsc, oneshot, watch};

use super::leader::Leader;
use super::types::Group;

/// Most reads that wait for a question that is not sent yet; above it they wait to wait.
const QUEUE: usize = 4_096;

/// Makes reads of one node linearizable. Cheap to clone.
#[derive(Clone)]
pub struct Barrier {
    waiters: mpsc::Sender<oneshot::Sender<()>>,
}

impl Barrier {
    /// Starts it, on the runtime of the group. `applied` is how far this node has applied the log.
    pub(crate) fn start<C: Group, M: RaftStateMachine<C>>(
        leader: Leader<C, M>,
        applied: watch::Receiver<u64>,
    ) -> Self {
        let (waiters, mut queue) = mpsc::channel::<oneshot::Sender<()>>(QUEUE);
        tokio::spawn(async move {
            let mut together = Vec::new();
            while queue.recv_many(&mut together, QUEUE).await > 0 {
                together.retain(|waiter| !waiter.is_closed());
                if together.is_empty() {
                    continue;
                }
                // Asked after all of them began to wait: the answer holds for each.
                let index = leader.read_index().await;
                let (done, mut applied) = (std::mem::take(&mut together), applied.clone());
                tokio::spawn(async move {
                    if applied.wait_for(|applied| *applied >= index).await.is_ok() {
                        for waiter in done {
                            // Who does not wait any more needs no word.
                            let _ = waiter.send(());
                        }
                    }
                });
            }
        });
        Barrier { waiters }
    }

    /// How many reads wait for a question that is not sent yet.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiters.max_capacity() - self.waiters.capacity()
    }

    /// Returns when this node has applied all that was committed when the call began; `false` if that is not known
    /// within `deadline`.
    pub async fn pass(&self, deadline: Duration) -> bool {
        let (waiter, passed) = oneshot::channel();
        let all = async { self.waiters.send(waiter).await.is_ok() && passed.await.is_ok() };
        tokio::time::timeout(deadline, all).await.unwrap_or(false)
    }
}
