//! What a session has sent before it goes on elsewhere, or before another one has its address: it comes first.

use std::time::Duration;

use futures_util::FutureExt;

use althing_cluster::node_id::{Incarnation, NodeId};
use althing_cluster::routes::command::Bind;
use althing_cluster::task::{ClusterTask, DescribeSession};
use althing_proto::jid::FullJid;

use super::support::{Client, Node, cluster, message};
use crate::session::giving::Giver;

/// Longest wait for what must happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// Tasks of another kind go from node to node meanwhile, more than a change of the table and a stanza need.
async fn some_time(nodes: &[Node]) {
    for _ in 0..50 {
        for (from, to) in [(0, 1), (1, 2), (2, 0), (0, 2)] {
            let asked: ClusterTask =
                DescribeSession { jid: FullJid::new("nobody@localhost/r").unwrap() }.into();
            let target = nodes[to].context.node_id;
            nodes[from].context.links.ask(target, asked, Duration::from_secs(5)).await.unwrap();
        }
    }
}

/// How Alice, who was on the first node, goes on on the second.
#[derive(Debug, Clone, Copy)]
enum Goes {
    Resumes,
    BindsAnew,
    IsGiven,
}

async fn goes(nodes: &[Node], how: Goes, alice: &Client, id: &str) -> Client {
    match how {
        Goes::Resumes => nodes[1].resume("a", id, 0).await.unwrap().0,
        Goes::BindsAnew => nodes[1].bind("a", "r").await,
        Goes::IsGiven => {
            // The third takes nothing.
            nodes[2].context.stopping.send_replace(true);
            assert!(Giver::new(&nodes[0].context, PATIENCE).give(&alice.session).await);
            nodes[2].context.stopping.send_replace(false);
            nodes[1].resume("a", id, 0).await.unwrap().0
        }
    }
}

/// What a session has sent and another node has not taken yet is not overtaken by what its client sends from elsewhere.
#[actix_rt::test]
async fn what_is_out_is_brought_before_a_session_goes_on_elsewhere() {
    for how in [Goes::Resumes, Goes::BindsAnew, Goes::IsGiven] {
        let (_log, nodes) = cluster(3).await;
        let (mut alice, mut bob) = (nodes[0].bind("a", "r").await, nodes[2].bind("b", "r").await);
        let id = alice.enable(200).await;
        nodes[2].tasks.hold(Some(nodes[0].context.node_id));
        alice.send(&message("b@localhost/r", "chat", 1)).await;
        let later = async {
            some_time(&nodes).await;
            nodes[2].tasks.hold(None);
        };
        let then = async {
            let alice = goes(&nodes, how, &alice, &id).await;
            alice.send(&message("b@localhost/r", "chat", 2)).await;
            alice
        };
        let (_later, _alice) = tokio::join!(later, then);
        bob.until("id='n2'", 1).await;
        bob.until("id='n1'", 1).await;
        assert_eq!(bob.ids(), [1, 2], "{how:?}");
    }
}

/// A stanza for a session that is about to be here waits for it, in order, and holds up none for another one.
#[actix_rt::test]
async fn a_session_that_is_on_its_way_holds_up_nobody_else() {
    let (log, nodes) = cluster(2).await;
    let (alice, mut bob) = (nodes[0].bind("a", "r").await, nodes[1].bind("b", "r").await);
    let carol = FullJid::new("c@localhost/r").unwrap();
    nodes[1].context.has_account(&carol.to_bare()).await;
    // The table has her, her session is not there yet.
    log.append(None, Bind { jid: carol.clone(), node: NodeId::new(2), incarnation: Incarnation(1) });
    let index = nodes[1].context.routes.locate(&carol).unwrap().index;
    alice.send(&message("c@localhost/r", "chat", 1)).await;
    alice.send(&message("b@localhost/r", "chat", 2)).await;
    alice.send(&message("c@localhost/r", "chat", 3)).await;
    bob.until("id='n2'", 1).await;
    let carols = || nodes[0].context.remote.brought(&alice.session.jid).now_or_never();
    assert_eq!(nodes[1].context.remote.arrivals().len(), 1, "hers wait for her");
    assert!(carols().is_none(), "and are not said to have arrived");
    let mut carol = nodes[1].begin(&carol, index);
    carol.until("id='n3'", 1).await;
    assert_eq!(carol.ids(), [1, 3]);
}
