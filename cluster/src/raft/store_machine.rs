//! The state machine of the store group: hands commands to whoever keeps the rows, and the rows to newcomers.

use std::fs::File;
use std::io::{self, BufReader, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{Stream, TryStreamExt as _};
use openraft::alias::{LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::answers::{OwnAnswers, TellsAnswers};
use super::spool::{Spool, SpoolFile};
use super::types::{StoreBatch, StoreGroup, StoreReplies};
use crate::origin::{Answered, Origin, Seen};
use crate::store_log::Replica;
use crate::wire;

/// The file of a snapshot that was received and not yet taken in whole.
const FILE: &str = "store.snapshot";

/// How far a replica is: what [`Replica::apply`] writes beside the rows.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Mark {
    last: Option<LogIdOf<StoreGroup>>,
    membership: StoredMembershipOf<StoreGroup>,
    answered: Answered<StoreReplies>,
}

/// The index of the last entry that is in rows with this mark; `None` where the bytes are no mark, or nothing is.
#[must_use]
pub fn index_of(mark: &[u8]) -> Option<u64> {
    wire::decode::<Mark>(mark).ok()?.last.map(|id| id.index)
}

type Meta = SnapshotMetaOf<StoreGroup>;

/// A snapshot of the store. It is not read before it is sent: the rows are on disk, and are as good later.
#[derive(Debug, Clone)]
pub enum StoreSnapshot {
    /// The rows of this node, as they are when the snapshot is sent.
    Own,
    /// A file that the leader has sent.
    Received(PathBuf),
}

/// The state machine of the store group.
pub struct StoreMachine {
    replica: Arc<dyn Replica>,
    dir: PathBuf,
    mark: Mark,
    applied: watch::Sender<u64>,
    built: Arc<Mutex<Option<Meta>>>,
    answers: Option<OwnAnswers<StoreReplies>>,
}

fn invalid(what: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("no snapshot of the store: {what}"))
}

impl StoreMachine {
    /// The state machine over `replica`; `dir` is where snapshots lie while they come. A snapshot that a crash has
    /// interrupted is taken in first.
    ///
    /// # Errors
    /// The replica's and the file system's.
    pub async fn open(replica: Arc<dyn Replica>, dir: &Path) -> io::Result<Self> {
        let received = dir.join(FILE);
        if replica.mark().await?.is_none() && received.exists() {
            take_in(&*replica, &received).await?;
        }
        let mark: Mark = match replica.mark().await? {
            Some(bytes) => wire::decode(&bytes).map_err(invalid)?,
            None => Mark::default(),
        };
        let applied = watch::Sender::new(mark.last.map_or(0, |id| id.index));
        Ok(StoreMachine { replica, dir: dir.to_owned(), mark, applied, built: Arc::default(), answers: None })
    }

    /// The index of the last entry applied; 0 before the first.
    #[must_use]
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    /// Applies commands, and writes with their rows how far the log is applied and what was answered to whom.
    async fn commit(&mut self, origin: Option<Origin>, commands: Vec<Bytes>) -> io::Result<StoreReplies> {
        let mut mark = self.mark.clone();
        let (sealed, seal) = (Arc::new(Mutex::new(None)), Arc::new(Mutex::new(None)));
        let (keep_mark, keep_error) = (sealed.clone(), seal.clone());
        let make = move |replies: &[Bytes]| {
            if let Some(origin) = origin {
                mark.answered.remember(origin, StoreReplies(replies.to_vec()));
            }
            let bytes = wire::encode(&mark).unwrap_or_else(|error| {
                *keep_error.lock() = Some(error);
                Vec::new()
            });
            *keep_mark.lock() = Some(mark);
            Bytes::from(bytes)
        };
        let replies = self.replica.apply(commands, Box::new(make)).await?;
        if let Some(error) = seal.lock().take() {
            return Err(io::Error::other(error));
        }
        if let Some(mark) = sealed.lock().take() {
            self.mark = mark;
        }
        Ok(StoreReplies(replies))
    }
}

impl TellsAnswers<StoreReplies> for StoreMachine {
    fn tell_answers(&mut self, answers: OwnAnswers<StoreReplies>) {
        self.answers = Some(answers);
    }
}

impl RaftStateMachine<StoreGroup> for StoreMachine {
    type SnapshotData = StoreSnapshot;
    type SnapshotBuilder = StoreSnapshotBuilder;

