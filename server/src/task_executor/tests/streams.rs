//! Streams that are resumed (XEP-0198 §5), on one node and on several.

use std::sync::Arc;
use std::time::Duration;

use althing_cluster::lease::{Lease, LeaseTimes, boot_time};
use althing_cluster::node_id::{Incarnation, NodeId};
use althing_cluster::routes::command::NodeDown;
use althing_cluster::task::NodeStats;
use althing_proto::jid::BareJid;
use althing_proto::stanza::Stanza;
use althing_proto::stanza_id::StanzaId;
use althing_proto::stream::ResumeError;
use althing_proto::stream::management::Count;

use althing_proto::time::Timestamp;

use super::contacts::befriend;
use super::support::{Client, Node, cluster, cluster_with, message};
use crate::session::giving::Giver;
use crate::session::inbound::{Hold, Inbound};
use crate::session::messages::EndReason;
use crate::session::orphans::Orphans;
use crate::session::{handed_over, lost_lease, records};
use crate::storage::messages::{InboxQuota, KeepFor, KeepInInbox, KeepMessage};

/// How long a node gives its sessions away.
const PATIENCE: Duration = Duration::from_secs(20);

/// Rounds of a race.
const ROUNDS: usize = 25;

/// A client on the first node, whose stream can be resumed, and who has been sent message 1; and Bob on the last.
async fn pair(nodes: &[Node], user: &str) -> (Client, Client, String) {
    let (mut alice, bob) = (nodes[0].bind(user, "r").await, nodes[nodes.len() - 1].bind("b", "r").await);
    let id = alice.enable(200).await;
    bob.send(&message(&format!("{user}@localhost/r"), "chat", 1)).await;
    alice.until("id='n1'", 1).await;
    (alice, bob, id)
}

/// Two connections of one client resume at the same moment: it does not know that the first has got through. The stream
/// is in one place afterwards, that of the later one, and the other is told of the conflict.
async fn race(nodes: &[Node], round: usize, (one, other): (usize, usize)) {
    let user = format!("a{round}");
    let (_alice, bob, id) = pair(nodes, &user).await;
    let resumed = tokio::join!(nodes[one].resume(&user, &id, 0), nodes[other].resume(&user, &id, 0));
    let (one, other) = (resumed.0.unwrap().0, resumed.1.unwrap().0);
    assert_ne!(one.outbox.is_open(), other.outbox.is_open());
    let (mut wins, mut loses) = if one.outbox.is_open() { (one, other) } else { (other, one) };
    bob.send(&message(&format!("{user}@localhost/r"), "chat", 2)).await;
    wins.until("id='n2'", 1).await;
    assert_eq!(wins.ids(), [1, 2], "what was not acknowledged, and what comes, once");
    loses.until("<conflict ", 1).await;
    let sessions: usize = nodes.iter().map(|node| node.context.sessions.len()).sum();
    assert_eq!(sessions, 2);
    for client in [&wins, &bob] {
        client.session.end(EndReason::ClientGone).await;
    }
}

#[actix_rt::test]
async fn of_two_resumers_on_one_node_the_later_has_the_stream() {
    let (_log, nodes) = cluster(1).await;
    for round in 0..ROUNDS {
        race(&nodes, round, (0, 0)).await;
    }
}

#[actix_rt::test]
async fn of_two_resumers_on_different_nodes_the_later_has_the_stream() {
    let (_log, nodes) = cluster(3).await;
    for round in 0..ROUNDS {
        race(&nodes, round, [(1, 2), (0, 1), (2, 0)][round % 3]).await;
    }
}

/// A client is faster than the log: the node that it comes back to has not heard of its bind.
#[actix_rt::test]
async fn a_stream_is_resumed_on_a_node_that_lags() {
    let (_log, nodes) = cluster(2).await;
    nodes[1].view.lag(true);
    let mut alice = nodes[0].bind("a", "r").await;
    let id = alice.enable(200).await;
    let resuming = nodes[1].resume("a", &id, 0);
    let lagging = async {
        tokio::task::yield_now().await;
        nodes[1].view.lag(false);
    };
    let (resumed, ()) = tokio::join!(resuming, lagging);
    assert!(resumed.unwrap().0.outbox.is_open());
}

