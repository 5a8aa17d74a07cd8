//! The four stages of a packet: preprocess, process, postprocess, filter.
//!
//! A packet passes twice, once for its sender and once for its receiver ([`Pass`]). Modules declare what
//! they want to see; the order inside a stage is the registry's, always the same. A stage decides and
//! returns [`Effect`]s; nothing here acts.

pub mod interest;
pub mod packet;
pub mod registry;
pub mod stage;

use futures_util::future::BoxFuture;
use tracing::debug;

use crate::session::effect::{Effect, Later, Resumed};

pub use interest::{At, Interest};
pub use packet::{Packet, Pass, View};
pub use registry::Registry;

/// Effects that a stage yields, in the order in which they are to be performed.
pub type Effects = Vec<Effect>;

/// What a preprocessor says.
pub enum Verdict {
    /// The packet goes on.
    Pass,
    /// The packet ends here; these effects (an error to the sender, perhaps) take its place.
    Block(Effects),
    /// The verdict comes once the storage answers. Later packets of the same sender wait behind it.
    Later(BoxFuture<'static, Verdict>),
}

impl std::fmt::Debug for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Verdict::Pass => f.write_str("Pass"),
            Verdict::Block(effects) => f.debug_tuple("Block").field(effects).finish(),
            Verdict::Later(_) => f.write_str("Later"),
        }
    }
}

/// What a processor says.
pub enum Outcome {
    /// Not mine after all: others may look.
    Pass,
    /// Handled; these effects follow.
    Done(Effects),
    /// Handled once the storage or network answers. Later packets of the same sender wait behind it: for what they
    /// must see.
    Later(BoxFuture<'static, Effects>),
    /// Handled once the storage or network answers, in the module's own queue. Later packets of the same sender do not
    /// wait, but for those that the module handles in this way for the same receiver.
    Aside(BoxFuture<'static, Effects>),
    /// These effects at once, the rest aside: what later packets of the sender must see, and what they need not.
    First(Effects, BoxFuture<'static, Effects>),
}

impl Outcome {
    /// Handled with one effect: that stanza is routed.
    #[must_use]
    pub fn reply(stanza: althing_proto::stanza::Stanza) -> Outcome {
        Outcome::Done(vec![Effect::Route(stanza)])
    }

    /// Handled by refusing: the sender gets the error, where one may be sent.
    #[must_use]
    pub fn refuse(packet: &Packet, error: impl Into<althing_proto::stanza::StanzaError>) -> Outcome {
        Outcome::Done(refusal(packet, error))
    }

    /// Handled after `future`.
    #[must_use]
    pub fn later(future: impl Future<Output = Effects> + Send + 'static) -> Outcome {
        Outcome::Later(Box::pin(future))
    }

    /// Handled after `future`, aside.
    #[must_use]
    pub fn aside(future: impl Future<Output = Effects> + Send + 'static) -> Outcome {
        Outcome::Aside(Box::pin(future))
    }
}

/// The effects of a refusal: an error to the sender, where one may be sent.
#[must_use]
pub fn refusal(packet: &Packet, error: impl Into<althing_proto::stanza::StanzaError>) -> Effects {
    packet.stanza.error(error).map(Effect::Route).into_iter().collect()
}

/// Runs the stages preprocess, process and postprocess. The fourth, [`stage::filter`], runs over each
/// effect when it is about to be performed, so that those of [`Outcome::Later`] and [`Outcome::Aside`] pass it too.
pub fn run(registry: &Registry, packet: &Packet, view: &View<'_>) -> Effects {
    debug!(stop = "pipeline", pass = packet.pass.word());
    run_from(registry, packet, view, 0)
}

/// Goes on with a packet that a preprocessor has let pass after a wait.
pub fn resume(registry: &Registry, resumed: &Resumed, view: &View<'_>) -> Effects {
    debug!(stop = "pipeline", pass = resumed.packet.pass.word(), "resumed");
    run_from(registry, &resumed.packet, view, resumed.asked)
}

fn run_from(registry: &Registry, packet: &Packet, view: &View<'_>, asked: usize) -> Effects {
    match stage::preprocess_from(registry, packet, view, asked) {
        (_, Verdict::Pass) => {}
        (_, Verdict::Block(effects)) => return effects,
        (asked, Verdict::Later(mut verdict)) => {
            let packet = packet.clone();
            let decided = async move {
                loop {
                    match verdict.await {
                        Verdict::Pass => return vec![Effect::Resume(Box::new(Resumed { packet, asked }))],
                        Verdict::Block(effects) => return effects,
                        Verdict::Later(again) => verdict = again,
                    }
                }
            };
            return vec![Effect::Later(Later(Box::pin(decided)))];
        }
    }
    match stage::process(registry, packet, view) {
        Some(effects) => effects,
        None => stage::postprocess(registry, packet, view),
    }
}

#[cfg(test)]
pub(crate) mod tests;
