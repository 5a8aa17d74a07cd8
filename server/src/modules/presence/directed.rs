//! RFC 6121 §4.6: presence to one address.

use althing_proto::jid::Jid;
use althing_proto::stanza::{Kind, PresenceType, StanzaCondition, StanzaError};

use crate::pipeline::{Effects, Packet, refusal};
use crate::session::core::{MAX_DIRECTED, SessionState};
use crate::session::effect::{Effect, SessionChange};

/// What follows when a client sends presence to `to`.
pub(super) fn decide(session: &SessionState, packet: &Packet, to: &Jid) -> Effects {
    let available = packet.stanza.kind() == Kind::Presence(PresenceType::Available);
    if available && session.directed_full() {
        let text = format!("directed presence to more than {MAX_DIRECTED} addresses");
        return refusal(packet, StanzaError::new(StanzaCondition::ResourceConstraint, text));
    }
    // §4.6.3: whoever was told learns of the end, unless the broadcast tells it anyway.
    let change =
        if available { SessionChange::Directed(to.clone()) } else { SessionChange::Undirected(to.clone()) };
    // XEP-0398: directed presence shows the avatar too.
    let stanza = if available { session.advertised(&packet.stanza) } else { packet.stanza.clone() };
    vec![Effect::Session(change), Effect::Route(stanza)]
}
