//! Hands a stanza to its receivers, and performs the effects that touch no session.

pub mod account;
pub mod bounce;
pub mod carbons;
pub mod fan_out;
pub mod inbox;
pub mod keep;
pub mod keeping;
pub mod kept;
pub mod local;
pub mod places;
pub mod probes;
pub mod receivers;
pub mod remote;
pub mod settles;
pub mod usage;

use std::sync::Arc;

use futures_util::future::BoxFuture;

use althing_proto::stanza::Stanza;

use crate::aside;
use crate::metrics::Dropped;
use crate::node::NodeContext;
use crate::pipeline::{self, stage};
use crate::pipeline::{Effects, View};
use crate::router::steps::{self, Origin, Routed};
use crate::session::effect::{Effect, Later};

/// Most effects that may follow from one before the chain is cut: a module that answers its own answer is a bug, and
/// must not become a loop. How many there are to begin with is no sign of that.
const MAX_CHAIN: usize = 10_000;

/// Routes a stanza. Gives back what the caller must perform next.
pub fn route(node: &Arc<NodeContext>, stanza: Stanza, origin: Origin<'_>) -> Next {
    steps::route(node, stanza, origin).into()
}

/// What is to be performed next, before anything else.
pub enum Next {
    /// These effects; often none.
    Effects(Effects),
    /// The effects of that, when it is there.
    Wait(BoxFuture<'static, Effects>),
}

impl Next {
    /// Nothing follows.
    pub const NOTHING: Next = Next::Effects(Vec::new());
}

impl From<Routed> for Next {
    fn from(routed: Routed) -> Self {
        match routed {
            Routed::Done(effects) => Next::Effects(effects),
            Routed::Later(future) => Next::Wait(future),
        }
    }
}

impl From<Next> for Effects {
    fn from(next: Next) -> Self {
        match next {
            Next::Effects(effects) => effects,
            Next::Wait(future) => vec![Effect::Later(Later(future))],
        }
    }
}

/// Routes a stanza that a component has sent; as [`route`]. It passes the filters, and no pass of a sender: components
/// are trusted with what is of their domain. Errors that they send are not counted as this server's.
pub fn from_component(node: &Arc<NodeContext>, stanza: Stanza) -> Next {
    let effect = Effect::Route(stanza);
    let span = effect.span(None);
    let _in_span = span.enter();
    let view = View { node, session: None, now: node.now() };
    if !stage::filter(&node.modules, &effect, &view) {
        node.metrics.dropped(Dropped::Filter);
        return Next::NOTHING;
    }
    let Effect::Route(stanza) = effect else { return Next::NOTHING };
    route(node, stanza, Origin::Elsewhere)
}

/// Performs effects outside any session until nothing follows from them. Dropped where it waits, it leaves the rest
/// undone.
pub async fn drive(node: &Arc<NodeContext>, effects: Effects) {
    for effect in effects {
        if !drive_one(node, effect).await {
            return;
        }
    }
}

/// Performs one effect, and what follows from it. `false`: the node's lease is lost.
async fn drive_one(node: &Arc<NodeContext>, effect: Effect) -> bool {
    let mut queue = std::collections::VecDeque::from([effect]);
    for _ in 0..MAX_CHAIN {
        let Some(effect) = queue.pop_front() else { return true };
        // A node whose lease is lost has nothing to tell any more: the others do.
        if !node.lease.holds() && !node.lease.serving().await {
            return false;
        }
        let effects = match perform(node, effect) {
            Next::Effects(effects) => effects,
            Next::Wait(future) => future.await,
        };
        for effect in effects.into_iter().rev() {
            queue.push_front(effect);
        }
    }
    for _ in &queue {
        node.metrics.dropped(Dropped::Loop);
    }
    tracing::error!(left = queue.len(), "effects follow from effects without end: the rest is dropped");
    true
}

/// Drives effects, on this runtime, without waiting for that.
pub fn drive_aside(node: &Arc<NodeContext>, effects: Effects) {
    if !effects.is_empty() {
        let node = Arc::clone(node);
        tokio::spawn(async move { drive(&node, effects).await });
    }
}

fn perform(node: &Arc<NodeContext>, effect: Effect) -> Next {
    let span = effect.span(None);
    let _in_span = span.enter();
    let view = View { node, session: None, now: node.now() };
    if !stage::filter(&node.modules, &effect, &view) {
        node.metrics.dropped(Dropped::Filter);
        return Next::NOTHING;
    }
    match effect {
        Effect::Route(stanza) => {
            bounce::count_error(node, &stanza, None);
            return route(node, stanza, Origin::Elsewhere);
        }
        Effect::Later(Later(future)) => return Next::Wait(future),
        Effect::Aside(job) => return Next::Effects(aside::submit_alone(node, job)),
        Effect::Probe { from, asker, targets, here } => {
            let here = probes::ask(node, &from, asker, &targets, here);
            if !here.is_empty() {
                return Next::Effects(vec![Effect::Probe { from, asker, targets: Vec::new(), here }]);
            }
        }
        Effect::FanOut { stanza, to, hidden } => fan_out::to_accounts(node, stanza, &to, hidden.as_deref()),
        Effect::Notify { account, event } => account::notify(node, &account, &event),
        // The session is gone: there is no client to write to and no state to change.
        Effect::Deliver(_) | Effect::Copies(_) => node.metrics.dropped(Dropped::SessionGone),
        Effect::Session(_) => {}
        Effect::Resume(resumed) => return Next::Effects(pipeline::resume(&node.modules, &resumed, &view)),
    }
    Next::NOTHING
}
