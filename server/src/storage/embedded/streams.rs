//! Records of streams in the embedded store: commands, rows, reads, and the trait for whoever can be given these.

use althing_proto::jid::FullJid;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::super::StorageError;
use super::super::messages::{KeepMessage, Kept};
use super::super::streams::{
    Handled, MAX_CHANGES, StreamChange, StreamKey, StreamRecord, StreamRow, Streams, check_changes,
};
use super::command::Command;
use super::fault::Fault;
use super::keys;
use super::messages::{self, Commanded, Scope};
use super::query::{Answer, Query};
use super::reply::Reply;
use super::rows::Rows;

/// [`Command::KeepOfStream`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeepOfStream {
    /// The message.
    pub message: KeepMessage,
    /// What is handled with it.
    pub handled: Handled,
}

/// [`Command::ChangeStreams`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeStreams {
    /// What happens, in this order.
    pub changes: Vec<StreamChange>,
}

/// [`Query::GetStream`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetStream {
    /// Of which address.
    pub jid: FullJid,
}

/// [`Query::ListStreams`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListStreams {
    /// The address before the first that is wanted.
    pub after: Option<FullJid>,
    /// Most records wanted.
    pub limit: u32,
}

impl Scope<'_, '_> {
    /// Both or neither.
    pub(super) fn keep_of_stream(&mut self, command: KeepOfStream) -> Result<Reply, Fault> {
        let StreamKey { jid, hash } = &command.handled.key;
        let row: Option<StreamRow> = self.read(&keys::stream(jid))?;
        if let Some(row) = row {
            if row.has_kept(&command.handled) {
                return self.kept_before(&command.message);
            }
            if row.is_closed(hash) {
                return Ok(Reply::Kept(vec![Kept::Closed; command.message.owners.len()]));
            }
        }
        let reply = self.keep(&command.message)?;
        if matches!(reply, Reply::Kept(_)) {
            self.change_stream(&StreamChange::Handled(command.handled))?;
        }
        Ok(reply)
    }

    pub(super) fn change_streams(&mut self, command: &ChangeStreams) -> Result<Reply, Fault> {
        for change in &command.changes {
            self.change_stream(change)?;
        }
        Ok(Reply::Done(true))
    }

    fn change_stream(&mut self, change: &StreamChange) -> Result<(), Fault> {
        let jid = &change.key().jid;
        let key = keys::stream(jid);
        let before: Option<StreamRow> = self.read(&key)?;
        if matches!(change, StreamChange::Began(_)) && !self.has_account(&jid.to_bare())? {
            return Ok(());
        }
        match StreamRow::changed(before.clone(), change) {
            after if after == before => {}
            Some(row) => self.put(key, &row)?,
            None => self.remove(key),
        }
        Ok(())
    }

    pub(super) fn make_stream_secret(&mut self, candidate: [u8; 32]) -> Result<Reply, Fault> {
        let known: Option<[u8; 32]> = self.read(keys::STREAM_SECRET)?;
        if known.is_none() {
            self.put(keys::STREAM_SECRET.to_vec(), &candidate)?;
        }
        Ok(Reply::Secret(known.unwrap_or(candidate)))
    }
}

impl Rows {
    /// See [`Streams::get`].
    pub(super) fn stream(&self, jid: &FullJid) -> Result<Option<StreamRecord>, Fault> {
        let row: Option<StreamRow> = self.between_batches(|tree| messages::get(tree, &keys::stream(jid)))?;
        Ok(row.map(|row| row.record))
    }

    /// See [`Streams::list`].
    pub(super) fn streams(&self, after: Option<&FullJid>, limit: u32) -> Result<Vec<StreamRecord>, Fault> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX).min(MAX_CHANGES);
        let after = after.map(keys::stream);
        self.between_batches(|tree| {
            let from = after.as_deref().unwrap_or(keys::STREAMS);
            let mut records = Vec::new();
            for entry in tree.range(from..) {
                let (key, value) = entry?;
                if records.len() == limit || !key.starts_with(keys::STREAMS) {
                    break;
                }
                if Some(&key[..]) != after.as_deref() {
                    records.push(messages::decode::<StreamRow>(&key, &value)?.record);
                }
            }
            Ok(records)
        })
    }
}

fn unexpected(answer: &Answer) -> StorageError {
    StorageError::Unavailable { why: format!("a replica answered by {} about streams", answer.name()) }
}

#[async_trait]
impl<S: Commanded> Streams for S {
    async fn change(&self, changes: Vec<StreamChange>) -> Result<(), StorageError> {
        check_changes(&changes)?;
        self.command(Command::ChangeStreams(ChangeStreams { changes })).await?.done().map(|_done| ())
    }

    async fn keep(&self, message: KeepMessage, handled: Handled) -> Result<Vec<Kept>, StorageError> {
        match self.command(Command::KeepOfStream(KeepOfStream { message, handled })).await? {
            Reply::Kept(kept) => Ok(kept),
            other => Err(other.refusal()),
        }
    }

    async fn get(&self, jid: &FullJid) -> Result<Option<StreamRecord>, StorageError> {
        match self.ask(Query::GetStream(GetStream { jid: jid.clone() })).await? {
            Answer::Stream(found) => Ok(found),
            other => Err(unexpected(&other)),
        }
    }

