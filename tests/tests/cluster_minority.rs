//! Promise 4: a node without a majority serves nobody, and serves again when there is one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "the whole file is a test")]

use std::time::{Duration, Instant};

use althing_proto::ns;
use althing_tests::client::{Client, condition_of};
use althing_tests::cluster::{CLOSE, SHORT_TIMES, SUSPEND, TestCluster};
use althing_tests::login::{Account, authenticated, bind_request, connect, register_at};
use althing_tests::script::parser::Security;
use althing_tests::stream::Event;
use minidom::Element;

/// What a crowded machine adds to the times of the configuration.
const LATE: Duration = Duration::from_secs(1);

/// All stanzas up to the stream error, with its condition.
async fn until_stream_error(client: &mut Client) -> (Vec<Element>, String) {
    let mut stanzas = Vec::new();
    loop {
        match client.event().await.unwrap() {
            Event::Element(error) if error.is("error", ns::STREAM) => return (stanzas, condition_of(&error)),
            Event::Element(stanza) => stanzas.push(stanza),
            other => panic!("{} was closed without a stream error: {other:?}", client.jid()),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_of_three_suspends_then_closes_its_streams_and_serves_again_with_a_second() {
    let mut cluster = TestCluster::start(3, SHORT_TIMES).await.unwrap();
    let (alice, bob) = (Account::fresh("alice"), Account::fresh("bob"));
    register_at(&cluster.endpoint(0), &alice).await.unwrap();
    register_at(&cluster.endpoint(0), &bob).await.unwrap();
    for leads in [true, false] {
        eprintln!("left alone is a leader: {leads}");
        let leader = cluster.leader().await.unwrap();
        let alone = if leads { leader } else { cluster.others(leader)[0] };
        let others = cluster.others(alone);
        let endpoint = cluster.endpoint(alone);
        let mut sender = connect(&endpoint, &alice, "phone").await.unwrap();
        let mut receiver = connect(&endpoint, &bob, "desk").await.unwrap();
        receiver.come_online().await.unwrap();
        let unbound = authenticated(&endpoint, &alice, Security::StartTls).await.unwrap();
        let mut unbound = Client::new(unbound, String::new());

        let began = Instant::now();
        for other in &others {
            cluster.node_mut(*other).kill().unwrap();
        }
        let suspended = cluster.wait_until(SUSPEND + LATE, "suspension", |view| {
            view[alone].as_ref().is_some_and(|status| !status.serves())
        });
        suspended.await.unwrap();
        eprintln!("suspended after {:?}", began.elapsed());
        let (to, from) = (receiver.jid().to_owned(), sender.jid().to_owned());
        sender.send(&format!("<message to='{to}' id='stale'><body>stale</body></message>")).await.unwrap();
        unbound.send(&bind_request(Some("stale"))).await.unwrap();
        for client in [&mut receiver, &mut sender] {
            let (stanzas, condition) = until_stream_error(client).await;
            let took = began.elapsed();
            eprintln!("{} closed with {condition} after {took:?}", client.jid());
            assert!(took < CLOSE + LATE, "a stream was closed only after {took:?}");
            let stale = stanzas.iter().find(|stanza| stanza.attr("from") == Some(&from));
            assert!(stale.is_none(), "delivered while suspended: {stale:?}");
        }
        // It may wait, or be refused, or closed.
        while let Some(event) = unbound.event_now().unwrap() {
            if let Event::Element(answer) = event {
                assert_ne!(answer.attr("type"), Some("result"), "a bind was answered without a majority");
            }
        }
        assert!(cluster.node_mut(alone).is_alive(), "the node has ended");
        assert_eq!(cluster.node(alone).http("/readyz").await.unwrap().0, 503);
        assert_eq!(cluster.node(alone).http("/livez").await.unwrap().0, 200);

        cluster.node_mut(others[0]).restart().await.unwrap();
        cluster.until_settled().await.unwrap();
        let mut sender = connect(&cluster.endpoint(others[0]), &alice, "phone").await.unwrap();
        let mut receiver = connect(&endpoint, &bob, "desk").await.unwrap();
        receiver.come_online().await.unwrap();
        sender.send(&format!("<message to='{to}' id='fresh'/>")).await.unwrap();
        let message = receiver.recv_until(|stanza| stanza.name() == "message").await.unwrap();
        assert_eq!(message.attr("id"), Some("fresh"), "what was not delivered in time was delivered late");
        cluster.start_all().await.unwrap();
    }
}
