//! The storage traits over the store group.

use althing_cluster::store_log::RowReader;
use althing_proto::jid::{BareJid, Jid};
use althing_proto::privacy::{Lists, PrivacyChange, PrivacyChanged, PrivacyError};
use althing_proto::roster::{RosterChange, RosterError, RosterItem};
use althing_proto::sasl::Credentials;
use althing_proto::time::Timestamp;
use async_trait::async_trait;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::backup::{Backups, RestoreStep};
use super::super::embedded::command::{
    ChangePrivacy, ChangeRoster, Command, CreateAccount, DeleteAccount, DeletePrivate, PutPrivate,
    PutPrivateWithin, SetCredentials, SetDisabled,
};
use super::super::embedded::query::{
    Answer, GetAccount, GetPrivate, GetRosterItem, GetRosterNews, GetStanding, JudgePeer, ListAccounts,
    ListDisabled, ListPrivate, LoadPrivacy, LoadRoster, Page, Query,
};
use super::super::embedded::reply::Reply;
use super::super::embedded::{Commanded, backup};
use super::super::{
    Account, Accounts, Changed, Engine, Judgement, Privacy, PrivacyLimits, PrivateData, Roster, RosterLimits,
    RosterNews, Rosters, RowBound, Standing, StorageError, WhichList,
};
use super::Replicated;

/// What a read of one kind is answered by; an answer of another kind is a replica's mistake.
macro_rules! answered {
    ($kind:ident, $answer:expr) => {
        match $answer {
            Answer::$kind(found) => Ok(found),
            other => Err(StorageError::Unavailable {
                why: format!("a replica answered by {} where {} was asked", other.name(), stringify!($kind)),
            }),
        }
    };
}

mod profile;

/// Puts `page` behind the rows found; whether more are to be asked for. An empty page ends a list whatever it
/// says.
fn add_page<T>(found: &mut Vec<T>, page: Page<T>, limit: usize) -> bool {
    let more = page.more && !page.rows.is_empty();
    found.extend(page.rows);
    more && found.len() < limit
}

fn left<T>(found: &[T], limit: usize) -> u64 {
    u64::try_from(limit.saturating_sub(found.len())).unwrap_or(u64::MAX)
}

#[async_trait]
impl Accounts for Replicated {
    async fn get(&self, user: &BareJid) -> Result<Option<Account>, StorageError> {
        answered!(Account, self.read(Query::GetAccount(GetAccount { user: user.clone() })).await?)
    }

    async fn create(&self, user: &BareJid, account: Account) -> Result<bool, StorageError> {
        self.write(Command::CreateAccount(CreateAccount { user: user.clone(), account })).await?.done()
    }

    async fn set_credentials(&self, user: &BareJid, credentials: Credentials) -> Result<bool, StorageError> {
        let command = SetCredentials { user: user.clone(), credentials };
        self.write(Command::SetCredentials(command)).await?.done()
    }

    async fn delete(&self, user: &BareJid) -> Result<bool, StorageError> {
        self.write(Command::DeleteAccount(DeleteAccount { user: user.clone() })).await?.done()
    }

    async fn standing(&self, user: &BareJid) -> Result<Option<Standing>, StorageError> {
        answered!(Standing, self.read(Query::GetStanding(GetStanding { user: user.clone() })).await?)
    }

    async fn set_disabled(&self, user: &BareJid, since: Option<Timestamp>) -> Result<bool, StorageError> {
        self.write(Command::SetDisabled(SetDisabled { user: user.clone(), since })).await?.done()
    }

    async fn list_disabled(
        &self,
        domain: &str,
        after: Option<&BareJid>,
        limit: usize,
    ) -> Result<Vec<BareJid>, StorageError> {
        let mut users: Vec<BareJid> = Vec::new();
        loop {
            let after = users.last().or(after).cloned();
            let list = ListAccounts { domain: domain.to_owned(), after, limit: left(&users, limit) };
            let page = answered!(Disabled, self.read(Query::ListDisabled(ListDisabled { list })).await?)?;
            if !add_page(&mut users, page, limit) {
                return Ok(users);
            }
        }
    }

    async fn list(
        &self,
        domain: &str,
        after: Option<&BareJid>,
        limit: usize,
    ) -> Result<Vec<BareJid>, StorageError> {
        let mut users: Vec<BareJid> = Vec::new();
        loop {
            let after = users.last().or(after).cloned();
            let query = ListAccounts { domain: domain.to_owned(), after, limit: left(&users, limit) };
            let page = answered!(Users, self.read(Query::ListAccounts(query)).await?)?;
            if !add_page(&mut users, page, limit) {
                return Ok(users);
            }
        }
    }
}

#[async_trait]
impl Rosters for Replicated {
    async fn load(&self, owner: &BareJid) -> Result<Roster, StorageError> {
        answered!(Roster, self.read(Query::LoadRoster(LoadRoster { owner: owner.clone() })).await?)
    }

    async fn change(
        &self,
        owner: &BareJid,
        contact: &BareJid,
        change: RosterChange,
        limits: RosterLimits,
    ) -> Result<Result<Changed, RosterError>, StorageError> {
        let command = ChangeRoster { owner: owner.clone(), contact: contact.clone(), change, limits };
        self.write(Command::ChangeRoster(command)).await?.roster()
    }

    async fn since(&self, owner: &BareJid, version: u64, most: u32) -> Result<RosterNews, StorageError> {
        let query = GetRosterNews { owner: owner.clone(), version, most };
        answered!(RosterNews, self.read(Query::GetRosterNews(query)).await?)
    }

