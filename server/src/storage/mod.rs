//! Durable data: one small trait a concern.
//!
//! | place                  | for                                                             |
//! |------------------------|-----------------------------------------------------------------|
//! | [`memory`]             | tests and simulation; gone with the process                     |
//! | [`embedded`]           | the default: sled below the data directory, typed commands      |
//! | [`replicated`]         | a cluster: the same rows, kept by the replicas of the store group |
//!
//! Each place passes the same suite (`conformance.rs`). What a trait's method has answered is
//! durable: it survives the death of the process (in `memory`: of nothing). Reads never see half
//! of a change; they may see a change a moment before it is answered. One exception: the rows of a
//! deleted user with very many of them go by steps after the account itself, and before the name has another.
//!
//! Every row belongs to an account: a change for a user without one is refused with
//! [`StorageError::UnknownUser`], so that a change that crosses a deletion leaves nothing behind for
//! whoever takes the name next. Reads for such a user find nothing.

mod all;
pub mod backup;
mod error;
pub mod messages;
mod privacy_rules;
pub mod profile;
mod roster_rules;
pub mod space;
pub mod streams;

pub mod embedded;
pub mod memory;
mod metered;
pub mod replicated;

#[cfg(test)]
mod conformance;

use althing_proto::jid::{BareJid, Jid};
use althing_proto::privacy::{Kinds, Lists, PrivacyChange, PrivacyChanged, PrivacyError};
use althing_proto::roster::{RosterChange, RosterError, RosterItem, RosterOutcome};
use althing_proto::sasl::Credentials;
use althing_proto::time::Timestamp;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

pub use all::{Keeping, Storage};
pub use backup::{Backups, RestoreStep};
pub use embedded::EmbeddedOptions;
pub use error::StorageError;
pub use messages::{Archive, Inbox, Messages, Retention};
pub use profile::{Directory, Documents, Logins, Logouts};
pub use space::Room;
pub use streams::Streams;

/// Largest value of [`PrivateData`], in bytes. sled keeps larger ones badly, and one client could
/// fill the disk with them.
pub const MAX_VALUE_BYTES: usize = 64 * 1024;

/// Longest key and longest namespace of [`PrivateData`], in bytes.
pub const MAX_KEY_BYTES: usize = 4 * 1024;

/// What the server keeps of a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// What a password is checked against; the password itself is not kept.
    pub credentials: Credentials,
    /// When the account was made.
    pub created: Timestamp,
}

/// An account, and whether its user may log in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The account.
    pub account: Account,
    /// Since when an administrator lets nobody log in; `None` as a rule.
    pub disabled: Option<Timestamp>,
}

/// Who may log in.
#[async_trait]
pub trait Accounts: Send + Sync {
    /// The account of `user`, `None` if there is none.
    async fn get(&self, user: &BareJid) -> Result<Option<Account>, StorageError>;

    /// Makes an account. `false`: the user has one, which stays as it is.
    async fn create(&self, user: &BareJid, account: Account) -> Result<bool, StorageError>;

    /// Replaces the credentials. `false`: there is no such account.
    async fn set_credentials(&self, user: &BareJid, credentials: Credentials) -> Result<bool, StorageError>;

    /// Deletes the account with everything that the user owns: roster, private data; and ends its subscriptions in the
    /// rosters of other users, as if the stanzas for it had come. All of it or nothing, whenever the process dies.
    /// `false`: there is no such account.
    async fn delete(&self, user: &BareJid) -> Result<bool, StorageError>;

    /// The account of `user` and how it stands, `None` if there is none.
    async fn standing(&self, user: &BareJid) -> Result<Option<Standing>, StorageError>;

    /// Lets nobody log in any more, since that time; `None`: the user may again. All that the user owns stays.
    /// `false`: there is no such account.
    async fn set_disabled(&self, user: &BareJid, since: Option<Timestamp>) -> Result<bool, StorageError>;

    /// Of the users of `domain` those that are disabled, as [`Accounts::list`].
    async fn list_disabled(
        &self,
        domain: &str,
        after: Option<&BareJid>,
        limit: usize,
    ) -> Result<Vec<BareJid>, StorageError>;

    /// Up to `limit` users of `domain` that come after `after`, in the order of their local parts
    /// (bytewise). For the next page, pass the last one.
    async fn list(
        &self,
        domain: &str,
        after: Option<&BareJid>,
        limit: usize,
    ) -> Result<Vec<BareJid>, StorageError>;
}

/// A roster as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Roster {
    /// Grows by one with each change that is pushed. It begins at the time at which the account was made, in
    /// milliseconds: an account that is made again repeats none. Nor does one that comes out of a backup.
    pub version: u64,
    /// All items, those that are not [`listed`](RosterItem::listed) too, ordered by domain, then
    /// local part of the contact.
    pub items: Vec<RosterItem>,
}