/// A stranger's claim, an old one and one for more than was sent change nothing.
#[actix_rt::test]
async fn a_false_claim_is_refused_and_the_session_stays() {
    let (_log, nodes) = cluster(2).await;
    let (mut alice, bob, id) = pair(&nodes, "a").await;
    for node in &nodes {
        assert!(matches!(node.resume("b", &id, 0).await, Err(ResumeError::Unknown { handled: None })));
        let Err(ResumeError::TooHigh(too_high)) = node.resume("a", &id, 2).await else { panic!("taken") };
        assert_eq!((too_high.handled, too_high.sent), (Count(2), Count(1)));
    }
    bob.send(&message("a@localhost/r", "chat", 2)).await;
    alice.until("id='n2'", 1).await;
}

/// Nobody may act for a node whose lease is lost, and nobody of it is resumed there: its sessions are over, those that
/// wait for their clients too.
#[actix_rt::test]
async fn a_session_that_waits_for_its_client_ends_with_the_lease() {
    let times = LeaseTimes {
        suspend: Duration::from_secs(600),
        close: Duration::from_secs(1_200),
        down: Duration::from_secs(1_800),
    };
    let lease = Lease::new(times);
    lease.begin_anew();
    lease.grant(boot_time(), Duration::from_secs(600));
    let (_log, nodes) =
        cluster_with(2, |number| if number == 1 { lease.clone() } else { Lease::always() }).await;
    actix_rt::spawn(lost_lease::watch(Arc::clone(&nodes[0].context)));
    let (alice, bob, id) = pair(&nodes, "a").await;
    assert!(alice.session.detach().await);
    bob.send(&message("a@localhost/r", "chat", 2)).await;
    lease.lose();
    let ended = async {
        while !nodes[0].context.sessions.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.expect("a session outlives the lease");
    // The route stays until the others end it, so that no contact hears of it from a node that may not act.
    assert!(nodes[1].context.routes.locate(&alice.session.jid).is_some());
    lease.begin_anew();
    lease.grant(boot_time(), Duration::from_secs(600));
    for node in &nodes {
        assert!(matches!(node.resume("a", &id, 1).await, Err(ResumeError::Unknown { .. })));
    }
    let mut out = Vec::new();
    assert!(!bob.outbox.take_now(&mut out), "{}", String::from_utf8_lossy(&out));
}

/// R1, R2: a node is lost. Whoever comes for a stream of it learns what was handled: messages to the last one that is kept,
/// the rest a moment later; what was not is not counted.
#[actix_rt::test]
async fn r1_r2_what_was_handled_is_known_when_the_session_is_lost() {
    let (_log, nodes) = cluster(1).await;
    let node = &nodes[0].context;
    records::learn_secret(Arc::clone(node)).await;
    let mut alice = nodes[0].bind("a", "r").await;
    node.has_account(&BareJid::new("away@localhost").unwrap()).await;
    let id = alice.enable(200).await;
    alice.send("<presence id='p'/>").await;
    for number in 1..4 {
        alice.send(&message("away@localhost", "chat", number)).await;
    }
    let known = async || match nodes[0].resume("a", &id, 0).await {
        Err(ResumeError::Unknown { handled }) => handled.map(|count| count.0),
        other => panic!("{other:?}"),
    };
    let in_store =
        async || node.storage.streams.get(&alice.session.jid).await.unwrap().map(|record| record.handled.0);
    // The node is gone with all that it had in memory.
    node.sessions.remove(alice.session.index);
    node.routes.unbind(&alice.session.jid, alice.session.index).await.unwrap();
    assert_eq!(in_store().await, Some(4), "with the messages");
    alice.send("<iq type='get' id='i'><ping xmlns='urn:xmpp:ping'/></iq>").await;
    assert_eq!(in_store().await, Some(4), "written behind");
    let flushed = async {
        // What is said without a message is so: not before the last one is safe.
        while in_store().await != Some(5) {
            tokio::task::yield_now().await;
            node.records.flush(node).await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, flushed).await.expect("it is not noted");
    assert_eq!(known().await, Some(5));
    assert!(matches!(
        nodes[0].resume("a", "AAAAAAAAAAAAAAAAAAAAAHI", 0).await,
        Err(ResumeError::Unknown { handled: None })
    ));

    let now = |seconds: u64| Timestamp::from_millis(seconds * 1_000);
    for (at, left) in [(1_000, Some(5)), (1_199, Some(5)), (1_200, None)] {
        records::sweep(node, now(at), || true).await.unwrap();
        assert_eq!(known().await, left, "{at}");
    }
}

/// What a client sends again, because it was not told that it had got there, has the id of before: it is kept once.
#[actix_rt::test]
async fn r2_a_message_that_comes_again_under_its_number_is_one() {
    let (_log, nodes) = cluster(1).await;
    let node = &nodes[0].context;
    records::learn_secret(Arc::clone(node)).await;
    let away = BareJid::new("away@localhost").unwrap();
    node.has_account(&away).await;
    let mut alice = nodes[0].bind("a", "r").await;
    let id = alice.enable(200).await;
    alice.send(&message("away@localhost", "chat", 1)).await;
    assert!(alice.session.detach().await);
    // It goes on before its message, as where that is not safe in time.
    let key = records::key(&alice.session.jid, handed_over::hash(&id, &alice.session.jid));
    let inbound = Inbound::new(Count(0), Arc::default());
    inbound.record(node, key, alice.session.index, 200);
    let again = inbound.begin();
    let secret = node.stream_secret.get().unwrap();
    let kept = node.storage.inbox.list(&away, None, None, 10).await.unwrap();
    let came = |number| {
        let xml = message("away@localhost", "chat", number);
        let xml = xml.replacen("<message", "<message xmlns='jabber:client'", 1);
        let stanza = Stanza::parse(xml.parse().unwrap()).unwrap();
        stanza.with_from(alice.session.jid.clone())
    };
    let id = |hold: &Hold, stanza: Stanza| hold.stanza_id(secret, &stanza, &stanza.to_standalone());
    assert_eq!(kept.iter().map(|entry| Some(entry.id)).collect::<Vec<_>>(), [id(&again, came(1))]);
    assert_ne!(id(&again, came(1)), id(&again, came(2)), "another one");
    assert_ne!(id(&again, came(1)), id(&inbound.begin(), came(1)));
}

/// A stream that was closed is nobody's any more; of one that was not resumed in time its client learns what was handled.
#[actix_rt::test]
async fn a_stream_that_is_closed_leaves_no_record_and_one_that_expires_does() {
    let (_log, nodes) = cluster(1).await;
    let node = &nodes[0].context;
    for (seconds, closed) in [(200, true), (1, false)] {
        let mut alice = nodes[0].bind("a", "r").await;
        let id = alice.enable(seconds).await;
        alice.send("<presence id='p'/>").await;
        if closed {
            alice.session.end(EndReason::ClientGone).await;
        } else {
            assert!(alice.session.detach().await);
            node.sessions.gone(alice.session.index).await;
        }
        node.records.flush(node).await.unwrap();
        let Err(ResumeError::Unknown { handled }) = nodes[0].resume("a", &id, 0).await else { panic!() };
        assert_eq!(handled, (!closed).then_some(Count(1)));
    }
}

/// A node that stops gives its sessions to the others, attached and detached ones. Contacts notice nothing, and nothing is
/// lost or comes twice, whatever the client had got of what it was sent.
#[actix_rt::test]
async fn a_node_that_stops_gives_its_sessions_to_the_others() {
    const CLIENTS: usize = 60;
    let (_log, nodes) = cluster(3).await;
    let mut bob = nodes[1].bind("b", "r").await;
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let user = format!("c{number}");
        for node in &nodes {
            node.context.has_account(&BareJid::new(&format!("{user}@localhost")).unwrap()).await;
        }
        let mut client = nodes[0].bind(&user, "r").await;
        let id = client.enable(200).await;
        client.send(&format!("<presence to='b@localhost/r' id='{user}'/>")).await;
        for message_number in 1..4 {
            bob.send(&message(&format!("{user}@localhost/r"), "chat", message_number)).await;
        }
        client.until("id='n3'", 1).await;
        if number % 3 == 0 {
            assert!(client.session.detach().await);
        }
        clients.push((user, id, client));
    }
    bob.until("<presence ", CLIENTS).await;
    let plain = nodes[0].bind("plain", "r").await;

    let giver = Giver::new(&nodes[0].context, PATIENCE);
    let sessions = nodes[0].context.sessions.all();
    let given = futures_util::future::join_all(sessions.iter().map(|session| giver.give(session))).await;
    assert_eq!(given.into_iter().filter(|given| *given).count(), CLIENTS);
    assert!(plain.outbox.is_open(), "that one is to end here");
    let waiting = [1, 2].map(|node| nodes[node].context.sessions.len());
    assert!(waiting.iter().all(|waiting| *waiting > CLIENTS / 4), "{waiting:?}");
    for (number, (user, id, mut client)) in clients.into_iter().enumerate() {
        if number % 3 > 0 {
            client.until("<system-shutdown ", 1).await;
        }
        // It has handled some of what it was sent, perhaps all.
        let handled = number % 4;
        let (mut again, sent) = nodes[1 + number % 2].resume(&user, &id, handled as u32).await.unwrap();
        assert_eq!(sent, 1);
        bob.send(&message(&format!("{user}@localhost/r"), "chat", 4)).await;
        again.until("id='n4'", 1).await;
        assert_eq!(again.ids(), (handled + 1..=4).collect::<Vec<_>>());
        again.send(&message("b@localhost/r", "chat", number)).await;
    }
    bob.until("<message ", CLIENTS).await;
    assert_eq!(bob.read.matches("<presence ").count(), CLIENTS, "{}", bob.read);
}

/// What comes for a session while the table does not say yet that it moves is its own all the same: it goes after it, in order,
/// and is neither refused nor given to others.
#[actix_rt::test]
async fn what_comes_while_a_session_moves_goes_after_it_in_order() {
    let (_log, nodes) = cluster(3).await;
    let (alice, mut bob, id) = pair(&nodes, "a").await;
    let mut tablet = nodes[1].bind("a", "tablet").await;
    tablet.send("<presence id='p'/>").await;
    nodes[0].view.hold_moves(true);
    let moving = async {
        while !alice.session.pressure().is_ending() {
            tokio::task::yield_now().await;
        }
        bob.send(&message("a@localhost/r", "chat", 2)).await;
        bob.send("<iq type='get' to='a@localhost/r' id='q'><query xmlns='jabber:iq:version'/></iq>").await;
        bob.send(&message("a@localhost/r", "chat", 3)).await;
        // Longer than it takes to be refused again and again.
        for _ in 0..50 {
            let asked = NodeStats {}.into();
            let answer = nodes[2].context.links.ask(NodeId::new(1), asked, Duration::from_secs(5)).await;
            answer.unwrap();
        }
        nodes[0].view.hold_moves(false);
    };
    let (resumed, ()) = tokio::join!(nodes[1].resume("a", &id, 1), moving);
    let mut again = resumed.unwrap().0;
    bob.send(&message("a@localhost/r", "chat", 4)).await;
    again.until("id='n4'", 1).await;
    assert_eq!(again.ids(), [2, 3, 4]);
    assert!(again.read.find("id='n2'") < again.read.find("id='q'"), "{}", again.read);
    assert!(again.read.find("id='q'") < again.read.find("id='n3'"), "{}", again.read);
    bob.send(&message("b@localhost/r", "chat", 5)).await;
    bob.until("id='n5'", 1).await;
    assert!(!bob.read.contains("error"), "{}", bob.read);
    assert!(!tablet.read_now().contains("<message "), "{}", tablet.read);
}

/// Two nodes stop at once: who does not take a session passes it on; where nobody does it ends, and its messages go on.
#[actix_rt::test]
async fn a_session_that_nobody_takes_ends() {
    let (_log, nodes) = cluster(3).await;
    let (alice, mut bob, id) = pair(&nodes, "a").await;
    nodes[1].context.stopping.send_replace(true);
    nodes[2].context.has_account(&alice.session.jid.to_bare()).await;
    let mut carol = nodes[0].bind("c", "r").await;
    let other = carol.enable(200).await;
    nodes[2].context.has_account(&carol.session.jid.to_bare()).await;
    assert!(Giver::new(&nodes[0].context, PATIENCE).give(&alice.session).await);
    assert!(nodes[2].context.sessions.all().iter().any(|session| session.jid == alice.session.jid));
    assert!(nodes[2].resume("a", &id, 1).await.is_ok());

    nodes[2].context.stopping.send_replace(true);
    carol.send("<presence to='b@localhost/r' id='p'/>").await;
    bob.until("<presence ", 1).await;
    bob.send("<iq type='get' to='c@localhost/r' id='q'><query xmlns='jabber:iq:version'/></iq>").await;
    carol.until("id='q'", 1).await;
    assert!(Giver::new(&nodes[0].context, PATIENCE).give(&carol.session).await);
    assert_eq!(nodes[0].context.routes.locate(&carol.session.jid), None);
    let Err(ResumeError::Unknown { handled }) = nodes[0].resume("c", &other, 0).await else { panic!() };
    assert_eq!(handled, Some(Count(1)), "as of any session that ends");
    bob.until("<recipient-unavailable ", 1).await;
    bob.until("type='unavailable'", 1).await;
}

/// Those of which the stream cannot be resumed end at once, however long the others take; where there is no time left for
/// these they end too.
#[actix_rt::test]
async fn a_session_that_stays_waits_for_none_that_is_given_away() {
    let (_log, nodes) = cluster(2).await;
    let mut clients = Vec::new();
    for number in 0..140 {
        let user = format!("c{number}");
        nodes[1].context.has_account(&BareJid::new(&format!("{user}@localhost")).unwrap()).await;
        let mut client = nodes[0].bind(&user, "r").await;
        client.enable(200).await;
        clients.push(client);
    }
    let plain = nodes[0].bind("plain", "r").await;
    nodes[0].view.hold_moves(true);
    let giver = Giver::new(&nodes[0].context, PATIENCE);
    let given = futures_util::future::join_all(clients.iter().map(|client| giver.give(&client.session)));
    let plain = async {
        while clients.iter().filter(|client| client.session.pressure().is_ending()).count() < 128 {
            tokio::task::yield_now().await;
        }
        assert!(!giver.give(&plain.session).await);
        nodes[0].view.hold_moves(false);
    };
    let (given, ()) = tokio::join!(given, plain);
    assert!(given.into_iter().all(|given| given));

    let mut late = nodes[0].bind("late", "r").await;
    late.enable(200).await;
    assert!(!Giver::new(&nodes[0].context, Duration::ZERO).give(&late.session).await);
    assert!(late.outbox.is_open());
}

/// R1: a node is lost with a message that it had kept, and not delivered: its receiver gets it then, before what comes later, and
/// nothing else once more.
#[actix_rt::test]
async fn r1_what_a_lost_node_had_kept_and_not_delivered_comes() {
    let (log, mut nodes) = cluster(2).await;
    let mut alice = nodes[0].bind("a", "r").await;
    let bob = nodes[1].bind("b", "r").await;
    alice.send("<presence />").await;
    alice.enable(200).await;
    let (to, node) = (alice.session.jid.to_bare(), Arc::clone(&nodes[0].context));
    nodes[1].context.has_account(&to).await;
    bob.send(&message("a@localhost/r", "chat", 1)).await;
    alice.until("id='n1'", 1).await;
    while node.storage.inbox.summary(&to).await.unwrap().messages < 1 {
        tokio::task::yield_now().await;
    }
    let row = node.storage.inbox.list(&to, None, None, 10).await.unwrap().remove(0);
    assert_eq!(row.takers.iter().map(|taker| taker.bind).collect::<Vec<_>>(), [alice.session.index]);
    let xml =
        message("a@localhost/r", "chat", 2).replacen(' ', " xmlns='jabber:client' from='b@localhost/r' ", 1);
    let inbox = KeepInInbox {
        takers: row.takers,
        expires: row.expires,
        quota: InboxQuota { messages: 9, bytes: 9_999 },
        each_device: false,
    };
    let owner = KeepFor {
        owner: to.clone(),
        peer: bob.session.jid.clone().into(),
        outgoing: false,
        archive: None,
        inbox: Some(inbox),
    };
    let lost = KeepMessage {
        name: None,
        id: StanzaId::from_bytes([9; 16]),
        stamp: node.now(),
        xml: xml.into(),
        owners: vec![owner],
    };
    node.storage.keep(lost).await.unwrap();
    nodes[1].stop();
    log.append(None, NodeDown { node: NodeId::new(2), incarnation: Incarnation(1) });
    alice.until("id='n2'", 1).await;
    alice.send(&message("a@localhost/r", "chat", 3)).await;
    alice.until("id='n3'", 1).await;
    assert_eq!(alice.ids(), [1, 2, 3]);
}

/// A node that gave a session away is lost before the session is where its route is: the route goes, and who holds it for
/// available hears that it is not.
#[actix_rt::test]
async fn a_route_without_a_session_ends() {
    let (_log, nodes) = cluster(2).await;
    befriend(&nodes[0], "a", "b").await;
    befriend(&nodes[0], "b", "a").await;
    let (alice, mut bob) = (nodes[0].bind("a", "r").await, nodes[1].bind("b", "r").await);
    for client in [&alice, &bob] {
        client.send("<presence />").await;
    }
    bob.until("from='a@localhost/r'", 1).await;
    let (own, routes) = (&nodes[1].context, &nodes[1].context.routes);
    let to = (own.node_id, own.links.incarnation());
    let moved = nodes[0].context.routes.move_to(&alice.session.jid, alice.session.index, to).await.unwrap();
    nodes[0].context.sessions.remove(alice.session.index);
    let mut orphans = Orphans::default();
    orphans.look(own).await;
    assert_eq!(
        routes.locate(&alice.session.jid).map(|route| route.index),
        Some(moved),
        "it may be on its way"
    );
    orphans.look(own).await;
    assert_eq!(routes.locate(&alice.session.jid), None);
    bob.until("from='a@localhost/r' type='unavailable'", 1).await;
    assert!(routes.locate(&bob.session.jid).is_some());
}
