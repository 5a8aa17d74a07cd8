//! Messages for who is not there, while somebody comes and goes.

use std::time::Duration;

use althing_proto::jid::Jid;
use althing_proto::stanza_id::StanzaId;
use althing_proto::xml::Element;
use tokio::time::timeout;

use super::*;
use crate::storage::messages::{KeepFor, KeepInInbox, KeepMessage};
use crate::storage::{EmbeddedOptions, Storage};

/// How many messages are sent while a session comes.
const MESSAGES: usize = 4;

pub(super) fn work(xml: &str) -> Work {
    let element: Element = xml.parse().unwrap();
    Work { elements: [element].into(), ..Work::default() }
}

pub(super) async fn turns(count: usize) {
    for _ in 0..count {
        tokio::task::yield_now().await;
    }
}

/// What is written to a client until it has so many messages.
pub(super) async fn until_messages(outbox: &Outbox, count: usize) -> String {
    let (mut all, mut out) = (String::new(), Vec::new());
    let enough = async {
        while all.matches("<message ").count() < count {
            if !outbox.take(&mut out).await {
                return;
            }
            outbox.written(out.len());
            all += &String::from_utf8(std::mem::take(&mut out)).unwrap();
        }
    };
    let _ = timeout(Duration::from_secs(20), enough).await;
    all
}

/// What is written to a client until that is in it.
pub(super) async fn until_text(outbox: &Outbox, wanted: &str) -> String {
    let (mut all, mut out) = (String::new(), Vec::new());
    let there = async {
        while !all.contains(wanted) && outbox.take(&mut out).await {
            outbox.written(out.len());
            all += &String::from_utf8(std::mem::take(&mut out)).unwrap();
        }
    };
    timeout(Duration::from_secs(30), there).await.unwrap();
    all
}

/// S14, R19, R21: what is sent while a session comes gets there, once, whichever of the two is first; and what one
/// session has got no later one gets.
#[actix_rt::test]
async fn s14_r19_r21_what_is_sent_while_somebody_comes_gets_there_once() {
    const ROUNDS: usize = 300;
    let dir = tempfile::tempdir().unwrap();
    let mut node = NodeContext::for_tests();
    node.storage = Storage::open_embedded(dir.path(), EmbeddedOptions::default()).unwrap();
    let node = Arc::new(node);
    let sender = bind_as(&node, "a@localhost/x", &outbox()).await;
    for round in 0..ROUNDS {
        let own = outbox();
        let session = bind(&node, "r", &own).await;
        let sent = async {
            for number in 0..MESSAGES {
                turns((round * 7 + number * 3) % 13).await;
                let id = format!("{round}-{number}");
                let xml = format!(
                    "<message xmlns='jabber:client' to='b@localhost' type='chat' id='{id}'><body>x</body></message>"
                );
                done(&sender, work(&xml)).await;
            }
        };
        let comes = async {
            turns(round % 17).await;
            done(&session, work("<presence xmlns='jabber:client'/>")).await;
        };
        let (text, ..) = tokio::join!(until_messages(&own, MESSAGES), sent, comes);
        session.end(EndReason::ClientGone).await;
        for number in 0..MESSAGES {
            let id = format!(" id='{round}-{number}'");
            assert_eq!(text.matches(&id).count(), 1, "{id}: {text}");
        }
        let places: Vec<_> =
            (0..MESSAGES).map(|number| text.find(&format!(" id='{round}-{number}'"))).collect();
        assert!(places.is_sorted(), "an earlier message was overtaken: {text}");
        assert_eq!(text.matches("<message ").count(), MESSAGES, "{text}");
        let user = BareJid::new("b@localhost").unwrap();
        assert_eq!(node.storage.inbox.summary(&user).await.unwrap().messages, 0, "round {round}");
    }
}

