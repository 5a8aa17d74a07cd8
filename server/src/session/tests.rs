//! Races between sessions: two binds of one address, deliveries to a session that ends.

mod live;
mod offline;
mod pace;
mod presence;
mod receipts;
mod records;
mod resumption;

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use tokio::sync::Semaphore;

use althing_cluster::node_id::{Incarnation, NodeId};
use althing_cluster::routes::{
    BindIndex, Bound, LocalRoutes, NodeState, Route, RouteError, RouteTable, Routes,
};
use althing_proto::jid::{BareJid, FullJid};
use althing_proto::stanza::Stanza;
use althing_proto::stream::Framing;
use althing_proto::stream::error::StreamCondition;

use super::SessionHandle;
use super::copies::Share;
use super::effect::Effect;
use super::messages::{EndReason, Progress, Work};
use super::outbox::Outbox;
use super::pressure::Pressure;
use crate::delivery::fan_out;
use crate::delivery::receivers::{self, Delivered, Receiver};
use crate::delivery::remote::pending::Behind;
use crate::metrics::Waiting;
use crate::node::NodeContext;
use crate::stream::login;

async fn bind(node: &Arc<NodeContext>, resource: &str, outbox: &Rc<Outbox>) -> Arc<SessionHandle> {
    bind_as(node, &format!("b@localhost/{resource}"), outbox).await
}

async fn bind_as(node: &Arc<NodeContext>, jid: &str, outbox: &Rc<Outbox>) -> Arc<SessionHandle> {
    let jid = FullJid::new(jid).unwrap();
    let (user, resource) = (jid.to_bare(), jid.resource().to_owned());
    node.has_account(&user).await;
    login::bind(node, &user, &resource, outbox, None).await.unwrap()
}

fn outbox() -> Rc<Outbox> {
    Rc::new(Outbox::new(1_000_000, Arc::new(Pressure::new(1_000_000)), Framing::Tcp, Waiting::for_tests()))
}

/// What the client would have got, once the mailbox is empty and all that was spawned has run.
async fn written(session: &SessionHandle, outbox: &Outbox) -> String {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    session.advance(Work::default()).await.ok();
    outbox.close(bytes::Bytes::from_static(b"|"));
    let mut out = Vec::new();
    outbox.take(&mut out).await;
    String::from_utf8(out).unwrap()
}

/// Does work to its end, as a connection does.
async fn done(session: &SessionHandle, mut work: Work) {
    while let Ok(Progress::Waiting(future, mut rest)) = session.advance(work).await {
        for effect in future.await.into_iter().rev() {
            rest.effects.push_front(effect);
        }
        work = rest;
    }
}

/// Commands take their time, as with a log that several nodes share: the first bind after it is in the table, an end
/// too, until there is a permit for it, and a priority before.
struct SlowRoutes(LocalRoutes, AtomicBool, Arc<Semaphore>, Arc<Semaphore>);

impl SlowRoutes {
    /// A node with them.
    fn node(priorities: &Arc<Semaphore>) -> Arc<NodeContext> {
        SlowRoutes::node_with(priorities, &Arc::new(Semaphore::new(1_000)))
    }

    fn node_with(priorities: &Arc<Semaphore>, unbinds: &Arc<Semaphore>) -> Arc<NodeContext> {
        let mut node = NodeContext::for_tests();
        let routes = LocalRoutes::new(NodeId::new(1), Incarnation(1));
        node.routes =
            Arc::new(SlowRoutes(routes, AtomicBool::new(false), Arc::clone(priorities), Arc::clone(unbinds)));
        Arc::new(node)
    }
}

#[async_trait]
impl Routes for SlowRoutes {
    async fn bind(&self, jid: &FullJid) -> Result<Bound, RouteError> {
        let bound = self.0.bind(jid).await;
        if !self.1.swap(true, Ordering::Relaxed) {
            for _ in 0..50 {
                tokio::task::yield_now().await;
            }
        }
        bound
    }

    async fn unbind(&self, jid: &FullJid, index: BindIndex) -> Result<(), RouteError> {
        let unbound = self.0.unbind(jid, index).await;
        self.3.acquire().await.unwrap().forget();
        unbound
    }

    async fn set_priority(&self, jid: &FullJid, index: BindIndex, to: Option<i8>) -> Result<(), RouteError> {
        self.2.acquire().await.unwrap().forget();
        self.0.set_priority(jid, index, to).await
    }

    async fn move_to(
        &self,
        jid: &FullJid,
        index: BindIndex,
        to: (NodeId, Incarnation),
    ) -> Result<BindIndex, RouteError> {
        self.0.move_to(jid, index, to).await
    }

    async fn barrier(&self) -> Result<(), RouteError> {
        self.0.barrier().await
    }

    fn locate(&self, jid: &FullJid) -> Option<Route> {
        self.0.locate(jid)
    }

