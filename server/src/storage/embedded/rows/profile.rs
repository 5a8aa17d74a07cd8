//! Reads of documents, logouts, the directory, and of all that a session begins with.

use althing_proto::jid::BareJid;
use bytes::Bytes;

use super::super::super::WhichList;
use super::super::super::profile::{Document, DocumentHead, LoginData, Logout, Word};
use super::super::apply::DocumentRow;
use super::super::fault::Fault;
use super::super::keys;
use super::super::messages;
use super::{Rows, decode};

impl Rows {
    /// A document, of one upload.
    pub(in super::super) fn document(&self, user: &BareJid, name: &str) -> Result<Option<Document>, Fault> {
        let key = keys::document(user, name);
        let prefix = key.get(..key.len().saturating_sub(1)).unwrap_or_default();
        // Head and parts as of one moment: the head is the first row.
        let mut rows = self.scan(prefix, None, usize::MAX, |key, value| Ok((key, value)))?.into_iter();
        let Some((_, head)) = rows.next().filter(|(first, _)| *first == key) else { return Ok(None) };
        let head: DocumentRow = decode(&key, &head)?;
        let parts = rows.filter(|(key, _)| keys::upload_of_part(key) == Some(head.upload));
        let content = parts.fold(Vec::new(), |mut content, (_, part)| {
            content.extend_from_slice(&part);
            content
        });
        let head = DocumentHead { revision: head.revision, note: head.note };
        Ok(Some(Document { head, content: content.into() }))
    }

    fn document_head(&self, user: &BareJid, name: &str) -> Result<Option<DocumentHead>, Fault> {
        let head: Option<DocumentRow> = self.read(&keys::document(user, name))?;
        Ok(head.map(|head| DocumentHead { revision: head.revision, note: head.note }))
    }

    /// Users by a word, see [`Directory::find`](super::super::super::profile::Directory::find).
    pub(in super::super) fn find(
        &self,
        domain: &str,
        word: &Word,
        begins: bool,
        limit: usize,
    ) -> Result<Vec<(BareJid, Bytes)>, Fault> {
        let prefix = keys::words(domain, word, begins);
        self.scan(&prefix, None, limit, |key, shown| {
            let user = keys::user_of_word(&key).ok_or_else(|| {
                Fault::Row(format!("the row {:?} names nobody", String::from_utf8_lossy(&key)))
            })?;
            Ok((user, Bytes::copy_from_slice(&shown)))
        })
    }

    /// The last logout.
    pub(in super::super) fn logout(&self, user: &BareJid) -> Result<Option<Logout>, Fault> {
        self.read(&keys::logout(user))
    }

    /// All that a session begins with.
    pub(in super::super) fn login<'a>(
        &self,
        user: &BareJid,
        documents: impl Iterator<Item = &'a str>,
    ) -> Result<LoginData, Fault> {
        Ok(LoginData {
            account: self.tree.contains_key(keys::account(user))?
                && !self.tree.contains_key(keys::disabled(user))?,
            roster: self.roster(user)?,
            documents: documents.map(|name| self.document_head(user, name)).collect::<Result<_, _>>()?,
            privacy: self.privacy(user, &WhichList::Default)?,
            archive: messages::get(&self.tree, &keys::archive_preferences(user))?,
        })
    }
}
