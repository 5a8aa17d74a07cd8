//! RFC 6121 §4.3: who asks for presence, and who may know.

use std::sync::Arc;

use althing_proto::jid::{BareJid, Jid};
use althing_proto::ns;
use althing_proto::privacy::Kinds;
use althing_proto::stanza::{Kind, PresenceType, Stanza};
use althing_proto::xml::build::BuilderExt;
use althing_proto::xml::{Element, name};

use crate::delivery::probes;
use crate::pipeline::{Outcome, Packet, View};
use crate::session::effect::{Effect, UserEvent};

/// A probe of an account. Its available sessions answer for themselves; without any the account answers
/// "unavailable" to those who may know (§4.3.2 rule 3), and "unsubscribed" to others (rule 1).
pub(super) fn of_account(packet: &Packet, account: &BareJid, view: &View<'_>) -> Outcome {
    let Some(from) = packet.stanza.from().cloned() else { return Outcome::Done(Vec::new()) };
    let (node, account) = (Arc::clone(view.node), account.clone());
    if packet.is_from_account(&account) {
        return Outcome::Done(vec![Effect::Notify { account, event: UserEvent::Probe { from } }]);
    }
    Outcome::aside(async move {
        // Who may know comes first: an answer that depends on who is there would tell a stranger.
        let kind = match node.storage.privacy.judge(&account, &from).await {
            // Its sessions may have other lists, and look at them.
            Ok(judged) if judged.item.as_ref().is_some_and(|item| item.subscription.is_from()) => {
                // Read last: a session that came meanwhile must not be called unavailable. One that hides looks like none
                // (XEP-0186 §3.1.1 rule 8).
                if probes::any_shown(&node, &account, &from).await {
                    return vec![Effect::Notify { account, event: UserEvent::Probe { from } }];
                }
                if judged.denied.meets(Kinds::OTHER.or(Kinds::PRESENCE_OUT)) {
                    // XEP-0191 §3.3: silence.
                    return Vec::new();
                }
                PresenceType::Unavailable
            }
            Ok(judged) if judged.denied.meets(Kinds::OTHER) => return Vec::new(),
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

#[cfg(test)]
mod tests {
    use althing_proto::jid::FullJid;
    use althing_proto::roster::{Direction, RosterChange, SubscriptionEvent, SubscriptionKind};

    use super::*;
    use crate::node::NodeContext;
    use crate::pipeline::Pass;

    async fn answer_to(node: &Arc<NodeContext>, asker: &str) -> String {
        let account = BareJid::new("b@localhost").unwrap();
        let packet = Packet::new(
            Stanza::from_parts(
                Kind::Presence(PresenceType::Probe),
                Some(Jid::new(asker).unwrap()),
                Some(account.clone().into()),
                Element::builder("presence", ns::CLIENT).set(name!("type"), "probe").build(),
            ),
            Pass::Account(account.clone()),
        );
        let view = View { node, session: None, now: node.now() };
        let effects = match of_account(&packet, &account, &view) {
            Outcome::Pass => Vec::new(),
            Outcome::Done(effects) => effects,
            Outcome::Later(future) | Outcome::Aside(future) | Outcome::First(_, future) => future.await,
        };
        match &effects[..] {
            [Effect::Route(answer)] => format!("{:?}", answer.kind()),
            [Effect::Notify { .. }] => "its sessions answer".to_owned(),
            other => format!("{other:?}"),
        }
    }

    #[actix_rt::test]
    async fn a_stranger_cannot_tell_whether_somebody_is_there() {
        let node = Arc::new(NodeContext::for_tests());
        let away = answer_to(&node, "stranger@localhost/x").await;
        let jid = FullJid::new("b@localhost/y").unwrap();
        let bound = node.routes.bind(&jid).await.unwrap();
        node.routes.set_priority(&jid, bound.index, Some(0)).await.unwrap();
        assert_eq!(answer_to(&node, "stranger@localhost/x").await, away);
        assert_eq!(away, "Presence(Unsubscribed)");
    }

    #[actix_rt::test]
    async fn p13_a_session_that_shows_nothing_looks_away_but_to_its_own_account() {
        let node = Arc::new(NodeContext::for_tests());
        let (account, friend) =
            (BareJid::new("b@localhost").unwrap(), BareJid::new("friend@localhost").unwrap());
        let password = althing_proto::sasl::Secret::new("secret".to_owned());
        crate::auth::create_account(&node, &account, password).await.unwrap();
        for (direction, kind) in [
            (Direction::Inbound, SubscriptionKind::Subscribe),
            (Direction::Outbound, SubscriptionKind::Subscribed),
        ] {
            let event = SubscriptionEvent { direction, kind, request: None };
            let change = RosterChange::Subscription(event);
            node.storage
                .rosters
                .change(&account, &friend, change, node.roster_limits())
                .await
                .unwrap()
                .unwrap();
        }
        assert_eq!(answer_to(&node, "friend@localhost/x").await, "Presence(Unavailable)");
        let jid = FullJid::new("b@localhost/y").unwrap();
        let bound = node.routes.bind(&jid).await.unwrap();
        node.routes.set_priority(&jid, bound.index, Some(0)).await.unwrap();
        assert_eq!(answer_to(&node, "friend@localhost/x").await, "Presence(Unavailable)");
        assert_eq!(answer_to(&node, "b@localhost/z").await, "its sessions answer");
    }
}
