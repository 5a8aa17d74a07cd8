//! Promise 3 across nodes: a conversation does not notice that the third node dies and comes back.

use std::cell::Cell;
use std::time::Duration;

use althing_tests::cluster::TestCluster;
use althing_tests::converse::{Speaker, round};
use althing_tests::deadline::number;
use althing_tests::login::newcomer;
use anyhow::Result;

/// Messages each way between two rounds in which both sides wait for each other.
const ROUND: usize = 250;

/// SIGKILL for `victim`, until the others have seen that it is gone, and its return.
async fn die_and_return(cluster: &mut TestCluster, victim: usize) -> Result<()> {
    cluster.node_mut(victim).kill()?;
    let (name, others) = (format!("node-{victim}"), cluster.others(victim));
    cluster
        .wait_until(Duration::from_secs(20), "the others seeing it down", |view| {
            others.iter().all(|other| view[*other].as_ref().is_some_and(|s| s.state_of(&name) == "down"))
        })
        .await?;
    cluster.node_mut(victim).restart().await?;
    cluster.until_settled().await
}

/// `ALTHING_TEST_MESSAGES=10000` for a longer one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_across_nodes_loses_nothing_while_the_third_node_dies_and_returns() {
    let messages = number("ALTHING_TEST_MESSAGES", 2_000);
    let mut cluster = TestCluster::start(3, "").await.unwrap();
    for third_leads in [true, false] {
        let leader = cluster.leader().await.unwrap();
        let third = if third_leads { leader } else { cluster.others(leader)[0] };
        let nodes = cluster.others(third);
        let alice = newcomer(&cluster.endpoint(nodes[0]), "alice").await.unwrap();
        let bob = newcomer(&cluster.endpoint(nodes[1]), "bob").await.unwrap();
        let (to_alice, to_bob) = (alice.jid().to_owned(), bob.jid().to_owned());
        let (mut alice, mut bob) = (Speaker::new(alice, to_bob), Speaker::new(bob, to_alice));
        round(&mut alice, &mut bob, ROUND).await.unwrap();
        let returned = Cell::new(false);
        let fault = async {
            die_and_return(&mut cluster, third).await?;
            returned.set(true);
            Ok(())
        };
        let talk = async {
            while !returned.get() || alice.received() < messages {
                round(&mut alice, &mut bob, ROUND).await?;
            }
            Ok(())
        };
        let done: Result<((), ())> = tokio::try_join!(fault, talk);
        done.unwrap();
        round(&mut alice, &mut bob, ROUND).await.unwrap();
        eprintln!("{} messages each way, the third node leads: {third_leads}", alice.received());
        alice.finish().await.unwrap();
        bob.finish().await.unwrap();
    }
}
