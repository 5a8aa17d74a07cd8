//! Stores of a node under test that count what a login costs them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;

use althing_proto::jid::BareJid;
use althing_proto::roster::{RosterChange, RosterError, RosterItem};

use crate::storage::profile::LoginData;
use crate::storage::{Changed, Logins, Roster, RosterLimits, RosterNews, Rosters, Storage, StorageError};

/// Counts reads of rosters: with all that a session begins with, and by themselves.
pub(super) struct Reads {
    logins: Arc<dyn Logins>,
    rosters: Arc<dyn Rosters>,
    of_logins: AtomicUsize,
    of_rosters: AtomicUsize,
}

impl Reads {
    /// From now on the reads of these stores are counted.
    pub(super) fn count(storage: &mut Storage) -> Arc<Reads> {
        let (logins, rosters) = (Arc::clone(&storage.logins), Arc::clone(&storage.rosters));
        let (of_logins, of_rosters) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let reads = Arc::new(Reads { logins, rosters, of_logins, of_rosters });
        storage.logins = Arc::clone(&reads) as Arc<dyn Logins>;
        storage.rosters = Arc::clone(&reads) as Arc<dyn Rosters>;
        reads
    }

    /// How many there were: of logins, of rosters.
    pub(super) fn so_far(&self) -> (usize, usize) {
        (self.of_logins.load(Ordering::SeqCst), self.of_rosters.load(Ordering::SeqCst))
    }
}

#[async_trait]
impl Logins for Reads {
    async fn login(&self, user: &BareJid, documents: &[&str]) -> Result<LoginData, StorageError> {
        self.of_logins.fetch_add(1, Ordering::SeqCst);
        self.logins.login(user, documents).await
    }
}

#[async_trait]
impl Rosters for Reads {
    async fn load(&self, owner: &BareJid) -> Result<Roster, StorageError> {
        self.of_rosters.fetch_add(1, Ordering::SeqCst);
        self.rosters.load(owner).await
    }

    async fn change(
        &self,
        owner: &BareJid,
        contact: &BareJid,
        change: RosterChange,
        limits: RosterLimits,
    ) -> Result<Result<Changed, RosterError>, StorageError> {
        self.rosters.change(owner, contact, change, limits).await
    }

    async fn since(&self, owner: &BareJid, version: u64, most: u32) -> Result<RosterNews, StorageError> {
        self.of_rosters.fetch_add(1, Ordering::SeqCst);
        self.rosters.since(owner, version, most).await
    }

    async fn item(&self, owner: &BareJid, contact: &BareJid) -> Result<Option<RosterItem>, StorageError> {
        self.of_rosters.fetch_add(1, Ordering::SeqCst);
        self.rosters.item(owner, contact).await
    }
}
