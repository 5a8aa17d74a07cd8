//! Every tree and every key of the embedded store.
//!
//! All rows are in one tree, so that one batch changes rows of several kinds or none. The first byte
//! names the kind. A user is `domain NUL local-part NUL`: a JID has no NUL, so no user is the prefix of
//! another, the users of a domain are neighbours, and all rows of one kind of a user are one range.
//!
//! | row            | key                                             | value                     |
//! |----------------|-------------------------------------------------|---------------------------|
//! | account        | `a` user                                        | [`Account`]               |
//! | roster head    | `r` user                                        | `RosterHead`              |
//! | roster item    | `r` user contact                                | [`RosterItem`]            |
//! | roster change  | `h` user version(u64, big-endian)               | the contact               |
//! | privacy lists  | `b` user                                        | `PrivacyHead`             |
//! | items of a list | `b` user number (u32) `i`                      | [`Item`]s                 |
//! | entry of a list | `b` user number (u32) `e` address              | [`Entry`]                 |
//! | private row    | `p` user length(namespace, u16) namespace key   | the bytes as given        |
//! | document       | `d` user length(name, u16) name 0               | `DocumentRow`             |
//! | part of one    | `d` user length(name, u16) name 1 upload (u64) part (u32) | the bytes as given |
//! | word of the directory | `w` domain NUL field word NUL local-part | what the directory shows  |
//! | last logout    | `l` user                                        | [`Logout`]                |
//! | disabled since | `s` user                                        | [`Timestamp`]             |
//! | text of a message | `c` id (16 bytes)                            | `messages/body.rs`        |
//! | who let go of it | `k` id                                        | a bit an owner            |
//! | figures of kept messages | `u` user                              | `MailboxHead`             |
//! | archived message | `e` user number (u64)                         | `ArchiveRow`              |
//! | the same by its other side | `f` user contact number             | empty                     |
//! | the same by the name its sender gave it | `n` user name (u64) number | empty                 |
//! | archive preferences | `g` user                                   | `ArchivePreferences`      |
//! | waiting message | `i` user number (u64)                          | `InboxRow`                |
//! | record of a stream | `t` user resource                         | `StreamRow`               |
//! | the secret of ids of streams | `m` `streams`                    | 32 bytes                  |
//! | unfinished deletion | `x` user                                   | empty                     |
//! | mark           | `m` `mark`                                      | as the store group gave it |
//! | commands after the mark | `m` `ahead`                            | their number, a big-endian u64 |
//! | being restored | `m` `restoring`                               | the number of the restore |
//! | its rows have begun to come | `m` `restoring-rows`        | the number of the restore |
//! | restored       | `m` `restored`                                | the number of the restore |
//! | being replaced | `m` `replacing`                                 | empty                     |
//!
//! [`Account`]: super::super::Account
//! [`Entry`]: althing_proto::privacy::Entry
//! [`Item`]: althing_proto::privacy::Item
//! [`RosterItem`]: althing_proto::roster::RosterItem
//! [`Logout`]: super::super::profile::Logout
//! [`Timestamp`]: althing_proto::time::Timestamp

mod kinds;

use althing_proto::jid::{BareJid, FullJid, Jid};
use althing_proto::stanza_id::StanzaId;

use super::super::messages::MessageName;
use super::super::profile::Word;
use super::fault::Fault;
pub(super) use kinds::{
    ACCOUNTS, STORE_ROWS, is_account, is_inbox, is_known, is_of_the_server, is_of_the_store, is_privacy_head,
    is_roster_change, is_roster_head,
};

/// The directory of the database below the data directory.
pub(super) const DIRECTORY: &str = "store";

/// The file in it that sled holds locked.
pub(super) const DATABASE_FILE: &str = "db";

/// The file beside it that a running node holds locked.
pub(super) const LOCK_FILE: &str = "store.lock";

/// The tree of all rows.
pub(super) const TREE: &str = "rows";

/// In sled's default tree: the format of the store, a big-endian u32.
pub(super) const FORMAT: &[u8] = b"format";

