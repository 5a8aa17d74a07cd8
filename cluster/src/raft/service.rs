//! The answering side of a group: requests of other nodes go to its Raft.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use openraft::alias::{SnapshotMetaOf, SnapshotOf, VoteOf};

use openraft::async_runtime::watch::WatchReceiver;
use openraft::raft::AppendEntriesRequest;
use openraft::storage::RaftStateMachine;
use openraft::{Raft, ReadPolicy};
use parking_lot::Mutex;
use serde::Serialize;

use super::rpc::{PIECE, Reply, Request, SnapshotAsk, SnapshotPiece, SnapshotRequest};
use super::spool::{INCOMING, Spool};
use super::types::Group;
use crate::disk::Gate;
use crate::executor::{LaneService, TaskRefusal};
use crate::link::frame::Lane;
use crate::link::hello::Hello;
use crate::node_id::NodeId;
use crate::wire;

/// Longest time that the leader works on a proposal of another node. Who asks asks again; it is done once.
const PROPOSAL: Duration = Duration::from_secs(5);

/// Why nothing is taken while the gate is closed.
const NO_ROOM: &str = "the disk of this node has no room";

/// A group, for whoever dispatches requests.
#[async_trait]
pub(crate) trait Serve: Send + Sync {
    /// Answers a request on the group's lane.
    async fn answer(&self, from: NodeId, request: Bytes) -> Result<Bytes, TaskRefusal>;

    /// Whether a snapshot of that many bytes would be taken.
    async fn would_take(&self, bytes: u64) -> Result<(), TaskRefusal>;

    /// Takes a piece of a snapshot.
    async fn take_piece(&self, from: NodeId, piece: SnapshotPiece) -> Result<Bytes, TaskRefusal>;
}

/// One group as other nodes reach it.
pub(crate) struct Service<C: Group, M: RaftStateMachine<C>, S> {
    pub(crate) raft: Raft<C, M>,
    pub(crate) spool: S,
    /// Where incoming snapshots lie while they come.
    pub(crate) dir: PathBuf,
    /// Who answers what is not Raft's.
    pub(crate) members: Arc<dyn LaneService>,
    /// Snapshots that come: one a sender, the last that it began.
    pub(crate) incoming: Mutex<HashMap<NodeId, Incoming>>,
    /// While it is closed nothing is taken: the others go on without this node.
    pub(crate) gate: Gate,
    /// Whether the group is being told who leads.
    pub(crate) hears: Arc<AtomicBool>,
    /// Whoever takes a snapshot in holds it too.
    pub(crate) takes_in: Arc<()>,
}

/// A snapshot that comes.
pub(crate) struct Incoming {
    transfer: u64,
    file: File,
    offset: u64,
}

fn failed(error: impl std::fmt::Display) -> TaskRefusal {
    TaskRefusal::Failed(error.to_string())
}

fn encoded(value: &impl Serialize) -> Result<Bytes, TaskRefusal> {
    wire::encode(value).map(Bytes::from).map_err(failed)
}

impl<C, M, S> Service<C, M, S>
where
    C: Group,
    M: RaftStateMachine<C>,
{
    /// Tells the group who leads, and no more: a leader that has handed its group on learns it this way.
    fn hear(&self, vote: VoteOf<C>) {
        let is_known = self.raft.metrics().borrow_watched().vote == vote;
        if is_known || self.hears.swap(true, Ordering::Relaxed) {
            return;
        }
        let (raft, hears) = (self.raft.clone(), Arc::clone(&self.hears));
        tokio::spawn(async move {
            let rpc =
                AppendEntriesRequest { vote, prev_log_id: None, entries: Vec::new(), leader_commit: None };
            // Whether it is taken says the next look.
            let _ = raft.append_entries(rpc).await;
            hears.store(false, Ordering::Relaxed);
        });
    }

    /// What the group says, as long as the disk has room: else it would say nothing before there is.
    async fn with_room<T, E: std::fmt::Display>(
        &self,
        answer: impl Future<Output = Result<T, E>>,
    ) -> Result<T, TaskRefusal> {
        tokio::select! {
            biased;
            () = self.gate.closed() => Err(failed(NO_ROOM)),
            answer = answer => answer.map_err(failed),
        }
    }
}

