//! How a node without a replica reaches one that has it. Links implement it, by the tasks `ReadStore` and
//! `WriteStore`.

use althing_cluster::node_id::NodeId;
use async_trait::async_trait;
use bytes::Bytes;

/// Why a replica gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RemoteError {
    /// It did nothing: it was not reached, it refused, or it said so. Another replica may be asked.
    #[error("{0}")]
    Refused(String),
    /// It was asked, and what it did is unknown. A change is not repeated then.
    #[error("{0}")]
    Unknown(String),
}

/// The stores of other nodes. Bytes go to [`Replicated::answer_read`] and [`Replicated::answer_write`] of the
/// node, and come from there.
///
/// [`Replicated::answer_read`]: super::Replicated::answer_read
/// [`Replicated::answer_write`]: super::Replicated::answer_write
#[async_trait]
pub trait RemoteStore: Send + Sync {
    /// Asks `node` to read. May be dropped before it has answered.
    ///
    /// # Errors
    /// [`RemoteError`].
    async fn read(&self, node: NodeId, query: Bytes) -> Result<Bytes, RemoteError>;

    /// Asks `node` to write. May be dropped before it has answered; the change is then of unknown fate.
    ///
    /// # Errors
    /// [`RemoteError::Refused`] only if it is certain that nothing was written.
    async fn write(&self, node: NodeId, command: Bytes) -> Result<Bytes, RemoteError>;
}