/// The format that this release reads and writes. Another layout of keys or values needs another number.
pub(super) const FORMAT_VERSION: u32 = 2;

const ACCOUNT: u8 = b'a';
const ROSTER: u8 = b'r';
const PRIVACY: u8 = b'b';
const PRIVATE: u8 = b'p';
const HISTORY: u8 = b'h';
const DOCUMENT: u8 = b'd';
const WORD: u8 = b'w';
const LOGOUT: u8 = b'l';
const DISABLED: u8 = b's';
const DELETION: u8 = b'x';
const MESSAGE: u8 = b'c';
const RELEASED: u8 = b'k';
const MAILBOX: u8 = b'u';
const ARCHIVE: u8 = b'e';
const ARCHIVE_WITH: u8 = b'f';
const ARCHIVE_NAME: u8 = b'n';
const ARCHIVE_PREFERENCES: u8 = b'g';
const INBOX: u8 = b'i';
const STREAM: u8 = b't';
const STORE: u8 = b'm';

/// All keys of records of streams begin with this.
pub(super) const STREAMS: &[u8] = &[STREAM];

/// The secret by which messages of streams get their ids.
pub(super) const STREAM_SECRET: &[u8] = b"mstreams";

/// How far the log of the store group has been applied, in the store of a replica.
pub(super) const MARK: &[u8] = b"mmark";

/// How many commands after the mark have been applied too: written with every batch of a group of commands but
/// the last, which has the mark itself. What it counts is not applied again after a crash.
pub(super) const AHEAD: &[u8] = b"mahead";

/// There while all rows are being replaced: what else is there then is worth nothing.
pub(super) const REPLACING: &[u8] = b"mreplacing";

/// There while a backup is being restored: which restore.
pub(super) const RESTORING: &[u8] = b"mrestoring";

/// Which restore has come to its end.
pub(super) const RESTORED: &[u8] = b"mrestored";

/// Rows of the restore of that number have come.
pub(super) const RESTORING_ROWS: &[u8] = b"mrestoring-rows";

/// Whether a row is about this store and not about the data: it goes to no other replica.
pub(super) fn is_local(key: &[u8]) -> bool {
    key == MARK || key == REPLACING
}

/// The tree of old values beyond what an open snapshot keeps in memory.
pub(super) const UNDO_TREE: &str = "undo";

/// All keys of unfinished deletions begin with this.
pub(super) const DELETIONS: &[u8] = &[DELETION];

fn push_user(key: &mut Vec<u8>, user: &BareJid) {
    key.extend_from_slice(user.domain().as_str().as_bytes());
    key.push(0);
    if let Some(node) = user.node() {
        key.extend_from_slice(node.as_str().as_bytes());
    }
    key.push(0);
}

fn of_user(kind: u8, user: &BareJid) -> Vec<u8> {
    let mut key = Vec::with_capacity(user.as_str().len() + 3);
    key.push(kind);
    push_user(&mut key, user);
    key
}

/// The account of `user`.
pub(super) fn account(user: &BareJid) -> Vec<u8> {
    of_user(ACCOUNT, user)
}

/// All accounts of a domain begin with this.
pub(super) fn accounts_of(domain: &str) -> Vec<u8> {
    [&[ACCOUNT], domain.as_bytes(), &[0]].concat()
}

/// Since when `user` is disabled.
pub(super) fn disabled(user: &BareJid) -> Vec<u8> {
    of_user(DISABLED, user)
}

/// All rows of disabled users of a domain begin with this.
pub(super) fn disabled_of(domain: &str) -> Vec<u8> {
    [&[DISABLED], domain.as_bytes(), &[0]].concat()
}

/// The head of the roster of `owner`; all rows of that roster begin with it.
pub(super) fn roster(owner: &BareJid) -> Vec<u8> {
    of_user(ROSTER, owner)
}

/// The item for `contact` in the roster of `owner`.
pub(super) fn roster_item(owner: &BareJid, contact: &BareJid) -> Vec<u8> {
    let mut key = roster(owner);
    push_user(&mut key, contact);
    key
}

