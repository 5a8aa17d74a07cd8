//! PURE: what a starting node does, from what it knows of itself and what others have answered.
//!
//! A node with data starts. One without joins the cluster of whoever has one. A new cluster is begun only by the
//! node of the lowest name of the initial set, and only when *all* of the set have answered that they are empty:
//! a node that is merely not reached may hold a cluster.

use std::collections::BTreeMap;

use super::message::Place;
use super::name;
use super::voters;
use crate::link::hello::ClusterId;
use crate::node_id::NodeId;

/// What the node knows of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Own {
    /// Its name.
    pub name: String,
    /// Its id.
    pub node: NodeId,
    /// The cluster that is kept on its disk.
    pub cluster: Option<ClusterId>,
    /// Whether its group of routes has data, be it only a vote.
    pub initialized: bool,
}

/// What became of asking one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// No answer, and why.
    Unreachable(String),
    /// It has neither data nor a cluster.
    Empty(NodeId),
    /// It is about to begin a cluster whose id it does not tell yet.
    Founding(NodeId),
    /// It belongs to a cluster.
    Member {
        /// Its id.
        node: NodeId,
        /// The cluster.
        cluster: ClusterId,
        /// Who leads the group of routes, as far as it knows.
        leader: Option<Place>,
    },
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// The node has data: it starts, and tells the others where it is.
    Start(ClusterId),
    /// Join that cluster, over the node of that name.
    Join {
        /// The cluster.
        cluster: ClusterId,
        /// A member, if possible one that knows the leader.
        via: String,
    },
    /// Begin a cluster with these voters; the rest of the initial set joins later.
    Initialize(BTreeMap<NodeId, String>),
    /// This node began a cluster and was stopped before its id was kept: go on from there.
    FinishFounding,
    /// Ask again later: for whom it waits, and why.
    Wait(Vec<(String, String)>),
}

/// Why the node must not go on by itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The answers name two clusters.
    #[error(
        "{one} belongs to cluster {first}, {other} to cluster {second}: the addresses of two clusters are mixed up; \
         correct the list of members, or wipe the data of the node that does not belong here"
    )]
    TwoClusters {
        /// Who said the first.
        one: String,
        /// The first.
        first: ClusterId,
        /// Who said the second.
        other: String,
        /// The second.
        second: ClusterId,
    },
    /// Two names have the same node id.
    #[error(
        "{one} and {other} have the same node id {node}: the data directory was copied; \
         give one of them an empty directory"
    )]
    SameId {
        /// A name.
        one: String,
        /// Another.
        other: String,
        /// Their id.
        node: NodeId,
    },
    /// This node began a cluster and was stopped half way, and now there is another.
    #[error(
        "this node has begun a cluster of its own, and now there is cluster {cluster}: \
         give it an empty data directory to join that one"
    )]
    HalfFounded {
        /// The other.
        cluster: ClusterId,
    },
    /// There is nobody to begin with.
    #[error("the initial set of members is empty: name the first nodes of the cluster in the configuration")]
    NoInitialSet,
}

/// Decides. `initial` are the names of the initial set; `heard` holds what was said by each name that was asked,
/// without the node's own.
///
/// # Errors
/// [`PlanError`]: only an operator can help.
pub fn decide(own: &Own, initial: &[String], heard: &BTreeMap<String, Said>) -> Result<Plan, PlanError> {
    if initial.is_empty() && own.cluster.is_none() {
        return Err(PlanError::NoInitialSet);
    }
    same_id(own, heard)?;
    if let (true, Some(cluster)) = (own.initialized, own.cluster) {
        // Others of another cluster are refused by the links; they must not keep a running cluster from starting.
        return Ok(Plan::Start(cluster));
    }
    if let Some((cluster, via)) = cluster_of(own, heard)? {
        if own.initialized {
            return Err(PlanError::HalfFounded { cluster });
        }
        return Ok(match via {
            Some(via) => Plan::Join { cluster, via },
            None => wait(own, initial, heard, "no member of the node's cluster has answered"),
        });
    }
    if own.initialized {
        return Ok(Plan::FinishFounding);
    }
    let mut set: Vec<&String> = initial.iter().collect();
    set.sort_by(|left, right| name::compare(left, right));
    set.dedup();
    let mut empty = Vec::new();
    for name in &set {
        let node = if **name == own.name { Some(own.node) } else { empty_id(heard.get(*name)) };
        empty.extend(node.map(|node| (node, (*name).clone())));
    }
    if empty.len() < set.len() {
        return Ok(wait(own, initial, heard, "it has not answered yet"));
    }
    match set.first() {
        Some(lowest) if **lowest == own.name => {
            // In the order of the names.
            let voters = voters::wanted(empty.len());
            Ok(Plan::Initialize(empty.into_iter().take(voters).collect()))
        }
        Some(lowest) => Ok(Plan::Wait(vec![(
            (*lowest).clone(),
            "it has the lowest name and begins the cluster".to_owned(),
        )])),
        None => Err(PlanError::NoInitialSet),
    }
}

