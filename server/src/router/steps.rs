//! The chain that a stanza walks to its receivers: local domain, then remote. Each step leaves its name in
//! the trace. Components, other nodes and other servers become steps of their own.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tracing::debug;

use althing_cluster::routes::Route;
use althing_proto::jid::{BareJid, FullJid};
use althing_proto::stanza::{Kind, Stanza};

use super::address::{Target, classify};
use super::rules::{self, Presence, Rule};
use crate::delivery::{bounce, local};
use crate::metrics::{Delivery, Dropped};
use crate::node::NodeContext;
use crate::pipeline::{self, Effects, Outcome, Packet, Pass, View};
use crate::session::SessionHandle;
use crate::session::core::SessionState;

/// Where the chain has led.
pub enum Routed {
    /// Delivered, answered or dropped by rule; these effects follow.
    Done(Effects),
    /// Handled once something answers.
    Later(BoxFuture<'static, Effects>),
}

/// Walks the chain. `session` is the sender's, where the stanza comes straight from one.
pub fn route(node: &Arc<NodeContext>, stanza: Stanza, session: Option<&SessionState>) -> Routed {
    let target = classify(stanza.to(), stanza.from(), &node.config.xmpp.domains);
    debug!(stop = "router", to = stanza.to().map(tracing::field::display));
    match target {
        Target::Server => for_receiver(node, stanza, Pass::Server, session),
        Target::Account(account) => to_account(node, stanza, account, session),
        Target::Resource(full) => to_resource(node, stanza, &full, session),
        Target::Remote => remote(node, &stanza),
    }
}

/// The pass for a receiver that is no session: the server, or an account.
fn for_receiver(
    node: &Arc<NodeContext>,
    stanza: Stanza,
    pass: Pass,
    session: Option<&SessionState>,
) -> Routed {
    node.metrics.delivery(Delivery::Handled);
    let packet = Packet::new(stanza, pass);
    let view = View { node, session, now: node.now() };
    match pipeline::run(&node.modules, &packet, &view) {
        Outcome::Pass => Routed::Done(Vec::new()),
        Outcome::Done(effects) => Routed::Done(effects),
        Outcome::Later(future) => Routed::Later(future),
    }
}

fn to_account(
    node: &Arc<NodeContext>,
    stanza: Stanza,
    account: BareJid,
    session: Option<&SessionState>,
) -> Routed {
    // An IQ never asks who is available.
    if matches!(stanza.kind(), Kind::Iq(_)) {
        return for_receiver(node, stanza, Pass::Account(account), session);
    }
    let sessions = node.routes.locate_account(&account);
    let there = Presence::Account { reachable: reachable(&sessions) };
    obey(node, stanza, &sessions, there, account, session)
}

fn to_resource(
    node: &Arc<NodeContext>,
    stanza: Stanza,
    full: &FullJid,
    session: Option<&SessionState>,
) -> Routed {
    let subscription = matches!(stanza.kind(), Kind::Presence(presence) if presence.is_subscription());
    if !subscription && let Some(route) = node.routes.locate(full) {
        return match local::deliver(node, &stanza, &[route]) {
            local::Delivered::Some => Routed::Done(Vec::new()),
            local::Delivered::Slowly(receiver) => brake(receiver, session),
            local::Delivered::None => absent(node, stanza, full, session),
            local::Delivered::Congested => Routed::Done(bounce::congested(node, &stanza)),
        };
    }
    absent(node, stanza, full, session)
}

fn absent(node: &Arc<NodeContext>, stanza: Stanza, full: &FullJid, session: Option<&SessionState>) -> Routed {
    let account = full.to_bare();
    let sessions = node.routes.locate_account(&account);
    let there = Presence::ResourceAbsent { reachable: reachable(&sessions) };
    obey(node, stanza, &sessions, there, account, session)
}

/// Does what the table says.
fn obey(
    node: &Arc<NodeContext>,
    stanza: Stanza,
    sessions: &[Route],
    there: Presence,
    account: BareJid,
    session: Option<&SessionState>,
) -> Routed {
    let rule = rules::rule(stanza.kind(), there);
    debug!(stop = "router.rules", ?rule);
    let at_least = |least: i8| -> Vec<Route> {
        sessions.iter().filter(|route| route.priority >= Some(least)).copied().collect()
    };
    let routes = match rule {
        Rule::ToAccount => return for_receiver(node, stanza, Pass::Account(account), session),
        Rule::Bounce => return Routed::Done(bounce::unavailable(node, &stanza)),
        Rule::Ignore => {
            node.metrics.dropped(Dropped::Rule);
            return Routed::Done(Vec::new());
        }
        Rule::ToAvailable => at_least(i8::MIN),
        Rule::ToNonNegative => at_least(0),
        // The table says so only where someone is reachable.
        Rule::ToMostAvailable | Rule::ToResource => {
            rules::top_priority(sessions.iter().filter_map(|route| route.priority))
                .map_or_else(Vec::new, at_least)
        }
    };
    let presence = matches!(stanza.kind(), Kind::Presence(_));
    match local::deliver(node, &stanza, &routes) {
        local::Delivered::Some => Routed::Done(Vec::new()),
        local::Delivered::Slowly(receiver) => brake(receiver, session),
        // A receiver without room has been dealt with. Nobody to see a presence is no failure; a message must
        // not vanish (RFC 6121 §8.5.2.2.1).
        local::Delivered::Congested if presence => Routed::Done(Vec::new()),
        local::Delivered::None if presence => {
            node.metrics.dropped(Dropped::Rule);
            Routed::Done(Vec::new())
        }
        local::Delivered::None => Routed::Done(bounce::unavailable(node, &stanza)),
        local::Delivered::Congested => Routed::Done(bounce::congested(node, &stanza)),
    }
}

/// The receiver has the stanza, but does not keep up: the client that sent it goes on when the receiver has
/// room again, or after a while. Nobody else waits: what follows from an effect is no client's pace.
fn brake(receiver: Arc<SessionHandle>, session: Option<&SessionState>) -> Routed {
    if session.is_none_or(|sender| *sender.jid() == receiver.jid) {
        return Routed::Done(Vec::new());
    }
    Routed::Later(Box::pin(async move {
        receiver.pressure().brake().await;
        Vec::new()
    }))
}

fn reachable(sessions: &[Route]) -> bool {
    rules::top_priority(sessions.iter().filter_map(|route| route.priority)).is_some()
}

fn remote(node: &Arc<NodeContext>, stanza: &Stanza) -> Routed {
    debug!(stop = "router.remote");
    Routed::Done(bounce::remote(node, stanza))
}
