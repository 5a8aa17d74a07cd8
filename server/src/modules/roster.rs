//! RFC 6121 §2: the roster: get, set, remove, push.

use std::collections::HashSet;

use bytes::Bytes;

use althing_proto::jid::{self, BareJid, FullJid};
use althing_proto::ns;
use althing_proto::roster::{RosterChange, RosterError, RosterItem, SubscriptionKind};
use althing_proto::stanza::{IqType, Kind, PresenceType, Stanza, StanzaCondition, StanzaError};
use althing_proto::stream::error::{StreamCondition, StreamError};
use althing_proto::xml::build::{BuilderExt, ElementExt};
use althing_proto::xml::{Element, name};

use super::{Module, Spec};
use crate::pipeline::{At, Effects, Interest, Outcome, Packet, View, refusal};
use crate::session::effect::{Effect, RosterChanged, SessionChange, UserEvent};
use crate::storage::{Changed, RosterNews, StorageError};

/// The module.
pub(super) const MODULE: RosterModule = RosterModule;

const SPEC: Spec = Spec { name: "roster", document: "RFC 6121 §2", version: "", title: "Roster" };

/// So many changes are told one by one, however small the roster is.
const FEW_CHANGES: usize = 5;

pub(super) struct RosterModule;

impl Module for RosterModule {
    fn spec(&self) -> Spec {
        SPEC
    }

    fn interests(&self) -> &'static [Interest] {
        const {
            let at = At::OWN_ACCOUNT.or(At::OTHER_ACCOUNT).or(At::SERVER);
            &[Interest::iq_get(ns::ROSTER, at), Interest::iq_set(ns::ROSTER, at)]
        }
    }

    /// §2.6.1.
    fn stream_features(&self) -> Vec<Element> {
        vec![Element::bare("ver", ns::ROSTER_VERSIONING)]
    }

    fn process(&self, packet: &Packet, view: &View<'_>) -> Outcome {
        let Some(owner) = packet.account().filter(|account| packet.is_from_account(account)) else {
            // §2.1.5, §2.3.3: nobody handles another's roster.
            return Outcome::refuse(packet, StanzaCondition::Forbidden);
        };
        match (packet.stanza.kind(), packet.stanza.payload()) {
            (Kind::Iq(IqType::Get), Some(query)) if query.children().next().is_none() => {
                get(packet, owner, query.attr("ver"), view)
            }
            (Kind::Iq(IqType::Set), Some(query)) => match requested(query) {
                Ok((contact, change)) => set(packet, owner, contact, change, view),
                Err(error) => Outcome::refuse(packet, error),
            },
            _ => Outcome::refuse(packet, StanzaCondition::BadRequest),
        }
    }
}

/// §2.2: the whole roster; from now on the session wants pushes. Whoever names the version that it has (§2.6.2) gets
/// what is new since: nothing, pushes, or the whole where that is less.
fn get(packet: &Packet, owner: &BareJid, version: Option<&str>, view: &View<'_>) -> Outcome {
    let has: Option<u64> = version.and_then(|version| version.parse().ok());
    let (storage, owner, packet) = (view.node.storage.clone(), owner.clone(), packet.clone());
    let Some(session) = view.session else { return Outcome::refuse(&packet, StanzaCondition::Forbidden) };
    if let Some(version) = has.filter(|version| *version == session.roster_version()) {
        // The session has loaded the roster at its bind, or later: the store need not be asked.
        return Outcome::Done(vec![
            Effect::Route(packet.stanza.result(None)),
            Effect::Session(SessionChange::Interested { version }),
        ]);
    }
    let jid = session.jid().clone();
    // A push is a stanza of its own, with an answer; an item of the whole roster is not.
    let most = u32::try_from(FEW_CHANGES.max(session.contact_count() / 2)).unwrap_or(u32::MAX);
    Outcome::later(async move {
        let news = match has {
            Some(version) => storage.rosters.since(&owner, version, most).await,
            None => storage.rosters.load(&owner).await.map(RosterNews::Whole),
        };
        match news {
            Ok(RosterNews::Whole(roster)) => {
                let items = roster.items.iter().filter(|item| item.listed).map(item_element);
                let query = Element::builder("query", ns::ROSTER)
                    .set(name!("ver"), roster.version.to_string())
                    .append_all(items)
                    .build();
                vec![
                    Effect::Route(packet.stanza.result(Some(query))),
                    // After the result: the client would take an earlier push for older than the result.
                    Effect::Session(SessionChange::Interested { version: roster.version }),
                ]
            }
            Ok(changes) => {
                // §2.6.3: an empty result, then what is new.
                let mut effects = vec![Effect::Route(packet.stanza.result(None))];
                effects.extend(missed_pushes(&jid, changes));
                effects
            }
            Err(error) => storage_failed(&packet, &error),
        }
    })
}