/// R18, R21: what is for the very address of a session that has just come does not overtake what its sender wrote before,
/// and waits for nothing where nothing waits, or where the session does not show its presence.
#[actix_rt::test]
async fn r18_r21_nothing_for_a_session_overtakes_what_waits_for_its_account() {
    let node = Arc::new(NodeContext::for_tests());
    let sender = bind_as(&node, "a@localhost/x", &outbox()).await;
    node.has_account(&BareJid::new("b@localhost").unwrap()).await;
    let write = async |id: u32, to: &str| {
        let xml = format!(
            "<message xmlns='jabber:client' to='{to}' type='chat' id='{id}'><body>x</body></message>"
        );
        done(&sender, work(&xml)).await;
    };
    let order = |text: &str, ids: [u32; 3]| {
        let places = ids.map(|id| text.find(&format!(" id='{id}'")));
        assert!(places.is_sorted() && places.iter().all(Option::is_some), "{ids:?}: {text}");
    };
    for (first, presence) in [
        (10, Some("<presence xmlns='jabber:client'/>")),
        (20, Some("<presence xmlns='jabber:client'><priority>-1</priority></presence>")),
        (30, None),
    ] {
        // Those of this turn, where there is nobody; what comes next is for the session.
        write(first, "b@localhost").await;
        write(first + 1, "b@localhost").await;
        let own = outbox();
        let session = bind(&node, "r", &own).await;
        write(first + 2, "b@localhost/r").await;
        turns(50).await;
        let mut out = Vec::new();
        own.take_now(&mut out);
        assert!(!String::from_utf8(out).unwrap().contains("<message "), "it has overtaken {first}");
        if let Some(presence) = presence {
            done(&session, work(presence)).await;
        }
        let takes = first == 10;
        let text = until_messages(&own, if takes { 3 } else { 1 }).await;
        if takes {
            order(&text, [first, first + 1, first + 2]);
        } else {
            assert!(text.contains(&format!(" id='{}'", first + 2)), "{text}");
            // What waits does so still.
            done(&session, work("<presence xmlns='jabber:client'/>")).await;
            let text = until_messages(&own, 2).await;
            order(&text, [first, first + 1, first + 1]);
        }
        session.end(EndReason::ClientGone).await;
    }
    let own = outbox();
    let session = bind(&node, "r", &own).await;
    write(40, "b@localhost/r").await;
    assert!(written(&session, &own).await.contains(" id='40'"), "nothing waits");
}

/// R18, R19: an inbox that is full takes nothing, its sender hears so; what was kept stays for who comes.
#[actix_rt::test]
async fn r18_r19_who_writes_to_a_full_inbox_hears_so() {
    let node = Arc::new(NodeContext::for_tests());
    node.configure(|config| config.offline.messages = 2);
    node.has_account(&BareJid::new("b@localhost").unwrap()).await;
    let own = outbox();
    let sender = bind_as(&node, "a@localhost/x", &own).await;
    for (id, to) in [("1", "b"), ("2", "b"), ("3", "b"), ("4", "nobody")] {
        let xml = format!(
            "<message xmlns='jabber:client' to='{to}@localhost' type='chat' id='{id}'><body>x</body></message>"
        );
        done(&sender, work(&xml)).await;
        turns(20).await;
    }
    let told = written(&sender, &own).await;
    assert_eq!(told.matches("<message ").count(), 1, "{told}");
    assert!(told.contains("id='3'") && told.contains("<resource-constraint "), "{told}");
    let own = outbox();
    let session = bind(&node, "r", &own).await;
    done(&session, work("<presence xmlns='jabber:client'/>")).await;
    let text = until_messages(&own, 2).await;
    let places = ["id='1'", "id='2'"].map(|id| text.find(id));
    assert!(places.is_sorted() && places[0].is_some(), "{text}");
    assert!(text.contains("<delay ") && text.contains("<stanza-id "), "{text}");
}

/// R5, R23: where messages wait for each device, one that has fetched takes nothing from another, and gets nothing twice.
#[actix_rt::test]
async fn r5_r23_each_device_gets_what_waits() {
    let node = Arc::new(NodeContext::for_tests());
    node.configure(|config| config.offline.per_device = true);
    let sender = bind_as(&node, "a@localhost/x", &outbox()).await;
    let come = async |resource: &str, expected: usize| {
        let own = outbox();
        let session = bind(&node, resource, &own).await;
        done(&session, work("<presence xmlns='jabber:client'/>")).await;
        // Behind what the session has been told to look for.
        turns(20).await;
        session.advance(Work::default()).await.unwrap();
        turns(20).await;
        let mut out = Vec::new();
        own.take_now(&mut out);
        own.written(out.len());
        session.end(EndReason::ClientGone).await;
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.matches("<message ").count(), expected, "{resource}: {text}");
    };
    come("phone", 0).await;
    come("desk", 0).await;
    let xml = "<message xmlns='jabber:client' to='b@localhost' type='chat' id='1'><body>x</body></message>";
    done(&sender, work(xml)).await;
    turns(20).await;
    for (resource, expected) in [("phone", 1), ("phone", 0), ("desk", 1), ("desk", 0)] {
        come(resource, expected).await;
    }
    let user = BareJid::new("b@localhost").unwrap();
    assert_eq!(node.storage.inbox.summary(&user).await.unwrap().messages, 0);
}

