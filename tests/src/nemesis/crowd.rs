//! What the clients of a run share.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::log::Number;
use crate::endpoint::Endpoint;
use crate::login::Account;

/// The stage of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Everybody writes.
    Talk,
    /// Nobody writes anything new; what was written is to be acknowledged.
    Settle,
    /// Everybody logs in once more, and takes what is there.
    Collect,
    /// Everybody leaves.
    Leave,
}

/// Where all are and what has become of their messages so far. What it says is for waiting and for progress; what is
/// checked is in the logs.
#[derive(Debug)]
pub struct Crowd {
    /// Where the nodes are reached.
    pub endpoints: Vec<Endpoint>,
    /// The accounts of the clients.
    pub accounts: Vec<Account>,
    /// The seed of the run.
    pub seed: u64,
    began: Instant,
    tally: Mutex<Tally>,
}

#[derive(Debug, Default)]
struct Tally {
    acknowledged: BTreeSet<Number>,
    arrived: BTreeSet<Number>,
    refused: BTreeSet<Number>,
    /// When each client last heard that something was handled.
    heard: Vec<u64>,
    /// Whose messages are all acknowledged, of a client that has nothing more to write.
    settled: BTreeSet<usize>,
    /// Who has logged in once more.
    collecting: BTreeSet<usize>,
}

/// How many messages there are, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Acknowledged.
    pub acknowledged: usize,
    /// Arrived.
    pub arrived: usize,
    /// Acknowledged and neither arrived nor refused.
    pub owed: usize,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Progress { acknowledged, arrived, owed } = self;
        write!(f, "acknowledged {acknowledged} arrived {arrived} owed {owed}")
    }
}

impl Crowd {
    /// These clients, who have done nothing yet.
    #[must_use]
    pub fn new(endpoints: Vec<Endpoint>, accounts: Vec<Account>, seed: u64) -> Crowd {
        let tally = Tally { heard: vec![0; accounts.len()], ..Tally::default() };
        Crowd { endpoints, accounts, seed, began: Instant::now(), tally: Mutex::new(tally) }
    }

    /// Milliseconds since the run began.
    #[must_use]
    pub fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The server has told a client that it has handled stanzas, among them these messages.
    pub fn acknowledged(&self, client: usize, messages: impl IntoIterator<Item = Number>) {
        let now = self.now();
        let mut tally = self.tally();
        tally.acknowledged.extend(messages);
        if let Some(heard) = tally.heard.get_mut(client) {
            *heard = now;
        }
    }

    /// A message has arrived.
    pub fn arrived(&self, message: Number) {
        self.tally().arrived.insert(message);
    }

    /// A message came back.
    pub fn refused(&self, message: Number) {
        self.tally().refused.insert(message);
    }

    /// A client has nothing more to write, and nothing is out.
    pub fn settled(&self, client: usize) {
        self.tally().settled.insert(client);
    }

    /// A client has logged in once more.
    pub fn collecting(&self, client: usize) {
        self.tally().collecting.insert(client);
    }

    /// The clients that have heard nothing since that time.
    #[must_use]
    pub fn unheard_since(&self, time: u64) -> Vec<usize> {
        let tally = self.tally();
        (0..tally.heard.len()).filter(|client| tally.heard[*client] <= time).collect()
    }

    /// The clients that have not come to the end of this stage.
    #[must_use]
    pub fn behind(&self, stage: Stage) -> Vec<usize> {
        let tally = self.tally();
        let there = match stage {
            Stage::Settle => &tally.settled,
            _ => &tally.collecting,
        };
        (0..self.accounts.len()).filter(|client| !there.contains(client)).collect()
    }

    /// What there is so far.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let tally = self.tally();
        let owed = tally.acknowledged.difference(&tally.arrived);
        Progress {
            acknowledged: tally.acknowledged.len(),
            arrived: tally.arrived.len(),
            owed: owed.filter(|message| !tally.refused.contains(message)).count(),
        }
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
