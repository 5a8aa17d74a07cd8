//! What a node asks the leader of the group of routes for, and gets.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::node_id::{Incarnation, NodeId};

/// Asks for a lease. From the first release on the layout never changes; what must change becomes another request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRequest {
    /// Which start of the node asks.
    pub incarnation: Incarnation,
    /// The index up to which it has applied the route log.
    pub applied: u64,
    /// Whether its disk has less room than is to stay free.
    pub low: bool,
}

/// A lease that was granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseReply {
    /// For how many milliseconds, counted from when the request was sent.
    pub granted_ms: u64,
    /// The index up to which the leader knows the log to be committed. The node serves only once it has applied
    /// that, or nearly.
    pub commit: u64,
    /// The nodes that have said last that their disks are low.
    pub low: Vec<NodeId>,
}

impl LeaseReply {
    /// For how long, counted from when the request was sent.
    #[must_use]
    pub const fn granted(&self) -> Duration {
        Duration::from_millis(self.granted_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire;

    #[test]
    fn golden_bytes() {
        let request = LeaseRequest { incarnation: Incarnation(2), applied: 7, low: true };
        assert_eq!(wire::encode(&request).unwrap(), [2, 7, 1]);
        assert_eq!(wire::decode(&[2, 7, 1]), Ok(request));
        let reply = LeaseReply { granted_ms: 100, commit: 9, low: vec![NodeId::new(3)] };
        assert_eq!(wire::encode(&reply).unwrap(), [100, 9, 1, 3]);
        assert_eq!(wire::decode(&[100, 9, 1, 3]), Ok(reply));
    }
}
