//! RFC 6121 §4.2, §4.4, §4.5: initial presence, changes of it, its end.

use althing_proto::stanza::{Kind, PresenceType, Stanza};

use crate::pipeline::Effects;
use crate::session::core::SessionState;
use crate::session::effect::{Effect, SessionChange};

/// What follows when a client broadcasts presence. The session's own state changes first: the route table
/// knows the priority before anybody hears of it.
pub(super) fn decide(session: &SessionState, stanza: &Stanza) -> Effects {
    if stanza.kind() == Kind::Presence(PresenceType::Unavailable) {
        let mut effects = vec![Effect::Session(SessionChange::Said(stanza.clone()))];
        effects.extend(session.unavailability(stanza));
        if session.presence().is_some() {
            // §4.5.2: the resource that becomes unavailable is told as well; no longer available, it is not
            // among those that the broadcast reaches.
            effects.push(Effect::Deliver(stanza.with_to(session.account().clone())));
        }
        return effects;
    }
    let initial = session.presence().is_none();
    let shown = session.advertised(stanza);
    let mut effects = vec![
        Effect::Session(SessionChange::Said(stanza.clone())),
        Effect::Session(SessionChange::Presence(Some(shown.clone()))),
        session.broadcast(shown),
    ];
    if initial {
        // The answers come to the session that asks and to no other.
        effects.push(Effect::Probe {
            from: session.jid().clone(),
            asker: session.index(),
            targets: session.probe_targets().cloned().collect(),
        });
        // §3.1.3: requests that wait are delivered at every login until they are answered.
        let waiting = session.pending_requests().filter_map(|xml| Stanza::from_standalone(xml));
        let to = session.account().clone();
        effects.extend(waiting.map(|request| Effect::Deliver(request.with_to(to.clone()))));
    }
    effects
}
