//! Changes of members on real Raft groups, joined by a network in memory.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "the whole crate is a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use althing_cluster::members::{Change, Group, GroupError, GroupName, GroupView};
use althing_cluster::node_id::NodeId;
use althing_cluster::raft::{LogOptions, LogStore, Member, RaftGroup, RouteGroup, RouteStateMachine};
use althing_cluster::routes::RouteTable;
use openraft::alias::{SnapshotOf, VoteOf};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{Config, Raft, RaftNetworkFactory, RaftNetworkV2};
use parking_lot::Mutex;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(20);

type Node = Raft<RouteGroup, RouteStateMachine>;
type Nodes = Arc<Mutex<BTreeMap<NodeId, Node>>>;

/// Reaches whoever is in the map.
#[derive(Clone)]
struct Network(Nodes);

struct Wire(Nodes, NodeId);

impl RaftNetworkFactory<RouteGroup> for Network {
    type Network = Wire;

    async fn new_client(&mut self, target: NodeId, _: &Member) -> Wire {
        Wire(self.0.clone(), target)
    }
}

impl Wire {
    fn node(&self) -> Result<Node, Unreachable<RouteGroup>> {
        let node = self.0.lock().get(&self.1).cloned();
        node.ok_or_else(|| Unreachable::new(&std::io::Error::from(std::io::ErrorKind::ConnectionRefused)))
    }
}

fn gone(error: &impl std::error::Error) -> Unreachable<RouteGroup> {
    Unreachable::new(&std::io::Error::other(error.to_string()))
}

impl RaftNetworkV2<RouteGroup> for Wire {
    type SnapshotData = RouteTable;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<RouteGroup>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<RouteGroup>, RPCError<RouteGroup>> {
        self.node()?.append_entries(rpc).await.map_err(|error| gone(&error).into())
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<RouteGroup>,
        _: RPCOption,
    ) -> Result<VoteResponse<RouteGroup>, RPCError<RouteGroup>> {
        self.node()?.vote(rpc).await.map_err(|error| gone(&error).into())
    }

    async fn full_snapshot(
        &mut self,
        vote: VoteOf<RouteGroup>,
        snapshot: SnapshotOf<RouteGroup, RouteTable>,
        _: impl Future<Output = ReplicationClosed> + Send + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<RouteGroup>, StreamingError<RouteGroup>> {
        self.node()?.install_full_snapshot(vote, snapshot).await.map_err(|error| gone(&error).into())
    }
}

#[derive(Default)]
struct Cluster {
    nodes: Nodes,
    dirs: Vec<TempDir>,
    groups: BTreeMap<NodeId, Arc<dyn Group>>,
}

fn id(number: u64) -> NodeId {
    NodeId::new(number)
}

fn member(name: u64) -> Member {
    Member { name: format!("a-{name}"), address: format!("h-{name}:1") }
}

impl Cluster {
    async fn start(&mut self, number: u64) {
        let dir = TempDir::new().unwrap();
        let config = Config {
            heartbeat_interval: 50,
            election_timeout_min: 200,
            election_timeout_max: 400,
            ..Config::default()
        };
        let config = Arc::new(config.validate().unwrap());
        let (log, state) = (dir.path().join("log"), dir.path().join("state"));
        std::fs::create_dir_all(&state).unwrap();
        let log = LogStore::open(&log, LogOptions::default()).unwrap();
        let machine = RouteStateMachine::open(&state).unwrap();
        let network = Network(self.nodes.clone());
        let raft = Raft::new(id(number), config, network, log, machine).await.unwrap();
        self.nodes.lock().insert(id(number), raft.clone());
        self.groups.insert(id(number), Arc::new(RaftGroup::new(raft, GroupName::Routes)));
        self.dirs.push(dir);
    }

    /// Nobody reaches it any more.
    async fn kill(&mut self, number: NodeId) {
        let raft = self.nodes.lock().remove(&number).unwrap();
        raft.shutdown().await.unwrap();
        self.groups.remove(&number);
    }

