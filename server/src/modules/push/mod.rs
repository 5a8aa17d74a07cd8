//! XEP-0357: Push Notifications. A client says where its user's device is reached while it has no connection; the server
//! publishes there that something has come (`notify.rs`).
//!
//! A registration is a row of the user's private data, by service and node. It knows the resource that made it: who is
//! away altogether is told at all of them, a session that waits without a connection at its own.

mod notify;

use std::sync::Arc;

use althing_proto::form::{Form, FormKind};
use althing_proto::jid::{self, BareJid};
use althing_proto::ns;
use althing_proto::stanza::{StanzaCondition, StanzaError};
use althing_proto::xml::{Element, writer};
use serde::{Deserialize, Serialize};

use althing_cluster::wire;

use super::roster::storage_failed;
use super::{Feature, Module, Spec};
use crate::node::NodeContext;
use crate::pipeline::{At, Interest, Outcome, Packet, View, refusal};
use crate::session::effect::Effect;
use crate::storage::{RowBound, StorageError};

pub use notify::{Pushes, notify};

const PUSH: &str = "urn:xmpp:push:0";
const PUBLISH_OPTIONS: &str = "http://jabber.org/protocol/pubsub#publish-options";

/// Most registrations of an account that are looked at: `push.registrations` is no larger.
const MOST: usize = 100;

/// Longest publish options, in bytes: each notification bears them.
const MAX_OPTIONS: usize = 4 * 1024;

/// The module.
pub(super) const MODULE: Push = Push;

const SPEC: Spec = Spec { name: "push", document: "XEP-0357", version: "0.4.1", title: "Push Notifications" };

pub(super) struct Push;

impl Module for Push {
    fn spec(&self) -> Spec {
        SPEC
    }

    fn interests(&self) -> &'static [Interest] {
        const { &[Interest::iq_set(PUSH, At::OWN_ACCOUNT.or(At::OTHER_ACCOUNT))] }
    }

    /// §5.1.
    fn features(&self, view: &View<'_>) -> Vec<Feature> {
        match view.node.config().push.enabled {
            true => vec![Feature { var: PUSH, at: At::OWN_ACCOUNT }],
            false => Vec::new(),
        }
    }

    fn process(&self, packet: &Packet, view: &View<'_>) -> Outcome {
        if !view.node.config().push.enabled {
            return Outcome::Pass;
        }
        let Some(owner) = packet.account().filter(|account| packet.is_from_account(account)) else {
            return Outcome::refuse(packet, StanzaCondition::Forbidden);
        };
        let Some(payload) = packet.stanza.payload() else {
            return Outcome::refuse(packet, StanzaCondition::BadRequest);
        };
        match decide(payload) {
            Ok(Asked::Enable { to, .. }) if is_somebody_else(view.node, &to, owner) => {
                let text = format!("{} is another user's address, and no push service", to.jid);
                Outcome::refuse(packet, StanzaError::new(StanzaCondition::NotAllowed, text))
            }
            Ok(Asked::Enable { to, options }) if is_reachable(view.node, &to) => {
                enable(packet, owner.clone(), &to, options, view)
            }
            Ok(Asked::Enable { to, .. }) => {
                let text =
                    format!("{} is no component here, and there is no way to other servers", to.jid.domain());
                Outcome::refuse(packet, StanzaError::new(StanzaCondition::RemoteServerNotFound, text))
            }
            Ok(Asked::Disable { service, node }) => disable(packet, owner.clone(), service, node, view),
            Err(error) => Outcome::refuse(packet, error),
        }
    }
}

/// Where a service and a node of it are.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    jid: jid::Jid,
    node: Option<String>,
}

/// No address has this, so no key is the beginning of another service's.
const SEPARATOR: char = '\u{0}';

impl Place {
    fn key(&self) -> String {
        let node = self.node.as_deref().unwrap_or_default();
        format!("{}{SEPARATOR}{node}", self.jid)
    }

    fn of_key(key: &str) -> Option<Place> {
        let (jid, node) = key.split_once(SEPARATOR)?;
        Some(Place {
            jid: jid::parse(jid).ok()?,
            node: Some(node.to_owned()).filter(|node| !node.is_empty()),
        })
    }
}

/// What is kept of a registration, beside its place. Fields never change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Registration {
    /// Which resource made it.
    resource: Option<String>,
    /// The form of §6 as XML; empty: none.
    options: Vec<u8>,
}

#[derive(Debug, PartialEq, Eq)]
enum Asked {
    /// §6.
    Enable { to: Place, options: Vec<u8> },
    /// §7.
    Disable { service: jid::Jid, node: Option<String> },
}

fn decide(payload: &Element) -> Result<Asked, StanzaError> {
    let refuse = |condition, text: &str| Err(StanzaError::new(condition, text.to_owned()));
    let Some(service) = payload.attr("jid") else {
        return refuse(StanzaCondition::BadRequest, "the jid of the push service is missing");
    };
    let Ok(service) = jid::parse(service) else {
        return refuse(StanzaCondition::JidMalformed, "the jid of the push service is none");
    };
    let node = payload.attr("node").map(str::to_owned).filter(|node| !node.is_empty());
    match payload.name() {
        "disable" => Ok(Asked::Disable { service, node }),
        "enable" => {
            let mut options = Vec::new();
            if let Some(form) = payload.get_child("x", ns::DATA_FORMS) {
                let parsed = Form::parse(form).ok().filter(|form| form.kind == FormKind::Submit);
                if parsed.as_ref().and_then(Form::form_type) != Some(PUBLISH_OPTIONS) {
                    return refuse(StanzaCondition::BadRequest, "the form has no publish options");
                }
                writer::write_element(form, ns::CLIENT, &mut options);
                if options.len() > MAX_OPTIONS {
                    return refuse(StanzaCondition::NotAcceptable, "the publish options are too long");
                }
            }
            Ok(Asked::Enable { to: Place { jid: service, node }, options })
        }
        _ => refuse(StanzaCondition::BadRequest, "it is to be enabled or disabled"),
    }
}

