//! PURE: what a session knows of carbons (XEP-0280): whether its client wants them, and what of its own was copied.

use std::collections::VecDeque;

use super::SessionState;

/// Of so many of its last messages a session knows that the other resources have copies: an error that answers one of
/// them is copied too (§6.1).
const REMEMBERED: usize = 32;

/// What it knows.
#[derive(Debug, Default)]
pub(super) struct Carbons {
    enabled: bool,
    /// Hashes of receiver and id.
    copied: VecDeque<u64>,
}

impl SessionState {
    /// Whether the client wants copies.
    #[must_use]
    pub fn wants_carbons(&self) -> bool {
        self.carbons.enabled
    }

    /// The client wants copies, or no more.
    pub(super) fn set_carbons(&mut self, enabled: bool) {
        self.carbons.enabled = enabled;
    }

    /// The message with that hash was copied.
    pub(super) fn note_copied(&mut self, hash: u64) {
        let copied = &mut self.carbons.copied;
        if copied.len() >= REMEMBERED {
            copied.pop_front();
        }
        copied.push_back(hash);
    }

    /// Whether the message with that hash was copied, as far as is known.
    #[must_use]
    pub fn was_copied(&self, hash: u64) -> bool {
        self.carbons.copied.contains(&hash)
    }
}
