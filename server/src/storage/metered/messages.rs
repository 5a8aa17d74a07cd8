//! Kept messages, metered.

use althing_cluster::routes::BindIndex;
use althing_proto::jid::BareJid;
use althing_proto::stanza_id::StanzaId;
use althing_proto::time::Timestamp;
use async_trait::async_trait;
use bytes::Bytes;

use super::super::StorageError;
use super::super::messages::{
    Archive, ArchiveEnds, ArchivePage, ArchivePreferences, ArchiveQuery, DeviceId, Drain, Drained, Due,
    Inbox, InboxEntry, InboxMessage, InboxSummary, KeepInInbox, KeepMessage, Kept, Messages, Retention,
    Settle, SweepRules, Swept, UnknownStanzaId,
};
use super::Metered;

#[async_trait]
impl Messages for Metered {
    async fn keep(&self, message: KeepMessage) -> Result<Vec<Kept>, StorageError> {
        self.write(self.inner.messages.keep(message)).await
    }

    async fn retract(&self, sender: &BareJid, id: StanzaId, tombstone: Bytes) -> Result<bool, StorageError> {
        self.write(self.inner.messages.retract(sender, id, tombstone)).await
    }
}

#[async_trait]
impl Inbox for Metered {
    async fn drain(&self, user: &BareJid, drain: Drain) -> Result<Drained, StorageError> {
        self.write(self.inner.inbox.drain(user, drain)).await
    }

    async fn release(&self, messages: Vec<(BareJid, StanzaId)>) -> Result<(), StorageError> {
        self.write(self.inner.inbox.release(messages)).await
    }

    async fn settle(&self, messages: Vec<Settle>) -> Result<u32, StorageError> {
        self.write(self.inner.inbox.settle(messages)).await
    }

    async fn arrived(&self, messages: Vec<Settle>) -> Result<Vec<u32>, StorageError> {
        self.write(self.inner.inbox.arrived(messages)).await
    }

    async fn offline(&self, user: &BareJid, id: StanzaId, inbox: KeepInInbox) -> Result<bool, StorageError> {
        self.write(self.inner.inbox.offline(user, id, inbox)).await
    }

    async fn summary(&self, user: &BareJid) -> Result<InboxSummary, StorageError> {
        self.read(self.inner.inbox.summary(user)).await
    }

    async fn list(
        &self,
        user: &BareJid,
        device: Option<DeviceId>,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<InboxEntry>, StorageError> {
        self.read(self.inner.inbox.list(user, device, after, limit)).await
    }

    async fn get(&self, user: &BareJid, id: StanzaId) -> Result<Option<InboxMessage>, StorageError> {
        self.read(self.inner.inbox.get(user, id)).await
    }

    async fn purge(
        &self,
        user: &BareJid,
        device: Option<DeviceId>,
        live: Vec<BindIndex>,
    ) -> Result<u32, StorageError> {
        self.write(self.inner.inbox.purge(user, device, live)).await
    }

    async fn note_device(
        &self,
        user: &BareJid,
        device: DeviceId,
        seen: Timestamp,
        forget: Timestamp,
    ) -> Result<(), StorageError> {
        self.write(self.inner.inbox.note_device(user, device, seen, forget)).await
    }
}

#[async_trait]
impl Archive for Metered {
    async fn page(
        &self,
        user: &BareJid,
        query: ArchiveQuery,
    ) -> Result<Result<ArchivePage, UnknownStanzaId>, StorageError> {
        self.read(self.inner.archive.page(user, query)).await
    }

    async fn ends(&self, user: &BareJid) -> Result<Option<ArchiveEnds>, StorageError> {
        self.read(self.inner.archive.ends(user)).await
    }

    async fn preferences(&self, user: &BareJid) -> Result<Option<ArchivePreferences>, StorageError> {
        self.read(self.inner.archive.preferences(user)).await
    }

    async fn set_preferences(
        &self,
        user: &BareJid,
        preferences: ArchivePreferences,
    ) -> Result<(), StorageError> {
        self.write(self.inner.archive.set_preferences(user, preferences)).await
    }
}

#[async_trait]
impl Retention for Metered {
    async fn due(
        &self,
        domain: &str,
        after: Option<&BareJid>,
        rules: SweepRules,
        look: usize,
    ) -> Result<Due, StorageError> {
        self.read(self.inner.retention.due(domain, after, rules, look)).await
    }

    async fn sweep(&self, user: &BareJid, rules: SweepRules, limit: u32) -> Result<Swept, StorageError> {
        self.write(self.inner.retention.sweep(user, rules, limit)).await
    }
}
