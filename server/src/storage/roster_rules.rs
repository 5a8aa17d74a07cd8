//! What a roster change means for the roster as a whole: version, number of items, limits. Pure; shared
//! by all places of storage.

use std::collections::HashMap;

use althing_proto::jid::BareJid;
use althing_proto::roster::{
    Direction, RosterChange, RosterError, RosterItem, RosterOutcome, SubscriptionEvent, apply,
};
use althing_proto::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::RosterLimits;

/// How many changes of a roster are remembered, for clients that come back with an older version.
pub(super) const HISTORY: u64 = 100;

/// Above the versions of rosters that were in no backup: they begin at milliseconds since 1970.
const CHANGES: u64 = 1 << 42;

/// So many restores are told apart.
const RESTORES: u64 = 1 << 20;

/// What is kept of a roster beside its items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct RosterHead {
    /// Grows by one with each change that is pushed.
    pub(super) version: u64,
    /// Number of items that are listed.
    items: u32,
    /// Number of items that stand only for a request.
    requests: u32,
}

impl RosterHead {
    /// The empty roster of an account that was made at that time. Versions begin there, so that an account made
    /// again never has a version that a client knows from its predecessor.
    pub(super) fn of_new(created: Timestamp) -> Self {
        RosterHead { version: created.as_millis(), ..RosterHead::default() }
    }

    /// The same from a backup, in the restore of that number: versions are others than before, and than those of other
    /// restores, for clients know some that are not in the backup.
    pub(super) fn restored(self, restore: u64) -> Self {
        let epoch = 1 + restore % RESTORES;
        RosterHead { version: self.version % CHANGES + epoch * CHANGES, ..self }
    }

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

    /// Whether the changes since `version` may all be remembered.
    pub(super) fn remembers(self, version: u64) -> bool {
        version <= self.version && self.version - version <= HISTORY
    }
}

/// The changes since `version` as (version, contact), each contact once, by its last change. `noted` are the
/// remembered ones, in order. `None` where one is missing, or where more than `most` contacts have changed.
pub(super) fn missed(
    head: RosterHead,
    version: u64,
    noted: Vec<(u64, BareJid)>,
    most: u32,
) -> Option<Vec<(u64, BareJid)>> {
    if !noted.iter().map(|(number, _)| *number).eq(version + 1..=head.version) {
        return None;
    }
    let mut last = HashMap::new();
    for (number, contact) in &noted {
        last.insert(contact.clone(), *number);
    }
    let mut missed = noted;
    missed.retain(|(number, contact)| last.get(contact) == Some(number));
    (missed.len() <= most as usize).then_some(missed)
}

/// The bounds for changes that add nothing.
pub(super) const UNBOUNDED: RosterLimits = RosterLimits { items: u32::MAX, requests: u32::MAX };

/// What the end of an account means for a contact: the changes of the contact's item for it. `item` is the account's
/// for the contact.
pub(super) fn ended_with(item: &RosterItem) -> impl Iterator<Item = RosterChange> + use<> {
    item.cancellations().map(|kind| {
        RosterChange::Subscription(SubscriptionEvent { direction: Direction::Inbound, kind, request: None })
    })
}

/// What one item adds to the counts: (listed items, mere requests).
fn count(item: Option<&RosterItem>) -> (u32, u32) {
    item.map_or((0, 0), |item| (u32::from(item.listed), u32::from(!item.listed)))
}