/// Whether it is another account of this server: each message to one user would have the server itself write to the other.
fn is_somebody_else(node: &NodeContext, to: &Place, owner: &BareJid) -> bool {
    node.serves(to.jid.domain().as_str()) && to.jid.node().is_some() && to.jid.to_bare() != *owner
}

/// Whether anything there could be asked: what only other servers have cannot.
fn is_reachable(node: &NodeContext, to: &Place) -> bool {
    let (domain, config) = (to.jid.domain(), node.config());
    node.serves(domain.as_str())
        || config.components.external.iter().any(|external| external.domain == domain.as_str())
        || node.components.domain(node.routes.as_ref(), domain).is_some()
}

/// §6: the last request counts.
fn enable(packet: &Packet, owner: BareJid, to: &Place, options: Vec<u8>, view: &View<'_>) -> Outcome {
    let resource =
        packet.stanza.from().and_then(|from| from.resource()).map(|resource| resource.as_str().to_owned());
    let Ok(row) = wire::encode(&Registration { resource, options }) else {
        return Outcome::refuse(packet, StanzaCondition::NotAcceptable);
    };
    let rows = u32::try_from(view.node.config().push.registrations).unwrap_or(u32::MAX);
    let bound = RowBound { rows, bytes: u64::from(rows) * 16 * 1024 };
    let (node, key, packet) = (Arc::clone(view.node), to.key(), packet.clone());
    Outcome::aside(async move {
        match node.storage.private.put_within(&owner, PUSH, &key, row.to_vec(), bound).await {
            Ok(()) => {
                node.pushes.begin_anew(owner, key);
                vec![Effect::Route(packet.stanza.result(None))]
            }
            Err(error @ (StorageError::Full { .. } | StorageError::TooLarge { .. })) => {
                refusal(&packet, StanzaError::new(StanzaCondition::ResourceConstraint, error.to_string()))
            }
            Err(error) => storage_failed(&packet, &error),
        }
    })
}

/// §7: one node of a service, or all. What is not enabled is disabled already.
fn disable(
    packet: &Packet,
    owner: BareJid,
    service: jid::Jid,
    node: Option<String>,
    view: &View<'_>,
) -> Outcome {
    let (private, packet) = (view.node.storage.private.clone(), packet.clone());
    Outcome::aside(async move {
        let disabled = async {
            let rows = private.list(&owner, PUSH, None, MOST).await?;
            for (key, _) in rows {
                let Some(place) = Place::of_key(&key) else { continue };
                if place.jid == service && (node.is_none() || place.node == node) {
                    private.delete(&owner, PUSH, &key).await?;
                }
            }
            Ok(())
        };
        match disabled.await {
            Ok(()) => vec![Effect::Route(packet.stanza.result(None))],
            Err(error) => storage_failed(&packet, &error),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(xml: &str) -> Result<Asked, StanzaCondition> {
        decide(&xml.parse().unwrap()).map_err(|error| error.condition)
    }

    #[test]
    fn what_is_asked_is_told_apart() {
        let place =
            |node: Option<&str>| Place { jid: jid::parse("p.d").unwrap(), node: node.map(str::to_owned) };
        let enable = |node| Ok(Asked::Enable { to: place(node), options: Vec::new() });
        assert_eq!(asked("<enable xmlns='urn:xmpp:push:0' jid='p.d' node='n'/>"), enable(Some("n")));
        assert_eq!(asked("<enable xmlns='urn:xmpp:push:0' jid='p.d'/>"), enable(None));
        let disable = Asked::Disable { service: jid::parse("p.d").unwrap(), node: None };
        assert_eq!(asked("<disable xmlns='urn:xmpp:push:0' jid='p.d'/>"), Ok(disable));
        assert_eq!(asked("<enable xmlns='urn:xmpp:push:0'/>"), Err(StanzaCondition::BadRequest));
        assert_eq!(asked("<enable xmlns='urn:xmpp:push:0' jid='@'/>"), Err(StanzaCondition::JidMalformed));
        assert_eq!(asked("<ask xmlns='urn:xmpp:push:0' jid='p.d'/>"), Err(StanzaCondition::BadRequest));
        let form = |form_type: &str, value: &str| {
            format!(
                "<enable xmlns='urn:xmpp:push:0' jid='p.d'><x xmlns='jabber:x:data' type='submit'><field \
                 var='FORM_TYPE'><value>{form_type}</value></field><field var='secret'><value>{value}</value></field></x></enable>"
            )
        };
        let Ok(Asked::Enable { options, .. }) = asked(&form(PUBLISH_OPTIONS, "s")) else { panic!("refused") };
        assert!(String::from_utf8(options).unwrap().contains("<value>s</value>"));
        assert_eq!(asked(&form("other", "s")), Err(StanzaCondition::BadRequest));
        assert_eq!(asked(&form(PUBLISH_OPTIONS, &"s".repeat(5_000))), Err(StanzaCondition::NotAcceptable));
        for place in [place(None), place(Some("n"))] {
            assert_eq!(Place::of_key(&place.key()), Some(place));
        }
    }
}
