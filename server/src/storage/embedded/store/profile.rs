//! Documents, logouts and the directory over the queues of the store's threads.

use althing_proto::jid::BareJid;
use async_trait::async_trait;
use bytes::Bytes;

use super::super::super::StorageError;
use super::super::super::profile::{
    Directory, Document, Documents, LoginData, Logins, Logout, Logouts, NewDocument, Word,
};
use super::super::command::{Command, NoteLogouts};
use super::super::upload::Upload;
use super::Embedded;

#[async_trait]
impl Documents for Embedded {
    async fn load(&self, user: &BareJid, name: &str) -> Result<Option<Document>, StorageError> {
        let (user, name) = (user.clone(), name.to_owned());
        self.on_reader(move |rows| rows.document(&user, &name)).await
    }

    async fn store(&self, user: &BareJid, name: &str, new: NewDocument) -> Result<u64, StorageError> {
        Upload::new(user, name, new)?.through(|command| self.write(command)).await
    }
}

#[async_trait]
impl Directory for Embedded {
    async fn find(
        &self,
        domain: &str,
        word: &Word,
        begins: bool,
        limit: usize,
    ) -> Result<Vec<(BareJid, Bytes)>, StorageError> {
        let (domain, word) = (domain.to_owned(), word.clone());
        self.on_reader(move |rows| rows.find(&domain, &word, begins, limit)).await
    }
}

#[async_trait]
impl Logouts for Embedded {
    async fn note(&self, logouts: Vec<Logout>) -> Result<(), StorageError> {
        let command = Command::NoteLogouts(NoteLogouts { logouts });
        command.check()?;
        self.write_done(command).await.map(|_noted| ())
    }

    async fn last(&self, user: &BareJid) -> Result<Option<Logout>, StorageError> {
        let user = user.clone();
        self.on_reader(move |rows| rows.logout(&user)).await
    }
}

#[async_trait]
impl Logins for Embedded {
    async fn login(&self, user: &BareJid, documents: &[&str]) -> Result<LoginData, StorageError> {
        let user = user.clone();
        let documents: Vec<String> = documents.iter().map(|name| (*name).to_owned()).collect();
        self.on_reader(move |rows| rows.login(&user, documents.iter().map(String::as_str))).await
    }
}
