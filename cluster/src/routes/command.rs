//! Commands that change the route table: the entries of its log.

use althing_proto::jid::FullJid;

use super::table::{BindIndex, Route};
use crate::node_id::{Incarnation, NodeId};

/// A change of the table. Applying one reads no clock and no randomness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteCommand {
    /// A session begins; it becomes the owner of its full JID.
    Bind {
        /// The address.
        jid: FullJid,
        /// The node that holds the session.
        node: NodeId,
        /// Which start of that node.
        incarnation: Incarnation,
    },
    /// A session ends. Names the bind that it ends, so that an old session cannot remove a new one.
    Unbind {
        /// The address.
        jid: FullJid,
        /// The bind that began the session.
        index: BindIndex,
    },
    /// A session's presence priority changes.
    Priority {
        /// The address.
        jid: FullJid,
        /// The bind that began the session.
        index: BindIndex,
        /// The priority, or `None` while the session is not available.
        priority: Option<i8>,
    },
}

/// What applying a command yields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteReply {
    /// The bind is done; the owner that it displaced, if there was one.
    Bound {
        /// The owner before.
        displaced: Option<Route>,
    },
    /// The change is done.
    Changed,
    /// The named bind does not own the JID: nothing was changed.
    Stale,
}
