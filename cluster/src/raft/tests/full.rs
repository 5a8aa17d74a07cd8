//! A leader whose disk is full before it could hand its group on.

use tokio::task::JoinHandle;

use super::super::yielding::yield_when_low;
use super::*;
use crate::disk::LowNodes;
use crate::upkeep::room::DiskWord;

/// Three nodes, each of which yields as a node does; they have heard that the disks of `low` are.
async fn yielding(low: &[u64]) -> (Vec<Node>, Vec<TempDir>, Vec<JoinHandle<()>>) {
    let (nodes, dirs, _ca) = cluster().await;
    let heard = Arc::new(LowNodes::default());
    heard.set(low.iter().copied().map(NodeId::new), [], Duration::ZERO);
    let yields = |node: &Node| {
        let word = DiskWord { disk: Some(node.disk.clone()), low: heard.clone() };
        tokio::spawn(yield_when_low(node.store_group.clone(), node.id, word))
    };
    let tasks = nodes.iter().map(yields).collect();
    (nodes, dirs, tasks)
}

fn leads(node: &Node) -> bool {
    node.store_group.leader() == Some(node.id)
}

/// What it was about to write is written by another leader, for its own clients too, and it catches up when there is room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_disk_is_full_at_once_is_followed_by_another() {
    let (nodes, _dirs, _tasks) = yielding(&[]).await;
    let full = &nodes[nodes.iter().position(leads).unwrap()];
    let rows: Vec<_> = (0..40).map(|number| Bytes::from(format!("row {number}"))).collect();
    let write = |node: &Node, row: &Bytes| {
        let (proposer, row) = (node.store_group.proposer.clone(), row.clone());
        tokio::spawn(async move { proposer.propose(row, PATIENCE).await })
    };
    write(full, &rows[0]).await.unwrap().unwrap();
    // Some are under way, at the leader and elsewhere, and some come afterwards.
    let mut written: Vec<_> = nodes.iter().zip(&rows[1..]).map(|(node, row)| write(node, row)).collect();
    full.disk.set(Room::Routes);
    written.extend(rows[4..].iter().enumerate().map(|(index, row)| write(&nodes[index % 3], row)));
    for reply in join_all(written).await {
        reply.unwrap().expect("a change was given up");
    }
    assert!(!leads(full), "it has no room, and leads");

    full.disk.set(Room::Enough);
    assert!(full.store_group.barrier.pass(PATIENCE).await, "it has not caught up");
    let mut has = full.rows.0.lock().0.clone();
    has.sort();
    let mut wanted = rows;
    wanted.sort();
    assert_eq!(has, wanted);
}

/// It can write no vote, and hands nothing on, for the others have little room too; but they have some.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_without_a_byte_left_is_followed_by_another() {
    let (nodes, _dirs, _tasks) = yielding(&[1, 2, 3]).await;
    let full = nodes.iter().position(leads).unwrap();
    nodes[full].disk.set(Room::Nothing);
    let others: Vec<_> = nodes.iter().filter(|node| node.id != nodes[full].id).collect();
    for (node, row) in others.iter().zip(["one", "two"]) {
        let reply = node.store_group.proposer.propose(row.into(), PATIENCE).await;
        assert!(reply.is_ok(), "the others write nothing: {reply:?}");
    }
    nodes[full].disk.set(Room::Enough);
    assert!(nodes[full].store_group.barrier.pass(PATIENCE).await, "it has not caught up");
    assert_eq!(nodes[full].rows.0.lock().0, ["one", "two"]);
}
