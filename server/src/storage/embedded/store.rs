//! The handle of the embedded store: the storage traits over the queues of its threads.

mod profile;

use std::path::Path;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

use althing_cluster::disk::Room as Level;
use althing_proto::jid::{BareJid, Jid};
use althing_proto::privacy::{Lists, PrivacyChange, PrivacyChanged, PrivacyError};
use althing_proto::roster::{RosterChange, RosterError, RosterItem};
use althing_proto::sasl::Credentials;
use althing_proto::time::Timestamp;
use async_trait::async_trait;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{mpsc, oneshot};

use super::super::space::{Room, Space};
use super::super::{
    Account, Accounts, Changed, Engine, Judgement, Privacy, PrivacyLimits, PrivateData, Roster, RosterLimits,
    RosterNews, Rosters, RowBound, Standing, StorageError, WhichList,
};
use super::command::{
    ChangePrivacy, ChangeRoster, Command, CreateAccount, DeleteAccount, DeletePrivate, PutPrivate,
    PutPrivateWithin, SetCredentials, SetDisabled,
};
use super::fault::Fault;
use super::messages::Commanded;
use super::query::{self, Answer, Query};
use super::reader::{self, Read, Readers};
use super::reply::Reply;
use super::rows::Rows;
use super::writer::{self, Write};

/// How an embedded store is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EmbeddedOptions {
    /// sled's page cache, in bytes. Rows that fit are read without the disk.
    pub cache_bytes: u64,
    /// Threads that read; at least one.
    pub readers: usize,
    /// Most writes that wait, and most reads that wait for one thread; above it [`StorageError::Busy`].
    pub queue: usize,
    /// Bytes of the disk that are to stay free.
    pub reserve_bytes: u64,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        EmbeddedOptions { cache_bytes: 128 << 20, readers: 2, queue: 16_384, reserve_bytes: 0 }
    }
}

/// The embedded store. Dropped without [`Engine::close`], its threads finish what is queued and end on
/// their own.
pub struct Embedded {
    /// Weak: the database closes when its threads are done, not when the last handle goes.
    rows: Weak<Rows>,
    space: Arc<Space>,
    /// `None` once closed.
    queues: RwLock<Option<Queues>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Queues {
    writes: mpsc::Sender<Write>,
    reads: Readers,
}

impl Embedded {
    /// Opens or makes the store below `dir`. Blocks for as long as recovery takes.
    ///
    /// # Errors
    /// As [`Storage::open_embedded`](super::super::Storage::open_embedded).
    pub fn open(dir: &Path, options: EmbeddedOptions) -> Result<Self, StorageError> {
        let rows = Arc::new(Rows::open(dir, options)?);
        let queue = options.queue.max(1);
        let mut threads = Vec::new();
        let (writes, write_queue) = mpsc::channel(queue);
        threads.push(spawn(dir, "store-write", &rows, move |rows| writer::run(rows, write_queue))?);
        let mut reads = Vec::new();
        for _ in 0..options.readers.max(1) {
            let (read, read_queue) = mpsc::channel(queue);
            threads.push(spawn(dir, "store-read", &rows, move |rows| reader::run(rows, read_queue))?);
            reads.push(read);
        }
        let queues = Queues { writes, reads: Readers::new(reads) };
        Ok(Embedded {
            rows: Arc::downgrade(&rows),
            space: Arc::new(Space::new(dir, options.reserve_bytes)),
            queues: RwLock::new(Some(queues)),
            threads: Mutex::new(threads),
        })
    }

    /// Answers a query.
    ///
    /// # Errors
    /// As the reads of the storage traits.
    pub async fn read(&self, query: Query) -> Result<Answer, StorageError> {
        self.on_reader(move |rows| query::answer(rows, query)).await
    }

    /// Whether a backup is being restored.
    pub(super) fn rows_restoring(&self) -> bool {
        self.rows.upgrade().is_some_and(|rows| rows.is_restoring())
    }

