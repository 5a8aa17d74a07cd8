//! The route table: which node owns which full JID.
//!
//! [`table`] is pure and deterministic: every replica that applies the same commands in the same order
//! holds the same table. A [`Routes`] strategy decides who orders the commands: [`local::LocalRoutes`]
//! does it alone, for a single node.

pub mod batch;
pub mod command;
pub mod local;
pub mod table;

use async_trait::async_trait;

use althing_proto::jid::{BareJid, FullJid};

use crate::node_id::{Incarnation, NodeId};

pub use batch::AppliedBatch;
pub use command::{RouteBatch, RouteCommand, RouteReplies, RouteReply};
pub use local::LocalRoutes;
pub use table::{BindIndex, NodeState, Route, RouteTable};

/// What a successful bind tells the binding node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// The epoch of the new session: every later command about it names this index.
    pub index: BindIndex,
    /// The owner that the JID had before. It must be ended with `<conflict/>` before the bind is answered
    /// (promise 1).
    pub displaced: Option<Route>,
}

/// Why the table could not be changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// The command names a bind that is no longer the owner.
    #[error("the session {0} no longer owns its address")]
    Stale(BindIndex),
    /// Nobody can order the command now; nothing was changed, it may be tried again.
    #[error("the route table cannot be changed now: {0}")]
    Unavailable(String),
}

/// A strategy that keeps the route table. Reads are local and cheap; changes are answered when they are
/// applied on this node.
#[async_trait]
pub trait Routes: Send + Sync {
    /// Makes this node the owner of `jid`.
    ///
    /// # Errors
    /// [`RouteError::Unavailable`].
    async fn bind(&self, jid: &FullJid) -> Result<Bound, RouteError>;

    /// Ends the ownership that `index` began; a newer owner stays.
    ///
    /// # Errors
    /// [`RouteError::Stale`] where a newer bind owns the JID or nobody does.
    async fn unbind(&self, jid: &FullJid, index: BindIndex) -> Result<(), RouteError>;

    /// Sets the presence priority, or `None` for a session that is not available.
    ///
    /// # Errors
    /// [`RouteError::Stale`] where another bind owns the JID.
    async fn set_priority(
        &self,
        jid: &FullJid,
        index: BindIndex,
        priority: Option<i8>,
    ) -> Result<(), RouteError>;

    /// Gives the ownership that `index` began to that start of a node, which may be this one; it keeps its priority. Of
    /// two who try, one does it. The new ownership.
    ///
    /// # Errors
    /// [`RouteError::Stale`] where another bind owns the JID or nobody does; [`RouteError::Unavailable`].
    async fn move_to(
        &self,
        jid: &FullJid,
        index: BindIndex,
        to: (NodeId, Incarnation),
    ) -> Result<BindIndex, RouteError>;

    /// Returns when this node has applied all that was committed before the call: what is read then is not older than
    /// that.
    ///
    /// # Errors
    /// [`RouteError::Unavailable`].
    async fn barrier(&self) -> Result<(), RouteError>;

    /// The owner of a full JID.
    fn locate(&self, jid: &FullJid) -> Option<Route>;

    /// Where all sessions of an account are, in the order of their binds.
    fn locate_account(&self, jid: &BareJid) -> Vec<Route>;

    /// Shows all sessions of an account to `see`, in the order of their binds, without a copy. `see` is called
    /// under a lock: it must not ask the table for anything.
    fn visit_account(&self, jid: &BareJid, see: &mut dyn FnMut(&FullJid, &Route));

    /// How many sessions the table holds.
    fn sessions(&self) -> usize;

    /// A frozen copy of the table. It shares what does not change: cheap, and free to be walked at leisure.
    fn table(&self) -> RouteTable;

    /// The index of the last log entry that this node has applied.
    fn applied(&self) -> u64;

    /// The index of the last entry that the table shows. It may be ahead of [`applied`](Self::applied) for a moment, while
    /// losses are being told.
    fn shown(&self) -> u64 {
        self.applied()
    }

    /// Waits until this node has applied the entry at `index`. `false` if it never will. The caller sets the
    /// deadline.
    async fn wait_for(&self, index: u64) -> bool;

    /// How many [`Ended`] what this node has applied since it began has brought about: each is told to its sessions. One entry
    /// may bring about several.
    fn losses(&self) -> u64 {
        0
    }

    /// The node with the lowest number among those that are up, as the table has it: for what one has to do for all.
    fn first_up(&self) -> Option<NodeId>;

    /// What the table knows of a node; `None` if it was never up.
    fn node_state(&self, node: NodeId) -> Option<NodeState>;
}

/// What applying an entry has brought about beside its replies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteEvent {
    /// A node, or an earlier start of it, is over.
    Ended(Ended),
    /// A later bind has taken a session's address.
    Displaced {
        /// The address.
        jid: FullJid,
        /// The session that it has ended.
        route: Route,
    },
}

/// Sessions that the end of a node, or of an earlier start of it, has ended. Every node gets the same, each once,
/// in the order of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The index of the entry.
    pub index: u64,
    /// The node.
    pub node: NodeId,
    /// The sessions, in the order of their binds.
    pub sessions: Vec<(FullJid, Route)>,
}
