//! All rows, on their way into a backup and out of one.

use std::sync::Arc;

use althing_cluster::store_log::RowReader;
use async_trait::async_trait;
use bytes::Bytes;

use super::StorageError;

/// A step of a restore. Each may be repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RestoreStep {
    /// Begins one, or goes on taking away what an earlier one has left: a step, until it answers that nothing is there.
    Begin,
    /// Takes rows in: a part of [`cut`](super::embedded::backup::cut).
    Rows(Bytes),
    /// All rows are there: from now on the store serves.
    Finish,
}

/// The store as a whole.
#[async_trait]
pub trait Backups: Send + Sync {
    /// All rows as of now, while changes go on. One at a time.
    ///
    /// # Errors
    /// [`StorageError::Backup`] where that cannot be.
    async fn read_rows(self: Arc<Self>) -> Result<Box<dyn RowReader>, StorageError>;

    /// A step of the restore that `id` names; whether it has done all that there was to do. From [`RestoreStep::Begin`] to
    /// [`RestoreStep::Finish`] the store answers nobody else, also after a restart. A store with accounts takes none.
    ///
    /// # Errors
    /// [`StorageError::Backup`] where that cannot be; as every write.
    async fn restore(&self, id: u64, step: RestoreStep) -> Result<bool, StorageError>;

    /// Whether a restore has begun and not come to its end.
    fn is_restoring(&self) -> bool;
}
