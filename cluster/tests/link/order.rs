//! Tasks come once and in order, whatever happens to the connections.

use std::sync::Arc;
use std::time::Duration;

use althing_cluster::link::LinkError;
use althing_cluster::link::frame::Lane;
use althing_cluster::node_id::Incarnation;

use crate::support::{Ca, Node, Proxy, Setup, is_note, note, read};

const LONG: Duration = Duration::from_secs(30);

fn numbers(up_to: usize) -> Vec<String> {
    (0..up_to).map(|number| number.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c6_tasks_run_once_and_in_order_over_twenty_cuts() {
    const CUTS: usize = 20;
    const EACH: usize = 200;
    let ca = Ca::new();
    let (a, b) = (Arc::new(Node::start(1, &ca).await), Node::start(2, &ca).await);
    let proxy = Proxy::before(b.address).await;
    a.links.add_peer(&b.at(proxy.address));
    let mut asked = tokio::task::JoinSet::new();
    for cut in 0..CUTS {
        let connects = a.until(&b, |lane| lane.version.is_some()).await.connects;
        // In each second round no acknowledgement and no reply comes back before the cut: what has been run is
        // sent again.
        let deaf = cut % 2 == 1;
        proxy.freeze(false, deaf);
        for number in cut * EACH..(cut + 1) * EACH {
            if number % 10 == 0 {
                // Asked here and not in the background, so that it has its place in the order.
                let (a, id) = (a.clone(), b.id);
                let (posted, wait) = tokio::sync::oneshot::channel();
                asked.spawn(async move {
                    let ask = a.links.ask(id, note(number), LONG);
                    tokio::pin!(ask);
                    // The first poll puts it into the outbox.
                    let first = futures_util::poll!(&mut ask);
                    posted.send(()).unwrap();
                    let reply = match first {
                        std::task::Poll::Ready(reply) => reply,
                        std::task::Poll::Pending => ask.await,
                    };
                    (number, reply)
                });
                wait.await.unwrap();
            } else {
                a.links.run_on(b.id, note(number)).unwrap();
            }
        }
        b.recorder.count(if deaf { (cut + 1) * EACH } else { cut * EACH + EACH / 2 }).await;
        proxy.cut();
        if deaf {
            // While it is frozen no new connection can come up.
            a.until(&b, |lane| lane.version.is_none()).await;
        }
        proxy.freeze(false, false);
        a.until(&b, |lane| lane.version.is_some() && lane.connects > connects).await;
    }
    while let Some(done) = asked.join_next().await {
        let (number, reply) = done.unwrap();
        assert!(is_note(&reply.unwrap(), number as u64), "each asker gets its own reply");
    }
    let end = a.until(&b, |lane| lane.waiting == 0).await;
    assert_eq!(b.recorder.texts(), numbers(CUTS * EACH));
    assert!(end.connects > CUTS as u64);
    // Acknowledgements may overtake the repetition of tasks; requests are always repeated for their replies.
    assert!(end.resent >= (CUTS / 2 * EACH / 10) as u64, "only {} were sent again", end.resent);
    assert_eq!(end.waiting_bytes, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_lost_on_the_way_is_given_again_without_a_second_run() {
    let ca = Ca::new();
    let (a, b) = (Node::start(1, &ca).await, Node::start(2, &ca).await);
    let proxy = Proxy::before(b.address).await;
    a.links.add_peer(&b.at(proxy.address));
    a.until(&b, |lane| lane.version.is_some()).await;
    proxy.freeze(false, true);
    let cut = async {
        b.recorder.count(2).await;
        proxy.cut();
        a.until(&b, |lane| lane.version.is_none()).await;
        proxy.freeze(false, false);
    };
    let (in_order, aside, ()) =
        tokio::join!(a.links.ask(b.id, note(7), LONG), a.links.ask(b.id, read("x"), LONG), cut);
    assert!(is_note(&in_order.unwrap(), 7));
    assert!(aside.is_ok());
    let mut ran = b.recorder.texts();
    ran.sort();
    assert_eq!(ran, ["7", "x"]);
    assert_eq!(a.lane(&b, Lane::Tasks).resent, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_posted_before_the_first_connection_comes_first() {
    let ca = Ca::new();
    let (a, b) = (Node::start(1, &ca).await, Node::start(2, &ca).await);
    let proxy = Proxy::before(b.address).await;
    proxy.freeze(true, true);
    a.links.add_peer(&b.at(proxy.address));
    for number in 0..100 {
        a.links.run_on(b.id, note(number)).unwrap();
    }
    proxy.freeze(false, false);
    for number in 100..200 {
        a.links.run_on(b.id, note(number)).unwrap();
    }
    b.recorder.count(200).await;
    assert_eq!(b.recorder.texts(), numbers(200));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c7_what_a_peer_that_is_down_did_not_acknowledge_comes_back_in_order() {
    let ca = Ca::new();
    let (a, b) = (Node::start(1, &ca).await, Node::start(2, &ca).await);
    a.dial(&b);
    a.links.run_on(b.id, note("done")).unwrap();
    a.until(&b, |lane| lane.waiting == 0 && lane.version.is_some()).await;
    let tasks = [note("wait"), note("later"), note("last")];
    for task in &tasks {
        a.links.run_on(b.id, task.clone()).unwrap();
    }
    b.recorder.count(2).await;
    let down = async {
        a.until(&b, |lane| lane.waiting == 4).await;
        a.links.peer_down(b.id)
    };
    let (asked, left) = tokio::join!(a.links.ask(b.id, note(1), LONG), down);
    assert_eq!(asked, Err(LinkError::PeerDown));
    assert_eq!(left, tasks);
    assert_eq!(a.links.run_on(b.id, note(1)), Err(LinkError::NotMember(b.id)));

    // The process was not dead: when it is a peer again, new tasks are not taken for old ones.
    b.recorder.open_gate();
    a.dial(&b);
    a.links.run_on(b.id, note("new")).unwrap();
    a.until(&b, |lane| lane.waiting == 0 && lane.version.is_some()).await;
    assert_eq!(b.recorder.texts().last().unwrap(), "new");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_start_of_the_sender_begins_anew_and_an_older_one_is_refused() {
    let ca = Ca::new();
    let b = Node::start(2, &ca).await;
    let start = async |incarnation| {
        let mut setup = Setup::new(1, &ca);
        setup.hello.incarnation = Incarnation(incarnation);
        let a = setup.start().await;
        a.dial(&b);
        a
    };
    for incarnation in [3, 4] {
        let a = start(incarnation).await;
        a.links.set_applied(70 + incarnation);
        a.links.run_on(b.id, note("x")).unwrap();
        a.until(&b, |lane| lane.version.is_some() && lane.waiting == 0).await;
    }
    let sources: Vec<(u64, u64)> =
        b.recorder.sources().iter().map(|source| (source.incarnation.0, source.applied)).collect();
    assert_eq!(sources, [(3, 73), (4, 74)]);
    let a = start(2).await;
    let refused = a.until(&b, |lane| lane.error.is_some()).await.error.unwrap();
    assert_eq!(refused.to_string(), "refused by the peer: a later start of the node is known");
    assert!(a.lane(&b, Lane::Tasks).version.is_none());
}
