//! Streams whose node goes, in order or not (XEP-0198 §5): their clients come back on other nodes.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "the whole file is a test")]

use std::collections::BTreeSet;
use std::time::Instant;

use althing_tests::client::Client;
use althing_tests::cluster::TestCluster;
use althing_tests::deadline::number;
use althing_tests::endpoint::Endpoint;
use althing_tests::friends::subscribe;
use althing_tests::login::{Account, authenticated, bind_request, connect, register_at};
use althing_tests::script::parser::Security;
use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use minidom::Element;

const SM: &str = "urn:xmpp:sm:3";
/// All that a crowd sends waits for one account.
const OVERLAY: &str = "[auth]\nscram_iterations = 4096\n[limits]\nconnections_per_ip = 5000\nack_timeout_s = 600\nclient_ping_s = 0\n\
    [offline]\nmessages = 100000\n";

/// Clients that log in at the same time.
const TOGETHER: usize = 16;

/// A client whose stream can be resumed.
struct Resumable {
    account: Account,
    client: Client,
    id: String,
    /// The server's stanzas that it has handled.
    handled: u32,
}

impl Resumable {
    async fn come(endpoint: &Endpoint) -> Result<Resumable> {
        let account = Account::fresh("alice");
        register_at(endpoint, &account).await?;
        let mut client = connect(endpoint, &account, "phone").await?;
        client.send(&format!("<enable xmlns='{SM}' resume='true'/>")).await?;
        let enabled = client.recv().await?;
        let id = enabled.attr("id").context("not to be resumed")?.to_owned();
        client.send("<presence/>").await?;
        let mut resumable = Resumable { account, client, id, handled: 0 };
        resumable.until(|stanza| stanza.name() == "presence").await?;
        Ok(resumable)
    }

    /// Handles stanzas until one is wanted.
    async fn until(&mut self, wanted: impl Fn(&Element) -> bool) -> Result<Element> {
        loop {
            let element = self.client.recv().await?;
            self.handled += u32::from(element.ns() != SM);
            if wanted(&element) {
                return Ok(element);
            }
        }
    }

    /// The message with that id, and no other.
    async fn message(&mut self, id: &str) -> Result<()> {
        let message = self.until(|stanza| stanza.name() == "message").await?;
        ensure!(message.attr("id") == Some(id), "{:?} came and not {id}", message.attr("id"));
        Ok(())
    }

    /// Comes back and asks for its stream; what the server says, and on what.
    async fn come_back(&self, endpoint: &Endpoint) -> Result<(althing_tests::stream::Stream, Element)> {
        let mut stream = authenticated(endpoint, &self.account, Security::StartTls).await?;
        stream.send(&format!("<resume xmlns='{SM}' previd='{}' h='{}'/>", self.id, self.handled)).await?;
        let answer = stream.element().await?;
        Ok((stream, answer))
    }
}

async fn crowd(endpoint: &Endpoint, count: usize) -> Result<Vec<Resumable>> {
    let mut crowd = Vec::new();
    while crowd.len() < count {
        let next = (count - crowd.len()).min(TOGETHER);
        crowd.extend(try_join_all((0..next).map(|_| Resumable::come(endpoint))).await?);
    }
    Ok(crowd)
}

fn message(to: &str, id: &str) -> String {
    format!("<message to='{to}' type='chat' id='{id}'><body>{id}</body></message>")
}