    async fn item(&self, owner: &BareJid, contact: &BareJid) -> Result<Option<RosterItem>, StorageError> {
        let query = GetRosterItem { owner: owner.clone(), contact: contact.clone() };
        answered!(RosterItem, self.read(Query::GetRosterItem(query)).await?)
    }
}

#[async_trait]
impl Privacy for Replicated {
    async fn load(&self, owner: &BareJid, which: WhichList) -> Result<Lists, StorageError> {
        let query = LoadPrivacy { owner: owner.clone(), which };
        answered!(Privacy, self.read(Query::LoadPrivacy(query)).await?)
    }

    async fn judge(&self, owner: &BareJid, peer: &Jid) -> Result<Judgement, StorageError> {
        let query = JudgePeer { owner: owner.clone(), peer: peer.clone() };
        answered!(Judgement, self.read(Query::JudgePeer(query)).await?)
    }

    async fn change(
        &self,
        owner: &BareJid,
        change: PrivacyChange,
        limits: PrivacyLimits,
    ) -> Result<Result<PrivacyChanged, PrivacyError>, StorageError> {
        let command = ChangePrivacy { owner: owner.clone(), change, limits };
        self.write(Command::ChangePrivacy(command)).await?.privacy()
    }
}

#[async_trait]
impl PrivateData for Replicated {
    async fn get(&self, user: &BareJid, namespace: &str, key: &str) -> Result<Option<Vec<u8>>, StorageError> {
        let query = GetPrivate { user: user.clone(), namespace: namespace.to_owned(), key: key.to_owned() };
        answered!(PrivateRow, self.read(Query::GetPrivate(query)).await?)
    }

    async fn put(
        &self,
        user: &BareJid,
        namespace: &str,
        key: &str,
        value: Vec<u8>,
    ) -> Result<(), StorageError> {
        let (namespace, key) = (namespace.to_owned(), key.to_owned());
        let command = PutPrivate { user: user.clone(), namespace, key, value };
        self.write(Command::PutPrivate(command)).await?.done().map(|_written| ())
    }

    async fn put_within(
        &self,
        user: &BareJid,
        namespace: &str,
        key: &str,
        value: Vec<u8>,
        bound: RowBound,
    ) -> Result<(), StorageError> {
        let (namespace, key) = (namespace.to_owned(), key.to_owned());
        let row = PutPrivate { user: user.clone(), namespace, key, value };
        let command = Command::PutPrivateWithin(PutPrivateWithin { row, bound });
        self.write(command).await?.done().map(|_written| ())
    }

    async fn delete(&self, user: &BareJid, namespace: &str, key: &str) -> Result<bool, StorageError> {
        let (namespace, key) = (namespace.to_owned(), key.to_owned());
        self.write(Command::DeletePrivate(DeletePrivate { user: user.clone(), namespace, key })).await?.done()
    }

    async fn list(
        &self,
        user: &BareJid,
        namespace: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Vec<u8>)>, StorageError> {
        let mut rows: Vec<(String, Vec<u8>)> = Vec::new();
        loop {
            let after = rows.last().map(|(key, _)| key.as_str()).or(after).map(str::to_owned);
            let (user, namespace, limit_left) = (user.clone(), namespace.to_owned(), left(&rows, limit));
            let query = Query::ListPrivate(ListPrivate { user, namespace, after, limit: limit_left });
            let page = answered!(PrivateRows, self.read(query).await?)?;
            if !add_page(&mut rows, page, limit) {
                return Ok(rows);
            }
        }
    }
}

#[async_trait]
impl Commanded for Replicated {
    async fn command(&self, command: Command) -> Result<Reply, StorageError> {
        self.write(command).await
    }

    async fn ask(&self, query: Query) -> Result<Answer, StorageError> {
        self.read(query).await
    }
}

#[async_trait]
impl Backups for Replicated {
    /// As of the last change that was answered anywhere.
    async fn read_rows(self: Arc<Self>) -> Result<Box<dyn RowReader>, StorageError> {
        self.check_open()?;
        let Some(rows) = self.replica() else {
            let why = "this node has no replica of the store: ask one of those that vote on it, by `althing cluster status`";
            return Err(StorageError::Backup { why: why.to_owned() });
        };
        self.log.barrier().await.map_err(|error| StorageError::Unavailable { why: error.to_string() })?;
        Arc::clone(rows).read_rows().await
    }

    async fn restore(&self, id: u64, step: RestoreStep) -> Result<bool, StorageError> {
        backup::restore(self, id, step).await
    }

    fn is_restoring(&self) -> bool {
        self.replica().is_some_and(|rows| rows.is_restoring())
    }
}

#[async_trait]
impl Engine for Replicated {
    /// What was answered is on the disks of most replicas already.
    async fn flush(&self) -> Result<(), StorageError> {
        self.check_open()
    }

    /// Closes this node's rows too: the store group must have ended before.
    async fn close(&self) -> Result<(), StorageError> {
        self.closed.store(true, Ordering::Release);
        match &self.local {
            Some(local) => local.close().await,
            None => Ok(()),
        }
    }

    fn failure(&self) -> Option<StorageError> {
        self.local.as_ref().and_then(|local| local.failure())
    }

    fn queued(&self) -> usize {
        self.local.as_ref().map_or(0, |local| local.queued())
    }

    async fn size_on_disk(&self) -> Result<u64, StorageError> {
        match &self.local {
            Some(local) => local.size_on_disk().await,
            None => Ok(0),
        }
    }

    async fn room(&self) -> Result<Option<super::super::Room>, StorageError> {
        match &self.local {
            Some(local) => local.room().await,
            None => Ok(None),
        }
    }

    /// Whether the group is, not this node's disk: while that is, others keep what comes.
    fn is_full(&self) -> bool {
        !self.log.has_room()
    }
}
