//! What can go wrong on a link: for who asks ([`LinkError`]) and for who connects ([`ConnectError`]).

use std::io;

use crate::executor::TaskRefusal;
use crate::link::frame::FrameError;
use crate::link::hello::Refusal;
use crate::node_id::NodeId;
use crate::wire::WireError;

/// Why a task or request was not taken, or brought no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The node is no member.
    #[error("node {0} is no member")]
    NotMember(NodeId),
    /// There is no connection now. Only for lanes that do not repeat.
    #[error("not connected")]
    NotConnected,
    /// The connection broke before the reply; whether the request was run is unknown. Only for lanes that do
    /// not repeat.
    #[error("the connection broke before the reply")]
    Disconnected,
    /// As much as is allowed waits for this node already. Nothing of the task was sent.
    #[error("too much waits for the node")]
    Full,
    /// No reply in time; whether the task was run is unknown, but it is not sent again.
    #[error("no reply in time")]
    Deadline,
    /// The node was declared down before it replied; whether the task was run is unknown.
    #[error("the node was declared down")]
    PeerDown,
    /// The task is longer than a frame of the lane may be.
    #[error("{0} bytes are too many for the lane")]
    TooLarge(usize),
    /// The node speaks an older protocol, which does not know the task.
    #[error("needs protocol version {needed}, the node speaks {spoken}")]
    TooOld {
        /// The first version that knows the task.
        needed: u16,
        /// The version agreed on with the node.
        spoken: u16,
    },
    /// The node answered that it did not run the task.
    #[error("refused: {0}")]
    Refused(#[from] TaskRefusal),
    /// The task cannot be written, or the reply cannot be read or is that of another task.
    #[error("{0}")]
    Wire(#[from] WireError),
}

/// Why there is no connection to a peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The network's word.
    #[error("{why}")]
    Io {
        /// Of which kind: a refused connection says more than one that times out.
        kind: io::ErrorKind,
        /// In words.
        why: String,
    },
    /// One side does not trust the other's certificate.
    #[error("TLS: {0}")]
    Tls(String),
    /// Not done in time.
    #[error("not connected in time")]
    Timeout,
    /// The peer said nothing for longer than is allowed.
    #[error("the peer is silent")]
    Silent,
    /// The peer took nothing for longer than is allowed.
    #[error("the peer takes nothing")]
    Stuck,
    /// The peer closed the connection.
    #[error("closed by the peer")]
    Closed,
    /// The peer refused us.
    #[error("refused by the peer: {0}")]
    Refused(Refusal),
    /// We refused the peer.
    #[error("peer not accepted: {0}")]
    NotAccepted(Refusal),
    /// The peer breaks the protocol.
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// A frame that has no place here.
    #[error("a frame that has no place here")]
    Unexpected,
}

/// Why a question on the discovery lane brought no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DiscoveryError {
    /// There was no connection, or it broke.
    #[error("{0}")]
    Connect(#[from] ConnectError),
    /// There was one, but no answer on it.
    #[error("{0}")]
    Link(#[from] LinkError),
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(tls) => ConnectError::Tls(tls.to_string()),
            None => ConnectError::Io { kind: error.kind(), why: error.to_string() },
        }
    }
}
