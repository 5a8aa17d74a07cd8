//! A store group in one process: one ordered list, and replicas that apply it each at its own pace.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use althing_cluster::node_id::NodeId;
use althing_cluster::store_log::{Replica as _, StoreLog, StoreLogError};
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::super::embedded::{Embedded, EmbeddedReplica};
use super::super::{EmbeddedOptions, Storage};
use super::{RemoteError, RemoteStore, Replicated};

/// What is committed.
#[derive(Default)]
pub(super) struct Committed {
    entries: Mutex<Vec<Bytes>>,
    grew: watch::Sender<usize>,
}

/// The group, as the node of one replica sees it.
pub(super) struct Member {
    committed: Arc<Committed>,
    pub(super) rows: Arc<Embedded>,
    applied: watch::Sender<usize>,
    replies: Mutex<Vec<Bytes>>,
    /// While it is `false`, nothing is applied here.
    pub(super) runs: watch::Sender<bool>,
    /// Errors that the next writes end in.
    pub(super) faults: Mutex<VecDeque<StoreLogError>>,
    /// Writes that were tried.
    pub(super) tried: AtomicUsize,
}

impl Member {
    /// Begins to apply what is committed.
    pub(super) fn start(committed: &Arc<Committed>, dir: &std::path::Path) -> Arc<Member> {
        let options = EmbeddedOptions { cache_bytes: 8 << 20, ..EmbeddedOptions::default() };
        let member = Arc::new(Member {
            committed: committed.clone(),
            rows: Arc::new(Embedded::open(dir, options).unwrap()),
            applied: watch::Sender::new(0),
            replies: Mutex::default(),
            runs: watch::Sender::new(true),
            faults: Mutex::default(),
            tried: AtomicUsize::new(0),
        });
        tokio::spawn(member.clone().apply());
        member
    }

    async fn apply(self: Arc<Self>) {
        let replica = EmbeddedReplica::new(self.rows.clone());
        let (mut grew, mut runs) = (self.committed.grew.subscribe(), self.runs.subscribe());
        loop {
            let applied = *self.applied.borrow();
            grew.wait_for(|length| *length > applied).await.unwrap();
            runs.wait_for(|runs| *runs).await.unwrap();
            let commands: Vec<Bytes> =
                self.committed.entries.lock().iter().skip(applied).take(100).cloned().collect();
            let reached = applied + commands.len();
            // A closed store has ended this replica.
            let Ok(replies) = replica.apply(commands, Box::new(move |_| reached.to_string().into())).await
            else {
                return;
            };
            self.replies.lock().extend(replies);
            self.applied.send_replace(reached);
        }
    }

    async fn reach(&self, index: usize) {
        self.applied.subscribe().wait_for(|applied| *applied >= index).await.unwrap();
    }
}

#[async_trait]
impl StoreLog for Member {
    fn is_replica(&self) -> bool {
        true
    }

    fn replicas(&self) -> Vec<NodeId> {
        Vec::new()
    }

    async fn write(&self, command: Bytes) -> Result<Bytes, StoreLogError> {
        self.tried.fetch_add(1, Ordering::SeqCst);
        if let Some(fault) = self.faults.lock().pop_front() {
            return Err(fault);
        }
        let index = {
            let mut entries = self.committed.entries.lock();
            entries.push(command);
            self.committed.grew.send_replace(entries.len());
            entries.len()
        };
        self.reach(index).await;
        Ok(self.replies.lock()[index - 1].clone())
    }

    async fn write_in_order(&self, command: Bytes, _: Instant) -> Result<Bytes, StoreLogError> {
        self.write(command).await
    }

    async fn barrier(&self) -> Result<(), StoreLogError> {
        let index = self.committed.entries.lock().len();
        self.reach(index).await;
        Ok(())
    }
}

/// The group, as a node without a replica sees it: it names another one first each time.
pub(super) struct Outside {
    pub(super) replicas: u64,
    pub(super) turn: AtomicUsize,
}

#[async_trait]
impl StoreLog for Outside {
    fn is_replica(&self) -> bool {
        false
    }