    /// What the leader sees, once there is one and it is as wanted.
    async fn until(&self, what: impl Fn(&GroupView) -> bool) -> (Arc<dyn Group>, GroupView) {
        let give_up = tokio::time::Instant::now() + PATIENCE;
        loop {
            for group in self.groups.values() {
                let view = group.view();
                if view.leads && what(&view) {
                    return (group.clone(), view);
                }
            }
            assert!(tokio::time::Instant::now() < give_up, "not in time");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Changes as often as it takes for one leader to take it.
    async fn change(&self, change: &Change) {
        let give_up = tokio::time::Instant::now() + PATIENCE;
        loop {
            let (leader, _) = self.until(|_| true).await;
            match leader.change(change.clone()).await {
                Ok(()) => return,
                Err(error) => assert!(
                    tokio::time::Instant::now() < give_up && !matches!(error, GroupError::Failed(_)),
                    "{error:?}"
                ),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn ids(numbers: impl IntoIterator<Item = u64>) -> BTreeSet<NodeId> {
    numbers.into_iter().map(id).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_come_vote_move_and_are_replaced() {
    let mut cluster = Cluster::default();
    for number in 1..=4 {
        cluster.start(number).await;
    }
    let first = cluster.groups[&id(1)].clone();
    assert_eq!(first.is_initialized().await, Ok(false));
    let voters: BTreeMap<_, _> = (1..=3).map(|number| (id(number), member(number))).collect();
    first.initialize(voters.clone()).await.unwrap();
    first.initialize(voters).await.unwrap();
    assert_eq!(first.is_initialized().await, Ok(true));
    let (_, view) = cluster.until(|view| view.progress.len() == 3).await;
    assert_eq!((view.voters, view.joint), (ids(1..=3), false));

    // A learner comes, and its progress is seen.
    cluster.change(&Change::Put(id(4), member(4))).await;
    let caught_up = |view: &GroupView| {
        view.progress.get(&id(4)).is_some_and(|it| it.lag == Some(0) && it.heard.is_some())
    };
    let (leader, view) = cluster.until(caught_up).await;
    assert_eq!(view.voters, ids(1..=3));
    let leading = view.leader.unwrap();
    assert_eq!(view.leader_place().map(|place| place.node), Some(leading));
    // Who does not lead says who does.
    let follower = cluster.groups.iter().find(|(node, _)| **node != leading).unwrap().1;
    let refused = follower.change(Change::Put(id(4), member(4))).await;
    assert_eq!(refused, Err(GroupError::NotLeader(view.leader_place())));
    drop(leader);

    // It moves.
    let moved = Member { address: "elsewhere:1".to_owned(), ..member(4) };
    cluster.change(&Change::Put(id(4), moved.clone())).await;
    cluster.until(|view| view.members.get(&id(4)) == Some(&moved)).await;

    // A learner of the same name takes its place.
    cluster.start(14).await;
    let replace = |old: u64, node: u64, name: u64| Change::Replace {
        old: ids([old]),
        node: id(node),
        member: member(name),
    };
    cluster.change(&replace(4, 14, 4)).await;
    let (_, view) = cluster.until(|view| !view.joint && view.members.contains_key(&id(14))).await;
    assert_eq!(view.members.keys().copied().collect::<BTreeSet<_>>(), ids([1, 2, 3, 14]));
    assert_eq!(view.voters, ids(1..=3));

    // A voter that has lost its disk: the vote goes to the new id, in one change.
    let victim = (1..=3).find(|number| id(*number) != view.leader.unwrap()).unwrap();
    cluster.kill(id(victim)).await;
    cluster.start(victim + 10).await;
    cluster.change(&replace(victim, victim + 10, victim)).await;
    let (_, view) = cluster.until(|view| !view.joint && view.voters.contains(&id(victim + 10))).await;
    assert!(!view.members.contains_key(&id(victim)));
    assert_eq!(view.voters.len(), 3);

    // And back to fewer voters; the others stay as learners.
    let one = BTreeSet::from([view.leader.unwrap()]);
    cluster.change(&Change::Voters(one.clone())).await;
    let (_, view) = cluster.until(|view| !view.joint && view.voters == one).await;
    assert_eq!(view.members.len(), 4);
}
