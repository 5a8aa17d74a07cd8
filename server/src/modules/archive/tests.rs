//! The module in front of an archive that is filled: what a client gets for each request.

use althing_cluster::routes::BindIndex;
use althing_proto::jid::{BareJid, FullJid, Jid};
use althing_proto::stanza_id::StanzaId;
use althing_proto::time::Timestamp;
use bytes::Bytes;

use super::*;
use crate::pipeline::{self, Pass};
use crate::storage::messages::{ArchiveDefault, KeepFor, KeepMessage};

const ALICE: &str = "alice@localhost";

/// A node on which alice has that many messages of bob and carol by turns.
async fn node(messages: u8) -> Arc<NodeContext> {
    let node = Arc::new(NodeContext::for_tests());
    let alice = BareJid::new(ALICE).unwrap();
    node.has_account(&alice).await;
    for number in 1..=messages {
        let peer = Jid::new(if number % 2 == 0 { "bob@localhost/x" } else { "carol@localhost/x" }).unwrap();
        let xml = format!(
            "<message xmlns='jabber:client' from='{peer}' to='{ALICE}'><body>{number}</body></message>"
        );
        let archive = Some(ArchiveDefault::Always);
        let owners = vec![KeepFor { owner: alice.clone(), peer, outgoing: false, archive, inbox: None }];
        let (id, stamp) = (id(number), Timestamp::from_millis(u64::from(number) * 1_000));
        node.storage
            .keep(KeepMessage { name: None, id, stamp, xml: Bytes::from(xml), owners })
            .await
            .unwrap();
    }
    node
}

fn id(number: u8) -> StanzaId {
    StanzaId::from_bytes([number; 16])
}

