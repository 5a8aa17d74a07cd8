//! Snapshots as files, on their way from the leader to a node that is too far behind for the log.

use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use openraft::RaftTypeConfig;
use openraft::alias::{SnapshotMetaOf, SnapshotOf};

/// Writes a group's snapshots to files and reads them.
#[async_trait]
pub trait Spool<C: RaftTypeConfig>: Clone + Send + Sync + 'static {
    /// What the group's state machine takes and gives.
    type Data: Send + Sync + 'static;

    /// Writes a snapshot to `file`. It may be a later one than asked for; what it covers is returned.
    ///
    /// # Errors
    /// The file system's, and those of whoever keeps the data.
    async fn write(&self, snapshot: SnapshotOf<C, Self::Data>, file: &Path) -> io::Result<SnapshotMetaOf<C>>;

    /// Takes a received file in; it is this value's from now on.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] for a file that is no snapshot.
    async fn read(&self, file: PathBuf) -> io::Result<Self::Data>;
}
