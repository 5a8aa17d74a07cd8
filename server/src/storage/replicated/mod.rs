//! The store of a clustered node: every change goes through the log of the store group, every read is
//! linearizable, whether the node holds a replica or asks one that does.
//!
//! | file     | what                                                     |
//! |----------|----------------------------------------------------------|
//! | `remote` | how a node without a replica reaches one that has it      |
//! | `lanes`  | in which order messages go to other nodes' replicas       |
//! | `serve`  | what a replica answers to other nodes                     |
//! | `traits` | the storage traits                                        |
//!
//! **Reads** wait until the replica has everything that was committed anywhere when they began, so a node reads
//! its own writes and everybody else's, through whichever replica. They are repeated, at the next replica too,
//! until [`DEADLINE`].
//!
//! **Writes** are repeated only when it is certain that nothing was written. One whose fate is unknown ends in
//! [`StorageError::Unknown`] and is not repeated here, not even where a repetition looks harmless: the first
//! one may still be under way, and arrive after a later change by somebody else. But a message that goes through another
//! node's replica is, in its turn: under its id it is kept once, and tried again later it would come behind the next ones of
//! its sender (`lanes`). What it means, if whoever asked repeats a change after a look:
//!
//! | command        | if it was written after all, the repetition                                        |
//! |----------------|-------------------------------------------------------------------------------------|
//! | CreateAccount  | finds the account: `false`. The user logs in with the password just chosen           |
//! | SetCredentials | sets the same again                                                                  |
//! | DeleteAccount  | finds none: `false`. Repeated blindly it would delete an account made since          |
//! | SetDisabled    | sets the same again; repeated blindly it would undo what somebody has decided since  |
//! | ChangeRoster   | a set: the same item, one more push. A removal: [`RosterError::UnknownItem`]. A subscription stanza: the same state, routed again where the RFC says so; its first effects were lost |
//! | ChangePrivacy  | the same lists; a removal finds none: [`PrivacyError::UnknownList`]                  |
//! | PutPrivate, PutPrivateWithin | writes the same value again                                            |
//! | PutPart        | writes the same part again, if the upload still goes on                               |
//! | SealDocument   | finds its upload in force, or ended by another one                                    |
//! | NoteLogouts    | notes the same again                                                                 |
//! | DeletePrivate  | finds none: `false`                                                                  |
//! | KeepMessage    | finds the message under its id: kept once, the same numbers again. One that was settled since and is nobody's any more is kept, and delivered, anew |
//! | RetractMessage | finds a tombstone: `false`                                                            |
//! | DrainInbox     | of the same pass: gives the same messages again, but those settled since               |
//! | ReleaseMessages | releases what was taken since: the same message may be delivered twice              |
//! | SettleMessages | finds none: the count is less                                                         |
//! | ArrivedMessages | names more of them as unknown                                                        |
//! | OfflineMessage | makes it wait once more, though it may have arrived since                              |
//! | PurgeInbox     | settles what came since                                                               |
//! | NoteDevice     | notes the same again                                                                  |
//! | SetArchivePreferences | sets the same again                                                            |
//! | SweepMessages  | takes away more of what has to go                                                     |
//! | KeepOfStream   | the same number is handled. In the same place of its stream: nothing, settled or not; else as KeepMessage |
//! | ChangeStreams  | makes the same records, numbers only grow; repeated blindly it would bring one back that has ended since |
//! | BeginRestore, RestoreRows, FinishRestore | do the same again; after another restore has begun: refused   |
//! | MakeStreamSecret | finds the secret                                                                    |
//!
//! [`PrivacyError::UnknownList`]: althing_proto::privacy::PrivacyError::UnknownList
//! [`RosterError::UnknownItem`]: althing_proto::roster::RosterError::UnknownItem

mod lanes;
mod remote;
mod serve;
mod traits;

