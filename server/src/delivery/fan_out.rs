//! One presence to the available sessions of many accounts: serialized once, one look at the table an account,
//! one task a node. Full links: see `delivery/remote/overflow.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tracing::debug;

use althing_cluster::node_id::NodeId;
use althing_cluster::routes::BindIndex;
use althing_cluster::task::FanOutPresence;
use althing_proto::jid::{BareJid, FullJid};
use althing_proto::stanza::{Broadcast, Kind, PresenceType, Stanza};

use super::{drive_aside, local, probes, route};
use crate::node::NodeContext;
use crate::router::steps::Origin;
use crate::session::SessionHandle;
use crate::session::copies::Share;
use crate::session::effect::Hidden;
use crate::session::registry::Refused;

/// Most recipients of one task, and most bytes of their addresses: with the stanza they stay well below what the
/// lane takes (4 MiB), and no task keeps its lane for long.
const MAX_RECIPIENTS: usize = 4_096;
const MAX_ADDRESS_BYTES: usize = 1 << 20;

/// The sessions that a task is for, each with the bind that owns it.
type Recipients = Vec<(FullJid, BindIndex)>;

/// Sends `stanza` to every available session of the accounts in `to`; accounts of other domains get it by
/// the router. Who is hidden from gets no copy made.
pub fn to_accounts(node: &Arc<NodeContext>, stanza: Stanza, to: &[BareJid], hidden: Option<&Hidden>) {
    debug!(stop = "delivery.fan_out", receivers = to.len());
    let broadcast = Broadcast::new(stanza);
    let mut elsewhere: BTreeMap<NodeId, Recipients> = BTreeMap::new();
    let (mut here, mut told) = (Vec::new(), Told::of(broadcast.stanza()));
    for (at, account) in to.iter().enumerate() {
        if !node.serves(account.domain().as_str()) {
            let copy = broadcast.stanza().with_to(account.clone());
            drive_aside(node, route(node, copy, Origin::Elsewhere).into());
            continue;
        }
        here.clear();
        node.routes.visit_account(account, &mut |jid, route| {
            if route.priority.is_none() || hidden.is_some_and(|hidden| hidden.is_from(at, jid)) {
            } else if route.node == node.node_id {
                here.push(route.index);
            } else {
                elsewhere.entry(route.node).or_default().push((jid.clone(), route.index));
            }
        });
        if here.is_empty() {
            continue;
        }
        let copy = broadcast.copy_for(account.clone());
        for index in &here {
            if let Some(session) = node.sessions.get(*index) {
                // A full mailbox is dealt with there; a session that has gone has missed nothing.
                let _ = told.tell(node, &session, copy.clone());
            }
        }
    }
    told.ask_again(node);
    if elsewhere.is_empty() {
        return;
    }
    let xml = Bytes::from(broadcast.stanza().to_standalone());
    for (target, recipients) in elsewhere {
        for recipients in split(recipients) {
            let task = FanOutPresence { recipients, xml: xml.clone() };
            node.remote.overflow().tell(node, target, task.into());
        }
    }
}

/// Hands a presence to those of the recipients that are sessions of this node; how many were there. They come
/// account by account.
pub fn to_sessions(node: &Arc<NodeContext>, stanza: Stanza, recipients: &[(FullJid, BindIndex)]) -> u64 {
    let broadcast = Broadcast::new(stanza);
    let mut copy: Option<(BareJid, Stanza)> = None;
    let (mut met, mut told) = (0, Told::of(broadcast.stanza()));
    for (jid, owner) in recipients {
        let Some(session) = node.sessions.get(*owner).filter(|session| session.jid == *jid) else { continue };
        let account = jid.to_bare();
        let stanza = match &copy {
            Some((of, copy)) if *of == account => copy.clone(),
            _ => {
                let fresh = broadcast.copy_for(account.clone());
                copy = Some((account, fresh.clone()));
                fresh
            }
        };
        met += u64::from(told.tell(node, &session, stanza).is_ok());
    }
    told.ask_again(node);
    met
}

/// Whom a broadcast has told on this node that a session is gone.
///
/// A session may be followed by another one with its address, and that one's first presence come before the word of its
/// end: from another node, or because the first was slow. So whoever was told of an end, while the table says that the
/// address is available, asks what is shown there *now*. The table had the successor before anybody heard of it.
struct Told {
    gone: Option<FullJid>,
    sessions: Vec<Arc<SessionHandle>>,
}

impl Told {
    fn of(stanza: &Stanza) -> Told {
        let is_end = stanza.kind() == Kind::Presence(PresenceType::Unavailable);
        let gone = stanza.from().filter(|_| is_end).and_then(|from| from.try_as_full().ok()).cloned();
        Told { gone, sessions: Vec::new() }
    }

    fn tell(
        &mut self,
        node: &Arc<NodeContext>,
        session: &Arc<SessionHandle>,
        stanza: Stanza,
    ) -> Result<(), Refused> {
        match &self.gone {
            // Nobody is told of his own end.
            Some(gone) if *gone == session.jid => return Ok(()),
            Some(_) => self.sessions.push(Arc::clone(session)),
            None => {}
        }
        local::deliver_to(node, session, stanza, Share::Broadcast)
    }

    fn ask_again(self, node: &Arc<NodeContext>) {
        let route = self.gone.and_then(|gone| node.routes.locate(&gone));
        let Some(route) = route.filter(|route| route.priority.is_some()) else { return };
        for session in self.sessions {
            probes::ask_one(node, &session, &route);
        }
    }
}

/// Divides recipients into tasks within the bounds.
fn split(recipients: Recipients) -> Vec<Recipients> {
    let mut tasks: Vec<Recipients> = Vec::new();
    let mut bytes = 0;
    for recipient in recipients {
        let size = recipient.0.as_str().len() + 16;
        bytes += size;
        match tasks.last_mut() {
            Some(task) if task.len() < MAX_RECIPIENTS && bytes <= MAX_ADDRESS_BYTES => task.push(recipient),
            _ => {
                bytes = size;
                tasks.push(vec![recipient]);
            }
        }
    }
    tasks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_recipients_become_several_tasks_and_none_is_lost() {
        let recipients: Recipients =
            (0..10_000).map(|n| (FullJid::new(&format!("u{n}@b/r")).unwrap(), BindIndex(n))).collect();
        let tasks = split(recipients.clone());
        assert_eq!(tasks.len(), 3);
        assert_eq!(tasks.concat(), recipients);
        let long: Recipients =
            (0..3_000).map(|n| (FullJid::new(&format!("u@b/{n:0>1000}")).unwrap(), BindIndex(n))).collect();
        let tasks = split(long);
        assert_eq!(tasks.len(), 3, "bytes count too");
    }
}