/// R19: what waits may be more than a client is sent unacknowledged (XEP-0198): it gets the rest as it acknowledges.
#[actix_rt::test]
async fn r19_a_long_inbox_comes_as_fast_as_it_is_acknowledged() {
    const LONG: usize = 40;
    let node = Arc::new(NodeContext::for_tests());
    node.has_account(&BareJid::new("b@localhost").unwrap()).await;
    let sender = bind_as(&node, "a@localhost/x", &outbox()).await;
    for number in 0..LONG {
        let text = "x".repeat(60_000);
        let xml = format!(
            "<message xmlns='jabber:client' to='b@localhost' type='chat' id='{number}'><body>{text}</body></message>"
        );
        done(&sender, work(&xml)).await;
        turns(20).await;
    }
    let own = outbox();
    let session = bind(&node, "r", &own).await;
    done(&session, work("<enable xmlns='urn:xmpp:sm:3'/>")).await;
    done(&session, work("<presence xmlns='jabber:client'/>")).await;
    let (mut all, mut out, mut stanzas) = (String::new(), Vec::new(), 0);
    let read = async {
        while all.matches("<message ").count() < LONG && own.take(&mut out).await {
            own.written(out.len());
            let text = String::from_utf8(std::mem::take(&mut out)).unwrap();
            stanzas += text.matches("<message ").count() + text.matches("<presence ").count();
            done(&session, work(&format!("<a xmlns='urn:xmpp:sm:3' h='{stanzas}'/>"))).await;
            all += &text;
        }
    };
    timeout(Duration::from_secs(60), read).await.unwrap();
    let places: Vec<_> = (0..LONG).map(|number| all.find(&format!(" id='{number}'"))).collect();
    assert!(places.is_sorted() && places[0].is_some());
}

/// S14: what begins to wait while a page of what waits is still being handed out was not on that page: the session looks once
/// more when it is through.
#[actix_rt::test]
async fn s14_what_begins_to_wait_while_others_are_handed_out_comes_behind_them() {
    const WAIT: usize = 12;
    let node = Arc::new(NodeContext::for_tests());
    let user = BareJid::new("b@localhost").unwrap();
    node.has_account(&user).await;
    let message = |number: usize, size: usize| {
        let text = "x".repeat(size);
        let inbox = KeepInInbox {
            takers: Vec::new(),
            expires: node.now().after(Duration::from_secs(3_600)),
            quota: node.config().offline.quota(),
            each_device: false,
        };
        let peer = Jid::new("a@localhost/x").unwrap();
        let owner = KeepFor { owner: user.clone(), peer, outgoing: false, archive: None, inbox: Some(inbox) };
        KeepMessage {
            id: StanzaId::derived(b"test", &[&number.to_be_bytes()]),
            stamp: node.now(),
            xml: format!(
                "<message xmlns='jabber:client' from='a@localhost/x' to='b@localhost' type='chat' id='n{number}'>\
                 <body>{text}</body></message>"
            )
            .into(),
            owners: vec![owner],
            name: None,
        }
    };
    for number in 0..WAIT {
        node.storage.keep(message(number, 60_000)).await.unwrap();
    }
    let own = outbox();
    let session = bind(&node, "r", &own).await;
    done(&session, work("<presence xmlns='jabber:client'/>")).await;
    while !session.pressure().is_congested() {
        turns(1).await;
    }
    node.storage.keep(message(WAIT, 1)).await.unwrap();
    crate::delivery::keep::tell_those_there(&node, &user);
    // The word is before this in the mailbox; not all of the page is handed out.
    done(&session, Work::default()).await;
    assert!(session.pressure().is_congested());
    let text = until_messages(&own, WAIT + 1).await;
    let places: Vec<_> = (0..=WAIT).map(|number| text.find(&format!(" id='n{number}'"))).collect();
    assert!(places.is_sorted() && places[0].is_some(), "{places:?}");
}

