//! Stores in memory: tests and simulation. Gone with the value.

mod messages;
mod profile;
mod streams;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use althing_cluster::store_log::RowReader;
use althing_proto::jid::{BareJid, Jid};
use althing_proto::privacy::{Entry, Item, Lists, PrivacyChange, PrivacyChanged, PrivacyError};
use althing_proto::roster::{RosterChange, RosterError, RosterItem};
use althing_proto::sasl::Credentials;
use althing_proto::stanza_id::StanzaId;
use althing_proto::time::Timestamp;
use async_trait::async_trait;
use parking_lot::RwLock;

use self::messages::{Body, Mailbox};
use self::profile::Stored;
use self::streams::StreamRows;
use super::backup::{Backups, RestoreStep};
use super::privacy_rules::{self, PrivacyHead, PrivacyRows, PrivacyWrite};
use super::profile::Logout;
use super::roster_rules::{self, HISTORY, RosterHead};
use super::{
    Account, Accounts, Changed, Engine, ItemChange, Judgement, Privacy, PrivacyLimits, PrivateData, Roster,
    RosterLimits, RosterNews, Rosters, RowBound, Standing, StorageError, WhichList, check_privacy, check_row,
};

/// All stores in one map of users.
#[derive(Default)]
pub struct Memory {
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    /// By (domain, local part), the order of [`Accounts::list`].
    users: BTreeMap<Name, User>,
    /// The texts of kept messages.
    bodies: HashMap<StanzaId, Body>,
    stream_secret: Option<[u8; 32]>,
    closed: bool,
}

type Name = (String, String);

struct User {
    jid: BareJid,
    account: Account,
    disabled: Option<Timestamp>,
    head: RosterHead,
    items: BTreeMap<Name, RosterItem>,
    /// The last changes of the roster: version and contact.
    history: VecDeque<(u64, BareJid)>,
    privacy: PrivacyLists,
    /// By (namespace, key).
    private: BTreeMap<(String, String), Vec<u8>>,
    /// By name.
    documents: BTreeMap<String, Stored>,
    logout: Option<Logout>,
    mailbox: Mailbox,
    streams: StreamRows,
}

fn name(jid: &BareJid) -> Name {
    (jid.domain().as_str().to_owned(), jid.node().map_or_else(String::new, |node| node.as_str().to_owned()))
}

impl User {
    fn change(
        &mut self,
        contact: &BareJid,
        change: RosterChange,
        limits: RosterLimits,
    ) -> Result<Changed, RosterError> {
        let before = self.items.get(&name(contact)).cloned();
        let (head, outcome) = self.head.change(before, contact, change, limits)?;
        self.head = head;
        if outcome.push {
            self.history.push_back((head.version, contact.clone()));
            if self.history.len() as u64 > HISTORY {
                self.history.pop_front();
            }
        }
        match &outcome.item {
            Some(item) => self.items.insert(name(contact), item.clone()),
            None => self.items.remove(&name(contact)),
        };
        Ok(Changed { version: head.version, outcome })
    }
}

impl Memory {
    fn read<T>(&self, read: impl FnOnce(&State) -> T) -> Result<T, StorageError> {
        let state = self.state.read();
        if state.closed { Err(StorageError::Closed) } else { Ok(read(&state)) }
    }

    fn write<T>(&self, write: impl FnOnce(&mut State) -> T) -> Result<T, StorageError> {
        let mut state = self.state.write();
        if state.closed { Err(StorageError::Closed) } else { Ok(write(&mut state)) }
    }

    fn list_those(
        &self,
        domain: &str,
        after: Option<&BareJid>,
        limit: usize,
        wanted: impl Fn(&User) -> bool,
    ) -> Result<Vec<BareJid>, StorageError> {
        let start = match after {
            Some(after) if after.domain().as_str() == domain => Bound::Excluded(name(after)),
            _ => Bound::Included((domain.to_owned(), String::new())),
        };
        self.read(|state| {
            let users = state.users.range((start, Bound::Unbounded));
            users
                .take_while(|((of, _), _)| of == domain)
                .filter(|(_, user)| wanted(user))
                .take(limit)
                .map(|(_, user)| user.jid.clone())
                .collect()
        })
    }