#[cfg(test)]
pub(super) mod fake;
#[cfg(test)]
mod tests;

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use althing_cluster::disk::{Disk, Gate, Room};
use althing_cluster::store_log::{StoreLog, StoreLogError};
use althing_proto::jid::BareJid;
use tokio::time::{Instant, sleep, timeout_at};

use super::StorageError;
use super::embedded::Embedded;
use super::embedded::command::Command;
use super::embedded::query::{Answer, Query};
use super::embedded::reply::Reply;
use super::embedded::streams::KeepOfStream;
use super::messages::KeepMessage;

use lanes::{Lanes, Way};

pub use remote::{RemoteError, RemoteStore};

/// Longest time from a request to its answer, repetitions included.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// Longest time that a replica works on a request of another node: less than [`DEADLINE`], so that the other
/// node learns how it ended, and can still ask the next replica.
pub const SERVING_DEADLINE: Duration = Duration::from_secs(8);

/// A replica's log ends so long before whoever asked hears of it, so that it can say what is certain.
const ANSWERING: Duration = Duration::from_millis(500);

/// Longest wait for one replica's answer to a read, before the next one is asked.
const READ_PATIENCE: Duration = Duration::from_secs(3);

/// Pause before the first repetition. It doubles up to [`MAX_PAUSE`]; each is lengthened at random by up to its
/// own length, so that nodes that lost the same leader do not come back together.
const FIRST_PAUSE: Duration = Duration::from_millis(25);
const MAX_PAUSE: Duration = Duration::from_millis(400);

/// The store of a clustered node.
pub struct Replicated {
    log: Arc<dyn StoreLog>,
    /// The rows of this node, if it may hold a replica. Only the store group writes them.
    local: Option<Arc<Embedded>>,
    remote: Arc<dyn RemoteStore>,
    /// [`DEADLINE`], but in tests.
    deadline: Duration,
    closed: AtomicBool,
    /// Closed while the disk of this node has no room for rows.
    gate: Gate,
    lanes: Arc<Lanes>,
}

impl Replicated {
    /// The store behind `log`. `local` are the rows that the store group keeps on this node, if it does;
    /// `remote` reaches the replicas of other nodes.
    #[must_use]
    pub fn new(log: Arc<dyn StoreLog>, local: Option<Arc<Embedded>>, remote: Arc<dyn RemoteStore>) -> Self {
        let disk = local.as_ref().map(|local| local.disk() as Arc<dyn Disk>);
        let gate = Gate::new(disk, Room::Low);
        Replicated {
            log,
            local,
            remote,
            deadline: DEADLINE,
            closed: AtomicBool::new(false),
            gate,
            lanes: Arc::default(),
        }
    }

    /// The rows of this node, while they are a replica that goes on: where the disk has no room they stand still, and
    /// others are asked.
    fn replica(&self) -> Option<&Arc<Embedded>> {
        self.local.as_ref().filter(|_| self.gate.is_open() && self.log.is_replica())
    }

    fn check_open(&self) -> Result<(), StorageError> {
        if self.closed.load(Ordering::Acquire) { Err(StorageError::Closed) } else { Ok(()) }
    }

    /// Reads, here or elsewhere.
    async fn read(&self, query: Query) -> Result<Answer, StorageError> {
        self.check_open()?;
        let mut attempts = Attempts::until(Instant::now() + self.deadline);
        loop {
            let why = match self.replica() {
                Some(rows) => match timeout_at(attempts.deadline, self.read_here(rows, &query)).await {
                    Ok(Err(StorageError::Unavailable { why })) => why,
                    Ok(other) => return other,
                    Err(_) => "this node's replica did not catch up in time".to_owned(),
                },
                None => match self.read_there(&query, attempts.deadline).await? {
                    Ok(answer) => return Ok(answer),
                    Err(why) => why,
                },
            };
            if !attempts.pause().await {
                return Err(StorageError::Unavailable { why });
            }
            self.check_open()?;
        }
    }

