//! Two or three nodes in one process: what users see when they are on different nodes.

mod component;
mod contacts;

mod handled;
mod lease;
mod left;
mod log;
mod moves;
mod preferences;
mod reads;
mod streams;
mod support;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use althing_cluster::executor::TaskRefusal;
use althing_cluster::link::LinkError;
use althing_cluster::node_id::Incarnation;
use althing_cluster::routes::command::NodeDown;
use althing_cluster::task::{
    BroadcastLocal, DescribeSession, NodeStats, ProbeAccount, ReadStore, ReplaceSession, SessionFound,
    TaskKind, TaskReply,
};
use althing_proto::jid::{BareJid, Jid};
use althing_proto::ns;
use althing_proto::roster::Subscription;
use althing_proto::stanza::{IqType, Stanza};
use althing_proto::xml::Element;

use crate::delivery::receivers::{self, Receiver};
use crate::delivery::remote::{self, Parcel, Posted};
use crate::delivery::{account, fan_out, keep};
use crate::session::effect::{Effect, RosterChanged, SessionChange, UserEvent};
use crate::session::losses::Lost;
use crate::session::messages::EndReason;
use support::{cluster, message};

const LONG: Duration = Duration::from_secs(20);

#[actix_rt::test]
async fn messages_arrive_both_ways_once_and_in_order() {
    const COUNT: usize = 500;
    let (_log, nodes) = cluster(2).await;
    let (mut a, mut b) = (nodes[0].bind("a", "r").await, nodes[1].bind("b", "r").await);
    for number in 0..COUNT {
        a.send(&message("b@localhost/r", "normal", number)).await;
        b.send(&message("a@localhost/r", "normal", number)).await;
    }
    for client in [&mut a, &mut b] {
        client.until("<body>", COUNT).await;
        assert_eq!(client.ids(), (0..COUNT).collect::<Vec<_>>());
    }
    let tasks = nodes.iter().map(|node| node.tasks.count(TaskKind::DeliverStanza)).sum::<usize>();
    assert_eq!(tasks, 2 * COUNT, "one task a stanza");
}

/// R11: an answer counts on the node that asked, wherever it comes in.
#[actix_rt::test]
async fn r11_an_answer_that_comes_to_another_node_is_handed_on() {
    let (_log, nodes) = cluster(2).await;
    let (server, service) = (Jid::new("localhost").unwrap(), Jid::new("b@localhost/r").unwrap());
    let b = nodes[1].bind("b", "r").await;
    let payload = Element::bare("ping", ns::PING);
    let (iq, answer) =
        nodes[0].context.requests.begin((server, service), IqType::Get, payload, LONG).unwrap();
    let id = iq.id().unwrap().to_owned();
    b.send(&format!("<iq type='result' to='localhost' id='{id}'/>")).await;
    assert_eq!(answer.wait().await.unwrap().id(), Some(id.as_str()));
}

/// A sender that does not know yet that its receiver has moved: nothing is lost, nothing overtakes.
#[actix_rt::test]
async fn a_receiver_that_has_moved_gets_all_in_order() {
    let (_log, nodes) = cluster(3).await;
    let mut a = nodes[0].bind("a", "r").await;
    let old = nodes[1].bind("b", "r").await;
    a.send("<message to='a@localhost/r' id='x'/>").await;
    a.until("id='x'", 1).await;

    nodes[0].view.lag(true);
    old.session.end(EndReason::ClientGone).await;
    let mut new = nodes[2].bind("b", "r").await;
    for number in 0..20 {
        a.send(&message("b@localhost/r", "normal", number)).await;
    }
    // The first ones come back, for their session is gone; the node waits for what the other has applied.
    while nodes[1].tasks.count(TaskKind::DeliverStanza) == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(nodes[2].tasks.count(TaskKind::DeliverStanza), 0);
    nodes[0].view.lag(false);
    for number in 20..40 {
        a.send(&message("b@localhost/r", "normal", number)).await;
    }
    new.until("<body>", 40).await;
    assert_eq!(new.ids(), (0..40).collect::<Vec<_>>());
}

