//! Backups of the embedded store: how rows are cut into commands, and what becomes of each where it is taken in.
//!
//! While a backup is being restored a row says so, with the number of that restore, and no other command is done and
//! nothing read. So a store is never half there for its users: it has all, or is still being restored.

use std::sync::Arc;

use althing_cluster::store_log::RowReader;
use althing_cluster::wire;
use async_trait::async_trait;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::super::backup::{Backups, RestoreStep};
use super::super::messages::rules::InboxRow;
use super::super::privacy_rules::PrivacyHead;
use super::super::roster_rules::RosterHead;
use super::super::{Account, Engine as _, StorageError};
use super::apply::{View, Writes, put};
use super::chunk::{self, Chunk};
use super::command::Command;
use super::fault::Fault;
use super::messages::Commanded;
use super::reply::Reply;
use super::undo::Purpose;
use super::{Embedded, keys, replica};

/// The layout of keys and values that this release reads and writes.
pub const FORMAT: u32 = keys::FORMAT_VERSION;

/// Most bytes of rows in one command, unless one row is larger: below what the store group takes.
const PART_BYTES: usize = 64 << 10;

/// Rows that one [`Command::BeginRestore`] takes away at most.
const CLEARED: usize = 1_000;

/// [`Command::BeginRestore`] and [`Command::FinishRestore`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restore {
    /// Which restore.
    pub id: u64,
}

/// [`Command::RestoreRows`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreRows {
    /// Which restore.
    pub id: u64,
    /// Rows, as a snapshot has them.
    pub rows: Bytes,
}

/// [`Reply::NotRestored`]: why nothing was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestoreRefusal {
    /// To a command that has nothing to do with it: a backup is being restored.
    Restoring,
    /// There are accounts.
    Occupied,
    /// Another restore has begun since, or this one was never begun.
    Superseded,
    /// The rows are none.
    Damaged,
}

impl RestoreRefusal {
    pub(super) fn refusal(self) -> StorageError {
        let why = match self {
            RestoreRefusal::Restoring => return StorageError::Restoring,
            RestoreRefusal::Occupied => {
                "the server has accounts, and a backup is restored into an empty one only: begin a new cluster, with empty \
                 data directories"
            }
            RestoreRefusal::Superseded => "another restore has taken the place of this one",
            RestoreRefusal::Damaged => {
                "a replica cannot read the rows: bring all nodes to the release of the command"
            }
        };
        StorageError::Backup { why: why.to_owned() }
    }
}

/// Rows of a backup in parts that a command takes, and how many of them are accounts, and rows.
///
/// # Errors
/// What is wrong with them, in words.
pub fn cut(bytes: &[u8]) -> Result<(Vec<Bytes>, u64, u64), String> {
    let rows = chunk::rows(bytes).ok_or("its rows are cut off")?;
    let (mut parts, mut part, mut room) = (Vec::new(), Chunk::default(), PART_BYTES);
    let (mut accounts, all) = (0, rows.len() as u64);
    for (key, value) in rows {
        if !keys::is_known(key) {
            let kind = key.first().copied().unwrap_or_default();
            return Err(format!("it has rows of a kind ({kind:#04x}) that this release does not know"));
        }
        accounts += u64::from(keys::is_account(key));
        let size = key.len() + value.len() + 8;
        if size > room {
            parts.extend(std::mem::take(&mut part).into_bytes());
            room = PART_BYTES;
        }
        room = room.saturating_sub(size);
        part.push(key, value).map_err(|_| "a row is too large")?;
    }
    parts.extend(part.into_bytes());
    Ok((parts, accounts, all))
}

/// What another server keeps of a row in that restore: nothing that is about the binds and streams of the one that made it.
fn taken((key, value): (&[u8], &[u8]), has_head: bool, id: u64, writes: &mut Writes) -> Result<(), Fault> {
    // No client knows a version that the changes would lead from.
    if keys::is_of_the_server(key) || keys::is_roster_change(key) {
        return Ok(());
    }
    if !has_head
        && keys::is_account(key)
        && let Some(user) = keys::user(key)
    {
        // Its own head, if it has one, comes behind.
        let account: Account = decode(key, value)?;
        put(writes, keys::roster(&user), &RosterHead::of_new(account.created).restored(id))?;
    }
    writes.push((key.to_vec(), Some(changed(key, value, id)?.into())));
    Ok(())
}

/// Its value there.
fn changed(key: &[u8], value: &[u8], id: u64) -> Result<Vec<u8>, Fault> {
    if keys::is_roster_head(key) {
        let head: RosterHead = decode(key, value)?;
        return encode(key, &head.restored(id));
    }
    if keys::is_inbox(key) {
        // Whoever it was on its way to is not there any more: it waits.
        let mut row: InboxRow = decode(key, value)?;
        row.takers.clear();
        return encode(key, &row);
    }
    if keys::is_privacy_head(key) {
        let head: PrivacyHead = decode(key, value)?;
        return encode(key, &head.without_sessions());
    }
    Ok(value.to_vec())
}

