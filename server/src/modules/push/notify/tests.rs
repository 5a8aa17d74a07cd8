//! What a notification says, and what an answer does to its registration.

use super::*;
use crate::delivery::drive;
use crate::storage::RowBound;

const KEY: &str = "push.localhost\u{0}n";

fn message() -> Stanza {
    let xml = "<message xmlns='jabber:client' type='chat' from='bob@localhost/r' to='alice@localhost'><body>secret</body></message>";
    Stanza::parse(xml.parse().unwrap()).unwrap()
}

async fn registered(node: &NodeContext) -> bool {
    node.storage.private.get(&alice(), PUSH, KEY).await.unwrap().is_some()
}

fn alice() -> BareJid {
    BareJid::new("alice@localhost").unwrap()
}

async fn with_registration() -> (Arc<NodeContext>, Vec<u8>) {
    let node = Arc::new(NodeContext::for_tests());
    node.has_account(&alice()).await;
    let row = wire::encode(&Registration { resource: None, options: Vec::new() }).unwrap().to_vec();
    let bound = RowBound { rows: 9, bytes: 9_000 };
    node.storage.private.put_within(&alice(), PUSH, KEY, row.clone(), bound).await.unwrap();
    (node, row)
}

fn error(condition: StanzaCondition) -> Result<Stanza, NoAnswer> {
    let iq = "<iq xmlns='jabber:client' type='set' id='1' from='localhost' to='push.localhost'><x xmlns='y'/></iq>";
    let iq = Stanza::parse(iq.parse().unwrap()).unwrap();
    Err(NoAnswer::Error(iq.error(condition).unwrap()))
}

#[test]
fn a_notification_says_nothing_of_a_message_unless_it_is_to() {
    let message = message();
    let says = |sender, body| {
        let config = config::Push { sender, body, ..config::Push::default() };
        String::from(&summary(&config, Some(3), Some(&message)).to_element())
    };
    let plain = says(false, false);
    assert!(
        plain.contains("<value>3</value>") && !plain.contains("bob") && !plain.contains("secret"),
        "{plain}"
    );
    assert!(says(true, false).contains("bob@localhost/r") && !says(true, false).contains("secret"));
    assert!(says(false, true).contains("secret") && !says(false, true).contains("bob"));
}

#[tokio::test]
async fn an_error_disables_what_was_refused_and_nothing_else() {
    let (node, row) = with_registration().await;
    let answer = |outcome, row: &[u8]| answered(&node, alice(), KEY.to_owned(), row.to_vec(), outcome);
    drive(&node, answer(Err(NoAnswer::TimedOut), &row)).await;
    drive(&node, answer(error(StanzaCondition::ItemNotFound), b"an earlier registration")).await;
    assert!(registered(&node).await);
    drive(&node, answer(error(StanzaCondition::ItemNotFound), &row)).await;
    assert!(!registered(&node).await);
}

#[tokio::test]
async fn an_error_that_may_pass_disables_when_it_does_not() {
    let (node, row) = with_registration().await;
    let answer = |outcome| answered(&node, alice(), KEY.to_owned(), row.clone(), outcome);
    let ok = || Ok(message());
    for _ in 0..PASSING - 1 {
        drive(&node, answer(error(StanzaCondition::ServiceUnavailable))).await;
    }
    drive(&node, answer(ok())).await;
    for _ in 0..PASSING - 1 {
        drive(&node, answer(error(StanzaCondition::ServiceUnavailable))).await;
    }
    assert!(registered(&node).await, "one that is taken begins the row anew");
    drive(&node, answer(error(StanzaCondition::ServiceUnavailable))).await;
    assert!(!registered(&node).await);
    assert!(node.pushes.failed.lock().is_empty());
}

#[tokio::test]
async fn who_waits_to_be_told_of_is_told_of_once() {
    let (node, _row) = with_registration().await;
    for _ in 0..3 {
        notify(&node, &alice(), None, Some(&message()));
    }
    assert_eq!(node.pushes.waiting.lock().len(), 1);
    // It is asked of no service that is not there; what has waited is gone.
    while !node.pushes.waiting.lock().is_empty() {
        tokio::task::yield_now().await;
    }
}
