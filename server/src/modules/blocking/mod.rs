//! XEP-0191: Blocking Command. Asks and changes; what a block means for stanzas is in `enforce.rs`, what it means
//! for a session in `session/core/privacy.rs`. The list is a part of the default privacy list (XEP-0016): one store.

mod enforce;

use std::sync::Arc;

use althing_proto::jid::{self, BareJid, Jid};
use althing_proto::ns;
use althing_proto::privacy::{PrivacyChange, PrivacyChanged, PrivacyError};
use althing_proto::stanza::{IqType, Kind, StanzaCondition, StanzaError};
use althing_proto::xml::Element;

use super::reporting::{self, Report};
use super::roster::storage_failed;
use super::{Feature, Module, Spec};
use crate::pipeline::{At, Effects, Interest, Outcome, Packet, Verdict, View, refusal};
use crate::session::core::block_item;
use crate::session::effect::{Effect, SessionChange, UserEvent};
use crate::storage::WhichList;

/// The module.
pub(super) const MODULE: Blocking = Blocking;

const SPEC: Spec = Spec { name: "blocking", document: "XEP-0191", version: "1.3", title: "Blocking Command" };

pub(super) struct Blocking;

impl Module for Blocking {
    fn spec(&self) -> Spec {
        SPEC
    }

    fn interests(&self) -> &'static [Interest] {
        // §3.2, §3.3: without a 'to'. Of others' lists nobody learns anything.
        const {
            &[
                Interest::iq_get(ns::BLOCKING, At::OWN_ACCOUNT),
                Interest::iq_set(ns::BLOCKING, At::OWN_ACCOUNT),
            ]
        }
    }

    fn features(&self, _: &View<'_>) -> Vec<Feature> {
        vec![Feature { var: ns::BLOCKING, at: At::SERVER }]
    }

    fn preprocess(&self, packet: &Packet, view: &View<'_>) -> Verdict {
        enforce::decide(packet, view)
    }

    fn process(&self, packet: &Packet, view: &View<'_>) -> Outcome {
        let (Some(owner), Some(payload)) = (packet.account(), packet.stanza.payload()) else {
            return Outcome::Pass;
        };
        if packet.stanza.kind() == Kind::Iq(IqType::Get) {
            return match payload.name() {
                "blocklist" => get(packet, owner, view),
                _ => Outcome::refuse(packet, StanzaCondition::BadRequest),
            };
        }
        match requested(payload) {
            Ok(change) => apply(packet, owner, change, reports(payload), view),
            Err(error) => Outcome::refuse(packet, error),
        }
    }
}

/// §3.2: the whole list; from now on the session wants pushes.
fn get(packet: &Packet, owner: &BareJid, view: &View<'_>) -> Outcome {
    let (storage, owner, packet) = (view.node.storage.clone(), owner.clone(), packet.clone());
    Outcome::later(async move {
        match storage.privacy.load(&owner, WhichList::Default).await {
            Ok(lists) => {
                let list = lists.list.unwrap_or_default();
                let mut blocked: Vec<&Jid> = list.blocked().collect();
                blocked.sort();
                blocked.dedup();
                let items = blocked.into_iter().map(block_item);
                let payload = Element::builder("blocklist", ns::BLOCKING).append_all(items).build();
                vec![
                    // Before the result: a push too many repeats what the result has, one too few would be missed.
                    Effect::Session(SessionChange::AskedForBlocks),
                    Effect::Route(packet.stanza.result(Some(payload))),
                ]
            }
            Err(error) => storage_failed(&packet, &error),
        }
    })
}

