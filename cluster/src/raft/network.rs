//! The way from a group to its other nodes: over the lanes of the links.

use std::io::{self, Read as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use openraft::alias::{SnapshotMetaOf, SnapshotOf, VoteOf};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{Backoff, RPCOption};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use parking_lot::Mutex;

use super::pace::{Failure, Paces};
use super::rpc::{PIECE, Reply, Request, SnapshotAsk, SnapshotPiece, SnapshotRequest};
use super::spool::{OUTGOING, Spool, SpoolFile};
use super::types::{Group, Member};
use crate::disk::Gate;
use crate::lease::boot_time;
use crate::link::frame::Lane;
use crate::link::{LinkError, Links, Peer};
use crate::node_id::NodeId;
use crate::wire::{self, WireError};

/// Least time that entries have to get to a follower's disk. A link that has broken says so sooner.
const APPEND: Duration = Duration::from_secs(2);
/// Longest time for one piece of a snapshot but the last.
const PIECE_DEADLINE: Duration = Duration::from_secs(10);

/// Makes the ways to the other nodes of a group.
pub(crate) struct Network<S> {
    pub(crate) links: Arc<Links>,
    pub(crate) snapshots: Snapshots<S>,
}

/// What is needed to bring snapshots to others. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Snapshots<S> {
    pub(crate) spool: S,
    /// Where they lie while they are sent.
    pub(crate) dir: PathBuf,
    /// What must stay free of this node's own disk.
    pub(crate) room: Gate,
    pub(crate) paces: Arc<Mutex<Paces>>,
    /// How often a member that was there got none.
    pub(crate) failures: Arc<AtomicU64>,
}

/// The way to one node.
pub(crate) struct Way<S> {
    links: Arc<Links>,
    target: NodeId,
    snapshots: Snapshots<S>,
}