    /// The disk that it is on.
    pub(in super::super) fn disk(&self) -> Arc<Space> {
        Arc::clone(&self.space)
    }

    /// Refuses a change that needs more room than the disk has: a write that the system refuses would be the last. Asked before a
    /// change is ordered.
    fn admit(&self, command: &Command) -> Result<(), StorageError> {
        self.space.admit(command.least_room())
    }

    async fn write(&self, command: impl Into<Option<Command>>) -> Result<Reply, StorageError> {
        let command = command.into();
        command.as_ref().map_or(Ok(()), |command| self.admit(command))?;
        let (reply, answer) = oneshot::channel();
        self.queue(Write::Command { command: command.map(Box::new), reply })?;
        answer.await.unwrap_or_else(|_| Err(self.gone()))
    }

    fn queue(&self, write: Write) -> Result<(), StorageError> {
        let queues = self.queues.read();
        let queues = queues.as_ref().ok_or(StorageError::Closed)?;
        queues.writes.try_send(write).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => StorageError::Busy,
            mpsc::error::TrySendError::Closed(_) => self.gone(),
        })
    }

    async fn on_reader<T, F>(&self, read: F) -> Result<T, StorageError>
    where
        T: Send + 'static,
        F: FnOnce(&Rows) -> Result<T, Fault> + Send + 'static,
    {
        let (job, answer) = reading(|rows| rows.serving(read));
        self.queues.read().as_ref().ok_or(StorageError::Closed)?.reads.send(job)?;
        answer.await.unwrap_or_else(|_| Err(self.gone()))
    }

    /// As a read of the storage traits, but waits for a place in the queue: work of the store group, which
    /// comes one after the other.
    pub(super) async fn on_reader_in_turn<T, F>(&self, read: F) -> Result<T, StorageError>
    where
        T: Send + 'static,
        F: FnOnce(&Rows) -> Result<T, Fault> + Send + 'static,
    {
        let (job, answer) = reading(|rows| rows.reading(read));
        let queue = self.queues.read().as_ref().ok_or(StorageError::Closed)?.reads.next()?.clone();
        queue.send(job).await.map_err(|_| self.gone())?;
        answer.await.unwrap_or_else(|_| Err(self.gone()))
    }

    /// Runs `job` in the writer's thread, alone and in its turn. Waits for a place in the queue.
    pub(super) async fn on_writer<T, F>(&self, job: F) -> Result<T, StorageError>
    where
        T: Send + 'static,
        F: FnOnce(&Rows) -> Result<T, StorageError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(move |rows: &Rows| {
            let _gone = reply.send(job(rows));
        });
        let queue = self.queues.read().as_ref().ok_or(StorageError::Closed)?.writes.clone();
        queue.send(Write::Alone(job)).await.map_err(|_| self.gone())?;
        answer.await.unwrap_or_else(|_| Err(self.gone()))
    }

    /// Why a thread did not answer.
    fn gone(&self) -> StorageError {
        self.failure().unwrap_or(StorageError::Closed)
    }

    /// Sends a command whose reply says whether it found something.
    async fn write_done(&self, command: Command) -> Result<bool, StorageError> {
        self.write(command).await?.done()
    }
}

#[async_trait]
impl Commanded for Embedded {
    async fn command(&self, command: Command) -> Result<Reply, StorageError> {
        command.check()?;
        self.write(command).await
    }

    async fn ask(&self, query: Query) -> Result<Answer, StorageError> {
        self.read(query).await
    }
}

/// A read as a job for a thread, and where its answer comes.
fn reading<T: Send + 'static>(
    read: impl FnOnce(&Rows) -> Result<T, Fault> + Send + 'static,
) -> (Read, oneshot::Receiver<Result<T, StorageError>>) {
    let (reply, answer) = oneshot::channel();
    let job = Box::new(move |rows: &Rows| {
        let _gone = reply.send(read(rows).map_err(|fault| rows.explain(fault, "read")));
    });
    (job, answer)
}

