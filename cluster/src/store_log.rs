//! The seam between the store group and whoever keeps its rows: commands are opaque bytes here.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;

use crate::disk::Disk;
use crate::node_id::NodeId;

/// Why the store group did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreLogError {
    /// Nothing was written; it may be tried again.
    #[error("the store group cannot be reached now: {0}")]
    Unavailable(String),
    /// Whether it was written is unknown.
    #[error("the store group did not answer in time")]
    Unknown,
}

/// The store group, as its users see it.
#[async_trait]
pub trait StoreLog: Send + Sync {
    /// Whether this node holds a replica. If it does, it reads its own rows, after [`StoreLog::barrier`].
    fn is_replica(&self) -> bool;

    /// The nodes that hold replicas, those first that are likeliest to answer.
    fn replicas(&self) -> Vec<NodeId>;

    /// Orders a command; its reply when it is applied on this node. Only on a replica.
    ///
    /// # Errors
    /// [`StoreLogError`].
    async fn write(&self, command: Bytes) -> Result<Bytes, StoreLogError>;

    /// The same for a command whose place among the others of this node counts: it keeps the place that it has when this
    /// is called first, until `deadline` at most; then it is given up, if that is still possible.
    ///
    /// # Errors
    /// [`StoreLogError`].
    async fn write_in_order(&self, command: Bytes, deadline: Instant) -> Result<Bytes, StoreLogError>;

    /// Returns when this replica has applied all that was committed anywhere when the call began: what is read
    /// then is linearizable. Calls share round trips.
    ///
    /// # Errors
    /// [`StoreLogError::Unavailable`].
    async fn barrier(&self) -> Result<(), StoreLogError>;

    /// Whether enough of the nodes that hold replicas are there and have room on their disks for what is new: a majority
    /// of them, with or without this one. Nobody asks where none is short of room.
    fn has_room(&self) -> bool {
        true
    }
}

/// Makes the mark of the replies, so that both are written as one.
pub type Seal = Box<dyn FnOnce(&[Bytes]) -> Bytes + Send>;

/// Keeps the rows of a replica: what the store group's state machine drives.
///
/// A *mark* says how far the log has been applied. It is opaque, and is written in the same batch as the rows:
/// after a crash, mark and rows belong together, though they may be older than the last ones applied.
#[async_trait]
pub trait Replica: Send + Sync + 'static {
    /// The disk that it is on, with the logs of this node beside it; `None`: nobody looks how full it is.
    fn disk(&self) -> Option<Arc<dyn Disk>> {
        None
    }

    /// The mark that was written last; `None` for an empty store. Asked once, at the start.
    ///
    /// # Errors
    /// The store's.
    async fn mark(&self) -> io::Result<Option<Bytes>>;

    /// Applies commands in order and writes the mark that `seal` makes of their replies with their rows; one reply a
    /// command. Not necessarily durable
    /// when it returns: the log has them. A command that is damaged or refused is a reply too; an error
    /// means that the rows cannot be written, or that a later release knows more of the command, and stops the group.
    ///
    /// # Errors
    /// The store's.
    ///
    /// It waits while the disk has too little room for rows.
    async fn apply(&self, commands: Vec<Bytes>, seal: Seal) -> io::Result<Vec<Bytes>>;

    /// Makes everything applied so far durable. The log is cut off only after that.
    ///
    /// # Errors
    /// The store's.
    async fn flush(&self) -> io::Result<()>;

    /// All rows as they are now, while later commands go on being applied. One at a time.
    ///
    /// # Errors
    /// The store's.
    async fn read_rows(&self) -> io::Result<Box<dyn RowReader>>;

    /// Throws all rows away and takes others in. Until [`RowWriter::finish`] the store counts as empty, also after
    /// a crash.
    ///
    /// # Errors
    /// The store's.
    async fn replace_rows(&self) -> io::Result<Box<dyn RowWriter>>;
}

/// A frozen view of all rows.
#[async_trait]
pub trait RowReader: Send {
    /// The mark that belongs to the rows.
    fn mark(&self) -> Option<Bytes>;

    /// The next rows, in a form that [`RowWriter::write`] takes, at most 1 MiB or one row; `None` after the last.
    ///
    /// # Errors
    /// The store's.
    async fn next(&mut self) -> io::Result<Option<Bytes>>;
}

/// Takes in rows.
#[async_trait]
pub trait RowWriter: Send {
    /// Takes what [`RowReader::next`] gave.
    ///
    /// # Errors
    /// The store's; [`io::ErrorKind::InvalidData`] for bytes that are no rows.
    async fn write(&mut self, rows: Bytes) -> io::Result<()>;

    /// All rows are there: writes the mark, durably.
    ///
    /// # Errors
    /// The store's.
    async fn finish(self: Box<Self>, mark: Bytes) -> io::Result<()>;
}
