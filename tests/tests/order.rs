//! Promise 3: from one full JID to another in the order sent; here also none lost and none twice.

use althing_tests::converse::{Speaker, round};
use althing_tests::login::newcomer;
use althing_tests::node::TestNode;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_messages_each_way_arrive_once_and_in_order() {
    let node = TestNode::start("").await.unwrap();
    let endpoint = node.endpoint();
    let alice = newcomer(&endpoint, "alice").await.unwrap();
    let bob = newcomer(&endpoint, "bob").await.unwrap();
    let (to_alice, to_bob) = (alice.jid().to_owned(), bob.jid().to_owned());
    let (mut alice, mut bob) = (Speaker::new(alice, to_bob), Speaker::new(bob, to_alice));
    round(&mut alice, &mut bob, 10_000).await.unwrap();
    alice.finish().await.unwrap();
    bob.finish().await.unwrap();
}
