//! XEP-0016: Privacy Lists. Asks and changes; what a list means is with the block list (`blocking/enforce.rs`,
//! `session/core/privacy.rs`), which is a part of it. Invisibility by lists (XEP-0126) is one use of them.

mod rules;

use std::collections::HashSet;
use std::sync::Arc;

use althing_proto::jid::BareJid;
use althing_proto::ns;
use althing_proto::privacy::{
    Connected, Item, ListHead, Lists, PrivacyChange, PrivacyChanged, SessionKey, Subject,
};
use althing_proto::stanza::{IqType, Kind, StanzaCondition, StanzaError};
use althing_proto::xml::build::BuilderExt;
use althing_proto::xml::{Element, name};

use super::blocking::{changed_effects, refused};
use super::roster::storage_failed;
use super::{Feature, Module, Spec};
use crate::node::NodeContext;
use crate::pipeline::{At, Effects, Interest, Outcome, Packet, View, refusal};
use crate::session::core::SessionState;
use crate::session::effect::{Effect, SessionChange};
use crate::storage::{StorageError, WhichList};

use rules::{Asked, Wanted};

/// The module.
pub(super) const MODULE: Privacy = Privacy;

const SPEC: Spec = Spec { name: "privacy", document: "XEP-0016", version: "1.7", title: "Privacy Lists" };

pub(super) struct Privacy;

impl Module for Privacy {
    fn spec(&self) -> Spec {
        SPEC
    }

    fn interests(&self) -> &'static [Interest] {
        const { &[Interest::iq_get(ns::PRIVACY, At::OWN_ACCOUNT), Interest::iq_set(ns::PRIVACY, At::OWN_ACCOUNT)] }
    }

    fn features(&self, _: &View<'_>) -> Vec<Feature> {
        vec![Feature { var: ns::PRIVACY, at: At::SERVER }]
    }

    fn process(&self, packet: &Packet, view: &View<'_>) -> Outcome {
        let (Some(owner), Some(payload), Some(session)) =
            (packet.account(), packet.stanza.payload(), view.session)
        else {
            return Outcome::Pass;
        };
        if payload.name() != "query" {
            return Outcome::refuse(packet, StanzaCondition::BadRequest);
        }
        let outcome = if packet.stanza.kind() == Kind::Iq(IqType::Get) {
            rules::asked(payload).map(|asked| match asked {
                Asked::Names => names(packet, owner, session, view),
                Asked::List(name) => list(packet, owner, name, view),
            })
        } else {
            rules::wanted(payload).map(|wanted| change(packet, owner, session, wanted, view))
        };
        outcome.unwrap_or_else(|error| Outcome::refuse(packet, error))
    }
}

/// §2.3: the active list, the default list, and all.
fn names(packet: &Packet, owner: &BareJid, session: &SessionState, view: &View<'_>) -> Outcome {
    let (storage, owner, packet) = (view.node.storage.clone(), owner.clone(), packet.clone());
    let active = session.active_list();
    Outcome::later(async move {
        match storage.privacy.load(&owner, WhichList::None).await {
            Ok(lists) => vec![Effect::Route(packet.stanza.result(Some(named(&lists, active))))],
            Err(error) => storage_failed(&packet, &error),
        }
    })
}

fn named(lists: &Lists, active: Option<u32>) -> Element {
    let element = |word: &str, head: &ListHead| {
        Element::builder(word, ns::PRIVACY).set(name!("name"), head.name.as_str()).build()
    };
    let numbered = |word, number: Option<u32>| {
        let head = lists.heads.iter().find(|head| Some(head.number) == number);
        head.map(|head| element(word, head))
    };
    Element::builder("query", ns::PRIVACY)
        .append_all(numbered("active", active))
        .append_all(numbered("default", lists.default))
        .append_all(lists.heads.iter().map(|head| element("list", head)))
        .build()
}

