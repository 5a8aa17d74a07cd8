//! Presence while others act, and more of it than may wait for a client.

use althing_proto::jid::Jid;
use althing_proto::privacy::{BlockDelta, PrivacyChanged};
use althing_proto::roster::Subscription;

use super::*;
use crate::session::effect::{RosterChanged, SessionChange, UserEvent};

/// What a client sends.
fn from_client(xml: &str) -> Work {
    Work {
        elements: [xml.replacen(' ', " xmlns='jabber:client' ", 1).parse().unwrap()].into(),
        ..Work::default()
    }
}

fn presence(from: &str, bytes: usize) -> Stanza {
    let status = "x".repeat(bytes);
    let xml = format!("<presence xmlns='jabber:client' from='{from}'><status>{status}</status></presence>");
    Stanza::parse(xml.parse().unwrap()).unwrap()
}

/// The session becomes available with that presence, and tells nobody.
async fn shows(session: &SessionHandle, presence: Stanza) {
    let change = Effect::Session(SessionChange::Presence(presence));
    done(session, Work { effects: [change].into(), ..Work::default() }).await;
}

fn roster(version: u64, contact: &str, subscription: Subscription) -> UserEvent {
    let contact = BareJid::new(contact).unwrap();
    UserEvent::Roster(RosterChanged { version, contact, subscription, pending: None, push: None })
}

fn blocks(jid: &str) -> UserEvent {
    let blocks = BlockDelta::Blocked(vec![Jid::new(jid).unwrap()]);
    let (changed, list, default) = (true, 1, Some(1));
    let change = PrivacyChanged { version: 1, changed, list, default, edited: None, blocks, reload: false };
    UserEvent::Privacy(Arc::new(change))
}

/// A client that reads all the time; what it has read is given back when the box is closed.
fn reader(outbox: &Rc<Outbox>) -> tokio::task::JoinHandle<String> {
    let outbox = Rc::clone(outbox);
    actix_rt::spawn(async move {
        let (mut read, mut out) = (Vec::new(), Vec::new());
        while outbox.take(&mut out).await {
            // The socket is a little slower than the server.
            tokio::task::yield_now().await;
            outbox.written(out.len());
            read.append(&mut out);
        }
        String::from_utf8(read).unwrap()
    })
}

/// What it has read when its session has nothing more for it.
async fn all_read(
    session: &SessionHandle,
    outbox: &Outbox,
    reader: tokio::task::JoinHandle<String>,
) -> String {
    done(session, Work::default()).await;
    assert!(outbox.is_open(), "closed, though it reads");
    outbox.close(bytes::Bytes::from_static(b"|"));
    reader.await.unwrap()
}

/// The session is ended by somebody else while its own end of availability waits for the log: it is told, once.
#[actix_rt::test]
async fn an_end_that_waits_for_the_log_is_told_once() {
    for ended in [true, false] {
        let permits = Arc::new(Semaphore::new(2));
        let node = SlowRoutes::node(&permits);
        let (first, second) = (outbox(), outbox());
        let (leaving, staying) = (bind(&node, "1", &first).await, bind(&node, "2", &second).await);
        for session in [&staying, &leaving] {
            done(session, from_client("<presence />")).await;
        }
        done(&leaving, from_client("<presence to='b@localhost/2' />")).await;
        let leaves = from_client("<presence type='unavailable'><status>bye</status></presence>");
        let Ok(Progress::Waiting(committed, rest)) = leaving.advance(leaves).await else {
            panic!("the log is not waited for")
        };
        if ended {
            leaving.end(EndReason::Error(StreamCondition::Conflict.into())).await;
        }
        permits.add_permits(1);
        assert!(committed.await.is_empty());
        done(&leaving, rest).await;
        let written = written(&staying, &second).await;
        let gone = "from='b@localhost/1' type='unavailable'><status>bye</status>";
        assert_eq!(written.matches(gone).count(), 1, "ended: {ended}: {written}");
        assert_eq!(written.matches("type='unavailable'").count(), 1, "ended: {ended}: {written}");
    }
}

