//! The module in front of an inbox that is long: what is sent at once, and what is not there.

use std::collections::VecDeque;

use althing_cluster::routes::BindIndex;
use althing_proto::jid::{BareJid, FullJid, Jid};
use althing_proto::stanza_id::StanzaId;
use bytes::Bytes;

use super::*;
use crate::pipeline::{self, Pass};
use crate::storage::messages::{InboxQuota, KeepFor, KeepInInbox, KeepMessage, Taker};

const ALICE: &str = "alice@localhost";

/// A node on which that many messages of so many bytes wait for alice, the last one on its way to a session.
async fn node(messages: u8, bytes: usize, pending: Option<BindIndex>) -> Arc<NodeContext> {
    let node = Arc::new(NodeContext::for_tests());
    let alice = BareJid::new(ALICE).unwrap();
    node.has_account(&alice).await;
    for number in 1..=messages {
        let taker = pending.filter(|_| number == messages).map(|bind| Taker { bind, device: None });
        let inbox = KeepInInbox {
            takers: taker.into_iter().collect(),
            expires: node.now().after(std::time::Duration::from_secs(9)),
            quota: InboxQuota { messages: u32::MAX, bytes: u64::MAX },
            each_device: false,
        };
        let text = "x".repeat(bytes);
        let xml = format!(
            "<message xmlns='jabber:client' from='bob@localhost/x' to='{ALICE}'><body>{number} {text}</body></message>"
        );
        let peer = Jid::new("bob@localhost/x").unwrap();
        let owners =
            vec![KeepFor { owner: alice.clone(), peer, outgoing: false, archive: None, inbox: Some(inbox) }];
        let id = StanzaId::from_bytes([number; 16]);
        node.storage
            .keep(KeepMessage { name: None, id, stamp: node.now(), xml: Bytes::from(xml), owners })
            .await
            .unwrap();
    }
    node
}

/// What alice gets for a request, as XML.
async fn asked(node: &Arc<NodeContext>, payload: &str) -> Vec<String> {
    let from = FullJid::new("alice@localhost/x").unwrap();
    let session = SessionState::new(from.clone(), BindIndex(1), 0, Vec::new());
    let xml = format!("<iq xmlns='jabber:client' type='get' id='1' from='{from}'>{payload}</iq>");
    let packet = Packet::new(
        Stanza::parse(xml.parse().unwrap()).unwrap(),
        Pass::Account(BareJid::new(ALICE).unwrap()),
    );
    let view = View { node, session: Some(&session), now: node.now() };
    let mut effects = VecDeque::from(pipeline::run(&node.modules, &packet, &view));
    let mut out = Vec::new();
    let mut told = false;
    while let Some(effect) = effects.pop_front() {
        match effect {
            Effect::Aside(job) => effects.extend(job.wait().await),
            Effect::Session(SessionChange::Fetches) => told = true,
            Effect::Route(stanza) => out.push(String::from_utf8(stanza.to_bytes().to_vec()).unwrap()),
            other => panic!("{other:?}"),
        }
    }
    assert!(told, "the session knows before anything is answered");
    out
}

fn headers(set: &str) -> String {
    format!("<query xmlns='http://jabber.org/protocol/disco#items' node='{OFFLINE}'>{set}</query>")
}

/// The headers of a long inbox are cut where they would be too much, and go on from there.
#[tokio::test]
async fn headers_have_a_bound_and_go_on_where_they_end() {
    let node = node(200, 1, None).await;
    node.configure(|config| config.limits.outbox_bytes = 65_536);
    let first = asked(&node, &headers("")).await.remove(0);
    let count = first.matches("<item ").count();
    assert!((10..100).contains(&count) && first.len() < 20_000, "{count}");
    let (_, last) = first.split_once("<last>").unwrap();
    let (last, _) = last.split_once("</last>").unwrap();
    let set = format!("<set xmlns='http://jabber.org/protocol/rsm'><after>{last}</after></set>");
    let second = asked(&node, &headers(&set)).await.remove(0);
    assert!(!second.contains(&format!("node='{last}'")), "not twice");
    let next = Place {
        seq: last.parse::<Place>().unwrap().seq + 1,
        id: StanzaId::from_bytes([count as u8 + 1; 16]),
    };
    assert!(second.contains(&format!("node='{next}'")), "none is missing: {second}");
}

/// What is on its way to a session that lives is no offline message.
#[tokio::test]
async fn what_is_on_its_way_is_not_shown() {
    let bound = NodeContext::for_tests().routes.bind(&FullJid::new("alice@localhost/y").unwrap()).await;
    let node = node(3, 1, Some(bound.unwrap().index)).await;
    assert_eq!(asked(&node, &headers("")).await[0].matches("<item ").count(), 3, "of a session that is gone");
    let bound = node.routes.bind(&FullJid::new("alice@localhost/y").unwrap()).await.unwrap();
    assert!(bound.index.0 > 0);
    assert_eq!(asked(&node, &headers("")).await[0].matches("<item ").count(), 2);
    let info = format!("<query xmlns='http://jabber.org/protocol/disco#info' node='{OFFLINE}'/>");
    assert!(asked(&node, &info).await[0].contains("<value>2</value>"));
}
