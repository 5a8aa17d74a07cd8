//! XEP-0013: Flexible Offline Message Retrieval: a client looks at what waits, takes what it wants and removes what it
//! does not. From its first question on it is sent nothing of it unasked; nothing goes because it was looked at.

mod asked;

use std::sync::Arc;

use althing_proto::disco::{Identity, Info, Item};
use althing_proto::form::{Field, Form};
use althing_proto::rsm;
use althing_proto::stanza::{Kind, Stanza, StanzaCondition, StanzaError};
use althing_proto::xml::build::{BuilderExt, ElementExt};
use althing_proto::xml::{Element, name};

use super::disco::{Discovered, is_info};
use super::roster::storage_failed;
use super::{Feature, Module, Spec};
use crate::aside::Capacity;
use crate::delivery::inbox::{Place, Reader};
use crate::node::NodeContext;
use crate::pipeline::{At, Effects, Interest, Outcome, Packet, View, refusal};
use crate::session::core::SessionState;
use crate::session::effect::{Effect, SessionChange};
use crate::storage::StorageError;
use crate::storage::messages::InboxEntry;

use asked::{Asked, Headers};

/// The namespace, the feature, the node and the type of the form.
const OFFLINE: &str = "http://jabber.org/protocol/offline";

/// Messages that are looked at at once.
const PAGE: usize = 100;

/// The module.
pub(super) const MODULE: OfflineRetrieval = OfflineRetrieval;

const SPEC: Spec = Spec {
    name: "offline_retrieval",
    document: "XEP-0013",
    version: "1.3",
    title: "Flexible Offline Message Retrieval",
};

pub(super) struct OfflineRetrieval;

impl Module for OfflineRetrieval {
    fn spec(&self) -> Spec {
        SPEC
    }

    fn interests(&self) -> &'static [Interest] {
        use althing_proto::ns::{DISCO_INFO, DISCO_ITEMS};
        const {
            let accounts = At::OWN_ACCOUNT.or(At::OTHER_ACCOUNT);
            &[
                Interest::iq_get(OFFLINE, accounts),
                Interest::iq_set(OFFLINE, accounts),
                Interest::iq_get(DISCO_INFO, At::OWN_ACCOUNT),
                Interest::iq_get(DISCO_ITEMS, At::OWN_ACCOUNT),
            ]
        }
    }

    /// §2.1.
    fn features(&self, view: &View<'_>) -> Vec<Feature> {
        let offered = view.node.config().offline.enabled;
        offered.then_some(Feature { var: OFFLINE, at: At::SERVER }).into_iter().collect()
    }

    /// A client that reads slowly keeps its own job waiting, not those of others.
    fn capacity(&self) -> Capacity {
        Capacity { jobs: 4_096, workers: 1_024 }
    }

    /// §2.2, §2.3.
    fn discover(&self, packet: &Packet, node: &str, view: &View<'_>) -> Option<Discovered> {
        if node != OFFLINE || !view.node.config().offline.enabled {
            return None;
        }
        match (packet.at(), view.session) {
            (At::OWN_ACCOUNT, Some(session)) => Some(told(packet, Reader::new(view.node, session))),
            (At::SERVER, _) => None,
            _ => Some(Discovered::Refused(StanzaCondition::Forbidden.into())),
        }
    }

    fn process(&self, packet: &Packet, view: &View<'_>) -> Outcome {
        let Some(payload) = packet.stanza.payload().filter(|_| view.node.config().offline.enabled) else {
            return Outcome::Pass;
        };
        if !payload.is_ns(OFFLINE) {
            // §2.2: service discovery answers; from here on the client is sent nothing unasked.
            let asks = payload.attr("node") == Some(OFFLINE);
            return if asks { Outcome::Done(vec![fetches()]) } else { Outcome::Pass };
        }
        if packet.at() != At::OWN_ACCOUNT {
            return Outcome::refuse(packet, StanzaCondition::Forbidden);
        }
        let (Some(session), Kind::Iq(kind)) = (view.session, packet.stanza.kind()) else {
            return Outcome::Pass;
        };
        match Asked::read(kind, payload) {
            Ok(asked) => perform(packet, asked, session, view.node),
            Err(error) => Outcome::refuse(packet, error),
        }
    }
}

