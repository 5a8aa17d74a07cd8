//! Documents, logouts and the directory in memory.

use althing_proto::jid::BareJid;
use async_trait::async_trait;
use bytes::Bytes;

use super::super::profile::{
    Directory, Document, DocumentHead, Documents, LoginData, Logins, Logout, Logouts, NewDocument, Word,
    check_document, check_logouts,
};
use super::super::{StorageError, WhichList};
use super::{Memory, name};

/// A document, and how the directory finds it.
pub(super) struct Stored {
    document: Document,
    words: Vec<Word>,
    shown: Bytes,
}

#[async_trait]
impl Documents for Memory {
    async fn load(&self, user: &BareJid, document: &str) -> Result<Option<Document>, StorageError> {
        self.read(|state| Some(state.users.get(&name(user))?.documents.get(document)?.document.clone()))
    }

    async fn store(&self, user: &BareJid, of: &str, new: NewDocument) -> Result<u64, StorageError> {
        check_document(of, &new)?;
        self.write_user(user, |user| {
            let NewDocument { content, note, words, shown } = new;
            let revision = user.documents.get(of).map_or(0, |old| old.document.head.revision) + 1;
            let document = Document { head: DocumentHead { revision, note }, content };
            user.documents.insert(of.to_owned(), Stored { document, words, shown });
            revision
        })
    }
}

#[async_trait]
impl Directory for Memory {
    async fn find(
        &self,
        domain: &str,
        word: &Word,
        begins: bool,
        limit: usize,
    ) -> Result<Vec<(BareJid, Bytes)>, StorageError> {
        self.read(|state| {
            let mut found = Vec::new();
            for ((of, _), user) in &state.users {
                for stored in user.documents.values().filter(|_| of == domain) {
                    let words = stored.words.iter().filter(|other| other.field == word.field);
                    let matching = words.filter(|other| match begins {
                        true => other.text.starts_with(&word.text),
                        false => other.text == word.text,
                    });
                    found.extend(matching.map(|word| (&word.text, &user.jid, &stored.shown)));
                }
            }
            found.sort();
            found.into_iter().take(limit).map(|(_, user, shown)| (user.clone(), shown.clone())).collect()
        })
    }
}

#[async_trait]
impl Logouts for Memory {
    async fn note(&self, logouts: Vec<Logout>) -> Result<(), StorageError> {
        check_logouts(&logouts)?;
        self.write(|state| {
            for logout in logouts {
                let Some(user) = state.users.get_mut(&name(&logout.user)) else { continue };
                if user.logout.as_ref().is_none_or(|older| older.at <= logout.at) {
                    user.logout = Some(logout);
                }
            }
        })
    }

    async fn last(&self, user: &BareJid) -> Result<Option<Logout>, StorageError> {
        self.read(|state| state.users.get(&name(user))?.logout.clone())
    }
}

#[async_trait]
impl Logins for Memory {
    async fn login(&self, user: &BareJid, documents: &[&str]) -> Result<LoginData, StorageError> {
        let roster = super::super::Rosters::load(self, user).await?;
        let privacy = super::super::Privacy::load(self, user, WhichList::Default).await?;
        self.read(|state| {
            let user = state.users.get(&name(user));
            let head = |of: &&str| Some(user?.documents.get(*of)?.document.head.clone());
            let documents = documents.iter().map(head).collect();
            LoginData {
                account: user.is_some_and(|user| user.disabled.is_none()),
                roster,
                documents,
                privacy,
                archive: user.and_then(|user| user.mailbox.preferences.clone()),
            }
        })
    }
}