fn encode<T: Serialize>(key: &[u8], row: &T) -> Result<Vec<u8>, Fault> {
    wire::encode(row).map(|bytes| bytes.to_vec()).map_err(|error| Fault::row(key, &error))
}

fn decode<T: DeserializeOwned>(key: &[u8], value: &[u8]) -> Result<T, Fault> {
    wire::decode(value).map_err(|error| Fault::row(key, &error))
}

impl View<'_> {
    /// Does a step of a restore.
    pub(super) fn restore(&mut self, command: Command, writes: &mut Writes) -> Result<Reply, Fault> {
        match command {
            Command::BeginRestore(Restore { id }) => self.begin_restore(id, writes),
            Command::RestoreRows(RestoreRows { id, rows }) if self.number(keys::RESTORING)? == Some(id) => {
                let Some(rows) = chunk::rows(&rows) else {
                    return Ok(Reply::NotRestored(RestoreRefusal::Damaged));
                };
                let mut new = Writes::new();
                for row in rows {
                    let user = keys::user(row.0).filter(|_| keys::is_account(row.0));
                    // Where these rows come once more.
                    let has_head = match user {
                        Some(user) => self.get(&keys::roster(&user))?.is_some(),
                        None => false,
                    };
                    if taken(row, has_head, id, &mut new).is_err() {
                        // It came from outside: no damage of this store.
                        return Ok(Reply::NotRestored(RestoreRefusal::Damaged));
                    }
                }
                writes.append(&mut new);
                put(writes, keys::RESTORING_ROWS.to_vec(), &id)?;
                Ok(Reply::Done(true))
            }
            Command::FinishRestore(Restore { id }) if self.number(keys::RESTORING)? == Some(id) => {
                writes.push((keys::RESTORING.to_vec(), None));
                writes.push((keys::RESTORING_ROWS.to_vec(), None));
                put(writes, keys::RESTORED.to_vec(), &id)?;
                Ok(Reply::Done(true))
            }
            // Asked twice.
            Command::FinishRestore(Restore { id }) if self.number(keys::RESTORED)? == Some(id) => {
                Ok(Reply::Done(true))
            }
            _ => Ok(Reply::NotRestored(RestoreRefusal::Superseded)),
        }
    }

    fn begin_restore(&self, id: u64, writes: &mut Writes) -> Result<Reply, Fault> {
        let before = self.number(keys::RESTORING)?;
        if before.is_none() && !self.rows(keys::ACCOUNTS, 1)?.is_empty() {
            return Ok(Reply::NotRestored(RestoreRefusal::Occupied));
        }
        if before == Some(id) && self.number(keys::RESTORING_ROWS)? == Some(id) {
            // Asked twice, and late: its rows have begun to come.
            return Ok(Reply::Done(true));
        }
        if before != Some(id) {
            put(writes, keys::RESTORING.to_vec(), &id)?;
        }
        // What an earlier restore has left, or somebody without an account.
        let left = self.rows(b"", CLEARED + keys::STORE_ROWS)?;
        let left: Vec<_> = left.into_iter().filter(|key| !keys::is_of_the_store(key)).collect();
        let all = left.len() <= CLEARED;
        writes.extend(left.into_iter().take(CLEARED).map(|key| (key, None)));
        Ok(Reply::Done(all))
    }

    fn number(&self, key: &[u8]) -> Result<Option<u64>, Fault> {
        self.get(key)?.map(|value| decode(key, &value)).transpose()
    }
}

/// Does a step by a command.
pub(in super::super) async fn restore<S: Commanded + ?Sized>(
    store: &S,
    id: u64,
    step: RestoreStep,
) -> Result<bool, StorageError> {
    let command = match step {
        RestoreStep::Begin => Command::BeginRestore(Restore { id }),
        RestoreStep::Rows(rows) => Command::RestoreRows(RestoreRows { id, rows }),
        RestoreStep::Finish => Command::FinishRestore(Restore { id }),
    };
    store.command(command).await?.done()
}

#[async_trait]
impl Backups for Embedded {
    async fn read_rows(self: Arc<Self>) -> Result<Box<dyn RowReader>, StorageError> {
        if self.is_restoring() {
            return Err(StorageError::Restoring);
        }
        self.failure().map_or(Ok(()), Err)?;
        let rows = replica::read_rows(self, Purpose::Backup).await;
        rows.map(|reader| Box::new(reader) as Box<dyn RowReader>).map_err(|error| {
            match error {
                // The one that was asked for has its rows one at a time.
                StorageError::Unavailable { .. } => StorageError::Backup {
                    why: "another backup is being made here, or this node is getting its rows: try again when that is done, or \
                          ask another node"
                        .to_owned(),
                },
                other => other,
            }
        })
    }

    async fn restore(&self, id: u64, step: RestoreStep) -> Result<bool, StorageError> {
        restore(self, id, step).await
    }

    fn is_restoring(&self) -> bool {
        self.rows_restoring()
    }
}

#[cfg(test)]
mod tests;
