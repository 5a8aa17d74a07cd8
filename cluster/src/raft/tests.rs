//! Three nodes in one process: both groups over real links, TLS and disks.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use althing_proto::jid::FullJid;
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::join_all;
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use super::fatal;
use super::group::{GroupHandle, GroupParts, GroupTimes};
use super::service::{Groups, Late};
use super::state_machine::RouteSpool;
use super::{
    LogOptions, LogStore, Member, ProposeError, RaftRoutes, RouteGroup, RouteStateMachine, StoreGroup,
    StoreMachine, StoreSpool,
};
use crate::disk::tests::TestDisk;
use crate::disk::{Gate, Room};
use crate::executor::{LaneService, TaskExecutor, TaskRefusal, TaskSource};
use crate::link::frame::Lane;
use crate::link::hello::{ClusterId, Hello, VERSION_MAX, VERSION_MIN};
use crate::link::{LinkLimits, LinkTimes, LinkTls, Links};
use crate::node_id::{Incarnation, NodeId};
use crate::routes::command::NodeUp;
use crate::routes::{RouteReply, Routes};
use crate::store_log::{Replica, RowReader, RowWriter, Seal};
use crate::task::{ClusterTask, TaskReply};

const PATIENCE: Duration = Duration::from_secs(30);

mod full;
mod snapshots;

/// Rows in memory: a command is a row, its reply the number of rows. `break` breaks the disk. How often they were all read; and
/// what has to be open while they are written.
#[derive(Default, Clone)]
struct Rows(Arc<Mutex<(Vec<Bytes>, Option<Bytes>)>>, Arc<AtomicUsize>, Arc<OnceLock<Gate>>);

#[async_trait]
impl Replica for Rows {
    async fn mark(&self) -> std::io::Result<Option<Bytes>> {
        Ok(self.0.lock().1.clone())
    }

    async fn apply(&self, commands: Vec<Bytes>, seal: Seal) -> std::io::Result<Vec<Bytes>> {
        if let Some(gate) = self.2.get() {
            gate.opened().await;
        }
        let (rows, mark) = &mut *self.0.lock();
        let mut replies = Vec::new();
        for command in commands {
            if command == "break" {
                return Err(std::io::Error::other("no disk"));
            }
            rows.push(command);
            replies.push(Bytes::from(rows.len().to_string()));
        }
        *mark = Some(seal(&replies));
        Ok(replies)
    }

    async fn flush(&self) -> std::io::Result<()> {
        Ok(())
    }

    async fn read_rows(&self) -> std::io::Result<Box<dyn RowReader>> {
        let (rows, mark) = self.0.lock().clone();
        self.1.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(Reader(rows.into_iter(), mark)))
    }

    async fn replace_rows(&self) -> std::io::Result<Box<dyn RowWriter>> {
        *self.0.lock() = Default::default();
        Ok(Box::new(Writer(self.clone())))
    }
}

struct Reader(std::vec::IntoIter<Bytes>, Option<Bytes>);

#[async_trait]
impl RowReader for Reader {
    fn mark(&self) -> Option<Bytes> {
        self.1.clone()
    }

    async fn next(&mut self) -> std::io::Result<Option<Bytes>> {
        Ok(self.0.next())
    }
}

struct Writer(Rows);

#[async_trait]
impl RowWriter for Writer {
    async fn write(&mut self, row: Bytes) -> std::io::Result<()> {
        self.0.0.lock().0.push(row);
        Ok(())
    }

    async fn finish(self: Box<Self>, mark: Bytes) -> std::io::Result<()> {
        self.0.0.lock().1 = Some(mark);
        Ok(())
    }
}

/// No tasks run here, and members say nothing.
struct Nothing;

#[async_trait]
impl TaskExecutor for Nothing {
    async fn execute(&self, _: TaskSource, _: ClusterTask) -> Result<TaskReply, TaskRefusal> {
        Err(TaskRefusal::Suspended)
    }
}

#[async_trait]
impl LaneService for Nothing {
    async fn answer(&self, _: NodeId, _: Lane, _: Bytes) -> Result<Bytes, TaskRefusal> {
        Err(TaskRefusal::Suspended)
    }
}

struct Node {
    id: NodeId,
    member: Member,
    links: Arc<Links>,
    routes: RaftRoutes,
    route_group: GroupHandle<RouteGroup, RouteStateMachine>,
    store_group: GroupHandle<StoreGroup, StoreMachine>,
    rows: Rows,
    /// That of the store group.
    disk: Arc<TestDisk>,
}

