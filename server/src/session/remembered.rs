//! PURE: which messages a session has got lately, for each may come once more by another way, until the store knows that it
//! has arrived.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use althing_proto::stanza_id::StanzaId;

/// How many messages are remembered at least.
const RECENT: usize = 256;

/// How many at most.
const MOST: usize = 4_096;

/// For how long more than the least are: as long as a stanza that a lost node has not answered for may wait for its turn.
const LATELY: Duration = Duration::from_secs(90);

/// The ids of messages that a session has got.
#[derive(Debug, Default)]
pub struct Remembered {
    known: HashSet<StanzaId>,
    /// In the order in which they came.
    order: VecDeque<(StanzaId, Instant)>,
}

impl Remembered {
    /// What another session has got, at this moment at the latest.
    #[must_use]
    pub fn new(ids: Vec<StanzaId>, now: Instant) -> Self {
        let mut remembered = Remembered::default();
        for id in ids {
            remembered.insert(id, now);
        }
        remembered
    }

    /// Whether it is new; from now on it is not.
    pub fn insert(&mut self, id: StanzaId, now: Instant) -> bool {
        if !self.known.insert(id) {
            return false;
        }
        self.order.push_back((id, now));
        while self.order.len() > RECENT
            && let Some((first, at)) = self.order.front().copied()
            && (self.order.len() > MOST || now >= at + LATELY)
        {
            self.order.pop_front();
            self.known.remove(&first);
        }
        true
    }

    /// All of them, the oldest first.
    pub fn ids(&self) -> impl Iterator<Item = StanzaId> {
        self.order.iter().map(|(id, _)| *id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> StanzaId {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        StanzaId::from_bytes(bytes)
    }

    #[test]
    fn r18_what_has_come_lately_is_known_and_what_is_remembered_is_bounded() {
        let now = Instant::now();
        let mut remembered = Remembered::new(vec![id(0), id(1)], now);
        assert!(!remembered.insert(id(0), now));
        assert!((2..MOST).all(|number| remembered.insert(id(number), now)));
        assert!(!remembered.insert(id(0), now), "none of them is old");
        assert!(remembered.insert(id(MOST), now));
        assert!(!remembered.insert(id(1), now));
        assert!(remembered.insert(id(0), now), "too many: the oldest is forgotten");
        assert!(remembered.insert(id(MOST + 1), now + LATELY));
        assert_eq!(
            remembered.ids().count(),
            RECENT,
            "and so are those that came long ago, but for the last ones"
        );
        assert!(!remembered.insert(id(MOST), now + LATELY));
    }
}
