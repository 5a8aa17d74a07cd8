//! Receipts of clients: what has none stays, is sent again, and ends the session in the end.

use std::time::Duration;

use tokio::time::timeout;

use super::offline::{turns, until_messages, work};
use super::*;

const ENABLE: &str =
    "<iq xmlns='jabber:client' type='set' id='e'><enable xmlns='urn:althing:receipts:0'/></iq>";
const PRESENCE: &str = "<presence xmlns='jabber:client'/>";

/// A node whose clients may give receipts, with the session of one who writes to b.
async fn node(repeat_s: u64, validity_s: u64, per_device: bool) -> (Arc<NodeContext>, Arc<SessionHandle>) {
    let node = Arc::new(NodeContext::for_tests());
    node.configure(|config| {
        config.receipts.enabled = true;
        config.receipts.legacy_crs = true;
        config.receipts.repeat_s = repeat_s;
        config.receipts.validity_s = validity_s;
        config.offline.per_device = per_device;
    });
    let sender = bind_as(&node, "a@localhost/x", &outbox()).await;
    (node, sender)
}

async fn come(node: &Arc<NodeContext>, resource: &str, own: &Rc<Outbox>) -> Arc<SessionHandle> {
    let session = bind(node, resource, own).await;
    done(&session, work(ENABLE)).await;
    done(&session, work(PRESENCE)).await;
    turns(50).await;
    session
}

async fn send(sender: &SessionHandle, id: &str) {
    let xml = format!(
        "<message xmlns='jabber:client' to='b@localhost' type='chat' id='{id}'><body>x</body></message>"
    );
    done(sender, work(&xml)).await;
}

/// The ids of the messages in a text, in order.
fn ids(text: &str) -> Vec<&str> {
    let after = text.split("<stanza-id ").skip(1);
    after.filter_map(|rest| rest.split(" id='").nth(1)?.split('\'').next()).collect()
}

/// Waits until so many messages are in the inbox.
async fn until_waiting(node: &NodeContext, count: u32) {
    let user = BareJid::new("b@localhost").unwrap();
    let there = async {
        while node.storage.inbox.summary(&user).await.unwrap().messages != count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(30), there).await.unwrap();
}

async fn received(session: &SessionHandle, id: &str) {
    let xml = format!(
        "<message xmlns='jabber:client'><received xmlns='urn:althing:receipts:0' id='{id}'/></message>"
    );
    done(session, work(&xml)).await;
}

/// R1, R2, R8: a message is in the store before it is sent, with its end, and until its receipt, in whatever form; what is
/// written to the socket alone has not arrived. A receipt that says nothing, or comes twice, does nothing.
#[actix_rt::test]
async fn r1_r2_r8_a_message_stays_until_its_receipt() {
    let (node, sender) = node(3_600, 3_600, false).await;
    let own = outbox();
    let session = come(&node, "r", &own).await;
    for id in ["1", "2", "3"] {
        send(&sender, id).await;
    }
    let text = until_messages(&own, 3).await;
    let ids = ids(&text);
    assert_eq!(ids.len(), 3, "{text}");
    until_waiting(&node, 3).await;
    let user = BareJid::new("b@localhost").unwrap();
    let entries = node.storage.inbox.list(&user, None, None, 9).await.unwrap();
    assert!(entries.iter().all(|entry| entry.expires > node.now()));
    for nothing in [
        "<message xmlns='jabber:client' type='crs'/>",
        "<message xmlns='jabber:client' type='crs' id=''/>",
        "<iq xmlns='jabber:client' type='crs'/>",
        "<iq xmlns='jabber:client' type='crs' id='of nobody'/>",
        "<message xmlns='jabber:client'><received xmlns='urn:althing:receipts:0'/></message>",
    ] {
        done(&session, work(nothing)).await;
    }
    node.waiting.settles.flush(&user).await;
    until_waiting(&node, 3).await;
    received(&session, ids[0]).await;
    until_waiting(&node, 2).await;
    received(&session, ids[0]).await;
    // By the id that its sender gave it, and by the server's.
    done(&session, work("<iq xmlns='jabber:client' type='crs' id='2'/>")).await;
    until_waiting(&node, 1).await;
    done(&session, work(&format!("<message xmlns='jabber:client' type='crs' id='{}'/>", ids[2]))).await;
    until_waiting(&node, 0).await;
    let told = written(&session, &own).await;
    assert!(!told.contains("error"), "nothing of that is answered: {told}");
}

