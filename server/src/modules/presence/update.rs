//! RFC 6121 §4.2, §4.4, §4.5: initial presence, changes of it, its end.

use althing_proto::stanza::{Kind, PresenceType, Stanza};

use crate::pipeline::Effects;
use crate::session::core::SessionState;
use crate::session::effect::{Effect, SessionChange};

/// What follows when a client broadcasts presence. The session's own state changes first: the route table
/// knows the priority before anybody hears of it. Who hears of it is found out then: that may take its time.
pub(super) fn decide(session: &SessionState, stanza: &Stanza) -> Effects {
    if stanza.kind() == Kind::Presence(PresenceType::Unavailable) {
        let changes = [
            SessionChange::Said(stanza.clone()),
            SessionChange::Left(stanza.clone()),
            SessionChange::Farewell,
        ];
        let mut effects = Effects::from(changes.map(Effect::Session));
        if session.presence().is_some() {
            // §4.5.2: the resource that becomes unavailable is told as well; no longer available, it is not
            // among those that the broadcast reaches.
            effects.push(Effect::Deliver(stanza.with_to(session.account().clone())));
        }
        return effects;
    }
    let initial = session.presence().is_none();
    let shown = session.advertised(stanza);
    let tell = if initial { SessionChange::Arrive } else { SessionChange::Broadcast };
    let changes = [SessionChange::Said(stanza.clone()), SessionChange::Presence(shown), tell];
    let mut effects = Effects::from(changes.map(Effect::Session));
    if initial {
        // §3.1.3: requests that wait are delivered at every login until they are answered.
        let waiting = session.pending_requests().filter_map(|xml| Stanza::from_standalone(xml));
        let to = session.account().clone();
        effects.extend(waiting.map(|request| Effect::Deliver(request.with_to(to.clone()))));
    }
    let takes = |presence: &Stanza| presence.priority() >= Some(0);
    if takes(stanza) && !session.presence().is_some_and(takes) {
        effects.push(Effect::Session(SessionChange::Drain));
    }
    effects
}
