//! One stanza to the sessions that the router has chosen, on this node and on others alike.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use althing_cluster::routes::Route;
use althing_proto::jid::{BareJid, FullJid};
use althing_proto::stanza::{Kind, Stanza};

use super::local;
use super::remote::groups::Group;
use super::remote::{self, Copy, Parcel, Posted};
use crate::node::NodeContext;
use crate::session::SessionHandle;
use crate::session::copies::{Copies, Share};
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
    let any_remote = receivers.iter().any(|receiver| receiver.remote.is_some());
    // Presence that finds a session gone has told nobody anything wrong: one copy of it never fails.
    let presence = matches!(stanza.kind(), Kind::Presence(_));
    let counted = !receivers.is_empty() && (any_remote || !presence);
    let copies = counted.then(|| Copies::new(receivers.len() + usize::from(presence)));
    let group = if any_remote { node.remote.next_group() } else { 0 };
    let mut delivered = Delivered::None;
    // Empty, as a rule: it costs nothing.
    let mut slow = Vec::new();
    let mut full = false;
    for receiver in receivers {
        let (result, ending) = match &receiver.remote {
            None => match node.sessions.get(receiver.route.index) {
                Some(session) => {
                    let share = match &copies {
                        Some(copies) if !presence => Share::Copy(Arc::clone(copies)),
                        _ => Share::Broadcast,
                    };
                    let result = local::deliver_to(node, &session, stanza.clone(), share);
                    if result.is_ok() && session.pressure().is_congested() {
                        slow.push(Slow::Here(Arc::clone(&session)));
                    }
                    (result, Some(session))
                }
                None => (Err(Refused::Gone), None),
            },
            Some(jid) => {
                let copies = copies.clone().map(|copies| Copy {
                    copies,
                    group: Group::of(group, &receiver.route, receivers, presence),
                });
                let parcel = Parcel {
                    stanza: stanza.clone(),
                    tries,
                    copies,
                    only: false,
                    losses: node.lease.losses(),
                };
                match remote::post(node, jid, &receiver.route, parcel) {
                    Posted::Taken => (Ok(()), None),
                    Posted::Braked(pause) => {
                        slow.push(Slow::Elsewhere(pause));
                        (Ok(()), None)
                    }
                    Posted::Congested => (Err(Refused::Full), None),
                    Posted::Impossible => (Err(Refused::Gone), None),
                }
            }
        };
        let Err(refused) = result else {
            delivered = Delivered::Some;
            continue;
        };
        full |= refused == Refused::Full;
        // The last of all that failed, also of those that were on their way: the caller answers.
        let is_lost = copies.as_ref().is_some_and(|copies| copies.failed());
        if is_lost || matches!(delivered, Delivered::None | Delivered::Congested) {
            delivered = match ending.filter(|_| is_lost && !full && refused == Refused::Ending) {
                Some(session) => after_the_end(node, session, stanza, tries),
                None if full => Delivered::Congested,
                None => Delivered::None,
            };
        }
    }
    match delivered {
        Delivered::Some if !slow.is_empty() => Delivered::Slowly(slow),
        delivered => delivered,
    }
}

/// The only session that is left for a stanza is about to end: it is looked up once more then.
fn after_the_end(
    node: &Arc<NodeContext>,
    session: Arc<SessionHandle>,
    stanza: &Stanza,
    tries: u8,
) -> Delivered {
    if tries > 0 {
        return Delivered::Ending(session);
    }
    match remote::returned(node, &session, stanza.clone()) {
        Posted::Congested => Delivered::Congested,
        _ => Delivered::Some,
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
        return match local::deliver_to(node, &session, stanza.clone(), Share::Alone) {
            Ok(()) if session.pressure().is_congested() => Delivered::Slowly(vec![Slow::Here(session)]),
            Ok(()) => Delivered::Some,
            Err(Refused::Full) => Delivered::Congested,
            Err(Refused::Ending) => after_the_end(node, session, stanza, tries),
            Err(Refused::Gone) => Delivered::None,
        };
    };
    let parcel =
        Parcel { stanza: stanza.clone(), tries, copies: None, only: false, losses: node.lease.losses() };
    match remote::post(node, jid, &receiver.route, parcel) {
        Posted::Taken => Delivered::Some,
        Posted::Braked(pause) => Delivered::Slowly(vec![Slow::Elsewhere(pause)]),
        Posted::Congested => Delivered::Congested,
        Posted::Impossible => Delivered::None,
    }
}