/// The pushes that bring a client that lacks `news` up to date.
pub fn missed_pushes(jid: &FullJid, news: RosterNews) -> Effects {
    match news {
        RosterNews::Changes { version, changes } => {
            let pushes =
                changes.iter().map(|change| push(&change.contact, change.item.as_ref(), change.version));
            let pushes = pushes.map(|push| Effect::Deliver(push.with_to(jid.clone())));
            pushes.chain([Effect::Session(SessionChange::Interested { version })]).collect()
        }
        // More changes than are remembered, all at once: pushes cannot tell what has gone. It has to begin anew.
        RosterNews::Whole(_) => {
            let text = "more roster changes were missed than are remembered: connect again";
            let error = StreamError::new(StreamCondition::Reset, text);
            vec![Effect::Session(SessionChange::Close(error))]
        }
    }
}

/// §2.3 to §2.5: adds, updates or removes one item.
fn set(packet: &Packet, owner: &BareJid, contact: BareJid, change: RosterChange, view: &View<'_>) -> Outcome {
    if contact == *owner {
        // Not forbidden by the RFC, but a subscription to oneself has no meaning (§3.1.1).
        return Outcome::refuse(packet, StanzaError::new(StanzaCondition::NotAllowed, "one's own address"));
    }
    let (node, owner, packet) = (std::sync::Arc::clone(view.node), owner.clone(), packet.clone());
    Outcome::later(async move {
        let limits = node.roster_limits();
        match node.storage.rosters.change(&owner, &contact, change, limits).await {
            Ok(Ok(changed)) => {
                let mut effects = vec![Effect::Route(packet.stanza.result(None))];
                effects.extend(changed_effects(&owner, &contact, &changed));
                for kind in &changed.outcome.cancel {
                    effects.push(Effect::Route(subscription_stanza(*kind, &owner, &contact)));
                }
                effects
            }
            Ok(Err(error)) => refusal(&packet, roster_error(error)),
            Err(error) => storage_failed(&packet, &error),
        }
    })
}

/// What a roster set asks for (§2.1.3: exactly one item).
fn requested(query: &Element) -> Result<(BareJid, RosterChange), StanzaError> {
    let bad = |text: &str| StanzaError::new(StanzaCondition::BadRequest, text);
    let mut items = query.children().filter(|child| child.is("item", ns::ROSTER));
    let (Some(item), None) = (items.next(), items.next()) else {
        return Err(bad("a roster set has exactly one <item/>"));
    };
    let jid = item.attr("jid").ok_or_else(|| bad("the <item/> has no 'jid'"))?;
    let jid = jid::parse(jid)
        .map_err(|_| StanzaError::new(StanzaCondition::JidMalformed, "the item's 'jid' is not a JID"))?;
    let contact = jid.into_bare();
    if item.attr("subscription") == Some("remove") {
        return Ok((contact, RosterChange::Remove));
    }
    // §2.1.2.5: other values of 'subscription' are the server's to set: ignored.
    let name = item.attr("name").filter(|name| !name.is_empty()).map(str::to_owned);
    let groups =
        item.children().filter(|child| child.is("group", ns::ROSTER)).map(Element::text).collect::<Vec<_>>();
    let distinct: HashSet<&str> = groups.iter().map(String::as_str).collect();
    if distinct.len() != groups.len() {
        return Err(bad("a group is given twice"));
    }
    Ok((contact, RosterChange::Set { name, groups }))
}

/// The effects of a change on the owner's sessions: their view of the contact, and the push.
pub(super) fn changed_effects(owner: &BareJid, contact: &BareJid, changed: &Changed) -> Effects {
    let item = changed.outcome.item.as_ref();
    let push = changed.outcome.push.then(|| push(contact, item, changed.version));
    let event = RosterChanged {
        version: changed.version,
        contact: contact.clone(),
        subscription: item.map(|item| item.subscription).unwrap_or_default(),
        pending: item.and_then(|item| item.pending_in.clone()).map(Bytes::from),
        push,
    };
    vec![Effect::Notify { account: owner.clone(), event: UserEvent::Roster(event) }]
}

/// §2.1.6: the push of an item, or of its removal, for one of the sessions of the account.
fn push(contact: &BareJid, item: Option<&RosterItem>, version: u64) -> Stanza {
    let element = match item.filter(|item| item.listed) {
        Some(item) => item_element(item),
        None => Element::builder("item", ns::ROSTER)
            .set(name!("jid"), contact.as_str())
            .set(name!("subscription"), "remove")
            .build(),
    };
    let query = Element::builder("query", ns::ROSTER).set(name!("ver"), version.to_string()).append(element);
    let iq = Element::builder("iq", ns::CLIENT)
        .set(name!("type"), IqType::Set.name())
        .set(name!("id"), format!("push-{version}"))
        .append(query)
        .build();
    // From the account; no `from` says so (RFC 6120 §8.1.2.1).
    Stanza::from_parts(Kind::Iq(IqType::Set), None, None, iq)
}

/// A subscription stanza between bare JIDs (§3: servers send it so).
pub(super) fn subscription_stanza(kind: SubscriptionKind, from: &BareJid, to: &BareJid) -> Stanza {
    let element = Element::builder("presence", ns::CLIENT).set(name!("type"), kind.as_str()).build();
    let kind = match kind {
        SubscriptionKind::Subscribe => PresenceType::Subscribe,
        SubscriptionKind::Subscribed => PresenceType::Subscribed,
        SubscriptionKind::Unsubscribe => PresenceType::Unsubscribe,
        SubscriptionKind::Unsubscribed => PresenceType::Unsubscribed,
    };
    Stanza::from_parts(Kind::Presence(kind), Some(from.clone().into()), Some(to.clone().into()), element)
}

