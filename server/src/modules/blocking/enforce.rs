//! What privacy lists mean for each stanza: may it be sent, may it be delivered (XEP-0191 §3.3, XEP-0016 §2.14).
//!
//! The sender's list is asked in the sender's session, the receiver's in each of its sessions: the list there is
//! ready, a question is a few look-ups. Where the server acts for an account without asking a session, the store
//! is asked. Presence that is broadcast is not seen here: nothing is made for whom it does not go to
//! (`session/core/privacy.rs`).

use std::sync::Arc;

use althing_proto::jid::{BareJid, Jid};
use althing_proto::ns;
use althing_proto::privacy::Kinds;
use althing_proto::stanza::{ErrorType, IqType, Kind, PresenceType, StanzaCondition, StanzaError};
use althing_proto::xml::Element;

use crate::delivery::keep;
use crate::metrics::Dropped;
use crate::modules::roster::storage_failed;
use crate::node::NodeContext;
use crate::pipeline::{Effects, Packet, Pass, Verdict, View};
use crate::router::rules::Rule;
use crate::session::core::SessionState;
use crate::session::effect::Effect;
use crate::session::rules::Decision;

/// The verdict on a packet.
pub(super) fn decide(packet: &Packet, view: &View<'_>) -> Verdict {
    match (&packet.pass, view.session) {
        (Pass::Outbound, Some(session)) => outbound(packet, session, view.node),
        (Pass::Inbound, Some(session)) => inbound(packet, session, view.node),
        (Pass::Account(account), _) => for_account(packet, account, view.node),
        _ => Verdict::Pass,
    }
}

/// May it be sent? Else the client is told, where one may be.
fn outbound(packet: &Packet, session: &SessionState, node: &NodeContext) -> Verdict {
    let Some(to) = packet.stanza.to() else { return Verdict::Pass };
    let mut error =
        StanzaError { error_type: ErrorType::Cancel, ..StanzaError::from(StanzaCondition::NotAcceptable) };
    match session.decide(to, Kinds::outbound(packet.stanza.kind())) {
        Decision::Allow => return Verdict::Pass,
        Decision::Deny => {}
        Decision::Block => error.application = Some(Box::new(Element::bare("blocked", ns::BLOCKING_ERRORS))),
    }
    let Some(answer) = packet.stanza.error(error) else {
        node.metrics.dropped(Dropped::Blocked);
        return Verdict::Block(Vec::new());
    };
    node.metrics.stanza_error(StanzaCondition::NotAcceptable);
    // Not by the router: it is from the one who is blocked, and the receiver's pass would stop it.
    Verdict::Block(vec![Effect::Deliver(answer)])
}

/// May it be delivered?
fn inbound(packet: &Packet, session: &SessionState, node: &NodeContext) -> Verdict {
    let Some(from) = packet.stanza.from() else { return Verdict::Pass };
    if session.decide(from, Kinds::inbound(packet.stanza.kind())) == Decision::Allow {
        return Verdict::Pass;
    }
    if answers(packet, session, node) {
        return Verdict::Block(blocked(packet, node));
    }
    node.metrics.dropped(Dropped::Blocked);
    Verdict::Block(Vec::new())
}

/// Whether this session is the one that answers. A message to the bare address may have gone to several
/// (RFC 6121 §8.5.2.1.1), and has one answer: that of the first of them.
fn answers(packet: &Packet, session: &SessionState, node: &NodeContext) -> bool {
    if packet.stanza.to().is_some_and(|to| to.as_str() == session.jid().as_str()) {
        return true;
    }
    let mut top: Option<(i8, althing_cluster::routes::BindIndex)> = None;
    node.routes.visit_account(session.account(), &mut |_, route| {
        if let Some(priority) = route.priority
            && top.is_none_or(|(most, first)| priority > most || (priority == most && route.index < first))
        {
            top = Some((priority, route.index));
        }
    });
    top.is_none_or(|(_, first)| first == session.index())
}

/// What the sender is told: what it would be told if nobody were there. That is the same table, so that the two never
/// differ: by a headline, say, which vanishes.
fn blocked(packet: &Packet, node: &NodeContext) -> Effects {
    let refused = match keep::nobody(&packet.stanza) {
        Rule::Bounce => true,
        // What would wait for her vanishes: to him it is the same.
        Rule::Keep => !keep::is_kept(node, &packet.stanza),
        // A request to the account is refused, whoever answers for it.
        Rule::ToAccount => matches!(packet.stanza.kind(), Kind::Iq(IqType::Get | IqType::Set)),
        _ => false,
    };
    let told = refused.then(|| packet.stanza.error(StanzaCondition::ServiceUnavailable));
    let answer = told.flatten();
    if answer.is_none() {
        node.metrics.dropped(Dropped::Blocked);
    }
    answer.map(Effect::Route).into_iter().collect()
}

/// May the server act for the account on it? The default list is asked, in the store (XEP-0016 §2.2 rule 2).
fn for_account(packet: &Packet, account: &BareJid, node: &Arc<NodeContext>) -> Verdict {
    let kind = packet.stanza.kind();
    let asked = match kind {
        Kind::Iq(IqType::Get | IqType::Set) | Kind::Message(_) => true,
        // Answers have no reader; a probe is judged where it is answered.
        Kind::Iq(_) | Kind::Presence(PresenceType::Probe) => false,
        Kind::Presence(_) => true,
    };
    let Some(from) = packet.stanza.from().filter(|_| asked) else { return Verdict::Pass };
    if packet.is_from_account(account) || is_server(from, account) {
        return Verdict::Pass;
    }
    let (node, account, packet, from) = (Arc::clone(node), account.clone(), packet.clone(), from.clone());
    Verdict::Later(Box::pin(async move {
        match node.storage.privacy.judge(&account, &from).await {
            Ok(judged) if judged.denied.meets(Kinds::inbound(kind)) => {
                Verdict::Block(blocked(&packet, &node))
            }
            Ok(_) => Verdict::Pass,
            Err(error) => Verdict::Block(storage_failed(&packet, &error)),
        }
    }))
}

/// Whether `from` is the account's own server.
fn is_server(from: &Jid, account: &BareJid) -> bool {
    from.node().is_none() && from.domain() == account.domain()
}
