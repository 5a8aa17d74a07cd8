//! What a notification says, and what an answer does to its registration.

use althing_proto::stanza_id::StanzaId;
use althing_proto::time::Timestamp;

use super::*;
use crate::delivery::{Next, drive, keep, kept};
use crate::storage::RowBound;
use crate::storage::messages::{InboxQuota, KeepFor, KeepInInbox, KeepMessage};

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
    let answer = |outcome, row: &[u8]| answered(&node, (alice(), KEY.to_owned()), row.to_vec(), outcome);
    drive(&node, answer(Err(NoAnswer::TimedOut), &row)).await;
    drive(&node, answer(error(StanzaCondition::ItemNotFound), b"an earlier registration")).await;
    assert!(registered(&node).await);
    drive(&node, answer(error(StanzaCondition::ItemNotFound), &row)).await;
    assert!(!registered(&node).await);
}

#[tokio::test]
async fn an_error_that_may_pass_disables_when_it_does_not() {
    let (node, row) = with_registration().await;
    let answer = |outcome| answered(&node, (alice(), KEY.to_owned()), row.clone(), outcome);
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

#[tokio::test]
async fn what_failed_before_a_registration_was_made_anew_does_not_count() {
    let (node, row) = with_registration().await;
    let passing = || {
        answered(&node, (alice(), KEY.to_owned()), row.clone(), error(StanzaCondition::ServiceUnavailable))
    };
    for _ in 0..PASSING - 1 {
        drive(&node, passing()).await;
    }
    node.pushes.begin_anew(alice(), KEY.to_owned());
    drive(&node, passing()).await;
    assert!(registered(&node).await);
}

/// Whoever writes much costs a service one notification at a time, and one more for the rest.
#[tokio::test]
async fn a_service_is_told_of_more_when_it_has_answered() {
    let (node, _row) = with_registration().await;
    let told = async || {
        let waiting = Waiting { node: Arc::clone(&node), who: (alice(), Services::All), taken: false };
        publish(waiting).await
    };
    let first = told().await;
    let [Effect::Route(iq)] = &first[..] else { panic!("{first:?}") };
    assert!(told().await.is_empty() && told().await.is_empty(), "it has not answered");
    assert_eq!(node.requests.pending(), 1);
    wait_for_alice(&node).await;
    node.requests.answered(&iq.result(None));
    let again = async {
        // The service is no component here: what is sent to it is answered with an error, which ends the registration.
        while registered(&node).await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, again).await.expect("it is told of the rest");
}

/// Of two services the one that was slow is told of the rest: the other one has heard of it.
#[tokio::test]
async fn what_one_service_lacks_is_told_to_no_other() {
    let (node, row) = with_registration().await;
    let (bound, other) = (RowBound { rows: 9, bytes: 9_000 }, "quick.localhost\u{0}n");
    node.storage.private.put_within(&alice(), PUSH, other, row, bound).await.unwrap();
    let told = async || {
        let waiting = Waiting { node: Arc::clone(&node), who: (alice(), Services::All), taken: false };
        let iqs = publish(waiting).await.into_iter().map(|effect| match effect {
            Effect::Route(iq) => iq,
            other => panic!("{other:?}"),
        });
        iqs.collect::<Vec<_>>()
    };
    let answers = async |iq: &Stanza| {
        node.requests.answered(&iq.result(None));
        while node.pushes.asked.lock().len() > 1 {
            tokio::task::yield_now().await;
        }
    };
    let is_slow = |iq: &Stanza| iq.to().is_some_and(|to| to.to_string() == "push.localhost");
    let (slow, quick): (Vec<_>, Vec<_>) = told().await.into_iter().partition(is_slow);
    assert_eq!((slow.len(), quick.len()), (1, 1));
    answers(&quick[0]).await;
    let second = told().await;
    assert!(second.len() == 1 && !is_slow(&second[0]), "{second:?}");
    answers(&second[0]).await;
    wait_for_alice(&node).await;
    node.requests.answered(&slow[0].result(None));
    let ended = async {
        // As above: whoever is told ends its registration.
        while registered(&node).await || !node.pushes.asked.lock().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.expect("the slow one is told of the rest");
    assert!(node.storage.private.get(&alice(), PUSH, other).await.unwrap().is_some(), "one push too many");
}

/// Keeps a message for her.
async fn wait_for_alice(node: &NodeContext) {
    let id = StanzaId::from_bytes([1; 16]);
    let inbox = KeepInInbox {
        takers: Vec::new(),
        expires: Timestamp::from_millis(u64::MAX),
        quota: InboxQuota { messages: 9, bytes: 9_999 },
        each_device: false,
    };
    let owner =
        KeepFor { owner: alice(), peer: alice().into(), outgoing: false, archive: None, inbox: Some(inbox) };
    let xml = message().to_standalone().into();
    let kept = KeepMessage { id, stamp: Timestamp::from_millis(1), xml, owners: vec![owner], name: None };
    node.storage.keep(kept).await.unwrap();
}

/// What was on its way to a session that is gone waits, and nobody was told of it yet.
#[tokio::test]
async fn what_comes_back_from_a_session_that_is_gone_is_told_of() {
    let (node, _row) = with_registration().await;
    let id = StanzaId::from_bytes([1; 16]);
    let stanza = message().with_child(kept::stanza_id(&alice(), id));
    let Next::Wait(freed) = keep::for_absent(&node, &stanza, &alice(), keep::Planned::Already(id), None)
    else {
        panic!("it is known at once")
    };
    freed.await;
    assert_eq!(node.pushes.waiting.lock().len(), 1);
}
