//! Commands that change the route table: the entries of its log, in a form on the wire that lasts.
//!
//! A kind's tag is never given to another kind; a kind's fields never change. What must change becomes a new
//! kind with the version of the cluster protocol that knows it, so that nodes of two releases can share a
//! log.

use std::fmt;

use althing_proto::jid::FullJid;
use serde::{Deserialize, Serialize};

use super::table::{BindIndex, Route};
use crate::node_id::{Incarnation, NodeId};
use crate::origin::Origin;

/// Most commands of one batch. [`BindIndex`] keeps that many apart.
pub const MAX_BATCH: usize = 4_096;

/// A point of time of the proposing node, in milliseconds since the Unix epoch. The table compares such points
/// only with each other.
pub type Millis = u64;

/// [`RouteCommand::Bind`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// The address.
    pub jid: FullJid,
    /// The node that holds the session.
    pub node: NodeId,
    /// Which start of that node.
    pub incarnation: Incarnation,
}

/// [`RouteCommand::Unbind`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unbind {
    /// The address.
    pub jid: FullJid,
    /// The bind that began the session.
    pub index: BindIndex,
}

/// [`RouteCommand::Priority`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Priority {
    /// The address.
    pub jid: FullJid,
    /// The bind that began the session.
    pub index: BindIndex,
    /// The priority (RFC 6121 §4.7.2.3), or `None` while the session is not available.
    pub priority: Option<i8>,
}

/// [`RouteCommand::Detach`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detach {
    /// The address.
    pub jid: FullJid,
    /// The bind that began the session.
    pub index: BindIndex,
    /// Until when the session can be resumed.
    pub until: Millis,
}

/// [`RouteCommand::Move`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// The address.
    pub jid: FullJid,
    /// The bind that the mover knows: of two movers one wins.
    pub index: BindIndex,
    /// The node that holds the session from now on. May be the same.
    pub node: NodeId,
    /// Which start of that node.
    pub incarnation: Incarnation,
}

/// [`RouteCommand::Expire`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expire {
    /// The address.
    pub jid: FullJid,
    /// The bind that began the session.
    pub index: BindIndex,
    /// The time that has passed, as the proposer knows it.
    pub until: Millis,
}

/// [`RouteCommand::NodeUp`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeUp {
    /// The node.
    pub node: NodeId,
    /// Which start of it.
    pub incarnation: Incarnation,
}

/// [`RouteCommand::NodeDown`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeDown {
    /// The node.
    pub node: NodeId,
    /// The start that is over; all before it are too.
    pub incarnation: Incarnation,
}

