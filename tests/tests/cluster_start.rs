//! Promise 4, cold starts: no order of starting matters, accounts and rosters are there, and a node alone says
//! what it waits for.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "the whole file is a test")]

use std::time::Duration;

use althing_tests::cluster::{SHORT_TIMES, TestCluster};
use althing_tests::deadline::{number, within};
use althing_tests::friends::{add_contact, roster};
use althing_tests::login::{Account, connect, register_at};

const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

/// Between two starts an operator lets some time pass, `ALTHING_TEST_START_GAP_S=30` seconds for those of a slow
/// rollout. Meanwhile `account` tries to log in at `node`, which must not let it.
async fn gap_without_login(cluster: &TestCluster, node: usize, account: &Account) {
    let gap = tokio::time::sleep(Duration::from_secs(number("ALTHING_TEST_START_GAP_S", 1) as u64));
    let endpoint = cluster.endpoint(node);
    let login = async {
        loop {
            if connect(&endpoint, account, "early").await.is_ok() {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = gap => {}
        () = login => panic!("node-{node} let somebody in before it was part of a cluster"),
    }
}

/// Between two starts when nobody is refused.
async fn gap() {
    tokio::time::sleep(Duration::from_secs(number("ALTHING_TEST_START_GAP_S", 1) as u64)).await;
}

/// Waits until the node says that it waits for something called so.
async fn waits_for(cluster: &TestCluster, node: usize, what: &str) {
    let mut last = String::new();
    let said = within("saying what it waits for", async {
        loop {
            match cluster.node(node).http("/readyz?verbose").await {
                Ok((503, body)) if body.contains("\"cluster\"") && body.contains(what) => return Ok(()),
                Ok((200, body)) => panic!("node-{node} is ready alone: {body}"),
                Ok((_, body)) => last = body,
                Err(_) => {}
            }
            tokio::task::yield_now().await;
        }
    });
    if let Err(error) = said.await {
        panic!("node-{node}: {error:#}, but {last}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accounts_and_rosters_are_there_after_a_cold_start_in_every_order() {
    let mut cluster = TestCluster::prepare(3, SHORT_TIMES).await.unwrap();
    let (alice, stranger) = (Account::fresh("alice"), Account::fresh("stranger"));

    // The first time: all of the initial set are needed, whoever comes first.
    cluster.node_mut(2).spawn().unwrap();
    waits_for(&cluster, 2, "node-0").await;
    gap_without_login(&cluster, 2, &stranger).await;
    cluster.node_mut(1).spawn().unwrap();
    waits_for(&cluster, 1, "node-0").await;
    gap_without_login(&cluster, 1, &stranger).await;
    cluster.start_all().await.unwrap();

    register_at(&cluster.endpoint(1), &alice).await.unwrap();
    let mut client = connect(&cluster.endpoint(2), &alice, "phone").await.unwrap();
    add_contact(&mut client, "romeo@example.net", "name='Romeo'><group>A</group></item>").await.unwrap();
    let before = roster(&mut client).await.unwrap();
    assert_eq!(before.len(), 1);

    for order in ORDERS {
        eprintln!("starting {order:?}");
        cluster.kill_all().unwrap();
        cluster.node_mut(order[0]).spawn().unwrap();
        waits_for(&cluster, order[0], "").await;
        gap_without_login(&cluster, order[0], &alice).await;
        cluster.node_mut(order[1]).spawn().unwrap();
        // Two of three are a majority: they serve without the third.
        for node in &order[..2] {
            cluster.node_mut(*node).until_ready().await.unwrap();
            connect(&cluster.endpoint(*node), &alice, "phone").await.unwrap();
        }
        gap().await;
        cluster.start_all().await.unwrap();
        check(&cluster, &alice, &before).await;
    }
    eprintln!("starting all at once");
    cluster.kill_all().unwrap();
    cluster.start_all().await.unwrap();
    check(&cluster, &alice, &before).await;
}

/// Each node knows the account and its roster, and lets her speak to herself on another node.
async fn check(cluster: &TestCluster, alice: &Account, expected: &[String]) {
    for node in 0..3 {
        let mut client = connect(&cluster.endpoint(node), alice, "phone").await.unwrap();
        assert_eq!(roster(&mut client).await.unwrap(), expected, "at node-{node}");
        let mut other = connect(&cluster.endpoint((node + 1) % 3), alice, "desk").await.unwrap();
        let to = client.jid().to_owned();
        other.send(&format!("<message to='{to}' id='hello'/>")).await.unwrap();
        client.recv_until(|stanza| stanza.attr("id") == Some("hello")).await.unwrap();
    }
}
