//! Stores that count: how long reads and writes took, and which ones failed.

mod messages;
mod streams;

use std::sync::Arc;
use std::time::Instant;

use althing_cluster::store_log::RowReader;
use althing_proto::jid::{BareJid, Jid};
use althing_proto::privacy::{Lists, PrivacyChange, PrivacyChanged, PrivacyError};
use althing_proto::roster::{RosterChange, RosterError, RosterItem};
use althing_proto::sasl::Credentials;
use althing_proto::time::Timestamp;
use async_trait::async_trait;
use bytes::Bytes;

use super::backup::{Backups, RestoreStep};
use super::profile::{Directory, Document, Documents, LoginData, Logins, Logout, Logouts, NewDocument, Word};
use super::{
    Account, Accounts, Changed, Engine, Judgement, Privacy, PrivacyLimits, PrivateData, Roster, RosterLimits,
    RosterNews, Rosters, RowBound, Standing, Storage, StorageError, WhichList,
};
use crate::metrics::{NodeMetrics, StoreOp};

/// The stores of `inner`, metered.
pub(super) struct Metered {
    inner: Storage,
    metrics: NodeMetrics,
}

impl Metered {
    pub(super) fn new(inner: Storage, metrics: NodeMetrics) -> Self {
        Metered { inner, metrics }
    }

    async fn read<T>(
        &self,
        answer: impl Future<Output = Result<T, StorageError>>,
    ) -> Result<T, StorageError> {
        self.did(StoreOp::Read, answer).await
    }

    async fn write<T>(
        &self,
        answer: impl Future<Output = Result<T, StorageError>>,
    ) -> Result<T, StorageError> {
        self.did(StoreOp::Write, answer).await
    }

    async fn did<T>(
        &self,
        op: StoreOp,
        answer: impl Future<Output = Result<T, StorageError>>,
    ) -> Result<T, StorageError> {
        let began = Instant::now();
        let answer = answer.await;
        self.metrics.storage_did(op, began.elapsed().as_secs_f64());
        if answer.as_ref().is_err_and(is_failure) {
            self.metrics.storage_error();
        }
        answer
    }
}

/// Whether the store is to blame, and not what it was asked.
fn is_failure(error: &StorageError) -> bool {
    match error {
        StorageError::TooLarge { .. } | StorageError::Full { .. } | StorageError::UnknownUser { .. } => false,
        // Said by a gauge of its own.
        StorageError::NoRoom { .. } | StorageError::NoRoomInGroup => false,
        StorageError::Io { .. }
        | StorageError::Corrupt { .. }
        | StorageError::Busy
        | StorageError::Closed
        | StorageError::WrongVersion { .. }
        | StorageError::LaterRelease { .. }
        | StorageError::Locked { .. }
        | StorageError::Unavailable { .. }
        | StorageError::Unknown => true,
        StorageError::Restoring | StorageError::Backup { .. } => false,
    }
}

#[async_trait]
impl Accounts for Metered {
    async fn get(&self, user: &BareJid) -> Result<Option<Account>, StorageError> {
        self.read(self.inner.accounts.get(user)).await
    }

    async fn create(&self, user: &BareJid, account: Account) -> Result<bool, StorageError> {
        self.write(self.inner.accounts.create(user, account)).await
    }

    async fn set_credentials(&self, user: &BareJid, credentials: Credentials) -> Result<bool, StorageError> {
        self.write(self.inner.accounts.set_credentials(user, credentials)).await
    }

    async fn delete(&self, user: &BareJid) -> Result<bool, StorageError> {
        self.write(self.inner.accounts.delete(user)).await
    }

    async fn standing(&self, user: &BareJid) -> Result<Option<Standing>, StorageError> {
        self.read(self.inner.accounts.standing(user)).await
    }

    async fn set_disabled(&self, user: &BareJid, since: Option<Timestamp>) -> Result<bool, StorageError> {
        self.write(self.inner.accounts.set_disabled(user, since)).await
    }

    async fn list_disabled(
        &self,
        domain: &str,
        after: Option<&BareJid>,
        limit: usize,
    ) -> Result<Vec<BareJid>, StorageError> {
        self.read(self.inner.accounts.list_disabled(domain, after, limit)).await
    }

    async fn list(
        &self,
        domain: &str,
        after: Option<&BareJid>,
        limit: usize,
    ) -> Result<Vec<BareJid>, StorageError> {
        self.read(self.inner.accounts.list(domain, after, limit)).await
    }
}

#[async_trait]
impl Rosters for Metered {
    async fn load(&self, owner: &BareJid) -> Result<Roster, StorageError> {
        self.read(self.inner.rosters.load(owner)).await
    }

    async fn change(
        &self,
        owner: &BareJid,
        contact: &BareJid,
        change: RosterChange,
        limits: RosterLimits,
    ) -> Result<Result<Changed, RosterError>, StorageError> {
        self.write(self.inner.rosters.change(owner, contact, change, limits)).await
    }

    async fn since(&self, owner: &BareJid, version: u64, most: u32) -> Result<RosterNews, StorageError> {
        self.read(self.inner.rosters.since(owner, version, most)).await
    }

    async fn item(&self, owner: &BareJid, contact: &BareJid) -> Result<Option<RosterItem>, StorageError> {
        self.read(self.inner.rosters.item(owner, contact)).await
    }
}

#[async_trait]
impl Privacy for Metered {
    async fn load(&self, owner: &BareJid, which: WhichList) -> Result<Lists, StorageError> {
        self.read(self.inner.privacy.load(owner, which)).await
    }

