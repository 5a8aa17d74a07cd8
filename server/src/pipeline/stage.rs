//! The stages, one function each.

use std::cell::Cell;
use std::sync::Arc;
use std::thread::LocalKey;
use std::time::Instant;

use futures_util::future::BoxFuture;
use tracing::debug;

use althing_proto::ns;
use althing_proto::stanza::{IqType, Kind, StanzaCondition};
use althing_proto::xml::build::ElementExt;

use super::registry::Member;
use super::{Effects, Outcome, Packet, Pass, Registry, Verdict, View, refusal};
use crate::aside::Job;
use crate::metrics::SAMPLED;
use crate::session::effect::{Effect, Later};

thread_local! {
    static PREPROCESSED: Cell<u32> = const { Cell::new(0) };
    static PROCESSED: Cell<u32> = const { Cell::new(0) };
    static POSTPROCESSED: Cell<u32> = const { Cell::new(0) };
}

/// Whether the calls of a stage are timed: once in [`SAMPLED`].
struct Watch(bool);

impl Watch {
    fn of(stage: &'static LocalKey<Cell<u32>>) -> Self {
        let passed = stage.get() + 1;
        stage.set(passed % SAMPLED);
        Watch(passed == SAMPLED)
    }

    fn time<R>(&self, member: &Member, call: impl FnOnce() -> R) -> R {
        if !self.0 {
            return call();
        }
        let began = Instant::now();
        let result = call();
        member.counts.computed(began.elapsed().as_secs_f64());
        result
    }
}

/// Stage 1: every module sees the packet and may block it. Must be cheap.
pub fn preprocess(registry: &Registry, packet: &Packet, view: &View<'_>) -> Verdict {
    preprocess_from(registry, packet, view, 0).1
}

/// As [`preprocess`], behind the modules that were `asked` before; with the verdict comes how many have been now.
pub fn preprocess_from(
    registry: &Registry,
    packet: &Packet,
    view: &View<'_>,
    mut asked: usize,
) -> (usize, Verdict) {
    let watch = Watch::of(&PREPROCESSED);
    for member in registry.members().iter().skip(asked) {
        asked += 1;
        let verdict = watch.time(member, || member.module.preprocess(packet, view));
        if !matches!(verdict, Verdict::Pass) {
            debug!(stop = "pipeline.preprocess", module = member.name);
            return (asked, verdict);
        }
    }
    (asked, Verdict::Pass)
}

/// Stage 2: every interested module. `None` where none handled the packet. What is there already does not wait for
/// what a neighbour waits for.
pub fn process(registry: &Registry, packet: &Packet, view: &View<'_>) -> Option<Effects> {
    let (mut handled, mut waiting) = (None, None);
    let watch = Watch::of(&PROCESSED);
    for member in registry.interested(&packet.stanza, packet.at()) {
        let outcome = watch.time(member, || member.module.process(packet, view));
        let Some(effects) = taken(member, packet, outcome, &mut waiting) else { continue };
        debug!(stop = "pipeline.process", module = member.name);
        match &mut handled {
            None => handled = Some(effects),
            Some(handled) => handled.extend(effects),
        }
    }
    if let Some(future) = waiting {
        handled.get_or_insert_default().push(Effect::Later(Later(future)));
    }
    handled
}

/// What a module's outcome yields at once; `None` where it has not handled the packet. What is to be waited for joins
/// `waiting`.
fn taken(
    member: &Member,
    packet: &Packet,
    outcome: Outcome,
    waiting: &mut Option<BoxFuture<'static, Effects>>,
) -> Option<Effects> {
    let aside = |future| Effect::Aside(Job::new(Arc::clone(&member.queue), packet.clone(), future));
    let effects = match outcome {
        Outcome::Pass => return None,
        Outcome::Done(effects) => effects,
        Outcome::First(mut effects, future) => {
            effects.push(aside(future));
            effects
        }
        Outcome::Later(future) => {
            let (counts, began) = (member.counts.clone(), Instant::now());
            let timed = async move {
                let effects = future.await;
                counts.waited(began.elapsed().as_secs_f64());
                effects
            };
            *waiting = Some(match waiting.take() {
                None => Box::pin(timed),
                Some(first) => Box::pin(async move {
                    let (mut effects, more) = futures_util::future::join(first, timed).await;
                    effects.extend(more);
                    effects
                }),
            });
            Vec::new()
        }
        Outcome::Aside(future) => vec![aside(future)],
    };
    member.counts.handled();
    Some(effects)
}

/// Stage 3: only what nobody handled. The default: the sender's packet is routed, the receiver's is
/// delivered, and a request to the server or an account that nobody knows is refused with
/// `service-unavailable` (RFC 6120 §8.4, RFC 6121 §8.5.1).
pub fn postprocess(registry: &Registry, packet: &Packet, view: &View<'_>) -> Effects {
    let watch = Watch::of(&POSTPROCESSED);
    for member in registry.members() {
        let (outcome, mut waiting) = (watch.time(member, || member.module.postprocess(packet, view)), None);
        if let Some(mut effects) = taken(member, packet, outcome, &mut waiting) {
            debug!(stop = "pipeline.postprocess", module = member.name);
            effects.extend(waiting.map(|future| Effect::Later(Later(future))));
            return effects;
        }
    }
    match (&packet.pass, packet.stanza.kind()) {
        (Pass::Outbound, _) => vec![Effect::Route(packet.stanza.clone())],
        (Pass::Inbound, _) => vec![Effect::Deliver(packet.stanza.clone())],
        (Pass::Server | Pass::Account(_), Kind::Iq(IqType::Get | IqType::Set)) => {
            // R13: a request whose child says in no namespace of its own what it is about (RFC 6120 §8.4).
            let vague =
                packet.stanza.payload().is_none_or(|child| child.is_ns(ns::CLIENT) || child.is_ns(""));
            let condition =
                if vague { StanzaCondition::BadRequest } else { StanzaCondition::ServiceUnavailable };
            refusal(packet, condition)
        }
        // RFC 6120 §8.2.3 rule 4: an answer that nobody waits for is not answered.
        (Pass::Server | Pass::Account(_), Kind::Iq(_)) => Vec::new(),
        // Messages to the server itself have no reader; presence to it has no meaning.
        (Pass::Server | Pass::Account(_), Kind::Message(_)) => {
            refusal(packet, StanzaCondition::ServiceUnavailable)
        }
        (Pass::Server | Pass::Account(_), Kind::Presence(_)) => Vec::new(),
    }
}

/// Stage 4: every stanza that results passes all filters; one `false` stops it.
pub fn filter(registry: &Registry, effect: &Effect, view: &View<'_>) -> bool {
    let stanza = match effect {
        Effect::Route(stanza) | Effect::Deliver(stanza) => stanza,
        Effect::Copies(stanzas) => {
            return stanzas.iter().all(|stanza| registry.modules().all(|module| module.filter(stanza, view)));
        }
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