    async fn applied_state(
        &mut self,
    ) -> io::Result<(Option<LogIdOf<StoreGroup>>, StoredMembershipOf<StoreGroup>)> {
        Ok((self.mark.last, self.mark.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<StoreGroup>>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let id = entry.log_id;
            self.mark.last = Some(id);
            let mut origin = None;
            let replies = match entry.payload {
                EntryPayload::Blank => self.commit(None, Vec::new()).await?,
                EntryPayload::Membership(membership) => {
                    self.mark.membership = StoredMembershipOf::<StoreGroup>::new(Some(id), membership);
                    self.commit(None, Vec::new()).await?
                }
                EntryPayload::Normal(batch) => {
                    origin = batch.origin;
                    self.apply_batch(batch).await?
                }
            };
            self.applied.send_replace(id.index);
            if let Some(answers) = &self.answers {
                answers.tell(origin, &replies);
            }
            if let Some(responder) = responder {
                responder.send(replies);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> StoreSnapshotBuilder {
        let meta = Meta { last_log_id: self.mark.last, last_membership: self.mark.membership.clone() };
        StoreSnapshotBuilder { replica: self.replica.clone(), meta, built: self.built.clone() }
    }

    async fn install_snapshot(&mut self, meta: &Meta, snapshot: StoreSnapshot) -> io::Result<()> {
        let StoreSnapshot::Received(file) = snapshot else {
            return Err(invalid("it was not received"));
        };
        // From here on a crash finds it, and takes it in at the next start.
        let kept = self.dir.join(FILE);
        std::fs::rename(&file, &kept)?;
        File::open(&self.dir)?.sync_all()?;
        take_in(&*self.replica, &kept).await?;
        let mark = self.replica.mark().await?.ok_or_else(|| invalid("it has no mark"))?;
        self.mark = wire::decode(&mark).map_err(invalid)?;
        if self.mark.last != meta.last_log_id {
            return Err(invalid("it is of another time than it says"));
        }
        *self.built.lock() = Some(meta.clone());
        self.applied.send_replace(meta.last_log_id.map_or(0, |id| id.index));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf<StoreGroup, StoreSnapshot>>> {
        let built = self.built.lock().clone();
        let snapshot = |meta| SnapshotOf::<StoreGroup, StoreSnapshot> { meta, snapshot: StoreSnapshot::Own };
        Ok(built.map(snapshot))
    }
}

impl StoreMachine {
    async fn apply_batch(&mut self, StoreBatch { origin, commands }: StoreBatch) -> io::Result<StoreReplies> {
        match origin.map_or(Seen::New, |origin| self.mark.answered.seen(origin)) {
            Seen::New => self.commit(origin, commands).await,
            Seen::Done(replies) => {
                self.commit(None, Vec::new()).await?;
                Ok(replies)
            }
            Seen::Superseded => {
                self.commit(None, Vec::new()).await?;
                // Nobody waits for them.
                Ok(StoreReplies(vec![Bytes::new(); commands.len()]))
            }
        }
    }
}

/// Says up to where the rows of this node go; they are read when the snapshot is sent.
pub struct StoreSnapshotBuilder {
    replica: Arc<dyn Replica>,
    meta: Meta,
    built: Arc<Mutex<Option<Meta>>>,
}

impl RaftSnapshotBuilder<StoreGroup> for StoreSnapshotBuilder {
    type SnapshotData = StoreSnapshot;

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf<StoreGroup, StoreSnapshot>> {
        // What the log is cut off for must be on disk.
        self.replica.flush().await?;
        *self.built.lock() = Some(self.meta.clone());
        Ok(SnapshotOf::<StoreGroup, StoreSnapshot> { meta: self.meta.clone(), snapshot: StoreSnapshot::Own })
    }
}

/// Writes the rows of this node to files, and hands received files on.
#[derive(Clone)]
pub struct StoreSpool(pub Arc<dyn Replica>);

#[async_trait]
impl Spool<StoreGroup> for StoreSpool {
    type Data = StoreSnapshot;

    /// The rows as they are now: later than the snapshot that openraft knows of, never earlier.
    async fn write(
        &self,
        _: SnapshotOf<StoreGroup, StoreSnapshot>,
        file: SpoolFile,
    ) -> io::Result<(Meta, SpoolFile)> {
        let mut rows = self.0.read_rows().await?;
        let bytes = rows.mark().ok_or_else(|| invalid("nothing was applied yet"))?;
        let mark: Mark = wire::decode(&bytes).map_err(invalid)?;
        let mut out = BufWriter::new(file);
        frame(&mut out, &bytes)?;
        while let Some(part) = rows.next().await? {
            out = tokio::task::spawn_blocking(move || frame(&mut out, &part).map(|()| out))
                .await
                .map_err(io::Error::other)??;
        }
        frame(&mut out, &[])?;
        let file = out.into_inner()?;
        Ok((Meta { last_log_id: mark.last, last_membership: mark.membership }, file))
    }

    async fn read(&self, file: PathBuf) -> io::Result<StoreSnapshot> {
        Ok(StoreSnapshot::Received(file))
    }
}

/// Replaces the rows of `replica` by those in `file`, which goes when all are there.
async fn take_in(replica: &dyn Replica, path: &Path) -> io::Result<()> {
    let mut input = BufReader::new(File::open(path)?);
    let mark = unframe(&mut input)?.ok_or_else(|| invalid("it has no mark"))?;
    let mut rows = replica.replace_rows().await?;
    loop {
        let read = tokio::task::spawn_blocking(move || unframe(&mut input).map(|part| (input, part)));
        let part;
        (input, part) = read.await.map_err(io::Error::other)??;
        match part {
            Some(part) => rows.write(part).await?,
            None => break,
        }
    }
    rows.finish(mark).await?;
    std::fs::remove_file(path)
}

/// A part behind its length, a big-endian u32; one without bytes is the end.
fn frame(out: &mut impl io::Write, part: &[u8]) -> io::Result<()> {
    let length = u32::try_from(part.len()).map_err(io::Error::other)?;
    out.write_all(&length.to_be_bytes())?;
    out.write_all(part)
}

fn unframe(input: &mut impl io::Read) -> io::Result<Option<Bytes>> {
    let mut length = [0; 4];
    input.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > wire::MAX_VALUE {
        return Err(invalid(format_args!("a part has {length} bytes")));
    }
    let mut part = vec![0; length];
    input.read_exact(&mut part)?;
    Ok((length > 0).then(|| part.into()))
}
