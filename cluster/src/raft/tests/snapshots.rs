//! A node that needs a snapshot, and what it costs the leader while it gets none.

use openraft::metrics::RaftMetrics;

use super::*;

/// A cluster whose leader's log no longer has the first rows, and a newcomer that nobody has told of the group yet.
struct Newcomer {
    nodes: Vec<Node>,
    leader: usize,
    newcomer: Node,
    _dirs: Vec<TempDir>,
}

const ROWS: usize = 50;

impl Newcomer {
    async fn new() -> Self {
        let (nodes, mut dirs, ca) = cluster().await;
        for _ in 0..ROWS {
            nodes[0].store_group.proposer.propose(vec![b'x'; 50_000].into(), PATIENCE).await.unwrap();
        }
        let leads = |node: &Node| node.store_group.metrics().current_leader == Some(node.id);
        let leader = nodes.iter().position(leads).unwrap();
        let raft = &nodes[leader].store_group.raft;
        let last = nodes[leader].store_group.metrics().last_log_index.unwrap();
        raft.trigger().snapshot().await.unwrap();
        let is_built =
            |metrics: &RaftMetrics<StoreGroup>| metrics.snapshot.is_some_and(|id| id.index >= last);
        raft.wait(Some(PATIENCE)).metrics(is_built, "snapshot built").await.unwrap();
        raft.trigger().purge_log(last).await.unwrap();
        let is_cut = |metrics: &RaftMetrics<StoreGroup>| metrics.purged.is_some_and(|id| id.index >= last);
        raft.wait(Some(PATIENCE)).metrics(is_cut, "log cut off").await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let newcomer = start(4, 1, &ca, dir.path(), Rows::default()).await;
        dirs.push(dir);
        Newcomer { nodes, leader, newcomer, _dirs: dirs }
    }

    fn leader(&self) -> &Node {
        &self.nodes[self.leader]
    }

    async fn join(&self) {
        let (id, member) = (self.newcomer.id, self.newcomer.member.clone());
        self.leader().store_group.raft.add_learner(id, member, false).await.unwrap();
    }

    /// Waits until the leader could not bring it a snapshot that often.
    async fn failed(&self, times: u64) {
        let enough = async {
            while self.leader().store_group.numbers().snapshot_failures < times {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, enough).await.expect("nobody has tried so often");
    }

    /// How often the leader has copied its store.
    fn copies(&self) -> usize {
        self.leader().rows.1.load(Ordering::SeqCst)
    }

    async fn has_all(&self) {
        assert!(self.newcomer.store_group.barrier.pass(PATIENCE).await);
        assert_eq!(self.newcomer.rows.0.lock().0.len(), ROWS);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_gets_snapshots_of_what_the_log_no_longer_has() {
    let cluster = Newcomer::new().await;
    cluster.join().await;
    cluster.has_all().await;
    assert_eq!(cluster.leader().store_group.numbers().snapshot_failures, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_whose_disk_is_full_costs_the_leader_no_copy_and_gets_one_when_there_is_room() {
    let cluster = Newcomer::new().await;
    cluster.newcomer.disk.set_spare(0);
    cluster.join().await;
    cluster.failed(2).await;
    cluster.newcomer.disk.set(Room::Nothing);
    cluster.failed(4).await;
    assert_eq!(cluster.copies(), 0);
    cluster.newcomer.disk.set_spare(20_000_000);
    cluster.newcomer.disk.set(Room::Enough);
    cluster.has_all().await;
    assert_eq!(cluster.copies(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_with_too_little_room_costs_the_leader_one_copy() {
    let cluster = Newcomer::new().await;
    cluster.newcomer.disk.set_spare(2_000_000);
    cluster.join().await;
    cluster.failed(4).await;
    assert_eq!(cluster.copies(), 1, "from then on it is known how large it is");
    cluster.newcomer.disk.set_spare(20_000_000);
    cluster.has_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_disk_is_short_makes_no_copy() {
    let cluster = Newcomer::new().await;
    cluster.leader().disk.set_spare(1_000_000);
    cluster.join().await;
    cluster.failed(3).await;
    assert_eq!(cluster.copies(), 0);
    cluster.leader().disk.set_spare(20_000_000);
    cluster.has_all().await;
}