/// Makes the enum, its tags and its wire form from one table.
macro_rules! commands {
    ($($(#[$doc:meta])* $tag:literal $name:ident, since $since:literal;)*) => {
        /// A change of the table. Applying one reads no clock and no randomness.
        ///
        /// On the wire: the tag, then the fields.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum RouteCommand {
            $($(#[$doc])* $name($name),)*
        }

        impl RouteCommand {
            /// The number that names the kind on the wire.
            #[must_use]
            pub const fn tag(&self) -> u16 {
                match self { $(RouteCommand::$name(_) => $tag,)* }
            }

            /// The first version of the cluster protocol that knows the kind.
            #[must_use]
            pub const fn since(&self) -> u16 {
                match self { $(RouteCommand::$name(_) => $since,)* }
            }

            /// The name of the kind, for logs and metrics.
            #[must_use]
            pub const fn name(&self) -> &'static str {
                match self { $(RouteCommand::$name(_) => stringify!($name),)* }
            }
        }

        $(impl From<$name> for RouteCommand {
            fn from(fields: $name) -> Self {
                RouteCommand::$name(fields)
            }
        })*

        impl Serialize for RouteCommand {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self { $(RouteCommand::$name(fields) => ($tag as u16, fields).serialize(serializer),)* }
            }
        }

        impl<'de> serde::de::Visitor<'de> for CommandVisitor {
            type Value = RouteCommand;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a tag and the fields of a route command")
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<RouteCommand, A::Error> {
                use serde::de::Error;
                let missing = |at| A::Error::invalid_length(at, &"a tag and fields");
                match seq.next_element::<u16>()?.ok_or_else(|| missing(0))? {
                    $($tag => seq.next_element::<$name>()?.map(RouteCommand::$name).ok_or_else(|| missing(1)),)*
                    other => Err(A::Error::custom(format_args!("route command {other} is unknown"))),
                }
            }
        }
    };
}

commands! {
    /// A session begins; it becomes the owner of its full JID. Refused with [`RouteReply::Fenced`] unless that
    /// start of the node is up. Reply: [`RouteReply::Bound`].
    1 Bind, since 1;
    /// A session ends. Names the bind that it ends, so that an old session cannot remove a new one. Reply:
    /// [`RouteReply::Changed`].
    2 Unbind, since 1;
    /// A session's presence priority changes. Reply: [`RouteReply::Changed`].
    3 Priority, since 1;
    /// A session has lost its stream and can be resumed (XEP-0198 §5). Reply: [`RouteReply::Changed`].
    4 Detach, since 1;
    /// A session is resumed or handed over: it keeps its priority and gets a new bind index. Refused with
    /// [`RouteReply::Fenced`] unless that start of the node is up. Reply: [`RouteReply::Moved`].
    5 Move, since 1;
    /// A detached session's time is over. Stale if it was moved, or may be resumed for longer than the
    /// command says. Reply: [`RouteReply::Changed`].
    6 Expire, since 1;
    /// A node has started. Its earlier starts are over, as by `NodeDown`. Stale if the table knows a later
    /// start, or that this one is over. Reply: [`RouteReply::Ended`].
    7 NodeUp, since 1;
    /// A start of a node is over, for good: its detached sessions stay until they expire, the others end. Stale
    /// if the table knows that already, or a later start. Reply: [`RouteReply::Ended`].
    8 NodeDown, since 1;
}

impl RouteCommand {
    /// The address that the command is about.
    #[must_use]
    pub const fn jid(&self) -> Option<&FullJid> {
        match self {
            RouteCommand::Bind(Bind { jid, .. })
            | RouteCommand::Unbind(Unbind { jid, .. })
            | RouteCommand::Priority(Priority { jid, .. })
            | RouteCommand::Detach(Detach { jid, .. })
            | RouteCommand::Move(Move { jid, .. })
            | RouteCommand::Expire(Expire { jid, .. }) => Some(jid),
            RouteCommand::NodeUp(_) | RouteCommand::NodeDown(_) => None,
        }
    }
}

struct CommandVisitor;

impl<'de> Deserialize<'de> for RouteCommand {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_tuple(2, CommandVisitor)
    }
}

/// Commands that share one log entry: applied in their order, each with a reply of its own.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct RouteBatch {
    origin: Option<Origin>,
    commands: Vec<RouteCommand>,
}

/// Why commands cannot share a log entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// There are more than [`MAX_BATCH`].
    #[error("{0} commands are too many for one batch")]
    TooLarge(usize),
    /// The address could be written but not read: such an entry would stop every replica.
    #[error("{0} does not parse to itself")]
    UnstableAddress(FullJid),
}

impl RouteBatch {
    /// A batch of those commands.
    ///
    /// # Errors
    /// [`BatchError`].
    pub fn new(commands: Vec<RouteCommand>) -> Result<Self, BatchError> {
        if commands.len() > MAX_BATCH {
            return Err(BatchError::TooLarge(commands.len()));
        }
        for jid in commands.iter().filter_map(RouteCommand::jid) {
            if FullJid::new(jid.as_str()).as_ref() != Ok(jid) {
                return Err(BatchError::UnstableAddress(jid.clone()));
            }
        }
        Ok(RouteBatch { origin: None, commands })
    }

    /// The same batch under a number, so that it is done once however often it is proposed.
    #[must_use]
    pub fn of(self, origin: Origin) -> Self {
        RouteBatch { origin: Some(origin), ..self }
    }

    /// Where the batch comes from; `None` if it is proposed only once.
    #[must_use]
    pub fn origin(&self) -> Option<Origin> {
        self.origin
    }

    /// The commands, in order.
    #[must_use]
    pub fn into_commands(self) -> Vec<RouteCommand> {
        self.commands
    }

    /// How many commands there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.commands.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }
}

impl<'de> Deserialize<'de> for RouteBatch {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (origin, commands) = <(Option<Origin>, Vec<RouteCommand>)>::deserialize(deserializer)?;
        match commands.len() {
            // Each address has just been parsed.
            0..=MAX_BATCH => Ok(RouteBatch { origin, commands }),
            many => Err(serde::de::Error::custom(BatchError::TooLarge(many))),
        }
    }
}

impl fmt::Display for RouteBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.commands.as_slice() {
            [command] => f.write_str(command.name()),
            commands => write!(f, "{} route commands", commands.len()),
        }
    }
}