/// The same where the receiver has come to the sender's own node: the way within the node is no short cut.
#[actix_rt::test]
async fn a_receiver_that_has_come_here_gets_all_in_order() {
    let (_log, nodes) = cluster(2).await;
    let a = nodes[0].bind("a", "r").await;
    let old = nodes[1].bind("b", "r").await;
    nodes[0].view.lag(true);
    old.session.end(EndReason::ClientGone).await;
    for number in 0..20 {
        a.send(&message("b@localhost/r", "normal", number)).await;
    }
    nodes[0].view.lag(false);
    let mut new = nodes[0].bind("b", "r").await;
    // Those of before the bind found nobody, or somebody: what arrives is in order, and all of after it.
    for number in 20..40 {
        a.send(&message("b@localhost/r", "normal", number)).await;
    }
    new.until("id='n39'", 1).await;
    let ids = new.ids();
    assert!(ids.is_sorted() && ids.ends_with(&(20..40).collect::<Vec<_>>()), "{ids:?}");
}

/// RFC 6121 §8.5.3.2, with the session's end unknown to the sender's node.
#[actix_rt::test]
async fn who_is_gone_is_absent_wherever_it_was() {
    let (_log, nodes) = cluster(2).await;
    let mut a = nodes[0].bind("a", "r").await;
    let mut stays = nodes[1].bind("b", "stays").await;
    let goes = nodes[1].bind("b", "goes").await;
    stays.send("<presence />").await;
    nodes[0].view.lag(true);
    goes.session.end(EndReason::ClientGone).await;
    a.send(&message("b@localhost/goes", "chat", 1)).await;
    a.send(&message("b@localhost/goes", "normal", 2)).await;
    nodes[0].view.lag(false);
    stays.until("id='n1'", 1).await;
    // It is in the store since it was sent: whoever is there gets it.
    stays.until("id='n2'", 1).await;
    // What is sent while that one is not done with waits behind it, and is kept like it.
    keep::brought(&nodes[0].context, &a.session.jid, LONG).await;
    a.send(&message("b@localhost/goes", "normal", 3)).await;
    a.until("service-unavailable", 1).await;
    assert_eq!((stays.ids(), a.ids()), (vec![1, 2], vec![3]));
}

#[actix_rt::test]
async fn a_message_to_an_account_reaches_all_that_are_most_available() {
    let (_log, nodes) = cluster(3).await;
    let a = nodes[0].bind("a", "r").await;
    let mut receivers = Vec::new();
    for node in &nodes {
        let client = node.bind("b", &format!("on-{}", node.context.node_id)).await;
        client.send("<presence />").await;
        receivers.push(client);
    }
    a.send(&message("b@localhost", "chat", 1)).await;
    for client in &mut receivers {
        client.until("id='n1'", 1).await;
    }
}

