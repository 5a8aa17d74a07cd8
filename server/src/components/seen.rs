//! PURE: whose available presence a component has seen, and at which of its addresses.
//!
//! A session that is lost with its node says no farewell. The other nodes' sessions are told by their own nodes
//! (`server/src/session/losses.rs`); a component is told by its host, with one unavailable presence for each address
//! that the lost one had shown itself at: a room's occupant, a gateway's contact. Policy when full ([`MAX_SEEN`]):
//! further ones are not remembered, and the component is not told when they are lost with their node.

use std::collections::HashMap;

use althing_proto::jid::{FullJid, Jid};

use crate::session::losses::Lost;

/// Most pairs of a sender and an address that a component remembers.
pub const MAX_SEEN: usize = 100_000;

/// The pairs, by the hash of the sender's full JID.
#[derive(Debug, Default)]
pub struct ComponentSeen {
    senders: HashMap<u64, Vec<Jid>>,
    pairs: usize,
}

impl ComponentSeen {
    /// Available presence has come to `at`; `false` where that cannot be remembered.
    pub fn available(&mut self, sender: u64, at: &Jid) -> bool {
        if self.senders.get(&sender).is_some_and(|known| known.contains(at)) {
            return true;
        }
        if self.pairs >= MAX_SEEN {
            return false;
        }
        self.pairs += 1;
        self.senders.entry(sender).or_default().push(at.clone());
        true
    }

    /// Unavailable presence has come to `at`.
    pub fn unavailable(&mut self, sender: u64, at: &Jid) {
        let Some(known) = self.senders.get_mut(&sender) else { return };
        let before = known.len();
        known.retain(|address| address != at);
        self.pairs -= before - known.len();
        if known.is_empty() {
            self.senders.remove(&sender);
        }
    }

    /// Forgets those of the lost sessions that were seen: each with the addresses that must be told.
    pub fn lost(&mut self, lost: &Lost, is_back: impl Fn(&FullJid) -> bool) -> Vec<(FullJid, Vec<Jid>)> {
        let mut told = Vec::new();
        for (hash, jid) in lost.sessions() {
            if self.senders.contains_key(&hash)
                && !is_back(jid)
                && let Some(known) = self.senders.remove(&hash)
            {
                self.pairs -= known.len();
                told.push((jid.clone(), known));
            }
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher, RandomState};

    use super::*;

    #[test]
    fn p5_what_was_lost_is_told_once_at_each_address_unless_it_is_back() {
        let keys = RandomState::new();
        let [a, b, c]: [FullJid; 3] = ["a@l/1", "b@l/1", "c@l/1"].map(|jid| FullJid::new(jid).unwrap());
        let hash = |jid: &FullJid| keys.hash_one(jid.as_str());
        let [one, two] = ["one@gw", "two@gw"].map(|jid| Jid::new(jid).unwrap());
        let mut seen = ComponentSeen::default();
        for (sender, at) in [(&a, &one), (&a, &two), (&a, &one), (&b, &one), (&c, &one)] {
            assert!(seen.available(hash(sender), at));
        }
        seen.unavailable(hash(&b), &one);
        seen.unavailable(hash(&b), &two);
        let lost = Lost::new([a.clone(), b, c.clone()], &keys);
        assert_eq!(seen.lost(&lost, |jid| *jid == c), [(a, vec![one, two])]);
        assert_eq!(seen.pairs, 1);
        assert_eq!(seen.lost(&lost, |_| true), []);
        assert_eq!(seen.lost(&lost, |_| false).len(), 1, "c is gone now");
        assert_eq!((seen.pairs, seen.senders.len()), (0, 0));
    }
}