/// Why a snapshot was not brought.
#[derive(Debug, thiserror::Error)]
enum BringError {
    /// None could be made.
    #[error(transparent)]
    Own(#[from] io::Error),
    /// The member took none, or not to the end.
    #[error(transparent)]
    Link(#[from] LinkError),
}

/// Dials a member, unless it is dialed at that address already.
pub(crate) fn dial(links: &Links, node: NodeId, member: &Member) {
    let peer = Peer { node, name: member.name.clone(), address: member.address.clone() };
    if links.peer(node).as_ref() != Some(&peer) {
        let left = links.add_peer(&peer);
        if !left.is_empty() {
            tracing::warn!(member = %node, left = left.len(), "the member has moved: its tasks are dropped");
        }
    }
}

impl<C: Group, S: Spool<C>> RaftNetworkFactory<C> for Network<S> {
    type Network = Way<S>;

    async fn new_client(&mut self, target: NodeId, node: &Member) -> Way<S> {
        dial(&self.links, target, node);
        Way { links: self.links.clone(), target, snapshots: self.snapshots.clone() }
    }
}

impl<S> Way<S> {
    async fn call<C: Group>(&self, request: Request<C>, deadline: Duration) -> Result<Reply<C>, LinkError> {
        call(&self.links, self.target, request, deadline).await
    }

    fn own(&self) -> NodeId {
        self.links.node()
    }
}

/// Sends a request to another node of the group and waits for the reply.
pub(crate) async fn call<C: Group>(
    links: &Links,
    target: NodeId,
    request: Request<C>,
    deadline: Duration,
) -> Result<Reply<C>, LinkError> {
    let request = Bytes::from(wire::encode(&request)?);
    // An entry above what the link carries would stop the group: batches are bounded far below.
    let reply = links.call(target, C::LANE, request, deadline).await?;
    Ok(wire::decode(&reply)?)
}

/// Says something to another member beside Raft, and waits for the answer.
///
/// # Errors
/// [`LinkError`].
pub(crate) async fn ask_member<C: Group>(
    links: &Links,
    target: NodeId,
    question: Bytes,
    deadline: Duration,
) -> Result<Bytes, LinkError> {
    match call(links, target, Request::<C>::Member(question), deadline).await? {
        Reply::Member(answer) => Ok(answer),
        _ => Err(odd()),
    }
}

/// How openraft is to take an error of a link.
fn error<C: Group>(
    error: LinkError,
    action: RPCTypes,
    own: NodeId,
    target: NodeId,
    timeout: Duration,
) -> RPCError<C> {
    match error {
        LinkError::Deadline => Timeout { action, id: own, target, timeout }.into(),
        // No connection, or a node that takes nothing now: to try again at once is in vain.
        LinkError::Refused(_) | LinkError::NotConnected | LinkError::NotMember(_) | LinkError::PeerDown => {
            Unreachable::new(&error).into()
        }
        other => NetworkError::new(&other).into(),
    }
}

/// A reply to another request.
fn odd() -> LinkError {
    LinkError::Wire(WireError::Malformed("the reply is another request's".to_owned()))
}

impl<C: Group, S: Spool<C>> RaftNetworkV2<C> for Way<S> {
    type SnapshotData = S::Data;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<C>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<C>, RPCError<C>> {
        // openraft allows as long as a heartbeat, which a disk may exceed; heartbeats have its own limit besides.
        let ttl = option.soft_ttl().max(APPEND);
        let failed = |e| error(e, RPCTypes::AppendEntries, self.own(), self.target, ttl);
        match self.call(Request::Append(rpc), ttl).await.map_err(failed)? {
            Reply::Append(reply) => Ok(reply),
            _ => Err(failed(odd())),
        }
    }

    async fn vote(&mut self, rpc: VoteRequest<C>, option: RPCOption) -> Result<VoteResponse<C>, RPCError<C>> {
        let ttl = option.soft_ttl();
        let failed = |e| error(e, RPCTypes::Vote, self.own(), self.target, ttl);
        match self.call(Request::Vote(rpc), ttl).await.map_err(failed)? {
            Reply::Vote(reply) => Ok(reply),
            _ => Err(failed(odd())),
        }
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<C>,
        option: RPCOption,
    ) -> Result<VoteResponse<C>, RPCError<C>> {
        let ttl = option.soft_ttl();
        let failed = |e| error(e, RPCTypes::Vote, self.own(), self.target, ttl);
        match self.call(Request::PreVote(rpc), ttl).await.map_err(failed)? {
            Reply::Vote(reply) => Ok(reply),
            _ => Err(failed(odd())),
        }
    }

    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<C>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<C>, RPCError<C>> {
        let ttl = option.soft_ttl();
        let failed = |e| error(e, RPCTypes::TransferLeader, self.own(), self.target, ttl);
        match self.call(Request::Transfer(rpc), ttl).await.map_err(failed)? {
            Reply::Transfer(reply) => Ok(reply),
            _ => Err(failed(odd())),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: VoteOf<C>,
        snapshot: SnapshotOf<C, S::Data>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<C>, StreamingError<C>> {
        tokio::select! {
            closed = cancel => Err(closed.into()),
            brought = self.bring(vote, snapshot, option.soft_ttl()) => brought,
        }
    }

    /// The links have pauses of their own between attempts: this one only keeps openraft from asking at once.
    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(Duration::from_millis(100))))
    }
}

impl<S> Way<S> {
    /// Sends a snapshot when it is time to try that again.
    async fn bring<C: Group>(
        &self,
        vote: VoteOf<C>,
        snapshot: SnapshotOf<C, S::Data>,
        ttl: Duration,
    ) -> Result<SnapshotResponse<C>, StreamingError<C>>
    where
        S: Spool<C>,
    {
        let paces = &self.snapshots.paces;
        let pause = paces.lock().pause(self.target, boot_time());
        tokio::time::sleep(pause).await;
        let error = match self.send(vote, snapshot, ttl).await {
            Ok(reply) => {
                paces.lock().brought(self.target);
                return Ok(reply);
            }
            Err(error) => error,
        };
        let why = match error {
            BringError::Link(LinkError::NotConnected | LinkError::NotMember(_)) => Failure::Away,
            _ => Failure::Other,
        };
        if why == Failure::Other {
            self.snapshots.failures.fetch_add(1, Ordering::Relaxed);
        }
        if paces.lock().failed(self.target, why, boot_time()) {
            let (group, member) = (C::NAME, self.target);
            tracing::warn!(group, %member, %error, "a member cannot be brought a snapshot: it is tried again");
        }
        Err(StreamingError::Unreachable(Unreachable::new(&error)))
    }

