//! Messages to who is online: in the store until they have arrived.

use althing_proto::stanza_id::StanzaId;

use super::*;
use crate::config::{Durability, HostMessages};
use crate::storage::messages::{ArchiveDefault, ArchivePreferences, ArchiveQuery};

fn message(number: usize) -> Work {
    let xml = format!(
        "<message xmlns='jabber:client' to='b@localhost' type='chat' id='n{number}'><body>x</body></message>"
    );
    Work { elements: [xml.parse().unwrap()].into(), ..Work::default() }
}

fn presence() -> Work {
    Work { elements: ["<presence xmlns='jabber:client'/>".parse().unwrap()].into(), ..Work::default() }
}

fn user(name: &str) -> BareJid {
    BareJid::new(&format!("{name}@localhost")).unwrap()
}

/// What the outbox has, not yet written.
async fn taken(session: &SessionHandle, outbox: &Outbox) -> String {
    for _ in 0..30 {
        tokio::task::yield_now().await;
    }
    session.advance(Work::default()).await.ok();
    let mut out = Vec::new();
    outbox.take_now(&mut out);
    String::from_utf8(out).unwrap()
}

async fn waiting(node: &NodeContext) -> u32 {
    node.storage.inbox.summary(&user("b")).await.unwrap().messages
}

async fn archived(node: &NodeContext, name: &str) -> Vec<StanzaId> {
    let query = ArchiveQuery { limit: 9, ..ArchiveQuery::default() };
    let page = node.storage.archive.page(&user(name), query).await.unwrap().unwrap();
    page.messages.into_iter().map(|message| message.id).collect()
}

/// R1, R2: it is stored first, and goes when it has arrived; the next session gets what has not, once, under the same id.
#[actix_rt::test]
async fn r1_r2_what_goes_to_who_is_online_is_kept_until_it_has_arrived() {
    let node = Arc::new(NodeContext::for_tests());
    let sender = bind_as(&node, "a@localhost/x", &outbox()).await;
    let own = outbox();
    let session = bind(&node, "r", &own).await;
    done(&session, presence()).await;
    taken(&session, &own).await;
    own.written(usize::MAX);
    for number in 0..2 {
        done(&sender, message(number)).await;
    }
    let text = taken(&session, &own).await;
    assert_eq!(text.matches("<message ").count(), 2, "{text}");
    assert_eq!(waiting(&node).await, 2);
    let ids = archived(&node, "b").await;
    assert_eq!(archived(&node, "a").await, ids, "one text, two owners");
    assert!(ids.len() == 2 && ids.iter().all(|id| text.contains(&id.to_string())), "{text}");

    // The first one is written, the second is not.
    own.written(text.find("<message to='b@localhost' from='a@localhost/x' id='n1'").unwrap());
    node.waiting.settles.flush(&user("b")).await;
    assert_eq!(waiting(&node).await, 1);
    session.end(EndReason::ClientGone).await;
    let own = outbox();
    let session = bind(&node, "s", &own).await;
    done(&session, presence()).await;
    let text = taken(&session, &own).await;
    assert_eq!(text.matches("<message ").count(), 1, "{text}");
    assert!(text.contains(&ids[1].to_string()) && text.contains("<delay "), "{text}");
    own.written(text.len());
    session.end(EndReason::ClientGone).await;
    assert_eq!(waiting(&node).await, 0);
}

/// With `messages.durability = "memory"` nothing is pending for who is online; archives are kept all the same.
#[actix_rt::test]
async fn in_memory_nothing_is_pending() {
    let node = Arc::new(NodeContext::for_tests());
    node.configure(|config| config.messages.durability = Durability::Memory);
    let sender = bind_as(&node, "a@localhost/x", &outbox()).await;
    let own = outbox();
    let session = bind(&node, "r", &own).await;
    done(&session, presence()).await;
    done(&sender, message(0)).await;
    let text = taken(&session, &own).await;
    assert_eq!((text.matches("<message ").count(), waiting(&node).await), (1, 0), "{text}");
    assert_eq!(archived(&node, "b").await.len(), 1);
    session.end(EndReason::ClientGone).await;
    done(&sender, message(1)).await;
    taken(&sender, &outbox()).await;
    assert_eq!((waiting(&node).await, archived(&node, "b").await.len()), (1, 2), "it waits for who is away");
}

/// Of two hosts one commits: there it is pending until it has arrived, on the other one it is not. Whom it is from does not
/// count for that.
#[actix_rt::test]
async fn what_is_pending_is_so_for_whose_host_commits() {
    let node = Arc::new(NodeContext::for_tests());
    node.configure(|config| {
        config.xmpp.domains.push("quick.localhost".to_owned());
        let quick = HostMessages { domain: "quick.localhost".to_owned(), durability: Durability::Memory };
        config.messages.hosts.push(quick);
    });
    let (safe, quick) = (outbox(), outbox());
    let session = bind(&node, "r", &safe).await;
    let other = bind_as(&node, "b@quick.localhost/r", &quick).await;
    for session in [&session, &other] {
        done(session, presence()).await;
    }
    taken(&session, &safe).await;
    taken(&other, &quick).await;
    for (from, to) in [(&session, "b@quick.localhost"), (&other, "b@localhost")] {
        let xml =
            format!("<message xmlns='jabber:client' to='{to}' type='chat' id='n'><body>x</body></message>");
        done(from, Work { elements: [xml.parse().unwrap()].into(), ..Work::default() }).await;
    }
    let (text, other_text) = (taken(&session, &safe).await, taken(&other, &quick).await);
    assert!(text.contains("id='n'") && other_text.contains("id='n'"), "{text}{other_text}");
    let pending = async |account: &str| {
        node.storage.inbox.summary(&BareJid::new(account).unwrap()).await.unwrap().messages
    };
    assert_eq!((pending("b@localhost").await, pending("b@quick.localhost").await), (1, 0));
    safe.written(usize::MAX);
    node.waiting.settles.flush(&user("b")).await;
    assert_eq!(pending("b@localhost").await, 0);
}

