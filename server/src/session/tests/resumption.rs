//! What is under way in a session when its stream is resumed (XEP-0198 §5).

use std::sync::Arc;

use tokio::sync::Semaphore;

use althing_proto::stream::management::Count;

use super::{SlowRoutes, bind, done, outbox};
use crate::session::messages::Work;
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