/// The cluster that the node has to belong to, and a member that has answered.
fn cluster_of(
    own: &Own,
    heard: &BTreeMap<String, Said>,
) -> Result<Option<(ClusterId, Option<String>)>, PlanError> {
    let mut found = own.cluster.map(|cluster| (own.name.clone(), cluster));
    let mut via: Option<(bool, String)> = None;
    for (name, said) in heard {
        let Said::Member { cluster, leader, .. } = said else { continue };
        match &found {
            Some((one, first)) if first != cluster => {
                let (one, first, other, second) = (one.clone(), *first, name.clone(), *cluster);
                return Err(PlanError::TwoClusters { one, first, other, second });
            }
            Some(_) => {}
            None => found = Some((name.clone(), *cluster)),
        }
        if via.as_ref().is_none_or(|(knows, _)| !knows && leader.is_some()) {
            via = Some((leader.is_some(), name.clone()));
        }
    }
    Ok(found.map(|(_, cluster)| (cluster, via.map(|(_, name)| name))))
}

fn same_id(own: &Own, heard: &BTreeMap<String, Said>) -> Result<(), PlanError> {
    let mut ids = BTreeMap::from([(own.node, &own.name)]);
    for (name, said) in heard {
        let (Said::Empty(node) | Said::Founding(node) | Said::Member { node, .. }) = said else { continue };
        if let Some(one) = ids.insert(*node, name) {
            return Err(PlanError::SameId { one: one.clone(), other: name.clone(), node: *node });
        }
    }
    Ok(())
}

fn empty_id(said: Option<&Said>) -> Option<NodeId> {
    match said {
        Some(Said::Empty(node)) => Some(*node),
        _ => None,
    }
}

