//! What a command came to, as values with a form on the wire that lasts (`tagged.rs`).

use althing_proto::jid::BareJid;
use althing_proto::privacy::{PrivacyChanged, PrivacyError};
use althing_proto::roster::RosterError;
use serde::{Deserialize, Serialize};

use super::super::messages::{self, Kept, Swept};
use super::super::profile::SIZED;
use super::super::{Changed, StorageError};
use super::backup::RestoreRefusal;
use super::messages::command::{DrainedRows, Purged};
use super::tagged::tagged;

/// [`Reply::TooLarge`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TooLarge {
    /// What is too large: `namespace`, `key`, `value`.
    pub what: String,
    /// Its size in bytes.
    pub size: u64,
    /// The most that is taken, in bytes.
    pub limit: u64,
}

/// [`Reply::Full`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Full {
    /// What there is too much of: `rows`, `bytes`.
    pub what: String,
    /// The most that is allowed.
    pub limit: u64,
}

tagged! {
    /// What a command came to.
    enum Reply {
        /// Whether the command found what it was for.
        1 Done(bool), since 1;
        /// The outcome of a roster change, or why it is not allowed.
        2 Roster(Result<Box<Changed>, RosterError>), since 1;
        /// The user has no account. Nothing was done.
        3 UnknownUser(BareJid), since 1;
        /// A name or value is larger than the store takes. Nothing was done.
        4 TooLarge(TooLarge), since 1;
        /// What the command came to is not known here, or no longer.
        6 Lost(()), since 1;
        /// The user has as much of it as is allowed. Nothing was done.
        20 Full(Full), since 1;
        /// A document is in force: how often it was stored.
        21 Revision(u64), since 1;
        /// The outcome of a change of privacy lists, or why it is not allowed.
        30 Privacy(Result<Box<PrivacyChanged>, PrivacyError>), since 1;
        /// What became of a message for each owner.
        50 Kept(Vec<Kept>), since 1;
        /// Which messages are the taker's now.
        51 Drained(DrainedRows), since 1;
        /// How many were found.
        52 Count(u32), since 1;
        /// How many were settled, and where to go on.
        53 Purged(Purged), since 1;
        /// What has gone.
        54 Swept(Swept), since 1;
        /// The secret that is in force.
        80 Secret([u8; 32]), since 1;
        /// Which of many, by their places.
        90 Places(Vec<u32>), since 1;
        /// Nothing was done, because of a backup that is restored.
        130 NotRestored(RestoreRefusal), since 1;
    }
}

impl Reply {
    /// Whether the command found what it was for.
    ///
    /// # Errors
    /// What the reply says instead.
    pub(in super::super) fn done(self) -> Result<bool, StorageError> {
        match self {
            Reply::Done(found) => Ok(found),
            other => Err(other.refusal()),
        }
    }

    /// The outcome of a roster change.
    ///
    /// # Errors
    /// What the reply says instead.
    pub(in super::super) fn roster(self) -> Result<Result<Changed, RosterError>, StorageError> {
        match self {
            Reply::Roster(outcome) => Ok(outcome.map(|changed| *changed)),
            other => Err(other.refusal()),
        }
    }

    /// The outcome of a change of privacy lists.
    ///
    /// # Errors
    /// What the reply says instead.
    pub(in super::super) fn privacy(self) -> Result<Result<PrivacyChanged, PrivacyError>, StorageError> {
        match self {
            Reply::Privacy(outcome) => Ok(outcome.map(|changed| *changed)),
            other => Err(other.refusal()),
        }
    }

    /// The reply that stands for an error which is the asker's; `None` for the store's own failures.
    pub(in super::super) fn of(error: &StorageError) -> Option<Reply> {
        let bytes = |size: usize| u64::try_from(size).unwrap_or(u64::MAX);
        match error {
            StorageError::UnknownUser { user } => Some(Reply::UnknownUser(user.clone())),
            StorageError::TooLarge { what, size, limit } => Some(Reply::TooLarge(TooLarge {
                what: (*what).to_owned(),
                size: bytes(*size),
                limit: bytes(*limit),
            })),
            StorageError::Unknown => Some(Reply::Lost(())),
            StorageError::Restoring => Some(Reply::NotRestored(RestoreRefusal::Restoring)),
            StorageError::Full { what, limit } => {
                Some(Reply::Full(Full { what: (*what).to_owned(), limit: *limit }))
            }
            _ => None,
        }
    }