#[async_trait]
impl<C, M, S> Serve for Service<C, M, S>
where
    C: Group,
    S: Spool<C>,
    M: RaftStateMachine<C, SnapshotData = S::Data>,
{
    async fn answer(&self, from: NodeId, request: Bytes) -> Result<Bytes, TaskRefusal> {
        let request = wire::decode(&request).map_err(|error| TaskRefusal::Malformed(error.to_string()))?;
        let reply: Reply<C> = match request {
            Request::Append(rpc) if !self.gate.is_open() => {
                self.hear(rpc.vote);
                return Err(failed(NO_ROOM));
            }
            Request::Append(rpc) => Reply::Append(self.with_room(self.raft.append_entries(rpc)).await?),
            Request::Vote(rpc) => Reply::Vote(self.with_room(self.raft.vote(rpc)).await?),
            Request::PreVote(rpc) => Reply::Vote(self.with_room(self.raft.pre_vote(rpc)).await?),
            Request::Transfer(rpc) => {
                Reply::Transfer(self.with_room(self.raft.handle_transfer_leader(rpc)).await?)
            }
            Request::Propose(batch) => {
                let written = tokio::time::timeout(PROPOSAL, self.raft.client_write(batch));
                let written = self.with_room(written).await?.map_err(failed)?;
                Reply::Proposed(written.log_id.index, written.data)
            }
            Request::ReadIndex => {
                let (index, _) = self.raft.get_read_log_id(ReadPolicy::LeaseRead).await.map_err(failed)?;
                Reply::ReadIndex(index.log_id().index)
            }
            Request::Member(bytes) => Reply::Member(self.members.answer(from, C::LANE, bytes).await?),
        };
        encoded(&reply)
    }

    async fn would_take(&self, bytes: u64) -> Result<(), TaskRefusal> {
        if !self.gate.is_open() {
            return Err(failed(NO_ROOM));
        }
        if Arc::strong_count(&self.takes_in) > 1 {
            return Err(failed("this node takes in another snapshot"));
        }
        let gate = self.gate.clone();
        let spare = tokio::task::spawn_blocking(move || gate.spare()).await.map_err(failed)?;
        // The smallest has one piece.
        if spare < bytes.max(PIECE as u64) {
            return Err(failed(format_args!(
                "the disk of this node has room for {spare} more bytes, and the snapshot has {bytes}"
            )));
        }
        Ok(())
    }

    async fn take_piece(&self, from: NodeId, piece: SnapshotPiece) -> Result<Bytes, TaskRefusal> {
        let SnapshotPiece { transfer, offset, bytes, last, .. } = piece;
        // A file a transfer: a piece of one that was given up may still be on its way into the file.
        let path = |transfer: u64| self.dir.join(format!("{INCOMING}{from}-{transfer}"));
        let forget = |transfer: u64| drop(std::fs::remove_file(path(transfer)));
        let known = self.incoming.lock().remove(&from);
        if !self.gate.is_open() {
            known.iter().for_each(|known| forget(known.transfer));
            return Err(failed(NO_ROOM));
        }
        let incoming = match known {
            Some(incoming) if incoming.transfer == transfer && incoming.offset == offset => incoming,
            other => {
                other.iter().for_each(|other| forget(other.transfer));
                if offset > 0 {
                    forget(transfer);
                    return Err(failed("the pieces of the snapshot are out of order"));
                }
                let file = File::create(path(transfer)).map_err(failed)?;
                Incoming { transfer, file, offset: 0 }
            }
        };
        let is_last = last.is_some();
        let written = tokio::task::spawn_blocking(move || {
            let mut incoming = incoming;
            incoming.file.write_all(&bytes)?;
            incoming.offset += bytes.len() as u64;
            if is_last {
                incoming.file.sync_all()?;
            }
            io::Result::Ok(incoming)
        });
        let written = written.await.map_err(failed)?;
        let incoming = written.inspect_err(|_| forget(transfer)).map_err(failed)?;
        let Some(last) = last else {
            if let Some(other) = self.incoming.lock().insert(from, incoming) {
                forget(other.transfer);
            }
            return Ok(Bytes::new());
        };
        drop(incoming);
        let (vote, meta): (VoteOf<C>, SnapshotMetaOf<C>) =
            wire::decode(&last).map_err(|error| TaskRefusal::Malformed(error.to_string()))?;
        tracing::info!(group = C::NAME, from = %from, "snapshot received");
        let snapshot = self.spool.read(path(transfer)).await.map_err(failed)?;
        let snapshot = SnapshotOf::<C, S::Data> { meta, snapshot };
        // It is taken in to the end, also when nobody waits for that any more.
        let taking = Arc::clone(&self.takes_in);
        let raft = self.raft.clone();
        let taken = tokio::spawn(async move {
            let _taking = taking;
            raft.install_full_snapshot(vote, snapshot).await
        });
        let reply = self.with_room(taken).await?.map_err(failed)?;
        encoded(&reply)
    }
}

