//! What an account shows of itself: documents, when it was here last, and the directory that is made of them.

use althing_proto::jid::BareJid;
use althing_proto::privacy::Lists;
use althing_proto::time::Timestamp;
use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::messages::ArchivePreferences;
use super::{Roster, StorageError};

/// Largest content of a document, in bytes.
pub const MAX_DOCUMENT_BYTES: usize = 1 << 20;
/// Longest name of a document, longest note and longest word of the directory, in bytes.
pub const MAX_NOTE_BYTES: usize = 1 << 10;
/// Most words by which the directory finds a document.
pub const MAX_WORDS: usize = 16;
/// Most bytes that the directory shows of a document.
pub const MAX_SHOWN_BYTES: usize = 2 << 10;
/// Most bytes of presences in one call of [`Logouts::note`].
pub const MAX_LOGOUT_BYTES: usize = 48 << 10;

/// What is known of a document without its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentHead {
    /// Grows by one each time the document is stored; 1: the first time.
    pub revision: u64,
    /// What the module has noted about the content.
    pub note: Bytes,
}

/// A document as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// Revision and note.
    pub head: DocumentHead,
    /// The content.
    pub content: Bytes,
}

/// A document to be stored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewDocument {
    /// The content; at most [`MAX_DOCUMENT_BYTES`].
    pub content: Bytes,
    /// A note that can be read without the content; at most [`MAX_NOTE_BYTES`].
    pub note: Bytes,
    /// By which words the directory finds the user, each in a field that the module numbers; at most [`MAX_WORDS`].
    /// A user has one entry for each word, of whichever document was stored last with it.
    pub words: Vec<Word>,
    /// What the directory shows; at most [`MAX_SHOWN_BYTES`].
    pub shown: Bytes,
}

/// A word of the directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Word {
    /// The field it is of.
    pub field: u8,
    /// The word as it is compared, bytewise.
    pub text: String,
}

/// Things of a user that are too large for one row, each replaced as a whole: a reader sees the old or the new.
#[async_trait]
pub trait Documents: Send + Sync {
    /// The document of that name, `None` if there is none.
    async fn load(&self, user: &BareJid, name: &str) -> Result<Option<Document>, StorageError>;

    /// Puts a document in the place of the older one; its revision.
    ///
    /// # Errors
    /// [`StorageError::TooLarge`] beyond the bounds of [`NewDocument`]; [`StorageError::Busy`] when others keep
    /// storing the same document at the same time.
    async fn store(&self, user: &BareJid, name: &str, document: NewDocument) -> Result<u64, StorageError>;
}

/// Who is found by which word.
#[async_trait]
pub trait Directory: Send + Sync {
    /// Users of `domain` that have exactly this word in their documents, or one that begins with it, with what the
    /// directory shows; up to `limit`, ordered by word.
    async fn find(
        &self,
        domain: &str,
        word: &Word,
        begins: bool,
        limit: usize,
    ) -> Result<Vec<(BareJid, Bytes)>, StorageError>;
}

/// The end of a user's presence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logout {
    /// Who has left.
    pub user: BareJid,
    /// When.
    pub at: Timestamp,
    /// The last unavailable presence, as XML.
    pub presence: Bytes,
}

/// When users were here last.
#[async_trait]
pub trait Logouts: Send + Sync {
    /// Notes ends, all in one change. An older one than is noted already, or of a user without an account, is left out.
    ///
    /// # Errors
    /// [`StorageError::TooLarge`] above [`MAX_LOGOUT_BYTES`].
    async fn note(&self, logouts: Vec<Logout>) -> Result<(), StorageError>;

    /// The last one of `user`.
    async fn last(&self, user: &BareJid) -> Result<Option<Logout>, StorageError>;
}

/// What a session needs of its account when it begins.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LoginData {
    /// Whether there is an account that is not disabled.
    pub account: bool,
    /// Its roster.
    pub roster: Roster,
    /// The heads of the documents that were asked for, in that order.
    pub documents: Vec<Option<DocumentHead>>,
    /// Its privacy lists, with the default list.
    pub privacy: Lists,
    /// What it has set for its archive.
    pub archive: Option<ArchivePreferences>,
}

/// All that a session needs when it begins, in one round trip.
#[async_trait]
pub trait Logins: Send + Sync {
    /// The account's roster, privacy lists and archive preferences, and the heads of `documents`.
    async fn login(&self, user: &BareJid, documents: &[&str]) -> Result<LoginData, StorageError>;
}

/// Refuses a document that is too large.
pub(super) fn check_document(name: &str, document: &NewDocument) -> Result<(), StorageError> {
    within("document", document.content.len(), MAX_DOCUMENT_BYTES)?;
    check_head(name, &document.note, &document.words, &document.shown)
}

/// Refuses a name, note, words, or an entry of the directory that are too large.
pub(super) fn check_head(name: &str, note: &[u8], words: &[Word], shown: &[u8]) -> Result<(), StorageError> {
    within("name", name.len(), MAX_NOTE_BYTES)?;
    within("note", note.len(), MAX_NOTE_BYTES)?;
    within("list of words", words.len(), MAX_WORDS)?;
    words.iter().try_for_each(|word| within("word", word.text.len(), MAX_NOTE_BYTES))?;
    within("entry", shown.len(), MAX_SHOWN_BYTES)
}

/// Refuses too many logouts in one change.
pub(super) fn check_logouts(logouts: &[Logout]) -> Result<(), StorageError> {
    let size = logouts.iter().map(Logout::size).sum();
    within("list of logouts", size, MAX_LOGOUT_BYTES)
}

impl Logout {
    /// About how many bytes it takes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.user.as_str().len() + self.presence.len() + 16
    }
}

/// Everything that a size may be too large of, for replies on the wire.
pub(super) const SIZED: &[&str] =
    &["document", "name", "note", "list of words", "word", "entry", "list of logouts"];

fn within(what: &'static str, size: usize, limit: usize) -> Result<(), StorageError> {
    if size > limit { Err(StorageError::TooLarge { what, size, limit }) } else { Ok(()) }
}
