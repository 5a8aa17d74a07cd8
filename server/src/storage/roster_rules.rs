//! What a roster change means for the roster as a whole: version, number of items, limits. Pure; shared
//! by all places of storage.

use althing_proto::jid::BareJid;
use althing_proto::roster::{RosterChange, RosterError, RosterItem, RosterOutcome, apply};
use serde::{Deserialize, Serialize};

use super::RosterLimits;

/// What is kept of a roster beside its items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct RosterHead {
    /// Number of changes that were pushed.
    pub(super) version: u64,
    /// Number of items that are listed.
    items: u32,
    /// Number of items that stand only for a request.
    requests: u32,
}

impl RosterHead {
    /// Applies `change` to the item that the roster has for `contact`: the head afterwards, and the
    /// outcome with the item afterwards.
    pub(super) fn change(
        self,
        before: Option<RosterItem>,
        contact: &BareJid,
        change: RosterChange,
        limits: RosterLimits,
    ) -> Result<(RosterHead, RosterOutcome), RosterError> {
        let (old_items, old_requests) = count(before.as_ref());
        let outcome = apply(before, contact, change)?;
        let (new_items, new_requests) = count(outcome.item.as_ref());
        if new_items > old_items && self.items >= limits.items {
            return Err(RosterError::RosterFull);
        }
        if new_requests > old_requests && self.requests >= limits.requests {
            return Err(RosterError::TooManyRequests);
        }
        let head = RosterHead {
            version: self.version + u64::from(outcome.push),
            items: (self.items + new_items).saturating_sub(old_items),
            requests: (self.requests + new_requests).saturating_sub(old_requests),
        };
        Ok((head, outcome))
    }
}

/// What one item adds to the counts: (listed items, mere requests).
fn count(item: Option<&RosterItem>) -> (u32, u32) {
    item.map_or((0, 0), |item| (u32::from(item.listed), u32::from(!item.listed)))
}
