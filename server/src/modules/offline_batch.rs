//! Batches of offline messages, in the namespace `http://jabber.org/protocol/offmsg`: what waits is told, sent in pages,
//! and stays until each message is acknowledged. Off by default (`offline.batches`): XEP-0013 and XEP-0313 do the same.
//!
//! | step | who | what |
//! |---|---|---|
//! | 1 | client | `<iq type='get' id='1'><query xmlns='…offmsg#bif'/></iq>` |
//! | 2 | server | `<iq type='result' id='1'><query xmlns='…offmsg#bifs'><size/><count/><idset><item id=''/>…</idset></query></iq>` |
//! | 3 | client | `<iq type='get' id='2'><query xmlns='…offmsg#start'><pagesize>10</pagesize></query></iq>` |
//! | 4 | server | `<iq type='result' id='2/1'><query xmlns='…offmsg#start' page='1'><message/>…</query></iq>`, `id='2/2'` and so on |
//! | 5 | server | `<iq type='result' id='2'><query xmlns='…offmsg#end' count=''/></iq>`: the answer to 3 |
//! | 6 | client | `<iq type='set' id='3'><query xmlns='…offmsg#ack'><item id=''/>…</query></iq>`, of any of them, as often as it likes |
//!
//! An id is the one in the message's `<stanza-id/>`. From step 1 on the client is sent nothing of it otherwise.

use std::sync::Arc;

use althing_proto::stanza::{Kind, Stanza, StanzaCondition, StanzaError};
use althing_proto::stanza_id::StanzaId;
use althing_proto::xml::build::{BuilderExt, ElementExt};
use althing_proto::xml::{Element, name};

use super::roster::storage_failed;
use super::{Feature, Module, Spec};
use crate::aside::Capacity;
use crate::delivery::inbox::Reader;
use crate::node::NodeContext;
use crate::pipeline::{At, Effects, Interest, Outcome, Packet, View, refusal};
use crate::session::core::SessionState;
use crate::session::effect::{Effect, SessionChange};
use crate::storage::StorageError;
use crate::storage::messages::MAX_PAGE;

/// The feature.
const BATCHES: &str = "http://jabber.org/protocol/offmsg";
const INFO: &str = "http://jabber.org/protocol/offmsg#bif";
const TOLD: &str = "http://jabber.org/protocol/offmsg#bifs";
const START: &str = "http://jabber.org/protocol/offmsg#start";
const END: &str = "http://jabber.org/protocol/offmsg#end";
const ACK: &str = "http://jabber.org/protocol/offmsg#ack";

/// Messages of a page where the client does not say, and the most that it may say.
const PAGE: usize = 10;
const MOST: usize = 250;

/// The module.
pub(super) const MODULE: OfflineBatch = OfflineBatch;

const SPEC: Spec =
    Spec { name: "offline_batch", document: "offmsg", version: "", title: "Offline messages in batches" };

pub(super) struct OfflineBatch;

impl Module for OfflineBatch {
    fn spec(&self) -> Spec {
        SPEC
    }

    fn interests(&self) -> &'static [Interest] {
        const {
            let accounts = At::OWN_ACCOUNT.or(At::OTHER_ACCOUNT);
            &[
                Interest::iq_get(INFO, accounts),
                Interest::iq_get(START, accounts),
                Interest::iq_set(ACK, accounts),
            ]
        }
    }

    fn features(&self, view: &View<'_>) -> Vec<Feature> {
        is_on(view.node).then_some(Feature { var: BATCHES, at: At::SERVER }).into_iter().collect()
    }

    /// A client that reads slowly keeps its own job waiting, not those of others.
    fn capacity(&self) -> Capacity {
        Capacity { jobs: 4_096, workers: 1_024 }
    }

    fn process(&self, packet: &Packet, view: &View<'_>) -> Outcome {
        if !is_on(view.node) {
            return Outcome::Pass;
        }
        if packet.at() != At::OWN_ACCOUNT {
            return Outcome::refuse(packet, StanzaCondition::Forbidden);
        }
        let (Some(session), Some(query), Kind::Iq(_)) =
            (view.session, packet.stanza.payload(), packet.stanza.kind())
        else {
            return Outcome::Pass;
        };
        match Asked::read(query) {
            Ok(asked) => perform(packet, asked, session, view.node),
            Err(error) => Outcome::refuse(packet, error),
        }
    }
}