    fn replicas(&self) -> Vec<NodeId> {
        let mut replicas: Vec<NodeId> = (0..self.replicas).map(NodeId::new).collect();
        let turn = self.turn.fetch_add(1, Ordering::SeqCst) % replicas.len().max(1);
        replicas.rotate_left(turn);
        replicas
    }

    async fn write(&self, _: Bytes) -> Result<Bytes, StoreLogError> {
        Err(StoreLogError::Unavailable("not a replica".to_owned()))
    }

    async fn write_in_order(&self, command: Bytes, _: Instant) -> Result<Bytes, StoreLogError> {
        self.write(command).await
    }

    async fn barrier(&self) -> Result<(), StoreLogError> {
        Err(StoreLogError::Unavailable("not a replica".to_owned()))
    }
}

/// Links to nodes whose ids are their places in the list.
#[derive(Default)]
pub(super) struct Links {
    pub(super) nodes: Vec<Arc<Replicated>>,
    /// Errors that the next requests end in.
    pub(super) faults: Mutex<VecDeque<RemoteError>>,
    /// So many of the next writes are made, and nobody hears of it.
    pub(super) lost: AtomicUsize,
    /// Requests that were tried.
    pub(super) tried: AtomicUsize,
}

impl Links {
    fn node(&self, node: NodeId) -> Result<&Replicated, RemoteError> {
        self.tried.fetch_add(1, Ordering::SeqCst);
        match self.faults.lock().pop_front() {
            Some(fault) => Err(fault),
            None => Ok(&self.nodes[usize::try_from(node.get()).unwrap()]),
        }
    }
}

#[async_trait]
impl RemoteStore for Links {
    async fn read(&self, node: NodeId, query: Bytes) -> Result<Bytes, RemoteError> {
        self.node(node)?.answer_read(query).await.map_err(RemoteError::Refused)
    }

    async fn write(&self, node: NodeId, command: Bytes) -> Result<Bytes, RemoteError> {
        let written = self.node(node)?.answer_write(command).await.map_err(RemoteError::Refused);
        match self.lost.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |lost| lost.checked_sub(1)) {
            Ok(_) => Err(RemoteError::Unknown("the link broke".to_owned())),
            Err(_) => written,
        }
    }
}

/// Three replicas, and a node that holds none.
pub(super) struct Cluster {
    pub(super) members: Vec<Arc<Member>>,
    pub(super) nodes: Vec<Arc<Replicated>>,
    pub(super) links: Arc<Links>,
    pub(super) outsider: Arc<Replicated>,
    pub(super) dirs: Vec<tempfile::TempDir>,
}

impl Cluster {
    pub(super) fn start(replicas: usize) -> Cluster {
        let committed = Arc::new(Committed::default());
        let dirs: Vec<_> = (0..replicas).map(|_| tempfile::tempdir().unwrap()).collect();
        let members: Vec<_> = dirs.iter().map(|dir| Member::start(&committed, dir.path())).collect();
        let nowhere: Arc<Links> = Arc::default();
        let nodes: Vec<_> = members
            .iter()
            .map(|member| {
                let rows = Some(member.rows.clone());
                Arc::new(Replicated::new(member.clone(), rows, nowhere.clone()))
            })
            .collect();
        let links = Arc::new(Links { nodes: nodes.clone(), ..Links::default() });
        let outside = Outside { replicas: nodes.len() as u64, turn: AtomicUsize::new(0) };
        let outsider = Arc::new(Replicated::new(Arc::new(outside), None, links.clone()));
        Cluster { members, nodes, links, outsider, dirs }
    }
}

/// A node with the only replica.
pub(in super::super) fn one_replica() -> (Storage, Vec<tempfile::TempDir>) {
    let cluster = Cluster::start(1);
    (Storage::replicated(cluster.nodes[0].clone()), cluster.dirs)
}

/// A node that asks three replicas by turns.
pub(in super::super) fn without_a_replica() -> (Storage, Vec<tempfile::TempDir>) {
    let cluster = Cluster::start(3);
    (Storage::replicated(cluster.outsider.clone()), cluster.dirs)
}