    fn visit_account(&self, jid: &BareJid, see: &mut dyn FnMut(&FullJid, &Route)) {
        self.0.visit_account(jid, see);
    }

    fn applied(&self) -> u64 {
        self.0.applied()
    }

    async fn wait_for(&self, index: u64) -> bool {
        self.0.wait_for(index).await
    }

    fn first_up(&self) -> Option<NodeId> {
        self.0.first_up()
    }

    fn node_state(&self, node: NodeId) -> Option<NodeState> {
        self.0.node_state(node)
    }

    fn locate_account(&self, jid: &BareJid) -> Vec<Route> {
        self.0.locate_account(jid)
    }

    fn sessions(&self) -> usize {
        self.0.sessions()
    }

    fn table(&self) -> RouteTable {
        self.0.table()
    }
}

/// Promise 1: of two binds at the same time one session stays, the other is told of the conflict.
#[actix_rt::test]
async fn of_two_binds_at_the_same_time_one_ends_with_conflict() {
    let node = SlowRoutes::node(&Arc::new(Semaphore::new(0)));
    let (first, second) = (outbox(), outbox());
    let (_old, new) = tokio::join!(bind(&node, "r", &first), bind(&node, "r", &second));
    assert!(second.is_open());
    assert!(!first.is_open(), "two sessions own one address");
    assert_eq!(node.sessions.len(), 1);
    assert_eq!(node.routes.locate(&new.jid).unwrap().index, new.index);
    let mut out = Vec::new();
    first.take(&mut out).await;
    assert!(String::from_utf8(out).unwrap().contains("<conflict "));
}

#[actix_rt::test]
async fn a_session_that_is_bound_while_the_node_stops_ends() {
    let node = Arc::new(NodeContext::for_tests());
    node.stopping.send_replace(true);
    let outbox = outbox();
    bind(&node, "r", &outbox).await;
    assert!(!outbox.is_open());
    assert_eq!((node.sessions.len(), node.routes.sessions()), (0, 0));
}

/// A session that ends with stanzas in its mailbox hands none to those who got them anyway.
#[actix_rt::test]
async fn what_several_sessions_got_is_not_repeated_when_one_ends() {
    let node = Arc::new(NodeContext::for_tests());
    let (first, second) = (outbox(), outbox());
    let ending = bind(&node, "1", &first).await;
    let staying = bind(&node, "2", &second).await;
    for session in [&ending, &staying] {
        node.routes.set_priority(&session.jid, session.index, Some(0)).await.unwrap();
    }
    let stanza = |xml: &str| Stanza::parse(xml.parse().unwrap()).unwrap();
    let message = stanza("<message xmlns='jabber:client' from='a@localhost/x' to='b@localhost'/>");
    let presence = stanza("<presence xmlns='jabber:client' from='a@localhost/x'/>");
    let gone = stanza("<presence xmlns='jabber:client' from='a@localhost/x' type='unavailable'/>");
    let alone =
        stanza("<message xmlns='jabber:client' from='a@localhost/x' to='b@localhost/1' type='chat'/>");
    let account = BareJid::new("b@localhost").unwrap();
    let receivers = Receiver::of_account(&node, &account);
    tokio::join!(ending.end(EndReason::Error(StreamCondition::Conflict.into())), async {
        receivers::deliver(&node, &message, &receivers, 0);
        receivers::deliver(&node, &alone, &receivers[..1], 0);
        fan_out::to_accounts(&node, presence, std::slice::from_ref(&account), None);
        node.routes.unbind(&ending.jid, ending.index).await.unwrap();
        fan_out::to_accounts(&node, gone, std::slice::from_ref(&account), None);
    });
    let written = written(&staying, &second).await;
    assert_eq!(written.matches("<message to='b@localhost' ").count(), 1, "{written}");
    assert_eq!(written.matches("to='b@localhost/1'").count(), 1, "as to the bare JID: {written}");
    assert_eq!(written.matches("<presence ").count(), 2, "{written}");
    let last = written.rsplit("<presence ").next().unwrap();
    assert!(last.contains("unavailable"), "a ghost: {written}");
}

