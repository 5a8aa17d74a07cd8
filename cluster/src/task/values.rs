//! Values in tasks and their replies. Fields never change; new cases are added at the end.

use althing_proto::time::Timestamp;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::routes::BindIndex;

/// Why a session is ended from outside. New cases are added at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionEnding {
    /// An administrator wants it.
    Administrator,
    /// The account was disabled.
    Disabled,
}

/// Which sessions of an account a stanza is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskAudience {
    /// Those that are available.
    Available,
    /// Those that asked for the roster (RFC 6121 §2.2: "interested resources").
    Interested,
}

/// Whether a task met the session that it was for. New cases are added at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionFound {
    /// It was there, and the task is done.
    Done,
    /// It was not there. The sender waits until its own route table has `applied`, then looks up once more.
    NoSession {
        /// The index up to which the node that answers has applied the route log.
        applied: u64,
    },
    /// It was there, and the task is done; but its client reads too slowly: the sender is to slow down.
    Slowly,
    /// It was there, but too much waits for it already: it did not take the stanza.
    Congested,
}

/// What a session is like: the reply to [`DescribeSession`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionInfo {
    /// The bind that began it.
    pub owner: BindIndex,
    /// When it began.
    pub since: Timestamp,
    /// Its presence priority, `None` while it is not available.
    pub priority: Option<i8>,
    /// Where its client connects from, if it has a connection.
    pub address: Option<String>,
    /// Bytes that wait to be written to the client.
    pub waiting: u64,
}

/// Numbers of one node: the reply to [`NodeStats`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeNumbers {
    /// When the process started.
    pub started: Timestamp,
    /// Sessions that it holds.
    pub sessions: u64,
    /// The index up to which it has applied the route log.
    pub applied: u64,
}

/// A figure of one node: an entry of the reply to [`NodeFigures`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFigure {
    /// Its name.
    pub name: String,
    /// What it counts.
    pub units: String,
    /// Its value.
    pub value: u64,
}

/// What became of a stream that was to be taken over: the reply to [`TakeStream`](super::TakeStream). New cases are added
/// at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StreamTaken {
    /// It is the asker's, in the route table too. The session, in the server's own form.
    Taken(Bytes),
    /// There is none that this token resumes.
    Unknown,
    /// It cannot be handed over now.
    Unavailable,
    /// The client acknowledges more than it was sent.
    TooHigh {
        /// What it acknowledges.
        handled: u32,
        /// What it was sent.
        sent: u32,
    },
}