/// What applying a command yields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RouteReply {
    /// The bind is done.
    Bound {
        /// The new session's epoch.
        index: BindIndex,
        /// The owner before, which the bind has ended.
        displaced: Option<Route>,
    },
    /// The session has moved.
    Moved {
        /// The session's new epoch.
        index: BindIndex,
        /// Where it was.
        from: Route,
    },
    /// The change is done.
    Changed,
    /// The change of a node is done. What it has ended, in the order of the binds; empty in the replies of a
    /// batch, which tells it by [`RouteEvent`](super::RouteEvent).
    Ended(Vec<(FullJid, Route)>),
    /// The command names a bind, an expiry or a start of a node that is not the one in force: nothing was
    /// changed.
    Stale,
    /// The start of the node for which the command speaks is not up: nothing was changed.
    Fenced,
}

/// The replies of a batch, one a command.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RouteReplies(pub Vec<RouteReply>);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire;

    fn samples() -> Vec<(&'static str, RouteCommand)> {
        let jid = FullJid::new("j@d/r").unwrap();
        let (node, incarnation) = (NodeId::new(5), Incarnation(2));
        let index = BindIndex(7);
        vec![
            ("01056a40642f720502", Bind { jid: jid.clone(), node, incarnation }.into()),
            ("02056a40642f7207", Unbind { jid: jid.clone(), index }.into()),
            ("03056a40642f72070101", Priority { jid: jid.clone(), index, priority: Some(1) }.into()),
            ("03056a40642f720700", Priority { jid: jid.clone(), index, priority: None }.into()),
            ("04056a40642f7207fb2c01", Detach { jid: jid.clone(), index, until: 300 }.into()),
            ("05056a40642f72070502", Move { jid: jid.clone(), index, node, incarnation }.into()),
            ("06056a40642f720709", Expire { jid, index, until: 9 }.into()),
            ("070502", NodeUp { node, incarnation }.into()),
            ("080502", NodeDown { node, incarnation }.into()),
        ]
    }

    /// Nodes of two releases, and a log written by an older one, must read each other's commands.
    #[test]
    fn golden_bytes() {
        for (golden, command) in samples() {
            let bytes = wire::encode(&command).unwrap();
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, golden, "{}", command.name());
            assert_eq!(wire::decode::<RouteCommand>(&bytes), Ok(command));
        }
    }

    #[test]
    fn a_batch_is_its_origin_then_its_commands_behind_their_number() {
        let commands: Vec<_> = samples().into_iter().map(|(_, command)| command).collect();
        let batch = RouteBatch::new(commands.clone()).unwrap();
        let bytes = wire::encode(&batch).unwrap();
        assert_eq!((bytes[0], usize::from(bytes[1])), (0, commands.len()));
        assert_eq!(wire::decode::<RouteBatch>(&bytes), Ok(batch.clone()));
        let batch = batch.of(Origin { node: NodeId::new(5), start: Incarnation(2), number: 7 });
        let bytes = wire::encode(&batch).unwrap();
        assert_eq!(bytes[..5], [1, 5, 2, 7, 9]);
        assert_eq!(wire::decode::<RouteBatch>(&bytes), Ok(batch));
    }

    #[test]
    fn unknown_and_damaged_commands_are_refused() {
        assert!(wire::decode::<RouteCommand>(&[9, 5, 2]).is_err());
        for (_, command) in samples() {
            let bytes = wire::encode(&command).unwrap();
            assert!(wire::decode::<RouteCommand>(&bytes[..bytes.len() - 1]).is_err());
            assert!(wire::decode::<RouteCommand>(&[bytes.as_slice(), &[0]].concat()).is_err());
        }
    }

    #[test]
    fn an_address_that_cannot_be_read_again_gets_into_no_batch() {
        // Each sharp s becomes two letters, and the label too long.
        let jid = FullJid::new(&format!("a@{}.example/r", "\u{df}".repeat(40)));
        if let Ok(jid) = jid.as_ref() {
            let unbind = Unbind { jid: jid.clone(), index: BindIndex(1) }.into();
            assert_eq!(RouteBatch::new(vec![unbind]), Err(BatchError::UnstableAddress(jid.clone())));
        }
        assert!(jid.is_ok(), "the crate has changed: the check can go");
    }

    #[test]
    fn a_batch_above_the_limit_is_neither_made_nor_read() {
        let one: RouteCommand = NodeUp { node: NodeId::new(1), incarnation: Incarnation(1) }.into();
        let many = vec![one; MAX_BATCH + 1];
        assert_eq!(RouteBatch::new(many.clone()), Err(BatchError::TooLarge(MAX_BATCH + 1)));
        assert!(wire::decode::<RouteBatch>(&wire::encode(&(None::<Origin>, many)).unwrap()).is_err());
    }
}
