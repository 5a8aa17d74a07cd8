//! What is left of a target whose stanzas were not delivered: one by one, looked up once more.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::timeout;
use tracing::{debug, error};

use althing_cluster::routes::{BindIndex, NodeState};
use althing_proto::jid::FullJid;
use althing_proto::stanza::Stanza;

use super::groups::Group;
use super::pending::Outcome;
use super::{Copy, Failure, Parcel, outcome, task};
use crate::components::balance::lane_named;
use crate::delivery::{Next, bounce, drive, keep, kept, local};
use crate::metrics::Dropped;
use crate::node::NodeContext;
use crate::router::{component, steps};
use crate::session::copies::Share;

/// How long a stanza waits for this node's table to have what the other node's had.
const CATCH_UP: Duration = Duration::from_secs(10);

/// How long a session that ends or moves may take until its route says so: as long as a change of the table takes where
/// members are lost.
const LEAVES: Duration = Duration::from_secs(15);

/// How long a stanza of which nobody knows whether it was delivered waits until its route changes or its node is
/// declared down: longer than that takes.
const UNSURE: Duration = Duration::from_secs(20);

/// How long a stanza waits that others do not take from this node until it has come back.
const BACK: Duration = Duration::from_secs(20);

/// How long the second attempt waits for its answer.
const SECOND: Duration = Duration::from_secs(30);

/// How often a stanza goes after a session that moves.
const MAX_MOVES: usize = 8;

/// After so many failed attempts a stanza goes back to its sender.
const MAX_TRIES: u8 = 3;

/// Brings what a held target has left to its end, one by one.
pub(super) async fn go_on(node: Arc<NodeContext>, to: FullJid) {
    loop {
        let next = {
            let mut pending = node.remote.pending.lock();
            let next = pending.next(&to);
            node.remote.note(&pending);
            next
        };
        let Some((parcel, failure)) = next else {
            node.remote.relieved.notify_waiters();
            return;
        };
        // A panic must not hold the target for ever.
        let settled = AssertUnwindSafe(settle(&node, &to, parcel, failure)).catch_unwind().await;
        if settled.is_err() {
            error!(%to, "a stanza could not be routed anew: it is dropped");
            node.metrics.dropped(Dropped::Undeliverable);
        }
    }
}

/// Looks up once more for a stanza, and waits for its answer, so that the next does not overtake it.
async fn settle(node: &Arc<NodeContext>, to: &FullJid, parcel: Parcel, mut failure: Option<Failure>) {
    let Parcel { stanza, mut tries, copies, only, losses } = parcel;
    let is_over = || node.lease.losses() != losses;
    if is_over() {
        return leave(node, to, stanza).await;
    }
    if only {
        if let Some(why) = failure {
            until_known(node, to, why).await;
            if is_over() {
                return leave(node, to, stanza).await;
            }
        }
        if let Some(route) = component::owner(node, to).filter(|route| route.node == node.node_id) {
            // It is on its way.
            let _ = local::session_soon(node, to, route.index).await;
        }
        if !deliver_once(node, to, &stanza, None).await {
            node.metrics.dropped(Dropped::SessionGone);
        }
        return;
    }
    if let (Some(copies), None) = (copies, failure) {
        return settle_copy(node, to, stanza, copies).await;
    }
    if failure.is_none() && tries + 1 >= MAX_TRIES {
        // The rule for an absent resource has led here. Another walk would lead back to this very queue.
        if !deliver_once(node, to, &stanza, None).await {
            give_up(node, to, stanza).await;
        }
        return;
    }
    // Whether the session that the table has was asked for, and is not there: then the rule for an absent resource
    // decides. It may lead to the same address, where the stanza would queue behind later ones: nothing less may.
    let (mut absent, mut moves) = (false, 0);
    loop {
        if let Some(why) = failure.take() {
            debug!(stop = "delivery.remote", %to, tries, reason = ?why, "not delivered");
            until_known(node, to, why).await;
            if is_over() {
                return leave(node, to, stanza).await;
            }
            moves += usize::from(has_moved(node, to, why));
            if !has_moved(node, to, why) || moves > MAX_MOVES {
                tries += 1;
                absent = tries > 1 && matches!(why, Failure::NoSession { .. }) && lane_named(to).is_none();
            }
            if why == Failure::Congested {
                return drive(node, bounce::congested(node, &stanza)).await;
            }
            if why == Failure::Never || tries >= MAX_TRIES {
                return give_up(node, to, stanza).await;
            }
        }
        let direct = if absent { None } else { steps::only_remote(node, &stanza) };
        let Some((jid, route)) = direct else {
            let here = component::owner(node, to).filter(|route| !absent && route.node == node.node_id);
            if let Some(route) = here {
                // It is tried once: where the session is on its way, when it is there.
                if lane_named(to).is_some() {
                    let _ = component::soon(node, to, route.index).await;
                } else {
                    let _ = local::session_soon(node, to, route.index).await;
                }
            }
            let effects = steps::once_more(node, stanza, if absent { tries } else { 1 });
            return drive(node, effects.await).await;
        };
        let task = task(&jid, &route, &stanza, None);
        match outcome(node.links.ask(route.node, task, SECOND).await, route) {
            Outcome::Done | Outcome::Slowly => return,
            Outcome::Failed(why) => failure = Some(why),
        }
    }
}

