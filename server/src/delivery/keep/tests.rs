//! What waits for who is not there.

use super::*;
use crate::config::Durability;
use crate::storage::messages::{ArchiveDefault, ArchivePreferences};

/// With `messages.durability = "memory"` what has an id may be in no store: it waits all the same where its receiver has
/// gone, also where that one wants no archive.
#[tokio::test]
async fn what_was_in_no_store_waits_when_its_receiver_has_gone() {
    let node = Arc::new(NodeContext::for_tests());
    node.configure(|config| {
        config.messages.durability = Durability::Memory;
        config.offline.messages = 1;
    });
    let account = BareJid::new("b@localhost").unwrap();
    node.has_account(&account).await;
    let never = ArchivePreferences { default: ArchiveDefault::Never, always: Vec::new(), never: Vec::new() };
    node.storage.archive.set_preferences(&account, never).await.unwrap();
    let xml = "<message xmlns='jabber:client' from='a@localhost/x' to='b@localhost' type='chat'><body>x</body></message>";
    let stanza = Stanza::parse(xml.parse().unwrap()).unwrap();
    let mut bounced = Vec::new();
    for number in 1..=2 {
        let id = StanzaId::from_bytes([number; 16]);
        let marked = stanza.with_child(kept::stanza_id(&account, id));
        let next = for_absent(&node, &marked, &account, Planned::Already(id), None);
        let Next::Wait(freed) = next else { panic!("it is known at once") };
        bounced.push(freed.await.len());
    }
    assert_eq!(bounced, [0, 1], "there is room for one, and who wrote the other is told");
    let found = node.storage.inbox.get(&account, StanzaId::from_bytes([1; 16])).await.unwrap().unwrap();
    assert_eq!(Stanza::from_standalone(&found.xml).unwrap().to_bytes(), stanza.to_bytes());
}

/// T15: what is on its way when its host begins to commit is in no store yet, and waits there all the same.
#[tokio::test]
async fn t15_what_was_in_no_store_waits_when_its_host_commits_now() {
    let node = Arc::new(NodeContext::for_tests());
    let account = BareJid::new("b@localhost").unwrap();
    node.has_account(&account).await;
    node.configure(|config| config.messages.durability = Durability::Memory);
    let xml = "<message xmlns='jabber:client' from='a@localhost/x' to='b@localhost' type='chat'><body>x</body></message>";
    let stanza = Stanza::parse(xml.parse().unwrap()).unwrap();
    let id = StanzaId::from_bytes([1; 16]);
    let marked = stanza.with_child(kept::stanza_id(&account, id));
    node.configure(|config| config.messages.durability = Durability::Commit);
    let next = for_absent(&node, &marked, &account, Planned::Already(id), None);
    let Next::Wait(freed) = next else { panic!("it is known at once") };
    assert_eq!(freed.await.len(), 0);
    assert!(node.storage.inbox.get(&account, id).await.unwrap().is_some());
}

/// T15: so long as it may be on its way, and only where its host did not commit.
#[tokio::test]
async fn t15_what_is_on_its_way_may_be_in_no_store_for_a_while() {
    let node = NodeContext::for_tests();
    let (mut before, mut after) = (node.config().as_ref().clone(), node.config().as_ref().clone());
    before.messages.durability = Durability::Memory;
    after.messages.durability = Durability::Commit;
    let (waiting, account) = (Waiting::default(), BareJid::new("b@localhost").unwrap());
    let (now, lasts) = (Instant::now(), Duration::from_secs(before.limits.resume_s) + ON_ITS_WAY);
    waiting.changes(&after, &before, now);
    waiting.changes(&after, &after, now);
    assert!(!waiting.may_be_in_memory(&account, now));
    waiting.changes(&before, &after, now);
    let elsewhere = BareJid::new("b@elsewhere.example").unwrap();
    assert!(waiting.may_be_in_memory(&account, now) && !waiting.may_be_in_memory(&elsewhere, now));
    assert!(
        waiting.may_be_in_memory(&account, now + lasts - Duration::from_millis(1)),
        "its stream may wait so long"
    );
    assert!(!waiting.may_be_in_memory(&account, now + lasts));
}
