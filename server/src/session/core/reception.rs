//! PURE: how a session's client gets what waits for the account, and from whom it gets anything.

use std::sync::Arc;

use althing_proto::jid::{BareJid, Jid};
use althing_proto::privacy::Kinds;

use super::SessionState;
use super::privacy::is_own;
use crate::session::rules::{Decision, Rules};
use crate::session::shown::Contacts;

/// How it gets it.
#[derive(Debug, Default)]
pub(super) struct Reception {
    /// By asking for it, and not otherwise.
    fetches: bool,
    /// It says of each message that it has it.
    receipts: bool,
}

impl SessionState {
    /// Whether the client fetches what waits by itself (XEP-0013 §2.2).
    #[must_use]
    pub fn fetches(&self) -> bool {
        self.reception.fetches
    }

    /// It does, until the session ends.
    pub(super) fn set_fetches(&mut self) {
        self.reception.fetches = true;
    }

    /// Whether the client gives a receipt for each message.
    #[must_use]
    pub fn gives_receipts(&self) -> bool {
        self.reception.receipts
    }

    /// It does, until the session ends.
    pub(super) fn set_gives_receipts(&mut self) {
        self.reception.receipts = true;
    }

    /// Whose messages the client gets, by what the session knows now.
    #[must_use]
    pub fn judge(&self) -> Judge {
        Judge { account: self.account.clone(), contacts: self.contacts(), rules: self.privacy.rules() }
    }
}

/// Whose messages a session's client gets, for work that goes on beside the session.
#[derive(Debug, Clone)]
pub struct Judge {
    account: BareJid,
    contacts: Arc<Contacts>,
    rules: Option<Arc<Rules>>,
}

impl Judge {
    /// Whether it gets a message of `from`.
    #[must_use]
    pub fn admits(&self, from: &Jid) -> bool {
        let Some(rules) = &self.rules else { return true };
        let subscription = || self.contacts.get(&from.to_bare()).copied().unwrap_or_default();
        is_own(from, &self.account) || rules.decide(from, subscription, Kinds::MESSAGE) == Decision::Allow
    }
}
