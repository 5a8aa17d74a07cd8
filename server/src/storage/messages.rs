//! Kept messages: what waits for its owner ([`Inbox`]) and what its owner looks up ([`Archive`]), one text for both.
//!
//! A message is kept once, by one command, for all its owners: sender and receiver, say. Its id ([`StanzaId`]) is made
//! before, by whoever keeps it; kept a second time under the same id, nothing is done twice.
//!
//! Each owner numbers its messages (`seq`) in the order in which they were committed: archive and inbox go by these
//! numbers, so that whoever has read up to one has missed nothing before it.

mod archive;
mod inbox;
mod retention;
pub(super) mod rules;

use althing_proto::jid::{BareJid, Jid};
use althing_proto::stanza_id::StanzaId;
use althing_proto::time::Timestamp;
use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::StorageError;

pub use archive::{
    Archive, ArchiveDefault, ArchiveEnds, ArchivePage, ArchivePreferences, ArchiveQuery, ArchivedMessage,
    UnknownStanzaId,
};
pub(super) use archive::{check_preferences, check_query};
pub(super) use inbox::check_ids;
pub use inbox::{Drain, Drained, Inbox, InboxEntry, InboxMessage, InboxSummary, Settle, Taker};
pub use retention::{Due, Retention, SweepRules, Swept};

/// Largest message that is kept, in bytes of XML: the log of the store group takes no more.
pub const MAX_MESSAGE_BYTES: usize = 64 << 10;
/// Most owners of one message.
pub const MAX_OWNERS: usize = 16;
/// Most bytes of the messages of one page, unless one alone is larger. A page ends there, whatever its limit.
pub const MAX_PAGE_BYTES: usize = 1 << 20;
/// Most messages of one page, and most ids in one question or change.
pub const MAX_PAGE: usize = 500;
/// Most addresses in the lists of [`ArchivePreferences`] together.
pub const MAX_PREFERENCES: usize = 500;
/// Most bytes of those addresses.
pub const MAX_PREFERENCE_BYTES: usize = 32 << 10;
/// Most devices that an account's messages wait for; a further one takes the place of the one not seen for longest.
pub const MAX_DEVICES: usize = 16;

/// A device of an account: a hash of the name that the client gives it, or of its resource. None is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DeviceId(pub u64);

/// How much may wait in an inbox, pending or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct InboxQuota {
    /// Most messages.
    pub messages: u32,
    /// Most bytes of their XML.
    pub bytes: u64,
}

/// That a message waits for its owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeepInInbox {
    /// To whom it is being delivered at the same time: it is *pending* for them. Nobody: it is *offline*.
    pub takers: Vec<Taker>,
    /// When it is no longer worth anything, by the sweep.
    pub expires: Timestamp,
    /// What the inbox may hold. Beyond it only those who get a message now have it wait for them, and no other device.
    pub quota: InboxQuota,
    /// Whether it waits for each device that the account has now ([`Inbox::note_device`]), or for whichever comes.
    pub each_device: bool,
}

/// For whom a message is kept, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeepFor {
    /// The account.
    pub owner: BareJid,
    /// The other side: the receiver of a message that the owner sent, else its sender.
    pub peer: Jid,
    /// Whether the owner sent it.
    pub outgoing: bool,
    /// Whether it may go into the archive: what counts for an owner that has set no [`ArchivePreferences`]. `None`: it
    /// may not, whatever the owner has set.
    pub archive: Option<ArchiveDefault>,
    /// Whether it waits for the owner.
    pub inbox: Option<KeepInInbox>,
}

/// What a client has called a message that it sent: a hash of that and of the other side. Two may have the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageName(pub u64);

impl MessageName {
    /// That of a message to `peer`, whatever its resource, with the attribute `id`.
    #[must_use]
    pub fn of(peer: &BareJid, id: &str) -> MessageName {
        // FNV-1a: the same on every node and in every release. Whoever makes two alike finds one of them more slowly.
        let bytes = peer.as_str().bytes().chain([0]).chain(id.bytes());
        let hash = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        MessageName(bytes.fold(0xcbf2_9ce4_8422_2325, hash))
    }
}

impl KeepFor {
    /// Whether the owner has sent it, if only to itself.
    pub(super) fn is_sender(&self) -> bool {
        self.outgoing || self.peer.to_bare() == self.owner
    }
}

/// A message to be kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeepMessage {
    /// Its id.
    pub id: StanzaId,
    /// When the server got it. In an archive it becomes the stamp of the message before, if that is later.
    pub stamp: Timestamp,
    /// The stanza as XML that stands on its own; at most [`MAX_MESSAGE_BYTES`].
    pub xml: Bytes,
    /// For whom; at most [`MAX_OWNERS`], each once.
    pub owners: Vec<KeepFor>,
    /// By which its sender finds it in the archive ([`ArchiveQuery::name`]).
    pub name: Option<MessageName>,
}

/// What became of a message for one owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kept {
    /// It is kept under that number, or was already.
    At(u64),
    /// Neither archive nor inbox were to take it.
    Not,
    /// There is no such account.
    UnknownUser,
    /// Its owner does not want it: the sender is blocked, or the account is disabled and nobody there.
    Refused,
    /// The stream that it came by is closed: its sender was told that it is not handled, and writes it once more.
    Closed,
}

/// What is done with messages as a whole.
#[async_trait]
pub trait Messages: Send + Sync {
    /// Keeps a message for its owners, in one change; what became of it for each, in their order. For an owner that has
    /// it under this id already nothing is done. Whether an owner wants it is decided with it, by the list of blocked
    /// addresses as it is then.
    ///
    /// The order of messages is that in which the futures are first polled: [`Storage::keep`](super::Storage::keep)
    /// polls at once.
    ///
    /// # Errors
    /// [`StorageError::Full`] if an inbox has no room; then nothing is kept for anybody. [`StorageError::TooLarge`]
    /// beyond the bounds of [`KeepMessage`].
    async fn keep(&self, message: KeepMessage) -> Result<Vec<Kept>, StorageError>;

    /// Puts `tombstone` in the place of the text of a message (XEP-0424 §5), for all its owners; its id and its place
    /// stay. Only if it is of `sender`, who sent it or from whom it came. `false`: there is none, or it is one already.
    ///
    /// # Errors
    /// [`StorageError::TooLarge`] above [`MAX_MESSAGE_BYTES`].
    async fn retract(&self, sender: &BareJid, id: StanzaId, tombstone: Bytes) -> Result<bool, StorageError>;
}

/// Refuses a message that is too large.
pub(super) fn check_keep(message: &KeepMessage) -> Result<(), StorageError> {
    within("message", message.xml.len(), MAX_MESSAGE_BYTES)?;
    within("list of owners", message.owners.len(), MAX_OWNERS)?;
    let takers = message.owners.iter().filter_map(|owner| owner.inbox.as_ref());
    takers.map(|inbox| inbox.takers.len()).try_for_each(|count| within("list of takers", count, MAX_PAGE))
}

/// Everything that a size may be too large of, for replies on the wire.
pub(super) const SIZED: &[&str] =
    &["message", "list of owners", "list of takers", "list of ids", "list of preferences"];

pub(super) fn within(what: &'static str, size: usize, limit: usize) -> Result<(), StorageError> {
    if size > limit { Err(StorageError::TooLarge { what, size, limit }) } else { Ok(()) }
}