/// All remembered changes of the roster of `owner` begin with this.
pub(super) fn roster_changes(owner: &BareJid) -> Vec<u8> {
    of_user(HISTORY, owner)
}

/// The change of the roster of `owner` that made it `version`.
pub(super) fn roster_change(owner: &BareJid, version: u64) -> Vec<u8> {
    let mut key = roster_changes(owner);
    key.extend_from_slice(&version.to_be_bytes());
    key
}

/// The version at the end of a key of kind roster change.
pub(super) fn version(key: &[u8]) -> Option<u64> {
    key.last_chunk().copied().map(u64::from_be_bytes)
}

/// All rows that belong to `user` and are not the account itself begin with one of these.
pub(super) fn belongings(user: &BareJid) -> [Vec<u8>; 5] {
    [roster(user), roster_changes(user), privacy(user), private_of(user), of_user(STREAM, user)]
}

/// The record of the last stream of an address.
pub(super) fn stream(jid: &FullJid) -> Vec<u8> {
    let mut key = of_user(STREAM, &jid.to_bare());
    key.extend_from_slice(jid.resource().as_str().as_bytes());
    key
}

/// The head of the privacy lists of `user`; all rows of those lists begin with it.
pub(super) fn privacy(user: &BareJid) -> Vec<u8> {
    of_user(PRIVACY, user)
}

fn privacy_list(user: &BareJid, list: u32, part: u8) -> Vec<u8> {
    let mut key = privacy(user);
    key.extend_from_slice(&list.to_be_bytes());
    key.push(part);
    key
}

/// The items of a privacy list.
pub(super) fn privacy_items(user: &BareJid, list: u32) -> Vec<u8> {
    privacy_list(user, list, b'i')
}

/// All entries of a privacy list begin with this.
pub(super) fn privacy_entries(user: &BareJid, list: u32) -> Vec<u8> {
    privacy_list(user, list, b'e')
}

/// An entry of a privacy list.
pub(super) fn privacy_entry(user: &BareJid, list: u32, jid: &Jid) -> Vec<u8> {
    let mut key = privacy_entries(user, list);
    key.extend_from_slice(jid.as_str().as_bytes());
    key
}

/// All private rows of `user` begin with this.
pub(super) fn private_of(user: &BareJid) -> Vec<u8> {
    of_user(PRIVATE, user)
}

/// All private rows of `user` in `namespace` begin with this. The length keeps one namespace from
/// being the beginning of another; callers bound it far below what a u16 holds.
pub(super) fn private_in(user: &BareJid, namespace: &str) -> Vec<u8> {
    let mut key = private_of(user);
    key.extend_from_slice(&u16::try_from(namespace.len()).unwrap_or(u16::MAX).to_be_bytes());
    key.extend_from_slice(namespace.as_bytes());
    key
}

/// A private row.
pub(super) fn private(user: &BareJid, namespace: &str, key: &str) -> Vec<u8> {
    let mut row = private_in(user, namespace);
    row.extend_from_slice(key.as_bytes());
    row
}

/// All rows of documents of `user` begin with this.
pub(super) fn documents_of(user: &BareJid) -> Vec<u8> {
    of_user(DOCUMENT, user)
}

fn document_rows(user: &BareJid, name: &str) -> Vec<u8> {
    let mut key = documents_of(user);
    key.extend_from_slice(&u16::try_from(name.len()).unwrap_or(u16::MAX).to_be_bytes());
    key.extend_from_slice(name.as_bytes());
    key
}

/// The row of a document that says which parts are in force. All rows of the document begin with all but its last
/// byte; it is the first of them.
pub(super) fn document(user: &BareJid, name: &str) -> Vec<u8> {
    let mut key = document_rows(user, name);
    key.push(0);
    key
}

/// All parts of a document begin with this.
pub(super) fn parts(user: &BareJid, name: &str) -> Vec<u8> {
    let mut key = document_rows(user, name);
    key.push(1);
    key
}

