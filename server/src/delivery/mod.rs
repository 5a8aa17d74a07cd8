//! Hands a stanza to its receivers, and performs the effects that touch no session.

pub mod account;
pub mod bounce;
pub mod fan_out;
pub mod local;
pub mod probes;
pub mod receivers;
pub mod remote;

use std::sync::Arc;

use futures_util::future::BoxFuture;

use althing_proto::stanza::Stanza;

use crate::metrics::Dropped;
use crate::node::NodeContext;
use crate::pipeline::stage;
use crate::pipeline::{Effects, View};
use crate::router::steps::{self, Routed};
use crate::session::core::SessionState;
use crate::session::effect::Effect;

/// Most effects that may follow from one another before the chain is cut: a module that answers its own
/// answer is a bug, and must not become a loop.
const MAX_CHAIN: usize = 10_000;

/// Routes a stanza. Gives back what the caller must perform: at once, if it is there already, or after a
/// wait. `session` is the sender's, where the stanza comes straight from one.
pub fn route(
    node: &Arc<NodeContext>,
    stanza: Stanza,
    session: Option<&SessionState>,
) -> Option<BoxFuture<'static, Effects>> {
    match steps::route(node, stanza, session) {
        Routed::Done(effects) if effects.is_empty() => None,
        Routed::Done(effects) => Some(Box::pin(std::future::ready(effects))),
        Routed::Later(future) => Some(future),
    }
}

/// Routes a stanza that a component has sent; as [`route`]. It passes the filters, and no pass of a sender: components
/// are trusted with what is of their domain. Errors that they send are not counted as this server's.
pub fn from_component(node: &Arc<NodeContext>, stanza: Stanza) -> Option<BoxFuture<'static, Effects>> {
    let effect = Effect::Route(stanza);
    let span = effect.span(None);
    let _in_span = span.enter();
    let view = View { node, session: None, now: node.now() };
    if !stage::filter(&node.modules, &effect, &view) {
        node.metrics.dropped(Dropped::Filter);
        return None;
    }
    let Effect::Route(stanza) = effect else { return None };
    route(node, stanza, None)
}

/// Performs effects outside any session until nothing follows from them.
pub async fn drive(node: &Arc<NodeContext>, effects: Effects) {
    let mut queue = std::collections::VecDeque::from(effects);
    for _ in 0..MAX_CHAIN {
        let Some(effect) = queue.pop_front() else { return };
        // A node whose lease is lost has nothing to tell any more: the others do.
        if !node.lease.holds() && !node.lease.serving().await {
            return;
        }
        if let Some(future) = perform(node, effect) {
            for effect in future.await.into_iter().rev() {
                queue.push_front(effect);
            }
        }
    }
    for _ in &queue {
        node.metrics.dropped(Dropped::Loop);
    }
    tracing::error!(left = queue.len(), "effects follow from effects without end: the rest is dropped");
}

/// Drives what `waiting` yields, on this runtime, without waiting for it.
pub fn drive_aside(node: &Arc<NodeContext>, waiting: Option<BoxFuture<'static, Effects>>) {
    if let Some(future) = waiting {
        let node = Arc::clone(node);
        tokio::spawn(async move {
            let effects = future.await;
            drive(&node, effects).await;
        });
    }
}

fn perform(node: &Arc<NodeContext>, effect: Effect) -> Option<BoxFuture<'static, Effects>> {
    let span = effect.span(None);
    let _in_span = span.enter();
    let view = View { node, session: None, now: node.now() };
    if !stage::filter(&node.modules, &effect, &view) {
        node.metrics.dropped(Dropped::Filter);
        return None;
    }
    match effect {
        Effect::Route(stanza) => {
            bounce::count_error(node, &stanza, None);
            return route(node, stanza, None);
        }
        Effect::FanOut { stanza, to } => fan_out::to_accounts(node, stanza, &to),
        Effect::Probe { from, asker, targets } => probes::ask(node, &from, asker, &targets),
        Effect::Notify { account, event } => account::notify(node, &account, &event),
        // The session is gone: there is no client to write to and no state to change.
        Effect::Deliver(_) => node.metrics.dropped(Dropped::SessionGone),
        Effect::Session(_) => {}
    }
    None
}
