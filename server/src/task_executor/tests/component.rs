//! Components on other nodes than their users: several connections of one domain, nodes that die.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use althing_cluster::node_id::Incarnation;
use althing_cluster::routes::command::NodeDown;
use althing_cluster::task::TaskKind;
use althing_proto::jid::Jid;
use althing_proto::stanza::{Kind, PresenceType, Stanza};
use althing_proto::stream::error::StreamCondition;

use super::support::{Client, Node, cluster, message};
use crate::components::host::start;
use crate::components::{Component, ComponentHandle, Ending, Letter};
use crate::node::NodeContext;
use crate::pipeline::Effects;

const PATIENCE: Duration = Duration::from_secs(20);

/// Shows what it gets, one stanza for each permit.
struct Gateway {
    permits: Arc<Semaphore>,
    shown: mpsc::UnboundedSender<Stanza>,
}

#[async_trait]
impl Component for Gateway {
    async fn receive(
        &mut self,
        letters: &mut VecDeque<Letter>,
        _: &Arc<NodeContext>,
    ) -> Result<Effects, Ending> {
        self.permits.acquire().await.unwrap().forget();
        letters.pop_front().into_iter().for_each(|letter| self.shown.send(letter.stanza).unwrap());
        Ok(Effects::new())
    }
}

/// One connection of `gw.localhost`, as the test sees it.
struct Attached {
    handle: Arc<ComponentHandle>,
    permits: Arc<Semaphore>,
    shown: mpsc::UnboundedReceiver<Stanza>,
}

impl Attached {
    async fn to(node: &Node, permits: usize) -> Attached {
        let (shown, seen) = mpsc::unbounded_channel();
        let permits = Arc::new(Semaphore::new(permits));
        let gateway = Gateway { permits: Arc::clone(&permits), shown };
        let handle = start(&node.context, "gw.localhost", gateway).await.unwrap();
        Attached { handle, permits, shown: seen }
    }

    async fn next(&mut self) -> Stanza {
        timeout(PATIENCE, self.shown.recv()).await.expect("nothing came").unwrap()
    }

    /// The ids of the next `count` stanzas.
    async fn ids(&mut self, count: usize) -> Vec<usize> {
        let mut ids = Vec::new();
        while ids.len() < count {
            ids.push(self.next().await.id().unwrap().trim_start_matches('n').parse().unwrap());
        }
        ids
    }
}

async fn send(client: &Client, numbers: std::ops::Range<usize>) {
    for number in numbers {
        client.send(&message("x@gw.localhost", "normal", number)).await;
    }
}

/// T6: the local node first, then the cluster; T8: the task names the lane and the connection, the stanza its receiver.
#[actix_rt::test]
async fn t6_t8_a_component_on_another_node_gets_all_in_order() {
    const COUNT: usize = 500;
    let (_log, nodes) = cluster(2).await;
    let a = nodes[0].bind("a", "r").await;
    let mut gateway = Attached::to(&nodes[1], 10_000).await;
    send(&a, 0..COUNT).await;
    assert_eq!(gateway.ids(COUNT).await, (0..COUNT).collect::<Vec<_>>());
    assert_eq!(nodes[1].tasks.count(TaskKind::DeliverStanza), COUNT, "one task a stanza");
    let to_one = message("y@gw.localhost/nick", "normal", 1);
    a.send(&to_one).await;
    assert_eq!(gateway.next().await.to().map(Jid::as_str), Some("y@gw.localhost/nick"));
}

/// T7: connections on two nodes share the senders, each sender has one of them, from whatever node it writes.
#[actix_rt::test]
async fn t7_two_connections_on_two_nodes_share_the_senders() {
    const USERS: usize = 24;
    let (_log, nodes) = cluster(3).await;
    let (mut one, mut two) = (Attached::to(&nodes[0], 1_000).await, Attached::to(&nodes[1], 1_000).await);
    for number in 0..USERS {
        let user = format!("user{number}");
        for (node, resource) in [(0, "a"), (2, "b")] {
            nodes[node].bind(&user, resource).await.send(&message("gw.localhost", "normal", number)).await;
        }
    }
    let (mut of_one, mut of_two) = (Vec::new(), Vec::new());
    for _ in 0..2 * USERS {
        tokio::select! {
            stanza = one.shown.recv() => of_one.push(stanza.unwrap().from().unwrap().to_bare()),
            stanza = two.shown.recv() => of_two.push(stanza.unwrap().from().unwrap().to_bare()),
            () = tokio::time::sleep(PATIENCE) => panic!("{} and {} came", of_one.len(), of_two.len()),
        }
    }
    assert!(of_one.iter().all(|user| !of_two.contains(user)), "one user has two connections");
    assert!(of_one.len() >= USERS / 2 && of_two.len() >= USERS / 2, "{} and {}", of_one.len(), of_two.len());
}