/// In the archive of its sender it is once, also where its receiver, who wants none, has not acknowledged it and it goes to
/// another session.
#[actix_rt::test]
async fn in_memory_what_goes_elsewhere_is_archived_once() {
    let node = Arc::new(NodeContext::for_tests());
    node.configure(|config| config.messages.durability = Durability::Memory);
    node.has_account(&user("b")).await;
    let never = ArchivePreferences { default: ArchiveDefault::Never, always: Vec::new(), never: Vec::new() };
    node.storage.archive.set_preferences(&user("b"), never).await.unwrap();
    let sender = bind_as(&node, "a@localhost/x", &outbox()).await;
    let (first, second) = (outbox(), outbox());
    let session = bind(&node, "r", &first).await;
    let enable = "<enable xmlns='urn:xmpp:sm:3'/>".parse().unwrap();
    done(&session, Work { elements: [enable].into(), ..Work::default() }).await;
    done(&session, presence()).await;
    taken(&session, &first).await;
    done(&sender, message(0)).await;
    let text = taken(&session, &first).await;
    assert!(text.contains("id='n0'") && !text.contains("<stanza-id "), "{text}");
    let other = bind(&node, "s", &second).await;
    done(&other, presence()).await;
    session.end(EndReason::ClientGone).await;
    let text = taken(&other, &second).await;
    assert!(text.contains("id='n0'") && !text.contains("<stanza-id "), "{text}");
    assert_eq!((archived(&node, "a").await.len(), archived(&node, "b").await.len()), (1, 0));
}

/// XEP-0313 §3.5: a client is told an id of its archive only if the message is there, also one that takes nothing of what waits
/// for its account; what the account sets meanwhile counts from then on.
#[actix_rt::test]
async fn who_takes_nothing_that_waits_knows_what_is_archived_all_the_same() {
    let node = Arc::new(NodeContext::for_tests());
    node.has_account(&user("b")).await;
    let never = ArchivePreferences { default: ArchiveDefault::Never, always: Vec::new(), never: Vec::new() };
    node.storage.archive.set_preferences(&user("b"), never).await.unwrap();
    let sender = bind_as(&node, "a@localhost/x", &outbox()).await;
    let own = outbox();
    let session = bind(&node, "r", &own).await;
    let shy = "<presence xmlns='jabber:client'><priority>-1</priority></presence>".parse().unwrap();
    done(&session, Work { elements: [shy].into(), ..Work::default() }).await;
    let send = async |number: usize| {
        let xml = format!(
            "<message xmlns='jabber:client' to='b@localhost/r' type='chat' id='n{number}'><body>x</body></message>"
        );
        done(&sender, Work { elements: [xml.parse().unwrap()].into(), ..Work::default() }).await;
        taken(&session, &own).await
    };
    let text = send(0).await;
    assert!(text.contains("id='n0'") && !text.contains("<stanza-id "), "{text}");
    let set =
        "<iq xmlns='jabber:client' type='set' id='s'><prefs xmlns='urn:xmpp:mam:2' default='always'/></iq>";
    done(&session, Work { elements: [set.parse().unwrap()].into(), ..Work::default() }).await;
    while !taken(&session, &own).await.contains("id='s'") {}
    let text = send(1).await;
    assert!(text.contains("id='n1'") && text.contains("<stanza-id "), "{text}");
    assert_eq!(archived(&node, "b").await.len(), 1);
}

/// A message that comes to a session by two ways is for its client once.
#[actix_rt::test]
async fn a_message_that_comes_twice_is_written_once() {
    let node = Arc::new(NodeContext::for_tests());
    let sender = bind_as(&node, "a@localhost/x", &outbox()).await;
    let own = outbox();
    let session = bind(&node, "r", &own).await;
    done(&session, presence()).await;
    done(&sender, message(0)).await;
    let text = taken(&session, &own).await;
    let id = archived(&node, "b").await[0];
    let again = format!(
        "<message xmlns='jabber:client' to='b@localhost' from='a@localhost/x' type='chat' id='n0'><body>x</body>\
         <stanza-id xmlns='urn:xmpp:sid:0' by='b@localhost' id='{id}'/></message>"
    );
    let again = Stanza::parse(again.parse().unwrap()).unwrap();
    session.deliver(again, Share::Alone).unwrap();
    assert_eq!(text.matches("<message ").count(), 1, "{text}");
    let more = taken(&session, &own).await;
    assert!(!more.contains("<message "), "{more}");
}