    async fn send<C: Group>(
        &self,
        vote: VoteOf<C>,
        snapshot: SnapshotOf<C, S::Data>,
        ttl: Duration,
    ) -> Result<SnapshotResponse<C>, BringError>
    where
        S: Spool<C>,
    {
        let size = self.snapshots.paces.lock().size(boot_time());
        self.ask::<C>(size).await?;
        let (meta, copy) = self.copy(snapshot, size).await?;
        let mut file = copy.reader()?;
        let length = copy.written().load(Ordering::Relaxed);
        if length > size {
            self.ask::<C>(length).await?;
        }
        let mut last = Some(Bytes::from(wire::encode(&(vote, meta)).map_err(LinkError::from)?));
        // Two transfers to one node never begin at the same moment: openraft has one at a time.
        let transfer = u64::try_from(boot_time().as_nanos()).unwrap_or(u64::MAX);
        let mut offset = 0;
        loop {
            let read = tokio::task::spawn_blocking(move || {
                let mut bytes = Vec::new();
                file.by_ref().take(PIECE as u64).read_to_end(&mut bytes)?;
                io::Result::Ok((file, Bytes::from(bytes)))
            });
            let bytes;
            (file, bytes) = read.await.map_err(io::Error::other)??;
            let end = offset + bytes.len() as u64;
            let is_last = end >= length;
            let last = if is_last { last.take() } else { None };
            let piece = SnapshotPiece { group: C::NAME.to_owned(), transfer, offset, bytes, last };
            let deadline = if is_last { ttl } else { PIECE_DEADLINE };
            let reply = self.tell(SnapshotRequest::Piece(piece), deadline).await?;
            offset = end;
            if is_last {
                return Ok(wire::decode(&reply).map_err(LinkError::from)?);
            }
        }
    }

    /// Whether the member is there and would take a snapshot of that size.
    async fn ask<C: Group>(&self, bytes: u64) -> Result<(), LinkError> {
        let ask = SnapshotAsk { group: C::NAME.to_owned(), bytes };
        self.tell(SnapshotRequest::Ask(ask), PIECE_DEADLINE).await.map(drop)
    }

    async fn tell(&self, request: SnapshotRequest, deadline: Duration) -> Result<Bytes, LinkError> {
        let request = wire::encode(&request)?;
        self.links.call(self.target, Lane::Snapshot, request.into(), deadline).await
    }

    /// Makes a copy, if the disk of this node has room for one as large as the last, and for this one.
    async fn copy<C: Group>(
        &self,
        snapshot: SnapshotOf<C, S::Data>,
        size: u64,
    ) -> io::Result<(SnapshotMetaOf<C>, SpoolFile)>
    where
        S: Spool<C>,
    {
        let number = boot_time().as_nanos();
        let path = self.snapshots.dir.join(format!("{OUTGOING}{}-{number}", self.target));
        let room = self.snapshots.room.clone();
        let created = tokio::task::spawn_blocking(move || SpoolFile::create(&path, room, size));
        let file = created.await.map_err(io::Error::other)??;
        let written = file.written();
        let made = self.snapshots.spool.write(snapshot, file).await;
        let is_measured = match &made {
            Ok(_) => true,
            Err(error) => error.kind() == io::ErrorKind::StorageFull,
        };
        if is_measured {
            self.snapshots.paces.lock().measured(written.load(Ordering::Relaxed), boot_time());
        }
        made
    }
}
