//! Kinds of rows by their keys, for whoever handles rows of any kind.

use super::{
    ACCOUNT, ARCHIVE, ARCHIVE_NAME, ARCHIVE_PREFERENCES, ARCHIVE_WITH, DELETION, DISABLED, DOCUMENT, HISTORY,
    INBOX, LOGOUT, MAILBOX, MESSAGE, PRIVACY, PRIVATE, RELEASED, ROSTER, STORE, STREAM, WORD, user,
};

/// All keys of accounts begin with this.
pub(in super::super) const ACCOUNTS: &[u8] = &[ACCOUNT];

/// More rows of the store itself there never are.
pub(in super::super) const STORE_ROWS: usize = 16;

/// Every kind of row: a release that makes another one adds it here, and older ones refuse its backups.
const KINDS: &[u8] = &[
    ACCOUNT,
    ROSTER,
    PRIVACY,
    PRIVATE,
    HISTORY,
    DOCUMENT,
    WORD,
    LOGOUT,
    DISABLED,
    DELETION,
    MESSAGE,
    RELEASED,
    MAILBOX,
    ARCHIVE,
    ARCHIVE_WITH,
    ARCHIVE_NAME,
    ARCHIVE_PREFERENCES,
    INBOX,
    STREAM,
    STORE,
];

/// Whether it is the key of a row that this release knows.
pub(in super::super) fn is_known(key: &[u8]) -> bool {
    key.first().is_some_and(|kind| KINDS.contains(kind))
}

/// Whether it is an account's key.
pub(in super::super) fn is_account(key: &[u8]) -> bool {
    key.first() == Some(&ACCOUNT)
}

/// Whether a row is about the store, and about nobody's data.
pub(in super::super) fn is_of_the_store(key: &[u8]) -> bool {
    key.first() == Some(&STORE)
}

/// Whether a row is about the server that wrote it: another one that gets its data has no use for it.
pub(in super::super) fn is_of_the_server(key: &[u8]) -> bool {
    is_of_the_store(key) || key.first() == Some(&STREAM)
}

/// Whether it is the key of a message that waits.
pub(in super::super) fn is_inbox(key: &[u8]) -> bool {
    key.first() == Some(&INBOX)
}

/// Whether it is the key of what is kept of somebody's privacy lists beside their rules.
pub(in super::super) fn is_privacy_head(key: &[u8]) -> bool {
    key.first() == Some(&PRIVACY) && user(key).is_some()
}

/// Whether it is the key of what is kept of somebody's roster beside its items.
pub(in super::super) fn is_roster_head(key: &[u8]) -> bool {
    key.first() == Some(&ROSTER) && user(key).is_some()
}

/// Whether it is the key of a change of a roster.
pub(in super::super) fn is_roster_change(key: &[u8]) -> bool {
    key.first() == Some(&HISTORY)
}
