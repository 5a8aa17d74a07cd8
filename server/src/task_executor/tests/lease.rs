//! What a node does without a lease: nothing, and then it goes on; or its sessions are closed.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use althing_proto::jid::FullJid;
use althing_proto::stanza::Stanza;
use althing_proto::stream::Framing;
use bytes::Bytes;
use tokio::io::{AsyncReadExt, duplex};

use althing_cluster::executor::TaskRefusal;
use althing_cluster::lease::{Lease, LeaseTimes, Standing, boot_time};
use althing_cluster::link::LinkError;
use althing_cluster::node_id::Incarnation;
use althing_cluster::routes::command::{NodeDown, NodeUp};
use althing_cluster::task::{NodeStats, TaskKind};

use super::log::Log;
use super::support::{Node, cluster_with, message};
use crate::delivery::remote::{self, Parcel, Posted};
use crate::metrics::Waiting;
use crate::node::NodeContext;
use crate::session::lost_lease;
use crate::session::outbox::{Entry, Outbox};
use crate::session::pressure::Pressure;
use crate::stream::writer;

const LONG: Duration = Duration::from_secs(600);

/// A lease that is granted for so long, from now on.
fn granted(close: Duration, time: Duration) -> Lease {
    let lease = Lease::new(LeaseTimes { suspend: LONG, close, down: LONG * 3 });
    lease.begin_anew();
    lease.grant(boot_time(), time);
    lease
}

/// Waits until it is so. A lease and a task tell nobody, so it is looked at.
async fn is_so(what: &str, so: impl Fn() -> bool) {
    let look = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), look).await.expect(what);
}

async fn until(lease: &Lease, standing: Standing) {
    is_so("another standing of the lease", || lease.standing() == standing).await;
}

async fn was_asked_to_deliver(node: &Node) {
    is_so("a stanza that another node has sent", || node.tasks.count(TaskKind::DeliverStanza) > 0).await;
}

/// The node has the lease again, and the others know it as another incarnation.
fn is_back(lease: &Lease, log: &Log, node: &NodeContext) {
    log.append(None, NodeUp { node: node.node_id, incarnation: Incarnation(2) });
    node.links.set_incarnation(Incarnation(2));
    lease.begin_anew();
    lease.grant(boot_time(), LONG);
}

/// Two nodes, the second with that lease.
async fn two(lease: &Lease) -> (Node, Node) {
    let (_log, mut nodes) =
        cluster_with(2, |number| if number == 2 { lease.clone() } else { Lease::always() }).await;
    let second = nodes.pop().unwrap();
    (nodes.pop().unwrap(), second)
}

#[actix_rt::test]
async fn while_a_node_is_suspended_nothing_moves_and_then_it_goes_on() {
    let lease = granted(LONG * 2, Duration::from_secs(1));
    let (first, second) = two(&lease).await;
    let (mut a, mut b) = (first.bind("a", "r").await, second.bind("b", "r").await);
    until(&lease, Standing::Suspended).await;

    a.send(&message("b@localhost/r", "normal", 1)).await;
    let from_b = message("a@localhost/r", "normal", 2);
    let mut sending = Box::pin(b.send(&from_b));
    let bind = second.bind("c", "r");
    tokio::pin!(bind);
    // The task has come, and is not run; what the client sends is not looked at; nobody is bound.
    while second.tasks.count(TaskKind::DeliverStanza) == 0 {
        assert!(tokio::time::timeout(Duration::from_millis(5), &mut sending).await.is_err());
        assert!(tokio::time::timeout(Duration::from_millis(5), &mut bind).await.is_err());
    }
    assert_eq!(first.tasks.count(TaskKind::DeliverStanza), 0);
    assert_eq!((second.context.sessions.len(), second.context.routes.sessions()), (1, 2));

    lease.grant(boot_time(), LONG);
    sending.as_mut().await;
    drop(sending);
    assert!(bind.await.outbox.is_open());
    a.until("id='n2'", 1).await;
    b.until("id='n1'", 1).await;
}

/// A node that has lost its lease closes its streams; it says no farewell and gives no route up.
#[actix_rt::test]
async fn a_lost_lease_closes_the_sessions_and_nothing_else() {
    let times =
        LeaseTimes { suspend: Duration::from_secs(1), close: Duration::from_millis(1_500), down: LONG };
    let lease = Lease::new(times);
    lease.begin_anew();
    lease.grant(boot_time(), LONG);
    let (first, second) = two(&lease).await;
    actix_rt::spawn(lost_lease::watch(Arc::clone(&second.context)));
    let (mut here, mut there) = (first.bind("b", "here").await, second.bind("b", "there").await);
    here.send("<presence />").await;
    there.send("<presence />").await;
    here.until("from='b@localhost/there'", 1).await;
    until(&lease, Standing::Lost).await;
    there.until("</stream:stream>", 1).await;
    assert!(there.read.contains("<system-shutdown "), "{}", there.read);
    assert_eq!((second.context.sessions.len(), second.context.routes.sessions()), (0, 2));
    here.send(&message("b@localhost/here", "normal", 1)).await;
    here.until("id='n1'", 1).await;
    assert!(!here.read.contains("unavailable"), "{}", here.read);

    let ask = first.context.links.ask(second.context.node_id, NodeStats {}.into(), LONG).await;
    assert_eq!(ask, Err(LinkError::Refused(TaskRefusal::Suspended)));
}

