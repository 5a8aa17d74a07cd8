//! What was acknowledged survives SIGKILL: accounts, passwords and rosters.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "the whole file is a test")]

use althing_tests::friends::{add_contact, roster};
use althing_tests::login::{Account, connect, register_at};
use althing_tests::node::TestNode;

#[tokio::test]
async fn accounts_and_rosters_survive_a_kill() {
    let mut node = TestNode::start("").await.unwrap();
    let endpoint = node.endpoint();
    let (alice, bob, late) = (Account::fresh("alice"), Account::fresh("bob"), Account::fresh("late"));
    register_at(&endpoint, &alice).await.unwrap();
    register_at(&endpoint, &bob).await.unwrap();
    let mut client = connect(&endpoint, &alice, "phone").await.unwrap();
    let mut friend = connect(&endpoint, &bob, "desk").await.unwrap();

    add_contact(&mut client, "romeo@example.net", "name='Romeo'><group>A</group><group>B</group></item>")
        .await
        .unwrap();
    add_contact(&mut client, "gone@example.net", "/>").await.unwrap();
    add_contact(&mut client, "gone@example.net", "subscription='remove'/>").await.unwrap();
    // Who has asked for the roster is told of subscriptions.
    roster(&mut client).await.unwrap();
    roster(&mut friend).await.unwrap();
    friend.come_online().await.unwrap();
    client.send(&format!("<presence to='{}' type='subscribe'/>", friend.bare())).await.unwrap();
    friend.recv_until(|stanza| stanza.attr("type") == Some("subscribe")).await.unwrap();
    friend.send(&format!("<presence to='{}' type='subscribed'/>", client.bare())).await.unwrap();
    client.recv_until(|stanza| stanza.attr("type") == Some("subscribed")).await.unwrap();
    friend.ping().await.unwrap();
    client.ping().await.unwrap();
    let (mine, theirs) = (roster(&mut client).await.unwrap(), roster(&mut friend).await.unwrap());
    assert_eq!(mine.len(), 2, "{mine:?}");
    assert!(mine.iter().any(|line| line == "romeo@example.net none Romeo A,B"), "{mine:?}");
    assert!(mine.iter().any(|line| line.starts_with(&format!("{} to", friend.bare()))), "{mine:?}");
    assert!(theirs.iter().any(|line| line.starts_with(&format!("{} from", client.bare()))), "{theirs:?}");
    // The last word before the kill: whatever was answered counts.
    register_at(&endpoint, &late).await.unwrap();
    node.kill().unwrap();
    node.restart().await.unwrap();

    let mut client = connect(&endpoint, &alice, "phone").await.unwrap();
    let mut friend = connect(&endpoint, &bob, "desk").await.unwrap();
    assert_eq!(roster(&mut client).await.unwrap(), mine);
    assert_eq!(roster(&mut friend).await.unwrap(), theirs);
    connect(&endpoint, &late, "new").await.unwrap();
    let wrong = Account { password: "wrong".to_owned(), ..alice };
    assert!(connect(&endpoint, &wrong, "phone").await.is_err(), "a wrong password is right after a restart");
}

#[tokio::test]
async fn sigterm_ends_a_node_in_order() {
    let mut node = TestNode::start("").await.unwrap();
    let endpoint = node.endpoint();
    let account = Account::fresh("alice");
    register_at(&endpoint, &account).await.unwrap();
    let mut client = connect(&endpoint, &account, "phone").await.unwrap();
    assert!(node.terminate().await.unwrap(), "the node did not report success");
    assert_eq!(client.expect_stream_error().await.unwrap(), "system-shutdown");
    node.restart().await.unwrap();
    connect(&endpoint, &account, "phone").await.unwrap();
}