fn spawn(
    dir: &Path,
    name: &str,
    rows: &Arc<Rows>,
    run: impl FnOnce(&Arc<Rows>) + Send + 'static,
) -> Result<JoinHandle<()>, StorageError> {
    let rows = rows.clone();
    std::thread::Builder::new().name(name.to_owned()).spawn(move || run(&rows)).map_err(|error| {
        StorageError::Io { path: dir.to_owned(), what: "start a thread for", error: error.to_string() }
    })
}

#[async_trait]
impl Accounts for Embedded {
    async fn get(&self, user: &BareJid) -> Result<Option<Account>, StorageError> {
        let user = user.clone();
        self.on_reader(move |rows| rows.account(&user)).await
    }

    async fn create(&self, user: &BareJid, account: Account) -> Result<bool, StorageError> {
        self.write_done(Command::CreateAccount(CreateAccount { user: user.clone(), account })).await
    }

    async fn set_credentials(&self, user: &BareJid, credentials: Credentials) -> Result<bool, StorageError> {
        self.write_done(Command::SetCredentials(SetCredentials { user: user.clone(), credentials })).await
    }

    async fn delete(&self, user: &BareJid) -> Result<bool, StorageError> {
        self.write_done(Command::DeleteAccount(DeleteAccount { user: user.clone() })).await
    }

    async fn standing(&self, user: &BareJid) -> Result<Option<Standing>, StorageError> {
        let user = user.clone();
        self.on_reader(move |rows| rows.standing(&user)).await
    }

    async fn set_disabled(&self, user: &BareJid, since: Option<Timestamp>) -> Result<bool, StorageError> {
        self.write_done(Command::SetDisabled(SetDisabled { user: user.clone(), since })).await
    }

    async fn list_disabled(
        &self,
        domain: &str,
        after: Option<&BareJid>,
        limit: usize,
    ) -> Result<Vec<BareJid>, StorageError> {
        let (domain, after) = (domain.to_owned(), after.cloned());
        self.on_reader(move |rows| rows.disabled(&domain, after.as_ref(), limit)).await
    }

    async fn list(
        &self,
        domain: &str,
        after: Option<&BareJid>,
        limit: usize,
    ) -> Result<Vec<BareJid>, StorageError> {
        let (domain, after) = (domain.to_owned(), after.cloned());
        self.on_reader(move |rows| rows.accounts(&domain, after.as_ref(), limit)).await
    }
}

#[async_trait]
impl Rosters for Embedded {
    async fn load(&self, owner: &BareJid) -> Result<Roster, StorageError> {
        let owner = owner.clone();
        self.on_reader(move |rows| rows.roster(&owner)).await
    }

    async fn change(
        &self,
        owner: &BareJid,
        contact: &BareJid,
        change: RosterChange,
        limits: RosterLimits,
    ) -> Result<Result<Changed, RosterError>, StorageError> {
        let command = ChangeRoster { owner: owner.clone(), contact: contact.clone(), change, limits };
        self.write(Command::ChangeRoster(command)).await?.roster()
    }

    async fn since(&self, owner: &BareJid, version: u64, most: u32) -> Result<RosterNews, StorageError> {
        let owner = owner.clone();
        self.on_reader(move |rows| rows.roster_since(&owner, version, most)).await
    }

    async fn item(&self, owner: &BareJid, contact: &BareJid) -> Result<Option<RosterItem>, StorageError> {
        let (owner, contact) = (owner.clone(), contact.clone());
        self.on_reader(move |rows| rows.roster_item(&owner, &contact)).await
    }
}

#[async_trait]
impl Privacy for Embedded {
    async fn load(&self, owner: &BareJid, which: WhichList) -> Result<Lists, StorageError> {
        let owner = owner.clone();
        self.on_reader(move |rows| rows.privacy(&owner, &which)).await
    }

    async fn judge(&self, owner: &BareJid, peer: &Jid) -> Result<Judgement, StorageError> {
        let (owner, peer) = (owner.clone(), peer.clone());
        self.on_reader(move |rows| rows.judge(&owner, &peer)).await
    }

