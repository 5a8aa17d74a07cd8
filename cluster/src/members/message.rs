//! What is asked and answered on the discovery lane. Layouts never change; new cases are added at the end.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::group::GroupName;
use crate::link::hello::ClusterId;
use crate::node_id::{Incarnation, NodeId};

/// Where a node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Its id.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Where it takes links, as host and port.
    pub address: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.name, self.address)
    }
}

/// A question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Question {
    /// Who are you, and do you have a cluster?
    Whoami,
    /// Let me into that group; or note that I have moved.
    Join(Join),
}

/// [`Question::Join`]. The asker's name and node id are those of its hello.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// The cluster that the asker wants to belong to.
    pub cluster: ClusterId,
    /// Which group.
    pub group: GroupName,
    /// Where the asker takes links, as host and port.
    pub address: String,
    /// Which start of it asks.
    pub incarnation: Incarnation,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// To [`Question::Whoami`].
    Iam(Iam),
    /// The asker is a member now, at the address that it gave.
    Joined,
    /// That node leads the group: ask there.
    Elsewhere(Place),
    /// Not now, and why: ask again later.
    Later(String),
    /// Never, and why: an operator has to act.
    Never(String),
}

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Iam {
    /// Its id.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Which start of it.
    pub incarnation: Incarnation,
    /// Its cluster, once that is on its disk.
    pub cluster: Option<ClusterId>,
    /// Whether its group of routes has data.
    pub initialized: bool,
    /// Who leads its groups, as far as it knows.
    pub leaders: Vec<(GroupName, Place)>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire;

    #[test]
    fn golden_bytes() {
        let (node, name, address) = (NodeId::new(5), "a".to_owned(), "b:1".to_owned());
        let place = Place { node, name: name.clone(), address: address.clone() };
        let incarnation = Incarnation(2);
        let join = Join { cluster: ClusterId(3), group: GroupName::Store, address, incarnation };
        let leaders = vec![(GroupName::Routes, place.clone())];
        let iam = Iam { node, name, incarnation, cluster: Some(ClusterId(3)), initialized: true, leaders };
        assert_eq!(wire::encode(&Question::Whoami).unwrap(), [0]);
        assert_eq!(wire::encode(&Question::Join(join)).unwrap(), [1, 3, 1, 3, b'b', b':', b'1', 2]);
        let golden = [0, 5, 1, b'a', 2, 1, 3, 1, 1, 0, 5, 1, b'a', 3, b'b', b':', b'1'];
        assert_eq!(wire::encode(&Answer::Iam(iam)).unwrap(), golden);
        assert_eq!(wire::encode(&Answer::Joined).unwrap(), [1]);
        assert_eq!(wire::encode(&Answer::Elsewhere(place)).unwrap(), [2, 5, 1, b'a', 3, b'b', b':', b'1']);
        assert_eq!(wire::encode(&Answer::Later("x".to_owned())).unwrap(), [3, 1, b'x']);
        assert_eq!(wire::encode(&Answer::Never("x".to_owned())).unwrap(), [4, 1, b'x']);
    }
}
