//! A disk that is nearly full: new things are refused while there is still room, and taken again when there is more,
//! without a restart. Needs root and `mount`.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "the whole file is a test")]

use althing_tests::client::stanza_error;
use althing_tests::deadline::within;
use althing_tests::disk::SmallDisk;
use althing_tests::login::{Account, connect, newcomer, register_at};
use althing_tests::node::TestNode;

/// A disk of that many mebibytes, in memory; its last mebibytes are the reserve.
const DISK_MIB: u64 = 192;
const RESERVE_MIB: u64 = 64;

async fn until_full(node: &TestNode, full: u8) {
    let line = format!("\nalthing_storage_full {full}\n");
    let wait = async {
        while !node.http("/metrics").await?.1.contains(&line) {}
        Ok(())
    };
    within("the node to look at its disk", Box::pin(wait)).await.unwrap();
}

#[tokio::test]
async fn a_disk_that_is_nearly_full_refuses_what_is_new_and_takes_it_again_without_a_restart() {
    let place = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(place.path(), DISK_MIB).unwrap() else {
        eprintln!("SKIPPED: it needs root, and `mount`");
        return;
    };
    let data = disk.path().join("data");
    let overlay = format!(
        "[node]\ndata_dir = \"{}\"\n[storage]\ncache_mib = 8\nreserve_mib = {RESERVE_MIB}\n",
        data.display()
    );
    let mut node = TestNode::start(&overlay).await.unwrap();
    let endpoint = node.endpoint();
    let absent = Account::fresh("bob");
    register_at(&endpoint, &absent).await.unwrap();
    let mut alice = newcomer(&endpoint, "alice").await.unwrap();
    let roster = |inner: &str| {
        format!("<query xmlns='jabber:iq:roster'><item jid='friend@localhost' {inner}/></query>")
    };
    alice.iq("set", None, &roster("name='Friend'")).await.unwrap();
    until_full(&node, 0).await;
    let to = absent.bare("localhost");
    let message = |id: &str| format!("<message to='{to}' id='{id}' type='chat'><body>{id}</body></message>");

    let mut carol = newcomer(&endpoint, "carol").await.unwrap();
    carol.come_online().await.unwrap();
    let there = carol.jid().to_owned();
    let to_carol =
        |id: &str| format!("<message to='{there}' id='{id}' type='chat'><body>{id}</body></message>");

    disk.fill(RESERVE_MIB / 2).unwrap();
    until_full(&node, 1).await;
    alice.send(&message("refused")).await.unwrap();
    let error = alice.recv_until(|stanza| stanza.attr("id") == Some("refused")).await.unwrap();
    assert_eq!(stanza_error(&error).unwrap(), "resource-constraint");
    // Who is there gets nothing either that is kept nowhere.
    alice.send(&to_carol("live")).await.unwrap();
    let error = alice.recv_until(|stanza| stanza.attr("id") == Some("live")).await.unwrap();
    assert_eq!(stanza_error(&error).unwrap(), "resource-constraint");
    let note = "<query xmlns='jabber:iq:private'><note xmlns='x:note'>n</note></query>";
    let refused = alice.iq("set", None, note).await.unwrap();
    assert_eq!(stanza_error(&refused).unwrap(), "resource-constraint");
    // What makes room is taken, and the node serves.
    let removed = alice.iq("set", None, &roster("subscription='remove'")).await.unwrap();
    assert_eq!(removed.attr("type"), Some("result"));
    assert_eq!(node.http("/readyz").await.unwrap().0, 200);
    assert!(node.log().contains("storage.reserve_mib"), "{}", node.log_end());

    disk.clear().unwrap();
    until_full(&node, 0).await;
    alice.send(&message("kept")).await.unwrap();
    alice.send(&to_carol("again")).await.unwrap();
    let first = carol.recv_until(|stanza| stanza.name() == "message").await.unwrap();
    assert_eq!(first.attr("id"), Some("again"));
    alice.ping().await.unwrap();
    let mut bob = connect(&endpoint, &absent, "r").await.unwrap();
    bob.come_online().await.unwrap();
    let first = bob.recv_until(|stanza| stanza.name() == "message").await.unwrap();
    assert_eq!(first.attr("id"), Some("kept"), "what was refused is not there");
    assert!(node.is_alive());
}