    fn write_user<T>(&self, user: &BareJid, write: impl FnOnce(&mut User) -> T) -> Result<T, StorageError> {
        self.write(|state| state.users.get_mut(&name(user)).map(write))?
            .ok_or_else(|| StorageError::UnknownUser { user: user.clone() })
    }
}

#[async_trait]
impl Accounts for Memory {
    async fn get(&self, user: &BareJid) -> Result<Option<Account>, StorageError> {
        self.read(|state| state.users.get(&name(user)).map(|user| user.account.clone()))
    }

    async fn create(&self, user: &BareJid, account: Account) -> Result<bool, StorageError> {
        let new = User {
            jid: user.clone(),
            head: RosterHead::of_new(account.created),
            account,
            disabled: None,
            items: BTreeMap::new(),
            history: VecDeque::new(),
            privacy: PrivacyLists::default(),
            private: BTreeMap::new(),
            documents: BTreeMap::new(),
            logout: None,
            mailbox: Mailbox::default(),
            streams: StreamRows::default(),
        };
        self.write(|state| {
            let vacant = !state.users.contains_key(&name(user));
            if vacant {
                state.users.insert(name(user), new);
            }
            vacant
        })
    }

    async fn set_credentials(&self, user: &BareJid, credentials: Credentials) -> Result<bool, StorageError> {
        match self.write_user(user, |user| user.account.credentials = credentials) {
            Err(StorageError::UnknownUser { .. }) => Ok(false),
            other => other.map(|()| true),
        }
    }

    async fn delete(&self, user: &BareJid) -> Result<bool, StorageError> {
        self.write(|state| {
            let Some(gone) = state.users.remove(&name(user)) else { return false };
            for item in gone.items.values() {
                let Some(contact) = state.users.get_mut(&name(&item.jid)) else { continue };
                for change in roster_rules::ended_with(item) {
                    // What adds nothing is never refused.
                    let _ = contact.change(user, change, roster_rules::UNBOUNDED);
                }
            }
            state.drop_bodies();
            true
        })
    }

    async fn standing(&self, user: &BareJid) -> Result<Option<Standing>, StorageError> {
        self.read(|state| {
            let user = state.users.get(&name(user))?;
            Some(Standing { account: user.account.clone(), disabled: user.disabled })
        })
    }

    async fn set_disabled(&self, user: &BareJid, since: Option<Timestamp>) -> Result<bool, StorageError> {
        match self.write_user(user, |user| user.disabled = since) {
            Err(StorageError::UnknownUser { .. }) => Ok(false),
            other => other.map(|()| true),
        }
    }

    async fn list_disabled(
        &self,
        domain: &str,
        after: Option<&BareJid>,
        limit: usize,
    ) -> Result<Vec<BareJid>, StorageError> {
        self.list_those(domain, after, limit, |user| user.disabled.is_some())
    }

    async fn list(
        &self,
        domain: &str,
        after: Option<&BareJid>,
        limit: usize,
    ) -> Result<Vec<BareJid>, StorageError> {
        self.list_those(domain, after, limit, |_| true)
    }
}

#[async_trait]
impl Rosters for Memory {
    async fn load(&self, owner: &BareJid) -> Result<Roster, StorageError> {
        self.read(|state| {
            state.users.get(&name(owner)).map_or_else(Roster::default, |user| Roster {
                version: user.head.version,
                items: user.items.values().cloned().collect(),
            })
        })
    }

    async fn change(
        &self,
        owner: &BareJid,
        contact: &BareJid,
        change: RosterChange,
        limits: RosterLimits,
    ) -> Result<Result<Changed, RosterError>, StorageError> {
        self.write_user(owner, |user| user.change(contact, change, limits))
    }