    async fn list(&self, after: Option<&FullJid>, limit: usize) -> Result<Vec<StreamRecord>, StorageError> {
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        match self.ask(Query::ListStreams(ListStreams { after: after.cloned(), limit })).await? {
            Answer::Streams(found) => Ok(found),
            other => Err(unexpected(&other)),
        }
    }

    async fn secret(&self, candidate: [u8; 32]) -> Result<[u8; 32], StorageError> {
        match self.command(Command::MakeStreamSecret(candidate)).await? {
            Reply::Secret(secret) => Ok(secret),
            other => Err(other.refusal()),
        }
    }
}

/// Any command on the streams of `user`.
#[cfg(test)]
pub(super) fn any_command(user: &'static str) -> impl proptest::strategy::Strategy<Value = Command> {
    use super::super::conformance::messages::message;
    use super::super::conformance::streams::{began, stream};
    use super::super::streams::KeepPlace;
    use althing_cluster::routes::BindIndex;
    use althing_proto::stream::management::Count;
    use althing_proto::time::Timestamp;
    use proptest::prelude::*;
    (0..2_u8, 0..5_u32, 0..7_u8).prop_map(move |(seed, number, what)| {
        let key = stream(user, "r", seed);
        let place = |earlier: u32| KeepPlace {
            bind: BindIndex(2),
            turn: u32::from(seed),
            number: u64::from(earlier),
        };
        let handled =
            Handled { key: key.clone(), number: Count(number), place: number.checked_sub(1).map(place) };
        let change = match what {
            0 => StreamChange::Began(began(key, u64::from(number % 3), number)),
            1 => StreamChange::Handled(handled),
            2 => StreamChange::Ended(key),
            3 => StreamChange::Gone(key, Timestamp::from_millis(u64::from(number) * 4_000)),
            4 => {
                let at = Timestamp::from_millis(u64::from(number) * 4_000);
                StreamChange::GoneOf(key, BindIndex(2), at)
            }
            5 => StreamChange::Closed(key),
            _ => {
                let message = message(u64::from(number), 0);
                return Command::KeepOfStream(KeepOfStream { message, handled });
            }
        };
        Command::ChangeStreams(ChangeStreams { changes: vec![change] })
    })
}

#[cfg(test)]
mod tests {
    use althing_cluster::routes::BindIndex;
    use althing_proto::stanza_id::StanzaId;
    use althing_proto::stream::management::Count;
    use althing_proto::time::Timestamp;

    use super::super::super::streams::KeepPlace;
    use super::super::tagged::assert_golden;
    use super::*;

    fn record() -> StreamRecord {
        let key = StreamKey { jid: FullJid::new("j@d/r").unwrap(), hash: [1; 32] };
        StreamRecord { key, bind: BindIndex(300), handled: Count(7), seconds: 9 }
    }

    #[test]
    fn golden_bytes() {
        let (record, key) = (record(), record().key);
        let golden = |text: &str| -> &'static str {
            Box::leak(text.replace("KEY", &format!("056a40642f72{}", "01".repeat(32))).into_boxed_str())
        };
        let handled = Handled { key: key.clone(), number: Count(8), place: None };
        let place = KeepPlace { bind: BindIndex(300), turn: 2, number: 3 };
        let placed = Handled { place: Some(place), ..handled.clone() };
        let message = KeepMessage {
            name: None,
            id: StanzaId::from_bytes([0xee; 16]),
            stamp: Timestamp::from_millis(5),
            xml: bytes::Bytes::from_static(b"<m/>"),
            owners: Vec::new(),
        };
        let changes = vec![
            StreamChange::Began(record.clone()),
            StreamChange::Handled(handled),
            StreamChange::Ended(key.clone()),
            StreamChange::Gone(key.clone(), Timestamp::from_millis(6)),
            StreamChange::GoneOf(key.clone(), BindIndex(300), Timestamp::from_millis(6)),
            StreamChange::Closed(key),
        ];
        let keep = format!("0050{}05043c6d2f3e0000KEY0801fb2c010203", "ee".repeat(16));
        let commands = [
            (golden(&keep), Command::KeepOfStream(KeepOfStream { message, handled: placed })),
            (
                golden("00510600KEYfb2c01070901KEY080002KEY03KEY0604KEYfb2c010605KEY"),
                Command::ChangeStreams(ChangeStreams { changes }),
            ),
            (golden(&format!("0052{}", "02".repeat(32))), Command::MakeStreamSecret([2; 32])),
        ];
        assert_golden!(Command, commands);
        assert_golden!(Reply, [(golden(&format!("0050{}", "02".repeat(32))), Reply::Secret([2; 32]))]);
        let jid = || FullJid::new("j@d/r").unwrap();
        let queries = [
            (golden("0050056a40642f72"), Query::GetStream(GetStream { jid: jid() })),
            (
                golden("005101056a40642f7203"),
                Query::ListStreams(ListStreams { after: Some(jid()), limit: 3 }),
            ),
        ];
        assert_golden!(Query, queries);
        let answers = [
            (golden("005001KEYfb2c010709"), Answer::Stream(Some(record.clone()))),
            (golden("005101KEYfb2c010709"), Answer::Streams(vec![record.clone()])),
        ];
        assert_golden!(Answer, answers);
        let row = StreamRow::changed(None, &StreamChange::Began(record)).unwrap();
        let hex: String =
            althing_cluster::wire::encode(&row).unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, golden("KEYfb2c0107090000000000"));
    }
}
