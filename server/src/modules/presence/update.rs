//! RFC 6121 §4.2, §4.4, §4.5: initial presence, changes of it, its end.

use althing_proto::jid::{BareJid, FullJid};
use althing_proto::ns;
use althing_proto::stanza::{Kind, PresenceType, Stanza};
use althing_proto::xml::build::BuilderExt;
use althing_proto::xml::{Element, name};

use crate::pipeline::Effects;
use crate::session::core::SessionState;
use crate::session::effect::{Effect, SessionChange, UserEvent};

/// What follows when a client broadcasts presence. The session's own state changes first: the route table
/// knows the priority before anybody hears of it.
pub(super) fn decide(session: &SessionState, stanza: &Stanza) -> Effects {
    if stanza.kind() == Kind::Presence(PresenceType::Unavailable) {
        let mut effects = session.unavailability(stanza);
        if session.presence().is_some() {
            // §4.5.2: the resource that becomes unavailable is told as well; no longer available, it is not
            // among those that the broadcast reaches.
            effects.push(Effect::Deliver(stanza.with_to(session.account().clone())));
        }
        return effects;
    }
    let initial = session.presence().is_none();
    let mut effects = vec![
        Effect::Session(SessionChange::Presence(Some(stanza.clone()))),
        Effect::FanOut { stanza: stanza.clone(), to: session.audience() },
    ];
    if initial {
        effects.extend(session.probe_targets().map(|target| ask(session, target)));
        // §3.1.3: requests that wait are delivered at every login until they are answered.
        let waiting = session.pending_requests().filter_map(|xml| Stanza::from_standalone(xml));
        let to = session.account().clone();
        effects.extend(waiting.map(|request| Effect::Deliver(request.with_to(to.clone()))));
    }
    effects
}

/// §4.3.1: asks an account for its presence; one's own other resources without the detour. The probe comes
/// from the full JID, so that the answer reaches only the session that asks: it stays on this server. One that
/// leaves for another server must come from the bare JID.
fn ask(session: &SessionState, target: &BareJid) -> Effect {
    if target == session.account() {
        let event = UserEvent::Probe { from: session.jid().clone().into() };
        return Effect::Notify { account: target.clone(), event };
    }
    Effect::Route(probe(session.jid(), target))
}

fn probe(from: &FullJid, to: &BareJid) -> Stanza {
    let kind = PresenceType::Probe;
    let element = Element::builder("presence", ns::CLIENT).set(name!("type"), kind.name()).build();
    Stanza::from_parts(Kind::Presence(kind), Some(from.clone().into()), Some(to.clone().into()), element)
}
