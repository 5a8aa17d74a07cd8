//! How much waits for a session, as others may see it from any thread.
//!
//! Two bounds and a brake. The mailbox is bounded in stanzas by actix and in bytes here. The brake keeps a
//! fast sender from filling a slow receiver's outbox: while more than half of it waits, a client that sends
//! to the session is read no faster than the session's client reads, within [`BRAKE`].

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use crate::node::Bound;

/// The longest that one stanza for a congested session holds its sender up. Bounded, so that a receiver that
/// reads nothing cannot stop others for long: it is closed by `limits.outbox_stall_s`.
pub const BRAKE: Duration = Duration::from_millis(500);

/// How many times `limits.mailbox_bytes` the presence that a session has asked for may take.
const SHOWN: usize = 4;

/// Counts bytes in; a single piece of any size fits where nothing is.
fn enter(counter: &AtomicUsize, bytes: usize, limit: usize) -> bool {
    let before = counter.fetch_add(bytes, Ordering::Relaxed);
    let fits = before == 0 || before + bytes <= limit;
    if !fits {
        counter.fetch_sub(bytes, Ordering::Relaxed);
    }
    fits
}

/// What waits for one session.
#[derive(Debug)]
pub struct Pressure {
    mailbox_bytes: AtomicUsize,
    shown_bytes: AtomicUsize,
    mailbox_limit: Bound,
    outbox_bytes: AtomicUsize,
    congested: AtomicBool,
    relieved: Notify,
    closing: AtomicBool,
    ending: AtomicBool,
    displaced: AtomicBool,
}

impl Pressure {
    /// Nothing waits; at most `mailbox_limit` bytes of stanzas may wait in the mailbox.
    #[must_use]
    pub fn new(mailbox_limit: impl Into<Bound>) -> Self {
        Pressure {
            mailbox_bytes: AtomicUsize::new(0),
            shown_bytes: AtomicUsize::new(0),
            mailbox_limit: mailbox_limit.into(),
            outbox_bytes: AtomicUsize::new(0),
            congested: AtomicBool::new(false),
            relieved: Notify::new(),
            closing: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            displaced: AtomicBool::new(false),
        }
    }

    /// Counts bytes into the mailbox; `false`, and nothing counted, where the bound is reached. A single
    /// stanza of any size fits into an empty mailbox.
    #[must_use]
    pub fn enter(&self, bytes: usize) -> bool {
        enter(&self.mailbox_bytes, bytes, self.mailbox_limit.get())
    }

    /// Counts bytes out of the mailbox.
    pub fn leave(&self, bytes: usize) {
        self.mailbox_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// As [`Pressure::enter`], for presence that the session has asked for: [`SHOWN`] times as much of it may wait beside
    /// what others send.
    #[must_use]
    pub fn enter_shown(&self, bytes: usize) -> bool {
        enter(&self.shown_bytes, bytes, self.mailbox_limit.get().saturating_mul(SHOWN))
    }

    /// Counts out what [`Pressure::enter_shown`] has counted in.
    pub fn leave_shown(&self, bytes: usize) {
        self.shown_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// So many bytes wait to be written to the client.
    pub fn set_waiting(&self, bytes: usize) {
        self.outbox_bytes.store(bytes, Ordering::Relaxed);
    }

    /// How many bytes wait to be written to the client.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.outbox_bytes.load(Ordering::Relaxed)
    }

    /// The session's client reads too slowly, or keeps up again.
    pub fn set_congested(&self, congested: bool) {
        if self.congested.swap(congested, Ordering::AcqRel) && !congested {
            self.relieved.notify_waiters();
        }
    }

    /// Whether the caller is the first to find that the session must be closed: one is enough.
    pub fn begin_closing(&self) -> bool {
        !self.closing.swap(true, Ordering::AcqRel)
    }

    /// The session has begun to end: it takes nothing for its client any more.
    pub fn set_ending(&self) {
        self.ending.store(true, Ordering::Release);
        self.relieved.notify_waiters();
    }

    /// A successor has the session's address, and has not waited for its end: it tells the contacts in its stead.
    pub fn set_displaced(&self) {
        self.displaced.store(true, Ordering::Release);
    }

    /// Whether a successor speaks for the session.
    #[must_use]
    pub fn is_displaced(&self) -> bool {
        self.displaced.load(Ordering::Acquire)
    }

    /// Whether the session has begun to end.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Acquire)
    }

    /// Whether the session's client reads too slowly.
    #[must_use]
    pub fn is_congested(&self) -> bool {
        self.congested.load(Ordering::Acquire)
    }

    /// Waits until the session's client keeps up again, or the session is about to end, which `limits.outbox_stall_s`
    /// brings about for a client that reads nothing.
    pub async fn relieved(&self) {
        loop {
            // Made before the look: it does not miss what comes in between.
            let notified = self.relieved.notified();
            if !self.is_congested() || self.is_ending() {
                return;
            }
            notified.await;
        }
    }

    /// Waits until the session's client keeps up again, [`BRAKE`] at most.
    pub async fn brake(&self) {
        let relieved = async {
            loop {
                // Made before the look at the flag: it does not miss what comes in between.
                let notified = self.relieved.notified();
                if !self.is_congested() {
                    return;
                }
                notified.await;
            }
        };
        // Time is up: the sender goes on all the same.
        let _ = tokio::time::timeout(BRAKE, relieved).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn the_mailbox_is_bounded_in_bytes() {
        let pressure = Pressure::new(10);
        assert!(pressure.enter(100), "a single stanza of any size");
        assert!(!pressure.enter(1));
        pressure.leave(100);
        assert!(pressure.enter(6));
        assert!(pressure.enter(4));
        assert!(!pressure.enter(1));
        pressure.leave(4);
        assert!(pressure.enter(4));
    }

    #[actix_rt::test]
    async fn the_brake_is_released_with_the_congestion() {
        let pressure = Arc::new(Pressure::new(1));
        pressure.brake().await;
        pressure.set_congested(true);
        let held = actix_rt::spawn({
            let pressure = Arc::clone(&pressure);
            async move { pressure.brake().await }
        });
        tokio::task::yield_now().await;
        assert!(!held.is_finished());
        pressure.set_congested(false);
        held.await.unwrap();
    }
}