fn is_on(node: &NodeContext) -> bool {
    let config = node.config();
    config.offline.enabled && config.offline.batches
}

/// What a client asks for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    /// What waits.
    Info,
    /// All of it, in pages of so many messages.
    Start(usize),
    /// Those have arrived.
    Ack(Vec<StanzaId>),
}

impl Asked {
    fn read(query: &Element) -> Result<Self, StanzaError> {
        let bad = |text: &str| StanzaError::new(StanzaCondition::BadRequest, text);
        if query.name() != "query" {
            return Err(bad("no <query/>"));
        }
        if query.is_ns(INFO) {
            return Ok(Asked::Info);
        }
        if query.is_ns(START) {
            let page = match query.get_child("pagesize", START) {
                None => PAGE,
                Some(size) => size.text().trim().parse().map_err(|_| bad("a page size is a number"))?,
            };
            return if page == 0 {
                Err(bad("a page has messages"))
            } else {
                Ok(Asked::Start(page.min(MOST)))
            };
        }
        let items = query.children().filter(|child| child.is("item", ACK));
        let ids: Option<Vec<StanzaId>> = items.map(|item| item.attr("id")?.parse().ok()).collect();
        let ids = ids.filter(|ids| !ids.is_empty()).ok_or_else(|| bad("the ids of messages are missing"))?;
        if ids.len() > MAX_PAGE {
            let text = format!("more than {MAX_PAGE} messages in one request");
            return Err(StanzaError::new(StanzaCondition::NotAcceptable, text));
        }
        Ok(Asked::Ack(ids))
    }
}

fn perform(packet: &Packet, asked: Asked, session: &SessionState, node: &Arc<NodeContext>) -> Outcome {
    let (reader, packet) = (Reader::new(node, session), packet.clone());
    let fetches = vec![Effect::Session(SessionChange::Fetches)];
    match asked {
        Asked::Info => Outcome::First(
            fetches,
            Box::pin(async move {
                let told = told(&reader).await;
                done(&packet, told.map(|told| vec![Effect::Route(packet.stanza.result(Some(told)))]))
            }),
        ),
        Asked::Start(size) => Outcome::First(
            fetches,
            Box::pin(async move { done(&packet, send(&reader, &packet, size).await) }),
        ),
        Asked::Ack(ids) => Outcome::aside(async move {
            // One that is acknowledged twice, or was never there, is none that waits.
            let settled = reader.settle(ids).await;
            done(&packet, settled.map(|_count| vec![Effect::Route(packet.stanza.result(None))]))
        }),
    }
}

fn done(packet: &Packet, effects: Result<Effects, StorageError>) -> Effects {
    effects.unwrap_or_else(|error| storage_failed(packet, &error))
}

