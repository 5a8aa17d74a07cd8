//! What each command does to the rows. Reads no clock and draws no random number: replicas that apply
//! the same commands to the same rows end with the same rows.

mod deletion;
mod profile;

use std::collections::BTreeMap;
use std::ops::Bound;

use althing_cluster::wire;
use althing_proto::jid::BareJid;
use althing_proto::roster::RosterItem;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sled::{IVec, Tree};

use super::super::roster_rules::{HISTORY, RosterHead};
use super::super::{Account, Changed, RowBound};
use super::backup::RestoreRefusal;
use super::command::{ChangeRoster, Command, CreateAccount, PutPrivate, SetCredentials, SetDisabled};
use super::fault::Fault;
use super::keys;
use super::reply::Reply;

#[cfg(test)]
pub(super) use deletion::DELETIONS_PER_BATCH;
pub(super) use deletion::finish_deletion;
pub(super) use profile::DocumentRow;

/// Rows that are written together, `None` for those that go.
pub(super) type Batch = BTreeMap<Vec<u8>, Option<IVec>>;

/// Most rows of a batch before the rest of the group goes into another one.
const ROWS_PER_BATCH: usize = 2_048;

/// The rows as the commands of one group see them: the tree, and over it what earlier commands of the
/// group have written.
pub(super) struct View<'a> {
    tree: &'a Tree,
    written: Batch,
    /// A user whose rows were too many for one batch.
    unfinished: Option<BareJid>,
    /// Whether a backup is being restored; `None`: not looked yet.
    restoring: Option<bool>,
}

/// The writes of one command. They join the view together, when the command has gone through.
pub(super) type Writes = Vec<(Vec<u8>, Option<IVec>)>;

impl<'a> View<'a> {
    /// A view without writes.
    pub(super) fn new(tree: &'a Tree) -> Self {
        View { tree, written: Batch::new(), unfinished: None, restoring: None }
    }

    /// Whether nothing is to be written.
    pub(super) fn is_empty(&self) -> bool {
        self.written.is_empty()
    }

    /// Whether the view has to be written before another command is applied: it is large, or a deletion
    /// has to go on after it.
    pub(super) fn is_full(&self) -> bool {
        self.unfinished.is_some() || self.written.len() >= ROWS_PER_BATCH
    }

    /// Adds a row that belongs to no command.
    pub(super) fn put(&mut self, key: &[u8], value: Option<IVec>) {
        self.written.insert(key.to_vec(), value);
    }

    /// Everything written; and the user whose deletion has to go on after it.
    pub(super) fn into_batch(self) -> (Batch, Option<BareJid>) {
        (self.written, self.unfinished)
    }

    /// Applies `command`. On an error the view is as before.
    pub(super) fn apply(&mut self, command: Command) -> Result<Reply, Fault> {
        let is_restore = command.is_restore();
        if !is_restore && self.is_restoring()? {
            return Ok(Reply::NotRestored(RestoreRefusal::Restoring));
        }
        let mut writes = Writes::new();
        let reply = match command {
            Command::CreateAccount(command) => self.create_account(&command, &mut writes)?,
            Command::SetCredentials(command) => self.set_credentials(command, &mut writes)?,
            Command::DeleteAccount(command) => self.delete_account(command, &mut writes)?,
            Command::SetDisabled(command) => self.set_disabled(&command, &mut writes)?,
            Command::ChangeRoster(command) => self.change_roster(command, &mut writes)?,
            Command::ChangePrivacy(command) => self.change_privacy(command, &mut writes)?,
            Command::PutPrivate(command) => self.put_private(command, None, &mut writes)?,
            Command::PutPrivateWithin(command) => {
                self.put_private(command.row, Some(command.bound), &mut writes)?
            }
            Command::PutPart(command) => self.put_part(command, &mut writes)?,
            Command::SealDocument(command) => self.seal_document(command, &mut writes)?,
            Command::NoteLogouts(command) => self.note_logouts(command, &mut writes)?,
            Command::DeletePrivate(command) => {
                let key = keys::private(&command.user, &command.namespace, &command.key);
                let found = self.get(&key)?.is_some();
                if found {
                    writes.push((key, None));
                }
                Reply::Done(found)
            }
            command @ (Command::BeginRestore(_) | Command::RestoreRows(_) | Command::FinishRestore(_)) => {
                self.restore(command, &mut writes)?
            }
            command @ (Command::KeepMessage(_)
            | Command::RetractMessage(_)
            | Command::DrainInbox(_)
            | Command::ReleaseMessages(_)
            | Command::SettleMessages(_)
            | Command::ArrivedMessages(_)
            | Command::OfflineMessage(_)
            | Command::PurgeInbox(_)
            | Command::NoteDevice(_)
            | Command::SetArchivePreferences(_)
            | Command::SweepMessages(_)
            | Command::KeepOfStream(_)
            | Command::ChangeStreams(_)
            | Command::MakeStreamSecret(_)) => self.apply_to_messages(command, &mut writes)?,
        };
        self.written.extend(writes);
        if is_restore {
            self.restoring = None;
        }
        Ok(reply)
    }