/// A part of an upload of a document.
pub(super) fn part(user: &BareJid, name: &str, upload: u64, part: u32) -> Vec<u8> {
    let mut key = parts(user, name);
    key.extend_from_slice(&upload.to_be_bytes());
    key.extend_from_slice(&part.to_be_bytes());
    key
}

/// The upload of the key of a part.
pub(super) fn upload_of_part(key: &[u8]) -> Option<u64> {
    let upload = key.get(key.len().checked_sub(12)?..key.len() - 4)?;
    upload.try_into().ok().map(u64::from_be_bytes)
}

/// Whether a key that begins with [`documents_of`] the user is that of a whole document, and not of a part.
pub(super) fn is_document(user: &BareJid, key: &[u8]) -> bool {
    let start = documents_of(user).len();
    let name = key.get(start..start + 2).and_then(|length| length.try_into().ok()).map(u16::from_be_bytes);
    name.is_some_and(|name| key.len() == start + 2 + usize::from(name) + 1)
}

/// All rows of a word of the directory begin with this, or also those of words that begin with it.
pub(super) fn words(domain: &str, word: &Word, begins: bool) -> Vec<u8> {
    let mut key = [&[WORD], domain.as_bytes(), &[0, word.field], word.text.as_bytes()].concat();
    if !begins {
        key.push(0);
    }
    key
}

/// The row of a word of the directory by which `user` is found. The word has no NUL: XML has none.
pub(super) fn word(user: &BareJid, word: &Word) -> Vec<u8> {
    let mut key = words(user.domain().as_str(), word, false);
    key.extend_from_slice(user.node().map_or("", |node| node.as_str()).as_bytes());
    key
}

/// The user of a key of the directory.
pub(super) fn user_of_word(key: &[u8]) -> Option<BareJid> {
    let mut parts = key.get(1..)?.split(|byte| *byte == 0);
    let (domain, _word, node) = (parts.next()?, parts.next()?, parts.next()?);
    let (domain, node) = (std::str::from_utf8(domain).ok()?, std::str::from_utf8(node).ok()?);
    BareJid::new(&format!("{node}@{domain}")).ok()
}

/// The last logout of `user`.
pub(super) fn logout(user: &BareJid) -> Vec<u8> {
    of_user(LOGOUT, user)
}

fn of_message(kind: u8, id: StanzaId) -> Vec<u8> {
    [&[kind], id.as_bytes().as_slice()].concat()
}

fn numbered(mut prefix: Vec<u8>, seq: u64) -> Vec<u8> {
    prefix.extend_from_slice(&seq.to_be_bytes());
    prefix
}

/// The text of a message.
pub(super) fn message(id: StanzaId) -> Vec<u8> {
    of_message(MESSAGE, id)
}

/// Which owners have let go of the text of a message; none has where there is no such row.
pub(super) fn released(id: StanzaId) -> Vec<u8> {
    of_message(RELEASED, id)
}

/// The figures of a user's messages.
pub(super) fn mailbox(user: &BareJid) -> Vec<u8> {
    of_user(MAILBOX, user)
}

/// The figures of all users of a domain begin with this.
pub(super) fn mailboxes_of(domain: &str) -> Vec<u8> {
    [&[MAILBOX], domain.as_bytes(), &[0]].concat()
}

/// All archived messages of a user begin with this.
pub(super) fn archive(user: &BareJid) -> Vec<u8> {
    of_user(ARCHIVE, user)
}

/// An archived message.
pub(super) fn archive_row(user: &BareJid, seq: u64) -> Vec<u8> {
    numbered(archive(user), seq)
}

/// All archived messages of a user with a contact, whatever its resource, begin with this.
pub(super) fn archive_with(user: &BareJid, with: &Jid) -> Vec<u8> {
    let mut key = of_user(ARCHIVE_WITH, user);
    push_user(&mut key, &with.to_bare());
    key
}

/// An archived message by its other side.
pub(super) fn archive_with_row(user: &BareJid, with: &Jid, seq: u64) -> Vec<u8> {
    numbered(archive_with(user, with), seq)
}

