//! P11: everybody comes at once, leaves at once, and comes back at once; whoever is there does not notice.

#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use althing_proto::ns;
use althing_tests::client::Client;
use althing_tests::deadline::{number, within};
use althing_tests::endpoint::Endpoint;
use althing_tests::login::{Account, connect, newcomer, register_at};
use althing_tests::node::TestNode;
use futures_util::future::try_join_all;
use minidom::Element;

/// Few binds at a time, so that most of a crowd waits for its turn there too.
const OVERLAY: &str =
    "[auth]\nscram_iterations = 4096\n[limits]\nbinds_at_once = 2\nconnections_per_ip = 5000\n";

/// Resources of an account: each of them hears of the others.
const RESOURCES: usize = 4;

/// What a scrape says of one series.
async fn value(node: &TestNode, series: &str) -> u64 {
    let (_, text) = node.http("/metrics").await.unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(series)).unwrap();
    value.trim().parse().unwrap()
}

async fn until_sessions(node: &TestNode, count: u64) {
    let wait = async {
        while value(node, "althing_sessions ").await != count {
            // Each look is a request over HTTP.
        }
        Ok(())
    };
    within(&format!("{count} sessions"), Box::pin(wait)).await.unwrap();
}

/// All of them log in and come online at the same time.
async fn come(endpoint: &Endpoint, accounts: &[Account]) -> Vec<Client> {
    let one = async |account: &Account, resource: usize| {
        let mut client = connect(endpoint, account, &format!("r{resource}")).await?;
        client.come_online().await?;
        anyhow::Ok(client)
    };
    let all = accounts.iter().flat_map(|account| (0..RESOURCES).map(move |resource| (account, resource)));
    try_join_all(all.map(|(account, resource)| one(account, resource))).await.unwrap()
}

/// `ALTHING_TEST_CROWD` accounts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p11_a_crowd_comes_goes_and_comes_back_and_nobody_else_notices() {
    let node = TestNode::start(OVERLAY).await.unwrap();
    let endpoint = node.endpoint();
    let accounts: Vec<_> = (0..number("ALTHING_TEST_CROWD", 8)).map(|_| Account::fresh("crowd")).collect();
    for account in &accounts {
        register_at(&endpoint, account).await.unwrap();
    }
    let mut alice = newcomer(&endpoint, "alice").await.unwrap();
    let mut bob = newcomer(&endpoint, "bob").await.unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let to = bob.jid().to_owned();
    let talking = tokio::spawn({
        let over = Arc::clone(&over);
        async move {
            let mut written = 0;
            while !over.load(Ordering::SeqCst) {
                alice.send(&format!("<message to='{to}'><body>{written}</body></message>")).await.unwrap();
                let message = bob.recv().await.unwrap();
                let body = message.get_child("body", ns::CLIENT).map(Element::text);
                assert_eq!(body, Some(written.to_string()), "in order, and once");
                written += 1;
            }
            written
        }
    });
    let crowd = (accounts.len() * RESOURCES) as u64;
    let mut resident = Vec::new();
    for _ in 0..3 {
        let clients = come(&endpoint, &accounts).await;
        assert_eq!(value(&node, "althing_sessions ").await, crowd + 2, "all are there");
        resident.push(node.resident().unwrap());
        // Cut off, all of them at once.
        drop(clients);
        until_sessions(&node, 2).await;
    }
    over.store(true, Ordering::SeqCst);
    assert!(talking.await.unwrap() > 0);
    // A storm leaves nothing behind that the next one would add to.
    assert!(resident[2] < 2 * resident[0], "{resident:?}");
    assert!(value(&node, "althing_turn_wait_seconds_count ").await >= 3 * crowd, "they have taken turns");
    for waiting in ["althing_turns_waiting ", "althing_binds_waiting "] {
        assert_eq!(value(&node, waiting).await, 0, "{waiting}");
    }
    for reason in ["sessions_per_account", "binds_waiting", "unavailable"] {
        let refused = format!("althing_binds_refused_total{{reason=\"{reason}\"}} ");
        assert_eq!(value(&node, &refused).await, 0, "{reason}");
    }
}
