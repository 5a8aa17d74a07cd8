//! Promise 3: from one full JID to another in the order sent; here also none lost and none twice.

use althing_tests::client::Client;
use althing_tests::login::newcomer;
use althing_tests::node::TestNode;
use anyhow::{Result, ensure};

const MESSAGES: usize = 10_000;
/// Messages under way in each direction: far below what a session may owe its client.
const WINDOW: usize = 200;

/// Sends [`MESSAGES`] numbered messages to `peer` and takes as many from it, which must come in order.
async fn converse(mut client: Client, peer: String) -> Result<()> {
    let (mut sent, mut received) = (0, 0);
    while received < MESSAGES {
        let mut burst = String::new();
        while sent < MESSAGES && sent < received + WINDOW {
            burst.push_str(&format!(
                "<message to='{peer}' type='chat' id='{sent}'><body>number {sent}</body></message>"
            ));
            sent += 1;
        }
        if !burst.is_empty() {
            client.send(&burst).await?;
        }
        let stanza = client.recv().await?;
        ensure!(
            stanza.name() == "message" && stanza.attr("from") == Some(&peer),
            "not from the peer: {stanza:?}"
        );
        ensure!(stanza.attr("type") == Some("chat"), "an error came: {stanza:?}");
        let expected = received.to_string();
        ensure!(
            stanza.attr("id") == Some(&expected),
            "expected number {received}, got {:?}",
            stanza.attr("id")
        );
        received += 1;
    }
    // What came twice would come before the answer.
    let id = client.fresh_id();
    client.send(&format!("<iq type='get' id='{id}'><ping xmlns='urn:xmpp:ping'/></iq>")).await?;
    let last = client.recv().await?;
    ensure!(
        last.name() == "iq" && last.attr("id") == Some(&id),
        "something after the last message: {last:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_messages_each_way_arrive_once_and_in_order() {
    let node = TestNode::start("").await.unwrap();
    let endpoint = node.endpoint();
    let alice = newcomer(&endpoint, "alice").await.unwrap();
    let bob = newcomer(&endpoint, "bob").await.unwrap();
    let (to_alice, to_bob) = (alice.jid().to_owned(), bob.jid().to_owned());
    let (one, other) =
        tokio::join!(tokio::spawn(converse(alice, to_bob)), tokio::spawn(converse(bob, to_alice)));
    one.unwrap().unwrap();
    other.unwrap().unwrap();
}