/// Of a message for several sessions of another node no copy is repeated when one of them ends, and where all end its
/// sender hears of it once.
#[actix_rt::test]
async fn copies_are_not_repeated_elsewhere_and_not_lost() {
    const COUNT: usize = 30;
    for all in [false, true] {
        let (_log, nodes) = cluster(2).await;
        let mut a = nodes[0].bind("a", "r").await;
        let small = 1_000;
        let slow = nodes[1].bind_with("b", "slow", small).await;
        let mut other = nodes[1].bind_with("b", "other", if all { small } else { 1_000_000 }).await;
        for client in [&slow, &other] {
            let (jid, index) = (client.session.jid.clone(), client.session.index);
            nodes[1].context.routes.set_priority(&jid, index, Some(0)).await.unwrap();
        }
        let context = &nodes[0].context;
        let receivers = Receiver::of_account(context, &slow.session.jid.to_bare());
        for number in 0..COUNT {
            let xml = message("b@localhost", "normal", number).replacen(' ', " xmlns='jabber:client' ", 1);
            // One that does not wait for who is not there.
            let xml = xml.replace("</body>", "</body><no-store xmlns='urn:xmpp:hints'/>");
            let stanza = Stanza::received(xml.parse().unwrap(), &a.session.jid).unwrap();
            receivers::deliver(context, &stanza, &receivers, 0);
        }
        while nodes[1].context.sessions.len() > usize::from(!all) {
            tokio::task::yield_now().await;
        }
        if all {
            // What fitted was written; of the rest each comes back, and nothing else before what is sent behind.
            for number in COUNT / 2..COUNT {
                a.until(&format!("id='n{number}'"), 1).await;
            }
            for client in [&slow, &other] {
                nodes[1].context.remote.settled(&client.session.jid, LONG).await;
            }
            let behind = nodes[1].bind("c", "r").await;
            behind.send("<message to='a@localhost/r' id='end'/>").await;
            a.until("id='end'", 1).await;
            let mut ids = a.ids();
            ids.sort_unstable();
            assert!(ids.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{ids:?}");
            assert_eq!(a.read.matches("<service-unavailable ").count(), ids.len(), "{}", a.read);
        } else {
            other.until(&format!("id='n{}'", COUNT - 1), 1).await;
            nodes[1].context.remote.settled(&slow.session.jid, LONG).await;
            a.send(&message("b@localhost/other", "normal", COUNT)).await;
            other.until(&format!("id='n{COUNT}'"), 1).await;
            assert_eq!(other.ids(), (0..=COUNT).collect::<Vec<_>>());
        }
        assert_eq!(nodes[1].tasks.count(TaskKind::DeliverCopy), 2 * COUNT);
    }
}

/// Promise 1.
#[actix_rt::test]
async fn a_bind_on_another_node_ends_the_first_session_before_it_is_answered() {
    let (_log, nodes) = cluster(2).await;
    let mut old = nodes[1].bind("b", "r").await;
    let new = nodes[0].bind("b", "r").await;
    assert!(!old.outbox.is_open(), "answered before the old session has ended");
    assert_eq!(nodes[1].context.sessions.len(), 0);
    old.until("<conflict ", 1).await;
    assert!(new.outbox.is_open());
    assert_eq!(nodes[1].tasks.count(TaskKind::ReplaceSession), 1);
}

#[actix_rt::test]
async fn a_bind_waits_for_the_old_owners_node_until_it_is_down() {
    let (log, mut nodes) = cluster(2).await;
    let _old = nodes[1].bind("b", "r").await;
    nodes[1].stop();
    let bind = nodes[0].bind("b", "r");
    tokio::pin!(bind);
    let early = tokio::time::timeout(Duration::from_millis(300), &mut bind).await;
    assert!(early.is_err(), "answered while the old session may still act");
    log.append(None, NodeDown { node: nodes[1].context.node_id, incarnation: Incarnation(1) });
    nodes[0].context.links.peer_down(nodes[1].context.node_id);
    let new = tokio::time::timeout(LONG, bind).await.unwrap();
    assert!(new.outbox.is_open());
}

/// P7, P10: receivers are grouped by node, and wherever they are each gets it.
#[actix_rt::test]
async fn presence_to_many_is_one_task_a_node() {
    let (_log, nodes) = cluster(3).await;
    let mut clients = Vec::new();
    for (node, user, resource) in [(1, "b", "1"), (1, "b", "2"), (1, "c", "1"), (2, "c", "2"), (0, "d", "1")]
    {
        let client = nodes[node].bind(user, resource).await;
        let jid = client.session.jid.clone();
        nodes[node].context.routes.set_priority(&jid, client.session.index, Some(0)).await.unwrap();
        clients.push(client);
    }
    let xml = "<presence xmlns='jabber:client' from='a@localhost/r'><status>hi</status></presence>";
    let stanza = Stanza::parse(xml.parse().unwrap()).unwrap();
    let accounts = ["b", "c", "d"].map(|user| BareJid::new(&format!("{user}@localhost")).unwrap());
    fan_out::to_accounts(&nodes[0].context, stanza, &accounts, None);
    for client in &mut clients {
        client.until("<status>hi</status>", 1).await;
        let to = format!("<presence to='{}' from='a@localhost/r'>", client.session.jid.to_bare());
        assert!(client.read.contains(&to), "{}", client.read);
    }
    let tasks = nodes.iter().map(|node| node.tasks.count(TaskKind::FanOutPresence));
    assert_eq!(tasks.collect::<Vec<_>>(), [0, 1, 1]);
}

#[actix_rt::test]
async fn roster_pushes_reach_interested_sessions_everywhere() {
    let (_log, nodes) = cluster(2).await;
    let mut clients = [nodes[0].bind("b", "1").await, nodes[1].bind("b", "2").await];
    for client in &clients {
        client.perform(Effect::Session(SessionChange::Interested { version: 0 })).await;
    }
    let push = "<iq xmlns='jabber:client' type='set' id='p'><query xmlns='jabber:iq:roster'/></iq>";
    let event = UserEvent::Roster(RosterChanged {
        version: 1,
        contact: BareJid::new("c@localhost").unwrap(),
        subscription: Subscription::To,
        pending: None,
        push: Some(Stanza::parse(push.parse().unwrap()).unwrap()),
    });
    account::notify(&nodes[0].context, &BareJid::new("b@localhost").unwrap(), &event);
    for client in &mut clients {
        client.until("jabber:iq:roster", 1).await;
        assert!(client.read.contains(&format!("to='{}'", client.session.jid)), "{}", client.read);
    }
    assert_eq!(nodes[1].tasks.count(TaskKind::PushRosterItem), 1);
}

/// Presence of one's other resources: a fan-out, probes and their answers across nodes. Then the node of one is
/// lost: its own word of farewell cannot come, so the other node says it, once.
#[actix_rt::test]
async fn resources_on_two_nodes_see_each_other_and_the_loss_of_one_once() {
    let (log, mut nodes) = cluster(2).await;
    let (mut here, mut there) = (nodes[0].bind("b", "here").await, nodes[1].bind("b", "there").await);
    here.send("<presence />").await;
    there.send("<presence />").await;
    here.until("from='b@localhost/there'", 1).await;
    there.until("from='b@localhost/here'", 1).await;
    assert_eq!(nodes[0].tasks.count(TaskKind::ProbeSessions), 1);
    assert_eq!(nodes[1].tasks.count(TaskKind::ShowPresence), 1);

    nodes[1].stop();
    let lost = nodes[1].context.node_id;
    log.append(None, NodeDown { node: lost, incarnation: Incarnation(1) });
    here.until("from='b@localhost/there' type='unavailable'", 1).await;
    // A second word of the same end changes nothing; what is sent after it comes after it.
    let again = Lost::new([there.session.jid.clone()], &nodes[0].context.seen_keys);
    here.session.tell_lost(Arc::new(again)).unwrap();
    here.send(&message("b@localhost/here", "normal", 1)).await;
    here.until("id='n1'", 1).await;
    let told = here.read.matches("from='b@localhost/there' type='unavailable'").count();
    assert_eq!(told, 1, "{}", here.read);
    assert!(here.read.rsplit("<presence ").next().unwrap().contains("unavailable"), "{}", here.read);
    assert_eq!(nodes[0].context.routes.locate_account(&here.session.jid.to_bare()).len(), 1);
}

#[actix_rt::test]
async fn who_asks_about_a_node_and_its_sessions_is_answered() {
    let (_log, nodes) = cluster(2).await;
    let mut b = nodes[1].bind("b", "r").await;
    let links = &nodes[0].context.links;
    let target = nodes[1].context.node_id;
    let ask = async |task| links.ask(target, task, LONG).await;
    let Ok(TaskReply::NodeStats(numbers)) = ask(NodeStats {}.into()).await else { panic!("no numbers") };
    assert_eq!((numbers.sessions, numbers.applied), (1, nodes[1].context.routes.applied()));
    let describe = DescribeSession { jid: b.session.jid.clone() };
    let Ok(TaskReply::DescribeSession(Some(info))) = ask(describe.into()).await else { panic!("no session") };
    assert_eq!((info.owner, info.priority), (b.session.index, None));
    let xml =
        Bytes::from_static(b"<message xmlns='jabber:client' from='localhost'><body>all</body></message>");
    assert_eq!(ask(BroadcastLocal { xml }.into()).await, Ok(TaskReply::BroadcastLocal(1)));
    b.until("<body>all</body>", 1).await;
    let xml =
        Bytes::from_static(b"<message xmlns='jabber:client' from='b.example'><body>ours</body></message>");
    assert_eq!(
        ask(BroadcastLocal { xml }.into()).await,
        Ok(TaskReply::BroadcastLocal(0)),
        "of another domain"
    );
    let refused = ask(ReadStore { query: Bytes::new() }.into()).await;
    assert!(matches!(refused, Err(LinkError::Refused(TaskRefusal::Failed(_)))), "{refused:?}");
    let (jid, by) = (b.session.jid.clone(), b.session.index);
    let stale = ReplaceSession { jid, owner: althing_cluster::routes::BindIndex(1), by };
    let Ok(TaskReply::ReplaceSession(SessionFound::NoSession { applied })) = ask(stale.into()).await else {
        panic!("an old owner was found");
    };
    assert_eq!(applied, nodes[1].context.routes.applied());
    assert!(b.outbox.is_open());
}

/// Promise 1: a node that was declared down is obeyed by nobody.
#[actix_rt::test]
async fn tasks_of_a_node_that_is_declared_down_are_refused() {
    let (log, nodes) = cluster(2).await;
    let ask = async || nodes[0].context.links.ask(nodes[1].context.node_id, NodeStats {}.into(), LONG).await;
    assert!(ask().await.is_ok());
    nodes[0].view.lag(true);
    log.append(None, NodeDown { node: nodes[0].context.node_id, incarnation: Incarnation(1) });
    assert_eq!(ask().await, Err(LinkError::Refused(TaskRefusal::StaleSender)));
}

/// The route was read before its node was declared down, and the stanza goes to the link that was dialed after it.
#[actix_rt::test]
async fn a_stanza_for_a_node_that_was_just_declared_down_comes_back() {
    let (log, mut nodes) = cluster(2).await;
    let mut a = nodes[0].bind("a", "r").await;
    let b = nodes[1].bind("b", "r").await.session.jid.clone();
    let context = Arc::clone(&nodes[0].context);
    let route = context.routes.locate(&b).unwrap();
    nodes[1].stop();
    log.append(None, NodeDown { node: route.node, incarnation: Incarnation(1) });
    let xml = message("b@localhost/r", "normal", 1).replacen(' ', " xmlns='jabber:client' ", 1);
    let stanza = Stanza::received(xml.parse().unwrap(), &a.session.jid).unwrap();
    let parcel = Parcel { stanza, tries: 0, copies: None, only: false, losses: context.lease.losses() };
    assert!(matches!(remote::post(&context, &b, &route, parcel), Posted::Taken));
    a.until("<service-unavailable ", 1).await;
}

/// Presence that a full link does not take waits in order; messages to that node are refused meanwhile.
#[actix_rt::test]
async fn presence_for_a_full_link_waits_until_its_node_is_down() {
    let (log, mut nodes) = cluster(2).await;
    let mut a = nodes[0].bind("a", "r").await;
    let _b = nodes[1].bind("b", "r").await;
    nodes[1].stop();
    let (context, target) = (Arc::clone(&nodes[0].context), nodes[1].context.node_id);
    let overflow = context.remote.overflow();
    let (account, from) = (BareJid::new("b@localhost").unwrap(), a.session.jid.clone());
    let mut told = 0;
    while !overflow.holds(target) {
        overflow.tell(
            &context,
            target,
            ProbeAccount { account: account.clone(), from: from.clone().into() }.into(),
        );
        told += 1;
        assert!(told < 100_000, "the link is not bounded");
    }
    a.send(&message("b@localhost/r", "normal", 1)).await;
    a.until("<resource-constraint ", 1).await;
    log.append(None, NodeDown { node: target, incarnation: Incarnation(1) });
    context.links.peer_down(target);
    while overflow.holds(target) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    a.send(&message("b@localhost/r", "normal", 2)).await;
    a.until("<service-unavailable ", 1).await;
}