    async fn change(
        &self,
        owner: &BareJid,
        change: PrivacyChange,
        limits: PrivacyLimits,
    ) -> Result<Result<PrivacyChanged, PrivacyError>, StorageError> {
        let command = Command::ChangePrivacy(ChangePrivacy { owner: owner.clone(), change, limits });
        command.check()?;
        self.write(command).await?.privacy()
    }
}

#[async_trait]
impl PrivateData for Embedded {
    async fn get(&self, user: &BareJid, namespace: &str, key: &str) -> Result<Option<Vec<u8>>, StorageError> {
        let (user, namespace, key) = (user.clone(), namespace.to_owned(), key.to_owned());
        self.on_reader(move |rows| rows.private(&user, &namespace, &key)).await
    }

    async fn put(
        &self,
        user: &BareJid,
        namespace: &str,
        key: &str,
        value: Vec<u8>,
    ) -> Result<(), StorageError> {
        let (namespace, key) = (namespace.to_owned(), key.to_owned());
        let command = Command::PutPrivate(PutPrivate { user: user.clone(), namespace, key, value });
        command.check()?;
        self.write_done(command).await.map(|_written| ())
    }

    async fn put_within(
        &self,
        user: &BareJid,
        namespace: &str,
        key: &str,
        value: Vec<u8>,
        bound: RowBound,
    ) -> Result<(), StorageError> {
        let (namespace, key) = (namespace.to_owned(), key.to_owned());
        let row = PutPrivate { user: user.clone(), namespace, key, value };
        let command = Command::PutPrivateWithin(PutPrivateWithin { row, bound });
        command.check()?;
        self.write_done(command).await.map(|_written| ())
    }

    async fn delete(&self, user: &BareJid, namespace: &str, key: &str) -> Result<bool, StorageError> {
        let (namespace, key) = (namespace.to_owned(), key.to_owned());
        self.write_done(Command::DeletePrivate(DeletePrivate { user: user.clone(), namespace, key })).await
    }

    async fn list(
        &self,
        user: &BareJid,
        namespace: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Vec<u8>)>, StorageError> {
        let (user, namespace, after) = (user.clone(), namespace.to_owned(), after.map(str::to_owned));
        self.on_reader(move |rows| rows.private_rows(&user, &namespace, after.as_deref(), limit)).await
    }
}

#[async_trait]
impl Engine for Embedded {
    async fn flush(&self) -> Result<(), StorageError> {
        self.write(None).await.map(|_done| ())
    }

    async fn close(&self) -> Result<(), StorageError> {
        // Held before the threads let go of them: a failure must be there to be told.
        let rows = self.rows.upgrade();
        drop(self.queues.write().take());
        let threads = std::mem::take(&mut *self.threads.lock());
        // The threads end when their queues are empty; nothing was answered without a flush, so none
        // is due. The database closes with the last owner of the rows, here.
        let closing = tokio::task::spawn_blocking(move || {
            threads.into_iter().for_each(|thread| drop(thread.join()));
            rows.and_then(|rows| rows.failure())
        });
        closing.await.map_err(|_| StorageError::Closed)?.map_or(Ok(()), Err)
    }

    fn failure(&self) -> Option<StorageError> {
        self.rows.upgrade().and_then(|rows| rows.failure())
    }

    fn queued(&self) -> usize {
        let queues = self.queues.read();
        queues.as_ref().map_or(0, |queues| queues.writes.max_capacity() - queues.writes.capacity())
    }

    async fn size_on_disk(&self) -> Result<u64, StorageError> {
        self.on_reader(Rows::size_on_disk).await
    }

    async fn room(&self) -> Result<Option<Room>, StorageError> {
        let space = Arc::clone(&self.space);
        let looked = tokio::task::spawn_blocking(move || space.look());
        looked.await.map_err(|_| StorageError::Closed)?.map(Some)
    }

    fn is_full(&self) -> bool {
        self.space.admit(Level::Enough).is_err()
    }
}