struct Ca {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let pem = params.self_signed(&key).unwrap().pem();
        Ca { pem, issuer: Issuer::new(params, key) }
    }

    fn tls(&self, name: &str) -> LinkTls {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        LinkTls::from_pem(self.pem.as_bytes(), certificate.as_bytes(), key.serialize_pem().as_bytes())
            .unwrap()
    }
}

async fn start(number: u64, start: u64, ca: &Ca, dir: &Path, rows: Rows) -> Node {
    let disk = TestDisk::new(Room::Enough);
    let (id, name) = (NodeId::new(number), format!("node-{number}"));
    let listener = Links::listen(([127, 0, 0, 1], 0).into()).await.unwrap();
    let member = Member { name: name.clone(), address: listener.local_addr().unwrap().to_string() };
    let hello = Hello {
        cluster: ClusterId(1),
        node: id,
        name: name.clone(),
        incarnation: Incarnation(start),
        min: VERSION_MIN,
        max: VERSION_MAX,
    };
    let late = Arc::new(Late::<Groups>::default());
    let set = (LinkTimes::default(), LinkLimits::default());
    let links = Links::start(hello, ca.tls(&name), set, listener, Arc::new(Nothing), Some(late.clone()));
    let links = Arc::new(links);
    let times = GroupTimes { heartbeat: Duration::from_millis(50), election: Duration::from_millis(300) };
    let dirs = ["routes", "store"].map(|name| dir.join(name));
    dirs.iter().for_each(|dir| std::fs::create_dir_all(dir).unwrap());
    let machine = RouteStateMachine::open(&dirs[0]).unwrap();
    let table = machine.routes();
    let (route_group, route_service) = GroupHandle::start(GroupParts {
        links: links.clone(),
        start: Incarnation(start),
        dir: dirs[0].clone(),
        times,
        log: LogStore::open(&dirs[0], LogOptions::default()).unwrap(),
        applied: table.watch(),
        machine,
        spool: RouteSpool,
        members: Arc::new(Nothing),
        on_batch: Box::new(|_, _| ()),
        gate: Gate::default(),
    })
    .await
    .unwrap();
    let gate = |least| Gate::new(Some(disk.clone()), least);
    rows.2.set(gate(Room::Low)).unwrap();
    let machine = StoreMachine::open(Arc::new(rows.clone()), &dirs[1]).await.unwrap();
    let (store_group, store_service) = GroupHandle::start(GroupParts {
        links: links.clone(),
        start: Incarnation(start),
        dir: dirs[1].clone(),
        times,
        log: LogStore::open_behind(&dirs[1], LogOptions::default(), gate(Room::Routes)).unwrap(),
        applied: machine.applied(),
        machine,
        spool: StoreSpool(Arc::new(rows.clone())),
        members: Arc::new(Nothing),
        on_batch: Box::new(|_, _| ()),
        gate: gate(Room::Low),
    })
    .await
    .unwrap();
    late.set(Groups { routes: route_service, store: store_service, members: Arc::new(Nothing) });
    let routes =
        RaftRoutes::new(links.clone(), table, route_group.proposer.clone(), route_group.barrier.clone());
    Node { id, member, links, routes, route_group, store_group, rows, disk }
}

/// Nodes 1 to 3 as voters of both groups, each up.
async fn cluster() -> (Vec<Node>, Vec<TempDir>, Ca) {
    let ca = Ca::new();
    let (mut nodes, mut dirs) = (Vec::new(), Vec::new());
    for number in 1..=3 {
        let dir = tempfile::tempdir().unwrap();
        nodes.push(start(number, 1, &ca, dir.path(), Rows::default()).await);
        dirs.push(dir);
    }
    let members: BTreeMap<_, _> = nodes.iter().map(|node| (node.id, node.member.clone())).collect();
    nodes[0].route_group.raft.initialize(members.clone()).await.unwrap();
    nodes[0].store_group.raft.initialize(members).await.unwrap();
    for node in &nodes {
        up(node, 1).await;
        // The group has a leader, and every node knows it.
        assert!(node.store_group.barrier.pass(PATIENCE).await);
    }
    (nodes, dirs, ca)
}

async fn up(node: &Node, incarnation: u64) {
    let up = NodeUp { node: node.id, incarnation: Incarnation(incarnation) };
    let reply = node.route_group.proposer.propose(up.into(), PATIENCE).await.unwrap();
    assert_eq!(reply, RouteReply::Ended(Vec::new()));
    node.links.set_incarnation(Incarnation(incarnation));
}

