//! PURE: the one table of what a node can ask of another.
//!
//! Rules of the table: a number is never given to another kind; fields and replies of a kind never change; what
//! must change becomes a new kind with the protocol version that knows it. So nodes of two releases work side by
//! side. A task acts on the node where it runs and is never passed on to a third.
//!
//! Number 10 is kept for clearing a cache.

mod values;

use althing_proto::jid::{BareJid, FullJid, Jid};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::routes::BindIndex;
use crate::wire::{self, WireError};

pub use values::{
    NodeFigure, NodeNumbers, SessionEnding, SessionFound, SessionInfo, StreamTaken, TaskAudience,
};

/// How the node that receives a request runs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Run {
    /// After all that came before it from the same node: for what people see the order of.
    InOrder,
    /// Beside others, as soon as it comes: for what may take long. Sent as a task, without wish for a reply, it
    /// runs in order all the same.
    Aside,
}

macro_rules! cluster_tasks {
    ($(
        $(#[$doc:meta])*
        $tag:literal $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* } -> $reply:ty,
        since $since:literal, $run:ident;
    )*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
            pub struct $name {
                $($(#[$field_doc])* pub $field: $type,)*
            }

            impl From<$name> for ClusterTask {
                fn from(task: $name) -> Self {
                    ClusterTask::$name(task)
                }
            }
        )*

        /// A kind of task.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum TaskKind {
            $(#[doc = concat!("[`", stringify!($name), "`].")] $name,)*
        }

        impl TaskKind {
            /// All kinds, in the table's order.
            pub const ALL: &[TaskKind] = &[$(TaskKind::$name,)*];

            /// The number on the wire.
            #[must_use]
            pub const fn tag(self) -> u16 {
                match self { $(TaskKind::$name => $tag,)* }
            }

            /// The first protocol version that knows the kind.
            #[must_use]
            pub const fn since(self) -> u16 {
                match self { $(TaskKind::$name => $since,)* }
            }

            /// How a request of the kind is run.
            #[must_use]
            pub const fn run(self) -> Run {
                match self { $(TaskKind::$name => Run::$run,)* }
            }

            /// The name, for logs and metrics.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(TaskKind::$name => stringify!($name),)* }
            }
        }

        /// What one node asks of another.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum ClusterTask {
            $($(#[$doc])* $name($name),)*
        }

        impl ClusterTask {
            /// The kind.
            #[must_use]
            pub const fn kind(&self) -> TaskKind {
                match self { $(ClusterTask::$name(_) => TaskKind::$name,)* }
            }

            /// The task as bytes: the kind's number as a big-endian u16, then the fields.
            ///
            /// # Errors
            /// As [`wire::encode`].
            pub fn encode(&self) -> Result<Bytes, WireError> {
                match self { $(ClusterTask::$name(fields) => wire::encode_tagged($tag, fields),)* }
            }

            /// Reads a task that takes all of `bytes`.
            ///
            /// # Errors
            /// [`WireError::UnknownKind`] for a kind of a later release, else [`WireError`] for damage.
            pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
                let (tag, fields) = wire::split_tag(bytes)?;
                match tag {
                    $($tag => wire::decode(fields).map(ClusterTask::$name),)*
                    other => Err(WireError::UnknownKind(other)),
                }
            }
        }

        /// What a task came to.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum TaskReply {
            $(#[doc = concat!("Of [`", stringify!($name), "`].")] $name($reply),)*
        }

        impl TaskReply {
            /// The kind of the task that it answers.
            #[must_use]
            pub const fn kind(&self) -> TaskKind {
                match self { $(TaskReply::$name(_) => TaskKind::$name,)* }
            }

            /// The reply as bytes: the task's number as a big-endian u16, then the value.
            ///
            /// # Errors
            /// As [`wire::encode`].
            pub fn encode(&self) -> Result<Bytes, WireError> {
                match self { $(TaskReply::$name(value) => wire::encode_tagged($tag, value),)* }
            }

            /// Reads a reply that takes all of `bytes`.
            ///
            /// # Errors
            /// As [`ClusterTask::decode`].
            pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
                let (tag, value) = wire::split_tag(bytes)?;
                match tag {
                    $($tag => wire::decode(value).map(TaskReply::$name),)*
                    other => Err(WireError::UnknownKind(other)),
                }
            }
        }
    };
}