/// A connection ends with stanzas in its inbox, while a user of a third node goes on writing, whose node learns of the
/// end late: the other connection gets all, once and in order.
#[actix_rt::test]
async fn t7_what_a_connection_leaves_goes_to_another_node_in_order() {
    let (_log, nodes) = cluster(3).await;
    let user = nodes[2].bind("a", "r").await;
    let (one, two) = (Attached::to(&nodes[0], 0).await, Attached::to(&nodes[1], 0).await);
    send(&user, 0..40).await;
    let of_one = async {
        while one.handle.inbox.waiting().0 < 40 {
            tokio::task::yield_now().await
        }
    };
    let of_two = async {
        while two.handle.inbox.waiting().0 < 40 {
            tokio::task::yield_now().await
        }
    };
    let is_one = timeout(PATIENCE, async {
        tokio::select! { () = of_one => true, () = of_two => false }
    })
    .await;
    let (ends, mut stays) = if is_one.unwrap() { (one, two) } else { (two, one) };
    nodes[2].view.lag(true);
    ends.handle.end(Ending::Error(StreamCondition::SystemShutdown.into()));
    ends.handle.detached().await;
    send(&user, 40..60).await;
    nodes[2].view.lag(false);
    send(&user, 60..80).await;
    stays.permits.add_permits(1_000);
    assert_eq!(stays.ids(80).await, (0..80).collect::<Vec<_>>());
}

/// A node dies with its connection: its share of the senders goes on with the other, and what was out to it comes there,
/// in order.
#[actix_rt::test]
async fn t7_the_share_of_a_node_that_is_declared_down_moves() {
    let (log, mut nodes) = cluster(3).await;
    let user = nodes[2].bind("a", "r").await;
    let (one, two) = (Attached::to(&nodes[0], 1_000).await, Attached::to(&nodes[1], 1_000).await);
    let mut pair = [one, two];
    send(&user, 0..1).await;
    let [one, two] = &mut pair;
    let owner = timeout(PATIENCE, async {
        tokio::select! { _ = one.shown.recv() => 0, _ = two.shown.recv() => 1 }
    });
    let owner = owner.await.expect("nobody got it");
    nodes[owner].stop();
    send(&user, 1..20).await;
    let down = NodeDown { node: nodes[owner].context.node_id, incarnation: Incarnation(1) };
    log.append(None, down);
    nodes[2].context.links.peer_down(nodes[owner].context.node_id);
    send(&user, 20..40).await;
    let mut rest = pair[1 - owner].ids(1).await;
    while rest.last() != Some(&39) {
        rest.extend(pair[1 - owner].ids(1).await);
    }
    // A node that is stopped may still take some; whose answer was lost with it comes once more, for nobody knows.
    let taken = std::iter::from_fn(|| pair[owner].shown.try_recv().ok()).count() + 1;
    assert!(rest[0] <= taken, "{taken} had come, and it goes on with {}", rest[0]);
    assert_eq!(rest, (rest[0]..40).collect::<Vec<_>>());
}

/// P5 and promise 5: a component is told once of each session that is lost with its node, at each of its addresses that
/// the session had shown itself at.
#[actix_rt::test]
async fn p5_a_component_learns_of_sessions_that_are_lost_with_their_node() {
    let (log, mut nodes) = cluster(2).await;
    let mut gateway = Attached::to(&nodes[0], 1_000).await;
    let lost = nodes[1].bind("lost", "r").await;
    let stays = nodes[0].bind("stays", "r").await;
    for client in [&lost, &stays] {
        for room in ["one", "two"] {
            client.send(&format!("<presence to='{room}@gw.localhost/nick'/>")).await;
        }
    }
    lost.send("<presence to='left@gw.localhost/nick'/>").await;
    lost.send("<presence to='left@gw.localhost/nick' type='unavailable'/>").await;
    for _ in 0..6 {
        gateway.next().await;
    }
    let down = NodeDown { node: nodes[1].context.node_id, incarnation: Incarnation(1) };
    nodes[1].stop();
    log.append(None, down);
    let mut told = Vec::new();
    for _ in 0..2 {
        let stanza = gateway.next().await;
        assert_eq!(stanza.kind(), Kind::Presence(PresenceType::Unavailable));
        assert_eq!(stanza.from().map(Jid::as_str), Some("lost@localhost/r"));
        told.push(stanza.to().unwrap().to_string());
    }
    told.sort();
    assert_eq!(told, ["one@gw.localhost/nick", "two@gw.localhost/nick"]);
    stays.send(&message("gw.localhost", "normal", 7)).await;
    assert_eq!(gateway.ids(1).await, [7], "nothing else was told");
}
