//! A replica of the store group: the rows of an embedded store, driven by the log of the group.

use std::io;
use std::sync::Arc;

use althing_cluster::disk::{Disk, Gate, Room};
use althing_cluster::store_log::{Replica, RowReader, RowWriter, Seal};
use async_trait::async_trait;
use bytes::Bytes;

use super::super::StorageError;
use super::rows::Rows;
use super::undo::Purpose;
use super::{Embedded, replace, writer};

/// An embedded store as a replica. While it is one, nobody writes by the storage traits of [`Embedded`]: what
/// does not come through the log makes replicas differ.
///
/// The log is the durable copy: nothing is flushed but when asked to, and a crash may take back what was
/// applied last, rows and mark together. No row is flushed before those written earlier.
///
/// Rows that were written before the store became a replica have no mark. They are there, but no other replica
/// gets them by the log: only by a snapshot.
pub struct EmbeddedReplica {
    store: Arc<Embedded>,
    /// Closed while the disk has no room for rows.
    gate: Gate,
}

impl EmbeddedReplica {
    /// The replica that keeps its rows in `store`.
    #[must_use]
    pub fn new(store: Arc<Embedded>) -> Self {
        let gate = Gate::new(Some(store.disk()), Room::Low);
        EmbeddedReplica { store, gate }
    }
}

/// Runs a step of the writer's thread whose failure ends all writing.
async fn write<T: Send + 'static>(
    store: &Embedded,
    step: impl FnOnce(&Rows) -> Result<T, super::fault::Fault> + Send + 'static,
) -> io::Result<T> {
    try_write(store, step).await.map_err(other)
}

async fn try_write<T: Send + 'static>(
    store: &Embedded,
    step: impl FnOnce(&Rows) -> Result<T, super::fault::Fault> + Send + 'static,
) -> Result<T, StorageError> {
    let job = move |rows: &Rows| match rows.failure() {
        Some(failure) => Err(failure),
        None => step(rows).map_err(|fault| match fault {
            // Somebody was late; the rows are well.
            fault @ (super::fault::Fault::Replacing | super::fault::Fault::Superseded) => {
                rows.explain(fault, "write")
            }
            fault => rows.fail(fault),
        }),
    };
    store.on_writer(job).await
}

/// All rows as they are now.
pub(super) async fn read_rows(store: Arc<Embedded>, purpose: Purpose) -> Result<Reader, StorageError> {
    let (id, token, mark) = try_write(&store, move |rows| rows.begin_snapshot(purpose)).await?;
    Ok(Reader { store, id, mark, _token: token })
}

fn other(error: StorageError) -> io::Error {
    io::Error::other(error)
}

#[async_trait]
impl Replica for EmbeddedReplica {
    fn disk(&self) -> Option<Arc<dyn Disk>> {
        Some(self.store.disk())
    }

    async fn mark(&self) -> io::Result<Option<Bytes>> {
        let found = write(&self.store, |rows| match rows.mark()? {
            _ if rows.is_replacing() => Ok((None, false)),
            Some(mark) => Ok((Some(mark), false)),
            None => Ok((None, rows.ahead()? == 0 && !rows.tree().is_empty())),
        });
        match found.await? {
            (_, true) => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the store holds the rows of a server that was by itself, and the other nodes have not: give this node \
                 an empty node.data_dir, or set cluster.enabled = false",
            )),
            (mark, false) => Ok(mark),
        }
    }

    async fn apply(&self, commands: Vec<Bytes>, seal: Seal) -> io::Result<Vec<Bytes>> {
        self.gate.opened().await;
        let job = move |rows: &Rows| writer::apply_ordered(rows, &commands, seal);
        self.store.on_writer(job).await.map_err(other)
    }

    async fn flush(&self) -> io::Result<()> {
        self.gate.opened().await;
        write(&self.store, Rows::flush).await
    }

    async fn read_rows(&self) -> io::Result<Box<dyn RowReader>> {
        Ok(Box::new(read_rows(self.store.clone(), Purpose::Replica).await.map_err(other)?))
    }

    async fn replace_rows(&self) -> io::Result<Box<dyn RowWriter>> {
        let number = write(&self.store, replace::begin).await?;
        Ok(Box::new(Writer { store: self.store.clone(), number, gate: self.gate.clone() }))
    }
}

/// An open snapshot.
pub(super) struct Reader {
    store: Arc<Embedded>,
    id: u64,
    mark: Option<Bytes>,
    /// While it lives, old values are kept.
    _token: Arc<()>,
}

#[async_trait]
impl RowReader for Reader {
    fn mark(&self) -> Option<Bytes> {
        self.mark.clone()
    }

    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        let id = self.id;
        // Not in the writer's thread: what is applied meanwhile waits for one chunk at most.
        self.store.on_reader_in_turn(move |rows| rows.next_of_snapshot(id)).await.map_err(other)
    }
}

/// Rows that are being taken in.
struct Writer {
    store: Arc<Embedded>,
    number: u64,
    gate: Gate,
}

#[async_trait]
impl RowWriter for Writer {
    async fn write(&mut self, bytes: Bytes) -> io::Result<()> {
        self.gate.opened().await;
        let number = self.number;
        if write(&self.store, move |rows| replace::take_in(rows, number, &bytes)).await? {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, "a part of a snapshot is damaged"))
    }

    async fn finish(self: Box<Self>, mark: Bytes) -> io::Result<()> {
        let number = self.number;
        write(&self.store, move |rows| replace::finish(rows, number, &mark)).await
    }
}
