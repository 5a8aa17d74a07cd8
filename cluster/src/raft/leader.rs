//! Asks the leader of a group for something, whoever that is and however often that changes.

use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::storage::RaftStateMachine;
use openraft::{Raft, ReadPolicy};
use tokio::time::Instant;

use super::network::call;
use super::rpc::{Reply, Request};
use super::types::Group;
use crate::disk::Gate;
use crate::link::Links;
use crate::node_id::NodeId;

/// Longest time of one attempt. Above what the leader allows itself.
const ATTEMPT: Duration = Duration::from_secs(6);
/// Longest pause before the next attempt, unless the leader changes before.
const PAUSE: Duration = Duration::from_millis(50);

/// One group, as this node asks it.
pub(crate) struct Leader<C: Group, M: RaftStateMachine<C>> {
    pub(crate) raft: Raft<C, M>,
    pub(crate) links: Arc<Links>,
    /// Closed while this node has no room to lead.
    pub(crate) gate: Gate,
}

impl<C: Group, M: RaftStateMachine<C>> Clone for Leader<C, M> {
    fn clone(&self) -> Self {
        Leader { raft: self.raft.clone(), links: self.links.clone(), gate: self.gate.clone() }
    }
}

impl<C: Group, M: RaftStateMachine<C>> Leader<C, M> {
    /// The leader, as far as this node knows.
    pub(crate) fn id(&self) -> Option<NodeId> {
        self.raft.metrics().borrow_watched().current_leader
    }

    /// Puts a batch into the log; the index of its entry and its replies. Tries until it is done: the batch has an
    /// origin, so that it is done once. `until` then nobody wants it any more: `None`, it is not tried again, and may be done.
    pub(crate) async fn propose(&self, batch: C::D, until: Option<Instant>) -> Option<(u64, C::R)> {
        while until.is_none_or(|until| Instant::now() < until) {
            let known = self.id();
            let attempt = async {
                match known {
                    Some(leader) if leader == self.links.node() => self.write(batch.clone()).await,
                    Some(leader) => {
                        let request = Request::<C>::Propose(batch.clone());
                        match call(&self.links, leader, request, ATTEMPT).await {
                            Ok(Reply::Proposed(index, replies)) => Some((index, replies)),
                            Ok(_) => None,
                            Err(error) => {
                                tracing::debug!(group = C::NAME, member = %leader, %error, "proposal not taken");
                                None
                            }
                        }
                    }
                    None => None,
                }
            };
            match self.while_it_leads(known, attempt).await {
                Some(done) => return Some(done),
                None => self.pause().await,
            }
        }
        None
    }

    /// The same as the leader that this node is, while it has room: it applies nothing without, so there is no answer.
    async fn write(&self, batch: C::D) -> Option<(u64, C::R)> {
        let written = tokio::select! {
            biased;
            () = self.gate.closed() => return None,
            written = tokio::time::timeout(ATTEMPT, self.raft.client_write(batch)) => written.ok()?,
        };
        match written {
            Ok(written) => Some((written.log_id.index, written.data)),
            Err(error) => {
                tracing::debug!(group = C::NAME, %error, "proposal not taken");
                None
            }
        }
    }

    /// Up to where a linearizable read that begins now must have applied the log. Tries until it knows.
    pub(crate) async fn read_index(&self) -> u64 {
        loop {
            let known = self.id();
            let attempt = async {
                match known {
                    Some(leader) if leader == self.links.node() => {
                        let index = self.raft.get_read_log_id(ReadPolicy::LeaseRead).await;
                        index.ok().map(|(index, _)| index.log_id().index)
                    }
                    Some(leader) => match call(&self.links, leader, Request::<C>::ReadIndex, ATTEMPT).await {
                        Ok(Reply::ReadIndex(index)) => Some(index),
                        _ => None,
                    },
                    None => None,
                }
            };
            match self.while_it_leads(known, attempt).await {
                Some(index) => return index,
                None => self.pause().await,
            }
        }
    }

    /// What `attempt` comes to, or nothing as soon as another leads: the answer of a leader that is cut off would be
    /// waited for in vain.
    async fn while_it_leads<T>(
        &self,
        leader: Option<NodeId>,
        attempt: impl Future<Output = Option<T>>,
    ) -> Option<T> {
        tokio::select! {
            result = attempt => result,
            () = self.until(|now| now.is_some() && now != leader) => None,
        }
    }

    /// Until the leader may be another, or for a moment.
    async fn pause(&self) {
        let before = self.id();
        // Either way it is time to try again.
        let _ = tokio::time::timeout(PAUSE, self.until(|now| now != before)).await;
    }

    /// Until that is so of the leader, as far as this node knows.
    async fn until(&self, is_so: impl Fn(Option<NodeId>) -> bool) {
        let mut metrics = self.raft.metrics();
        loop {
            if is_so(metrics.borrow_watched().current_leader) {
                return;
            }
            if metrics.changed().await.is_err() {
                // The group is shut down: whoever waits is dropped with it.
                std::future::pending::<()>().await;
            }
        }
    }
}
