//! Answers to nodes that ask who is here, or want to join.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::timeout;

use super::group::{Change, Group, GroupError, GroupName, GroupView};
use super::identity::ClusterIdentity;
use super::message::{Answer, Iam, Join, Question};
use crate::executor::TaskRefusal;
use crate::link::hello::Hello;
use crate::node_id::{Incarnation, NodeId};
use crate::raft::Member;
use crate::wire;

/// A member that has answered its leader within this time is alive: several heartbeats.
pub const ALIVE: Duration = Duration::from_secs(3);
/// Most nodes that hold the store.
const MAX_REPLICAS: usize = 5;
/// Longest wait for a change of members to be committed, so that the asker gets an answer in its time.
const COMMIT: Duration = Duration::from_secs(5);

/// Remembers the ids of nodes that were removed for good, in the route table: as down in their last possible
/// incarnation.
#[async_trait]
pub trait Removed: Send + Sync {
    /// Whether that id was removed.
    fn is_removed(&self, node: NodeId) -> bool;

    /// Removes it: committed when this returns. To do it twice changes nothing.
    ///
    /// # Errors
    /// Why not now.
    async fn remove(&self, node: NodeId) -> Result<(), String>;
}

/// What answers on the discovery lane.
pub struct Discovery {
    /// This node's id.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Which start of it this is.
    pub incarnation: Incarnation,
    /// What it keeps of its cluster.
    pub identity: Arc<dyn ClusterIdentity>,
    /// Its groups; the group of routes is the first.
    pub groups: Vec<Arc<dyn Group>>,
    /// Who was removed.
    pub removed: Arc<dyn Removed>,
    /// How long a member of the same name must have been silent before another takes its place: T3 of the lease.
    pub silence: Duration,
}

impl Discovery {
    /// Answers the question of `from`. For [`LaneService::discover`](crate::executor::LaneService::discover).
    ///
    /// # Errors
    /// [`TaskRefusal::Malformed`] and [`TaskRefusal::Failed`].
    pub async fn answer(&self, from: &Hello, request: Bytes) -> Result<Bytes, TaskRefusal> {
        let question = wire::decode(&request).map_err(|error| TaskRefusal::Malformed(error.to_string()))?;
        let answer = match question {
            Question::Whoami => Answer::Iam(self.whoami().await?),
            Question::Join(join) => self.join(from, &join).await,
        };
        wire::encode(&answer).map(Bytes::from).map_err(|error| TaskRefusal::Failed(error.to_string()))
    }

    async fn whoami(&self) -> Result<Iam, TaskRefusal> {
        let mut initialized = false;
        if let Some(routes) = self.groups.first() {
            initialized =
                routes.is_initialized().await.map_err(|error| TaskRefusal::Failed(error.to_string()))?;
        }
        let leader = |group: &Arc<dyn Group>| Some((group.name(), group.view().leader_place()?));
        Ok(Iam {
            node: self.node,
            name: self.name.clone(),
            incarnation: self.incarnation,
            cluster: self.identity.cluster(),
            initialized,
            leaders: self.groups.iter().filter_map(leader).collect(),
        })
    }

    async fn join(&self, from: &Hello, join: &Join) -> Answer {
        match self.identity.cluster() {
            Some(cluster) if cluster == join.cluster => {}
            Some(cluster) => return Answer::Never(format!("{} belongs to cluster {cluster}", self.name)),
            None => return Answer::Later(format!("{} has no cluster yet", self.name)),
        }
        if self.removed.is_removed(from.node) {
            return Answer::Never(format!(
                "node id {} was removed from the cluster for good: give the node an empty data directory",
                from.node
            ));
        }
        let Some(group) = self.groups.iter().find(|group| group.name() == join.group) else {
            return Answer::Later(format!("{} has no group of {}", self.name, join.group.label()));
        };
        let view = group.view();
        if !view.leads {
            return match view.leader_place() {
                Some(place) => Answer::Elsewhere(place),
                None => Answer::Later(format!("the group of {} has no leader", join.group.label())),
            };
        }
        let member = Member { name: from.name.clone(), address: join.address.clone() };
        if join.group == GroupName::Store && has_enough_replicas(&view, from) {
            // It reads and writes by task.
            return Answer::Joined;
        }
        let change = match place_for(&view, from.node, &member, self.silence) {
            Verdict::There => return Answer::Joined,
            Verdict::Change(change) => change,
            Verdict::NameInUse(node) => {
                return Answer::Later(format!("{node}, another node named {}, is alive", from.name));
            }
            Verdict::IdInUse(name) => {
                return Answer::Never(format!(
                    "node id {} is that of {name}: the data directory was copied, give {} an empty one",
                    from.node, from.name
                ));
            }
            Verdict::HalfDone => return Answer::Later("a change of members is half done".to_owned()),
        };
        if let Change::Replace { old, .. } = &change {
            // First: once the new one is in, nothing would remind anybody of the old one.
            for old in old {
                if let Err(why) = self.removed.remove(*old).await {
                    return Answer::Later(why);
                }
            }
        }
        tracing::info!(member = %from.node, group = join.group.label(), ?change, "member joins");
        match timeout(COMMIT, group.change(change)).await {
            Ok(Ok(())) => Answer::Joined,
            Ok(Err(GroupError::NotLeader(Some(place)))) => Answer::Elsewhere(place),
            Ok(Err(error)) => Answer::Later(error.to_string()),
            Err(_) => Answer::Later("the change of members is not committed yet".to_owned()),
        }
    }
}

