//! Promise 2: what was acknowledged to its sender is not lost with the node of its receiver, and comes once, in order,
//! under the same id.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "the whole file is a test")]

use std::time::Duration;

use althing_tests::client::Client;
use althing_tests::cluster::TestCluster;
use althing_tests::login::{Account, connect, newcomer, register_at};
use minidom::Element;

const MESSAGES: usize = 30;
const SM: &str = "urn:xmpp:sm:3";

/// The id of a message, and that under which the server keeps it.
fn ids(message: &Element) -> (String, String) {
    let kept = message.get_child("stanza-id", "urn:xmpp:sid:0").expect("a stanza-id");
    (message.attr("id").unwrap().to_owned(), kept.attr("id").unwrap().to_owned())
}

async fn messages(client: &mut Client, count: usize) -> Vec<(String, String)> {
    let mut got = Vec::new();
    while got.len() < count {
        got.push(ids(&client.recv_until(|stanza| stanza.name() == "message").await.unwrap()));
    }
    got
}

/// R1, R3: killed after the acknowledgement, delivered once; the same id.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1_r3_what_was_acknowledged_survives_the_receivers_node() {
    let mut cluster = TestCluster::start(3, "[auth]\nscram_iterations = 4096\n").await.unwrap();
    let account = Account::fresh("bob");
    register_at(&cluster.endpoint(2), &account).await.unwrap();
    let mut alice = newcomer(&cluster.endpoint(0), "alice").await.unwrap();
    let to = account.bare(alice.domain());
    let mut bob = connect(&cluster.endpoint(2), &account, "phone").await.unwrap();
    bob.come_online().await.unwrap();
    for client in [&mut alice, &mut bob] {
        client.send(&format!("<enable xmlns='{SM}'/>")).await.unwrap();
        client.recv_until(|element| element.name() == "enabled").await.unwrap();
    }
    for number in 0..MESSAGES {
        let xml = format!("<message to='{to}' type='chat' id='n{number}'><body>{number}</body></message>");
        alice.send(&xml).await.unwrap();
    }
    alice.send(&format!("<r xmlns='{SM}'/>")).await.unwrap();
    let all = MESSAGES.to_string();
    alice.recv_until(|element| element.name() == "a" && element.attr("h") == Some(&all)).await.unwrap();
    // They have come, but bob has not acknowledged any.
    let first = messages(&mut bob, MESSAGES).await;
    cluster.node_mut(2).kill().unwrap();

    let mut tablet = connect(&cluster.endpoint(1), &account, "tablet").await.unwrap();
    tablet.set_patience(Duration::from_secs(60));
    tablet.send("<presence/>").await.unwrap();
    let second = messages(&mut tablet, MESSAGES).await;
    assert_eq!(second, first);
    tablet.send("<iq type='get' id='last'><ping xmlns='urn:xmpp:ping'/></iq>").await.unwrap();
    let last = tablet
        .recv_until(|stanza| stanza.name() == "message" || stanza.attr("id") == Some("last"))
        .await
        .unwrap();
    assert_eq!(last.name(), "iq", "it came twice: {last:?}");
}
