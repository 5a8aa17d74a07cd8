//! One stanza to the sessions that the router has chosen, on this node and on others alike.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use althing_cluster::routes::Route;
use althing_proto::jid::{BareJid, FullJid};
use althing_proto::stanza::{Kind, Stanza};

use super::local;
use super::remote::{self, Copies, Parcel, Posted};
use crate::node::NodeContext;
use crate::session::SessionHandle;
use crate::session::registry::Refused;

/// A session that a stanza may go to.
#[derive(Debug, Clone)]
pub struct Receiver {
    /// Where it is.
    pub route: Route,
    /// Its address, where it is on another node: on this one the bind alone finds it.
    pub remote: Option<FullJid>,
}

impl Receiver {
    /// The session of `route`, whose address is `jid`.
    #[must_use]
    pub fn new(node: &NodeContext, jid: &FullJid, route: &Route) -> Self {
        let remote = (route.node != node.node_id).then(|| jid.clone());
        Receiver { route: *route, remote }
    }

    /// All sessions of an account, in the order of their binds.
    #[must_use]
    pub fn of_account(node: &NodeContext, account: &BareJid) -> Vec<Receiver> {
        let mut receivers = Vec::new();
        node.routes.visit_account(account, &mut |jid, route| receivers.push(Receiver::new(node, jid, route)));
        receivers
    }
}

/// How a delivery went.
pub enum Delivered {
    /// At least one receiver has it, or it is on its way to one.
    Some,
    /// As `Some`, but of those that have it these do not keep up.
    Slowly(Vec<Slow>),
    /// The only receiver, on this node, is about to end: it is to be looked up once more then. Only for a stanza that
    /// was tried before; others are kept in their order.
    Ending(Arc<SessionHandle>),
    /// No receiver was there.
    None,
    /// No receiver took it, and at least one has too much to do.
    Congested,
}

/// A receiver that has a stanza and does not keep up.
pub enum Slow {
    /// It is on this node, and its client reads too slowly.
    Here(Arc<SessionHandle>),
    /// It is elsewhere; a client that sends more goes on when this is done.
    Elsewhere(BoxFuture<'static, ()>),
}

impl Slow {
    /// Ends when the receiver keeps up again, or after a while.
    #[must_use]
    pub fn pause(self) -> BoxFuture<'static, ()> {
        match self {
            Slow::Here(session) => Box::pin(async move { session.pressure().brake().await }),
            Slow::Elsewhere(pause) => pause,
        }
    }
}

/// Hands `stanza` to `receivers`. `tries`: how often that has failed for it.
pub fn deliver(node: &Arc<NodeContext>, stanza: &Stanza, receivers: &[Receiver], tries: u8) -> Delivered {
    if let [receiver] = receivers {
        return deliver_alone(node, stanza, receiver, tries);
    }
    // Presence that finds a session gone has told nobody anything wrong.
    let presence = matches!(stanza.kind(), Kind::Presence(_));
    let any_remote = receivers.iter().any(|receiver| receiver.remote.is_some());
    let copies = any_remote.then(|| Copies::new(receivers.len() + usize::from(presence)));
    let mut delivered = Delivered::None;
    // Empty, as a rule: it costs nothing.
    let mut slow = Vec::new();
    for receiver in receivers {
        let result = match &receiver.remote {
            None => match node.sessions.get(receiver.route.index) {
                Some(session) => {
                    let result = local::deliver_to(node, &session, stanza.clone(), false);
                    if result.is_ok() && session.pressure().is_congested() {
                        slow.push(Slow::Here(session));
                    }
                    result
                }
                None => Err(Refused::Gone),
            },
            Some(jid) => {
                let parcel = Parcel { stanza: stanza.clone(), tries, copies: copies.clone() };
                match remote::post(node, jid, &receiver.route, parcel) {
                    Posted::Taken => {
                        delivered = Delivered::Some;
                        continue;
                    }
                    Posted::Braked(pause) => {
                        slow.push(Slow::Elsewhere(pause));
                        delivered = Delivered::Some;
                        continue;
                    }
                    Posted::Congested => Err(Refused::Full),
                    Posted::Impossible => Err(Refused::Gone),
                }
            }
        };
        match result {
            Ok(()) => {
                delivered = Delivered::Some;
                copies.iter().for_each(|copies| copies.delivered());
            }
            Err(refused) => {
                // The last of all that failed, also of those that were on their way: the caller answers.
                let all_failed = copies.as_ref().is_some_and(|copies| copies.failed());
                if all_failed || (refused == Refused::Full && matches!(delivered, Delivered::None)) {
                    delivered = if refused == Refused::Full { Delivered::Congested } else { Delivered::None };
                }
            }
        }
    }
    match delivered {
        Delivered::Some if !slow.is_empty() => Delivered::Slowly(slow),
        delivered => delivered,
    }
}

fn deliver_alone(node: &Arc<NodeContext>, stanza: &Stanza, receiver: &Receiver, tries: u8) -> Delivered {
    let Some(jid) = &receiver.remote else {
        let Some(session) = node.sessions.get(receiver.route.index) else {
            return match (tries == 0).then(|| remote::expected(node, &receiver.route, stanza)).flatten() {
                Some(Posted::Congested) => Delivered::Congested,
                Some(_) => Delivered::Some,
                None => Delivered::None,
            };
        };
        return match local::deliver_to(node, &session, stanza.clone(), true) {
            Ok(()) if session.pressure().is_congested() => Delivered::Slowly(vec![Slow::Here(session)]),
            Ok(()) => Delivered::Some,
            Err(Refused::Full) => Delivered::Congested,
            Err(Refused::Ending) if tries > 0 => Delivered::Ending(session),
            Err(Refused::Ending) => match remote::returned(node, &session, stanza.clone()) {
                Posted::Congested => Delivered::Congested,
                _ => Delivered::Some,
            },
            Err(Refused::Gone) => Delivered::None,
        };
    };
    let parcel = Parcel { stanza: stanza.clone(), tries, copies: None };
    match remote::post(node, jid, &receiver.route, parcel) {
        Posted::Taken => Delivered::Some,
        Posted::Braked(pause) => Delivered::Slowly(vec![Slow::Elsewhere(pause)]),
        Posted::Congested => Delivered::Congested,
        Posted::Impossible => Delivered::None,
    }
}