    async fn since(&self, owner: &BareJid, version: u64, most: u32) -> Result<RosterNews, StorageError> {
        let news = self.read(|state| {
            let user = state.users.get(&name(owner))?;
            let noted = user.history.iter().filter(|(number, _)| *number > version).cloned().collect();
            let missed = user
                .head
                .remembers(version)
                .then(|| roster_rules::missed(user.head, version, noted, most))??;
            let changes = missed.into_iter().map(|(version, contact)| {
                let item = user.items.get(&name(&contact)).cloned();
                ItemChange::new(version, contact, item)
            });
            Some(RosterNews::Changes { version: user.head.version, changes: changes.collect() })
        })?;
        match news {
            Some(news) => Ok(news),
            None => Ok(RosterNews::Whole(Rosters::load(self, owner).await?)),
        }
    }

    async fn item(&self, owner: &BareJid, contact: &BareJid) -> Result<Option<RosterItem>, StorageError> {
        self.read(|state| state.users.get(&name(owner))?.items.get(&name(contact)).cloned())
    }
}

/// The privacy lists of one user.
#[derive(Default)]
struct PrivacyLists {
    head: Option<PrivacyHead>,
    items: BTreeMap<u32, Vec<Item>>,
    /// By (list, address).
    entries: BTreeMap<(u32, String), Entry>,
}

impl PrivacyRows for PrivacyLists {
    type Error = StorageError;

    fn head(&self) -> Result<Option<PrivacyHead>, StorageError> {
        Ok(self.head.clone())
    }

    fn items(&self, list: u32) -> Result<Vec<Item>, StorageError> {
        Ok(self.items.get(&list).cloned().unwrap_or_default())
    }

    fn has_entry(&self, list: u32, jid: &Jid) -> Result<bool, StorageError> {
        Ok(self.entries.contains_key(&(list, jid.to_string())))
    }

    fn entries(&self, list: u32) -> Result<Vec<Entry>, StorageError> {
        let rows = self.entries.range((list, String::new())..);
        Ok(rows.take_while(|((of, _), _)| *of == list).map(|(_, entry)| entry.clone()).collect())
    }
}

impl PrivacyLists {
    fn write(&mut self, write: PrivacyWrite) {
        match write {
            PrivacyWrite::Head(head) => self.head = Some(head),
            PrivacyWrite::Items(list, items) if items.is_empty() => drop(self.items.remove(&list)),
            PrivacyWrite::Items(list, items) => drop(self.items.insert(list, items)),
            PrivacyWrite::Entry(list, entry) => {
                self.entries.insert((list, entry.jid.to_string()), entry);
            }
            PrivacyWrite::NoEntry(list, jid) => drop(self.entries.remove(&(list, jid.to_string()))),
        }
    }
}

#[async_trait]
impl Privacy for Memory {
    async fn load(&self, owner: &BareJid, which: WhichList) -> Result<Lists, StorageError> {
        self.read(|state| match state.users.get(&name(owner)) {
            Some(user) => privacy_rules::load(&user.privacy, &which),
            None => Ok(Lists::default()),
        })?
    }

    async fn judge(&self, owner: &BareJid, peer: &Jid) -> Result<Judgement, StorageError> {
        self.read(|state| {
            let none = PrivacyLists::default();
            let user = state.users.get(&name(owner));
            let item = user.and_then(|user| user.items.get(&name(&peer.to_bare())).cloned());
            privacy_rules::judge(user.map_or(&none, |user| &user.privacy), peer, item)
        })?
    }

    async fn change(
        &self,
        owner: &BareJid,
        change: PrivacyChange,
        limits: PrivacyLimits,
    ) -> Result<Result<PrivacyChanged, PrivacyError>, StorageError> {
        check_privacy(&change)?;
        self.write_user(owner, |user| {
            Ok(match privacy_rules::change(&user.privacy, change, limits)? {
                Ok((changed, writes)) => {
                    writes.into_iter().for_each(|write| user.privacy.write(write));
                    Ok(changed)
                }
                Err(error) => Err(error),
            })
        })?
    }
}