/// P6: who is blocked while the log takes the priority is not told.
#[actix_rt::test]
async fn p6_who_is_blocked_before_the_presence_is_told_does_not_get_it() {
    let permits = Arc::new(Semaphore::new(1));
    let node = SlowRoutes::node(&permits);
    let (mine, other) = (outbox(), outbox());
    let (alice, bob) = (bind(&node, "r", &mine).await, bind_as(&node, "bob@localhost/r", &other).await);
    done(&bob, from_client("<presence />")).await;
    alice.notify(roster(1, "bob@localhost", Subscription::From)).unwrap();
    let Ok(Progress::Waiting(committed, rest)) = alice.advance(from_client("<presence />")).await else {
        panic!("the log is not waited for")
    };
    alice.notify(blocks("bob@localhost")).unwrap();
    alice.advance(Work::default()).await.unwrap();
    permits.add_permits(1);
    assert!(committed.await.is_empty());
    done(&alice, rest).await;
    let written = written(&bob, &other).await;
    let last = written.rsplit("from='b@localhost/r'").next().unwrap();
    assert!(
        !written.contains("from='b@localhost/r'") || last.starts_with(" type='unavailable'"),
        "{written}"
    );
}

/// Who becomes a contact while the log takes the priority is asked (RFC 6121 §4.3.1).
#[actix_rt::test]
async fn who_is_gained_before_the_presence_is_told_is_asked() {
    let permits = Arc::new(Semaphore::new(1));
    let node = SlowRoutes::node(&permits);
    let (mine, other) = (outbox(), outbox());
    let (alice, bob) = (bind(&node, "r", &mine).await, bind_as(&node, "bob@localhost/r", &other).await);
    bob.notify(roster(1, "b@localhost", Subscription::From)).unwrap();
    done(&bob, from_client("<presence />")).await;
    let Ok(Progress::Waiting(committed, rest)) = alice.advance(from_client("<presence />")).await else {
        panic!("the log is not waited for")
    };
    alice.notify(roster(1, "bob@localhost", Subscription::Both)).unwrap();
    alice.advance(Work::default()).await.unwrap();
    permits.add_permits(1);
    assert!(committed.await.is_empty());
    done(&alice, rest).await;
    let (seen, told) = (written(&alice, &mine).await, written(&bob, &other).await);
    assert!(seen.contains("from='bob@localhost/r'"), "{seen}");
    assert!(told.contains("from='b@localhost/r'"), "{told}");
}

/// Many that have much to show are no reason to close one who reads: of this node, at a login.
#[actix_rt::test]
async fn a_login_gets_more_presence_than_may_wait() {
    const OTHERS: usize = 80;
    let node = Arc::new(NodeContext::for_tests());
    let (silent, own) = (outbox(), outbox());
    for number in 0..OTHERS {
        let session = bind(&node, &format!("n{number}"), &silent).await;
        let jid = session.jid.to_string();
        shows(&session, presence(&jid, 15_000)).await;
    }
    let session = bind(&node, "r", &own).await;
    let reader = reader(&own);
    done(&session, from_client("<presence />")).await;
    let read = all_read(&session, &own, reader).await;
    assert_eq!(read.matches("<status>").count(), OTHERS);
}

/// The same where the answers come from other nodes, and where requests wait for the client.
#[actix_rt::test]
async fn what_a_session_has_asked_for_may_be_more_than_may_wait() {
    let node = Arc::new(NodeContext::for_tests());
    let own = outbox();
    let session = bind(&node, "r", &own).await;
    let reader = reader(&own);
    session.deliver(message_of(900_000), Share::Alone).unwrap();
    for _ in 0..12 {
        let batch = (0..16).map(|number| presence(&format!("c@localhost/{number}"), 15_000));
        session.show(batch.collect()).unwrap();
    }
    let requests = (0..200).map(|number| Effect::Deliver(presence(&format!("d{number}@localhost"), 9_000)));
    done(&session, Work { effects: requests.collect(), ..Work::default() }).await;
    let read = all_read(&session, &own, reader).await;
    assert_eq!(read.matches("<status>").count(), 12 * 16 + 200);
}

/// The bound of what a session has asked for, and its end in the middle of it.
#[actix_rt::test]
async fn one_who_does_not_read_what_he_asked_for_ends() {
    let node = Arc::new(NodeContext::for_tests());
    let own = outbox();
    let session = bind(&node, "r", &own).await;
    let batch = || (0..32).map(|_| presence("c@localhost/r", 15_000)).collect::<Vec<_>>();
    let mut taken = 0;
    while session.show(batch()).is_ok() {
        taken += 1;
        assert!(taken < 20, "not bounded");
    }
    assert!(taken >= 8, "{taken}");
    tokio::task::yield_now().await;
    assert!(own.is_open() && session.pressure().is_congested());
    session.end(EndReason::Error(StreamCondition::Conflict.into())).await;
    assert!(!own.is_open());
    assert_eq!(node.sessions.len(), 0);
}

