//! Random-looking bytes from a seed that is handed in.
//!
//! `proto` draws no random numbers: whoever makes a stream hands it a seed, and all that must not be guessed
//! (stream ids, nonces, resources) follows from it. The same seed gives the same conversation, which is
//! what tests and simulation need.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;

/// A stream of bytes: HMAC-SHA-256 of a counter, keyed with the seed. Without the seed it cannot be told
/// from chance, and no part of it tells another.
pub struct Entropy {
    key: hmac::Key,
    counter: u64,
}

impl Entropy {
    /// Starts from a seed, which must be random and used once.
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Entropy { key: hmac::Key::new(hmac::HMAC_SHA256, &seed), counter: 0 }
    }

    /// Fills `out`. Each call starts a new block: what is left of the last one is never handed out.
    pub fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(32) {
            let block = hmac::sign(&self.key, &self.counter.to_be_bytes());
            // 2^64 blocks are never reached; a wrap would only repeat bytes.
            self.counter = self.counter.wrapping_add(1);
            for (to, from) in chunk.iter_mut().zip(block.as_ref()) {
                *to = *from;
            }
        }
    }

    /// `n_bytes` bytes as base64url text without padding: safe in XML, in a JID's resource and in SCRAM.
    pub fn token(&mut self, n_bytes: usize) -> String {
        let mut bytes = vec![0; n_bytes];
        self.fill(&mut bytes);
        URL_SAFE_NO_PAD.encode(bytes)
    }
}

// The key must not reach a log.
impl std::fmt::Debug for Entropy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entropy").field("counter", &self.counter).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_same_bytes_and_no_repeats() {
        let mut one = Entropy::from_seed([7; 32]);
        let mut two = Entropy::from_seed([7; 32]);
        let mut other = Entropy::from_seed([8; 32]);
        let tokens: Vec<String> = (0..100).map(|_| one.token(18)).collect();
        assert!(tokens.iter().all(|token| *token == two.token(18)));
        assert!(tokens.iter().all(|token| token.len() == 24 && *token != other.token(18)));
        let distinct: std::collections::HashSet<&String> = tokens.iter().collect();
        assert_eq!(distinct.len(), tokens.len());
    }

    #[test]
    fn long_fills_do_not_repeat_their_blocks() {
        let mut bytes = [0; 100];
        Entropy::from_seed([1; 32]).fill(&mut bytes);
        assert_ne!(bytes[..32], bytes[32..64]);
        assert!(bytes[96..].iter().any(|byte| *byte != 0));
    }
}
