//! What each command does to the rows. Reads no clock and draws no random number: replicas that apply
//! the same commands to the same rows end with the same rows.

mod profile;

use std::collections::BTreeMap;
use std::ops::Bound;

use althing_cluster::wire;
use althing_proto::jid::BareJid;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sled::{IVec, Tree};

use super::super::roster_rules::{HISTORY, RosterHead};
use super::super::{Account, Changed, RowBound};
use super::command::{
    ChangeRoster, Command, CreateAccount, DeleteAccount, PutPrivate, SetCredentials, SetDisabled,
};
use super::fault::Fault;
use super::keys;
use super::messages::take_messages;
use super::reply::Reply;

pub(super) use profile::DocumentRow;

/// Most rows that one batch deletes: a larger one would hold up all readers.
pub(super) const DELETIONS_PER_BATCH: usize = 1_000;

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
}

/// The writes of one command. They join the view together, when the command has gone through.
pub(super) type Writes = Vec<(Vec<u8>, Option<IVec>)>;

impl<'a> View<'a> {
    /// A view without writes.
    pub(super) fn new(tree: &'a Tree) -> Self {
        View { tree, written: Batch::new(), unfinished: None }
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
            command @ (Command::KeepMessage(_)
            | Command::RetractMessage(_)
            | Command::DrainInbox(_)
            | Command::ReleaseMessages(_)
            | Command::SettleMessages(_)
            | Command::PurgeInbox(_)
            | Command::NoteDevice(_)
            | Command::SetArchivePreferences(_)
            | Command::SweepMessages(_)) => self.apply_to_messages(command, &mut writes)?,
        };
        self.written.extend(writes);
        Ok(reply)
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

    /// Deletes in one batch what fits into one. What does not is marked in the same batch and deleted
    /// by further batches ([`finish_deletion`]), also after a crash between them.
    fn delete_account(&mut self, command: DeleteAccount, writes: &mut Writes) -> Result<Reply, Fault> {
        let user = command.user;
        if !self.has_account(&user)? {
            return Ok(Reply::Done(false));
        }
        // Few rows, however much the user keeps; those of the directory are not below the user.
        let words = self.words_of(&user)?;
        let small = self.rows(&keys::documents_of(&user), usize::MAX)?;
        let mut gone = vec![keys::account(&user)];
        for key in [
            keys::logout(&user),
            keys::disabled(&user),
            keys::mailbox(&user),
            keys::archive_preferences(&user),
        ] {
            if self.get(&key)?.is_some() {
                gone.push(key);
            }
        }
        let gone = gone.into_iter().chain(words).chain(small);
        writes.extend(gone.map(|key| (key, None)));
        let (rows, more) = self.next_deletions(&user)?;
        writes.extend(rows);
        if more {
            writes.push((keys::deletion(&user), Some(IVec::default())));
            self.unfinished = Some(user);
        }
        Ok(Reply::Done(true))
    }

    fn change_roster(&self, command: ChangeRoster, writes: &mut Writes) -> Result<Reply, Fault> {
        let ChangeRoster { owner, contact, change, limits } = command;
        let Some(account) = self.read::<Account>(&keys::account(&owner))? else {
            return Ok(Reply::UnknownUser(owner));
        };
        let head_key = keys::roster(&owner);
        let item_key = keys::roster_item(&owner, &contact);
        let head: RosterHead = self.read(&head_key)?.unwrap_or_else(|| RosterHead::of_new(account.created));
        let before = self.read(&item_key)?;
        let (new_head, outcome) = match head.change(before.clone(), &contact, change, limits) {
            Ok(changed) => changed,
            Err(error) => return Ok(Reply::Roster(Err(error))),
        };
        if new_head != head {
            put(writes, head_key, &new_head)?;
        }
        if outcome.push {
            put(writes, keys::roster_change(&owner, new_head.version), &contact)?;
            let old = keys::roster_change(&owner, new_head.version.saturating_sub(HISTORY));
            if self.get(&old)?.is_some() {
                writes.push((old, None));
            }
        }
        match &outcome.item {
            Some(item) if before.as_ref() != Some(item) => put(writes, item_key, item)?,
            Some(_) => {}
            None if before.is_some() => writes.push((item_key, None)),
            None => {}
        }
        Ok(Reply::Roster(Ok(Box::new(Changed { version: new_head.version, outcome }))))
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

    /// Rows that go with an account, as many as one batch deletes; whether more are left.
    fn next_deletions(&self, user: &BareJid) -> Result<(Writes, bool), Fault> {
        // One more than may go, to know whether any is left.
        let rows = self.belongings(user, DELETIONS_PER_BATCH + 1)?;
        if rows.len() > DELETIONS_PER_BATCH {
            return Ok((rows.into_iter().take(DELETIONS_PER_BATCH).map(|key| (key, None)).collect(), true));
        }
        let (mut writes, more) = take_messages(self, user)?;
        writes.extend(rows.into_iter().map(|key| (key, None)));
        Ok((writes, more))
    }

    /// Up to `limit` keys of rows that go with an account.
    fn belongings(&self, user: &BareJid, limit: usize) -> Result<Vec<Vec<u8>>, Fault> {
        let mut rows = Vec::new();
        for prefix in keys::belongings(user) {
            rows.extend(self.rows(&prefix, limit - rows.len())?);
        }
        Ok(rows)
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

/// The next batch of an unfinished deletion; `true`: it is the last one, and takes the mark away.
pub(super) fn finish_deletion(tree: &Tree, user: &BareJid) -> Result<(Batch, bool), Fault> {
    let view = View::new(tree);
    let (writes, more) = view.next_deletions(user)?;
    let mut batch: Batch = writes.into_iter().collect();
    if !more {
        batch.insert(keys::deletion(user), None);
    }
    Ok((batch, !more))
}
