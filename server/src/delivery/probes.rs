//! A session that has become available asks for the presence of many accounts: one look at the table an account, one
//! task a node, one answer of each node with all that it has to show. Nobody's session is woken for it, and no store
//! is read. Full links: see `delivery/remote/overflow.rs`.
//!
//! Who has no available session is not answered for: RFC 6121 §4.3.2 leaves that to the server, and at a login it would
//! be most of what is sent. A client's own probe is answered (`modules/presence/probe.rs`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::RwLockReadGuard;
use tracing::debug;

use althing_cluster::node_id::NodeId;
use althing_cluster::routes::{BindIndex, Route};
use althing_cluster::task::{CountShown, ProbeSessions, ShowPresence, TaskReply};
use althing_proto::jid::{BareJid, FullJid, Jid};
use althing_proto::ns;
use althing_proto::stanza::{Kind, PresenceType, Stanza};
use althing_proto::xml::build::BuilderExt;
use althing_proto::xml::{Element, name};

use super::{drive_aside, local, route};
use crate::node::NodeContext;
use crate::router::steps::Origin;
use crate::session::SessionHandle;
use crate::session::shown::Visible;

/// Most sessions that one task asks for.
const MAX_ASKED: usize = 16_384;

/// Answers are sent on when they have so many bytes: with the last stanza they stay far below what may wait for the
/// session that asks, and what the lane between nodes takes.
const ANSWER_BYTES: usize = 256 * 1024;

/// How long another node may take to say what its sessions show.
const PATIENCE: Duration = Duration::from_secs(5);

/// Most sessions of the own node that are asked at once.
const STEP: usize = 1_024;

/// Asks on behalf of the session `from`, which the bind `asker` has begun: the accounts in `targets`, and of the
/// sessions of this node as many as have [`ANSWER_BYTES`] to show. The others are given back, to be asked as `here` when
/// the session has room for more.
#[must_use]
pub fn ask(
    node: &Arc<NodeContext>,
    from: &FullJid,
    asker: BindIndex,
    targets: &[BareJid],
    mut here: Vec<BindIndex>,
) -> Vec<BindIndex> {
    debug!(stop = "delivery.probes", receivers = targets.len());
    let mut elsewhere: BTreeMap<NodeId, Vec<BindIndex>> = BTreeMap::new();
    for account in targets {
        if !node.serves(account.domain().as_str()) {
            // §4.3.1: to another server it comes from the bare JID.
            let routed = route(node, probe(&from.to_bare(), account), Origin::Elsewhere);
            drive_aside(node, routed.into());
            continue;
        }
        node.routes.visit_account(account, &mut |_, route| {
            if route.priority.is_none() || route.index == asker {
            } else if route.node == node.node_id {
                here.push(route.index);
            } else {
                elsewhere.entry(route.node).or_default().push(route.index);
            }
        });
    }
    for (target, sessions) in elsewhere {
        for sessions in sessions.chunks(MAX_ASKED) {
            let task = ProbeSessions { from: from.clone(), asker, sessions: sessions.to_vec() };
            node.remote.overflow().tell(node, target, task.into());
        }
    }
    let Some(session) = node.sessions.get(asker).filter(|_| !here.is_empty()) else { return Vec::new() };
    let from = Jid::from(from.clone());
    let step = here.len().min(STEP);
    let asked = while_shown(node, &here[..step], |shown| {
        let (mut answers, mut bytes, mut asked) = (Vec::new(), 0, step);
        for (at, visible) in shown {
            if bytes >= ANSWER_BYTES {
                asked = *at;
                break;
            }
            if let Some(answer) = visible.as_ref().and_then(|visible| visible.answer(&from)) {
                bytes += answer.to_bytes().len();
                answers.push(answer);
            }
        }
        local::show(node, &session, answers);
        asked
    });
    here.split_off(asked)
}

