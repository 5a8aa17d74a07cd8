//! What the commands on documents and logouts do to the rows.

use std::collections::BTreeMap;

use althing_proto::jid::BareJid;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::super::super::profile::{Logout, Word};
use super::super::command::{NoteLogouts, PutPart, SealDocument};
use super::super::fault::Fault;
use super::super::keys;
use super::super::reply::Reply;
use super::{View, Writes, put};

/// The row of a document that says which parts it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) struct DocumentRow {
    /// How often the document was stored.
    pub(in super::super) revision: u64,
    /// Which upload the parts are of.
    pub(in super::super) upload: u64,
    /// The module's note.
    pub(in super::super) note: Bytes,
    /// The words of the directory that are to go with the document.
    pub(in super::super) words: Vec<Word>,
}

impl View<'_> {
    /// A part that is not the last. The first one ends every other upload of the document, so that there is one at
    /// most besides the parts in force; what would follow an upload that was ended is refused.
    pub(super) fn put_part(&self, command: PutPart, writes: &mut Writes) -> Result<Reply, Fault> {
        let PutPart { user, document, upload, part, bytes } = command;
        if !self.has_account(&user)? {
            return Ok(Reply::UnknownUser(user));
        }
        if part == 0 {
            let head: Option<DocumentRow> = self.read(&keys::document(&user, &document))?;
            self.drop_parts(&user, &document, &[Some(upload), head.map(|head| head.upload)], writes)?;
        } else if self.get(&keys::part(&user, &document, upload, part - 1))?.is_none() {
            return Ok(Reply::Done(false));
        }
        writes.push((keys::part(&user, &document, upload, part), Some(bytes.to_vec().into())));
        Ok(Reply::Done(true))
    }

    /// The last part, with which the upload takes the place of the older document.
    pub(super) fn seal_document(&self, command: SealDocument, writes: &mut Writes) -> Result<Reply, Fault> {
        let SealDocument { user, document, upload, parts, last, note, words, shown } = command;
        if !self.has_account(&user)? {
            return Ok(Reply::UnknownUser(user));
        }
        if parts > 0 && self.get(&keys::part(&user, &document, upload, parts - 1))?.is_none() {
            return Ok(Reply::Done(false));
        }
        let key = keys::document(&user, &document);
        let before: Option<DocumentRow> = self.read(&key)?;
        self.drop_parts(&user, &document, &[Some(upload)], writes)?;
        writes.push((keys::part(&user, &document, upload, parts), Some(last.to_vec().into())));
        let (revision, old) = before.map_or((0, Vec::new()), |before| (before.revision, before.words));
        for word in old.iter().filter(|word| !words.contains(word)) {
            writes.push((keys::word(&user, word), None));
        }
        for word in &words {
            writes.push((keys::word(&user, word), Some(shown.to_vec().into())));
        }
        let revision = revision + 1;
        put(writes, key, &DocumentRow { revision, upload, note, words })?;
        Ok(Reply::Revision(revision))
    }

    /// Deletes the parts of all uploads but those.
    fn drop_parts(
        &self,
        user: &BareJid,
        document: &str,
        but: &[Option<u64>],
        writes: &mut Writes,
    ) -> Result<(), Fault> {
        for key in self.rows(&keys::parts(user, document), usize::MAX)? {
            if !but.contains(&keys::upload_of_part(&key)) {
                writes.push((key, None));
            }
        }
        Ok(())
    }

    /// The rows of the directory that go with a user's documents.
    pub(super) fn words_of(&self, user: &BareJid) -> Result<Vec<Vec<u8>>, Fault> {
        let mut found = Vec::new();
        for key in self.rows(&keys::documents_of(user), usize::MAX)? {
            if keys::is_document(user, &key)
                && let Some(head) = self.read::<DocumentRow>(&key)?
            {
                found.extend(head.words.iter().map(|word| keys::word(user, word)));
            }
        }
        Ok(found)
    }

    pub(super) fn note_logouts(&self, command: NoteLogouts, writes: &mut Writes) -> Result<Reply, Fault> {
        let mut newest: BTreeMap<Vec<u8>, Logout> = BTreeMap::new();
        for logout in command.logouts {
            let key = keys::logout(&logout.user);
            let older = match newest.get(&key) {
                Some(older) => Some(older.at),
                None => self.read::<Logout>(&key)?.map(|older| older.at),
            };
            if self.has_account(&logout.user)? && older.is_none_or(|older| older <= logout.at) {
                newest.insert(key, logout);
            }
        }
        for (key, logout) in newest {
            put(writes, key, &logout)?;
        }
        Ok(Reply::Done(true))
    }
}
