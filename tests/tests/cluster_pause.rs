//! Promise 4: a node that stood still while the others gave its addresses away delivers nothing afterwards.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "the whole file is a test")]

use std::time::{Duration, Instant};

use althing_proto::ns;
use althing_tests::client::Client;
use althing_tests::cluster::{DOWN, SHORT_TIMES, TestCluster};
use althing_tests::deadline::within_time;
use althing_tests::login::{Account, connect, newcomer, register_at};
use althing_tests::stream::Event;
use minidom::Element;

/// What comes up to the end of a stream, within this time.
const END: Duration = Duration::from_secs(10);

async fn until_end(client: &mut Client) -> Vec<Element> {
    let mut stanzas = Vec::new();
    loop {
        match client.event().await.unwrap() {
            Event::Element(stanza) => stanzas.push(stanza),
            Event::End | Event::Eof => return stanzas,
            Event::Header(header) => panic!("a second header: {header:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_paused_for_too_long_delivers_and_answers_nothing_stale() {
    let mut cluster = TestCluster::start(3, SHORT_TIMES).await.unwrap();
    for leads in [false, true] {
        eprintln!("paused is the leader: {leads}");
        let leader = cluster.leader().await.unwrap();
        let paused = if leads { leader } else { cluster.others(leader)[0] };
        let others = cluster.others(paused);
        let owner = Account::fresh("owner");
        register_at(&cluster.endpoint(paused), &owner).await.unwrap();
        let mut old = connect(&cluster.endpoint(paused), &owner, "phone").await.unwrap();
        old.come_online().await.unwrap();
        let mut writer = newcomer(&cluster.endpoint(paused), "writer").await.unwrap();
        let mut friend = newcomer(&cluster.endpoint(others[0]), "friend").await.unwrap();
        let (from, to, owned) = (writer.jid().to_owned(), friend.jid().to_owned(), old.jid().to_owned());

        cluster.node(paused).pause().unwrap();
        let began = Instant::now();
        // It is in the buffers of a node that stands still.
        writer.send(&format!("<message to='{to}' id='stale'><body>stale</body></message>")).await.unwrap();
        writer.send(&format!("<message to='{owned}' id='stale'><body>stale</body></message>")).await.unwrap();
        let ping = format!("<iq type='get' id='stale'><ping xmlns='{}'/></iq>", ns::PING);
        writer.send(&ping).await.unwrap();
        let name = format!("node-{paused}");
        cluster
            .wait_until(DOWN + Duration::from_secs(4), "the others giving its addresses away", |view| {
                others.iter().all(|other| view[*other].as_ref().is_some_and(|s| s.state_of(&name) == "down"))
            })
            .await
            .unwrap();
        eprintln!("given away after {:?}", began.elapsed());
        let taken = within_time(END, "taking the address over", async {
            connect(&cluster.endpoint(others[1]), &owner, "phone").await
        });
        let mut new = Box::pin(taken).await.unwrap();
        new.come_online().await.unwrap();
        assert_eq!(new.jid(), owned);
        let before = cluster.route(others[1], &owned).await.unwrap().sessions;
        assert_eq!(before.len(), 1);

        cluster.node(paused).resume().unwrap();
        for client in [&mut old, &mut writer] {
            let stale: Vec<Element> =
                until_end(client).await.into_iter().filter(|s| s.attr("id") == Some("stale")).collect();
            assert!(stale.iter().all(|s| s.attr("type") == Some("error")), "answered late: {stale:?}");
        }
        cluster.until_settled().await.unwrap();
        // What was under way from the paused node comes before what is sent from it now.
        let mut fence = newcomer(&cluster.endpoint(paused), "fence").await.unwrap();
        for client in [&mut friend, &mut new] {
            let to = client.jid().to_owned();
            fence.send(&format!("<message to='{to}' id='fence'/>")).await.unwrap();
            loop {
                let stanza = client.recv().await.unwrap();
                assert_ne!(stanza.attr("from"), Some(from.as_str()), "delivered late: {stanza:?}");
                if stanza.attr("id") == Some("fence") {
                    break;
                }
            }
            client.ping().await.unwrap();
        }
        for node in 0..3 {
            assert_eq!(cluster.route(node, &owned).await.unwrap().sessions, before, "at node-{node}");
        }
    }
}