/// Asks on behalf of a session of this node what the one at `route` shows now.
pub fn ask_one(node: &Arc<NodeContext>, asker: &Arc<SessionHandle>, route: &Route) {
    if route.index == asker.index {
        return;
    }
    if route.node != node.node_id {
        let sessions = vec![route.index];
        let task = ProbeSessions { from: asker.jid.clone(), asker: asker.index, sessions };
        node.remote.overflow().tell(node, route.node, task.into());
        return;
    }
    let from = Jid::from(asker.jid.clone());
    while_shown(node, &[route.index], |shown| {
        let answers = shown.iter().filter_map(|(_, visible)| visible.as_ref()?.answer(&from));
        local::show(node, asker, answers.collect());
    });
}

/// Answers a session of the node `to` for those of this node's sessions that it may see; how many that were.
pub fn answer(node: &Arc<NodeContext>, to: NodeId, task: &ProbeSessions) -> u64 {
    let from = Jid::from(task.from.clone());
    while_shown(node, &task.sessions, |shown| {
        let mut batch = Vec::new();
        let (mut bytes, mut count) = (0, 0);
        let send = |presences: Vec<Bytes>| {
            let answer = ShowPresence { to: task.from.clone(), owner: task.asker, presences };
            node.remote.overflow().tell(node, to, answer.into());
        };
        for xml in shown.iter().filter_map(|(_, visible)| visible.as_ref()?.answer_elsewhere(&from)) {
            count += 1;
            bytes += xml.len();
            batch.push(Bytes::from(xml));
            if bytes >= ANSWER_BYTES {
                bytes = 0;
                send(std::mem::take(&mut batch));
            }
        }
        if !batch.is_empty() {
            send(batch);
        }
        count
    })
}

/// Shows a session of this node the presences that another node has sent; how many there were.
pub fn shown(node: &Arc<NodeContext>, session: &Arc<SessionHandle>, presences: Vec<Stanza>) -> u64 {
    let count = presences.len() as u64;
    local::show(node, session, presences);
    count
}

/// Whether any session of `account`, on whatever node, shows its presence to `to`. Those of a node that does not say
/// count as shown: nobody is to be called unavailable by mistake.
pub async fn any_shown(node: &Arc<NodeContext>, account: &BareJid, to: &Jid) -> bool {
    let mut here = Vec::new();
    let mut elsewhere: BTreeMap<NodeId, Vec<BindIndex>> = BTreeMap::new();
    node.routes.visit_account(account, &mut |_, route| {
        if route.priority.is_none() {
        } else if route.node == node.node_id {
            here.push(route.index);
        } else {
            elsewhere.entry(route.node).or_default().push(route.index);
        }
    });
    if count_shown(node, &here, to) > 0 {
        return true;
    }
    for (target, sessions) in elsewhere {
        let task = CountShown { to: to.clone(), sessions };
        if !matches!(node.links.ask(target, task.into(), PATIENCE).await, Ok(TaskReply::CountShown(0))) {
            return true;
        }
    }
    false
}

/// How many of those sessions of this node show their presence to `to`.
pub fn count_shown(node: &NodeContext, sessions: &[BindIndex], to: &Jid) -> u64 {
    while_shown(node, sessions, |shown| {
        let seen =
            shown.iter().filter(|(_, visible)| visible.as_ref().is_some_and(|visible| visible.may_see(to)));
        seen.count() as u64
    })
}

/// A probe between bare JIDs.
fn probe(from: &BareJid, to: &BareJid) -> Stanza {
    let kind = PresenceType::Probe;
    let element = Element::builder("presence", ns::CLIENT).set(name!("type"), kind.name()).build();
    Stanza::from_parts(Kind::Presence(kind), Some(from.clone().into()), Some(to.clone().into()), element)
}

/// Calls `then` with what those sessions show, each with its place among them. They stay silent meanwhile.
fn while_shown<R>(
    node: &NodeContext,
    sessions: &[BindIndex],
    then: impl FnOnce(&[(usize, RwLockReadGuard<'_, Option<Visible>>)]) -> R,
) -> R {
    let found = sessions.iter().enumerate();
    let found: Vec<(usize, Arc<SessionHandle>)> =
        found.filter_map(|(at, index)| Some((at, node.sessions.get(*index)?))).collect();
    let shown: Vec<_> = found.iter().map(|(at, session)| (*at, session.shown().get())).collect();
    then(&shown)
}
