//! Messages that are kept for a session and never got to it: somebody takes them when it ends, or its node does.

use std::sync::Arc;
use std::time::Duration;

use althing_cluster::node_id::Incarnation;
use althing_cluster::routes::BindIndex;
use althing_cluster::routes::command::NodeDown;
use althing_cluster::task::{NodeStats, TaskKind};
use althing_proto::jid::BareJid;
use althing_proto::stanza_id::StanzaId;

use super::log::Log;
use super::support::{Node, cluster, message};
use crate::session::giving::Giver;
use crate::session::messages::EndReason;
use crate::storage::messages::{InboxQuota, KeepFor, KeepInInbox, KeepMessage, Taker};

/// Longest wait for what must happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// A message for `user@localhost` that is kept while it goes to that session.
async fn kept_for(node: &Node, user: &str, bind: BindIndex, number: usize) {
    let owner = BareJid::new(&format!("{user}@localhost")).unwrap();
    let from = "xmlns='jabber:client' from='x@localhost/r'";
    let xml = message(&format!("{user}@localhost"), "chat", number).replacen(' ', &format!(" {from} "), 1);
    let now = node.context.now();
    let inbox = KeepInInbox {
        takers: vec![Taker { bind, device: None }],
        expires: now.after(Duration::from_secs(1_000)),
        quota: InboxQuota { messages: 9, bytes: 9_999 },
        each_device: false,
    };
    let peer = BareJid::new("x@localhost").unwrap().into();
    let owner = KeepFor { owner, peer, outgoing: false, archive: None, inbox: Some(inbox) };
    let id = StanzaId::from_bytes([u8::try_from(number).unwrap(); 16]);
    let kept = KeepMessage { name: None, id, stamp: now, xml: xml.into(), owners: vec![owner] };
    node.context.storage.keep(kept).await.unwrap();
}

/// Its process is gone, and the others know.
fn lose(log: &Log, node: &mut Node) {
    let lost = node.context.node_id;
    node.stop();
    log.append(None, NodeDown { node: lost, incarnation: Incarnation(1) });
}

/// Longer than anything takes that waits for nobody: a node asks itself many things.
async fn busy(node: &Node) {
    for _ in 0..50 {
        let asked = node.context.links.ask(node.context.node_id, NodeStats {}.into(), PATIENCE);
        asked.await.unwrap();
    }
}

/// A session that was given to another node, and of which nobody has come for it, leaves what was its predecessor's to the
/// account's other ones.
#[actix_rt::test]
async fn what_a_session_has_taken_over_is_for_others_when_it_ends() {
    let (_log, nodes) = cluster(2).await;
    let (mut phone, mut desk) = (nodes[0].bind("a", "phone").await, nodes[1].bind("a", "desk").await);
    for client in [&phone, &desk] {
        client.send("<presence id='p'/>").await;
    }
    phone.enable(200).await;
    assert!(phone.session.detach().await);
    kept_for(&nodes[0], "a", phone.session.index, 1).await;
    assert!(Giver::new(&nodes[0].context, PATIENCE).give(&phone.session).await);
    let route = nodes[1].context.routes.locate(&phone.session.jid).unwrap();
    assert_ne!(route.index, phone.session.index);
    nodes[1].context.sessions.added(route.index).await.end(EndReason::ClientGone).await;
    desk.until("id='n1'", 1).await;
}

/// A node that has kept a message and is lost before it has brought it may have had no session.
#[actix_rt::test]
async fn what_a_node_without_sessions_has_kept_and_not_brought_is_looked_for() {
    let (log, mut nodes) = cluster(2).await;
    let mut alice = nodes[0].bind("a", "r").await;
    alice.send("<presence id='p'/>").await;
    kept_for(&nodes[1], "a", alice.session.index, 1).await;
    lose(&log, &mut nodes[1]);
    alice.until("id='n1'", 1).await;
}

/// R21: who writes after a node was lost comes after what that one had kept, also where the receiver's client is away: here, and
/// where its stream goes on.
#[actix_rt::test]
async fn r21_what_a_lost_node_had_kept_comes_before_what_is_written_later() {
    let (log, mut nodes) = cluster(3).await;
    let mut phone = nodes[0].bind("a", "r").await;
    let stream = phone.enable(200).await;
    phone.send("<presence id='p'/>").await;
    let bob = nodes[2].bind("b", "r").await;
    phone.until("id='p'", 1).await;
    assert!(phone.session.detach().await);
    kept_for(&nodes[1], "a", phone.session.index, 1).await;
    nodes[0].view.hold_losses(true);
    lose(&log, &mut nodes[1]);
    // No session of the first node has heard of the loss yet: what comes now waits for that.
    let own = &nodes[0].context;
    assert!(!own.losses.is_all(own));
    let before = nodes[0].tasks.count(TaskKind::DeliverStanza);
    bob.send(&message("a@localhost/r", "chat", 2)).await;
    while nodes[0].tasks.count(TaskKind::DeliverStanza) == before {
        tokio::task::yield_now().await;
    }
    busy(&nodes[2]).await;
    nodes[0].view.hold_losses(false);
    tokio::time::timeout(PATIENCE, own.losses.all(own)).await.expect("the sessions are told");
    bob.send(&message("a@localhost/r", "chat", 3)).await;
    let (mut again, _) = nodes[2].resume("a", &stream, 0).await.unwrap();
    again.until("id='n3'", 1).await;
    assert_eq!(again.ids(), [1, 2, 3]);
}

/// R21: what the user of a new session writes comes after what a lost node has kept of it, wherever it is for: the bind waits until
/// the node's sessions have heard of the loss. A node that stops tells nobody any more, and nobody waits for it.
#[actix_rt::test]
async fn r21_a_bind_waits_until_a_loss_is_told() {
    let (log, mut nodes) = cluster(3).await;
    nodes[0].view.hold_losses(true);
    lose(&log, &mut nodes[1]);
    let own = Arc::clone(&nodes[0].context);
    let mut bind = Box::pin(nodes[0].bind("b", "r"));
    while own.sessions.is_empty() {
        assert!(futures_util::poll!(&mut bind).is_pending());
        tokio::task::yield_now().await;
    }
    for _ in 0..10 {
        busy(&nodes[2]).await;
        assert!(futures_util::poll!(&mut bind).is_pending(), "nobody has heard of the loss");
    }
    nodes[0].view.hold_losses(false);
    let bob = tokio::time::timeout(PATIENCE, bind).await.expect("it is bound");
    assert!(own.losses.is_all(&own));
    drop(bob);

    nodes[0].view.hold_losses(true);
    lose(&log, &mut nodes[2]);
    assert!(!own.losses.is_all(&own));
    own.stopping.send_replace(true);
    assert!(own.losses.is_all(&own), "it stops");
}
