//! What the nodes of a group say to each other, as bytes. New cases are added at the end.

use bytes::Bytes;
use openraft::RaftTypeConfig;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest, VoteResponse};
use openraft::raft::{TransferLeaderRequest, TransferLeaderResponse};
use serde::{Deserialize, Serialize};

/// A request on the lane of a group.
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
pub(crate) enum Request<C: RaftTypeConfig> {
    /// Entries of the leader, or its heartbeat.
    Append(AppendEntriesRequest<C>),
    /// A candidate asks for a vote.
    Vote(VoteRequest<C>),
    /// A node asks whether it would get a vote.
    PreVote(VoteRequest<C>),
    /// The leader wants the node to take over.
    Transfer(TransferLeaderRequest<C>),
    /// To the leader: put this into the log.
    Propose(C::D),
    /// To the leader: up to where must a linearizable read have applied?
    ReadIndex,
    /// What members say to each other beside Raft: the bytes are theirs.
    Member(Bytes),
}

/// The reply to a [`Request`].
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
pub(crate) enum Reply<C: RaftTypeConfig> {
    /// To `Append`.
    Append(AppendEntriesResponse<C>),
    /// To `Vote` and `PreVote`.
    Vote(VoteResponse<C>),
    /// To `Transfer`.
    Transfer(TransferLeaderResponse<C>),
    /// To `Propose`: the index of the entry, and its replies.
    Proposed(u64, C::R),
    /// To `ReadIndex`.
    ReadIndex(u64),
    /// To `Member`.
    Member(Bytes),
}

/// A request on the snapshot lane.
#[derive(Serialize, Deserialize)]
pub(crate) enum SnapshotRequest {
    /// Whether the node would take a snapshot; the reply is empty, a refusal says why not. The leader asks before it
    /// copies anything.
    Ask(SnapshotAsk),
    /// A piece of one.
    Piece(SnapshotPiece),
}

/// What is asked before a snapshot is sent.
#[derive(Serialize, Deserialize)]
pub(crate) struct SnapshotAsk {
    /// The group's [`crate::raft::types::Group::NAME`].
    pub(crate) group: String,
    /// How large it is, as far as is known; 0: nobody knows yet.
    pub(crate) bytes: u64,
}

/// A piece of a snapshot.
#[derive(Serialize, Deserialize)]
pub(crate) struct SnapshotPiece {
    /// The group's [`crate::raft::types::Group::NAME`].
    pub(crate) group: String,
    /// Names the transfer: another number begins a new one.
    pub(crate) transfer: u64,
    /// Where in the file the bytes belong.
    pub(crate) offset: u64,
    /// At most [`PIECE`] of them.
    pub(crate) bytes: Bytes,
    /// With the last piece: the leader's vote and what the snapshot covers, encoded.
    pub(crate) last: Option<Bytes>,
}

/// Bytes of one piece of a snapshot.
pub(crate) const PIECE: usize = 1 << 20;