#[actix_rt::test]
async fn a_broadcast_presence_has_a_bound() {
    let node = Arc::new(NodeContext::for_tests());
    let own = outbox();
    let session = bind(&node, "r", &own).await;
    let of = |length: usize| format!("<presence ><status>{}</status></presence>", "x".repeat(length));
    done(&session, from_client(&of(16_000))).await;
    done(&session, from_client(&of(17_000))).await;
    let written = written(&session, &own).await;
    assert!(written.contains("<policy-violation "), "{}", &written[written.len() - 1_000..]);
    assert_eq!(
        session
            .shown()
            .get()
            .as_ref()
            .unwrap()
            .answer(&Jid::new("b@localhost/s").unwrap())
            .unwrap()
            .to_bytes()
            .len()
            / 1_000,
        16
    );
}

/// Serialized once for all who ask, whatever happens to the account meanwhile.
#[actix_rt::test]
async fn what_a_session_shows_stays_prepared() {
    let node = Arc::new(NodeContext::for_tests());
    let session = bind(&node, "r", &outbox()).await;
    done(&session, from_client("<presence />")).await;
    let friend = Jid::new("friend@localhost/x").unwrap();
    let answers = || session.shown().get().as_ref().unwrap().answer(&friend).is_some();
    let is_prepared = || session.shown().get().as_ref().unwrap().is_prepared();
    session.notify(roster(1, "friend@localhost", Subscription::From)).unwrap();
    session.advance(Work::default()).await.unwrap();
    assert!(!is_prepared() && answers() && is_prepared());
    session.notify(UserEvent::Probe { from: friend.clone() }).unwrap();
    session.notify(roster(2, "other@localhost", Subscription::From)).unwrap();
    session.notify(roster(3, "friend@localhost", Subscription::None)).unwrap();
    session.advance(Work::default()).await.unwrap();
    assert!(is_prepared() && !answers());
}

/// A displaced session that takes long to end says nothing of its end to contacts who know its successor.
#[actix_rt::test]
async fn a_displaced_session_that_is_slow_does_not_have_the_last_word() {
    let (permits, unbinds) = (Arc::new(Semaphore::new(100)), Arc::new(Semaphore::new(0)));
    let node = SlowRoutes::node_with(&permits, &unbinds);
    let (watching, first, second) = (outbox(), outbox(), outbox());
    let watcher = bind(&node, "watcher", &watching).await;
    done(&watcher, from_client("<presence />")).await;
    let old = bind(&node, "r", &first).await;
    done(&old, from_client("<presence />")).await;
    let new = bind(&node, "r", &second).await;
    assert!(!first.is_open() && second.is_open() && old.index != new.index);
    done(&new, from_client("<presence />")).await;
    unbinds.add_permits(1);
    while node.sessions.get(old.index).is_some() {
        tokio::task::yield_now().await;
    }
    let written = written(&watcher, &watching).await;
    assert_eq!(written.matches("from='b@localhost/r'/>").count(), 2, "{written}");
    assert!(!written.contains("type='unavailable'"), "{written}");
}

/// The word of an end that is late, behind the presence of whoever has the address now, is not the last one.
#[actix_rt::test]
async fn a_late_farewell_is_followed_by_what_the_successor_shows() {
    let (permits, unbinds) = (Arc::new(Semaphore::new(100)), Arc::new(Semaphore::new(0)));
    let node = SlowRoutes::node_with(&permits, &unbinds);
    let (watching, first, second) = (outbox(), outbox(), outbox());
    let watcher = bind(&node, "watcher", &watching).await;
    done(&watcher, from_client("<presence />")).await;
    let old = bind(&node, "r", &first).await;
    done(&old, from_client("<presence />")).await;
    let ending = Arc::clone(&old);
    let ended = actix_rt::spawn(async move { ending.end(EndReason::ClientGone).await });
    while node.routes.locate(&old.jid).is_some() {
        tokio::task::yield_now().await;
    }
    let new = bind(&node, "r", &second).await;
    done(&new, from_client("<presence />")).await;
    unbinds.add_permits(1);
    ended.await.unwrap();
    let read = written(&watcher, &watching).await;
    let (before, after) = read.split_once("type='unavailable'").unwrap();
    assert_eq!(
        before.matches("from='b@localhost/r'").count(),
        3,
        "two that came, and one that leaves: {read}"
    );
    assert!(after.contains("from='b@localhost/r'"), "{read}");
    let read = written(&new, &second).await;
    assert!(!read.contains("type='unavailable'"), "nobody is told of his own end: {read}");
}
