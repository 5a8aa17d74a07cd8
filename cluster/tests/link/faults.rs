//! Peers that are silent, slow or gone.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use althing_cluster::executor::TaskRefusal;
use althing_cluster::link::frame::Lane;
use althing_cluster::link::{ConnectError, LaneStatus, LinkError, OutboxLimits};
use althing_cluster::members::dead::is_known_dead;
use althing_cluster::node_id::Incarnation;

use crate::support::{Ca, Node, Proxy, Setup, note};

const LONG: Duration = Duration::from_secs(20);

/// The silence that tests allow, and more for a busy machine.
const NOTICED: Duration = Duration::from_secs(4);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_peer_is_noticed_by_its_missing_heartbeats() {
    let ca = Ca::new();
    let (a, b) = (Node::start(1, &ca).await, Node::start(2, &ca).await);
    let proxy = Proxy::before(b.address).await;
    a.links.add_peer(&b.at(proxy.address));
    a.until_lane(&b, Lane::Routes, |lane| lane.version.is_some()).await;
    a.until(&b, |lane| lane.version.is_some()).await;

    // The idle time is what is tested, no wait for a condition: longer than the allowed silence, and heartbeats
    // keep the connection.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let (tasks, routes) = (a.lane(&b, Lane::Tasks), a.lane(&b, Lane::Routes));
    assert!(tasks.version.is_some() && routes.version.is_some());
    assert_eq!((tasks.connects, routes.connects), (1, 1));

    proxy.freeze(true, true);
    let frozen = Instant::now();
    let called = a.links.call(b.id, Lane::Routes, "wait".into(), LONG).await;
    assert_eq!(called, Err(LinkError::Disconnected), "who asked need not wait for the deadline");
    assert!(frozen.elapsed() < NOTICED, "noticed after {:?}", frozen.elapsed());
    let down = a.until(&b, |lane| lane.version.is_none()).await;
    assert_eq!(down.error, Some(ConnectError::Silent));
    assert!(frozen.elapsed() < NOTICED);
    let called = a.links.call(b.id, Lane::Routes, "x".into(), LONG).await;
    assert_eq!(called, Err(LinkError::NotConnected));

    a.links.run_on(b.id, note("kept")).unwrap();
    proxy.freeze(false, false);
    b.recorder.count(1).await;
    assert_eq!(b.recorder.texts(), ["kept"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c9_a_peer_that_runs_nothing_takes_bounded_memory_and_then_refuses() {
    let ca = Ca::new();
    let limits = OutboxLimits { entries: 500, bytes: 1 << 20 };
    let mut setup = Setup::new(1, &ca);
    setup.limits.tasks = limits;
    let (a, b) = (setup.start().await, Node::start(2, &ca).await);
    a.dial(&b);
    a.links.run_on(b.id, note("wait")).unwrap();
    b.recorder.count(1).await;
    let body = "x".repeat(4000);
    let mut taken = 0;
    loop {
        match a.links.run_on(b.id, note(format!("{taken} {body}"))) {
            Ok(()) => taken += 1,
            Err(error) => {
                assert_eq!(error, LinkError::Full);
                break;
            }
        }
        let lane = a.lane(&b, Lane::Tasks);
        assert!(lane.waiting <= limits.entries && lane.waiting_bytes <= limits.bytes);
    }
    assert!(taken > 200, "refused after {taken}");
    let asked = a.links.ask(b.id, note(body.clone()), LONG).await;
    assert_eq!(asked, Err(LinkError::Full));
    b.recorder.open_gate();
    a.until(&b, |lane| lane.waiting == 0).await;
    a.links.run_on(b.id, note("after")).unwrap();
    b.recorder.count(taken + 2).await;
    let ran = b.recorder.texts();
    let first = |text: &String| text.split(' ').next().unwrap().to_owned();
    let order: Vec<String> = ran[1..=taken].iter().map(first).collect();
    assert_eq!(order, (0..taken).map(|number| number.to_string()).collect::<Vec<_>>());
    assert_eq!((ran.len(), a.lane(&b, Lane::Tasks).connects), (taken + 2, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_restarts_gets_what_its_last_process_did_not_run() {
    let ca = Ca::new();
    let (a, b) = (Node::start(1, &ca).await, Node::start(2, &ca).await);
    let peer = b.at(b.address);
    a.links.add_peer(&peer);
    a.links.run_on(b.id, note("wait")).unwrap();
    b.recorder.count(1).await;
    a.links.run_on(b.id, note("later")).unwrap();
    let address = b.address;
    drop(b);
    let b = Setup::new(2, &ca).start_at(address).await;
    b.recorder.open_gate();
    b.recorder.count(2).await;
    assert_eq!(b.recorder.texts(), ["wait", "later"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_asked_a_process_that_is_gone_is_told_and_its_successor_is_not_asked() {
    let ca = Ca::new();
    let (a, b) = (Node::start(1, &ca).await, Node::start(2, &ca).await);
    a.links.add_peer(&b.at(b.address));
    let (id, address) = (b.id, b.address);
    let restarted = async {
        b.recorder.count(1).await;
        drop(b);
        let mut setup = Setup::new(2, &ca);
        setup.hello.incarnation = Incarnation(2);
        setup.start_at(address).await
    };
    let (asked, b) = tokio::join!(a.links.ask(id, note("wait"), LONG), restarted);
    assert_eq!(asked, Err(LinkError::Refused(TaskRefusal::ReplyLost)));
    assert!(a.links.ask(id, note("next"), LONG).await.is_ok());
    assert_eq!(b.recorder.texts(), ["next"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_gone_is_known_to_be_dead_and_one_that_fell_silent_is_not() {
    let ca = Ca::new();
    let (a, b, c) = (Node::start(1, &ca).await, Node::start(2, &ca).await, Node::start(3, &ca).await);
    let proxy = Proxy::before(b.address).await;
    let silent = b.at(proxy.address);
    a.links.add_peer(&silent);
    a.dial(&c);
    let gone = c.at(c.address);
    let refused = |lane: &LaneStatus| {
        matches!(&lane.error, Some(ConnectError::Io { kind: ErrorKind::ConnectionRefused, .. }))
    };
    for lane in Lane::KEPT {
        a.until_lane(&b, lane, |lane| lane.version.is_some()).await;
        a.until_lane(&c, lane, |lane| lane.version.is_some()).await;
    }
    proxy.freeze(true, true);
    for lane in Lane::KEPT {
        a.until_lane(&b, lane, |lane| lane.ended == Some(ConnectError::Silent)).await;
    }
    drop(proxy);
    a.links.run_on(c.id, note("x")).unwrap();
    drop(c);
    for (id, peer) in [(b.id, &silent), (gone.node, &gone)] {
        while !a.links.status(id).iter().all(refused) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let dead = is_known_dead(&a.links.status(id), &peer.address).await;
        assert_eq!(dead, id == gone.node, "{:?}", a.links.status(id));
    }
}
