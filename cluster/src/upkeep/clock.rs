//! When a quorum acknowledged the leader last, by a clock that runs on while the machine sleeps.
//!
//! openraft tells it by the runtime's clock, which stands still in a sleeping machine: taken at its word, a leader
//! that has slept would grant leases of long ago.

use std::time::{Duration, Instant};

/// Clocks that differ by more between two looks say that the machine has slept.
const SLEPT: Duration = Duration::from_millis(50);

/// What is told twice differs by what it takes to tell it.
const SAME: Duration = Duration::from_millis(2);

/// PURE: follows the acknowledgements.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AckClock {
    /// The last look, by both clocks.
    looked: (Duration, Instant),
    /// The acknowledgement that was seen last, by both clocks.
    acked: Option<(Duration, Instant)>,
}

impl AckClock {
    /// A clock that is first looked at now.
    pub(crate) fn new(boot: Duration, now: Instant) -> Self {
        AckClock { looked: (boot, now), acked: None }
    }

    /// Looks at the acknowledgement that openraft tells; when it was, by the boot clock.
    pub(crate) fn look(&mut self, acked: Option<Instant>, boot: Duration, now: Instant) -> Option<Duration> {
        let (last_boot, last) = std::mem::replace(&mut self.looked, (boot, now));
        let acked = acked?;
        if self.acked.is_none_or(|(_, known)| known + SAME < acked) {
            let slept = boot.saturating_sub(last_boot) > now.duration_since(last) + SLEPT;
            let at = boot.saturating_sub(now.saturating_duration_since(acked));
            // Whether it came before the sleep or after it cannot be known: the earlier time is safe.
            self.acked = Some((if slept { at.min(last_boot) } else { at }, acked));
        }
        self.acked.map(|(at, _)| at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acknowledgement_keeps_its_time_and_a_sleep_makes_it_older() {
        let start = Instant::now();
        let at = |millis| (Duration::from_millis(10_000 + millis), start + Duration::from_millis(millis));
        let (boot, now) = at(0);
        let mut clock = AckClock::new(boot, now);
        assert_eq!(clock.look(None, boot, now), None);
        let (boot, now) = at(100);
        assert_eq!(clock.look(Some(at(90).1), boot, now), Some(at(90).0));
        let (boot, now) = at(200);
        assert_eq!(clock.look(Some(at(90).1), boot, now), Some(at(90).0));
        // The machine sleeps for a minute; the runtime's clock does not see it.
        let (boot, now) = at(300);
        let slept = boot + Duration::from_secs(60);
        assert_eq!(clock.look(Some(at(290).1), slept, now), Some(at(200).0));
        let (boot, now) = at(400);
        let boot = boot + Duration::from_secs(60);
        assert_eq!(clock.look(Some(at(390).1), boot, now), Some(boot - Duration::from_millis(10)));
    }
}