cluster_tasks! {
    /// Hands a stanza to one session.
    1 DeliverStanza {
        /// The session's address.
        to: FullJid,
        /// The bind that owns the address for the sender: a later owner is another session.
        owner: BindIndex,
        /// The stanza, whole and with all its namespaces.
        xml: Bytes,
    } -> SessionFound, since 1, InOrder;

    /// Hands one presence stanza to many sessions. Replies how many were there.
    2 FanOutPresence {
        /// The sessions, each with the bind that owns it.
        recipients: Vec<(FullJid, BindIndex)>,
        /// The stanza without `to`.
        xml: Bytes,
    } -> u64, since 1, InOrder;

    /// Hands a stanza to every session of the node. Replies how many there were.
    3 BroadcastLocal {
        /// The stanza without `to`.
        xml: Bytes,
    } -> u64, since 1, InOrder;

    /// Ends a session whose address another bind has taken, with the stream error `conflict`.
    4 ReplaceSession {
        /// The address.
        jid: FullJid,
        /// The bind that ends.
        owner: BindIndex,
        /// The bind that takes its place.
        by: BindIndex,
    } -> SessionFound, since 1, InOrder;

    /// Asks what a session is like. Replies `None` when it is not there.
    5 DescribeSession {
        /// The address.
        jid: FullJid,
    } -> Option<SessionInfo>, since 1, Aside;

    /// Tells the account's sessions of a changed roster item. Replies how many were told.
    6 PushRosterItem {
        /// The account.
        account: BareJid,
        /// What changed, in the server's own form.
        item: Bytes,
    } -> u64, since 1, InOrder;

    /// Takes over the stream of a client that resumes it on the node that asks (XEP-0198): its session ends here.
    7 TakeStream {
        /// The session's address.
        jid: FullJid,
        /// The bind that began it.
        owner: BindIndex,
        /// The hash of what the client shows to resume it.
        token: Bytes,
        /// The last stanza of the server that the client has handled.
        handled: u32,
    } -> StreamTaken, since 1, Aside;

    /// Asks for numbers of the node.
    9 NodeStats {} -> NodeNumbers, since 1, Aside;

    /// Reads from the store of a node that holds one. Query and answer are the store's own bytes.
    11 ReadStore {
        /// What to read.
        query: Bytes,
    } -> Bytes, since 1, Aside;

    /// Writes to the store of a node that holds one. Command and answer are the store's own bytes.
    12 WriteStore {
        /// What to write.
        command: Bytes,
    } -> Bytes, since 1, Aside;

    /// Asks the account's sessions on the node for their presence. Replies how many were asked.
    13 ProbeAccount {
        /// The account.
        account: BareJid,
        /// Who asks.
        from: Jid,
    } -> u64, since 1, InOrder;

    /// Hands a stanza to a class of the account's sessions on the node. Replies how many sessions saw it.
    14 DeliverToAccount {
        /// The account.
        account: BareJid,
        /// Which sessions it is for.
        audience: TaskAudience,
        /// The stanza, whole and with all its namespaces.
        xml: Bytes,
    } -> u64, since 1, InOrder;

    /// Asks for the presence of sessions of the node, for one that has become available. Their presences follow as one
    /// [`ShowPresence`] or several. Replies how many that are.
    15 ProbeSessions {
        /// Who asks.
        from: FullJid,
        /// The bind that began the session that asks.
        asker: BindIndex,
        /// Whose presence is asked for.
        sessions: Vec<BindIndex>,
    } -> u64, since 1, InOrder;

    /// Shows a session the presences that it has asked for. Replies how many it was shown.
    16 ShowPresence {
        /// The session's address.
        to: FullJid,
        /// The bind that began it.
        owner: BindIndex,
        /// The presences, whole and with all their namespaces, without `to`.
        presences: Vec<Bytes>,
    } -> u64, since 1, InOrder;

    /// Tells the account's sessions on the node of its avatar. Replies how many were told.
    20 ShowAvatar {
        /// The account.
        account: BareJid,
        /// Which one: a session that knows a later one ignores it.
        revision: u64,
        /// The hash of the picture; `None`: there is none.
        hash: Option<String>,
    } -> u64, since 1, InOrder;

    /// Ends the account's sessions on the node: it was removed. Replies how many were told.
    21 EndAccount {
        /// The account.
        account: BareJid,
    } -> u64, since 1, InOrder;

    /// Ends a session for a reason that is not its client's.
    24 EndSession {
        /// The address.
        jid: FullJid,
        /// The bind that ends.
        owner: BindIndex,
        /// Why.
        ending: SessionEnding,
    } -> SessionFound, since 1, Aside;

    /// Asks for the figures of the node.
    25 NodeFigures {} -> Vec<NodeFigure>, since 1, Aside;

    /// Tells the account's sessions on the node of changed privacy lists. Replies how many were told.
    30 PushPrivacyChange {
        /// The account.
        account: BareJid,
        /// What changed, in the server's own form.
        change: Bytes,
    } -> u64, since 1, InOrder;

    /// Tells the account's sessions on the node that messages wait for them. Replies how many were told.
    40 DrainInbox {
        /// The account.
        account: BareJid,
    } -> u64, since 1, InOrder;

    /// Tells the account's sessions on the node to read what the account wants to be archived. Replies how many were told.
    54 ReadPreferences {
        /// The account.
        account: BareJid,
    } -> u64, since 1, InOrder;

    /// Asks how many of those sessions show their presence to somebody, who is told nothing.
    31 CountShown {
        /// Who would see it.
        to: Jid,
        /// The sessions.
        sessions: Vec<BindIndex>,
    } -> u64, since 1, Aside;

    /// Asks how many of those sessions have a client that fetches by itself what waits for it.
    48 CountFetching {
        /// The sessions.
        sessions: Vec<BindIndex>,
    } -> u64, since 1, Aside;

    /// Asks which of those sessions have a client that somebody uses now. Replies those.
    62 FindUsed {
        /// The sessions.
        sessions: Vec<BindIndex>,
    } -> Vec<BindIndex>, since 1, Aside;

    /// Hands a stanza to one session, which others of the account get too.
    35 DeliverCopy {
        /// The session's address.
        to: FullJid,
        /// The bind that owns the address for the sender: a later owner is another session.
        owner: BindIndex,
        /// The stanza, whole and with all its namespaces.
        xml: Bytes,
        /// The number of the stanza, by which its other copies are known.
        number: u64,
        /// How many sessions of the node get it, where no others do: it is routed anew where all of them end before they
        /// have it. Else 0.
        here: u32,
    } -> SessionFound, since 1, InOrder;

    /// Brings the answer to a request of the server itself to the node that asked.
    8 AnswerIq {
        /// The answer, whole and with all its namespaces.
        xml: Bytes,
    } -> (), since 1, Aside;

    /// Gives a session to a node where it waits for its client, for the sender stops (XEP-0198). The route names it already.
    /// Replies whether it is taken.
    41 GiveStream {
        /// The session's address.
        jid: FullJid,
        /// The bind that it has from now on.
        owner: BindIndex,
        /// How many of the stanzas for its client were sent, and may have arrived.
        sent: u32,
        /// The session, in the server's own form.
        session: Bytes,
    } -> bool, since 1, Aside;
}

#[cfg(test)]
mod tests;
