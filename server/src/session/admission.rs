//! Who may begin a session now: after a restart all clients come at once, and the node must go on serving those who are
//! there.
//!
//! So many binds are under way at a time; later ones wait for their turn, in order. Each holds its place until its
//! session has loaded what it needs. Policy when too many wait (`limits.binds_waiting`): the bind is refused with
//! `resource-constraint` (RFC 6120 §7.6.2.1), and the client comes again later.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::metrics::Waiting;

/// The binds of one node.
#[derive(Debug)]
pub struct Admission {
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
    most: usize,
    gauge: Waiting,
}

/// A place among the binds under way; dropping it gives it to the next.
#[derive(Debug)]
pub struct Place {
    _held: OwnedSemaphorePermit,
}

/// More wait than may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany;

impl Admission {
    /// `at_once` binds at a time, of which `most` may wait; `gauge` counts those.
    #[must_use]
    pub fn new(at_once: usize, most: usize, gauge: Waiting) -> Self {
        Admission { places: Arc::new(Semaphore::new(at_once)), waiting: AtomicUsize::new(0), most, gauge }
    }

    /// A place, when it is this bind's turn.
    ///
    /// # Errors
    /// [`TooMany`], at once.
    pub async fn enter(&self) -> Result<Place, TooMany> {
        // As a rule there is a place.
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            return Ok(Place { _held: place });
        }
        let _waiter = self.wait()?;
        let place = Arc::clone(&self.places).acquire_owned().await;
        // Never closed.
        place.map(|place| Place { _held: place }).map_err(|_| TooMany)
    }

    fn wait(&self) -> Result<Waiter<'_>, TooMany> {
        if self.waiting.fetch_add(1, Ordering::AcqRel) >= self.most {
            self.waiting.fetch_sub(1, Ordering::AcqRel);
            return Err(TooMany);
        }
        self.gauge.changed(0, 1);
        Ok(Waiter(self))
    }
}

/// Counts one that waits, also where it gives up.
struct Waiter<'a>(&'a Admission);

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
        self.0.gauge.changed(1, 0);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    /// P11: a storm waits in a bounded queue, and past it is told so.
    #[tokio::test]
    async fn p11_binds_wait_their_turn_and_too_many_are_refused() {
        let admission = Admission::new(1, 2, Waiting::for_tests());
        let first = admission.enter().await.unwrap();
        let mut second = Box::pin(admission.enter());
        let mut third = Box::pin(admission.enter());
        assert!(second.as_mut().now_or_never().is_none());
        assert!(third.as_mut().now_or_never().is_none());
        assert_eq!(admission.enter().await.unwrap_err(), TooMany);
        drop(first);
        let place = second.await.unwrap();
        assert!(third.as_mut().now_or_never().is_none(), "one at a time");
        // One that gives up leaves its place in the queue.
        drop(third);
        let mut fourth = Box::pin(admission.enter());
        let mut fifth = Box::pin(admission.enter());
        assert!(fourth.as_mut().now_or_never().is_none());
        assert!(fifth.as_mut().now_or_never().is_none());
        drop(place);
        fourth.await.unwrap();
        fifth.await.unwrap();
    }
}