/// R18, R19: what comes for a session without a connection that has no more room waits in the store, as much as may wait
/// there; who writes more hears so.
#[actix_rt::test]
async fn r18_r19_what_a_session_without_a_connection_has_no_room_for_is_bounded_as_an_inbox_is() {
    const WAIT: u32 = 12;
    const ROOM: u32 = 1_024;
    let node = Arc::new(NodeContext::for_tests());
    node.configure(|config| config.offline.messages = WAIT + ROOM + 4);
    let user = BareJid::new("b@localhost").unwrap();
    node.has_account(&user).await;
    let at_sender = outbox();
    let sender = bind_as(&node, "a@localhost/x", &at_sender).await;
    let send = async |number: u32| {
        let text = "x".repeat(if number < WAIT { 60_000 } else { 1 });
        let xml = format!(
            "<message xmlns='jabber:client' from='a@localhost/x' to='b@localhost' type='chat' id='{number}'>\
             <body>{text}</body></message>"
        );
        let stanza = Stanza::parse(xml.parse().unwrap()).unwrap();
        crate::delivery::drive(&node, vec![Effect::Route(stanza)]).await;
        turns(20).await;
    };
    for number in 0..WAIT {
        send(number).await;
    }
    let own = outbox();
    let session = bind(&node, "r", &own).await;
    done(&session, work("<enable xmlns='urn:xmpp:sm:3' resume='1'/>")).await;
    done(&session, work("<presence xmlns='jabber:client'/>")).await;
    turns(50).await;
    assert!(session.pressure().is_congested() && session.detach().await);
    for number in WAIT..WAIT + ROOM + 20 {
        send(number).await;
    }
    let refused = written(&sender, &at_sender).await.matches("<resource-constraint ").count();
    node.waiting.settles.flush(&user).await;
    let waits = node.storage.inbox.summary(&user).await.unwrap().messages;
    assert_eq!((waits, refused), (WAIT + ROOM + 4, 16));
    session.end(EndReason::ClientGone).await;
    while node.waiting.absent.holds(&user) {
        turns(1).await;
    }
    let own = outbox();
    let session = bind(&node, "s", &own).await;
    done(&session, work("<presence xmlns='jabber:client'/>")).await;
    let text = until_messages(&own, 1_040).await;
    let places: Vec<_> = (0..WAIT + ROOM + 4).map(|number| text.find(&format!(" id='{number}'"))).collect();
    assert!(places.is_sorted() && places[0].is_some(), "{:?}", places.iter().position(Option::is_none));
}

/// XEP-0013 §2.2: a client that has asked for what waits is sent none of it unasked, also where its stream goes on
/// elsewhere, and no other resource is while it is there; what comes live comes.
#[actix_rt::test]
async fn r17_who_fetches_is_sent_nothing_unasked_and_neither_is_another_resource() {
    let node = Arc::new(NodeContext::for_tests());
    node.has_account(&BareJid::new("b@localhost").unwrap()).await;
    let sender = bind_as(&node, "a@localhost/x", &outbox()).await;
    let send = async |id: &str| {
        let xml = format!(
            "<message xmlns='jabber:client' to='b@localhost' type='chat' id='{id}'><body>x</body></message>"
        );
        done(&sender, work(&xml)).await;
        turns(20).await;
    };
    send("kept").await;
    let (first, second) = (outbox(), outbox());
    let fetches = bind(&node, "fetches", &first).await;
    let asks = "<iq xmlns='jabber:client' type='get' id='i'><query xmlns='http://jabber.org/protocol/disco#info' \
                node='http://jabber.org/protocol/offline'/></iq>";
    done(&fetches, work(asks)).await;
    done(&fetches, work("<presence xmlns='jabber:client'/>")).await;
    let other = bind(&node, "other", &second).await;
    done(&other, work("<presence xmlns='jabber:client'/>")).await;
    turns(50).await;
    send("live").await;
    let (at_first, at_other) = (written(&fetches, &first).await, written(&other, &second).await);
    for text in [&at_first, &at_other] {
        assert!(text.contains(" id='live'") && !text.contains(" id='kept'"), "{text}");
    }
    let next = outbox();
    other.end(EndReason::ClientGone).await;
    fetches.end(EndReason::ClientGone).await;
    let later = bind(&node, "later", &next).await;
    done(&later, work("<presence xmlns='jabber:client'/>")).await;
    let text = until_messages(&next, 1).await;
    assert!(text.contains(" id='kept'"), "it has not gone: {text}");
}