    async fn judge(&self, owner: &BareJid, peer: &Jid) -> Result<Judgement, StorageError> {
        self.read(self.inner.privacy.judge(owner, peer)).await
    }

    async fn change(
        &self,
        owner: &BareJid,
        change: PrivacyChange,
        limits: PrivacyLimits,
    ) -> Result<Result<PrivacyChanged, PrivacyError>, StorageError> {
        self.write(self.inner.privacy.change(owner, change, limits)).await
    }
}

#[async_trait]
impl PrivateData for Metered {
    async fn get(&self, user: &BareJid, namespace: &str, key: &str) -> Result<Option<Vec<u8>>, StorageError> {
        self.read(self.inner.private.get(user, namespace, key)).await
    }

    async fn put(
        &self,
        user: &BareJid,
        namespace: &str,
        key: &str,
        value: Vec<u8>,
    ) -> Result<(), StorageError> {
        self.write(self.inner.private.put(user, namespace, key, value)).await
    }

    async fn put_within(
        &self,
        user: &BareJid,
        namespace: &str,
        key: &str,
        value: Vec<u8>,
        bound: RowBound,
    ) -> Result<(), StorageError> {
        self.write(self.inner.private.put_within(user, namespace, key, value, bound)).await
    }

    async fn delete(&self, user: &BareJid, namespace: &str, key: &str) -> Result<bool, StorageError> {
        self.write(self.inner.private.delete(user, namespace, key)).await
    }

    async fn list(
        &self,
        user: &BareJid,
        namespace: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Vec<u8>)>, StorageError> {
        self.read(self.inner.private.list(user, namespace, after, limit)).await
    }
}

#[async_trait]
impl Documents for Metered {
    async fn load(&self, user: &BareJid, name: &str) -> Result<Option<Document>, StorageError> {
        self.read(self.inner.documents.load(user, name)).await
    }

    async fn store(&self, user: &BareJid, name: &str, document: NewDocument) -> Result<u64, StorageError> {
        self.write(self.inner.documents.store(user, name, document)).await
    }
}

#[async_trait]
impl Directory for Metered {
    async fn find(
        &self,
        domain: &str,
        word: &Word,
        begins: bool,
        limit: usize,
    ) -> Result<Vec<(BareJid, Bytes)>, StorageError> {
        self.read(self.inner.directory.find(domain, word, begins, limit)).await
    }
}

#[async_trait]
impl Logouts for Metered {
    async fn note(&self, logouts: Vec<Logout>) -> Result<(), StorageError> {
        self.write(self.inner.logouts.note(logouts)).await
    }

    async fn last(&self, user: &BareJid) -> Result<Option<Logout>, StorageError> {
        self.read(self.inner.logouts.last(user)).await
    }
}

#[async_trait]
impl Logins for Metered {
    async fn login(&self, user: &BareJid, documents: &[&str]) -> Result<LoginData, StorageError> {
        self.read(self.inner.logins.login(user, documents)).await
    }
}

// What the node asks of the engine is no work for a user: it passes uncounted.
#[async_trait]
impl Backups for Metered {
    async fn read_rows(self: Arc<Self>) -> Result<Box<dyn RowReader>, StorageError> {
        Arc::clone(&self.inner.backups).read_rows().await
    }

    async fn restore(&self, id: u64, step: RestoreStep) -> Result<bool, StorageError> {
        self.write(self.inner.backups.restore(id, step)).await
    }

    fn is_restoring(&self) -> bool {
        self.inner.backups.is_restoring()
    }
}

#[async_trait]
impl Engine for Metered {
    async fn flush(&self) -> Result<(), StorageError> {
        self.inner.engine.flush().await
    }

    async fn close(&self) -> Result<(), StorageError> {
        self.inner.engine.close().await
    }

    fn failure(&self) -> Option<StorageError> {
        self.inner.engine.failure()
    }

    fn queued(&self) -> usize {
        self.inner.engine.queued()
    }

    async fn size_on_disk(&self) -> Result<u64, StorageError> {
        self.inner.engine.size_on_disk().await
    }

    async fn room(&self) -> Result<Option<super::Room>, StorageError> {
        self.inner.engine.room().await
    }

    fn is_full(&self) -> bool {
        self.inner.engine.is_full()
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{Registry, TextEncoder};

    use super::*;

    fn shows(registry: &Registry, line: &str) -> bool {
        let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        text.lines().any(|shown| shown == line)
    }

    #[actix_rt::test]
    async fn reads_writes_and_failures_are_counted_apart() {
        let registry = Registry::new();
        let metrics = NodeMetrics::register(&registry, "node-0").unwrap();
        let storage = Storage::memory().metered(&metrics);
        let user = BareJid::new("a@b").unwrap();
        assert_eq!(storage.accounts.get(&user).await, Ok(None));
        let refused = storage.private.put(&user, "n", "k", Vec::new()).await;
        assert!(matches!(refused, Err(StorageError::UnknownUser { .. })));
        assert!(shows(&registry, "althing_storage_duration_seconds_count{op=\"read\"} 1"));
        assert!(shows(&registry, "althing_storage_duration_seconds_count{op=\"write\"} 1"));
        assert!(shows(&registry, "althing_storage_errors_total 0"), "the caller was wrong, not the store");
        storage.close().await.unwrap();
        assert_eq!(storage.accounts.get(&user).await, Err(StorageError::Closed));
        assert!(shows(&registry, "althing_storage_errors_total 1"));
    }
}
