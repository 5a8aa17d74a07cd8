//! XEP-0313: Message Archive Management: a user asks for what was said. What goes into the archive is decided where
//! messages are kept (`delivery/keeping.rs`), by the preferences (XEP-0441) at the commit.
//!
//! Everything is paged by the order of commits, so that no later page can miss a message. A page has a bound in messages
//! and bytes; it is asked for aside, and waits a moment for a client that does not keep up.

mod preferences;
mod query;
mod results;
mod retraction;

use std::sync::Arc;

use althing_proto::ns;
use althing_proto::stanza::{IqType, Kind, Stanza, StanzaCondition, StanzaError};
use althing_proto::xml::build::BuilderExt;
use althing_proto::xml::{Element, name};

use super::roster::storage_failed;
use super::{Feature, Module, Spec};
use crate::node::NodeContext;
use crate::pipeline::{At, Effects, Interest, Outcome, Packet, Verdict, View, refusal};
use crate::session::core::SessionState;
use crate::session::effect::Effect;
use crate::storage::StorageError;
use crate::storage::messages::{ArchiveEnds, ArchiveQuery};

use query::Query;

/// The module.
pub(super) const MODULE: Archive = Archive;

const SPEC: Spec = Spec {
    name: "archive",
    document: "XEP-0313",
    version: "1.1.3",
    title: "Message Archive Management, with XEP-0441 and the tombstones of XEP-0424",
};

/// §8: before-id, after-id, ids, flipped pages, metadata.
const EXTENDED: &str = "urn:xmpp:mam:2#extended";
/// §8: the field is understood. No archive has groupchat: rooms have their own.
const GROUPCHAT_FIELD: &str = "urn:xmpp:mam:2#groupchat-field";
/// XEP-0424 §5.
const TOMBSTONES: &str = "urn:xmpp:message-retract:1#tombstone";

pub(super) struct Archive;

impl Module for Archive {
    fn spec(&self) -> Spec {
        SPEC
    }

    fn interests(&self) -> &'static [Interest] {
        const {
            let accounts = At::OWN_ACCOUNT.or(At::OTHER_ACCOUNT);
            &[Interest::iq_get(ns::MAM, accounts), Interest::iq_set(ns::MAM, accounts)]
        }
    }

    fn features(&self, view: &View<'_>) -> Vec<Feature> {
        if !view.node.config().archive.enabled {
            return Vec::new();
        }
        let own =
            [ns::MAM, EXTENDED, GROUPCHAT_FIELD, TOMBSTONES].map(|var| Feature { var, at: At::OWN_ACCOUNT });
        own.into_iter().chain([Feature { var: ns::RETRACTION, at: At::SERVER }]).collect()
    }

    /// XEP-0424: whoever takes a message back has it taken out of the archives before anybody hears of it.
    fn preprocess(&self, packet: &Packet, view: &View<'_>) -> Verdict {
        retraction::retract(packet, view)
    }

    fn process(&self, packet: &Packet, view: &View<'_>) -> Outcome {
        if !view.node.config().archive.enabled {
            return Outcome::Pass;
        }
        if packet.at() != At::OWN_ACCOUNT {
            return Outcome::refuse(packet, StanzaCondition::Forbidden);
        }
        let (Some(payload), Some(session)) = (packet.stanza.payload(), view.session) else {
            return Outcome::Pass;
        };
        match (packet.stanza.kind(), payload.name()) {
            (Kind::Iq(IqType::Get), "query") => Outcome::reply(packet.stanza.result(Some(query::form()))),
            (Kind::Iq(IqType::Get), "metadata") => metadata(packet, session, view.node),
            (Kind::Iq(IqType::Get), "prefs") => preferences::get(packet, session, view.node),
            (Kind::Iq(IqType::Set), "prefs") => preferences::set(packet, payload, session, view.node),
            (Kind::Iq(IqType::Set), "query") => match Query::read(payload) {
                Ok(query) => page(packet, query, session, view.node),
                Err(error) => Outcome::refuse(packet, error),
            },
            _ => {
                let text = "neither a query nor metadata nor preferences";
                Outcome::refuse(packet, StanzaError::new(StanzaCondition::BadRequest, text))
            }
        }
    }
}

/// §4: the page that is asked for, and then the answer.
fn page(packet: &Packet, query: Query, session: &SessionState, node: &Arc<NodeContext>) -> Outcome {
    let (node, packet) = (Arc::clone(node), packet.clone());
    let (jid, own) = (session.jid().clone(), node.sessions.get(session.index()));
    Outcome::aside(async move {
        if let Some(own) = own {
            // A client that asks for page after page gets them no faster than it reads.
            let pressure = own.pressure();
            pressure.brake().await;
            if pressure.is_congested() {
                let text = "earlier pages are not read yet";
                return refusal(&packet, StanzaError::new(StanzaCondition::ResourceConstraint, text));
            }
        }
        let asked: ArchiveQuery = query.archive.clone();
        match node.storage.archive.page(&jid.to_bare(), asked).await {
            Ok(Ok(page)) => {
                let most = results::most_bytes(node.config().limits.outbox_bytes);
                let (results, fin) = results::of(page, &query, &jid, most);
                answer(&packet, results, fin)
            }
            Ok(Err(unknown)) => {
                let text = format!("{} is not in the archive", unknown.0);
                refusal(&packet, StanzaError::new(StanzaCondition::ItemNotFound, text))
            }
            Err(error) => failed(&packet, &error),
        }
    })
}

/// The results and the answer, in this order: they take the same way.
fn answer(packet: &Packet, results: Vec<Stanza>, fin: Element) -> Effects {
    let answer = packet.stanza.result(Some(fin));
    results.into_iter().chain([answer]).map(Effect::Deliver).collect()
}

fn failed(packet: &Packet, error: &StorageError) -> Effects {
    match error {
        StorageError::TooLarge { .. } => {
            refusal(packet, StanzaError::new(StanzaCondition::NotAcceptable, error.to_string()))
        }
        error => storage_failed(packet, error),
    }
}

/// §5.
fn metadata(packet: &Packet, session: &SessionState, node: &Arc<NodeContext>) -> Outcome {
    let (storage, account, packet) = (node.storage.clone(), session.account().clone(), packet.clone());
    Outcome::aside(async move {
        match storage.archive.ends(&account).await {
            Ok(ends) => vec![Effect::Route(packet.stanza.result(Some(described(ends.as_ref()))))],
            Err(error) => storage_failed(&packet, &error),
        }
    })
}

fn described(ends: Option<&ArchiveEnds>) -> Element {
    let ends = ends.into_iter().flat_map(|ends| [("start", ends.first), ("end", ends.last)]);
    let children = ends.map(|(name, (id, stamp))| {
        Element::builder(name, ns::MAM)
            .set(name!("id"), id.to_string())
            .set(name!("timestamp"), stamp.to_xep0082())
            .build()
    });
    Element::builder("metadata", ns::MAM).append_all(children).build()
}

#[cfg(test)]
mod tests;