fn fetches() -> Effect {
    Effect::Session(SessionChange::Fetches)
}

fn perform(packet: &Packet, asked: Asked, session: &SessionState, node: &Arc<NodeContext>) -> Outcome {
    let (reader, packet) = (Reader::new(node, session), packet.clone());
    match asked {
        Asked::View(places) => Outcome::First(
            vec![fetches()],
            Box::pin(async move { done(&packet, view(&reader, &packet, &places).await) }),
        ),
        Asked::Fetch => Outcome::First(
            vec![fetches()],
            Box::pin(async move { done(&packet, fetch(&reader, &packet).await) }),
        ),
        Asked::Remove(places) => {
            Outcome::aside(async move { done(&packet, remove(&reader, &packet, &places).await) })
        }
        Asked::Purge => Outcome::aside(async move {
            let purged = reader.purge().await;
            done(&packet, purged.map(|_count| vec![Effect::Route(packet.stanza.result(None))]))
        }),
    }
}

fn done(packet: &Packet, effects: Result<Effects, StorageError>) -> Effects {
    effects.unwrap_or_else(|error| storage_failed(packet, &error))
}

/// What service discovery says of the node.
fn told(packet: &Packet, reader: Reader) -> Discovered {
    if is_info(packet) {
        return Discovered::Later(Box::pin(async move {
            match reader.count().await {
                Ok(count) => Discovered::Info(info(count)),
                Err(error) => Discovered::Refused(unavailable(&error)),
            }
        }));
    }
    match packet.stanza.payload().map(Headers::read) {
        Some(Ok(headers)) => Discovered::Later(Box::pin(async move {
            match list(&reader, headers).await {
                Ok(list) => Discovered::Told(list),
                Err(error) => Discovered::Refused(unavailable(&error)),
            }
        })),
        Some(Err(error)) => Discovered::Refused(error),
        None => Discovered::nothing(),
    }
}

fn unavailable(error: &StorageError) -> StanzaError {
    let condition = match error {
        StorageError::Busy | StorageError::Unavailable { .. } => StanzaCondition::ResourceConstraint,
        _ => StanzaCondition::InternalServerError,
    };
    condition.into()
}

/// §2.2.
fn info(count: usize) -> Info {
    let form = Form::result().typed(OFFLINE).with(Field::text("number_of_messages").value(count.to_string()));
    Info {
        identities: vec![Identity::new("automation", "message-list")],
        features: [OFFLINE.to_owned()].into(),
        forms: vec![form],
    }
}

/// §2.3: the headers. All, as a rule: where that were more than is sent at once, or where a page is asked for, it is said
/// by XEP-0059 where they end.
async fn list(reader: &Reader, Headers { after, max, paged }: Headers) -> Result<Element, StorageError> {
    let most = reader.most_bytes();
    let live = reader.live().await?;
    let (mut items, mut bytes, mut after) = (Vec::new(), 0, after);
    let complete = 'pages: loop {
        let page = reader.page(&live, after, PAGE).await?;
        for entry in &page.entries {
            let item = header(reader, entry);
            bytes += size(&item);
            if items.len() == max || (bytes > most && !items.is_empty()) {
                break 'pages false;
            }
            items.push(item);
        }
        match page.next {
            Some(next) => after = Some(next),
            None => break true,
        }
    };
    let mut query = Item::list(Some(OFFLINE), &items);
    if paged || !complete {
        let node = |item: Option<&Item>| item.and_then(|item| item.node.clone());
        let (first, last) = (node(items.first()), node(items.last()));
        query.append_child(rsm::page(first.as_deref().zip(last.as_deref()), None));
    }
    Ok(query)
}

fn header(reader: &Reader, entry: &InboxEntry) -> Item {
    let node = Place::from(entry).to_string();
    Item::node(reader.account().clone(), &node, Some(entry.from.as_str()))
}