/// R8: where the operator has not said so, an IQ of a type that RFC 6120 does not know is no receipt (§8.2.3).
#[actix_rt::test]
async fn r8_the_form_of_old_is_an_error_unless_it_is_asked_for() {
    let (node, sender) = node(3_600, 3_600, false).await;
    node.configure(|config| config.receipts.legacy_crs = false);
    let own = outbox();
    let session = come(&node, "r", &own).await;
    send(&sender, "1").await;
    assert!(until_messages(&own, 1).await.contains(" id='1'"));
    done(&session, work("<iq xmlns='jabber:client' type='crs' id='1'/>")).await;
    let told = written(&session, &own).await;
    assert!(told.contains("<bad-request "), "{told}");
    until_waiting(&node, 1).await;
}

/// R3, R6: what has no receipt is sent again, under the same ids and in the order in which it was made.
#[actix_rt::test]
async fn r3_r6_what_has_no_receipt_comes_again() {
    let (node, sender) = node(1, 3_600, false).await;
    let own = outbox();
    let session = come(&node, "r", &own).await;
    send(&sender, "1").await;
    send(&sender, "2").await;
    let mut text = until_messages(&own, 2).await;
    let first: Vec<String> = ids(&text).into_iter().map(str::to_owned).collect();
    assert!(first.len() == 2 && text.find(" id='1'") < text.find(" id='2'"), "{text}");
    while !first.iter().all(|id| text.matches(id).count() > 1) {
        let more = until_messages(&own, 1).await;
        assert!(!more.is_empty(), "it comes again: {text}");
        text += &more;
    }
    assert!(ids(&text).iter().all(|id| first.iter().any(|known| known == id)), "under the same ids: {text}");
    for id in &first {
        received(&session, id).await;
    }
    until_waiting(&node, 0).await;
}

/// R4: who is there and owes a receipt for too long is disconnected; what nobody has acknowledged waits for the next.
#[actix_rt::test]
async fn r4_a_receipt_that_is_too_late_ends_the_session_and_the_message_waits() {
    let (node, sender) = node(3_600, 1, false).await;
    let own = outbox();
    let _session = come(&node, "r", &own).await;
    send(&sender, "1").await;
    let (mut all, mut out) = (String::new(), Vec::new());
    let ends = async {
        while own.take(&mut out).await {
            own.written(out.len());
            all += &String::from_utf8(std::mem::take(&mut out)).unwrap();
        }
    };
    timeout(Duration::from_secs(30), ends).await.unwrap();
    assert!(all.contains(" id='1'") && all.contains("<connection-timeout "), "{all}");
    until_waiting(&node, 1).await;
    let own = outbox();
    let next = bind(&node, "next", &own).await;
    done(&next, work(PRESENCE)).await;
    let again = until_messages(&own, 1).await;
    assert_eq!(ids(&again), ids(&all));
    until_waiting(&node, 0).await;
}

/// R5, R9: what one device has acknowledged is still pending for the other.
#[actix_rt::test]
async fn r5_r9_each_device_gives_its_own_receipt() {
    let (node, sender) = node(3_600, 3_600, true).await;
    let (phone, desk) = (outbox(), outbox());
    let at_phone = come(&node, "phone", &phone).await;
    let at_desk = come(&node, "desk", &desk).await;
    send(&sender, "1").await;
    let (text, other) = tokio::join!(until_messages(&phone, 1), until_messages(&desk, 1));
    let (mine, theirs) = (ids(&text), ids(&other));
    assert_eq!((mine.len(), &mine), (1, &theirs));
    until_waiting(&node, 1).await;
    received(&at_phone, mine[0]).await;
    let user = BareJid::new("b@localhost").unwrap();
    node.waiting.settles.flush(&user).await;
    let entries = node.storage.inbox.list(&user, None, None, 9).await.unwrap();
    assert_eq!(entries[0].devices.len(), 1, "the other has not");
    received(&at_desk, mine[0]).await;
    until_waiting(&node, 0).await;
}