fn jid(text: &str) -> FullJid {
    FullJid::new(text).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn binds_from_every_node_have_one_order_and_every_node_sees_them() {
    let (nodes, _dirs, _ca) = cluster().await;
    let mut bound = Vec::new();
    for node in &nodes {
        bound.push(node.routes.bind(&jid("a@b/c")).await.unwrap());
    }
    assert_eq!(bound[0].displaced, None);
    assert_eq!(
        bound[1].displaced.map(|route| (route.node, route.index)),
        Some((nodes[0].id, bound[0].index))
    );
    assert_eq!(
        bound[2].displaced.map(|route| (route.node, route.index)),
        Some((nodes[1].id, bound[1].index))
    );
    for node in &nodes {
        assert!(node.routes.wait_for(bound[2].index.log_index()).await);
        assert_eq!(node.routes.locate(&jid("a@b/c")).map(|route| route.node), Some(nodes[2].id));
    }
    assert!(
        nodes[0].routes.unbind(&jid("a@b/c"), bound[0].index).await.is_err(),
        "an old owner ended a new one"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_node_wrote_another_reads() {
    let (nodes, _dirs, _ca) = cluster().await;
    for round in 1..=30_usize {
        let writer = &nodes[round % 3];
        let row = Bytes::from(format!("row {round}"));
        let reply = writer.store_group.proposer.propose(row.clone(), PATIENCE).await.unwrap();
        assert_eq!(reply, Bytes::from(round.to_string()));
        for reader in &nodes {
            assert!(reader.store_group.barrier.pass(PATIENCE).await);
            assert_eq!(reader.rows.0.lock().0.last(), Some(&row), "round {round}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_leader_goes_on_and_nothing_is_done_twice() {
    let (nodes, _dirs, _ca) = cluster().await;
    let leader = nodes[0].store_group.metrics().current_leader.unwrap();
    let writers: Vec<_> = nodes.iter().filter(|node| node.id != leader).collect();
    let write = async |node: &Node, from: usize| {
        for number in from..from + 100 {
            let row = Bytes::from(format!("{} {number}", node.id));
            node.store_group.proposer.propose(row, PATIENCE).await.unwrap();
        }
    };
    let end_leader = async {
        let leader = nodes.iter().find(|node| node.id == leader).unwrap();
        let mut applied = leader.store_group.applied.clone();
        applied.wait_for(|applied| *applied > 40).await.unwrap();
        leader.store_group.raft.shutdown().await.unwrap();
    };
    tokio::join!(write(writers[0], 0), write(writers[1], 0), end_leader);
    for node in &writers {
        assert!(node.store_group.barrier.pass(PATIENCE).await);
        let rows = node.rows.0.lock().0.clone();
        assert_eq!(rows.len(), 200, "lost or doubled");
        for writer in &writers {
            let own = format!("{} ", writer.id);
            let of_writer: Vec<_> = rows.iter().filter(|row| row.starts_with(own.as_bytes())).collect();
            let expected: Vec<_> = (0..100).map(|number| Bytes::from(format!("{own}{number}"))).collect();
            assert!(of_writer.into_iter().eq(expected.iter()), "out of order");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_whose_disk_fails_says_so_and_one_that_is_ended_does_not() {
    let (nodes, _dirs, _ca) = cluster().await;
    let raft = |node: &Node| node.store_group.raft.clone();
    let ended = fatal::stopped(raft(&nodes[0]));
    raft(&nodes[0]).shutdown().await.unwrap();
    let failed = fatal::stopped(raft(&nodes[1]));
    let broken = nodes[1].store_group.proposer.propose("break".into(), PATIENCE);
    tokio::select! {
        why = failed => assert!(why.contains("store group") && why.contains("no disk"), "{why}"),
        why = ended => panic!("{why}"),
        reply = broken => panic!("{reply:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_on_by_the_one_that_has_it() {
    let (nodes, _dirs, _ca) = cluster().await;
    let leader = |node: &&Node| node.store_group.metrics().current_leader == Some(node.id);
    let leader = nodes.iter().find(leader).unwrap();
    let term = leader.store_group.metrics().current_term;
    tokio::time::timeout(PATIENCE, leader.store_group.hand_on()).await.unwrap();
    let now = leader.store_group.metrics();
    assert!(now.current_leader.is_some_and(|heir| heir != leader.id));
    // No timeout began it: one election, and nobody else tried.
    assert_eq!(now.current_term, term + 1);
}

/// With the default of openraft's network a node that reaches nobody grants itself any number of terms, and ends the
/// others' leader when it is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_reaches_nobody_begins_no_term() {
    let (nodes, _dirs, _ca) = cluster().await;
    let term = nodes[0].store_group.metrics().current_term;
    for node in &nodes[1..] {
        node.store_group.raft.shutdown().await.unwrap();
    }
    // Several elections of 300 ms: the time itself is what is tested.
    let lonely = &nodes[0].store_group;
    let wait = lonely.raft.wait(Some(Duration::from_secs(3)));
    let later = wait.metrics(|metrics| metrics.current_term > term, "a new term").await;
    assert!(later.is_err(), "it has begun a term on its own");
}

/// Two of them do not fit one batch.
fn large(number: u8) -> Bytes {
    Bytes::from(vec![number; 40 << 10])
}

/// A node that has no group yet, and its proposals: what it has taken is under way until there is one.
async fn lonely() -> (Node, TempDir) {
    let (ca, dir) = (Ca::new(), tempfile::tempdir().unwrap());
    let node = start(1, 1, &ca, dir.path(), Rows::default()).await;
    (node, dir)
}

impl Node {
    /// Begins the store group, and proposes one row more: what was to be done before is done then.
    async fn rows_of_its_group(&self) -> Vec<Bytes> {
        let members = BTreeMap::from([(self.id, self.member.clone())]);
        self.store_group.raft.initialize(members).await.unwrap();
        self.store_group.proposer.propose("last".into(), PATIENCE).await.unwrap();
        self.rows.0.lock().0.clone()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_waits_for_is_not_done_later() {
    let (node, _dir) = lonely().await;
    let propose = |number| Box::pin(node.store_group.proposer.propose(large(number), PATIENCE));
    let mut first = propose(1);
    assert!((&mut first).now_or_never().is_none());
    assert!(propose(2).now_or_never().is_none());
    let mut third = propose(3);
    assert!((&mut third).now_or_never().is_none());
    let rows = node.rows_of_its_group().await;
    let begin = |row: &Bytes| row.first().copied();
    assert_eq!(rows.iter().map(begin).collect::<Vec<_>>(), [Some(1), Some(3), Some(b'l')]);
    assert_eq!((first.await, third.await), (Ok("1".into()), Ok("2".into())));
}

/// A node that stood still does nothing whose time is over, whoever sees it first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_stood_still_is_not_done_later() {
    let (node, _dir) = lonely().await;
    let proposer = &node.store_group.proposer;
    let short = Duration::from_millis(50);
    let mut taken = Box::pin(proposer.propose(large(1), short));
    let mut waits = Box::pin(proposer.propose(large(2), short));
    for stands in [&mut taken, &mut waits] {
        assert!(stands.now_or_never().is_none());
    }
    // They see nothing of the time that goes by.
    tokio::time::sleep(short * 2).await;
    assert!(node.rows_of_its_group().await == [Bytes::from("last")]);
    assert_eq!(waits.await, Err(ProposeError::NotTaken("store")));
    // As a rule; the worker may have stood still too.
    let taken = taken.await.unwrap_err();
    assert!([ProposeError::Unknown("store"), ProposeError::NotTaken("store")].contains(&taken), "{taken:?}");
}

/// R19: what one node proposes has the order in which it was begun, through batches of every size and other leaders; what is
/// given up leaves the order of the rest alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r19_what_a_node_proposes_keeps_its_order() {
    let (nodes, _dirs, _ca) = cluster().await;
    let row = |number: usize| {
        let size = if number.is_multiple_of(7) { 30 << 10 } else { number % 500 };
        Bytes::from(format!("{number:>size$}"))
    };
    let node = nodes.iter().find(|node| node.store_group.leader() != Some(node.id)).unwrap();
    let mut begun: Vec<_> =
        (0..1_000).map(|number| Box::pin(node.store_group.proposer.propose(row(number), PATIENCE))).collect();
    // In this order each has its place.
    for proposal in &mut begun {
        assert!(tokio::task::unconstrained(proposal).now_or_never().is_none());
    }
    begun.truncate(900);
    let leader = nodes.iter().find(|node| node.store_group.leader() == Some(node.id)).unwrap();
    let (replies, ()) = tokio::join!(join_all(begun), leader.store_group.hand_on());
    assert!(replies.iter().all(Result::is_ok), "{:?}", replies.iter().find(|reply| reply.is_err()));
    let rows = node.rows.0.lock().0.clone();
    let number = |row: &Bytes| std::str::from_utf8(row).unwrap().trim().parse::<usize>().unwrap();
    let numbers: Vec<_> = rows.iter().map(number).collect();
    assert!(numbers.is_sorted_by(|one, next| one < next), "out of order: {numbers:?}");
    assert!((0..900).eq(numbers.into_iter().take(900)));
}
