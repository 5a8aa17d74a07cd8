//! What is under way in a session when its stream is resumed (XEP-0198 §5).

use std::sync::Arc;

use tokio::sync::Semaphore;

use althing_proto::stanza::Stanza;
use althing_proto::stanza_id::StanzaId;
use althing_proto::stream::management::Count;

use super::offline::{until_text, work};
use super::{SlowRoutes, bind, done, outbox};
use crate::node::NodeContext;
use crate::session::SessionHandle;
use crate::session::copies::Share;
use crate::session::messages::{EndReason, Work};
use crate::session::outbox::Outbox;
use crate::stream::resume::resume;

/// A stanza that waits for something is done by the old session, and told as handled: else the client would send it
/// again, and it would be done twice.
#[actix_rt::test]
async fn what_is_in_hand_at_a_move_counts_and_what_was_not_begun_does_not() {
    let priorities = Arc::new(Semaphore::new(0));
    let node = SlowRoutes::node(&priorities);
    let (old, new) = (outbox(), outbox());
    let session = bind(&node, "r", &old).await;
    let elements = ["<enable xmlns='urn:xmpp:sm:3' resume='1'/>", "<presence xmlns='jabber:client'/>"];
    let elements = elements.map(|xml| xml.parse().unwrap()).into();
    let working = done(&session, Work { elements, ..Work::default() });
    let mut working = Box::pin(working);
    let mut out = Vec::new();
    while !old.take_now(&mut out) {
        assert!(futures_util::poll!(&mut working).is_pending());
        tokio::task::yield_now().await;
    }
    let enabled = String::from_utf8(out).unwrap();
    let id = enabled.split_once(" id='").unwrap().1.split_once('\'').unwrap().0;
    let user = session.jid.to_bare();
    let moved = async {
        while old.is_open() {
            tokio::task::yield_now().await;
        }
        priorities.add_permits(1);
    };
    let (resumed, (), ()) = tokio::join!(resume(&node, &user, (id, Count(0)), &new, None), working, moved);
    let (again, handled) = resumed.unwrap();
    assert_eq!(handled, Count(1));
    assert_eq!(node.routes.locate(&again.jid).unwrap().priority, Some(0));
}

/// R3: others may bring once more what a client has got and acknowledged; the session that goes on for another one knows of the
/// last 256, as that one did.
#[actix_rt::test]
async fn r3_what_a_session_has_got_the_one_that_goes_on_gets_no_more() {
    const MANY: usize = 256;
    let node = Arc::new(NodeContext::for_tests());
    let (old, new) = (outbox(), outbox());
    let session = bind(&node, "r", &old).await;
    done(&session, work("<enable xmlns='urn:xmpp:sm:3' resume='1'/>")).await;
    done(&session, work("<presence xmlns='jabber:client'/>")).await;
    let deliver = |session: &SessionHandle, number: usize| {
        let id = StanzaId::derived(b"test", &[&number.to_be_bytes()]);
        let xml = format!(
            "<message xmlns='jabber:client' from='a@localhost/x' to='b@localhost' type='chat' id='n{number}'>\
             <body>x</body><stanza-id xmlns='urn:xmpp:sid:0' by='b@localhost' id='{id}'/></message>"
        );
        session.deliver(Stanza::parse(xml.parse().unwrap()).unwrap(), Share::Alone).unwrap();
    };
    (0..MANY).for_each(|number| deliver(&session, number));
    let (mut all, mut out, mut handled) = (String::new(), Vec::new(), 0);
    while all.matches("<message ").count() < MANY && old.take(&mut out).await {
        old.written(out.len());
        let text = String::from_utf8(std::mem::take(&mut out)).unwrap();
        handled += text.matches("<message ").count() + text.matches("<presence ").count();
        done(&session, work(&format!("<a xmlns='urn:xmpp:sm:3' h='{handled}'/>"))).await;
        all += &text;
    }
    let id = all.split_once(" id='").unwrap().1.split_once('\'').unwrap().0;
    let handled = Count(u32::try_from(handled).unwrap());
    let (again, _) = resume(&node, &session.jid.to_bare(), (id, handled), &new, None).await.unwrap();
    (0..=MANY).for_each(|number| deliver(&again, number));
    let text = until_text(&new, &format!(" id='n{MANY}'")).await;
    assert_eq!(text.matches("<message ").count(), 1, "{text}");
}

/// A session with a stream that the store knows, which has handled one stanza that is not noted yet.
async fn with_record(
    node: &Arc<NodeContext>,
    resource: &str,
    own: &std::rc::Rc<Outbox>,
) -> Arc<SessionHandle> {
    let session = bind(node, resource, own).await;
    done(&session, work("<enable xmlns='urn:xmpp:sm:3' resume='1'/>")).await;
    done(&session, work("<presence xmlns='jabber:client'/>")).await;
    assert_eq!(noted(node, &session).await, Some(Count(0)));
    session
}

async fn noted(node: &NodeContext, session: &SessionHandle) -> Option<Count> {
    node.storage.streams.get(&session.jid).await.unwrap().map(|record| record.handled)
}

/// Whoever waits for the end of a session is no client that has closed its stream: whose stream somebody else ends may come
/// back, and is told what was handled.
#[actix_rt::test]
async fn only_a_client_that_closes_its_stream_is_forgotten() {
    let node = Arc::new(NodeContext::for_tests());
    let own = [outbox(), outbox()];
    let session = with_record(&node, "r", &own[0]).await;
    session.end(EndReason::Known).await;
    assert_eq!(noted(&node, &session).await, Some(Count(1)));
    let session = with_record(&node, "s", &own[1]).await;
    session.end(EndReason::ClientGone).await;
    assert_eq!(noted(&node, &session).await, None);
}