/// Where all of them end nobody has it, and its sender hears so, once.
#[actix_rt::test]
async fn what_several_sessions_got_comes_back_when_all_of_them_end() {
    let node = Arc::new(NodeContext::for_tests());
    let own = outbox();
    let sender = bind_as(&node, "a@localhost/x", &own).await;
    let small = || {
        let pressure = Arc::new(Pressure::new(1_000_000));
        Rc::new(Outbox::new(1_000, pressure, Framing::Tcp, Waiting::for_tests()))
    };
    let outboxes = [small(), small()];
    let (first, second) = (bind(&node, "1", &outboxes[0]).await, bind(&node, "2", &outboxes[1]).await);
    for session in [&first, &second] {
        node.routes.set_priority(&session.jid, session.index, Some(0)).await.unwrap();
    }
    let receivers = Receiver::of_account(&node, &first.jid.to_bare());
    let send = |number: usize| {
        let xml = format!(
            "<message xmlns='jabber:client' from='a@localhost/x' to='b@localhost' id='n{number}'>\
             <body>hello</body><no-store xmlns='urn:xmpp:hints'/></message>"
        );
        receivers::deliver(&node, &Stanza::parse(xml.parse().unwrap()).unwrap(), &receivers, 0)
    };
    // Neither reads, so both end with most of it in their mailboxes. Then they are about to end.
    for number in 0..30 {
        assert!(matches!(send(number), Delivered::Some));
    }
    let end = || EndReason::Error(StreamCondition::SystemShutdown.into());
    tokio::join!(first.end(end()), second.end(end()), async {
        for number in 30..33 {
            assert!(matches!(send(number), Delivered::Some));
        }
    });
    while node.remote.wait_behind(&second.jid, None, (&message_of(1), 0)) != Behind::Nothing {
        tokio::task::yield_now().await;
    }
    let written = written(&sender, &own).await;
    let errors: Vec<usize> =
        (0..33).map(|number| written.matches(&format!("id='n{number}'")).count()).collect();
    let fit = errors.iter().position(|count| *count > 0).unwrap();
    assert!((5..15).contains(&fit), "{written}");
    assert!(errors[fit..].iter().all(|count| *count == 1), "{errors:?}");
    assert_eq!(written.matches("<service-unavailable ").count(), 33 - fit, "{written}");
}

/// A session that ends while storage answers: what the answer leads to for others still happens.
#[actix_rt::test]
async fn effects_for_others_outlive_the_session() {
    let node = Arc::new(NodeContext::for_tests());
    let (first, second) = (outbox(), outbox());
    let ending = bind(&node, "1", &first).await;
    let staying = bind(&node, "2", &second).await;
    let route = |xml: &str| Effect::Route(Stanza::parse(xml.parse().unwrap()).unwrap());
    let effects = [
        route("<message xmlns='jabber:client' from='b@localhost/1' to='b@localhost/2'/>"),
        route("<presence xmlns='jabber:client' from='b@localhost/1' to='b@localhost/2'/>"),
        route("<iq xmlns='jabber:client' type='result' id='1' to='b@localhost/1'/>"),
    ];
    let work = Work { effects: effects.into(), ..Work::default() };
    let (_, progress) = tokio::join!(ending.end(EndReason::ClientGone), ending.advance(work));
    assert!(matches!(progress, Ok(Progress::Ended)));
    let written = written(&staying, &second).await;
    assert_eq!(written.matches("<message ").count(), 1, "{written}");
    assert_eq!(written.matches("<presence ").count(), 0, "after the farewell: {written}");
}

/// Mailboxes are bounded in stanzas and in bytes.
#[actix_rt::test]
async fn a_full_mailbox_refuses_stanzas() {
    let node = Arc::new(NodeContext::for_tests());
    let session = bind(&node, "r", &outbox()).await;
    let mut taken = 0;
    // Nothing else runs meanwhile: the mailbox is not emptied.
    while session.deliver(message_of(10), Share::Alone).is_ok() {
        taken += 1;
        assert!(taken < 100_000, "the mailbox is not bounded");
    }
    let session = bind(&node, "s", &outbox()).await;
    assert!(session.deliver(message_of(600_000), Share::Alone).is_ok());
    assert!(session.deliver(message_of(600_000), Share::Alone).is_err(), "more bytes than the bound");
}

/// What waits for a session that has just been closed is routed anew once its route is gone, not to itself
/// again and again: that would keep its arbiter busy for ever.
#[test]
fn a_slow_consumer_with_stanzas_behind_ends() {
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        actix_rt::System::new().block_on(async {
            let node = Arc::new(NodeContext::for_tests());
            let small = Rc::new(Outbox::new(
                1_000,
                Arc::new(Pressure::new(1_000_000)),
                Framing::Tcp,
                Waiting::for_tests(),
            ));
            let session = bind(&node, "r", &small).await;
            for _ in 0..20 {
                session.deliver(message_of(200), Share::Alone).unwrap();
            }
            session.end(EndReason::ClientGone).await;
            assert!(!small.is_open());
            assert_eq!((node.sessions.len(), node.routes.sessions()), (0, 0));
            done.send(()).unwrap();
        });
    });
    ended.recv_timeout(std::time::Duration::from_secs(20)).expect("the session goes in circles");
}

/// A message to `b@localhost/r` with a body of so many bytes.
fn message_of(bytes: usize) -> Stanza {
    let body = "x".repeat(bytes);
    let xml = format!(
        "<message xmlns='jabber:client' from='a@localhost/x' to='b@localhost/r' type='chat'><body>{body}</body></message>"
    );
    Stanza::parse(xml.parse().unwrap()).unwrap()
}