#[async_trait]
impl PrivateData for Memory {
    async fn get(&self, user: &BareJid, namespace: &str, key: &str) -> Result<Option<Vec<u8>>, StorageError> {
        let row = (namespace.to_owned(), key.to_owned());
        self.read(|state| state.users.get(&name(user))?.private.get(&row).cloned())
    }

    async fn put(
        &self,
        user: &BareJid,
        namespace: &str,
        key: &str,
        value: Vec<u8>,
    ) -> Result<(), StorageError> {
        check_row(namespace, key, &value)?;
        let row = (namespace.to_owned(), key.to_owned());
        self.write_user(user, |user| user.private.insert(row, value)).map(|_older| ())
    }

    async fn put_within(
        &self,
        user: &BareJid,
        namespace: &str,
        key: &str,
        value: Vec<u8>,
        bound: RowBound,
    ) -> Result<(), StorageError> {
        check_row(namespace, key, &value)?;
        let row = (namespace.to_owned(), key.to_owned());
        self.write_user(user, |user| {
            let size = |key: &str, value: &[u8]| key.len() + value.len();
            let rows = user.private.iter().filter(|((of, _), _)| of == namespace);
            let sizes = rows.map(|((_, key), value)| size(key, value) as u64);
            let there = sizes.fold((0, 0), |(rows, bytes), size| (rows + 1, bytes + size));
            let old = user.private.get(&row).map(|value| size(key, value));
            bound.admits(there, old, size(key, &value))?;
            user.private.insert(row, value);
            Ok(())
        })?
    }

    async fn delete(&self, user: &BareJid, namespace: &str, key: &str) -> Result<bool, StorageError> {
        let row = (namespace.to_owned(), key.to_owned());
        self.write(|state| {
            state.users.get_mut(&name(user)).is_some_and(|user| user.private.remove(&row).is_some())
        })
    }

    async fn list(
        &self,
        user: &BareJid,
        namespace: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Vec<u8>)>, StorageError> {
        let start = match after {
            Some(after) => Bound::Excluded((namespace.to_owned(), after.to_owned())),
            None => Bound::Included((namespace.to_owned(), String::new())),
        };
        self.read(|state| {
            let Some(user) = state.users.get(&name(user)) else { return Vec::new() };
            let rows = user.private.range((start, Bound::Unbounded));
            rows.take_while(|((of, _), _)| of == namespace)
                .take(limit)
                .map(|((_, key), value)| (key.clone(), value.clone()))
                .collect()
        })
    }
}

#[async_trait]
impl Backups for Memory {
    async fn read_rows(self: Arc<Self>) -> Result<Box<dyn RowReader>, StorageError> {
        Err(nothing_lasts())
    }

    async fn restore(&self, _: u64, _: RestoreStep) -> Result<bool, StorageError> {
        Err(nothing_lasts())
    }

    fn is_restoring(&self) -> bool {
        false
    }
}

fn nothing_lasts() -> StorageError {
    StorageError::Backup {
        why: "storage.backend is \"memory\": nothing of it lasts, and it has no backups".to_owned(),
    }
}

#[async_trait]
impl Engine for Memory {
    async fn flush(&self) -> Result<(), StorageError> {
        self.read(|_| ())
    }

    async fn close(&self) -> Result<(), StorageError> {
        self.state.write().closed = true;
        Ok(())
    }

    fn failure(&self) -> Option<StorageError> {
        None
    }

    fn queued(&self) -> usize {
        0
    }

    async fn size_on_disk(&self) -> Result<u64, StorageError> {
        Ok(0)
    }

    async fn room(&self) -> Result<Option<super::Room>, StorageError> {
        Ok(None)
    }

    fn is_full(&self) -> bool {
        false
    }
}