/// An archived message by the name that its sender, whose archive it is, has given it.
pub(super) fn archive_name_row(user: &BareJid, name: MessageName, seq: u64) -> Vec<u8> {
    numbered(numbered(of_user(ARCHIVE_NAME, user), name.0), seq)
}

/// What a user has set for the archive.
pub(super) fn archive_preferences(user: &BareJid) -> Vec<u8> {
    of_user(ARCHIVE_PREFERENCES, user)
}

/// All waiting messages of a user begin with this.
pub(super) fn inbox(user: &BareJid) -> Vec<u8> {
    of_user(INBOX, user)
}

/// A waiting message.
pub(super) fn inbox_row(user: &BareJid, seq: u64) -> Vec<u8> {
    numbered(inbox(user), seq)
}

/// The number at the end of the key of a message.
pub(super) fn seq(key: &[u8]) -> Result<u64, Fault> {
    let number = key.last_chunk().copied().map(u64::from_be_bytes);
    number.ok_or_else(|| Fault::Row(format!("the row {:?} has no number", String::from_utf8_lossy(key))))
}

/// The mark that rows of `user` are still to be deleted.
pub(super) fn deletion(user: &BareJid) -> Vec<u8> {
    of_user(DELETION, user)
}

/// The user of a key of kind account, disabled, figures or deletion; `None` if the key is not one.
pub(super) fn user(key: &[u8]) -> Option<BareJid> {
    let text = std::str::from_utf8(key.get(1..)?).ok()?;
    let (domain, rest) = text.split_once('\0')?;
    let node = rest.strip_suffix('\0')?;
    let jid = if node.is_empty() { domain.to_owned() } else { format!("{node}@{domain}") };
    BareJid::new(&jid).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jid(text: &str) -> BareJid {
        BareJid::new(text).unwrap()
    }

    #[test]
    fn users_come_back_from_keys() {
        for text in ["juliet@example.com", "example.com", "j@b\u{fc}cher.example"] {
            assert_eq!(user(&account(&jid(text))), Some(jid(text)));
            assert_eq!(user(&deletion(&jid(text))), Some(jid(text)));
        }
        assert_eq!(user(b"a"), None);
        assert_eq!(user(b"aexample.com\0juliet"), None);
    }

    #[test]
    fn no_user_is_the_prefix_of_another() {
        let users = ["example.com", "a@example.com", "aa@example.com", "a@example.community", "a@example"];
        for one in users {
            for other in users {
                let prefixed = roster(&jid(other)).starts_with(&roster(&jid(one)));
                assert_eq!(prefixed, one == other, "{one} {other}");
            }
        }
    }

    #[test]
    fn rows_of_documents_are_told_apart() {
        let romeo = jid("romeo@example.net");
        let (head, part) = (document(&romeo, "a"), part(&romeo, "a", 7, 1));
        assert!(is_document(&romeo, &head) && !is_document(&romeo, &part));
        assert!(head < part && part.starts_with(&parts(&romeo, "a")));
        assert_eq!(upload_of_part(&part), Some(7));
        assert!(!document(&romeo, "ab").starts_with(&document_rows(&romeo, "a")));
    }

    #[test]
    fn words_name_their_user() {
        let (romeo, word) = (jid("romeo@example.net"), |text: &str| Word { field: 1, text: text.to_owned() });
        assert_eq!(user_of_word(&super::word(&romeo, &word("montague"))), Some(romeo.clone()));
        let key = super::word(&romeo, &word("montague"));
        assert!(key.starts_with(&words("example.net", &word("mont"), true)));
        assert!(!key.starts_with(&words("example.net", &word("mont"), false)));
        assert!(!key.starts_with(&words("example", &word("mont"), true)));
    }

    #[test]
    fn no_namespace_is_the_prefix_of_another() {
        let romeo = jid("romeo@example.net");
        assert!(!private(&romeo, "urn:ab", "c").starts_with(&private_in(&romeo, "urn:a")));
        assert_ne!(private(&romeo, "urn:a", "bc"), private(&romeo, "urn:ab", "c"));
    }
}