/// What a set asks for.
fn requested(payload: &Element) -> Result<PrivacyChange, StanzaError> {
    let bad = |text: &str| StanzaError::new(StanzaCondition::BadRequest, text);
    let items = payload.children().filter(|child| child.is("item", ns::BLOCKING));
    let jids = items
        .map(|item| {
            let jid = item.attr("jid").ok_or_else(|| bad("an <item/> has no 'jid'"))?;
            jid::parse(jid)
                .map_err(|_| StanzaError::new(StanzaCondition::JidMalformed, "an item's 'jid' is not a JID"))
        })
        .collect::<Result<Vec<Jid>, StanzaError>>()?;
    let change = match payload.name() {
        // §3.3.
        "block" if jids.is_empty() => return Err(bad("<block/> has no <item/>")),
        "block" => PrivacyChange::Block(jids),
        // §3.5: all, where none is named.
        "unblock" => PrivacyChange::Unblock(jids),
        _ => return Err(bad("neither <block/> nor <unblock/>")),
    };
    if change.size() > PrivacyChange::MAX_BYTES {
        return Err(StanzaError::new(StanzaCondition::NotAcceptable, "too much for one request"));
    }
    Ok(change)
}

/// XEP-0377: what a block reports of those whom it names.
fn reports(payload: &Element) -> Vec<Result<Report, ()>> {
    if payload.name() != "block" {
        return Vec::new();
    }
    let items = payload.children().filter(|child| child.is("item", ns::BLOCKING));
    items.filter_map(|item| reporting::read(item, &jid::parse(item.attr("jid")?).ok()?)).collect()
}

fn apply(
    packet: &Packet,
    owner: &BareJid,
    change: PrivacyChange,
    reports: Vec<Result<Report, ()>>,
    view: &View<'_>,
) -> Outcome {
    let (node, owner, packet) = (Arc::clone(view.node), owner.clone(), packet.clone());
    Outcome::later(async move {
        match node.storage.privacy.change(&owner, change, node.privacy_limits()).await {
            Ok(Ok(changed)) => {
                let reported = reporting::take(&node, &owner, reports).await;
                let mut effects = changed_effects(&packet, owner, changed);
                effects.extend(reported);
                effects
            }
            Ok(Err(error)) => refused(&packet, error),
            Err(error) => storage_failed(&packet, &error),
        }
    })
}

/// What follows from a change that was made for `packet`.
pub(super) fn changed_effects(packet: &Packet, account: BareJid, changed: PrivacyChanged) -> Effects {
    let result = Effect::Route(packet.stanza.result(None));
    if !changed.changed {
        return vec![result];
    }
    let changed = Arc::new(changed);
    vec![
        // Here at once: what the client sends next must meet the new list.
        Effect::Session(SessionChange::Privacy(Arc::clone(&changed))),
        result,
        Effect::Notify { account, event: UserEvent::Privacy(changed) },
    ]
}

/// The stanza error for a refused change.
pub(super) fn refused(packet: &Packet, error: PrivacyError) -> Effects {
    let condition = match error {
        PrivacyError::TooManyEntries | PrivacyError::TooManyLists | PrivacyError::TooManyItems => {
            StanzaCondition::ResourceConstraint
        }
        PrivacyError::UnknownList => StanzaCondition::ItemNotFound,
        PrivacyError::InUse => StanzaCondition::Conflict,
    };
    refusal(packet, StanzaError::new(condition, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(xml: &str) -> Result<PrivacyChange, StanzaCondition> {
        let xml = xml.replacen('>', " xmlns='urn:xmpp:blocking'>", 1);
        requested(&xml.parse().unwrap()).map_err(|error| error.condition)
    }

    #[test]
    fn a_request_names_addresses() {
        let jid = |text: &str| Jid::new(text).unwrap();
        assert_eq!(
            asked("<block><item jid='a@b'/><item jid='C'/></block>"),
            Ok(PrivacyChange::Block(vec![jid("a@b"), jid("c")]))
        );
        assert_eq!(asked("<unblock></unblock>"), Ok(PrivacyChange::Unblock(Vec::new())));
        for (xml, condition) in [
            ("<block></block>", StanzaCondition::BadRequest),
            ("<block><item/></block>", StanzaCondition::BadRequest),
            ("<unblock><item jid='@'/></unblock>", StanzaCondition::JidMalformed),
            ("<blocklist></blocklist>", StanzaCondition::BadRequest),
        ] {
            assert_eq!(asked(xml), Err(condition), "{xml}");
        }
        let many: String = (0..4_000).map(|n| format!("<item jid='somebody{n}@example.net'/>")).collect();
        assert_eq!(asked(&format!("<block>{many}</block>")), Err(StanzaCondition::NotAcceptable));
    }
}
