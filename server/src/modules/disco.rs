//! XEP-0030: Service Discovery. What the server and an account are and can do.

use althing_proto::ns;
use althing_proto::stanza::{Stanza, StanzaCondition};
use althing_proto::xml::build::{BuilderExt, ElementExt};
use althing_proto::xml::{Element, name};

use super::{Feature, Module, Spec};
use crate::pipeline::{At, Interest, Outcome, Packet, Pass, View, refusal};
use crate::session::effect::Effect;

/// The module.
pub(super) const MODULE: Disco = Disco;

const SPEC: Spec = Spec { name: "disco", document: "XEP-0030", version: "2.5.0", title: "Service Discovery" };

const EVERYWHERE: At = At::SERVER.or(At::OWN_ACCOUNT).or(At::OTHER_ACCOUNT);

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

    fn process(&self, packet: &Packet, view: &View<'_>) -> Outcome {
        let answer = decide(packet, view);
        match &packet.pass {
            Pass::Account(account) if !packet.is_from_account(account) => {
                let Some(asker) = packet.stanza.from().map(|from| from.to_bare()) else {
                    return Outcome::refuse(packet, StanzaCondition::ServiceUnavailable);
                };
                // §8: whoever may not see the account's presence is told what a stranger to an unknown
                // account is told.
                let (storage, owner, packet) = (view.node.storage.clone(), account.clone(), packet.clone());
                Outcome::later(async move {
                    match storage.rosters.item(&owner, &asker).await {
                        Ok(Some(item)) if item.subscription.is_from() => vec![Effect::Route(answer)],
                        Ok(_) => refusal(&packet, StanzaCondition::ServiceUnavailable),
                        Err(_) => refusal(&packet, StanzaCondition::InternalServerError),
                    }
                })
            }
            _ => Outcome::reply(answer),
        }
    }
}

/// The answer for one who may know.
fn decide(packet: &Packet, view: &View<'_>) -> Stanza {
    let payload = packet.stanza.payload();
    let node = payload.and_then(|query| query.attr("node"));
    let info = payload.is_some_and(|query| query.is_ns(ns::DISCO_INFO));
    if node.is_some() {
        // §3.2, §4.2: no nodes here yet.
        let none = packet.stanza.error(StanzaCondition::ItemNotFound);
        return none.unwrap_or_else(|| packet.stanza.result(None));
    }
    let query = match (&packet.pass, info) {
        (Pass::Server, true) => info_of("server", "im", Some("Althing"), At::SERVER, view),
        (_, true) => info_of("account", "registered", None, At::OWN_ACCOUNT, view),
        // Neither the server nor an account has items: components and nodes come with later modules.
        (_, false) => Element::bare("query", ns::DISCO_ITEMS),
    };
    packet.stanza.result(Some(query))
}

fn info_of(category: &str, kind: &str, title: Option<&str>, at: At, view: &View<'_>) -> Element {
    let mut identity = Element::builder("identity", ns::DISCO_INFO)
        .set(name!("category"), category)
        .set(name!("type"), kind)
        .build();
    if let Some(title) = title {
        identity.set(name!("name"), title);
    }
    let mut vars: Vec<&str> = view
        .node
        .modules
        .modules()
        .flat_map(|module| module.features(view))
        .filter(|feature| feature.at.meets(at))
        .map(|feature| feature.var)
        .collect();
    vars.sort_unstable();
    vars.dedup();
    let features = vars
        .into_iter()
        .map(|var| Element::builder("feature", ns::DISCO_INFO).set(name!("var"), var).build());
    Element::builder("query", ns::DISCO_INFO).append(identity).append_all(features).build()
}