/// How many items a roster may have. Enforced where an item is added; a smaller limit removes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RosterLimits {
    /// Most contacts in a roster; above it [`RosterError::RosterFull`].
    pub items: u32,
    /// Most requests of contacts that are not in the roster; above it [`RosterError::TooManyRequests`].
    pub requests: u32,
}

impl Default for RosterLimits {
    fn default() -> Self {
        RosterLimits { items: 1_000, requests: 100 }
    }
}

/// What a roster change came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// The version of the roster afterwards; a push carries it.
    pub version: u64,
    /// What the server has to do.
    pub outcome: RosterOutcome,
}

/// What is new in a roster since a version that a client has (RFC 6121 §2.6).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RosterNews {
    /// These contacts have changed, each once, by its last change; oldest first. None: nothing is new.
    Changes {
        /// The version of the roster now.
        version: u64,
        /// The changes.
        changes: Vec<ItemChange>,
    },
    /// Too much, or it is no longer known: the whole roster.
    Whole(Roster),
}

/// The last change of one contact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemChange {
    /// The version of the roster after it.
    pub version: u64,
    /// The contact.
    pub contact: BareJid,
    /// The item as clients see it; `None`: it is not in the roster.
    pub item: Option<RosterItem>,
}

impl ItemChange {
    fn new(version: u64, contact: BareJid, item: Option<RosterItem>) -> Self {
        ItemChange { version, contact, item: item.filter(|item| item.listed) }
    }
}

/// Who is in whose roster (RFC 6121 §2).
#[async_trait]
pub trait Rosters: Send + Sync {
    /// The roster of `owner`; an empty one if it never had an item, of version 0 without an account.
    async fn load(&self, owner: &BareJid) -> Result<Roster, StorageError>;

    /// Applies `change` to what `owner` has for `contact`. Changes of one roster happen one after the
    /// other, each wholly or not at all; the inner error says why the change is not allowed.
    async fn change(
        &self,
        owner: &BareJid,
        contact: &BareJid,
        change: RosterChange,
        limits: RosterLimits,
    ) -> Result<Result<Changed, RosterError>, StorageError>;

    /// What is new in the roster of `owner` since `version`: the whole roster where more than `most` contacts have
    /// changed.
    async fn since(&self, owner: &BareJid, version: u64, most: u32) -> Result<RosterNews, StorageError>;

    /// The item for `contact` in the roster of `owner`, listed or not.
    async fn item(&self, owner: &BareJid, contact: &BareJid) -> Result<Option<RosterItem>, StorageError>;
}

/// How much of one namespace of [`PrivateData`] a user may fill. A smaller bound removes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowBound {
    /// Most rows.
    pub rows: u32,
    /// Most bytes of their keys and values together.
    pub bytes: u64,
}

impl RowBound {
    /// Whether a row of `size` bytes may be written, over one of `old` bytes if there is one, where `rows` of
    /// `bytes` are there. What does not grow is always allowed.
    fn admits(self, (rows, bytes): (u64, u64), old: Option<usize>, size: usize) -> Result<(), StorageError> {
        let number = |size: usize| u64::try_from(size).unwrap_or(u64::MAX);
        if old.is_none() && rows >= u64::from(self.rows) {
            return Err(StorageError::Full { what: "rows", limit: u64::from(self.rows) });
        }
        let (before, after) = (number(old.unwrap_or(0)), number(size));
        if after > before && bytes.saturating_sub(before).saturating_add(after) > self.bytes {
            return Err(StorageError::Full { what: "bytes", limit: self.bytes });
        }
        Ok(())
    }
}

/// Which privacy list is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum WhichList {
    /// None: only what there is.
    None,
    /// The default list.
    Default,
    /// The list of that number, or the default where it is gone.
    Applied(u32),
    /// The list of that name.
    Named(String),
}

/// How much a user's privacy lists may hold. Enforced where something is added; a smaller limit removes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrivacyLimits {
    /// Most addresses that one list blocks wholly; above it [`PrivacyError::TooManyEntries`].
    pub entries: u32,
    /// Most bytes of those addresses.
    pub entry_bytes: u32,
    /// Most lists; above it [`PrivacyError::TooManyLists`]. One more may be made by blocking.
    pub lists: u32,
    /// Most other rules of one list; above it [`PrivacyError::TooManyItems`].
    pub items: u32,
}

/// What the default list says of one peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judgement {
    /// The peer's roster item, listed or not: read with the list, of which rules may need it.
    pub item: Option<RosterItem>,
    /// What is denied to the peer, and of it.
    pub denied: Kinds,
}

