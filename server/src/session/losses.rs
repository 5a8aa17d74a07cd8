//! Sessions that were lost with their node: each session of this node that has seen one available is told once.
//!
//! Every node does this for its own sessions, when it applies the end of the node: nobody coordinates.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tracing::info;

use althing_cluster::routes::table::is_session;
use althing_cluster::routes::{Ended, NodeState};
use althing_proto::jid::{FullJid, Jid};
use althing_proto::ns;
use althing_proto::stanza::{Kind, PresenceType, Stanza};
use althing_proto::xml::build::BuilderExt;
use althing_proto::xml::{Element, name};

use super::logouts;
use super::registry::Refused;
use super::seen::Seen;
use crate::delivery::{keep, local};
use crate::node::NodeContext;

/// Sessions lost together, found by the hash of their address.
#[derive(Debug)]
pub struct Lost {
    sessions: HashMap<u64, FullJid>,
}

impl Lost {
    /// Those sessions, hashed as the sessions of the node do it.
    #[must_use]
    pub fn new(sessions: impl IntoIterator<Item = FullJid>, keys: &RandomState) -> Self {
        let hashed = sessions.into_iter().map(|jid| (keys.hash_one(jid.as_str()), jid));
        Lost { sessions: hashed.collect() }
    }

    /// All of them, each with its hash.
    pub fn sessions(&self) -> impl Iterator<Item = (u64, &FullJid)> {
        self.sessions.iter().map(|(hash, jid)| (*hash, jid))
    }

    /// Those of them that were seen. Looks at whichever of the two is shorter.
    #[must_use]
    pub fn seen_by<'a>(&'a self, seen: &Seen) -> Vec<&'a FullJid> {
        if seen.len() < self.sessions.len() {
            return seen.iter().filter_map(|hash| self.sessions.get(&hash)).collect();
        }
        let sessions = self.sessions.iter().filter(|(hash, _)| seen.contains(**hash));
        sessions.map(|(_, jid)| jid).collect()
    }
}

/// The unavailable presence of a session that can no longer say it itself (RFC 6121 §4.5.2).
#[must_use]
pub fn unavailable(from: &FullJid, to: impl Into<Jid>) -> Stanza {
    let kind = PresenceType::Unavailable;
    let element = Element::builder("presence", ns::CLIENT).set(name!("type"), kind.name()).build();
    Stanza::from_parts(Kind::Presence(kind), Some(from.clone().into()), Some(to.into()), element)
}

/// How many losses the sessions of a node have been told of, of those that its table has counted.
#[derive(Debug)]
pub struct Told(watch::Sender<u64>);

impl Default for Told {
    fn default() -> Self {
        Told(watch::Sender::new(0))
    }
}

impl Told {
    /// Waits until each session has been told of all losses that the node's table has: what the lost had kept for it and not
    /// brought comes before what it gets after this. The caller sets the deadline.
    pub async fn all(&self, node: &NodeContext) {
        let all = node.routes.losses();
        if !self.is_all(node) {
            // The sender is here.
            let _ = self.0.subscribe().wait_for(|told| *told >= all).await;
        }
    }

    /// Whether nobody has to wait. A node that stops tells nothing any more.
    #[must_use]
    pub fn is_all(&self, node: &NodeContext) -> bool {
        *self.0.borrow() >= node.routes.losses() || *node.stopping.borrow()
    }

    fn one_more(&self) {
        self.0.send_modify(|told| *told += 1);
    }
}

/// Tells this node's sessions of each loss, in the order of the log, until nobody can send any more.
pub async fn announce(node: Arc<NodeContext>, mut ended: mpsc::Receiver<Ended>) {
    // A node that comes for the first time ends nothing.
    let mut known = HashSet::new();
    while let Some(Ended { index, node: lost, mut sessions }) = ended.recv().await {
        // Connections of components have no presence.
        sessions.retain(|(jid, _)| is_session(jid));
        let began = known.insert(lost) && matches!(node.routes.node_state(lost), Some(NodeState::Up(_)));
        if sessions.is_empty() && began {
            node.losses.one_more();
            continue;
        }
        if sessions.is_empty() {
            // What it was about to bring here may have been lost with it all the same.
            tell(&node, Lost::new([], &node.seen_keys));
            node.losses.one_more();
            continue;
        }
        info!(member = %lost, applied = index, sessions = sessions.len(), "sessions were lost with their node");
        let sessions: Vec<FullJid> = sessions.into_iter().map(|(jid, _)| jid).collect();
        tell(&node, Lost::new(sessions.clone(), &node.seen_keys));
        node.losses.one_more();
        for jid in &sessions {
            // What they had taken is free, and no session has to say so.
            keep::tell_those_here(&node, &jid.to_bare());
        }
        logouts::note_lost(&node, sessions);
    }
}

/// Tells all sessions and components of this node. One whose mailbox is full is closed: it would show somebody for ever.
pub fn tell(node: &NodeContext, lost: Lost) {
    let lost = Arc::new(lost);
    node.components.tell_lost(&lost);
    for session in node.sessions.all() {
        if session.tell_lost(Arc::clone(&lost)) == Err(Refused::Full) {
            node.metrics.mailbox_full();
            local::close_congested(&session);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seen_ones_are_found_from_either_side() {
        let keys = RandomState::new();
        let jid = |n: u64| FullJid::new(&format!("u{n}@b/r")).unwrap();
        let seen = |range: std::ops::Range<u64>| {
            let mut seen = Seen::default();
            range.for_each(|n| assert!(seen.available(keys.hash_one(jid(n).as_str()))));
            seen
        };
        let lost = Lost::new((0..10).map(jid), &keys);
        for range in [8..12, 8..40] {
            let mut found: Vec<_> = lost.seen_by(&seen(range)).into_iter().cloned().collect();
            found.sort();
            assert_eq!(found, [jid(8), jid(9)]);
        }
        assert!(lost.seen_by(&Seen::default()).is_empty());
    }
}