/// What `from` gets for a request to the account of alice, as XML.
async fn asked(node: &Arc<NodeContext>, from: &str, kind: &str, payload: &str) -> Vec<String> {
    let from = FullJid::new(from).unwrap();
    let session = SessionState::new(from.clone(), BindIndex(1), 0, Vec::new());
    let xml =
        format!("<iq xmlns='jabber:client' type='{kind}' id='1' from='{from}' to='{ALICE}'>{payload}</iq>");
    let stanza = Stanza::parse(xml.parse().unwrap()).unwrap();
    let packet = Packet::new(stanza, Pass::Account(BareJid::new(ALICE).unwrap()));
    let view = View { node, session: Some(&session), now: node.now() };
    let mut effects = std::collections::VecDeque::from(pipeline::run(&node.modules, &packet, &view));
    let mut out = Vec::new();
    while let Some(effect) = effects.pop_front() {
        match effect {
            Effect::Aside(job) => effects.extend(job.wait().await),
            Effect::Resume(resumed) => effects.extend(pipeline::resume(&node.modules, &resumed, &view)),
            Effect::Later(later) => effects.extend(later.0.await),
            Effect::Deliver(stanza) | Effect::Route(stanza) => {
                out.push(String::from_utf8(stanza.to_bytes().to_vec()).unwrap());
            }
            // Sessions look anew what they may tell their clients.
            Effect::Notify { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    out
}

async fn queried(node: &Arc<NodeContext>, content: &str) -> Vec<String> {
    let query = format!("<query xmlns='urn:xmpp:mam:2' queryid='q'>{content}</query>");
    asked(node, "alice@localhost/x", "set", &query).await
}

fn set(content: &str) -> String {
    format!("<set xmlns='http://jabber.org/protocol/rsm'>{content}</set>")
}

/// The texts of results, and what is behind them.
fn texts(mut answers: Vec<String>) -> (Vec<u8>, String) {
    let fin = answers.pop().unwrap();
    let text = |answer: &String| {
        let (_, text) = answer.split_once("<body>").unwrap();
        text.split_once("</body>").unwrap().0.parse().unwrap()
    };
    (answers.iter().map(text).collect(), fin)
}

#[actix_rt::test]
async fn pages_follow_each_other_without_a_gap_both_ways() {
    let node = node(25).await;
    let (mut after, mut seen) = (String::new(), Vec::new());
    loop {
        let (page, fin) = texts(queried(&node, &set(&format!("<max>10</max>{after}"))).await);
        assert!(fin.contains("<count>25</count>"), "{fin}");
        seen.extend(page);
        if fin.contains("complete='true'") {
            break;
        }
        after = format!("<after>{}</after>", id(*seen.last().unwrap()));
    }
    assert_eq!(seen, (1..=25).collect::<Vec<u8>>());

    let (last, fin) = texts(queried(&node, &set("<max>3</max><before/>")).await);
    assert_eq!((last, fin.contains("complete")), (vec![23, 24, 25], false));
    assert!(fin.contains(&format!("<first>{}</first><last>{}</last>", id(23), id(25))), "{fin}");
    let before = set(&format!("<max>3</max><before>{}</before>", id(4)));
    let (first, fin) = texts(queried(&node, &format!("{before}<flip-page/>")).await);
    assert_eq!((first, fin.contains("complete='true'")), (vec![3, 2, 1], true));
    let (none, fin) = texts(queried(&node, &set("<max>0</max>")).await);
    assert!(none.is_empty() && fin.contains("<count>25</count>"));
}

#[actix_rt::test]
async fn a_query_filters() {
    let node = node(10).await;
    let form = |fields: &[(&str, String)]| {
        let field =
            |(var, value): &(&str, String)| format!("<field var='{var}'><value>{value}</value></field>");
        let fields: String = fields.iter().map(field).collect();
        format!(
            "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>urn:xmpp:mam:2</value></field>{fields}</x>"
        )
    };
    for (fields, expected) in [
        (vec![("with", "bob@localhost".to_owned())], vec![2, 4, 6, 8, 10]),
        (vec![("with", "bob@localhost/y".to_owned())], vec![]),
        (
            vec![("start", "1970-01-01T00:00:03Z".to_owned()), ("end", "1970-01-01T00:00:05Z".to_owned())],
            vec![3, 4, 5],
        ),
        (vec![("after-id", id(3).to_string()), ("before-id", id(6).to_string())], vec![4, 5]),
        (vec![("ids", id(7).to_string())], vec![7]),
        (vec![("with", "carol@localhost".to_owned()), ("after-id", id(7).to_string())], vec![9]),
    ] {
        let (found, fin) = texts(queried(&node, &form(&fields)).await);
        assert_eq!(found, expected, "{fields:?}");
        assert!(fin.contains("complete='true'"));
    }
    for field in ["ids", "after-id", "before-id"] {
        let answers = queried(&node, &form(&[(field, id(99).to_string())])).await;
        assert!(answers[0].contains("item-not-found") && answers.len() == 1, "{answers:?}");
    }
    let answers = queried(&node, &set(&format!("<after>{}</after>", id(99)))).await;
    assert!(answers[0].contains("item-not-found"), "{answers:?}");
}

#[actix_rt::test]
async fn the_ends_of_an_archive_are_told_and_nothing_of_an_empty_one() {
    let metadata = "<metadata xmlns='urn:xmpp:mam:2'/>";
    let [told] = &asked(&node(3).await, "alice@localhost/x", "get", metadata).await[..] else {
        panic!("one answer")
    };
    let expected = format!(
        "<start id='{}' timestamp='1970-01-01T00:00:01.000Z'/><end id='{}' timestamp='1970-01-01T00:00:03.000Z'/>",
        id(1),
        id(3)
    );
    assert!(told.contains(&expected), "{told}");
    let told = asked(&node(0).await, "alice@localhost/x", "get", metadata).await;
    assert!(told[0].contains(metadata), "{told:?}");
}

#[actix_rt::test]
async fn preferences_are_kept_and_the_operators_hold_before() {
    let node = node(0).await;
    let get = "<prefs xmlns='urn:xmpp:mam:2'/>";
    let told = asked(&node, "alice@localhost/x", "get", get).await;
    assert!(
        told[0].contains("<prefs xmlns='urn:xmpp:mam:2' default='always'><always/><never/></prefs>"),
        "{told:?}"
    );
    let set = "<prefs xmlns='urn:xmpp:mam:2' default='roster'><always/><never><jid>b@c</jid></never></prefs>";
    for (kind, payload) in [("set", set), ("get", get)] {
        let told = asked(&node, "alice@localhost/x", kind, payload).await;
        assert!(told[0].contains(set), "{kind} {told:?}");
    }
}

#[actix_rt::test]
async fn nobody_else_reads_an_archive_and_who_has_none_is_told_so() {
    let node = node(3).await;
    let query = "<query xmlns='urn:xmpp:mam:2'/>";
    for kind in ["get", "set"] {
        let told = asked(&node, "bob@localhost/x", kind, query).await;
        assert!(told.len() == 1 && told[0].contains("<forbidden"), "{told:?}");
    }
    node.configure(|config| config.archive.enabled = false);
    let told = asked(&node, "alice@localhost/x", "set", query).await;
    assert!(told[0].contains("service-unavailable"), "{told:?}");
}