/// The node has lost its lease since it was sent: whoever has sent it is over, and is told on another stream, at another node,
/// what of it was handled. What is in the store is so, and goes from there, in its order; nothing else goes on.
async fn leave(node: &Arc<NodeContext>, to: &FullJid, stanza: Stanza) {
    let account = to.to_bare();
    let kept = kept::id_of(&stanza, &account)
        .filter(|_| lane_named(to).is_none() && kept::is_pending(node, &account));
    let Some(id) = kept else { return node.metrics.dropped(Dropped::SessionGone) };
    // Until then nothing would be taken from it.
    if timeout(BACK, node.lease.held()).await.is_ok() {
        keep::free(node, &account, id).await;
    }
}

/// It is not tried any more: it waits for whoever comes, or goes back.
async fn give_up(node: &Arc<NodeContext>, to: &FullJid, stanza: Stanza) {
    let effects = match lane_named(to) {
        Some(_) => bounce::unavailable(node, &stanza),
        None => {
            let account = to.to_bare();
            let planned = keep::plan(node, &stanza, Some(&account), (None, None));
            match keep::taken_by_nobody(node, &stanza, &account, planned, None) {
                Next::Effects(effects) => effects,
                Next::Wait(future) => future.await,
            }
        }
    };
    drive(node, effects).await;
}

/// One of several copies, which had to wait: for its own session, wherever that is now.
async fn settle_copy(node: &Arc<NodeContext>, to: &FullJid, stanza: Stanza, copy: Copy) {
    let arrived = deliver_once(node, to, &stanza, Some(&copy)).await;
    if !arrived && copy.copies.failed() {
        let effects = steps::once_more(node, stanza, MAX_TRIES - 1);
        drive(node, effects.await).await;
    }
}

/// One attempt for one session, wherever it is now.
async fn deliver_once(node: &Arc<NodeContext>, to: &FullJid, stanza: &Stanza, copy: Option<&Copy>) -> bool {
    match component::owner(node, to) {
        Some(route) if route.node == node.node_id => {
            if let Some(lane) = lane_named(to) {
                return component::put_here(node, route.index, lane, stanza);
            }
            let session = node.sessions.get(route.index);
            // As the only one it is given up with its session: another look-up would lead back to this queue.
            let share = copy.map_or(Share::Broadcast, |copy| Share::Copy(Arc::clone(&copy.copies)));
            session.is_some_and(|session| local::deliver_to(node, &session, stanza.clone(), share).is_ok())
        }
        Some(route) => {
            let group = copy.map(|copy| Group { here: 0, ..copy.group });
            let reply = node.links.ask(route.node, task(to, &route, stanza, group), SECOND).await;
            !matches!(outcome(reply, route), Outcome::Failed(_))
        }
        None => false,
    }
}

/// Waits until this node's table can say more of `to` than when the stanza was sent.
async fn until_known(node: &NodeContext, to: &FullJid, why: Failure) {
    match why {
        Failure::Never | Failure::Congested => {}
        Failure::NoSession { applied, asked } => {
            if !matches!(timeout(CATCH_UP, node.routes.wait_for(applied)).await, Ok(true)) {
                debug!(%to, applied, "the route table does not catch up");
            }
            // Looked up before that, it would be asked for in vain once more, and given to others.
            if lane_named(to).is_none() {
                let _ = timeout(LEAVES, until_left(node, to, asked)).await;
            }
        }
        Failure::Stale => {
            // Time is up: it is tried once more all the same.
            let _ = timeout(BACK, node.lease.held()).await;
        }
        Failure::Unsure(route) => {
            let known = async {
                loop {
                    let applied = node.routes.applied();
                    let up = node.routes.node_state(route.node) == Some(NodeState::Up(route.incarnation));
                    let there = component::owner(node, to).is_some_and(|now| now.index == route.index);
                    if !up || !there || !node.routes.wait_for(applied + 1).await {
                        return;
                    }
                }
            };
            // Time is up: it is tried once more all the same.
            let _ = timeout(UNSURE, known).await;
        }
    }
}

/// Waits until `to` is not the address of that session any more.
async fn until_left(node: &NodeContext, to: &FullJid, session: BindIndex) {
    loop {
        let applied = node.routes.applied();
        let there = component::owner(node, to).is_some_and(|now| now.index == session);
        if !there || !node.routes.wait_for(applied + 1).await {
            return;
        }
    }
}

/// Whether the session that was not found has gone on as another one.
fn has_moved(node: &NodeContext, to: &FullJid, why: Failure) -> bool {
    match why {
        Failure::NoSession { asked, .. } => {
            component::owner(node, to).is_some_and(|now| now.index != asked) && lane_named(to).is_none()
        }
        _ => false,
    }
}
