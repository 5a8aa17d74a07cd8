//! What an operator sees of a cluster tells the truth: every metric that the reference, the alerts and the dashboard
//! name is there, and moves with what it counts.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "the whole file is a test")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use althing_tests::cluster::{SHORT_TIMES, TestCluster};
use althing_tests::converse::{Speaker, round};
use althing_tests::deadline::within;
use althing_tests::login::newcomer;
use althing_tests::metrics_used::{missing, used};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Waits until the series of a node that begin with `prefix` are at least `least` together.
async fn until(cluster: &TestCluster, node: usize, prefix: &str, least: f64) {
    let reached = within(prefix, async {
        while cluster.metric(node, prefix).await? < least {
            tokio::task::yield_now().await;
        }
        Ok(())
    });
    let reached = reached.await;
    assert!(
        reached.is_ok(),
        "node-{node}: {prefix} is {:?}, not {least}",
        cluster.metric(node, prefix).await
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_of_a_cluster_are_those_of_the_reference_and_move() {
    let mut cluster = TestCluster::start(3, SHORT_TIMES).await.unwrap();
    let alice = newcomer(&cluster.endpoint(0), "alice").await.unwrap();
    let bob = newcomer(&cluster.endpoint(1), "bob").await.unwrap();
    let (to_alice, to_bob) = (alice.jid().to_owned(), bob.jid().to_owned());
    let (mut alice, mut bob) = (Speaker::new(alice, to_bob), Speaker::new(bob, to_alice));
    round(&mut alice, &mut bob, 50).await.unwrap();

    let mut answers = Vec::new();
    for node in 0..3 {
        answers.push(cluster.node(node).http("/metrics").await.unwrap().1);
    }
    let page = std::fs::read_to_string(root().join("deploy/reference/metrics.md")).unwrap();
    let rows = page.lines().filter(|line| line.starts_with('|'));
    let documented: BTreeSet<&str> =
        rows.filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    assert!(documented.len() > 40, "the page cannot be read");
    for answer in &answers {
        let types = answer.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
        assert_eq!(types.collect::<BTreeSet<&str>>(), documented);
    }
    let lacking = missing(&used(&root()).unwrap(), &answers);
    assert!(lacking.is_empty(), "{}", lacking.join("\n"));

    for node in 0..3 {
        until(&cluster, node, "althing_routes", 2.0).await;
        until(&cluster, node, "althing_cluster_members", 3.0).await;
        until(&cluster, node, "althing_cluster_serving", 1.0).await;
        until(&cluster, node, "althing_raft_has_leader", 2.0).await;
        until(&cluster, node, "althing_raft_voters{group=\"routes\"}", 3.0).await;
        until(&cluster, node, "althing_link_up", 8.0).await;
    }
    for node in 0..2 {
        until(&cluster, node, "althing_tasks_sent_total{kind=\"DeliverStanza\"}", 50.0).await;
        until(&cluster, node, "althing_tasks_run_total{kind=\"DeliverStanza\",outcome=\"done\"}", 50.0).await;
        until(&cluster, node, "althing_raft_commands_total{group=\"routes\"}", 1.0).await;
    }
    let leader = cluster.leader().await.unwrap();
    for node in 0..3 {
        let leads = cluster.metric(node, "althing_raft_is_leader{group=\"routes\"}").await.unwrap();
        assert_eq!(leads == 1.0, node == leader, "node-{node}");
    }

    let lost = cluster.others(leader)[0];
    cluster.node_mut(lost).kill().unwrap();
    until(&cluster, leader, "althing_cluster_nodes_down_total", 1.0).await;
    let alone = cluster.others(leader)[1];
    cluster.node_mut(leader).kill().unwrap();
    until(&cluster, alone, "althing_cluster_suspensions_total", 1.0).await;
    assert_eq!(cluster.metric(alone, "althing_cluster_serving").await.unwrap(), 0.0);
}
