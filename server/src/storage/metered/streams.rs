//! Records of streams, metered.

use althing_proto::jid::FullJid;
use async_trait::async_trait;

use super::super::StorageError;
use super::super::messages::{KeepMessage, Kept};
use super::super::streams::{Handled, StreamChange, StreamRecord, Streams};
use super::Metered;

#[async_trait]
impl Streams for Metered {
    async fn change(&self, changes: Vec<StreamChange>) -> Result<(), StorageError> {
        self.write(self.inner.streams.change(changes)).await
    }

    async fn keep(&self, message: KeepMessage, handled: Handled) -> Result<Vec<Kept>, StorageError> {
        self.write(self.inner.streams.keep(message, handled)).await
    }

    async fn get(&self, jid: &FullJid) -> Result<Option<StreamRecord>, StorageError> {
        self.read(self.inner.streams.get(jid)).await
    }

    async fn list(&self, after: Option<&FullJid>, limit: usize) -> Result<Vec<StreamRecord>, StorageError> {
        self.read(self.inner.streams.list(after, limit)).await
    }

    async fn secret(&self, candidate: [u8; 32]) -> Result<[u8; 32], StorageError> {
        self.write(self.inner.streams.secret(candidate)).await
    }
}