/// A node stops in order: all streams wait on the others, and go on there; what is sent meanwhile comes, once and in order,
/// and a contact notices nothing. `ALTHING_TEST_STREAMS` of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_of_a_node_that_stops_go_on_elsewhere() {
    let mut cluster = TestCluster::start(3, OVERLAY).await.unwrap();
    let mut clients = crowd(&cluster.endpoint(0), number("ALTHING_TEST_STREAMS", 60)).await.unwrap();
    let bob = Account::fresh("bob");
    register_at(&cluster.endpoint(1), &bob).await.unwrap();
    let mut bob = connect(&cluster.endpoint(1), &bob, "desk").await.unwrap();
    bob.come_online().await.unwrap();
    for client in &mut clients[..8] {
        subscribe(&mut bob, &mut client.client).await.unwrap();
    }
    // Their own counting missed what the subscription has brought: what they say they have is less, and comes again.
    let mut clients = clients.split_off(8).into_iter().chain(clients).collect::<Vec<_>>();
    let counted = clients.len() - 8;
    for client in &clients {
        bob.send(&message(client.client.jid(), "before")).await.unwrap();
    }
    let (these, others) = clients.split_at_mut(counted / 2);
    for client in these {
        client.message("before").await.unwrap();
    }
    for client in others {
        // It has come, and is not handled: it comes again.
        client.client.recv_until(|stanza| stanza.attr("id") == Some("before")).await.unwrap();
    }
    let addresses: Vec<String> = clients.iter().map(|client| client.client.jid().to_owned()).collect();

    let began = Instant::now();
    let ended = async {
        for client in &mut clients {
            // Whatever has come and was not read was not handled.
            assert_eq!(client.client.expect_stream_error().await.unwrap(), "system-shutdown");
        }
    };
    let (stopped, ()) = tokio::join!(cluster.node_mut(0).terminate(), ended);
    assert!(stopped.unwrap());
    let stopped = began.elapsed();
    for address in &addresses {
        bob.send(&message(address, "after")).await.unwrap();
    }
    let endpoints = [cluster.endpoint(1), cluster.endpoint(2)];
    let back = async |(number, client): (usize, Resumable)| -> Result<Resumable> {
        let jid = client.client.jid().to_owned();
        let (stream, answer) = client.come_back(&endpoints[number % 2]).await?;
        ensure!(answer.is("resumed", SM), "{answer:?}");
        Ok(Resumable { client: Client::new(stream, jid), ..client })
    };
    let mut resumed = Vec::new();
    let mut waiting = clients.into_iter().enumerate();
    loop {
        let some: Vec<_> = waiting.by_ref().take(TOGETHER).collect();
        if some.is_empty() {
            break;
        }
        resumed.extend(try_join_all(some.into_iter().map(back)).await.unwrap());
    }
    println!("{} streams: stopped in {stopped:?}, all back in {:?}", resumed.len(), began.elapsed());
    for (number, client) in resumed.iter_mut().enumerate() {
        if number >= counted / 2 {
            client.message("before").await.unwrap();
        }
        client.message("after").await.unwrap();
    }
    bob.send("<iq type='get' id='last'><ping xmlns='urn:xmpp:ping'/></iq>").await.unwrap();
    loop {
        let stanza = bob.recv().await.unwrap();
        assert_ne!(stanza.attr("type"), Some("unavailable"), "a contact noticed: {stanza:?}");
        assert_ne!(stanza.attr("type"), Some("error"), "{stanza:?}");
        if stanza.attr("id") == Some("last") {
            break;
        }
    }
}

/// R1, R2: a node is killed. Each client learns on another what was handled, all of which is there, sends the rest again, and
/// binds on the same stream: who was written to gets all of it, in order and once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1_r2_who_comes_from_a_killed_node_learns_what_was_handled() {
    const MESSAGES: usize = 8;
    let mut cluster = TestCluster::start(3, OVERLAY).await.unwrap();
    let mut clients = crowd(&cluster.endpoint(0), number("ALTHING_TEST_STREAMS", 12)).await.unwrap();
    let bob = Account::fresh("bob");
    register_at(&cluster.endpoint(1), &bob).await.unwrap();
    let to = bob.bare(clients[0].client.domain());
    for client in &mut clients {
        for number in 0..MESSAGES {
            client.client.send(&message(&to, &format!("{number}"))).await.unwrap();
        }
        client.client.send(&format!("<r xmlns='{SM}'/>")).await.unwrap();
    }
    // Some have an answer, others have not read it.
    let mut acknowledged = vec![0; clients.len()];
    for (client, known) in clients.iter_mut().zip(&mut acknowledged).step_by(2) {
        let answer = client.until(|element| element.is("a", SM)).await.unwrap();
        *known = answer.attr("h").unwrap().parse().unwrap();
    }
    cluster.node_mut(0).kill().unwrap();
    for (number, (client, acknowledged)) in clients.iter().zip(acknowledged).enumerate() {
        let (mut stream, failed) = client.come_back(&cluster.endpoint(1 + number % 2)).await.unwrap();
        assert!(failed.is("failed", SM), "{failed:?}");
        let handled: usize = failed.attr("h").expect("its number is known").parse().unwrap();
        assert!((acknowledged..=MESSAGES + 1).contains(&handled), "{handled} and not {acknowledged}");
        stream.send(&bind_request(Some("phone"))).await.unwrap();
        assert_eq!(stream.element().await.unwrap().attr("type"), Some("result"));
        // Its presence was the first.
        for number in handled.max(1) - 1..MESSAGES {
            stream.send(&message(&to, &format!("{number}"))).await.unwrap();
        }
        stream.send("<iq type='get' id='last'><ping xmlns='urn:xmpp:ping'/></iq>").await.unwrap();
        while stream.element().await.unwrap().attr("id") != Some("last") {}
    }
    let mut bob = connect(&cluster.endpoint(2), &bob, "desk").await.unwrap();
    bob.send("<presence/>").await.unwrap();
    let mut got = BTreeSet::new();
    let mut last = std::collections::BTreeMap::new();
    while got.len() < clients.len() * MESSAGES {
        let stanza = bob.recv_until(|stanza| stanza.name() == "message").await.unwrap();
        let (from, id) = (stanza.attr("from").unwrap().to_owned(), stanza.attr("id").unwrap().to_owned());
        assert!(got.insert((from.clone(), id.clone())), "{id} of {from} came twice");
        let before = last.insert(from, id.clone());
        assert!(before.is_none_or(|before| before < id), "out of order");
    }
    bob.send("<iq type='get' id='last'><ping xmlns='urn:xmpp:ping'/></iq>").await.unwrap();
    let next = bob.recv_until(|stanza| stanza.name() == "message" || stanza.attr("id") == Some("last")).await;
    assert_eq!(next.unwrap().name(), "iq", "something came twice");
}
