//! PURE: the first frames of a connection, by which two nodes find out whether they belong together.

use serde::{Deserialize, Serialize};

use crate::node_id::{Incarnation, NodeId};

/// The oldest protocol version that this release speaks.
pub const VERSION_MIN: u16 = 1;
/// The newest protocol version that this release speaks.
pub const VERSION_MAX: u16 = 1;

/// Most bytes of a hello or refusal.
pub(crate) const MAX_HELLO: usize = 4096;

/// Names a cluster: a random number made by the node that began it, kept by each member beside its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ClusterId(pub u128);

impl ClusterId {
    /// What a node says that belongs to no cluster yet. Agrees with nothing, not even with itself.
    pub const NONE: ClusterId = ClusterId(0);
}

impl std::fmt::Display for ClusterId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Who speaks. The layout never changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The cluster that the node belongs to.
    pub cluster: ClusterId,
    /// The node's id.
    pub node: NodeId,
    /// The node's name, which its certificate must bear as a DNS name.
    pub name: String,
    /// Which start of the node.
    pub incarnation: Incarnation,
    /// The oldest protocol version that it speaks.
    pub min: u16,
    /// The newest protocol version that it speaks.
    pub max: u16,
}

/// Why a node is not talked to. The layout never changes; new cases are added at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// It belongs to another cluster.
    #[error("another cluster")]
    OtherCluster,
    /// Its certificate does not bear its name.
    #[error("the certificate does not bear the name")]
    WrongName,
    /// It is not the node that was called.
    #[error("another node than the one called")]
    WrongNode,
    /// A later start of the same node has been here.
    #[error("a later start of the node is known")]
    StaleIncarnation,
    /// There is no protocol version that both speak.
    #[error("no common protocol version: versions {min} to {max} are spoken there")]
    Version {
        /// The oldest version that the refusing node speaks.
        min: u16,
        /// The newest version that the refusing node speaks.
        max: u16,
    },
    /// The hello cannot be read.
    #[error("the hello cannot be read")]
    Malformed,
    /// As many nodes as are allowed are known already.
    #[error("too many nodes")]
    Busy,
    /// One of the two has no cluster yet.
    #[error("no cluster yet")]
    NoCluster,
}

impl Hello {
    /// The protocol version that both members of one cluster speak: the newest.
    ///
    /// # Errors
    /// [`Refusal::NoCluster`], [`Refusal::OtherCluster`], and as [`Hello::agree_on_version`].
    pub fn agree(&self, theirs: &Hello) -> Result<u16, Refusal> {
        if [self.cluster, theirs.cluster].contains(&ClusterId::NONE) {
            return Err(Refusal::NoCluster);
        }
        if self.cluster != theirs.cluster {
            return Err(Refusal::OtherCluster);
        }
        self.agree_on_version(theirs)
    }

    /// The newest protocol version that both speak, whichever their clusters are.
    ///
    /// # Errors
    /// [`Refusal::Version`], with this side's versions.
    pub fn agree_on_version(&self, theirs: &Hello) -> Result<u16, Refusal> {
        let newest = self.max.min(theirs.max);
        if newest < self.min.max(theirs.min) {
            return Err(Refusal::Version { min: self.min, max: self.max });
        }
        Ok(newest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire;

    fn hello(cluster: u128, min: u16, max: u16) -> Hello {
        let (cluster, node) = (ClusterId(cluster), NodeId::new(1));
        Hello { cluster, node, name: "a".to_owned(), incarnation: Incarnation(2), min, max }
    }

    #[test]
    fn the_newest_common_version_is_taken() {
        assert_eq!(hello(1, 1, 3).agree(&hello(1, 2, 5)), Ok(3));
        assert_eq!(hello(1, 2, 5).agree(&hello(1, 1, 3)), Ok(3));
        assert_eq!(hello(1, 1, 1).agree(&hello(1, 2, 2)), Err(Refusal::Version { min: 1, max: 1 }));
        assert_eq!(hello(1, 3, 4).agree(&hello(1, 1, 2)), Err(Refusal::Version { min: 3, max: 4 }));
    }

    #[test]
    fn another_cluster_is_refused_before_versions_are_compared() {
        assert_eq!(hello(1, 1, 1).agree(&hello(2, 9, 9)), Err(Refusal::OtherCluster));
    }

    #[test]
    fn no_cluster_agrees_with_nothing_but_the_version() {
        for (ours, theirs) in [(0, 0), (0, 1), (1, 0)] {
            let (ours, theirs) = (hello(ours, 1, 1), hello(theirs, 1, 1));
            assert_eq!(ours.agree(&theirs), Err(Refusal::NoCluster));
            assert_eq!(ours.agree_on_version(&theirs), Ok(1));
        }
    }

    /// A node of any release must be able to read why it is refused.
    #[test]
    fn golden_bytes() {
        assert_eq!(wire::encode(&hello(3, 1, 2)).unwrap(), [3, 1, 1, b'a', 2, 1, 2]);
        let refusals = [
            (Refusal::OtherCluster, vec![0]),
            (Refusal::WrongName, vec![1]),
            (Refusal::WrongNode, vec![2]),
            (Refusal::StaleIncarnation, vec![3]),
            (Refusal::Version { min: 1, max: 2 }, vec![4, 1, 2]),
            (Refusal::Malformed, vec![5]),
            (Refusal::Busy, vec![6]),
            (Refusal::NoCluster, vec![7]),
        ];
        for (refusal, golden) in refusals {
            assert_eq!(wire::encode(&refusal).unwrap(), golden);
        }
    }
}
