//! What an account looks up later (XEP-0313).

use althing_proto::jid::{BareJid, Jid};
use althing_proto::stanza_id::StanzaId;
use althing_proto::time::Timestamp;
use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::super::StorageError;
use super::{MAX_PAGE, MAX_PREFERENCE_BYTES, MAX_PREFERENCES, MessageName, within};

/// Which part of an archive is wanted. All that is given must be true of a message.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ArchiveQuery {
    /// With whom: an address with a resource matches only itself, one without all of its resources.
    pub with: Option<Jid>,
    /// Not before that time.
    pub start: Option<Timestamp>,
    /// Not after that time.
    pub end: Option<Timestamp>,
    /// Behind each of these messages of the archive.
    pub after: Vec<StanzaId>,
    /// Before each of these.
    pub before: Vec<StanzaId>,
    /// Only these; none: all.
    pub ids: Vec<StanzaId>,
    /// Most messages of the page; at most [`MAX_PAGE`].
    pub limit: u32,
    /// Whether the page is the last part of what matches, not the first.
    pub backwards: bool,
    /// Only what its owner has sent under that name; of those the last [`MAX_PAGE`].
    pub name: Option<MessageName>,
}

/// A message of an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchivedMessage {
    /// Its id.
    pub id: StanzaId,
    /// When it was archived; never before the one before it.
    pub stamp: Timestamp,
    /// The stanza; a tombstone if it was retracted.
    pub xml: Bytes,
    /// Whether it was retracted.
    pub retracted: bool,
}

/// A page of an archive.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ArchivePage {
    /// The messages, oldest first, whichever way the page was asked for.
    pub messages: Vec<ArchivedMessage>,
    /// Whether nothing that matches is left beyond the page: after it, or before it if that is the way it goes.
    pub complete: bool,
    /// How many messages match without the page's own bounds; `None` where that would have to be counted.
    pub count: Option<u64>,
    /// Where a page ends before it is full, because so many messages were looked at: the last of them. The next page is
    /// behind it, or before it if that is the way it goes. It need not match.
    pub looked: Option<StanzaId>,
}

/// A query names a message that is not in the archive (XEP-0313: `item-not-found`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnknownStanzaId(pub StanzaId);

/// First and last message of an archive (XEP-0313 §4.2): ids and stamps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveEnds {
    /// The oldest.
    pub first: (StanzaId, Timestamp),
    /// The newest.
    pub last: (StanzaId, Timestamp),
}

/// What is archived where no list says otherwise (XEP-0441).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ArchiveDefault {
    /// Everything.
    Always,
    /// Nothing.
    Never,
    /// What has to do with contacts of the roster.
    Roster,
}

/// What an account wants to be archived (XEP-0441).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchivePreferences {
    /// Where no list says otherwise.
    pub default: ArchiveDefault,
    /// With whom always: an address without a resource stands for all of its resources. Wins over `never` where both
    /// name the same address; an address with a resource wins over one without.
    pub always: Vec<Jid>,
    /// With whom never.
    pub never: Vec<Jid>,
}

/// What was said.
#[async_trait]
pub trait Archive: Send + Sync {
    /// A page of the archive of `user`. It reads no more than the page, but to look for a stamp (some twenty rows) and
    /// where `with` has a resource: some thousand rows then. A page ends early where it has
    /// [`MAX_PAGE_BYTES`](super::MAX_PAGE_BYTES), and where enough was looked at ([`ArchivePage::looked`]).
    ///
    /// # Errors
    /// [`StorageError::TooLarge`] for more than [`MAX_PAGE`] ids.
    async fn page(
        &self,
        user: &BareJid,
        query: ArchiveQuery,
    ) -> Result<Result<ArchivePage, UnknownStanzaId>, StorageError>;

    /// First and last message; `None` of an empty archive.
    async fn ends(&self, user: &BareJid) -> Result<Option<ArchiveEnds>, StorageError>;

    /// What `user` has set; `None`: nothing yet.
    async fn preferences(&self, user: &BareJid) -> Result<Option<ArchivePreferences>, StorageError>;

    /// Sets the preferences. They are obeyed by what is kept from then on.
    ///
    /// # Errors
    /// [`StorageError::TooLarge`] above [`MAX_PREFERENCES`] or [`MAX_PREFERENCE_BYTES`].
    async fn set_preferences(
        &self,
        user: &BareJid,
        preferences: ArchivePreferences,
    ) -> Result<(), StorageError>;
}

/// Refuses a question that is too long.
pub(in super::super) fn check_query(query: &ArchiveQuery) -> Result<(), StorageError> {
    within("list of ids", query.ids.len() + query.after.len() + query.before.len(), MAX_PAGE)
}

/// Refuses lists that are too long.
pub(in super::super) fn check_preferences(preferences: &ArchivePreferences) -> Result<(), StorageError> {
    let lists = || preferences.always.iter().chain(&preferences.never);
    within("list of preferences", lists().count(), MAX_PREFERENCES)?;
    within("list of preferences", lists().map(|jid| jid.as_str().len()).sum(), MAX_PREFERENCE_BYTES)
}
