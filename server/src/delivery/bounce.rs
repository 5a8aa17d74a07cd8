//! Answers for stanzas that could not be delivered, and the count of all error stanzas made here.

use std::sync::Arc;

use tracing::debug;

use althing_proto::jid::{FullJid, Jid};
use althing_proto::ns;
use althing_proto::stanza::{IqType, Kind, MessageType, PresenceType, Stanza, StanzaCondition, StanzaError};

use super::kept;
use super::settles::Settles;
use crate::metrics::{Delivery, Dropped};
use crate::node::NodeContext;
use crate::pipeline::Effects;
use crate::session::effect::Effect;
use crate::storage::StorageError;
use crate::storage::messages::Settle;

/// Nobody there (RFC 6121 §8.5).
pub fn unavailable(node: &NodeContext, stanza: &Stanza) -> Effects {
    answer(node, stanza, StanzaCondition::ServiceUnavailable.into())
}

/// The receiver's mailbox is full. The policy: the sender is told to wait and try again (RFC 6120
/// §8.3.3.18); nothing is kept.
pub fn congested(node: &Arc<NodeContext>, stanza: &Stanza) -> Effects {
    if let Some(account) = stanza.to().map(Jid::to_bare)
        && let Some(id) = kept::id_of(stanza, &account)
    {
        // It was kept when it was sent the first time.
        Settles::note(node, Settle { user: account, id, device: None });
    }
    let text = "the recipient receives faster than it can handle";
    answer(node, stanza, StanzaError::new(StanzaCondition::ResourceConstraint, text))
}

/// It is larger than what is kept for who is not there.
pub fn too_large(node: &NodeContext, stanza: &Stanza, most: usize) -> Effects {
    let text = format!("nobody is there, and messages of more than {most} bytes are not kept");
    answer(node, stanza, StanzaError::new(StanzaCondition::PolicyViolation, text))
}

/// It cannot be kept now, and so is not delivered either.
pub fn no_room(node: &NodeContext, stanza: &Stanza) -> Effects {
    let text = "the server keeps no more messages now: its disks are nearly full";
    answer(node, stanza, StanzaError::new(StanzaCondition::ResourceConstraint, text))
}

/// It could not be kept for who is not there.
pub fn not_kept(node: &NodeContext, stanza: &Stanza, error: &StorageError) -> Effects {
    let error = match error {
        // XEP-0160 §2 step 3 has `service-unavailable`, by which nobody could tell it from somebody who is away for good.
        StorageError::Full { .. } => {
            let text = "nobody is there, and no more messages are kept";
            StanzaError::new(StanzaCondition::ResourceConstraint, text)
        }
        StorageError::NoRoom { .. } | StorageError::NoRoomInGroup => return no_room(node, stanza),
        error => {
            tracing::warn!(%error, "a message could not be kept");
            match error {
                StorageError::Busy | StorageError::Unavailable { .. } => StanzaCondition::ResourceConstraint,
                StorageError::TooLarge { .. } => StanzaCondition::PolicyViolation,
                _ => StanzaCondition::InternalServerError,
            }
            .into()
        }
    };
    answer(node, stanza, error)
}

/// A component that is configured, but not attached now. Unavailable presence needs no answer: the component has
/// seen nobody.
pub fn detached(node: &NodeContext, stanza: &Stanza) -> Effects {
    if stanza.kind() == Kind::Presence(PresenceType::Unavailable) {
        node.metrics.dropped(Dropped::Rule);
        return Vec::new();
    }
    let text = "the component of this domain is not connected";
    answer(node, stanza, StanzaError::new(StanzaCondition::ServiceUnavailable, text))
}

/// No streams to other servers yet: every other domain is unknown (RFC 6120 §10.4).
pub fn remote(node: &NodeContext, stanza: &Stanza) -> Effects {
    answer(node, stanza, StanzaCondition::RemoteServerNotFound.into())
}

fn answer(node: &NodeContext, stanza: &Stanza, error: StanzaError) -> Effects {
    debug!(stop = "delivery.bounce", condition = error.condition.name());
    match stanza.error(error) {
        Some(answer) => {
            node.metrics.delivery(Delivery::Bounced);
            vec![Effect::Route(answer)]
        }
        None => {
            node.metrics.dropped(Dropped::Undeliverable);
            Vec::new()
        }
    }
}

/// Counts an error stanza of this server that is about to be routed. `client` is the session whose effect
/// it is: errors in its own name are its client's.
pub fn count_error(node: &NodeContext, stanza: &Stanza, client: Option<&FullJid>) {
    let clients_own = client.is_some_and(|client| {
        let from = stanza.from();
        from.is_some_and(|from| from.as_str() == client.as_str())
    });
    if !clients_own && let Some(condition) = error_condition(stanza) {
        node.metrics.stanza_error(condition);
    }
}

/// The condition of a stanza of type `error` (RFC 6120 §8.3.2).
fn error_condition(stanza: &Stanza) -> Option<StanzaCondition> {
    match stanza.kind() {
        Kind::Message(MessageType::Error) | Kind::Presence(PresenceType::Error) | Kind::Iq(IqType::Error) => {
        }
        _ => return None,
    }
    let error = stanza.element().get_child("error", ns::CLIENT)?;
    let condition = |name| StanzaCondition::ALL.iter().copied().find(|known| known.name() == name);
    error.children().filter(|child| child.ns() == ns::STANZA_ERRORS).find_map(|child| condition(child.name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_condition_of_an_error_is_found_and_only_of_an_error() {
        let stanza = |xml: &str| Stanza::parse(xml.parse().unwrap()).unwrap();
        let message = stanza("<message xmlns='jabber:client' from='a@b/c' to='d@e'><body/></message>");
        assert_eq!(error_condition(&message), None);
        let text = StanzaError::new(StanzaCondition::ResourceConstraint, "later");
        let answer = message.error(text).unwrap();
        assert_eq!(error_condition(&answer), Some(StanzaCondition::ResourceConstraint));
    }
}