/// §2.3: one list.
fn list(packet: &Packet, owner: &BareJid, name: String, view: &View<'_>) -> Outcome {
    let (storage, owner, packet) = (view.node.storage.clone(), owner.clone(), packet.clone());
    Outcome::later(async move {
        match storage.privacy.load(&owner, WhichList::Named(name.clone())).await {
            Ok(Lists { list: Some(list), .. }) => {
                let items = list.rules();
                let list = Element::builder("list", ns::PRIVACY)
                    .set(name!("name"), name)
                    .append_all(items.iter().map(rules::item));
                let query = Element::builder("query", ns::PRIVACY).append(list).build();
                vec![Effect::Route(packet.stanza.result(Some(query)))]
            }
            Ok(_) => refusal(&packet, StanzaCondition::ItemNotFound),
            Err(error) => storage_failed(&packet, &error),
        }
    })
}

fn change(
    packet: &Packet,
    owner: &BareJid,
    session: &SessionState,
    wanted: Wanted,
    view: &View<'_>,
) -> Outcome {
    let sessions = connected(view.node, session);
    let groups = match &wanted {
        Wanted::List(_, rules) => groups(rules),
        _ => HashSet::new(),
    };
    let change = match wanted {
        Wanted::Active(name) => PrivacyChange::SetActive { name, sessions },
        Wanted::Default(name) => PrivacyChange::SetDefault { name, sessions },
        Wanted::List(name, rules) => PrivacyChange::SetList { name, rules },
        Wanted::NoList(name) => PrivacyChange::RemoveList { name, sessions },
    };
    if change.size() > PrivacyChange::MAX_BYTES {
        let error = StanzaError::new(StanzaCondition::NotAcceptable, "too much for one request");
        return Outcome::refuse(packet, error);
    }
    let (node, owner, packet) = (Arc::clone(view.node), owner.clone(), packet.clone());
    Outcome::later(async move {
        match has_groups(&node, &owner, &groups).await {
            Ok(true) => {}
            // §2.1.
            Ok(false) => {
                let error =
                    StanzaError::new(StanzaCondition::ItemNotFound, "there is no contact in that group");
                return refusal(&packet, error);
            }
            Err(error) => return storage_failed(&packet, &error),
        }
        let is_active = matches!(change, PrivacyChange::SetActive { .. });
        match node.storage.privacy.change(&owner, change, node.privacy_limits()).await {
            Ok(Ok(changed)) if is_active => activated(&packet, &changed),
            Ok(Ok(changed)) => changed_effects(&packet, owner, changed),
            Ok(Err(error)) => refused(&packet, error),
            Err(error) => storage_failed(&packet, &error),
        }
    })
}

/// §2.4: it applies before the result is on its way. Nobody else hears of it.
fn activated(packet: &Packet, changed: &PrivacyChanged) -> Effects {
    let list = (changed.list != 0).then_some(changed.list);
    vec![Effect::Session(SessionChange::ActiveList(list)), Effect::Route(packet.stanza.result(None))]
}

/// The groups that rules are about.
fn groups(rules: &[Item]) -> HashSet<String> {
    let group = |rule: &Item| match &rule.subject {
        Subject::Group(group) => Some(group.clone()),
        _ => None,
    };
    rules.iter().filter_map(group).collect()
}

/// Whether each group has somebody in it.
async fn has_groups(
    node: &NodeContext,
    owner: &BareJid,
    groups: &HashSet<String>,
) -> Result<bool, StorageError> {
    if groups.is_empty() {
        return Ok(true);
    }
    let roster = node.storage.rosters.load(owner).await?;
    let known: HashSet<&String> = roster.items.iter().flat_map(|item| &item.groups).collect();
    Ok(groups.iter().all(|group| known.contains(group)))
}

/// The sessions of the account, for a change that looks at what applies to them.
fn connected(node: &NodeContext, session: &SessionState) -> Connected {
    let own = node.session_key(session.index());
    let mut others = Vec::new();
    node.routes.visit_account(session.account(), &mut |_, route| {
        if route.index != session.index() {
            others.push(SessionKey { bind: route.index.0, ..own });
        }
    });
    Connected { own, others, latest: node.routes.applied() }
}