/// PURE: whether the store group does without that node: adding nodes must not multiply the cost of a write.
fn has_enough_replicas(view: &GroupView, from: &Hello) -> bool {
    let is_known = |(node, member): (&NodeId, &Member)| *node == from.node || member.name == from.name;
    view.members.len() >= MAX_REPLICAS && !view.members.iter().any(is_known)
}

/// What is to be done for a node that wants to be a member.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    There,
    Change(Change),
    NameInUse(NodeId),
    /// By the node of that name: its certificate proves a name, nothing proves an id.
    IdInUse(String),
    HalfDone,
}

/// PURE: decides it.
fn place_for(view: &GroupView, node: NodeId, member: &Member, silence: Duration) -> Verdict {
    if let Some(known) = view.members.get(&node).filter(|known| known.name != member.name) {
        return Verdict::IdInUse(known.name.clone());
    }
    let same_name = view.members.iter().filter(|(other, known)| **other != node && known.name == member.name);
    let old: BTreeSet<NodeId> = same_name.map(|(other, _)| *other).collect();
    let alive = |other: &&NodeId| {
        view.progress.get(other).and_then(|progress| progress.heard).is_some_and(|heard| heard < silence)
    };
    if let Some(other) = old.iter().find(alive) {
        return Verdict::NameInUse(*other);
    }
    if old.is_empty() && view.members.get(&node) == Some(member) {
        return Verdict::There;
    }
    if view.joint {
        return Verdict::HalfDone;
    }
    let member = member.clone();
    Verdict::Change(if old.is_empty() {
        Change::Put(node, member)
    } else {
        Change::Replace { old, node, member }
    })
}

#[cfg(test)]
mod tests {
    use super::super::group::Progress;
    use super::*;

    const SILENCE: Duration = Duration::from_secs(12);

    fn member(name: &str, address: &str) -> Member {
        Member { name: name.to_owned(), address: address.to_owned() }
    }

    fn view(members: &[(u64, &str)]) -> GroupView {
        let members = members.iter().map(|(node, name)| (NodeId::new(*node), member(name, "old:1")));
        GroupView { leads: true, members: members.collect(), ..GroupView::default() }
    }

    #[test]
    fn a_node_gets_in_moves_or_takes_the_place_of_its_name() {
        let (one, two) = (NodeId::new(1), NodeId::new(2));
        let mut view = view(&[(1, "a-1"), (3, "a-3")]);
        let at = |address| member("a-1", address);
        assert_eq!(place_for(&view, one, &at("old:1"), SILENCE), Verdict::There);
        assert_eq!(
            place_for(&view, one, &at("new:1"), SILENCE),
            Verdict::Change(Change::Put(one, at("new:1")))
        );
        assert_eq!(
            place_for(&view, one, &member("a-3", "new:1"), SILENCE),
            Verdict::IdInUse("a-1".to_owned())
        );
        let other = member("a-2", "new:1");
        assert_eq!(place_for(&view, two, &other, SILENCE), Verdict::Change(Change::Put(two, other.clone())));
        let old = BTreeSet::from([one]);
        let replace = Change::Replace { old, node: two, member: at("new:1") };
        assert_eq!(place_for(&view, two, &at("new:1"), SILENCE), Verdict::Change(replace.clone()));

        let heard = |heard| Progress { heard: Some(heard), lag: None };
        view.progress.insert(one, heard(Duration::from_secs(1)));
        assert_eq!(place_for(&view, two, &at("new:1"), SILENCE), Verdict::NameInUse(one));
        view.progress.insert(one, heard(SILENCE));
        assert_eq!(place_for(&view, two, &at("new:1"), SILENCE), Verdict::Change(replace));
        view.joint = true;
        assert_eq!(place_for(&view, two, &at("new:1"), SILENCE), Verdict::HalfDone);
        assert_eq!(place_for(&view, one, &at("old:1"), SILENCE), Verdict::There);
    }
}
