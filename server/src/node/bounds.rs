//! Bounds that open sessions follow when the configuration changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::config::Limits;

/// A number that many hold and one changes.
#[derive(Debug, Clone)]
pub struct Bound(Arc<AtomicUsize>);

impl Bound {
    /// What it is now.
    #[must_use]
    pub fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, number: usize) {
        self.0.store(number, Ordering::Relaxed);
    }
}

impl From<usize> for Bound {
    fn from(number: usize) -> Self {
        Bound(Arc::new(AtomicUsize::new(number)))
    }
}

/// The bounds of a session's queues.
#[derive(Debug)]
pub struct Bounds {
    /// `limits.outbox_bytes`.
    pub outbox_bytes: Bound,
    /// `limits.mailbox_bytes`.
    pub mailbox_bytes: Bound,
    /// `limits.unacked_stanzas`.
    pub unacked_stanzas: Bound,
    /// `limits.unacked_bytes`.
    pub unacked_bytes: Bound,
}

impl Bounds {
    /// As `limits` has them.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        Bounds {
            outbox_bytes: limits.outbox_bytes.into(),
            mailbox_bytes: limits.mailbox_bytes.into(),
            unacked_stanzas: limits.unacked_stanzas.into(),
            unacked_bytes: limits.unacked_bytes.into(),
        }
    }

    /// For all sessions, from now on.
    pub(super) fn set(&self, limits: &Limits) {
        self.outbox_bytes.set(limits.outbox_bytes);
        self.mailbox_bytes.set(limits.mailbox_bytes);
        self.unacked_stanzas.set(limits.unacked_stanzas);
        self.unacked_bytes.set(limits.unacked_bytes);
    }
}