/// R20: what is known of an account is in memory only while it has sessions. It is read again when one comes, and equal.
#[actix_rt::test]
async fn r20_an_account_is_forgotten_with_its_last_session_and_read_again() {
    let node = Arc::new(NodeContext::for_tests());
    let asks = "<iq xmlns='jabber:client' type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>";
    let blocks = "<iq xmlns='jabber:client' type='get' id='b'><blocklist xmlns='urn:xmpp:blocking'/></iq>";
    let first = outbox();
    let session = bind(&node, "r", &first).await;
    for (id, set) in [
        (
            "1",
            "<query xmlns='jabber:iq:roster'><item jid='c@localhost' name='C'><group>g</group></item></query>",
        ),
        ("2", "<query xmlns='jabber:iq:roster'><item jid='d@localhost'/></query>"),
        ("3", "<block xmlns='urn:xmpp:blocking'><item jid='e@localhost'/></block>"),
    ] {
        done(&session, work(&format!("<iq xmlns='jabber:client' type='set' id='{id}'>{set}</iq>"))).await;
        turns(20).await;
    }
    let ask = async |own: &Rc<Outbox>, session: &SessionHandle| {
        done(session, work(asks)).await;
        let roster = until_text(own, "id='r'").await;
        done(session, work(blocks)).await;
        let list = until_text(own, "id='b'").await;
        let after = |text: String, id: &str| text.split_once(id).unwrap().1.to_owned();
        (after(roster, "id='r'"), after(list, "id='b'"))
    };
    let before = ask(&first, &session).await;
    assert!(before.0.contains("c@localhost") && before.1.contains("e@localhost"), "{before:?}");
    session.end(EndReason::ClientGone).await;
    assert!(node.sessions.is_empty(), "nothing of it is left");
    let second = outbox();
    let session = bind(&node, "r", &second).await;
    assert_eq!(ask(&second, &session).await, before);
}

/// R18: the same for a session that has not shown its presence yet: what is for its very address waits in the store too, behind
/// what was there before, and nobody is refused.
#[actix_rt::test]
async fn r18_what_comes_for_a_session_that_is_away_before_its_presence_waits() {
    const MESSAGES: u32 = 1_050;
    let node = Arc::new(NodeContext::for_tests());
    node.configure(|config| config.offline.messages = 2 * MESSAGES);
    let user = BareJid::new("b@localhost").unwrap();
    node.has_account(&user).await;
    let at_sender = outbox();
    let sender = bind_as(&node, "a@localhost/x", &at_sender).await;
    let send = async |to: &str, number: u32| {
        let xml = format!(
            "<message xmlns='jabber:client' from='a@localhost/x' to='{to}' type='chat' id='{number}'>\
             <body>x</body></message>"
        );
        let stanza = Stanza::parse(xml.parse().unwrap()).unwrap();
        crate::delivery::drive(&node, vec![Effect::Route(stanza)]).await;
        turns(5).await;
    };
    send("b@localhost", 0).await;
    let own = outbox();
    let session = bind(&node, "r", &own).await;
    done(&session, work("<enable xmlns='urn:xmpp:sm:3' resume='1'/>")).await;
    assert!(session.detach().await);
    for number in 1..MESSAGES {
        send("b@localhost/r", number).await;
    }
    assert!(!written(&sender, &at_sender).await.contains("error"));
    session.end(EndReason::ClientGone).await;
    while node.waiting.absent.holds(&user) {
        turns(1).await;
    }
    let own = outbox();
    let session = bind(&node, "s", &own).await;
    done(&session, work("<presence xmlns='jabber:client'/>")).await;
    let text = until_messages(&own, MESSAGES as usize).await;
    let places: Vec<_> = (0..MESSAGES).map(|number| text.find(&format!(" id='{number}'"))).collect();
    assert!(places.is_sorted() && places[0].is_some(), "{:?}", places.iter().position(Option::is_none));
}
