//! The death of a leader costs the clients of other nodes a pause, and no stream.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "the whole file is a test")]

use std::time::{Duration, Instant};

use althing_tests::client::Client;
use althing_tests::cluster::TestCluster;
use althing_tests::login::{Account, authenticated, bind, connect, newcomer, register_at};
use althing_tests::script::parser::Security;

/// From the death of the leader to the answer to a bind on another node.
const BIND: Duration = Duration::from_secs(3);

async fn leader_of(cluster: &mut TestCluster, group: &str) -> usize {
    let lead = cluster.leader().await.unwrap();
    let status = cluster.status(lead).await.unwrap();
    let name = status.group(group).and_then(|group| group.leader.clone()).unwrap();
    (0..3).find(|index| cluster.node(*index).setup().name == name).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_a_leader_dies_nobody_else_loses_a_stream_and_new_clients_wait_for_less_than_three_seconds() {
    let mut cluster = TestCluster::start(3, "").await.unwrap();
    for group in ["routes", "store", "routes"] {
        let leader = leader_of(&mut cluster, group).await;
        let survivors = cluster.others(leader);
        let mut held: Vec<Client> = Vec::new();
        for node in survivors.iter().cycle().take(6) {
            let mut client = newcomer(&cluster.endpoint(*node), "held").await.unwrap();
            client.come_online().await.unwrap();
            held.push(client);
        }
        let (early, late) = (Account::fresh("early"), Account::fresh("late"));
        register_at(&cluster.endpoint(leader), &early).await.unwrap();
        register_at(&cluster.endpoint(leader), &late).await.unwrap();
        let mut waiting = Vec::new();
        for node in &survivors {
            let endpoint = cluster.endpoint(*node);
            waiting.push(authenticated(&endpoint, &early, Security::StartTls).await.unwrap());
        }

        cluster.node_mut(leader).kill().unwrap();
        let killed = Instant::now();
        let binds = waiting.iter_mut().enumerate().map(|(number, stream)| async move {
            bind(stream, Some(&format!("free-{number}"))).await.map(|_| killed.elapsed())
        });
        for took in futures_util::future::join_all(binds).await {
            let took = took.unwrap();
            eprintln!("the leader of the {group} group died; a bind on another node took {took:?}");
            assert!(took < BIND, "a bind took {took:?} after the leader's death");
        }
        connect(&cluster.endpoint(survivors[0]), &late, "x").await.unwrap();
        eprintln!("a whole login was done {:?} after it", killed.elapsed());

        // A stream that had ended would say so before the answer.
        let jids: Vec<String> = held.iter().map(|client| client.jid().to_owned()).collect();
        for client in &mut held {
            client.ping().await.unwrap();
        }
        for (index, client) in held.iter_mut().enumerate() {
            let to = &jids[(index + 1) % jids.len()];
            client.send(&format!("<message to='{to}' id='still here'/>")).await.unwrap();
        }
        for client in &mut held {
            client.recv_until(|stanza| stanza.attr("id") == Some("still here")).await.unwrap();
        }
        cluster.start_all().await.unwrap();
        for client in &mut held {
            client.ping().await.unwrap();
        }
    }
}
