//! Ways to run a task: on one, on one with a reply, on all others, on all.

use std::sync::Arc;
use std::time::Duration;

use althing_cluster::executor::TaskRefusal;
use althing_cluster::link::frame::Lane;
use althing_cluster::link::{LinkError, Links};
use althing_cluster::node_id::NodeId;
use althing_cluster::routes::BindIndex;
use althing_cluster::task::{DescribeSession, NodeStats, ReplaceSession};
use althing_proto::jid::FullJid;

use crate::support::{Ca, Node, Setup, is_note, note, read};

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(300);

async fn three() -> [Node; 3] {
    let ca = Ca::new();
    let nodes = [Node::start(1, &ca).await, Node::start(2, &ca).await, Node::start(3, &ca).await];
    for node in &nodes {
        for other in nodes.iter().filter(|other| other.id != node.id) {
            node.dial(other);
        }
    }
    nodes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c7_a_node_that_is_no_member_is_a_typed_error() {
    let [a, ..] = three().await;
    let absent = NodeId::new(99);
    assert_eq!(a.links.run_on(absent, note(1)), Err(LinkError::NotMember(absent)));
    assert_eq!(a.links.ask(absent, note(1), LONG).await, Err(LinkError::NotMember(absent)));
    assert!(a.links.status(absent).is_empty());
    assert!(a.links.peer_down(absent).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c8_all_but_self_get_a_task_once() {
    let [a, b, c] = three().await;
    assert_eq!(a.links.run_on_all_but_self(&note("x")), [(b.id, Ok(())), (c.id, Ok(()))]);
    for other in [&b, &c] {
        a.until(other, |lane| lane.version.is_some() && lane.waiting == 0).await;
        assert_eq!(other.recorder.texts(), ["x"]);
    }
    // Its own tasks run in order: had it got one before, it would stand first.
    a.links.run_on(a.id, note("own")).unwrap();
    a.recorder.count(1).await;
    assert_eq!(a.recorder.texts(), ["own"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c8_a_node_that_is_not_clustered_has_nobody_else() {
    let [a, ..] = three().await;
    let links = Links::alone(NodeId::new(1), Default::default(), a.recorder.clone());
    assert!(links.run_on_all_but_self(&note("x")).is_empty());
    assert!(links.add_peer(&a.at(a.address)).is_empty());
    assert!(links.peers().is_empty());
    let all = links.ask_all(&note(5), LONG).await;
    assert!(all.len() == 1 && is_note(all[0].1.as_ref().unwrap(), 5));
    assert_eq!(a.recorder.texts(), ["5"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c9_all_are_asked_at_once_and_one_that_hangs_costs_only_its_own_reply() {
    let [a, b, c] = three().await;
    let all = a.links.ask_all(&note(5), LONG).await;
    assert_eq!(all.iter().map(|(node, _)| *node).collect::<Vec<_>>(), [a.id, b.id, c.id]);
    assert!(all.iter().all(|(_, reply)| is_note(reply.as_ref().unwrap(), 5)));

    a.links.run_on(c.id, note("wait")).unwrap();
    c.recorder.count(2).await;
    let started = std::time::Instant::now();
    let all = a.links.ask_all(&note(6), SHORT).await;
    assert!(all[0].1.is_ok() && all[1].1.is_ok());
    assert_eq!(all[2].1, Err(LinkError::Deadline));
    assert!((SHORT..SHORT * 10).contains(&started.elapsed()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_runs_aside_waits_for_nothing_in_order() {
    let [a, b, _] = three().await;
    a.links.run_on(b.id, note("wait")).unwrap();
    assert!(a.links.ask(b.id, read("x"), LONG).await.is_ok());
    assert!(a.links.ask(b.id, NodeStats {}.into(), LONG).await.is_ok());
    assert_eq!(a.links.ask(b.id, note(1), SHORT).await, Err(LinkError::Deadline));
    b.recorder.open_gate();
    assert!(a.links.ask(b.id, note(2), LONG).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_waits_for_any_more_is_not_run_later() {
    let ca = Ca::new();
    let (a, b) = (Node::start(1, &ca).await, Node::start(2, &ca).await);
    let nowhere = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    a.links.add_peer(&b.at(nowhere));
    assert_eq!(a.links.ask(b.id, note(1), SHORT).await, Err(LinkError::Deadline));
    assert_eq!(a.lane(&b, Lane::Tasks).waiting, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_executor_that_fails_panics_or_lies_is_a_typed_error_and_ends_nothing() {
    let [a, b, _] = three().await;
    let failed = |why: &str| Err(LinkError::Refused(TaskRefusal::Failed(why.to_owned())));
    let (jid, owner, by) = (FullJid::new("a@b/c").unwrap(), BindIndex(1), BindIndex(2));
    for node in [b.id, a.id] {
        let describe = DescribeSession { jid: jid.clone() };
        let expected = failed("DescribeSession is not in this test");
        assert_eq!(a.links.ask(node, describe.into(), LONG).await, expected);
        assert_eq!(a.links.ask(node, note("panic"), LONG).await, failed("it panicked"));
        let lied = a.links.ask(node, ReplaceSession { jid: jid.clone(), owner, by }.into(), LONG).await;
        assert_eq!(lied, failed("ReplaceSession was answered as DeliverStanza"));
        assert!(is_note(&a.links.ask(node, note(3), LONG).await.unwrap(), 3));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_hangs_is_given_up_and_the_next_runs() {
    let ca = Ca::new();
    let mut setup = Setup::new(2, &ca);
    setup.times.run = Duration::from_millis(200);
    let (a, b) = (Arc::new(Node::start(1, &ca).await), setup.start().await);
    a.dial(&b);
    let hung = a.links.ask(b.id, note("wait"), LONG).await;
    assert_eq!(hung, Err(LinkError::Refused(TaskRefusal::Failed("it took too long".to_owned()))));
    assert!(is_note(&a.links.ask(b.id, note(3), LONG).await.unwrap(), 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_other_lanes_carry_requests() {
    let [a, b, _] = three().await;
    for lane in [Lane::Routes, Lane::Store, Lane::Snapshot] {
        a.until_lane(&b, lane, |lane| lane.version.is_some()).await;
        let reply = a.links.call(b.id, lane, "x".into(), LONG).await.unwrap();
        assert_eq!(reply, format!("{} x", lane.label()));
        let refused = a.links.call(b.id, lane, "refuse".into(), LONG).await;
        assert_eq!(refused, Err(LinkError::Refused(TaskRefusal::Suspended)));
        let late = a.links.call(b.id, lane, "wait".into(), SHORT).await;
        assert_eq!(late, Err(LinkError::Deadline));
        let large = bytes::Bytes::from(vec![b'x'; 9 << 20]);
        let reply = a.links.call(b.id, lane, large.clone(), LONG).await.unwrap();
        assert_eq!(reply.len(), large.len() + lane.label().len() + 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_gets_the_reply_or_the_peers_end_and_may_ask_for_more() {
    let ca = Ca::new();
    let (a, b) = (Arc::new(Node::start(1, &ca).await), Node::start(2, &ca).await);
    let (id, (told, mut replies)) = (b.id, tokio::sync::mpsc::unbounded_channel());
    let call = |text: &str| {
        let (told, links) = (told.clone(), a.clone());
        let done = move |reply| {
            // No lock of the links is held here.
            assert!(links.links.status(id).len() <= 4);
            told.send(reply).unwrap();
        };
        a.links.ask_then(id, &note(text), done)
    };
    assert_eq!(call("0"), Err(LinkError::NotMember(id)), "not taken, and not called");
    a.dial(&b);
    call("1").unwrap();
    call("2").unwrap();
    for number in [1, 2] {
        assert!(is_note(&replies.recv().await.unwrap().unwrap(), number));
    }
    call("wait").unwrap();
    b.recorder.count(3).await;
    a.links.peer_down(id);
    assert_eq!(replies.recv().await, Some(Err(LinkError::PeerDown)));
    assert!(replies.try_recv().is_err(), "called twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_knows_when_all_is_run() {
    let ca = Ca::new();
    let (a, b) = (Node::start(1, &ca).await, Node::start(2, &ca).await);
    let gone = Node::start(3, &ca).await;
    a.dial(&b);
    a.dial(&gone);
    drop(gone);
    a.until(&b, |lane| lane.version.is_some()).await;
    a.links.run_on(NodeId::new(3), note("never")).unwrap();
    a.links.run_on(b.id, note("wait")).unwrap();
    let settled = a.links.settled();
    tokio::pin!(settled);
    let early = tokio::time::timeout(Duration::from_millis(100), &mut settled).await;
    assert!(early.is_err(), "a task is still running");
    b.recorder.open_gate();
    settled.await;
    assert_eq!(a.lane(&b, Lane::Tasks).waiting, 0);
}