    pub(super) fn refusal(self) -> StorageError {
        let bytes = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
        match self {
            Reply::UnknownUser(user) => StorageError::UnknownUser { user },
            Reply::TooLarge(TooLarge { what, size, limit }) => {
                let known = ["namespace", "key", "value"].iter().chain(SIZED).chain(messages::SIZED);
                let known = known.into_iter().find(|known| **known == what);
                let what = known.copied().unwrap_or("part");
                StorageError::TooLarge { what, size: bytes(size), limit: bytes(limit) }
            }
            Reply::Full(Full { what, limit }) => {
                let known = ["rows", "bytes", "messages"].into_iter().find(|known| *known == what);
                StorageError::Full { what: known.unwrap_or("parts"), limit }
            }
            Reply::NotRestored(why) => why.refusal(),
            // A reply of another command's kind says nothing about this one.
            Reply::Lost(())
            | Reply::Done(_)
            | Reply::Roster(_)
            | Reply::Privacy(_)
            | Reply::Revision(_)
            | Reply::Kept(_)
            | Reply::Drained(_)
            | Reply::Count(_)
            | Reply::Purged(_)
            | Reply::Swept(_)
            | Reply::Secret(_)
            | Reply::Places(_) => StorageError::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use althing_proto::jid::Jid;
    use althing_proto::privacy::BlockDelta;
    use althing_proto::roster::{PresenceChange, RosterOutcome, SubscriptionKind};

    use super::super::tagged::assert_golden;
    use super::*;

    fn samples() -> Vec<(&'static str, Reply)> {
        let outcome = RosterOutcome {
            item: None,
            push: true,
            route: false,
            reply: Some(SubscriptionKind::Subscribed),
            cancel: vec![SubscriptionKind::Unsubscribe],
            presence: PresenceChange { contact_lost: true, ..PresenceChange::default() },
        };
        let changed = Changed { version: 9, outcome };
        let too_large = TooLarge { what: "key".to_owned(), size: 300, limit: 7 };
        let privacy = PrivacyChanged {
            version: 9,
            changed: true,
            list: 2,
            default: Some(2),
            edited: Some("elist".to_owned()),
            blocks: BlockDelta::Unblocked(vec![Jid::new("b@c").unwrap()]),
            reload: false,
        };
        vec![
            ("000101", Reply::Done(true)),
            ("000200090001000101010200010000", Reply::Roster(Ok(Box::new(changed)))),
            ("00020106", Reply::Roster(Err(RosterError::RosterFull))),
            ("0003036a4064", Reply::UnknownUser(BareJid::new("j@d").unwrap())),
            ("0004036b6579fb2c0107", Reply::TooLarge(too_large)),
            ("0006", Reply::Lost(())),
            ("001507", Reply::Revision(7)),
            ("001404726f777309", Reply::Full(Full { what: "rows".to_owned(), limit: 9 })),
            ("001e0009010201020105656c69737402010362406300", Reply::Privacy(Ok(Box::new(privacy)))),
            ("008201", Reply::NotRestored(RestoreRefusal::Occupied)),
            ("001e0104", Reply::Privacy(Err(PrivacyError::InUse))),
        ]
    }

    #[test]
    fn golden_bytes() {
        assert_golden!(Reply, samples());
    }

    #[test]
    fn what_was_asked_wrongly_crosses_the_wire_as_it_was() {
        let user = BareJid::new("j@d").unwrap();
        for error in [
            StorageError::UnknownUser { user },
            StorageError::TooLarge { what: "value", size: 70_000, limit: 65_536 },
            StorageError::Unknown,
            StorageError::Full { what: "bytes", limit: 9 },
        ] {
            assert_eq!(Reply::of(&error).unwrap().done(), Err(error));
        }
        assert_eq!(Reply::of(&StorageError::Busy), None);
    }
}
