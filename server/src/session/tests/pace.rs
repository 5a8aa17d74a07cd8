//! Who is slowed down by a client that does not read, and who is not.

use std::time::Instant;

use althing_proto::jid::Jid;
use althing_proto::privacy::{BlockDelta, PrivacyChanged};

use super::*;
use crate::session::effect::UserEvent;
use crate::session::pressure::BRAKE;

fn message(from: &str, to: &str) -> Stanza {
    let xml = format!("<message xmlns='jabber:client' from='{from}' to='{to}' type='chat'/>");
    Stanza::parse(xml.parse().unwrap()).unwrap()
}

/// What a client sends.
fn from_client(xml: &str) -> Work {
    Work { elements: [xml.parse().unwrap()].into(), ..Work::default() }
}

/// Whoever writes to somebody without reading the answers holds up nobody but himself.
#[actix_rt::test]
async fn answers_to_one_who_does_not_read_stop_nobody() {
    let node = Arc::new(NodeContext::for_tests());
    let (deaf, own) = (outbox(), outbox());
    let mallory = bind_as(&node, "m@localhost/x", &deaf).await;
    let bob = bind(&node, "r", &own).await;
    let block = PrivacyChanged {
        version: 1,
        changed: true,
        list: 1,
        default: Some(1),
        edited: None,
        blocks: BlockDelta::Blocked(vec![Jid::new("m@localhost").unwrap()]),
        reload: false,
    };
    bob.notify(UserEvent::Privacy(Arc::new(block))).unwrap();
    mallory.pressure().set_congested(true);
    let begun = Instant::now();
    for _ in 0..10 {
        bob.deliver(message("m@localhost/x", "b@localhost/r"), Share::Alone).unwrap();
    }
    bob.deliver(message("c@localhost/x", "b@localhost/r"), Share::Alone).unwrap();
    let written = written(&bob, &own).await;
    assert!(written.contains("from='c@localhost/x'") && !written.contains("m@localhost"), "{written}");
    assert!(begun.elapsed() < BRAKE, "the mailbox stood still for {:?}", begun.elapsed());
    let answers = self::written(&mallory, &deaf).await;
    assert_eq!(answers.matches("<service-unavailable ").count(), 10, "{answers}");
}

/// Of several that a message goes to one may be slow: its client goes on at the pace of that one.
#[actix_rt::test]
async fn a_client_keeps_to_the_pace_of_the_slowest_of_several_receivers() {
    let node = Arc::new(NodeContext::for_tests());
    let outboxes = [outbox(), outbox(), outbox()];
    let sender = bind_as(&node, "a@localhost/x", &outboxes[0]).await;
    let fast = bind(&node, "fast", &outboxes[1]).await;
    let slow = bind(&node, "slow", &outboxes[2]).await;
    for session in [&fast, &slow] {
        node.routes.set_priority(&session.jid, session.index, Some(0)).await.unwrap();
    }
    let message = "<message xmlns='jabber:client' to='b@localhost' type='chat'/>";
    let progress = sender.advance(from_client(message)).await.unwrap();
    assert!(matches!(progress, Progress::Done), "both read");
    slow.pressure().set_congested(true);
    let progress = sender.advance(from_client(message)).await.unwrap();
    let Progress::Waiting(pause, _) = progress else { panic!("the slow one is not waited for") };
    slow.pressure().set_congested(false);
    assert!(pause.await.is_empty());
    for (session, outbox) in [(&fast, &outboxes[1]), (&slow, &outboxes[2])] {
        let written = written(session, outbox).await;
        assert_eq!(written.matches("<message ").count(), 2, "{written}");
    }
}
