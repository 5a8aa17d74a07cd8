//! Who may begin a session now: after a restart all clients come at once, and the node must go on serving those who are
//! there.
//!
//! So many binds are under way at a time; later ones wait for their turn, in order. Each holds its place until its
//! session has loaded what it needs. As one commit ends many binds at once, those that get their places would begin at
//! once too, and meet again in every queue behind this; so each of them waits a different time more ([`SPREAD`]). Policy when too many wait (`limits.binds_waiting`): the bind is refused with
//! `resource-constraint` (RFC 6120 §7.6.2.1), and the client comes again later.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::metrics::Waiting;

/// Binds that had to wait begin within so long after they have got their place.
const SPREAD: Duration = Duration::from_millis(20);

/// The binds of one node.
#[derive(Debug)]
pub struct Admission {
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
    waited: AtomicU32,
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
        let (places, waiting, waited) = (Arc::new(Semaphore::new(at_once)), 0.into(), 0.into());
        Admission { places, waiting, waited, most, gauge }
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
        // Never closed.
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(|_| TooMany)?;
        tokio::time::sleep(jitter(self.waited.fetch_add(1, Ordering::Relaxed))).await;
        Ok(Place { _held: place })
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

/// PURE: how long the bind with that number waits after it has got its place. Multiples of the golden ratio lie more evenly
/// than chance, however many in a row are taken.
fn jitter(number: u32) -> Duration {
    /// 2^32 divided by the golden ratio.
    const STEP: u32 = 0x9e37_79b9;
    SPREAD.mul_f64(f64::from(number.wrapping_mul(STEP)) / f64::from(u32::MAX))
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
    use std::time::Instant;

    use futures_util::FutureExt;
    use futures_util::future::{join, join_all};

    use super::*;

    /// P11: however many binds one commit makes room for, few of them begin in the same moment.
    #[test]
    fn p11_binds_that_had_to_wait_are_spread() {
        for first in [0, 7, 1_000_000, u32::MAX - 30] {
            let waits: Vec<Duration> =
                (0..64).map(|number| jitter(u32::wrapping_add(first, number))).collect();
            for ms in 0..20 {
                let here = waits.iter().filter(|wait| wait.as_millis() == ms).count();
                assert!((1..=6).contains(&here), "{here} in millisecond {ms}: {waits:?}");
            }
            assert!(waits.iter().all(|wait| *wait <= SPREAD), "{waits:?}");
        }
    }

    /// P11: who had to wait for a place begins some time after it was free; who need not, at once.
    #[tokio::test]
    async fn p11_those_who_get_their_places_at_once_begin_one_after_the_other() {
        let admission = Admission::new(8, 8, Waiting::for_tests());
        let enter = || admission.enter().now_or_never().expect("there is room").unwrap();
        let held: Vec<_> = (0..8).map(|_| enter()).collect();
        let freed = Instant::now();
        let begun = join_all((0..8).map(async |_| {
            let place = admission.enter().await.unwrap();
            (place, freed.elapsed())
        }));
        let (begun, ()) = join(begun, async { drop(held) }).await;
        for (number, (_, after)) in begun.iter().enumerate() {
            let least = jitter(u32::try_from(number).unwrap());
            assert!(*after >= least, "{number} began after {after:?}, not {least:?}");
        }
        drop(begun);
        enter();
    }

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
