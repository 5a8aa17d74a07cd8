//! The rows of privacy lists: how they are read, by the writer and by readers.

use althing_cluster::wire;
use althing_proto::jid::{BareJid, Jid};
use althing_proto::privacy::{Entry, Item, Kinds, Lists, PrivacyError};
use serde::de::DeserializeOwned;
use sled::{IVec, Tree};

use super::super::privacy_rules::{self, PrivacyHead, PrivacyRows, PrivacyWrite};
use super::super::{Judgement, WhichList};
use super::apply::{View, Writes, put};
use super::command::ChangePrivacy;
use super::fault::Fault;
use super::keys;
use super::reply::Reply;
use super::rows::Rows;

/// The rows of one user: as they are, or under what earlier commands of a group have written.
struct Of<'a, S> {
    source: &'a S,
    user: &'a BareJid,
}

/// Where rows are read from.
trait Source {
    fn get(&self, key: &[u8]) -> Result<Option<IVec>, Fault>;

    /// All rows whose keys begin so.
    fn scan(&self, prefix: &[u8]) -> Result<Vec<(Vec<u8>, IVec)>, Fault>;
}

impl Source for Tree {
    fn get(&self, key: &[u8]) -> Result<Option<IVec>, Fault> {
        Ok(self.get(key)?)
    }

    fn scan(&self, prefix: &[u8]) -> Result<Vec<(Vec<u8>, IVec)>, Fault> {
        self.scan_prefix(prefix)
            .map(|row| row.map(|(key, value)| (key.to_vec(), value)).map_err(Fault::from))
            .collect()
    }
}

impl Source for View<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<IVec>, Fault> {
        self.get(key)
    }

    fn scan(&self, prefix: &[u8]) -> Result<Vec<(Vec<u8>, IVec)>, Fault> {
        let mut keys = self.rows(prefix, usize::MAX)?;
        // What the group has written comes before what the tree has.
        keys.sort_unstable();
        let rows = keys.into_iter().map(|key| Ok(self.get(&key)?.map(|value| (key, value))));
        rows.filter_map(Result::transpose).collect()
    }
}

impl<S: Source> PrivacyRows for Of<'_, S> {
    type Error = Fault;

    fn head(&self) -> Result<Option<PrivacyHead>, Fault> {
        let key = keys::privacy(self.user);
        self.source.get(&key)?.map(|value| decode(&key, &value)).transpose()
    }

    fn items(&self, list: u32) -> Result<Vec<Item>, Fault> {
        let key = keys::privacy_items(self.user, list);
        let items = self.source.get(&key)?.map(|value| decode(&key, &value)).transpose()?;
        Ok(items.unwrap_or_default())
    }

    fn has_entry(&self, list: u32, jid: &Jid) -> Result<bool, Fault> {
        Ok(self.source.get(&keys::privacy_entry(self.user, list, jid))?.is_some())
    }

    fn entries(&self, list: u32) -> Result<Vec<Entry>, Fault> {
        let rows = self.source.scan(&keys::privacy_entries(self.user, list))?;
        rows.iter().map(|(key, value)| decode(key, value)).collect()
    }
}

impl View<'_> {
    /// Changes privacy lists.
    pub(super) fn change_privacy(&self, command: ChangePrivacy, writes: &mut Writes) -> Result<Reply, Fault> {
        let ChangePrivacy { owner, change, limits } = command;
        if !self.has_account(&owner)? {
            return Ok(Reply::UnknownUser(owner));
        }
        let rows = Of { source: self, user: &owner };
        let (changed, wanted) = match privacy_rules::change(&rows, change, limits)? {
            Ok(written) => written,
            Err(error) => return Ok(refused(error)),
        };
        for write in wanted {
            match write {
                PrivacyWrite::Head(head) => put(writes, keys::privacy(&owner), &head)?,
                PrivacyWrite::Items(list, items) => {
                    let key = keys::privacy_items(&owner, list);
                    if !items.is_empty() {
                        put(writes, key, &items)?;
                    } else if self.get(&key)?.is_some() {
                        writes.push((key, None));
                    }
                }
                PrivacyWrite::Entry(list, entry) => {
                    put(writes, keys::privacy_entry(&owner, list, &entry.jid), &entry)?;
                }
                PrivacyWrite::NoEntry(list, jid) => {
                    writes.push((keys::privacy_entry(&owner, list, &jid), None));
                }
            }
        }
        Ok(Reply::Privacy(Ok(Box::new(changed))))
    }
}

impl View<'_> {
    /// Whether the default list of `user` lets no message of `peer` in.
    pub(super) fn denies_messages(&self, user: &BareJid, peer: &Jid) -> Result<bool, Fault> {
        let rows = Of { source: self, user };
        // As a rule there is no list: that costs one look.
        if self.get(&keys::privacy(user))?.is_none() {
            return Ok(false);
        }
        let key = keys::roster_item(user, &peer.to_bare());
        let item = self.get(&key)?.map(|value| decode(&key, &value)).transpose()?;
        Ok(privacy_rules::judge(&rows, peer, item)?.denied.meets(Kinds::MESSAGE))
    }
}

fn refused(error: PrivacyError) -> Reply {
    Reply::Privacy(Err(error))
}

impl Rows {
    /// Privacy lists, see [`super::super::Privacy::load`].
    pub(super) fn privacy(&self, user: &BareJid, which: &WhichList) -> Result<Lists, Fault> {
        self.between_batches(|source| privacy_rules::load(&Of { source, user }, which))
    }

    /// What the default list says, see [`super::super::Privacy::judge`].
    pub(super) fn judge(&self, user: &BareJid, peer: &Jid) -> Result<Judgement, Fault> {
        let item = self.roster_item(user, &peer.to_bare())?;
        self.between_batches(|source| privacy_rules::judge(&Of { source, user }, peer, item))
    }
}

fn decode<T: DeserializeOwned>(key: &[u8], value: &[u8]) -> Result<T, Fault> {
    wire::decode(value).map_err(|error| Fault::row(key, &error))
}