/// Whom a user wants to hear nothing of, and be seen by: privacy lists (XEP-0016), of which the block list
/// (XEP-0191) is a part.
#[async_trait]
pub trait Privacy: Send + Sync {
    /// What `owner` has, with one list.
    async fn load(&self, owner: &BareJid, which: WhichList) -> Result<Lists, StorageError>;

    /// What the default list of `owner` says of `peer`: for what no session of `owner` looks at. Reads a few rows,
    /// however many there are.
    async fn judge(&self, owner: &BareJid, peer: &Jid) -> Result<Judgement, StorageError>;

    /// Applies `change`. Changes of one user happen one after the other, each wholly or not at all; the inner error
    /// says why the change is not allowed.
    ///
    /// # Errors
    /// [`StorageError::TooLarge`] above [`PrivacyChange::MAX_BYTES`].
    async fn change(
        &self,
        owner: &BareJid,
        change: PrivacyChange,
        limits: PrivacyLimits,
    ) -> Result<Result<PrivacyChanged, PrivacyError>, StorageError>;
}

/// Rows that modules keep for a user: (user, namespace of the module, key) -> bytes.
///
/// How many rows a client may make is for the module to bound: by [`PrivateData::put_within`], or beforehand.
#[async_trait]
pub trait PrivateData: Send + Sync {
    /// The value of a row.
    async fn get(&self, user: &BareJid, namespace: &str, key: &str) -> Result<Option<Vec<u8>>, StorageError>;

    /// Writes a row, over an older one if there is one.
    ///
    /// # Errors
    /// [`StorageError::TooLarge`] above [`MAX_VALUE_BYTES`] and [`MAX_KEY_BYTES`].
    async fn put(
        &self,
        user: &BareJid,
        namespace: &str,
        key: &str,
        value: Vec<u8>,
    ) -> Result<(), StorageError>;

    /// As [`PrivateData::put`], if the namespace stays within `bound`: decided where the row is written, so that
    /// no two writers pass it together.
    ///
    /// # Errors
    /// As [`PrivateData::put`]; [`StorageError::Full`] beyond the bound.
    async fn put_within(
        &self,
        user: &BareJid,
        namespace: &str,
        key: &str,
        value: Vec<u8>,
        bound: RowBound,
    ) -> Result<(), StorageError>;

    /// Deletes a row. `false`: there is no such row.
    async fn delete(&self, user: &BareJid, namespace: &str, key: &str) -> Result<bool, StorageError>;

    /// Up to `limit` rows of one namespace whose keys come after `after`, ordered by key (bytewise).
    async fn list(
        &self,
        user: &BareJid,
        namespace: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Vec<u8>)>, StorageError>;
}

/// What a place of storage can do beside its data.
#[async_trait]
pub trait Engine: Send + Sync {
    /// Returns when everything that was written before is durable.
    async fn flush(&self) -> Result<(), StorageError>;

    /// Finishes what is queued, flushes, and lets go of the files; everything after it fails with
    /// [`StorageError::Closed`]. May be called twice.
    async fn close(&self) -> Result<(), StorageError>;

    /// The failure after which the store writes no more, if there was one. A node with such a store
    /// is not ready.
    fn failure(&self) -> Option<StorageError>;

    /// Writes that wait to be taken up; 0 where nothing waits.
    fn queued(&self) -> usize;

    /// Bytes on disk; 0 where there is none.
    async fn size_on_disk(&self) -> Result<u64, StorageError>;

    /// Looks how much room the disk has: nothing new is taken while there is too little
    /// ([`StorageError::NoRoom`]). `None` where there is no disk.
    async fn room(&self) -> Result<Option<Room>, StorageError>;

    /// Whether the last look has shown too little.
    fn is_full(&self) -> bool;
}

/// Refuses a change of privacy lists that is too large.
fn check_privacy(change: &PrivacyChange) -> Result<(), StorageError> {
    let (size, limit) = (change.size(), PrivacyChange::MAX_BYTES);
    if size > limit { Err(StorageError::TooLarge { what: "value", size, limit }) } else { Ok(()) }
}

/// Refuses names and values of private rows that are too large.
fn check_row(namespace: &str, key: &str, value: &[u8]) -> Result<(), StorageError> {
    for (what, size, limit) in [
        ("namespace", namespace.len(), MAX_KEY_BYTES),
        ("key", key.len(), MAX_KEY_BYTES),
        ("value", value.len(), MAX_VALUE_BYTES),
    ] {
        if size > limit {
            return Err(StorageError::TooLarge { what, size, limit });
        }
    }
    Ok(())
}