    /// Reads this node's own rows once.
    async fn read_here(&self, rows: &Embedded, query: &Query) -> Result<Answer, StorageError> {
        // A read that has no answer has done nothing, whatever kept it.
        tokio::select! {
            passed = self.log.barrier() => {
                passed.map_err(|error| StorageError::Unavailable { why: error.to_string() })?;
            }
            () = self.gate.closed() => {
                return Err(StorageError::Unavailable { why: "the disk of this node has no room".to_owned() });
            }
        }
        rows.read(query.clone()).await
    }

    /// Asks each replica once, until one answers. The inner error says why none did.
    async fn read_there(
        &self,
        query: &Query,
        deadline: Instant,
    ) -> Result<Result<Answer, String>, StorageError> {
        let query = query.encode().map_err(|error| unsendable(&error))?;
        let mut why = "no node is known to hold a replica".to_owned();
        for node in self.log.replicas() {
            let patience = deadline.min(Instant::now() + READ_PATIENCE);
            why = match timeout_at(patience, self.remote.read(node, query.clone())).await {
                Ok(Ok(bytes)) => match Answer::decode(&bytes) {
                    Ok(answer) => return Ok(Ok(answer)),
                    Err(error) => format!("the answer of node {node} cannot be read: {error}"),
                },
                Ok(Err(error)) => format!("node {node}: {error}"),
                Err(_) => format!("node {node} did not answer in time"),
            };
        }
        Ok(Err(why))
    }

    /// Writes, here or elsewhere.
    async fn write(&self, command: Command) -> Result<Reply, StorageError> {
        self.check_open()?;
        command.check()?;
        self.admit(&command)?;
        let deadline = if is_in_order(&command) { self.deadline * 3 } else { self.deadline };
        let deadline = Instant::now() + deadline;
        let elsewhere = Tries { deadline, elsewhere: true, again: false };
        let (Command::KeepMessage(message) | Command::KeepOfStream(KeepOfStream { message, .. })) = &command
        else {
            return self.write_until(command, elsewhere).await;
        };
        let is_replica = || self.replica().is_some();
        match self.lanes.way(|| sender(message), is_replica()) {
            Way::Here(_under_way) => self.write_until(command, elsewhere).await,
            Way::Lane(place) => {
                let Ok(_turn) = timeout_at(deadline, place.turn(is_replica)).await else {
                    let why = "earlier messages of the sender are under way".to_owned();
                    return Err(StorageError::Unavailable { why });
                };
                self.write_until(command, Tries { again: true, ..elsewhere }).await
            }
        }
    }

    /// Refuses a change that takes room, where the group has too little. Asked before a change is ordered, once: one that
    /// has begun keeps its place.
    fn admit(&self, command: &Command) -> Result<(), StorageError> {
        match command.takes_room() && !self.log.has_room() {
            true => Err(StorageError::NoRoomInGroup),
            false => Ok(()),
        }
    }

    /// Writes, as often as it may be tried.
    async fn write_until(&self, command: Command, tries: Tries) -> Result<Reply, StorageError> {
        let bytes = command.encode().map_err(|error| unsendable(&error))?;
        let Tries { deadline, elsewhere, again } = tries;
        let (began, in_order) = (Instant::now(), is_in_order(&command));
        let (mut attempts, mut is_known) = (Attempts::until(deadline), true);
        loop {
            let why = if self.replica().is_some() {
                let written = match in_order {
                    true => self.log.write_in_order(bytes.clone(), deadline - ANSWERING),
                    false => self.log.write(bytes.clone()),
                };
                match timeout_at(deadline, written).await {
                    Ok(Ok(reply)) => return Reply::decode(&reply).map_err(|_| StorageError::Unknown),
                    // It has had its place for long, and has it no more.
                    Ok(Err(StoreLogError::Unavailable(why)))
                        if in_order && began.elapsed() > self.deadline =>
                    {
                        return Err(not_done(why, is_known));
                    }
                    Ok(Err(StoreLogError::Unavailable(why))) => why,
                    Ok(Err(StoreLogError::Unknown)) | Err(_) => return Err(StorageError::Unknown),
                }
            } else if elsewhere {
                match self.write_there(&bytes, deadline).await {
                    There::Done(reply) => return Ok(reply),
                    There::Not(why) => why,
                    There::Unknown(why) if again => {
                        is_known = false;
                        why
                    }
                    There::Unknown(_) => return Err(StorageError::Unknown),
                }
            } else {
                return Err(StorageError::Unavailable { why: "this node holds no replica".to_owned() });
            };
            if !attempts.pause().await {
                return Err(not_done(why, is_known));
            }
            self.check_open()?;
        }
    }

