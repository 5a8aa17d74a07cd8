//! XEP-0049: Private XML Storage. A row for each namespace that a client keeps something in.

use std::sync::Arc;

use althing_proto::jid::BareJid;
use althing_proto::ns;
use althing_proto::stanza::{IqType, Kind, StanzaCondition, StanzaError};
use althing_proto::xml::build::ElementExt;
use althing_proto::xml::{Element, writer};

use super::roster::storage_failed;
use super::{Feature, Module, Spec};
use crate::node::NodeContext;
use crate::pipeline::{At, Interest, Outcome, Packet, View, refusal};
use crate::session::effect::Effect;
use crate::storage::{RowBound, StorageError};

/// The module.
pub(super) const MODULE: Private = Private;

const SPEC: Spec =
    Spec { name: "private", document: "XEP-0049", version: "1.2", title: "Private XML Storage" };

pub(super) struct Private;

impl Module for Private {
    fn spec(&self) -> Spec {
        SPEC
    }

    fn interests(&self) -> &'static [Interest] {
        const {
            let at = At::OWN_ACCOUNT.or(At::OTHER_ACCOUNT);
            &[Interest::iq_get(ns::PRIVATE, at), Interest::iq_set(ns::PRIVATE, at)]
        }
    }

    fn features(&self, _: &View<'_>) -> Vec<Feature> {
        vec![Feature { var: ns::PRIVATE, at: At::SERVER.or(At::OWN_ACCOUNT) }]
    }

    fn process(&self, packet: &Packet, view: &View<'_>) -> Outcome {
        let Some(owner) = packet.account().filter(|account| packet.is_from_account(account)) else {
            // The same for an account that does not exist.
            return Outcome::refuse(packet, StanzaCondition::Forbidden);
        };
        let Some(query) = packet.stanza.payload().filter(|query| query.name() == "query") else {
            return Outcome::refuse(packet, StanzaCondition::BadRequest);
        };
        let get = packet.stanza.kind() == Kind::Iq(IqType::Get);
        match namespace(query, get) {
            Ok(namespace) if get => load(packet, owner, namespace, view),
            Ok(namespace) => keep(packet, owner, namespace, query, view.node),
            Err(error) => Outcome::refuse(packet, error),
        }
    }
}

/// The one namespace that the children are in.
fn namespace(query: &Element, get: bool) -> Result<String, StanzaError> {
    let mut children = query.children();
    let Some(first) = children.next() else {
        // The XEP's "bad format" is no condition of RFC 6120.
        let condition = if get { StanzaCondition::BadRequest } else { StanzaCondition::NotAcceptable };
        return Err(StanzaError::new(condition, "the query has no child element"));
    };
    let namespace = first.ns();
    if get && children.next().is_some() {
        return Err(StanzaError::new(StanzaCondition::BadRequest, "a get is for one element"));
    }
    if children.any(|child| !child.is_ns(&namespace)) {
        return Err(StanzaError::new(StanzaCondition::NotAcceptable, "a set is for one namespace"));
    }
    let reserved = namespace.starts_with("jabber:")
        || namespace.starts_with("http://jabber.org/")
        || matches!(namespace.as_str(), "" | "vcard-temp");
    if reserved {
        return Err(StanzaError::new(StanzaCondition::NotAcceptable, "the namespace is reserved"));
    }
    Ok(namespace)
}

fn load(packet: &Packet, owner: &BareJid, namespace: String, view: &View<'_>) -> Outcome {
    let (storage, owner, packet) = (view.node.storage.clone(), owner.clone(), packet.clone());
    Outcome::aside(async move {
        match storage.private.get(&owner, ns::PRIVATE, &namespace).await {
            Ok(stored) => {
                // What is not there is an empty element of the asked name.
                let query = stored.and_then(|xml| Element::from_reader(&*xml).ok());
                let query = query.or_else(|| {
                    let asked = packet.stanza.payload()?.children().next()?;
                    let none = Element::bare(asked.name(), asked.ns());
                    Some(Element::builder("query", ns::PRIVATE).append(none).build())
                });
                vec![Effect::Route(packet.stanza.result(query))]
            }
            Err(error) => storage_failed(&packet, &error),
        }
    })
}

/// Keeps the children in the place of what the namespace had before.
fn keep(
    packet: &Packet,
    owner: &BareJid,
    namespace: String,
    query: &Element,
    node: &Arc<NodeContext>,
) -> Outcome {
    let kept = Element::builder("query", ns::PRIVATE).append_all(query.children().cloned()).build();
    let mut xml = Vec::new();
    writer::write_element(&kept, ns::CLIENT, &mut xml);
    let bound = bound(node);
    let (storage, owner, packet) = (node.storage.clone(), owner.clone(), packet.clone());
    Outcome::aside(async move {
        match storage.private.put_within(&owner, ns::PRIVATE, &namespace, xml, bound).await {
            Ok(()) => vec![Effect::Route(packet.stanza.result(None))],
            Err(error @ (StorageError::Full { .. } | StorageError::TooLarge { .. })) => {
                refusal(&packet, StanzaError::new(StanzaCondition::ResourceConstraint, error.to_string()))
            }
            Err(error) => storage_failed(&packet, &error),
        }
    })
}

fn bound(node: &NodeContext) -> RowBound {
    let config = node.config();
    let limits = &config.limits;
    let rows = u32::try_from(limits.private_namespaces).unwrap_or(u32::MAX);
    RowBound { rows, bytes: limits.private_bytes as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(xml: &str, get: bool) -> Result<String, StanzaCondition> {
        let query = format!("<query xmlns='jabber:iq:private'>{xml}</query>").parse().unwrap();
        namespace(&query, get).map_err(|error| error.condition)
    }

    #[test]
    fn a_request_is_for_one_namespace_that_is_not_reserved() {
        let (bad, not) = (Err(StanzaCondition::BadRequest), Err(StanzaCondition::NotAcceptable));
        let one = Ok("a:b".to_owned());
        assert_eq!(condition("<x xmlns='a:b'/>", true), one);
        assert_eq!(condition("<x xmlns='a:b'/><y xmlns='a:b'>z</y>", false), one);
        assert_eq!(condition("<x xmlns='a:b'/><y xmlns='a:b'/>", true), bad);
        assert_eq!(condition("<x xmlns='a:b'/><y xmlns='a:c'/>", false), not);
        assert_eq!(condition("", true), bad);
        assert_eq!(condition("text", false), not);
        for reserved in ["jabber:iq:private", "jabber:client", "http://jabber.org/protocol/muc", "vcard-temp"]
        {
            assert_eq!(condition(&format!("<x xmlns='{reserved}'/>"), false), not, "{reserved}");
        }
    }
}