/// Waits for all of the initial set that have not said what is needed.
fn wait(own: &Own, initial: &[String], heard: &BTreeMap<String, Said>, otherwise: &str) -> Plan {
    let mut names: Vec<&String> = initial.iter().filter(|name| **name != own.name).collect();
    names.sort_by(|left, right| name::compare(left, right));
    names.dedup();
    let mut reasons = Vec::new();
    for name in names {
        let why = match heard.get(name) {
            Some(Said::Empty(_)) if own.cluster.is_none() => continue,
            Some(Said::Empty(_)) => "it has no cluster yet".to_owned(),
            Some(Said::Founding(_)) => "it is about to begin the cluster".to_owned(),
            Some(Said::Unreachable(why)) => why.clone(),
            Some(Said::Member { .. }) | None => otherwise.to_owned(),
        };
        reasons.push((name.clone(), why));
    }
    if reasons.is_empty() {
        reasons.push((own.name.clone(), otherwise.to_owned()));
    }
    Plan::Wait(reasons)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: ClusterId = ClusterId(1);
    const TWO: ClusterId = ClusterId(2);

    fn own(name: &str, cluster: Option<ClusterId>, initialized: bool) -> Own {
        Own { name: name.to_owned(), node: NodeId::new(99), cluster, initialized }
    }

    fn place() -> Place {
        Place { node: NodeId::new(7), name: "a-7".to_owned(), address: "h:1".to_owned() }
    }

    fn member(node: u64, cluster: ClusterId, knows: bool) -> Said {
        Said::Member { node: NodeId::new(node), cluster, leader: knows.then(place) }
    }

    fn empty(node: u64) -> Said {
        Said::Empty(NodeId::new(node))
    }

    fn silent() -> Said {
        Said::Unreachable("connection refused".to_owned())
    }

    fn decided(own: &Own, initial: &[&str], heard: &[(&str, Said)]) -> Result<Plan, PlanError> {
        let initial: Vec<String> = initial.iter().map(|name| (*name).to_owned()).collect();
        let heard = heard.iter().map(|(name, said)| ((*name).to_owned(), said.clone())).collect();
        decide(own, &initial, &heard)
    }

    fn wait(reasons: &[(&str, &str)]) -> Result<Plan, PlanError> {
        Ok(Plan::Wait(reasons.iter().map(|(name, why)| ((*name).to_owned(), (*why).to_owned())).collect()))
    }

    fn initialize(members: &[(u64, &str)]) -> Result<Plan, PlanError> {
        let members = members.iter().map(|(node, name)| (NodeId::new(*node), (*name).to_owned()));
        Ok(Plan::Initialize(members.collect()))
    }

    fn join(cluster: ClusterId, via: &str) -> Result<Plan, PlanError> {
        Ok(Plan::Join { cluster, via: via.to_owned() })
    }

    const THREE: &[&str] = &["a-0", "a-1", "a-2"];

    #[test]
    fn only_the_lowest_name_begins_and_only_when_all_are_empty() {
        let lowest = own("a-0", None, false);
        let all = [("a-1", empty(1)), ("a-2", empty(2))];
        let begins = "it has the lowest name and begins the cluster";
        assert_eq!(decided(&lowest, THREE, &all), initialize(&[(99, "a-0"), (1, "a-1"), (2, "a-2")]));
        assert_eq!(
            decided(&own("a-1", None, false), THREE, &[("a-0", empty(5)), ("a-2", empty(2))]),
            wait(&[("a-0", begins)])
        );
        assert_eq!(
            decided(&lowest, THREE, &[("a-1", empty(1)), ("a-2", silent())]),
            wait(&[("a-2", "connection refused")])
        );
        assert_eq!(decided(&lowest, THREE, &all[..1]), wait(&[("a-2", "it has not answered yet")]));
        let founding = [("a-0", Said::Founding(NodeId::new(5))), ("a-2", empty(2))];
        assert_eq!(
            decided(&own("a-1", None, false), THREE, &founding),
            wait(&[("a-0", "it is about to begin the cluster")])
        );
    }

    #[test]
    fn ordinals_are_numbers_and_the_set_says_how_many_vote() {
        let heard = [("a-10", empty(10))];
        assert_eq!(decided(&own("a-2", None, false), &["a-10", "a-2"], &heard), initialize(&[(99, "a-2")]));
        assert_eq!(decided(&own("a-0", None, false), &["a-0"], &[]), initialize(&[(99, "a-0")]));
        let heard = [("a-1", empty(1)), ("a-2", empty(2)), ("a-3", empty(3))];
        let four = ["a-0", "a-1", "a-2", "a-3", "a-3"];
        // The voters are taken by name, whatever their ids are.
        let voters = decided(&own("a-0", None, false), &four, &heard);
        assert_eq!(voters, initialize(&[(99, "a-0"), (1, "a-1"), (2, "a-2")]));
    }

    #[test]
    fn a_node_outside_the_initial_set_never_begins() {
        let all = [("a-0", empty(1)), ("a-1", empty(2)), ("a-2", empty(3))];
        let waits = decided(&own("A-9", None, false), THREE, &all);
        assert_eq!(waits, wait(&[("a-0", "it has the lowest name and begins the cluster")]));
        assert_eq!(decided(&own("a-0", None, false), &[], &[]), Err(PlanError::NoInitialSet));
    }

    #[test]
    fn whoever_has_a_cluster_is_joined_best_over_one_that_knows_the_leader() {
        let empty_one = own("a-0", None, false);
        let heard = [("a-1", member(1, ONE, false)), ("a-2", member(2, ONE, true))];
        assert_eq!(decided(&empty_one, THREE, &heard), join(ONE, "a-2"));
        let heard = [("a-1", silent()), ("a-2", member(2, ONE, false))];
        assert_eq!(decided(&empty_one, THREE, &heard), join(ONE, "a-2"));
        // Known from elsewhere than the initial set.
        assert_eq!(decided(&empty_one, THREE, &[("a-7", member(7, ONE, true))]), join(ONE, "a-7"));
    }

    #[test]
    fn a_node_that_has_adopted_a_cluster_joins_that_one_only() {
        let adopted = own("a-1", Some(ONE), false);
        assert_eq!(decided(&adopted, THREE, &[("a-0", member(1, ONE, true))]), join(ONE, "a-0"));
        let heard = [("a-0", silent()), ("a-2", empty(2))];
        let reasons = [("a-0", "connection refused"), ("a-2", "it has no cluster yet")];
        assert_eq!(decided(&adopted, THREE, &heard), wait(&reasons));
        let error = decided(&adopted, THREE, &[("a-0", member(1, TWO, true))]).unwrap_err();
        assert!(error.to_string().contains("a-1 belongs to cluster"), "{error}");
    }

    #[test]
    fn a_node_with_data_starts_whatever_others_say() {
        let with_data = own("a-0", Some(ONE), true);
        for heard in [vec![], vec![("a-1", silent())], vec![("a-1", member(1, TWO, true))]] {
            assert_eq!(decided(&with_data, THREE, &heard), Ok(Plan::Start(ONE)));
        }
    }

    #[test]
    fn who_was_stopped_while_it_began_goes_on() {
        let half = own("a-0", None, true);
        assert_eq!(decided(&half, THREE, &[("a-1", silent())]), Ok(Plan::FinishFounding));
        let error = decided(&half, THREE, &[("a-1", member(1, TWO, true))]);
        assert_eq!(error, Err(PlanError::HalfFounded { cluster: TWO }));
    }

    #[test]
    fn two_clusters_and_copied_directories_need_an_operator() {
        let empty_one = own("a-0", None, false);
        let heard = [("a-1", member(1, ONE, true)), ("a-2", member(2, TWO, true))];
        assert!(matches!(decided(&empty_one, THREE, &heard), Err(PlanError::TwoClusters { .. })));
        for copied in [empty(99), member(99, ONE, true)] {
            let error = decided(&empty_one, THREE, &[("a-1", copied)]).unwrap_err();
            assert!(error.to_string().contains("was copied"), "{error}");
        }
        assert!(decided(&empty_one, THREE, &[("a-1", empty(1)), ("a-2", empty(1))]).is_err());
    }
}
