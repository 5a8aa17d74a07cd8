//! The rows as one command sees them: its own writes over those of the group over the tree. Its writes join the
//! group's when it has gone through.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};

use althing_cluster::wire;
use althing_proto::jid::{BareJid, Jid};
use althing_proto::stanza_id::StanzaId;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sled::IVec;

use super::super::super::messages::rules::{ArchiveRow, InboxRow, MailboxHead};
use super::super::apply::{Batch, View, Writes};
use super::super::fault::Fault;
use super::super::keys;
use super::body::BodyHead;

/// See the file.
pub(in super::super) struct Scope<'a, 'v> {
    view: &'a View<'v>,
    written: Batch,
    /// As read and as they are now; `None`: there is no such account.
    heads: BTreeMap<BareJid, Option<(Option<MailboxHead>, MailboxHead)>>,
}

impl<'a, 'v> Scope<'a, 'v> {
    /// The scope of one command.
    pub(super) fn new(view: &'a View<'v>) -> Self {
        Scope { view, written: Batch::new(), heads: BTreeMap::new() }
    }

    /// What the command writes.
    pub(super) fn into_writes(mut self) -> Result<Writes, Fault> {
        for (user, head) in std::mem::take(&mut self.heads) {
            if let Some((before, now)) = head
                && before.as_ref() != Some(&now)
            {
                self.put(keys::mailbox(&user), &now)?;
            }
        }
        Ok(self.written.into_iter().collect())
    }

    pub(in super::super) fn get(&self, key: &[u8]) -> Result<Option<IVec>, Fault> {
        match self.written.get(key) {
            Some(written) => Ok(written.clone()),
            None => self.view.get(key),
        }
    }

    pub(in super::super) fn read<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, Fault> {
        self.get(key)?.map(|value| decode(key, &value)).transpose()
    }

    pub(in super::super) fn put<T: Serialize>(&mut self, key: Vec<u8>, value: &T) -> Result<(), Fault> {
        let value = wire::encode(value).map_err(|error| Fault::row(&key, &error))?;
        self.put_raw(key, value.into());
        Ok(())
    }

    pub(in super::super) fn put_raw(&mut self, key: Vec<u8>, value: IVec) {
        self.written.insert(key, Some(value));
    }

    pub(in super::super) fn remove(&mut self, key: Vec<u8>) {
        self.written.insert(key, None);
    }

    /// The next row after `after` whose key begins with `prefix`.
    pub(super) fn next(&self, prefix: &[u8], after: &[u8]) -> Result<Option<(Vec<u8>, IVec)>, Fault> {
        let mut after = after.to_vec();
        loop {
            let from = (Excluded(after.as_slice()), Unbounded);
            let own = self.written.range::<[u8], _>(from).next().map(|(key, _)| key.clone());
            let found = [own, self.view.next_key(&after)?].into_iter().flatten().min();
            let Some(key) = found.filter(|key| key.starts_with(prefix)) else { return Ok(None) };
            if let Some(value) = self.get(&key)? {
                return Ok(Some((key, value)));
            }
            after = key;
        }
    }

    /// Whether there is such an account.
    pub(in super::super) fn has_account(&self, user: &BareJid) -> Result<bool, Fault> {
        self.view.has_account(user)
    }

    /// The figures of `user`; `None` without an account.
    pub(super) fn head(&mut self, user: &BareJid) -> Result<Option<&mut MailboxHead>, Fault> {
        if !self.heads.contains_key(user) {
            let before: Option<MailboxHead> = self.read(&keys::mailbox(user))?;
            // The figures go with the account: where they are, it is.
            let head = match before {
                Some(head) => Some((Some(head.clone()), head)),
                None => self.view.has_account(user)?.then(|| (None, MailboxHead::default())),
            };
            self.heads.insert(user.clone(), head);
        }
        Ok(self.heads.get_mut(user).and_then(Option::as_mut).map(|(_, now)| now))
    }

    /// Whether the default list of `user` lets no message of `peer` in.
    pub(super) fn denies_messages(&self, user: &BareJid, peer: &Jid) -> Result<bool, Fault> {
        self.view.denies_messages(user, peer)
    }

    /// The figures of `user` are not to be kept: they have gone with the account.
    pub(super) fn forget_head(&mut self, user: &BareJid) {
        self.heads.insert(user.clone(), None);
    }

    /// Under which number `user` has the message, or had it.
    pub(super) fn seq(&self, user: &BareJid, id: StanzaId) -> Result<Option<u64>, Fault> {
        let key = keys::message(id);
        let Some(row) = self.get(&key)? else { return Ok(None) };
        Ok(BodyHead::split(&key, &row)?.0.seq(user))
    }

    /// The waiting message `id` of `user`, with its number.
    pub(super) fn waiting(&self, user: &BareJid, id: StanzaId) -> Result<Option<(u64, InboxRow)>, Fault> {
        let Some(seq) = self.seq(user, id)? else { return Ok(None) };
        let row: Option<InboxRow> = self.read(&keys::inbox_row(user, seq))?;
        Ok(row.filter(|row| row.id == id).map(|row| (seq, row)))
    }

    /// Takes a waiting message away.
    pub(super) fn take_waiting(&mut self, user: &BareJid, seq: u64, row: &InboxRow) -> Result<(), Fault> {
        self.remove(keys::inbox_row(user, seq));
        if let Some(head) = self.head(user)? {
            head.arrive(row.size);
        }
        self.let_go(user, seq, row.id)
    }

    /// Takes an archived message away.
    pub(super) fn take_archived(&mut self, user: &BareJid, seq: u64, row: &ArchiveRow) -> Result<(), Fault> {
        self.remove(keys::archive_row(user, seq));
        self.remove(keys::archive_with_row(user, &row.with, seq));
        if let Some(name) = row.name {
            self.remove(keys::archive_name_row(user, name, seq));
        }
        if let Some(head) = self.head(user)? {
            head.unarchive(row.size);
        }
        self.let_go(user, seq, row.id)
    }

    /// Lets go of the text, if `user` has the message neither in the archive nor in the inbox any more. It goes with
    /// its last owner.
    fn let_go(&mut self, user: &BareJid, seq: u64, id: StanzaId) -> Result<(), Fault> {
        if self.get(&keys::archive_row(user, seq))?.is_some()
            || self.get(&keys::inbox_row(user, seq))?.is_some()
        {
            return Ok(());
        }
        let key = keys::message(id);
        let Some(row) = self.get(&key)? else { return Ok(()) };
        let (body, _) = BodyHead::split(&key, &row)?;
        let Some(bit) = body.bit(user, seq) else { return Ok(()) };
        let released = keys::released(id);
        let before: Option<u64> = self.read(&released)?;
        let now = before.unwrap_or(0) | bit;
        if now != body.all() {
            return self.put(released, &now);
        }
        if before.is_some() {
            self.remove(released);
        }
        self.remove(key);
        Ok(())
    }
}

pub(in super::super) fn decode<T: DeserializeOwned>(key: &[u8], value: &[u8]) -> Result<T, Fault> {
    wire::decode(value).map_err(|error| Fault::row(key, &error))
}
