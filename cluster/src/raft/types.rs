//! The types of the two Raft groups.

use std::fmt;

use althing_proto::jid::FullJid;
use bytes::Bytes;
use openraft::RaftTypeConfig;
use serde::{Deserialize, Serialize};

use crate::link::frame::Lane;
use crate::node_id::NodeId;
use crate::origin::Origin;
use crate::routes::command::{BatchError, MAX_BATCH, Unbind};
use crate::routes::{RouteBatch, RouteCommand, RouteReplies, RouteReply};

/// What a group's membership keeps of a node: enough to reach it and to tell an operator who it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Member {
    /// The node's stable name.
    pub name: String,
    /// Where it takes links, as host and port; resolved anew at each connect.
    pub address: String,
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.name, self.address)
    }
}

openraft::declare_raft_types!(
    /// The group that orders the changes of the route table.
    pub RouteGroup:
        D = RouteBatch,
        R = RouteReplies,
        NodeId = NodeId,
        Node = Member,
);

openraft::declare_raft_types!(
    /// The group that orders the changes of the store.
    pub StoreGroup:
        D = StoreBatch,
        R = StoreReplies,
        NodeId = NodeId,
        Node = Member,
);

/// Commands of the store that share one log entry. What they mean is the store's.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StoreBatch {
    /// Where the batch comes from.
    pub origin: Option<Origin>,
    /// The commands, in order.
    pub commands: Vec<Bytes>,
}

impl fmt::Display for StoreBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} store commands", self.commands.len())
    }
}

/// The store's replies to a batch, one a command.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StoreReplies(pub Vec<Bytes>);

/// What the two groups differ in, for whoever proposes.
pub trait Group:
    RaftTypeConfig<NodeId = NodeId, Node = Member, Term = u64, D: Clone, R: Clone, Entry: Clone>
{
    /// One change.
    type Command: Send + 'static;
    /// What it came to.
    type Reply: Clone + Send + 'static;
    /// What is kept of a command to undo it when nobody waits for its reply any more.
    type Trace: Send + 'static;

    /// The name, for logs and metrics.
    const NAME: &'static str;
    /// The lane between nodes.
    const LANE: Lane;
    /// Most commands of one batch.
    const MAX_COMMANDS: usize;
    /// Whether a command that nobody waits for any more is given up, if it still can be.
    const GIVES_UP: bool;

    /// Bytes that the command takes in the log, about.
    fn size(command: &Self::Command) -> usize;

    /// Puts commands into one entry.
    ///
    /// # Errors
    /// [`BatchError`].
    fn batch(origin: Origin, commands: Vec<Self::Command>) -> Result<Self::D, BatchError>;

    /// The replies of an entry, one a command.
    fn replies(replies: Self::R) -> Vec<Self::Reply>;

    /// See [`Group::Trace`].
    fn trace(command: &Self::Command) -> Self::Trace;

    /// What undoes a command whose reply nobody has taken, if anything must.
    fn undo(trace: Self::Trace, reply: &Self::Reply) -> Option<Self::Command>;
}

/// Bytes of a route command beside its address.
const ROUTE_OVERHEAD: usize = 24;

impl Group for RouteGroup {
    type Command = RouteCommand;
    type Reply = RouteReply;
    type Trace = Option<FullJid>;

    const NAME: &'static str = "routes";
    const LANE: Lane = Lane::Routes;
    const MAX_COMMANDS: usize = MAX_BATCH;
    /// The end of a session is to be in the table though who has told it does not wait.
    const GIVES_UP: bool = false;

    fn size(command: &RouteCommand) -> usize {
        ROUTE_OVERHEAD + command.jid().map_or(0, |jid| jid.as_str().len())
    }

    fn batch(origin: Origin, commands: Vec<RouteCommand>) -> Result<RouteBatch, BatchError> {
        Ok(RouteBatch::new(commands)?.of(origin))
    }

    fn replies(RouteReplies(replies): RouteReplies) -> Vec<RouteReply> {
        replies
    }

    fn trace(command: &RouteCommand) -> Option<FullJid> {
        match command {
            RouteCommand::Bind(bind) => Some(bind.jid.clone()),
            RouteCommand::Move(moved) => Some(moved.jid.clone()),
            _ => None,
        }
    }

    /// A bind whose client has gone would be a session that nobody ever ends.
    fn undo(trace: Option<FullJid>, reply: &RouteReply) -> Option<RouteCommand> {
        match (trace, reply) {
            (Some(jid), RouteReply::Bound { index, .. } | RouteReply::Moved { index, .. }) => {
                Some(Unbind { jid, index: *index }.into())
            }
            _ => None,
        }
    }
}

impl Group for StoreGroup {
    type Command = Bytes;
    type Reply = Bytes;
    type Trace = ();

    const NAME: &'static str = "store";
    const LANE: Lane = Lane::Store;
    const MAX_COMMANDS: usize = 512;
    const GIVES_UP: bool = true;

    fn size(command: &Bytes) -> usize {
        command.len()
    }

    fn batch(origin: Origin, commands: Vec<Bytes>) -> Result<StoreBatch, BatchError> {
        Ok(StoreBatch { origin: Some(origin), commands })
    }

    fn replies(StoreReplies(replies): StoreReplies) -> Vec<Bytes> {
        replies
    }

    fn trace(_: &Bytes) {}

    fn undo((): (), _: &Bytes) -> Option<Bytes> {
        None
    }
}
