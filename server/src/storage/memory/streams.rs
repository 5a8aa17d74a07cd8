//! Records of streams in memory.

use std::collections::BTreeMap;

use althing_proto::jid::FullJid;
use async_trait::async_trait;

use super::super::StorageError;
use super::super::messages::{KeepMessage, Kept, check_keep};
use super::super::streams::{
    Handled, MAX_CHANGES, StreamChange, StreamRecord, StreamRow, Streams, check_changes,
};
use super::{Memory, Name, State, name};

/// The records of one user, by resource.
pub(super) type StreamRows = BTreeMap<String, StreamRow>;

fn place(jid: &FullJid) -> (Name, String) {
    (name(&jid.to_bare()), jid.resource().as_str().to_owned())
}

impl State {
    fn change_stream(&mut self, change: &StreamChange) {
        let (user, resource) = place(&change.key().jid);
        let Some(user) = self.users.get_mut(&user) else { return };
        if let Some(row) = StreamRow::changed(user.streams.remove(&resource), change) {
            user.streams.insert(resource, row);
        }
    }
}

#[async_trait]
impl Streams for Memory {
    async fn change(&self, changes: Vec<StreamChange>) -> Result<(), StorageError> {
        check_changes(&changes)?;
        self.write(|state| changes.iter().for_each(|change| state.change_stream(change)))
    }

    async fn keep(&self, message: KeepMessage, handled: Handled) -> Result<Vec<Kept>, StorageError> {
        check_keep(&message)?;
        self.write(|state| {
            let (user, resource) = place(&handled.key.jid);
            let row = state.users.get(&user).and_then(|user| user.streams.get(&resource));
            if row.is_some_and(|row| row.has_kept(&handled)) {
                return Ok(state.kept_before(&message));
            }
            if row.is_some_and(|row| row.is_closed(&handled.key.hash)) {
                return Ok(vec![Kept::Closed; message.owners.len()]);
            }
            let kept = state.keep(message)?;
            state.change_stream(&StreamChange::Handled(handled));
            Ok(kept)
        })?
    }

    async fn get(&self, jid: &FullJid) -> Result<Option<StreamRecord>, StorageError> {
        let (user, resource) = place(jid);
        self.read(|state| Some(state.users.get(&user)?.streams.get(&resource)?.record.clone()))
    }

    async fn list(&self, after: Option<&FullJid>, limit: usize) -> Result<Vec<StreamRecord>, StorageError> {
        let after = after.map(place);
        self.read(|state| {
            let of_user = |(user, of): (&Name, &super::User)| {
                let rows = of.streams.iter();
                rows.map(|(resource, row)| ((user.clone(), resource.clone()), row.clone()))
                    .collect::<Vec<_>>()
            };
            let rows = state.users.iter().flat_map(of_user);
            let rows = rows.filter(|(place, _)| after.as_ref().is_none_or(|after| place > after));
            rows.take(limit.min(MAX_CHANGES)).map(|(_, row)| row.record).collect()
        })
    }

    async fn secret(&self, candidate: [u8; 32]) -> Result<[u8; 32], StorageError> {
        self.write(|state| *state.stream_secret.get_or_insert(candidate))
    }
}