/// Step 2. Of a long inbox not all ids are told.
async fn told(reader: &Reader) -> Result<Element, StorageError> {
    let live = reader.live().await?;
    let (mut idset, mut count, mut size, mut after) = (Element::bare("idset", TOLD), 0_u64, 0_u64, None);
    // About what an item has.
    let most = u64::try_from(reader.most_bytes() / 64).unwrap_or(u64::MAX);
    loop {
        let page = reader.page(&live, after, MAX_PAGE).await?;
        for entry in &page.entries {
            (count, size) = (count + 1, size + u64::from(entry.size));
            if count <= most {
                let item = Element::builder("item", TOLD).set(name!("id"), entry.id.to_string());
                idset.append_child(item.build());
            }
        }
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    if count > most {
        idset.set(name!("complete"), "false");
    }
    let number = |name, number: u64| Element::builder(name, TOLD).append(number.to_string()).build();
    let children = [number("size", size), number("count", count), idset];
    Ok(Element::builder("query", TOLD).append_all(children).build())
}

/// Steps 4 and 5, as fast as the client reads.
async fn send(reader: &Reader, packet: &Packet, size: usize) -> Result<Effects, StorageError> {
    if !reader.keeps_up().await {
        let text = "what was sent before is not read yet";
        return Ok(refusal(packet, StanzaError::new(StanzaCondition::ResourceConstraint, text)));
    }
    let (most, live) = (reader.most_bytes(), reader.live().await?);
    let (mut pages, mut messages, mut bytes, mut count, mut after) = (0, Vec::new(), 0, 0, None);
    loop {
        let some = reader.page(&live, after, 8).await?;
        for (_, stanza) in reader.texts(&some.entries).await? {
            let length = stanza.to_bytes().len();
            if messages.len() == size || (bytes + length > most && !messages.is_empty()) {
                pages += 1;
                bytes = 0;
                if !reader.show(vec![page(packet, pages, std::mem::take(&mut messages))]).await {
                    return Ok(Effects::new());
                }
            }
            (bytes, count) = (bytes + length, count + 1);
            messages.push(stanza.to_element());
        }
        match some.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    let end = Element::builder("query", END).set(name!("count"), count.to_string()).build();
    let last = (!messages.is_empty()).then(|| page(packet, pages + 1, messages));
    // Where the session has moved meanwhile neither is told.
    Ok(vec![Effect::Copies(last.into_iter().chain([packet.stanza.result(Some(end))]).collect())])
}

/// A page: a result under an id of its own, for a request has one answer (RFC 6120 §8.2.3).
fn page(packet: &Packet, number: usize, messages: Vec<Element>) -> Stanza {
    let query =
        Element::builder("query", START).set(name!("page"), number.to_string()).append_all(messages).build();
    let mut element = packet.stanza.result(Some(query)).to_element();
    let id = packet.stanza.id().unwrap_or_default();
    element.set(name!("id"), format!("{id}/{number}"));
    Stanza::parse(element).unwrap_or_else(|_| packet.stanza.result(None))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(namespace: &str, content: &str) -> Result<Asked, StanzaCondition> {
        let xml = format!("<query xmlns='{namespace}'>{content}</query>");
        Asked::read(&xml.parse().unwrap()).map_err(|error| error.condition)
    }

    /// R17: what a client may say.
    #[test]
    fn r17_the_steps_of_the_dialogue() {
        let id = StanzaId::from_bytes([7; 16]);
        assert_eq!(read(INFO, ""), Ok(Asked::Info));
        assert_eq!(read(START, ""), Ok(Asked::Start(PAGE)));
        assert_eq!(read(START, "<pagesize>3</pagesize>"), Ok(Asked::Start(3)));
        assert_eq!(read(START, "<pagesize>100000</pagesize>"), Ok(Asked::Start(MOST)));
        assert_eq!(read(ACK, &format!("<item id='{id}'/><item id='{id}'/>")), Ok(Asked::Ack(vec![id, id])));
        for (namespace, content) in [
            (START, "<pagesize>0</pagesize>"),
            (START, "<pagesize>all</pagesize>"),
            (ACK, ""),
            (ACK, "<item/>"),
            (ACK, "<item id='1'/>"),
        ] {
            assert_eq!(read(namespace, content), Err(StanzaCondition::BadRequest), "{content}");
        }
        let many = format!("<item id='{id}'/>").repeat(MAX_PAGE + 1);
        assert_eq!(read(ACK, &many), Err(StanzaCondition::NotAcceptable));
    }
}
