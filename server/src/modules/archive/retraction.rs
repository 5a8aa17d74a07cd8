//! XEP-0424 §5: a message that its sender takes back leaves a tombstone in all archives, and waits for nobody any more.
//!
//! The sender names it by the `id` that its client gave it. The store finds what has it by a hash ([`MessageName`]) in the
//! sender's own archive, however long ago that was.

use std::sync::Arc;

use bytes::Bytes;
use tracing::{debug, warn};

use althing_proto::jid::{BareJid, Jid};
use althing_proto::ns;
use althing_proto::stanza::{Kind, MessageType, Stanza};
use althing_proto::time::Timestamp;
use althing_proto::xml::build::{BuilderExt, ElementExt};
use althing_proto::xml::{Element, name};

use crate::delivery::keeping::keeping;
use crate::node::NodeContext;
use crate::pipeline::packet::is_of_account;
use crate::pipeline::{Packet, Pass, Verdict, View};
use crate::storage::StorageError;
use crate::storage::messages::{ArchiveQuery, MessageName};

/// How many pages of what has the same name are looked through.
const PAGES: usize = 10;
/// How many messages each has.
const PAGE: u32 = 50;

/// Takes a message out of the archives that the packet retracts; the packet goes on then.
pub(super) fn retract(packet: &Packet, view: &View<'_>) -> Verdict {
    let (Pass::Outbound, Some(session)) = (&packet.pass, view.session) else { return Verdict::Pass };
    let Kind::Message(MessageType::Chat | MessageType::Normal) = packet.stanza.kind() else {
        return Verdict::Pass;
    };
    let retracted =
        packet.stanza.element().get_child("retract", ns::RETRACTION).and_then(|child| child.attr("id"));
    let (Some(retracted), Some(peer)) = (retracted, packet.stanza.to()) else { return Verdict::Pass };
    // A tombstone names the message that has retracted it, which is in the archive too.
    let Some(by) = packet.stanza.id().filter(|_| keeping(&packet.stanza).archive) else {
        return Verdict::Pass;
    };
    // On a nearly full disk what retracts it is refused.
    if !view.node.config().archive.enabled || view.node.storage.engine.is_full() {
        return Verdict::Pass;
    }
    let (node, account) = (Arc::clone(view.node), session.account().clone());
    let (retracted, peer) = (retracted.to_owned(), Jid::from(peer.to_bare()));
    let (by, now) = (by.to_owned(), view.now);
    Verdict::Later(Box::pin(async move {
        match replace(&node, &account, peer, &retracted, (&by, now)).await {
            Ok(true) => debug!(jid = %account, "a message was retracted"),
            Ok(false) => debug!(jid = %account, "a message that is to be retracted is not in the archive"),
            // Who it was for is told all the same; the archives have both then.
            Err(error) => warn!(jid = %account, %error, "a message that was retracted stays in the archive"),
        }
        Verdict::Pass
    }))
}

/// Puts a tombstone in the place of the message; `false` if it is not found.
async fn replace(
    node: &NodeContext,
    account: &BareJid,
    peer: Jid,
    retracted: &str,
    (by, now): (&str, Timestamp),
) -> Result<bool, StorageError> {
    // What the same client has sent just before may be on its way into the store.
    node.storage.kept_so_far(account).await?;
    let name = Some(MessageName::of(&peer.to_bare(), retracted));
    let mut query =
        ArchiveQuery { with: Some(peer), name, limit: PAGE, backwards: true, ..ArchiveQuery::default() };
    for _ in 0..PAGES {
        let Ok(page) = node.storage.archive.page(account, query.clone()).await? else { return Ok(false) };
        let own = page.messages.iter().rev().filter(|message| !message.retracted);
        let mut own = own.filter_map(|message| {
            let stanza = Stanza::from_standalone(&message.xml)?;
            is_that(&stanza, account, retracted).then_some((message.id, stanza))
        });
        if let Some((id, stanza)) = own.next() {
            return node.storage.messages.retract(account, id, tombstone(&stanza, by, now)).await;
        }
        match page.messages.first() {
            Some(first) if !page.complete => query.before = vec![first.id],
            _ => return Ok(false),
        }
    }
    Ok(false)
}

fn is_that(stanza: &Stanza, account: &BareJid, id: &str) -> bool {
    stanza.id() == Some(id) && stanza.from().is_some_and(|from| is_of_account(from, account))
}

/// What stays: addresses, type and id, and that it was retracted by which message and when.
fn tombstone(original: &Stanza, by: &str, now: Timestamp) -> Bytes {
    let retracted = Element::builder("retracted", ns::RETRACTION).set(name!("stamp"), now.to_xep0082());
    let retracted = retracted.set(name!("id"), by).build();
    let mut element = Element::bare("message", ns::CLIENT);
    for (attribute, value) in [(name!("type"), original.element().attr("type")), (name!("id"), original.id())]
    {
        if let Some(value) = value {
            element.set(attribute, value);
        }
    }
    element.append_child(retracted);
    let stanza =
        Stanza::from_parts(original.kind(), original.from().cloned(), original.to().cloned(), element);
    Bytes::from(stanza.to_standalone())
}

#[cfg(test)]
mod tests {
    use althing_proto::stanza_id::StanzaId;

    use super::*;
    use crate::storage::messages::{ArchiveDefault, KeepFor, KeepMessage};
    use crate::storage::{EmbeddedOptions, Keeping, Storage};

