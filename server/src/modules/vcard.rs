//! XEP-0054: vcard-temp. One vCard an account, kept as a document, shown to everybody who asks.

use althing_proto::jid::BareJid;
use althing_proto::ns;
use althing_proto::stanza::{IqType, Kind, StanzaCondition, StanzaError};
use althing_proto::vcard;
use althing_proto::xml::{Element, writer};

use super::roster::storage_failed;
use super::{Feature, Module, Spec, search};
use crate::pipeline::{At, Effects, Interest, Outcome, Packet, View, refusal};
use crate::session::avatar::Avatar;
use crate::session::effect::{Effect, UserEvent};
use crate::storage::profile::NewDocument;
use crate::storage::{Storage, StorageError};

/// The module.
pub(super) const MODULE: Vcard = Vcard;

const SPEC: Spec = Spec { name: "vcard", document: "XEP-0054", version: "1.3.0", title: "vcard-temp" };

pub(super) struct Vcard;

impl Module for Vcard {
    fn spec(&self) -> Spec {
        SPEC
    }

    fn interests(&self) -> &'static [Interest] {
        const {
            let at = At::OWN_ACCOUNT.or(At::OTHER_ACCOUNT);
            &[Interest::iq_get(ns::VCARD, at), Interest::iq_set(ns::VCARD, at)]
        }
    }

    fn features(&self, _: &View<'_>) -> Vec<Feature> {
        vec![Feature { var: ns::VCARD, at: At::SERVER.or(At::OWN_ACCOUNT) }]
    }

    fn process(&self, packet: &Packet, view: &View<'_>) -> Outcome {
        let Some(owner) = packet.account() else { return Outcome::Pass };
        let own = packet.is_from_account(owner);
        let Some(vcard) = packet.stanza.payload().filter(|vcard| vcard.name() == "vCard") else {
            return Outcome::refuse(packet, StanzaCondition::BadRequest);
        };
        match packet.stanza.kind() {
            Kind::Iq(IqType::Get) => get(packet, owner, own, view),
            // The same whether the account exists or not.
            _ if !own => Outcome::refuse(packet, StanzaCondition::Forbidden),
            _ => set(packet, owner, vcard, view),
        }
    }
}

/// §3.1 and §3.3. Of somebody else, no vCard looks like no account; an empty one is none.
fn get(packet: &Packet, owner: &BareJid, own: bool, view: &View<'_>) -> Outcome {
    let (storage, owner, packet) = (view.node.storage.clone(), owner.clone(), packet.clone());
    Outcome::aside(async move {
        match load(&storage, &owner).await {
            Ok(Some(vcard)) if own || vcard.children().next().is_some() => {
                vec![Effect::Route(packet.stanza.result(Some(vcard)))]
            }
            Ok(_) if own => refusal(&packet, StanzaCondition::ItemNotFound),
            Ok(_) => refusal(&packet, StanzaCondition::ServiceUnavailable),
            Err(error) => storage_failed(&packet, &error),
        }
    })
}

async fn load(storage: &Storage, owner: &BareJid) -> Result<Option<Element>, StorageError> {
    let document = storage.documents.load(owner, ns::VCARD).await?;
    Ok(document.and_then(|document| Element::from_reader(&*document.content).ok()))
}

/// §3.2: the new vCard in the place of the old one.
fn set(packet: &Packet, owner: &BareJid, vcard: &Element, view: &View<'_>) -> Outcome {
    let mut content = Vec::new();
    writer::write_element(vcard, ns::CLIENT, &mut content);
    let limit = view.node.config().limits.vcard_bytes;
    if content.len() > limit {
        let text = format!("a vCard has at most {limit} bytes, this one has {}", content.len());
        return Outcome::refuse(packet, StanzaError::new(StanzaCondition::PolicyViolation, text));
    }
    let hash = vcard::photo_hash(vcard);
    let (words, shown) = search::listing(owner, vcard);
    let note = hash.clone().unwrap_or_default().into();
    let new = NewDocument { content: content.into(), note, words, shown };
    let (storage, owner, packet) = (view.node.storage.clone(), owner.clone(), packet.clone());
    Outcome::aside(async move {
        match storage.documents.store(&owner, ns::VCARD, new).await {
            Ok(revision) => stored(&packet, owner, Avatar { revision, hash }),
            Err(error) => storage_failed(&packet, &error),
        }
    })
}

/// The answer, then word to all sessions of the account: their presence shows the new photo (XEP-0398).
fn stored(packet: &Packet, account: BareJid, avatar: Avatar) -> Effects {
    let event = UserEvent::Avatar(avatar);
    vec![Effect::Route(packet.stanza.result(None)), Effect::Notify { account, event }]
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use althing_proto::stanza::Stanza;

    use super::*;
    use crate::node::NodeContext;
    use crate::pipeline::Pass;

    #[actix_rt::test]
    async fn a_vcard_is_bounded_by_the_configuration() {
        let node = NodeContext::for_tests();
        node.configure(|config| config.limits.vcard_bytes = 1_024);
        let node = Arc::new(node);
        let account = BareJid::new("a@localhost").unwrap();
        node.has_account(&account).await;
        let view = View { node: &node, session: None, now: node.now() };
        let mut answers = Vec::new();
        for size in [900, 1_024] {
            let xml = format!(
                "<iq xmlns='jabber:client' type='set' id='v' from='a@localhost/x'><vCard xmlns='vcard-temp'>\
                 <DESC>{}</DESC></vCard></iq>",
                "x".repeat(size)
            );
            let stanza = Stanza::parse(xml.parse().unwrap()).unwrap();
            let effects = match Vcard.process(&Packet::new(stanza, Pass::Account(account.clone())), &view) {
                Outcome::Later(future) | Outcome::Aside(future) => future.await,
                Outcome::Done(effects) => effects,
                _ => Vec::new(),
            };
            match effects.first() {
                Some(Effect::Route(answer)) => answers.push(answer.error_condition()),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(answers, [None, Some(StanzaCondition::PolicyViolation)]);
    }
}
