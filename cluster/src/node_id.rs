//! Names of nodes. A restarted node is another node to those who hold its old routes.

use std::fmt;

/// A node's id: a random 63-bit number made with its data directory, never reused and never a
/// StatefulSet's ordinal (ARCHITECTURE.md, "Members").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct NodeId(u64);

impl NodeId {
    /// The id of that number; the top bit is dropped.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        NodeId(number & (u64::MAX >> 1))
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl From<u64> for NodeId {
    fn from(number: u64) -> Self {
        NodeId::new(number)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// How often a node has been started: grows with every start of its process.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize,
)]
pub struct Incarnation(pub u64);
