//! Documents, logouts and the directory over the store group.

use althing_proto::jid::BareJid;
use async_trait::async_trait;
use bytes::Bytes;

use super::super::super::StorageError;
use super::super::super::embedded::command::{Command, NoteLogouts};
use super::super::super::embedded::query::{Answer, Find, GetLogout, LoadDocument, Login, Query};
use super::super::super::embedded::upload::Upload;
use super::super::super::profile::{
    Directory, Document, Documents, LoginData, Logins, Logout, Logouts, NewDocument, Word,
};
use super::Replicated;

#[async_trait]
impl Documents for Replicated {
    async fn load(&self, user: &BareJid, name: &str) -> Result<Option<Document>, StorageError> {
        let query = LoadDocument { user: user.clone(), document: name.to_owned() };
        answered!(Document, self.read(Query::LoadDocument(query)).await?)
    }

    async fn store(&self, user: &BareJid, name: &str, new: NewDocument) -> Result<u64, StorageError> {
        Upload::new(user, name, new)?.through(|command| self.write(command)).await
    }
}

#[async_trait]
impl Directory for Replicated {
    async fn find(
        &self,
        domain: &str,
        word: &Word,
        begins: bool,
        limit: usize,
    ) -> Result<Vec<(BareJid, Bytes)>, StorageError> {
        let limit = u64::try_from(limit).unwrap_or(u64::MAX);
        let query = Find { domain: domain.to_owned(), word: word.clone(), begins, limit };
        answered!(Found, self.read(Query::Find(query)).await?)
    }
}

#[async_trait]
impl Logouts for Replicated {
    async fn note(&self, logouts: Vec<Logout>) -> Result<(), StorageError> {
        self.write(Command::NoteLogouts(NoteLogouts { logouts })).await?.done().map(|_noted| ())
    }

    async fn last(&self, user: &BareJid) -> Result<Option<Logout>, StorageError> {
        answered!(Logout, self.read(Query::GetLogout(GetLogout { user: user.clone() })).await?)
    }
}

#[async_trait]
impl Logins for Replicated {
    async fn login(&self, user: &BareJid, documents: &[&str]) -> Result<LoginData, StorageError> {
        let documents = documents.iter().map(|name| (*name).to_owned()).collect();
        answered!(Login, self.read(Query::Login(Login { user: user.clone(), documents })).await?)
    }
}
