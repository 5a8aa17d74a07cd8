//! What an account sets on one node counts for its sessions on the others.

use std::time::Duration;

use super::support::{cluster, message};

/// Longest wait for what must happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// XEP-0441, XEP-0313 §3.5: a session tells its client an id of the archive only if the message is there, by what the account
/// wants now, wherever it has said so.
#[actix_rt::test]
async fn what_is_to_be_archived_is_so_for_sessions_on_other_nodes() {
    let (_log, nodes) = cluster(2).await;
    let (alice, mut bob) = (nodes[0].bind("a", "r").await, nodes[0].bind("b", "r").await);
    let mut elsewhere = nodes[1].bind("b", "s").await;
    bob.send("<presence />").await;
    let mut number = 0;
    for (default, is_told) in [("always", true), ("never", false), ("always", true)] {
        let id = format!("set-{number}");
        elsewhere
            .send(&format!(
                "<iq type='set' id='{id}'><prefs xmlns='urn:xmpp:mam:2' default='{default}'/></iq>"
            ))
            .await;
        elsewhere.until(&format!(" id='{id}'"), 1).await;
        // The word is on its way to the other node.
        let heard = async {
            loop {
                number += 1;
                bob.read.clear();
                alice.send(&message("b@localhost/r", "chat", number)).await;
                bob.until(&format!("id='n{number}'"), 1).await;
                if bob.read.contains("<stanza-id ") == is_told {
                    return;
                }
            }
        };
        assert!(tokio::time::timeout(PATIENCE, heard).await.is_ok(), "{default}: {}", bob.read);
    }
}
