//! RFC 6121 §3: the handshake between two accounts. The table itself is `althing_proto::roster`.

use std::sync::Arc;

use althing_proto::jid::BareJid;
use althing_proto::roster::{Direction, RosterChange, SubscriptionEvent, SubscriptionKind};
use althing_proto::stanza::{PresenceType, StanzaCondition, StanzaError};

use crate::modules::roster::{changed_effects, roster_error, storage_failed, subscription_stanza};
use crate::pipeline::{Outcome, Packet, View, refusal};
use crate::session::effect::{Audience, Effect, UserEvent};

/// The sender's side: its roster first, then the stanza goes on between bare JIDs (§3.1.2).
pub(super) fn outbound(packet: &Packet, kind: PresenceType, view: &View<'_>) -> Outcome {
    let (Some(kind), Some(session)) = (SubscriptionKind::from_type(kind.name()), view.session) else {
        return Outcome::Pass;
    };
    let owner = session.account().clone();
    let Some(contact) = packet.stanza.to().map(|to| to.to_bare()).filter(|contact| *contact != owner) else {
        let text = "a subscription is to the bare JID of somebody else";
        return Outcome::refuse(packet, StanzaError::new(StanzaCondition::BadRequest, text));
    };
    let (node, packet) = (Arc::clone(view.node), packet.clone());
    Outcome::later(async move {
        let change = RosterChange::Subscription(SubscriptionEvent {
            direction: Direction::Outbound,
            kind,
            request: None,
        });
        match node.storage.rosters.change(&owner, &contact, change, node.roster_limits()).await {
            Ok(Ok(changed)) => {
                let stanza = packet.stanza.with_from(owner.clone()).with_to(contact.clone());
                let mut effects = changed_effects(&owner, &contact, &changed);
                if changed.outcome.route {
                    // A request may be granted at once (§3.4): its own push comes before that of the grant. Of the others
                    // presence may follow, which comes behind the stanza.
                    let place = if kind == SubscriptionKind::Subscribe { effects.len() } else { 0 };
                    effects.insert(place, Effect::Route(stanza));
                }
                effects
            }
            Ok(Err(error)) => refusal(&packet, roster_error(error)),
            Err(error) => storage_failed(&packet, &error),
        }
    })
}

/// The receiver's side: its roster, then its sessions (§3.1.3, §3.1.6, §3.2.3, §3.3.3).
pub(super) fn inbound(packet: &Packet, owner: &BareJid, kind: PresenceType, view: &View<'_>) -> Outcome {
    let (Some(kind), Some(from)) = (SubscriptionKind::from_type(kind.name()), packet.stanza.from()) else {
        return Outcome::Pass;
    };
    let contact = from.to_bare();
    let stanza = packet.stanza.with_from(contact.clone()).with_to(owner.clone());
    let (node, owner, packet) = (Arc::clone(view.node), owner.clone(), packet.clone());
    Outcome::later(async move {
        match node.storage.accounts.get(&owner).await {
            Ok(Some(_)) => {}
            // §8.5.1: silence, so that nobody can find out which accounts exist.
            Ok(None) => return Vec::new(),
            Err(error) => return storage_failed(&packet, &error),
        }
        let request = (kind == SubscriptionKind::Subscribe).then(|| stanza.to_standalone());
        let change =
            RosterChange::Subscription(SubscriptionEvent { direction: Direction::Inbound, kind, request });
        match node.storage.rosters.change(&owner, &contact, change, node.roster_limits()).await {
            Ok(Ok(changed)) => {
                let mut effects = Vec::new();
                if let Some(reply) = changed.outcome.reply {
                    effects.push(Effect::Route(subscription_stanza(reply, &owner, &contact)));
                }
                if changed.outcome.route {
                    let audience = match kind {
                        SubscriptionKind::Subscribe => Audience::Available,
                        _ => Audience::Interested,
                    };
                    let event = UserEvent::Stanza { stanza, audience };
                    effects.push(Effect::Notify { account: owner.clone(), event });
                }
                let changes = changed_effects(&owner, &contact, &changed);
                if changed.outcome.route && kind == SubscriptionKind::Subscribe {
                    // First the request that waits, then its delivery: a session that becomes available in
                    // between has it from either.
                    effects.splice(0..0, changes);
                } else {
                    effects.extend(changes);
                }
                effects
            }
            Ok(Err(error)) => refusal(&packet, roster_error(error)),
            Err(error) => storage_failed(&packet, &error),
        }
    })
}