    fn is_restoring(&mut self) -> Result<bool, Fault> {
        if let Some(known) = self.restoring {
            return Ok(known);
        }
        let found = self.get(keys::RESTORING)?.is_some();
        self.restoring = Some(found);
        Ok(found)
    }

    fn put_private(
        &self,
        row: PutPrivate,
        bound: Option<RowBound>,
        writes: &mut Writes,
    ) -> Result<Reply, Fault> {
        if !self.has_account(&row.user)? {
            return Ok(Reply::UnknownUser(row.user));
        }
        let key = keys::private(&row.user, &row.namespace, &row.key);
        if let Some(bound) = bound {
            let prefix = keys::private_in(&row.user, &row.namespace);
            let old = self.get(&key)?.map(|value| row.key.len() + value.len());
            let size = row.key.len() + row.value.len();
            if let Err(full) = bound.admits(self.fill(&prefix)?, old, size) {
                return Ok(Reply::of(&full).unwrap_or(Reply::Done(false)));
            }
        }
        writes.push((key, Some(row.value.into())));
        Ok(Reply::Done(true))
    }

    /// How many rows begin with `prefix`, and how many bytes the rest of their keys and their values have.
    fn fill(&self, prefix: &[u8]) -> Result<(u64, u64), Fault> {
        let size = |key: &[u8], value: &[u8]| (key.len() - prefix.len() + value.len()) as u64;
        let (mut rows, mut bytes) = (0, 0);
        let written = self.written.range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded));
        for (key, value) in written.take_while(|(key, _)| key.starts_with(prefix)) {
            if let Some(value) = value {
                rows += 1;
                bytes += size(key, value);
            }
        }
        for entry in self.tree.scan_prefix(prefix) {
            let (key, value) = entry?;
            if !self.written.contains_key(key.as_ref()) {
                rows += 1;
                bytes += size(&key, &value);
            }
        }
        Ok((rows, bytes))
    }

    fn create_account(&self, command: &CreateAccount, writes: &mut Writes) -> Result<Reply, Fault> {
        let vacant = !self.has_account(&command.user)?;
        if vacant {
            put(writes, keys::account(&command.user), &command.account)?;
        }
        Ok(Reply::Done(vacant))
    }

    fn set_credentials(&self, command: SetCredentials, writes: &mut Writes) -> Result<Reply, Fault> {
        let key = keys::account(&command.user);
        let Some(account) = self.read::<Account>(&key)? else { return Ok(Reply::Done(false)) };
        put(writes, key, &Account { credentials: command.credentials, ..account })?;
        Ok(Reply::Done(true))
    }

    fn set_disabled(&self, command: &SetDisabled, writes: &mut Writes) -> Result<Reply, Fault> {
        if !self.has_account(&command.user)? {
            return Ok(Reply::Done(false));
        }
        let key = keys::disabled(&command.user);
        match &command.since {
            Some(since) => put(writes, key, since)?,
            None if self.get(&key)?.is_some() => writes.push((key, None)),
            None => {}
        }
        Ok(Reply::Done(true))
    }

    fn change_roster(&self, command: ChangeRoster, writes: &mut Writes) -> Result<Reply, Fault> {
        let ChangeRoster { owner, contact, change, limits } = command;
        let Some(head) = self.roster_head(&owner)? else { return Ok(Reply::UnknownUser(owner)) };
        let before: Option<RosterItem> = self.read(&keys::roster_item(&owner, &contact))?;
        let (new_head, outcome) = match head.change(before.clone(), &contact, change, limits) {
            Ok(changed) => changed,
            Err(error) => return Ok(Reply::Roster(Err(error))),
        };
        let (old, new) = ((head, before.as_ref()), (new_head, outcome.item.as_ref()));
        self.put_item(&owner, &contact, old, new, writes)?;
        Ok(Reply::Roster(Ok(Box::new(Changed { version: new_head.version, outcome }))))
    }

    /// The head of a roster; `None`: there is no such account.
    fn roster_head(&self, owner: &BareJid) -> Result<Option<RosterHead>, Fault> {
        let Some(account) = self.read::<Account>(&keys::account(owner))? else { return Ok(None) };
        let head = self.read(&keys::roster(owner))?;
        Ok(Some(head.unwrap_or_else(|| RosterHead::of_new(account.created))))
    }

    /// Puts an item in the place of another one, and notes each version between as a change of that contact.
    fn put_item(
        &self,
        owner: &BareJid,
        contact: &BareJid,
        (old_head, old): (RosterHead, Option<&RosterItem>),
        (head, item): (RosterHead, Option<&RosterItem>),
        writes: &mut Writes,
    ) -> Result<(), Fault> {
        if head != old_head {
            put(writes, keys::roster(owner), &head)?;
        }
        for version in old_head.version + 1..=head.version {
            put(writes, keys::roster_change(owner, version), contact)?;
            let forgotten = keys::roster_change(owner, version.saturating_sub(HISTORY));
            if self.get(&forgotten)?.is_some() {
                writes.push((forgotten, None));
            }
        }
        let key = keys::roster_item(owner, contact);
        match item {
            Some(item) if old != Some(item) => put(writes, key, item)?,
            Some(_) => {}
            None if old.is_some() => writes.push((key, None)),
            None => {}
        }
        Ok(())
    }

    pub(super) fn has_account(&self, user: &BareJid) -> Result<bool, Fault> {
        Ok(self.get(&keys::account(user))?.is_some())
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<IVec>, Fault> {
        match self.written.get(key) {
            Some(written) => Ok(written.clone()),
            None => Ok(self.tree.get(key)?),
        }
    }

    fn read<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, Fault> {
        self.get(key)?.map(|value| wire::decode(&value).map_err(|error| Fault::row(key, &error))).transpose()
    }

    /// The next key after `after`, also of a row that the group has deleted.
    pub(super) fn next_key(&self, after: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        let from = (Bound::Excluded(after), Bound::Unbounded);
        let written = self.written.range::<[u8], _>(from).next().map(|(key, _)| key.clone());
        let stored = self.tree.range::<&[u8], _>(from).keys().next().transpose()?;
        Ok(written.into_iter().chain(stored.map(|key| key.to_vec())).min())
    }

    /// Up to `limit` keys that begin with `prefix`.
    pub(super) fn rows(&self, prefix: &[u8], limit: usize) -> Result<Vec<Vec<u8>>, Fault> {
        let written = self.written.range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded));
        let mut rows: Vec<Vec<u8>> = written
            .take_while(|(key, _)| key.starts_with(prefix))
            .filter(|(_, value)| value.is_some())
            .take(limit)
            .map(|(key, _)| key.clone())
            .collect();
        for key in self.tree.scan_prefix(prefix).keys() {
            if rows.len() >= limit {
                break;
            }
            let key = key?;
            if !self.written.contains_key(key.as_ref()) {
                rows.push(key.to_vec());
            }
        }
        Ok(rows)
    }
}

pub(super) fn put<T: Serialize>(writes: &mut Writes, key: Vec<u8>, value: &T) -> Result<(), Fault> {
    let value = wire::encode(value).map_err(|error| Fault::row(&key, &error))?;
    writes.push((key, Some(value.into())));
    Ok(())
}
