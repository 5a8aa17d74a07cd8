//! RFC 6121 §4.3: who asks for presence, and who may know.

use althing_proto::jid::{BareJid, Jid};
use althing_proto::ns;
use althing_proto::stanza::{Kind, PresenceType, Stanza};
use althing_proto::xml::build::BuilderExt;
use althing_proto::xml::{Element, name};

use crate::pipeline::{Outcome, Packet, View};
use crate::session::effect::{Effect, UserEvent};

/// A probe of an account. Its available sessions answer for themselves; without any the account answers
/// "unavailable" to those who may know (§4.3.2 rule 3), and "unsubscribed" to others (rule 1).
pub(super) fn of_account(packet: &Packet, account: &BareJid, view: &View<'_>) -> Outcome {
    let Some(from) = packet.stanza.from().cloned() else { return Outcome::Done(Vec::new()) };
    let sessions = view.node.routes.locate_account(account);
    if sessions.iter().any(|(_, route)| route.priority.is_some()) {
        let event = UserEvent::Probe { from };
        return Outcome::Done(vec![Effect::Notify { account: account.clone(), event }]);
    }
    let (storage, account) = (view.node.storage.clone(), account.clone());
    Outcome::later(async move {
        let kind = match storage.rosters.item(&account, &from.to_bare()).await {
            Ok(Some(item)) if item.subscription.is_from() => PresenceType::Unavailable,
            Ok(_) => PresenceType::Unsubscribed,
            Err(error) => {
                tracing::warn!(%error, "storage could not answer: a probe stays unanswered");
                return Vec::new();
            }
        };
        vec![Effect::Route(answer(kind, &account, from))]
    })
}

/// A probe of one session: it answers with its presence if the asker may know.
pub(super) fn of_session(packet: &Packet, view: &View<'_>) -> Outcome {
    let answer =
        view.session.zip(packet.stanza.from()).and_then(|(session, from)| session.answer_probe(from));
    Outcome::Done(answer.into_iter().collect())
}

fn answer(kind: PresenceType, from: &BareJid, to: Jid) -> Stanza {
    let element = Element::builder("presence", ns::CLIENT).set(name!("type"), kind.name()).build();
    Stanza::from_parts(Kind::Presence(kind), Some(from.clone().into()), Some(to), element)
}
