//! R1, R2: the number of a message is in the change that keeps it. Were it noted behind, a client whose node is lost between the
//! two would be told that it is not handled, and write it once more.

use futures_util::FutureExt;
use futures_util::future::join;
use tokio::task::unconstrained;

use althing_proto::jid::{BareJid, Jid};
use althing_proto::stream::management::Count;

use super::support::{Client, Node, cluster, message};
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

/// Alice, whose presence is handled and noted, at the only node; and Bob, who is not there.
async fn alice() -> (Node, Client, BareJid) {
    let (_log, mut nodes) = cluster(1).await;
    let (node, absent) = (nodes.remove(0), BareJid::new("b@localhost").unwrap());
    node.context.has_account(&absent).await;
    let mut alice = node.bind("a", "r").await;
    alice.enable(200).await;
    alice.send("<presence id='p'/>").await;
    node.context.records.flush(&node.context).await.unwrap();
    (node, alice, absent)
}

/// The store has the message, and knows that it is handled.
async fn is_handled(node: &NodeContext, alice: &Client, absent: &BareJid) {
    while node.storage.inbox.summary(absent).await.unwrap().messages < 1 {
        tokio::task::yield_now().await;
    }
    let record = node.storage.streams.get(&alice.session.jid).await.unwrap().unwrap();
    assert_eq!(record.handled, Count(2));
}

#[actix_rt::test]
async fn r1_r2_what_has_waited_for_its_turn_is_handled_when_it_is_kept() {
    let (node, alice, absent) = alice().await;
    let places = all_places(&node.context).await;
    let line = message("b@localhost", "chat", 1);
    let freed = async {
        tokio::task::yield_now().await;
        assert_eq!(node.context.storage.inbox.summary(&absent).await.unwrap().messages, 0);
        drop(places);
    };
    join(alice.send(&line), freed).await;
    is_handled(&node.context, &alice, &absent).await;
}

/// Its copies for the sender's other resources are kept nowhere (XEP-0280).
#[actix_rt::test]
async fn r1_r2_what_is_copied_is_handled_when_it_is_kept() {
    let (node, alice, absent) = alice().await;
    let mut desk = node.bind("a", "desk").await;
    desk.send("<iq type='set' id='c'><enable xmlns='urn:xmpp:carbons:2'/></iq>").await;
    alice.send(&message("b@localhost", "chat", 1)).await;
    is_handled(&node.context, &alice, &absent).await;
    desk.until("<sent ", 1).await;
}