/// About how many bytes it has.
fn size(item: &Item) -> usize {
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    64 + item.jid.as_str().len() + text(&item.node) + text(&item.name)
}

/// §2.4.
async fn view(reader: &Reader, packet: &Packet, places: &[Place]) -> Result<Effects, StorageError> {
    if !reader.keeps_up().await {
        return Ok(behind(packet));
    }
    let Some(entries) = found(reader, places).await? else { return Ok(unknown(packet)) };
    let mut copies = Copies::default();
    if !copies.add(reader, &entries).await? {
        return Ok(Effects::new());
    }
    Ok(copies.answered(packet))
}

/// §2.6: page after page, as fast as the client reads.
async fn fetch(reader: &Reader, packet: &Packet) -> Result<Effects, StorageError> {
    if !reader.keeps_up().await {
        return Ok(behind(packet));
    }
    let live = reader.live().await?;
    let (mut copies, mut after) = (Copies::default(), None);
    loop {
        let page = reader.page(&live, after, PAGE).await?;
        if !copies.add(reader, &page.entries).await? {
            return Ok(Effects::new());
        }
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(copies.answered(packet)),
        }
    }
}

/// §2.5: all of them or none.
async fn remove(reader: &Reader, packet: &Packet, places: &[Place]) -> Result<Effects, StorageError> {
    if found(reader, places).await?.is_none() {
        return Ok(unknown(packet));
    }
    reader.settle(places.iter().map(|place| place.id)).await?;
    Ok(vec![Effect::Route(packet.stanza.result(None))])
}

/// What waits at those places; `None`, where nothing waits at one of them.
async fn found(reader: &Reader, places: &[Place]) -> Result<Option<Vec<InboxEntry>>, StorageError> {
    let live = reader.live().await?;
    let mut entries = Vec::with_capacity(places.len());
    for place in places {
        match reader.at(&live, *place).await? {
            Some(entry) => entries.push(entry),
            None => return Ok(None),
        }
    }
    Ok(Some(entries))
}

/// Copies that are about to be sent.
#[derive(Default)]
struct Copies {
    copies: Vec<Stanza>,
    bytes: usize,
}

impl Copies {
    /// More of them; what is enough to be sent at once is sent. `false`: the session is over.
    async fn add(&mut self, reader: &Reader, entries: &[InboxEntry]) -> Result<bool, StorageError> {
        let most = reader.most_bytes();
        // Not all texts at once: each may be as large as a page is to be.
        for some in entries.chunks(8) {
            for (place, stanza) in reader.texts(some).await? {
                let copy = copy(&stanza, place);
                self.bytes += copy.to_bytes().len();
                if self.bytes > most && !self.copies.is_empty() {
                    self.bytes = copy.to_bytes().len();
                    if !reader.show(std::mem::take(&mut self.copies)).await {
                        return Ok(false);
                    }
                }
                self.copies.push(copy);
            }
        }
        Ok(true)
    }

    /// The last ones, and the answer behind them: where the session has moved meanwhile neither is told.
    fn answered(mut self, packet: &Packet) -> Effects {
        self.copies.push(packet.stanza.result(None));
        vec![Effect::Copies(self.copies)]
    }
}

/// §2.4: a message with its place, which only the server says.
fn copy(stanza: &Stanza, place: Place) -> Stanza {
    let mut element = stanza.to_element();
    while element.remove_child("offline", OFFLINE).is_some() {}
    let item = Element::builder("item", OFFLINE).set(name!("node"), place.to_string()).build();
    element.append_child(Element::builder("offline", OFFLINE).append(item).build());
    Stanza::parse(element).unwrap_or_else(|_| stanza.clone())
}

fn unknown(packet: &Packet) -> Effects {
    refusal(packet, StanzaError::new(StanzaCondition::ItemNotFound, "no such message waits"))
}

fn behind(packet: &Packet) -> Effects {
    let text = "what was sent before is not read yet";
    refusal(packet, StanzaError::new(StanzaCondition::ResourceConstraint, text))
}

#[cfg(test)]
mod tests;