    fn message(from: &str, to: &str, id: &str) -> Stanza {
        let xml = format!(
            "<message xmlns='jabber:client' from='{from}' to='{to}' id='{id}' type='chat'><body>{id}</body></message>"
        );
        Stanza::parse(xml.parse().unwrap()).unwrap()
    }

    async fn keep(node: &NodeContext, number: u8, stanza: &Stanza) {
        keeping(node, number, stanza).await.unwrap();
    }

    fn keeping(node: &NodeContext, number: u8, stanza: &Stanza) -> Keeping {
        keeping_as(node, StanzaId::from_bytes([number; 16]), stanza)
    }

    fn keeping_as(node: &NodeContext, id: StanzaId, stanza: &Stanza) -> Keeping {
        let (from, to) = (stanza.from().unwrap().clone(), stanza.to().unwrap().clone());
        let owner = |owner: &Jid, peer: &Jid, outgoing| KeepFor {
            owner: owner.to_bare(),
            peer: peer.clone(),
            outgoing,
            archive: Some(ArchiveDefault::Always),
            inbox: None,
        };
        let owners = vec![owner(&from, &to, true), owner(&to, &from, false)];
        let xml = Bytes::from(stanza.to_standalone());
        let name = Some(MessageName::of(&to.to_bare(), stanza.id().unwrap()));
        node.storage.keep(KeepMessage { id, stamp: node.now(), xml, owners, name })
    }

    /// What is retracted right behind it is found all the same.
    #[actix_rt::test]
    async fn what_is_not_committed_yet_is_retracted_too() {
        let dir = tempfile::tempdir().unwrap();
        let mut node = NodeContext::for_tests();
        node.storage = Storage::open_embedded(dir.path(), EmbeddedOptions::default()).unwrap();
        let [alice, bob] = ["alice@localhost", "bob@localhost"].map(|jid| BareJid::new(jid).unwrap());
        for user in [&alice, &bob] {
            node.has_account(user).await;
        }
        for number in 0..20 {
            let name = format!("m{number}");
            let keeping = keeping(&node, number, &message("alice@localhost/x", "bob@localhost", &name));
            let by = ("r1", Timestamp::from_millis(5));
            assert!(replace(&node, &alice, bob.clone().into(), &name, by).await.unwrap(), "{name}");
            keeping.await.unwrap();
        }
    }

    /// However much was said since, and under the same name to somebody else.
    #[actix_rt::test]
    async fn what_was_sent_long_ago_is_retracted_too() {
        let node = NodeContext::for_tests();
        let [alice, bob] = ["alice@localhost", "bob@localhost"].map(|jid| BareJid::new(jid).unwrap());
        for user in [&alice, &bob] {
            node.has_account(user).await;
        }
        keep(&node, 1, &message("alice@localhost/x", "bob@localhost/y", "old")).await;
        keep(&node, 2, &message("alice@localhost/x", "carol@localhost", "old")).await;
        for number in 0..600_u32 {
            let stanza = message("alice@localhost/x", "bob@localhost", &format!("m{number}"));
            let id = StanzaId::derived(b"test", &[&number.to_be_bytes()]);
            keeping_as(&node, id, &stanza).await.unwrap();
        }
        let by = ("r1", Timestamp::from_millis(5));
        assert!(replace(&node, &alice, bob.clone().into(), "old", by).await.unwrap());
        let query = |number| ArchiveQuery {
            ids: vec![StanzaId::from_bytes([number; 16])],
            limit: 1,
            ..ArchiveQuery::default()
        };
        let retracted = async |number| {
            node.storage.archive.page(&alice, query(number)).await.unwrap().unwrap().messages[0].retracted
        };
        assert_eq!((retracted(1).await, retracted(2).await), (true, false));
    }

    #[actix_rt::test]
    async fn what_its_sender_retracts_leaves_a_tombstone_in_both_archives_and_nothing_else_does() {
        let node = NodeContext::for_tests();
        let [alice, bob] = ["alice@localhost", "bob@localhost"].map(|jid| BareJid::new(jid).unwrap());
        for user in [&alice, &bob] {
            node.has_account(user).await;
        }
        for number in 0..120 {
            let from = if number % 2 == 0 { "alice@localhost/x" } else { "bob@localhost/y" };
            let to = if number % 2 == 0 { "bob@localhost" } else { "alice@localhost" };
            keep(&node, number, &message(from, to, &format!("m{number}"))).await;
        }
        let gone = async |owner: &BareJid, peer: &BareJid, id: &str| {
            replace(&node, owner, peer.clone().into(), id, ("r1", Timestamp::from_millis(5))).await.unwrap()
        };
        assert!(!gone(&bob, &alice, "m2").await, "not his");
        assert!(!gone(&alice, &bob, "m121").await, "unknown");
        assert!(gone(&alice, &bob, "m2").await);
        assert!(!gone(&alice, &bob, "m2").await, "gone already");
        for owner in [&alice, &bob] {
            let ids = vec![StanzaId::from_bytes([2; 16])];
            let query = ArchiveQuery { ids, limit: 1, ..ArchiveQuery::default() };
            let page = node.storage.archive.page(owner, query).await.unwrap().unwrap();
            assert!(page.messages[0].retracted);
            assert_eq!(
                page.messages[0].xml,
                "<message xmlns='jabber:client' to='bob@localhost' from='alice@localhost/x' id='m2' type='chat'>\
                 <retracted xmlns='urn:xmpp:message-retract:1' id='r1' stamp='1970-01-01T00:00:00.005Z'/></message>"
            );
        }
    }
}
