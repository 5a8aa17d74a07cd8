//! PURE: the three times of a lease, and what must hold between them.

use std::time::Duration;

/// What clocks may drift apart and messages take, between a node that closes and a leader that declares it down.
pub const MARGIN: Duration = Duration::from_secs(2);

/// When a node without a lease stops, closes, and is declared down. Counted from when it sent the last request
/// that was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseTimes {
    /// T1: from then on the node is suspended.
    pub suspend: Duration,
    /// T2: from then on its sessions are closed.
    pub close: Duration,
    /// T3: from then on the leader may declare it down. Counted from the grant.
    pub down: Duration,
}

impl Default for LeaseTimes {
    fn default() -> Self {
        let [suspend, close, down] = [3, 8, 10].map(Duration::from_secs);
        LeaseTimes { suspend, close, down }
    }
}

impl LeaseTimes {
    /// Whether the times fit each other, and elections that take up to `election` each: an election must not cost
    /// a client its stream, and a node closes before its routes are given away.
    ///
    /// # Errors
    /// Which time is wrong and what it has to be, for an operator.
    pub fn check(&self, election: Duration) -> Result<(), String> {
        let LeaseTimes { suspend, close, down } = *self;
        if suspend.is_zero() {
            return Err("the time to suspend (T1) is zero: no node could ever serve".to_owned());
        }
        if suspend >= close {
            return Err(format!(
                "the time to close (T2, {close:?}) must be above that to suspend (T1, {suspend:?})"
            ));
        }
        let least = suspend.saturating_add(election.saturating_mul(2));
        if close < least {
            return Err(format!(
                "the time to close (T2, {close:?}) must be at least {least:?}: T1 and two elections of {election:?}"
            ));
        }
        let least = close.saturating_add(MARGIN);
        if down < least {
            return Err(format!(
                "the time to declare a node down (T3, {down:?}) must be at least {least:?}: T2 and {MARGIN:?}"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_that_do_not_fit_are_refused_with_what_would_fit() {
        let check = |times: [u64; 3]| {
            let [suspend, close, down] = times.map(Duration::from_secs);
            LeaseTimes { suspend, close, down }.check(Duration::from_secs(2))
        };
        assert_eq!(LeaseTimes::default().check(Duration::from_secs(2)), Ok(()));
        assert_eq!(check([3, 7, 9]), Ok(()));
        for (times, word) in [([0, 7, 9], "T1"), ([7, 7, 9], "above"), ([3, 6, 9], "7s"), ([3, 7, 8], "9s")] {
            let error = check(times).unwrap_err();
            assert!(error.contains(word), "{times:?}: {error}");
        }
    }
}