/// What others did not take from a node that they had declared down is sent again as soon as that is back: they have
/// said that they did not, so nothing more is to be waited for.
#[actix_rt::test]
async fn what_was_refused_to_a_node_that_was_declared_down_goes_on_when_it_is_back() {
    let lease = granted(LONG * 2, LONG);
    let (log, mut nodes) =
        cluster_with(2, |number| if number == 1 { lease.clone() } else { Lease::always() }).await;
    let (second, first) = (nodes.pop().unwrap(), nodes.pop().unwrap());
    let mut b = second.bind("b", "r").await;
    let (context, own) = (Arc::clone(&first.context), first.context.node_id);
    lease.lose();
    log.append(None, NodeDown { node: own, incarnation: Incarnation(1) });
    let to = b.session.jid.clone();
    let xml = message("b@localhost/r", "normal", 1).replacen(' ', " xmlns='jabber:client' ", 1);
    let stanza = Stanza::received(xml.parse().unwrap(), &FullJid::new("a@localhost/r").unwrap()).unwrap();
    let parcel = Parcel { stanza, tries: 0, copies: None, only: false, losses: context.lease.losses() };
    let route = context.routes.locate(&to).unwrap();
    assert!(matches!(remote::post(&context, &to, &route, parcel), Posted::Taken));
    was_asked_to_deliver(&second).await;
    assert!(!b.read.contains("id='n1'"), "{}", b.read);

    is_back(&lease, &log, &context);
    let soon = Duration::from_secs(10);
    tokio::time::timeout(soon, b.until("id='n1'", 1)).await.expect("it waits for nothing");
}

/// What was sent before the loss is not sent once more when the node is back: whoever has sent it is told elsewhere what was
/// handled, and writes the rest there. It would come behind that, and twice.
#[actix_rt::test]
async fn what_was_sent_before_a_loss_is_left_when_the_node_is_back() {
    let lease = granted(LONG * 2, LONG);
    let (log, mut nodes) =
        cluster_with(2, |number| if number == 1 { lease.clone() } else { Lease::always() }).await;
    let (second, first) = (nodes.pop().unwrap(), nodes.pop().unwrap());
    let mut b = second.bind("b", "r").await;
    let (context, own) = (Arc::clone(&first.context), first.context.node_id);
    let to = b.session.jid.clone();
    let route = context.routes.locate(&to).unwrap();
    let parcel = |number| {
        let xml = message("b@localhost/r", "normal", number).replacen(' ', " xmlns='jabber:client' ", 1);
        let from = FullJid::new("a@localhost/r").unwrap();
        let stanza = Stanza::received(xml.parse().unwrap(), &from).unwrap();
        Parcel { stanza, tries: 0, copies: None, only: false, losses: context.lease.losses() }
    };
    let before = parcel(1);
    lease.lose();
    log.append(None, NodeDown { node: own, incarnation: Incarnation(1) });
    assert!(matches!(remote::post(&context, &to, &route, before), Posted::Taken));
    was_asked_to_deliver(&second).await;
    is_back(&lease, &log, &context);
    assert!(matches!(remote::post(&context, &to, &route, parcel(2)), Posted::Taken));
    b.until("id='n2'", 1).await;
    assert_eq!(b.ids(), [2]);
}

/// The lease comes back before anybody has looked: what was before the loss is over all the same.
#[actix_rt::test]
async fn a_loss_that_nobody_saw_ends_the_sessions_of_before_and_no_other() {
    let lease = granted(LONG * 2, LONG);
    let (first, second) = two(&lease).await;
    let (a, mut b) = (first.bind("a", "r").await, second.bind("b", "r").await);
    let mut idle = second.bind("b", "idle").await;
    lease.lose();
    lease.begin_anew();
    lease.grant(boot_time(), LONG);
    let mut later = second.bind("c", "r").await;
    // By the first thing that comes, and by whoever watches.
    a.send(&message("b@localhost/r", "normal", 1)).await;
    b.until("</stream:stream>", 1).await;
    assert!(!b.read.contains("id='n1'"), "{}", b.read);
    actix_rt::spawn(lost_lease::watch(Arc::clone(&second.context)));
    idle.until("</stream:stream>", 1).await;
    assert!(later.outbox.is_open());
    a.send(&message("c@localhost/r", "normal", 2)).await;
    later.until("id='n2'", 1).await;
}

#[actix_rt::test]
async fn a_suspended_node_writes_nothing() {
    let lease = granted(LONG * 2, Duration::ZERO);
    let mut node = NodeContext::for_tests();
    node.lease = lease.clone();
    let outbox =
        Rc::new(Outbox::new(1_000, Arc::new(Pressure::new(1_000)), Framing::Tcp, Waiting::for_tests()));
    let (near, mut far) = duplex(1_000);
    outbox.push(Entry::Stanza(None), Bytes::from_static(b"word")).unwrap();
    let writing = writer::run(&node, near, Rc::clone(&outbox));
    let reading = async {
        let mut word = [0; 4];
        let early = tokio::time::timeout(Duration::from_millis(50), far.read_exact(&mut word)).await;
        assert!(early.is_err(), "written without a lease");
        lease.grant(boot_time(), LONG);
        far.read_exact(&mut word).await.unwrap();
        outbox.close(Bytes::new());
    };
    tokio::join!(writing, reading);
}
