//! Nodes that find each other over real TLS: one cluster is begun, the others join it. The groups are stand-ins.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use althing_cluster::executor::{LaneService, TaskExecutor, TaskRefusal, TaskSource};
use althing_cluster::link::Links;
use althing_cluster::link::frame::Lane;
use althing_cluster::link::hello::{ClusterId, Hello};
use althing_cluster::members::discovery::Removed;
use althing_cluster::members::{
    Change, Discovery, Group, GroupError, GroupName, GroupView, IdentityFile, Place, Seed, Settle,
    SettleError, Settled,
};
use althing_cluster::node_id::NodeId;
use althing_cluster::raft::Member;
use althing_cluster::task::{ClusterTask, TaskReply};
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::support::{Ca, Setup};

const PATIENCE: Duration = Duration::from_secs(20);

/// The state that a real group would agree on.
#[derive(Default)]
struct World {
    leader: Option<NodeId>,
    members: BTreeMap<NodeId, Member>,
    removed: BTreeSet<NodeId>,
}

struct Stand {
    node: NodeId,
    begun: AtomicBool,
    world: Arc<Mutex<World>>,
}

#[async_trait]
impl Group for Stand {
    fn name(&self) -> GroupName {
        GroupName::Routes
    }

    fn view(&self) -> GroupView {
        let world = self.world.lock();
        let (leader, members) = (world.leader, world.members.clone());
        GroupView { leader, leads: leader == Some(self.node), members, ..GroupView::default() }
    }

    async fn is_initialized(&self) -> Result<bool, GroupError> {
        Ok(self.begun.load(Ordering::SeqCst))
    }

    async fn initialize(&self, voters: BTreeMap<NodeId, Member>) -> Result<(), GroupError> {
        let mut world = self.world.lock();
        assert_eq!(world.leader, None, "two have begun");
        (world.leader, world.members) = (Some(self.node), voters);
        self.begun.store(true, Ordering::SeqCst);
        Ok(())
    }

    async fn change(&self, change: Change) -> Result<(), GroupError> {
        let mut world = self.world.lock();
        assert_eq!(world.leader, Some(self.node));
        match change {
            Change::Put(node, member) => drop(world.members.insert(node, member)),
            Change::Replace { old, node, member } => {
                assert!(old.is_subset(&world.removed), "it could come back");
                world.members.retain(|node, _| !old.contains(node));
                world.members.insert(node, member);
            }
            Change::Voters(_) => {}
        }
        Ok(())
    }
}

struct Graves(Arc<Mutex<World>>);

#[async_trait]
impl Removed for Graves {
    fn is_removed(&self, node: NodeId) -> bool {
        self.0.lock().removed.contains(&node)
    }

    async fn remove(&self, node: NodeId) -> Result<(), String> {
        self.0.lock().removed.insert(node);
        Ok(())
    }
}

struct Service(Discovery);

#[async_trait]
impl LaneService for Service {
    async fn answer(&self, _: NodeId, _: Lane, _: Bytes) -> Result<Bytes, TaskRefusal> {
        Err(TaskRefusal::Suspended)
    }

    async fn discover(&self, from: &Hello, request: Bytes) -> Result<Bytes, TaskRefusal> {
        self.0.answer(from, request).await
    }
}

struct Idle;

#[async_trait]
impl TaskExecutor for Idle {
    async fn execute(&self, _: TaskSource, _: ClusterTask) -> Result<TaskReply, TaskRefusal> {
        Err(TaskRefusal::Suspended)
    }
}

/// Three addresses on which nobody listens yet.
async fn addresses() -> Vec<SocketAddr> {
    let mut listeners = Vec::new();
    for _ in 0..3 {
        listeners.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
    }
    listeners.iter().map(|listener| listener.local_addr().unwrap()).collect()
}

struct Started {
    settle: Arc<Settle>,
    _links: Arc<Links>,
}

struct Cluster {
    ca: Ca,
    world: Arc<Mutex<World>>,
    seeds: Vec<Seed>,
}

impl Cluster {
    async fn new() -> Self {
        let seeds = addresses()
            .await
            .into_iter()
            .zip(1..)
            .map(|(address, number)| Seed { name: format!("node-{number}"), address: address.to_string() });
        Cluster { ca: Ca::new(), world: Arc::default(), seeds: seeds.collect() }
    }