/// §2.1.2: the item as a client sees it.
pub(super) fn item_element(item: &RosterItem) -> Element {
    let mut element = Element::builder("item", ns::ROSTER)
        .set(name!("jid"), item.jid.as_str())
        .set(name!("subscription"), item.subscription.as_str())
        .append_all(
            item.groups
                .iter()
                .map(|group| Element::builder("group", ns::ROSTER).append(group.as_str()).build()),
        )
        .build();
    if let Some(name) = &item.name {
        element.set(name!("name"), name);
    }
    if item.ask {
        element.set(name!("ask"), "subscribe");
    }
    if item.approved {
        element.set(name!("approved"), "true");
    }
    element
}

/// The stanza error that RFC 6121 names for a refused change.
pub(super) fn roster_error(error: RosterError) -> StanzaError {
    let condition = match error {
        RosterError::UnknownItem => StanzaCondition::ItemNotFound,
        RosterError::DuplicateGroup => StanzaCondition::BadRequest,
        RosterError::EmptyGroup
        | RosterError::GroupTooLong
        | RosterError::TooManyGroups
        | RosterError::NameTooLong => StanzaCondition::NotAcceptable,
        RosterError::RosterFull | RosterError::TooManyRequests => StanzaCondition::ResourceConstraint,
    };
    StanzaError::new(condition, error.to_string())
}

/// The answer when the storage could not: the operator gets the reason, the client does not.
pub(super) fn storage_failed(packet: &Packet, error: &StorageError) -> Effects {
    tracing::warn!(%error, "storage could not answer");
    let condition = match error {
        StorageError::Busy
        | StorageError::Unavailable { .. }
        | StorageError::NoRoom { .. }
        | StorageError::NoRoomInGroup => StanzaCondition::ResourceConstraint,
        _ => StanzaCondition::InternalServerError,
    };
    refusal(packet, condition)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(xml: &str) -> Result<(BareJid, RosterChange), StanzaCondition> {
        requested(&format!("<query xmlns='jabber:iq:roster'>{xml}</query>").parse().unwrap())
            .map_err(|error| error.condition)
    }

    /// RFC 6121 §2.6.3: a login without changes costs an empty result, however large the roster is, and no read.
    #[actix_rt::test]
    async fn who_is_current_gets_an_empty_result_at_once() {
        use althing_cluster::routes::BindIndex;

        use crate::node::NodeContext;
        use crate::pipeline::Pass;
        use crate::session::core::SessionState;

        let node = std::sync::Arc::new(NodeContext::for_tests());
        let owner = BareJid::new("a@localhost").unwrap();
        let items = (0..1_000).map(|n| RosterItem::new(BareJid::new(&format!("c{n}@x")).unwrap())).collect();
        let session = SessionState::new(FullJid::new("a@localhost/r").unwrap(), BindIndex(1), 1_700, items);
        let view = View { node: &node, session: Some(&session), now: node.now() };
        let ask = |version: &str| {
            let query = format!(
                "<iq xmlns='jabber:client' type='get' id='1'><query xmlns='jabber:iq:roster' ver='{version}'/></iq>"
            );
            let stanza = Stanza::parse(query.parse().unwrap()).unwrap().with_from(session.jid().clone());
            RosterModule.process(&Packet::new(stanza, Pass::Account(owner.clone())), &view)
        };
        let Outcome::Done(effects) = ask("1700") else { panic!("the store is asked") };
        let [Effect::Route(result), Effect::Session(SessionChange::Interested { version: 1_700 })] =
            &effects[..]
        else {
            panic!("{effects:?}")
        };
        assert!(result.payload().is_none());
        for other in ["1699", "1701", "", "x"] {
            assert!(matches!(ask(other), Outcome::Later(_)), "{other}");
        }
    }

    #[test]
    fn a_set_names_one_item() {
        assert_eq!(request(""), Err(StanzaCondition::BadRequest));
        assert_eq!(request("<item jid='a@b'/><item jid='c@b'/>"), Err(StanzaCondition::BadRequest));
        assert_eq!(request("<item/>"), Err(StanzaCondition::BadRequest));
        assert_eq!(request("<item jid='@'/>"), Err(StanzaCondition::JidMalformed));
        let (contact, change) =
            request("<item jid='a@b/c' name='' subscription='both'><group>x</group></item>").unwrap();
        assert_eq!(contact.as_str(), "a@b");
        assert_eq!(change, RosterChange::Set { name: None, groups: vec!["x".to_owned()] });
        assert_eq!(request("<item jid='a@b' subscription='remove'/>").unwrap().1, RosterChange::Remove);
        assert_eq!(
            request("<item jid='a@b'><group>x</group><group>x</group></item>"),
            Err(StanzaCondition::BadRequest)
        );
    }
}
