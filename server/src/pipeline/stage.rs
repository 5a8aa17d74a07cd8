//! The stages, one function each.

use futures_util::future::BoxFuture;
use tracing::debug;

use althing_proto::ns;
use althing_proto::stanza::{IqType, Kind, StanzaCondition};
use althing_proto::xml::build::ElementExt;

use super::{Effects, Outcome, Packet, Pass, Registry, Verdict, View};
use crate::session::effect::Effect;

/// Stage 1: every module sees the packet and may block it. Must be cheap.
pub fn preprocess(registry: &Registry, packet: &Packet, view: &View<'_>) -> Verdict {
    for module in registry.modules() {
        if let Verdict::Block(effects) = module.preprocess(packet, view) {
            debug!(stop = "pipeline.preprocess", module = module.spec().name);
            return Verdict::Block(effects);
        }
    }
    Verdict::Pass
}

/// Stage 2: every interested module. [`Outcome::Pass`] where none handled the packet.
pub fn process(registry: &Registry, packet: &Packet, view: &View<'_>) -> Outcome {
    let mut handled = Outcome::Pass;
    for module in registry.interested(&packet.stanza, packet.at()) {
        let outcome = module.process(packet, view);
        if !matches!(outcome, Outcome::Pass) {
            debug!(stop = "pipeline.process", module = module.spec().name);
        }
        handled = join(handled, outcome);
    }
    handled
}

/// Both outcomes, the first one's effects first.
fn join(first: Outcome, second: Outcome) -> Outcome {
    let later = |outcome| -> BoxFuture<'static, Effects> {
        match outcome {
            Outcome::Pass => Box::pin(std::future::ready(Vec::new())),
            Outcome::Done(effects) => Box::pin(std::future::ready(effects)),
            Outcome::Later(future) => future,
        }
    };
    match (first, second) {
        (Outcome::Pass, only) | (only, Outcome::Pass) => only,
        (Outcome::Done(mut effects), Outcome::Done(more)) => {
            effects.extend(more);
            Outcome::Done(effects)
        }
        (first, second) => {
            let (first, second) = (later(first), later(second));
            Outcome::later(async move {
                let (mut effects, more) = futures_util::future::join(first, second).await;
                effects.extend(more);
                effects
            })
        }
    }
}

/// Stage 3: only what nobody handled. The default: the sender's packet is routed, the receiver's is
/// delivered, and a request to the server or an account that nobody knows is refused with
/// `service-unavailable` (RFC 6120 §8.4, RFC 6121 §8.5.1).
pub fn postprocess(registry: &Registry, packet: &Packet, view: &View<'_>) -> Outcome {
    for module in registry.modules() {
        match module.postprocess(packet, view) {
            Outcome::Pass => {}
            handled => {
                debug!(stop = "pipeline.postprocess", module = module.spec().name);
                return handled;
            }
        }
    }
    match (&packet.pass, packet.stanza.kind()) {
        (Pass::Outbound, _) => Outcome::Done(vec![Effect::Route(packet.stanza.clone())]),
        (Pass::Inbound, _) => Outcome::Done(vec![Effect::Deliver(packet.stanza.clone())]),
        (Pass::Server | Pass::Account(_), Kind::Iq(IqType::Get | IqType::Set)) => {
            // R13: a request whose child says in no namespace of its own what it is about (RFC 6120 §8.4).
            let vague =
                packet.stanza.payload().is_none_or(|child| child.is_ns(ns::CLIENT) || child.is_ns(""));
            let condition =
                if vague { StanzaCondition::BadRequest } else { StanzaCondition::ServiceUnavailable };
            Outcome::refuse(packet, condition)
        }
        // RFC 6120 §8.2.3 rule 4: an answer that nobody waits for is not answered.
        (Pass::Server | Pass::Account(_), Kind::Iq(_)) => Outcome::Done(Vec::new()),
        // Messages to the server itself have no reader; presence to it has no meaning.
        (Pass::Server | Pass::Account(_), Kind::Message(_)) => {
            Outcome::refuse(packet, StanzaCondition::ServiceUnavailable)
        }
        (Pass::Server | Pass::Account(_), Kind::Presence(_)) => Outcome::Done(Vec::new()),
    }
}

/// Stage 4: every stanza that results passes all filters; one `false` stops it.
pub fn filter(registry: &Registry, effect: &Effect, view: &View<'_>) -> bool {
    let stanza = match effect {
        Effect::Route(stanza) | Effect::Deliver(stanza) => stanza,
        _ => return true,
    };
    registry.modules().all(|module| {
        let allowed = module.filter(stanza, view);
        if !allowed {
            debug!(stop = "pipeline.filter", module = module.spec().name);
        }
        allowed
    })
}