    /// Starts the node of that number with the data of `dir`, under the id `node`.
    async fn start(&self, number: u64, node: u64, dir: &TempDir, address: &str) -> Started {
        let listener = loop {
            // Another process may have got the port in between; here only one that is just closing has.
            match TcpListener::bind(address).await {
                Ok(listener) => break listener,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        let mut setup = Setup::new(number, &self.ca);
        (setup.hello.node, setup.hello.cluster) = (NodeId::new(node), ClusterId::NONE);
        let (node, name) = (setup.hello.node, setup.hello.name.clone());
        let file = Arc::new(IdentityFile::open(dir.path()).unwrap());
        let incarnation = file.next_incarnation().unwrap();
        let begun = AtomicBool::new(incarnation.0 > 1);
        let group: Arc<dyn Group> = Arc::new(Stand { node, begun, world: self.world.clone() });
        let service = Service(Discovery {
            node,
            name: name.clone(),
            incarnation,
            identity: file.clone(),
            groups: vec![group.clone()],
            removed: Arc::new(Graves(self.world.clone())),
            silence: Duration::from_secs(3),
        });
        let set = (setup.times, setup.limits);
        let service: Arc<dyn LaneService> = Arc::new(service);
        let links = Links::start(setup.hello, setup.tls, set, listener, Arc::new(Idle), Some(service));
        let links = Arc::new(links);
        let settle = Settle {
            own: Place { node, name, address: address.to_owned() },
            incarnation,
            initial: self.seeds.clone(),
            known: Vec::new(),
            groups: vec![group],
            identity: file,
            asker: links.clone(),
            fresh: ClusterId(7),
            status: watch::Sender::default(),
        };
        Started { settle: Arc::new(settle), _links: links }
    }

    async fn start_in(&self, number: u64, node: u64, dir: &TempDir) -> Started {
        let place = usize::try_from(number - 1).unwrap();
        self.start(number, node, dir, &self.seeds[place].address).await
    }

    fn names(&self) -> Vec<(u64, String)> {
        let world = self.world.lock();
        world.members.iter().map(|(node, member)| (node.get(), member.name.clone())).collect()
    }
}

async fn settled(started: &Started) -> Result<Settled, SettleError> {
    tokio::time::timeout(PATIENCE, started.settle.run()).await.expect("does not settle")
}

fn names(nodes: [u64; 3]) -> Vec<(u64, String)> {
    let mut names: Vec<_> = nodes.into_iter().zip(1..).map(|(node, n)| (node, format!("node-{n}"))).collect();
    names.sort_unstable();
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_begins_when_all_are_there_and_the_others_join() {
    let (cluster, dirs) = (Cluster::new().await, [(); 3].map(|()| TempDir::new().unwrap()));
    // The lowest name and another wait for the third, and say so.
    let (one, two) = (cluster.start_in(1, 11, &dirs[0]).await, cluster.start_in(2, 12, &dirs[1]).await);
    let mut status = one.settle.status.subscribe();
    let (first, second) = (one.settle.clone(), two.settle.clone());
    let first = tokio::spawn(async move { first.run().await });
    let second = tokio::spawn(async move { second.run().await });
    let waits = status.wait_for(|text| text.starts_with("waits for node-3: ") && text.contains("refused"));
    drop(tokio::time::timeout(PATIENCE, waits).await.expect("no status").unwrap());
    assert!(cluster.names().is_empty());

    let three = cluster.start_in(3, 13, &dirs[2]).await;
    assert_eq!(settled(&three).await.unwrap(), Settled::Joined(ClusterId(7)));
    assert_eq!(first.await.unwrap().unwrap(), Settled::Founded(ClusterId(7)));
    assert_eq!(second.await.unwrap().unwrap(), Settled::Joined(ClusterId(7)));
    assert_eq!(cluster.names(), names([11, 12, 13]));
    for started in [&one, &two, &three] {
        assert_eq!(started.settle.identity.cluster(), Some(ClusterId(7)));
    }
    assert_eq!(*status.borrow(), "");

    // A node whose disk was wiped comes back as another and takes its own place.
    drop(three);
    let wiped = TempDir::new().unwrap();
    let three = cluster.start_in(3, 23, &wiped).await;
    assert_eq!(settled(&three).await.unwrap(), Settled::Joined(ClusterId(7)));
    assert_eq!(cluster.names(), names([11, 12, 23]));

    // The old one, should its disk turn up again, is refused for good.
    drop(three);
    let old = cluster.start_in(3, 13, &dirs[2]).await;
    assert_eq!(settled(&old).await.unwrap(), Settled::Started(ClusterId(7)));
    let refused = old.settle.announce(ClusterId(7)).await;
    assert!(
        matches!(&refused, Err(SettleError::Refused { why, .. }) if why.contains("removed")),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_has_moved_says_where_it_is_now() {
    let (cluster, dirs) = (Cluster::new().await, [(); 3].map(|()| TempDir::new().unwrap()));
    let mut nodes = Vec::new();
    for (dir, number) in dirs.iter().zip(1..) {
        nodes.push(cluster.start_in(number, 10 + number, dir).await);
    }
    for settled in futures_util::future::join_all(nodes.iter().map(settled)).await {
        settled.unwrap();
    }
    let moved_to = addresses().await[0].to_string();
    drop(nodes.pop());
    let three = cluster.start(3, 13, &dirs[2], &moved_to).await;
    assert_eq!(settled(&three).await.unwrap(), Settled::Started(ClusterId(7)));
    three.settle.announce(ClusterId(7)).await.unwrap();
    assert_eq!(cluster.world.lock().members[&NodeId::new(13)].address, moved_to);
}
