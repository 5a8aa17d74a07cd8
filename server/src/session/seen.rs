//! PURE: whose available presence a session has seen: what it must be told of when a node is lost.
//!
//! A full JID is kept as a 64-bit hash, sorted; a session that has seen nobody has no memory for it. Two addresses
//! with one hash are one in 2^64 a pair, and would cost an unavailable presence too much. Policy when full
//! ([`MAX_SEEN`]): further addresses are not remembered, so that the session is not told when they are lost with
//! their node; a client's own probe tells it.

/// Most addresses that a session remembers.
pub const MAX_SEEN: usize = 10_000;

/// The hashes of the full JIDs that a session has seen available and not unavailable since.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    hashes: Vec<u64>,
}

impl Seen {
    /// An available presence of that address was delivered; `false` where it cannot be remembered.
    pub fn available(&mut self, hash: u64) -> bool {
        if let Err(at) = self.hashes.binary_search(&hash) {
            if self.hashes.len() >= MAX_SEEN {
                return false;
            }
            self.hashes.insert(at, hash);
        }
        true
    }

    /// An unavailable presence of that address was delivered.
    pub fn unavailable(&mut self, hash: u64) {
        if let Ok(at) = self.hashes.binary_search(&hash) {
            self.hashes.remove(at);
            if self.hashes.is_empty() {
                self.clear();
            }
        }
    }

    /// Whether the address is seen available.
    #[must_use]
    pub fn contains(&self, hash: u64) -> bool {
        self.hashes.binary_search(&hash).is_ok()
    }

    /// The hashes, in their order.
    pub fn iter(&self) -> impl Iterator<Item = u64> {
        self.hashes.iter().copied()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// Forgets all, and gives the memory back.
    pub fn clear(&mut self) {
        self.hashes = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_seen_is_kept_once_until_it_is_gone() {
        let mut seen = Seen::default();
        for hash in [5, 3, 5, 9] {
            assert!(seen.available(hash));
        }
        assert_eq!(seen.iter().collect::<Vec<_>>(), [3, 5, 9]);
        seen.unavailable(5);
        seen.unavailable(5);
        assert!(!seen.contains(5) && seen.contains(9));
        seen.unavailable(3);
        seen.unavailable(9);
        assert_eq!(seen.hashes.capacity(), 0, "nothing seen takes nothing");
    }

    #[test]
    fn memory_is_bounded() {
        let mut seen = Seen::default();
        assert!((0..MAX_SEEN as u64).all(|hash| seen.available(hash)));
        assert!(!seen.available(u64::MAX));
        assert!(seen.available(7), "known already");
        assert_eq!(seen.len(), MAX_SEEN);
    }
}
