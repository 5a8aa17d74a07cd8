//! RFC 6121 §4.6: presence to one address.

use althing_proto::jid::Jid;
use althing_proto::stanza::{Kind, PresenceType, StanzaCondition, StanzaError};

use crate::pipeline::{Effects, Packet, refusal};
use crate::session::core::{MAX_DIRECTED, MAX_DIRECTED_BYTES, SessionState};
use crate::session::effect::{Effect, SessionChange};

/// What follows when a client sends presence to `to`.
pub(super) fn decide(session: &SessionState, packet: &Packet, to: &Jid) -> Effects {
    let available = packet.stanza.kind() == Kind::Presence(PresenceType::Available);
    if available && !session.may_direct_to([to]) {
        let text = format!(
            "directed presence to more than {MAX_DIRECTED} addresses, or to {MAX_DIRECTED_BYTES} bytes of them"
        );
        return refusal(packet, StanzaError::new(StanzaCondition::ResourceConstraint, text));
    }
    // §4.6.3: whoever was told learns of the end, unless the broadcast tells it anyway.
    if available {
        // XEP-0398: directed presence shows the avatar too.
        let stanza = session.advertised(&packet.stanza);
        return vec![Effect::Session(SessionChange::Directed(to.clone())), Effect::Route(stanza)];
    }
    // It is forgotten when it is told: the session may end in between, and must not leave it out then.
    vec![Effect::Route(packet.stanza.clone()), Effect::Session(SessionChange::Undirected(to.clone()))]
}