/// All groups of a node as other nodes reach them.
pub(crate) struct Groups {
    pub(crate) routes: Arc<dyn Serve>,
    pub(crate) store: Arc<dyn Serve>,
    /// Who answers on the discovery lane.
    pub(crate) members: Arc<dyn LaneService>,
}

#[async_trait]
impl LaneService for Groups {
    async fn answer(&self, from: NodeId, lane: Lane, request: Bytes) -> Result<Bytes, TaskRefusal> {
        match lane {
            Lane::Routes => self.routes.answer(from, request).await,
            Lane::Store => self.store.answer(from, request).await,
            Lane::Snapshot => {
                let request =
                    wire::decode(&request).map_err(|error| TaskRefusal::Malformed(error.to_string()))?;
                let (SnapshotRequest::Ask(SnapshotAsk { group, .. })
                | SnapshotRequest::Piece(SnapshotPiece { group, .. })) = &request;
                let group = match group.as_str() {
                    "routes" => &self.routes,
                    "store" => &self.store,
                    other => return Err(failed(format_args!("no group {other}"))),
                };
                match request {
                    SnapshotRequest::Ask(SnapshotAsk { bytes, .. }) => {
                        group.would_take(bytes).await.map(|()| Bytes::new())
                    }
                    SnapshotRequest::Piece(piece) => group.take_piece(from, piece).await,
                }
            }
            _ => self.members.answer(from, lane, request).await,
        }
    }

    async fn discover(&self, from: &Hello, request: Bytes) -> Result<Bytes, TaskRefusal> {
        self.members.discover(from, request).await
    }
}

/// Stands in for services that need the links, which need a service: refuses until it is set.
pub(crate) struct Late<T>(OnceLock<T>);

impl<T> Default for Late<T> {
    fn default() -> Self {
        Late(OnceLock::new())
    }
}

impl<T> Late<T> {
    /// From now on `service` answers. Only the first call counts.
    pub(crate) fn set(&self, service: T) {
        // A second one would be a bug that shows at once: it is never asked.
        let _ = self.0.set(service);
    }
}

#[async_trait]
impl<T: LaneService> LaneService for Late<T> {
    async fn answer(&self, from: NodeId, lane: Lane, request: Bytes) -> Result<Bytes, TaskRefusal> {
        match self.0.get() {
            Some(service) => service.answer(from, lane, request).await,
            None => Err(failed("the node is starting")),
        }
    }

    async fn discover(&self, from: &Hello, request: Bytes) -> Result<Bytes, TaskRefusal> {
        match self.0.get() {
            Some(service) => service.discover(from, request).await,
            None => Err(failed("the node is starting")),
        }
    }
}
