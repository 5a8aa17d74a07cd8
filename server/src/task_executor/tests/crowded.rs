//! What is handled of a stream whose messages wait for their turn to be kept.

use futures_util::FutureExt;
use futures_util::future::join;
use tokio::task::unconstrained;

use althing_proto::jid::{BareJid, Jid};
use althing_proto::stream::management::Count;

use super::support::{cluster, message};
use crate::delivery::places::{self, Place};
use crate::node::NodeContext;

/// All places of messages that are being kept.
async fn all_places(node: &NodeContext) -> Vec<Place> {
    let mut places = Vec::new();
    for number in 0.. {
        let sender = Jid::new(&format!("other{number}@localhost/x")).unwrap();
        let before = places.len();
        while let Some(place) = unconstrained(places::room(node, Some(&sender))).now_or_never() {
            places.extend(place);
        }
        // Of a sender that had none yet.
        if number > 64 && places.len() == before {
            break;
        }
    }
    places
}

/// R1, R2: the number of a message that has waited for its turn is in the change that keeps it. Were it noted behind, a client
/// whose node is lost between the two would be told that it is not handled, and write it once more.
#[actix_rt::test]
async fn r1_r2_what_has_waited_for_its_turn_is_handled_when_it_is_kept() {
    let (_log, nodes) = cluster(1).await;
    let (node, absent) = (&nodes[0].context, BareJid::new("b@localhost").unwrap());
    node.has_account(&absent).await;
    let mut alice = nodes[0].bind("a", "r").await;
    alice.enable(200).await;
    alice.send("<presence id='p'/>").await;
    node.records.flush(node).await.unwrap();
    let places = all_places(node).await;
    let line = message("b@localhost", "chat", 1);
    let written = alice.send(&line);
    let freed = async {
        tokio::task::yield_now().await;
        assert_eq!(node.storage.inbox.summary(&absent).await.unwrap().messages, 0);
        drop(places);
    };
    join(written, freed).await;
    while node.storage.inbox.summary(&absent).await.unwrap().messages < 1 {
        tokio::task::yield_now().await;
    }
    let record = node.storage.streams.get(&alice.session.jid).await.unwrap().unwrap();
    assert_eq!(record.handled, Count(2));
}
