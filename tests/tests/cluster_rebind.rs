//! A client that is cut off and binds its resource again at once, at whatever node, is not seen as gone.

#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

use althing_proto::ns;
use althing_tests::client::Client;
use althing_tests::cluster::TestCluster;
use althing_tests::deadline::number;
use althing_tests::friends::subscribe;
use althing_tests::login::{Account, connect, newcomer, register_at};
use anyhow::Result;
use minidom::Element;

/// What a contact sees of the one who comes back again and again.
struct Contact {
    client: Client,
    /// How often it has gone.
    ends: usize,
    /// Its status, while it is available.
    shown: Option<String>,
}

impl Contact {
    /// Until as many sessions have ended, and the last thing heard is that status.
    async fn until(&mut self, ends: usize, status: &str, from: &str) -> Result<()> {
        while self.ends < ends || self.shown.as_deref() != Some(status) {
            let stanza = self.client.recv().await?;
            if stanza.name() != "presence" || stanza.attr("from") != Some(from) {
                continue;
            }
            if stanza.attr("type") == Some("unavailable") {
                (self.ends, self.shown) = (self.ends + 1, None);
            } else {
                self.shown = stanza.get_child("status", ns::CLIENT).map(Element::text);
            }
        }
        Ok(())
    }
}

/// `ALTHING_TEST_ROUNDS` times, in turn at the same node and at the next one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_back_at_once_is_available_in_the_end() {
    let cluster = TestCluster::start(3, "[auth]\nscram_iterations = 4096\n").await.unwrap();
    let account = Account::fresh("alice");
    register_at(&cluster.endpoint(0), &account).await.unwrap();
    let mut alice = connect(&cluster.endpoint(0), &account, "phone").await.unwrap();
    alice.come_online().await.unwrap();
    let mut contacts = Vec::new();
    for node in 0..3 {
        let mut client = newcomer(&cluster.endpoint(node), "contact").await.unwrap();
        client.come_online().await.unwrap();
        subscribe(&mut client, &mut alice).await.unwrap();
        contacts.push(Contact { client, ends: 0, shown: None });
    }
    let from = alice.jid().to_owned();
    for round in 1..=number("ALTHING_TEST_ROUNDS", 24) {
        // Without a word. The node may learn of it before the new bind, or by it.
        drop(alice);
        alice = connect(&cluster.endpoint(round / 2 % 3), &account, "phone").await.unwrap();
        assert_eq!(alice.jid(), from);
        alice.send(&format!("<presence><status>{round}</status></presence>")).await.unwrap();
        for contact in &mut contacts {
            contact.until(round, &round.to_string(), &from).await.unwrap();
        }
    }
}