    /// Asks each replica once, until one has written or may have.
    async fn write_there(&self, command: &bytes::Bytes, deadline: Instant) -> There {
        let mut why = "no node is known to hold a replica".to_owned();
        for node in self.log.replicas() {
            let unknown = match timeout_at(deadline, self.remote.write(node, command.clone())).await {
                Ok(Ok(reply)) => match Reply::decode(&reply) {
                    Ok(Reply::Lost(())) => "it did not learn it in time".to_owned(),
                    Ok(reply) => return There::Done(reply),
                    Err(error) => error.to_string(),
                },
                Ok(Err(RemoteError::Refused(refused))) => {
                    why = format!("node {node}: {refused}");
                    continue;
                }
                Ok(Err(RemoteError::Unknown(unknown))) => unknown,
                Err(_) => "it did not answer in time".to_owned(),
            };
            tracing::warn!(%node, error = %unknown, "a replica did not say what became of a change");
            return There::Unknown(unknown);
        }
        There::Not(why)
    }
}

/// How a change is tried.
#[derive(Clone, Copy)]
struct Tries {
    deadline: Instant,
    /// At other nodes too.
    elsewhere: bool,
    /// Also once more where nobody knows whether it was made: it is done once, and keeps its turn.
    again: bool,
}

/// What became of a change at the replicas of others.
enum There {
    Done(Reply),
    /// Nothing was written, and why.
    Not(String),
    Unknown(String),
}

fn not_done(why: String, is_known: bool) -> StorageError {
    if is_known { StorageError::Unavailable { why } } else { StorageError::Unknown }
}

/// Whether it waits for a leader in its place: tried once more behind later ones of its sender a message would come to
/// its receiver behind them. So it waits for longer than others, until the log gives it up: then it is certain that it
/// is not done, and its sender may be told.
fn is_in_order(command: &Command) -> bool {
    matches!(command, Command::KeepMessage(_) | Command::KeepOfStream(_) | Command::ChangeStreams(_))
}

/// Whose messages keep their order.
fn sender(message: &KeepMessage) -> Option<BareJid> {
    let sent = message.owners.iter().find(|owner| owner.outgoing).map(|owner| owner.owner.clone());
    sent.or_else(|| message.owners.first().map(|owner| owner.peer.to_bare()))
}

fn unsendable(error: &althing_cluster::wire::WireError) -> StorageError {
    StorageError::Unavailable { why: format!("the request cannot be sent: {error}") }
}

/// Repetitions of one request.
struct Attempts {
    deadline: Instant,
    pause: Duration,
}

impl Attempts {
    fn until(deadline: Instant) -> Self {
        Attempts { deadline, pause: FIRST_PAUSE }
    }

    /// Waits before the next attempt; `false` when there is no time for one.
    async fn pause(&mut self) -> bool {
        // std seeds each state at random: no crate is needed for a jitter.
        let random = RandomState::new().hash_one(0_u8) % 1_000;
        let pause = self.pause + self.pause.mul_f64(f64::from(u32::try_from(random).unwrap_or(0)) / 1_000.0);
        if Instant::now() + pause >= self.deadline {
            return false;
        }
        sleep(pause).await;
        self.pause = (self.pause * 2).min(MAX_PAUSE);
        true
    }
}
