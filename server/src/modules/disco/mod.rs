//! XEP-0030: Service Discovery, with XEP-0128. What the server and an account are and can do: what modules say of
//! themselves.

mod capabilities;

use futures_util::future::BoxFuture;

use althing_proto::disco::{Identity, Info, Item};
use althing_proto::jid::BareJid;
use althing_proto::ns;
use althing_proto::stanza::{Stanza, StanzaCondition, StanzaError};
use althing_proto::xml::Element;
use althing_proto::xml::build::ElementExt;

use super::{Feature, Module, Spec};
use crate::components;
use crate::pipeline::{At, Interest, Outcome, Packet, Pass, View, refusal};
use crate::session::effect::Effect;

pub use capabilities::Capabilities;

/// The module.
pub(super) const MODULE: Disco = Disco;

const SPEC: Spec = Spec { name: "disco", document: "XEP-0030", version: "2.5.0", title: "Service Discovery" };

const EVERYWHERE: At = At::SERVER.or(At::OWN_ACCOUNT).or(At::OTHER_ACCOUNT);

/// What a module answers about a node (XEP-0030 §3.2, §4.2).
pub enum Discovered {
    /// To disco#info.
    Info(Info),
    /// To disco#items.
    Items(Vec<Item>),
    /// To either, in words of its own.
    Told(Element),
    /// This asker is not told, or there is no such node after all.
    Refused(StanzaError),
    /// Once something answers.
    Later(BoxFuture<'static, Discovered>),
}

impl Discovered {
    /// No such node.
    #[must_use]
    pub fn nothing() -> Self {
        Discovered::Refused(StanzaCondition::ItemNotFound.into())
    }

    /// `info` to one who asks for that, no items to one who asks for those.
    #[must_use]
    pub fn leaf(packet: &Packet, info: Info) -> Self {
        if is_info(packet) { Discovered::Info(info) } else { Discovered::Items(Vec::new()) }
    }
}

/// Whether a question of service discovery is for info, not for items.
#[must_use]
pub fn is_info(packet: &Packet) -> bool {
    packet.stanza.payload().is_some_and(|query| query.is_ns(ns::DISCO_INFO))
}

pub(super) struct Disco;

impl Module for Disco {
    fn spec(&self) -> Spec {
        SPEC
    }

    fn interests(&self) -> &'static [Interest] {
        const { &[Interest::iq_get(ns::DISCO_INFO, EVERYWHERE), Interest::iq_get(ns::DISCO_ITEMS, EVERYWHERE)] }
    }

    fn features(&self, _: &View<'_>) -> Vec<Feature> {
        let at = At::SERVER.or(At::OWN_ACCOUNT);
        vec![Feature { var: ns::DISCO_INFO, at }, Feature { var: ns::DISCO_ITEMS, at }]
    }

    fn identities(&self, _: &View<'_>) -> Vec<(At, Identity)> {
        vec![
            (At::SERVER, Identity::new("server", "im").named("Althing")),
            (At::OWN_ACCOUNT, Identity::new("account", "registered")),
        ]
    }

    /// Components that are attached: on this node or another.
    fn items(&self, packet: &Packet, view: &View<'_>) -> Vec<Item> {
        let host = packet.stanza.to().filter(|_| packet.pass == Pass::Server);
        let listed = host.map(|host| components::listed(view.node, host.domain().as_str()));
        let item = |(domain, name): (String, Option<String>)| {
            Some(Item::entity(BareJid::new(&domain).ok()?, name.as_deref()))
        };
        listed.into_iter().flatten().filter_map(item).collect()
    }

    fn process(&self, packet: &Packet, view: &View<'_>) -> Outcome {
        let found = ask(packet, view);
        let asked = packet.clone();
        match &packet.pass {
            // Of such a node the answer does not depend on the account, not even on whether there is one.
            Pass::Account(_) if matches!(&found, Discovered::Refused(why) if is_forbidden(why)) => {
                Outcome::Done(told(packet, &found).map(Effect::Route).into_iter().collect())
            }
            Pass::Account(account) if !packet.is_from_account(account) => {
                let Some(asker) = packet.stanza.from().map(|from| from.to_bare()) else {
                    return Outcome::refuse(packet, StanzaCondition::ServiceUnavailable);
                };
                // §8: whoever may not see the account's presence is told what a stranger to an unknown
                // account is told.
                let (storage, owner) = (view.node.storage.clone(), account.clone());
                Outcome::aside(async move {
                    match storage.rosters.item(&owner, &asker).await {
                        Ok(Some(item)) if item.subscription.is_from() => answer(&asked, found).await,
                        Ok(_) => refusal(&asked, StanzaCondition::ServiceUnavailable),
                        Err(_) => refusal(&asked, StanzaCondition::InternalServerError),
                    }
                })
            }
            _ if matches!(found, Discovered::Later(_)) => {
                Outcome::aside(async move { answer(&asked, found).await })
            }
            _ => Outcome::Done(told(packet, &found).map(Effect::Route).into_iter().collect()),
        }
    }
}

/// The answer for one who may know.
fn ask(packet: &Packet, view: &View<'_>) -> Discovered {
    let place = if packet.pass == Pass::Server { At::SERVER } else { At::OWN_ACCOUNT };
    match node_of(packet) {
        Some(node) => {
            let mut modules = view.node.modules.modules();
            modules.find_map(|module| module.discover(packet, node, view)).unwrap_or_else(Discovered::nothing)
        }
        None if is_info(packet) => Discovered::Info(info(place, view)),
        None => {
            let modules = view.node.modules.modules();
            Discovered::Items(modules.flat_map(|module| module.items(packet, view)).collect())
        }
    }
}

/// What all modules together say of a place.
#[must_use]
pub fn info(place: At, view: &View<'_>) -> Info {
    let modules = || view.node.modules.modules();
    let here = |at: &At| at.meets(place);
    let identities = modules().flat_map(|module| module.identities(view)).filter(|(at, _)| here(at));
    let features = modules().flat_map(|module| module.features(view)).filter(|feature| here(&feature.at));
    let forms = modules().flat_map(|module| module.extensions(view)).filter(|(at, _)| here(at));
    Info {
        identities: identities.map(|(_, identity)| identity).collect(),
        features: features.map(|feature| feature.var.to_owned()).collect(),
        forms: forms.map(|(_, form)| form).collect(),
    }
}

fn is_forbidden(error: &StanzaError) -> bool {
    error.condition == StanzaCondition::Forbidden
}

fn node_of(packet: &Packet) -> Option<&str> {
    packet.stanza.payload()?.attr("node")
}

/// What is told, once it is there.
async fn answer(packet: &Packet, mut found: Discovered) -> Vec<Effect> {
    while let Discovered::Later(future) = found {
        found = future.await;
    }
    told(packet, &found).map(Effect::Route).into_iter().collect()
}

/// The stanza that tells what was found.
fn told(packet: &Packet, found: &Discovered) -> Option<Stanza> {
    let (asked, node) = (&packet.stanza, node_of(packet));
    match found {
        Discovered::Info(info) => Some(asked.result(Some(info.to_element(node)))),
        Discovered::Items(items) => Some(asked.result(Some(Item::list(node, items)))),
        Discovered::Told(query) => Some(asked.result(Some(query.clone()))),
        Discovered::Refused(error) => asked.error(error.clone()),
        Discovered::Later(_) => asked.error(StanzaCondition::InternalServerError),
    }
}
