//! PURE: what grants and the passing of time make of a node's standing.

use std::time::Duration;

use super::{LeaseTimes, Standing};

/// The state of one node's lease. Times are those of [`boot_time`](super::boot_time).
#[derive(Debug, Clone)]
pub(super) struct Rule {
    times: LeaseTimes,
    suspend_at: Duration,
    close_at: Duration,
    lost: bool,
}

impl Rule {
    /// A lease that nobody has granted yet: it is lost until it begins anew.
    pub(super) fn new(times: LeaseTimes) -> Self {
        Rule { times, suspend_at: Duration::ZERO, close_at: Duration::ZERO, lost: true }
    }

    /// A request that was sent at `sent` was granted for that long. A grant that comes too late changes nothing
    /// for a lease that is lost: it counts from when the lease begins anew.
    pub(super) fn grant(&mut self, now: Duration, sent: Duration, granted: Duration) {
        self.tick(now);
        // A reply cannot be older than its request: what says so is wrong and counts from now.
        let suspend_at = sent.min(now).saturating_add(granted.min(self.times.suspend));
        let close_at = suspend_at.saturating_add(self.times.close.saturating_sub(self.times.suspend));
        // Replies may overtake each other.
        self.suspend_at = self.suspend_at.max(suspend_at);
        self.close_at = self.close_at.max(close_at);
    }

    /// Notes that it is `now`; the standing at that time.
    pub(super) fn tick(&mut self, now: Duration) -> Standing {
        self.lost |= now >= self.close_at;
        if self.lost {
            Standing::Lost
        } else if now >= self.suspend_at {
            Standing::Suspended
        } else {
            Standing::Serving
        }
    }

    /// It is lost, whatever was granted.
    pub(super) fn lose(&mut self) {
        self.lost = true;
    }

    /// The node is another to those who held its routes: what was lost is over. It serves once a grant holds, and
    /// has the whole time to close to get one.
    pub(super) fn begin_anew(&mut self, now: Duration) {
        self.lost = false;
        self.close_at = self.close_at.max(now.saturating_add(self.times.close));
    }

    /// Until when the node serves, if nothing happens.
    pub(super) fn serves_until(&self) -> Duration {
        if self.lost { Duration::ZERO } else { self.suspend_at }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn seconds(count: u64) -> Duration {
        SECOND * u32::try_from(count).unwrap()
    }

    fn serving_from(now: u64) -> Rule {
        let mut rule = Rule::new(LeaseTimes::default());
        rule.begin_anew(seconds(now));
        rule.grant(seconds(now), seconds(now), seconds(3));
        rule
    }

    #[test]
    fn it_serves_then_is_suspended_then_lost() {
        let mut rule = serving_from(100);
        for (now, standing) in [
            (100, Standing::Serving),
            (102, Standing::Serving),
            (103, Standing::Suspended),
            (107, Standing::Suspended),
        ] {
            assert_eq!(rule.tick(seconds(now)), standing, "{now}");
        }
        assert_eq!(rule.tick(seconds(108)), Standing::Lost);
    }

    #[test]
    fn a_grant_saves_a_suspended_node_and_not_a_lost_one() {
        let mut rule = serving_from(100);
        rule.grant(seconds(107), seconds(106), seconds(3));
        assert_eq!(rule.tick(seconds(108)), Standing::Serving);
        // Nobody looked in between: the grant itself has to see that it comes too late.
        rule.grant(seconds(200), seconds(200), seconds(3));
        assert_eq!(rule.tick(seconds(200)), Standing::Lost);
        rule.begin_anew(seconds(201));
        assert_eq!(rule.tick(seconds(202)), Standing::Serving, "the grant still holds");
        assert_eq!(rule.tick(seconds(203)), Standing::Suspended);
    }

    #[test]
    fn a_fresh_node_is_lost_then_has_the_time_to_close_for_its_first_grant() {
        let mut rule = Rule::new(LeaseTimes::default());
        assert_eq!(rule.tick(seconds(1)), Standing::Lost);
        rule.begin_anew(seconds(1));
        assert_eq!(rule.tick(seconds(8)), Standing::Suspended);
        assert_eq!(rule.tick(seconds(9)), Standing::Lost);
    }

    #[test]
    fn a_short_grant_ends_both_times_sooner() {
        let mut rule = Rule::new(LeaseTimes::default());
        rule.begin_anew(Duration::ZERO);
        rule.grant(seconds(100), seconds(100), SECOND);
        assert_eq!(rule.tick(seconds(100)), Standing::Lost, "it began anew long ago");
        rule.begin_anew(seconds(100));
        rule.grant(seconds(100), seconds(100), SECOND);
        assert_eq!(rule.tick(seconds(101)), Standing::Suspended);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Pass(u64),
        Grant { age: u64, granted: u64 },
        Tick,
        BeginAnew,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0..4_000_u64).prop_map(Step::Pass),
            4 => (0..12_000_u64, 0..5_000_u64).prop_map(|(age, granted)| Step::Grant { age, granted }),
            2 => Just(Step::Tick),
            1 => Just(Step::BeginAnew),
        ];
        proptest::collection::vec(step, 0..60)
    }

    proptest! {
        /// Whatever the order of grants and ticks.
        #[test]
        fn it_never_holds_longer_than_the_times_allow_and_lost_is_lost(steps in steps()) {
            let times = LeaseTimes::default();
            let (mut rule, mut now) = (Rule::new(times), SECOND * 1_000);
            let (mut last_sent, mut seen_lost, mut began) = (None::<Duration>, true, Duration::ZERO);
            for step in steps {
                match step {
                    Step::Pass(time) => now += Duration::from_millis(time),
                    Step::Grant { age, granted } => {
                        let sent = now.saturating_sub(Duration::from_millis(age));
                        rule.grant(now, sent, Duration::from_millis(granted));
                        last_sent = last_sent.max(Some(sent));
                    }
                    Step::Tick => {}
                    Step::BeginAnew => {
                        rule.begin_anew(now);
                        (seen_lost, began) = (false, now);
                    }
                }
                let standing = rule.tick(now);
                prop_assert!(!seen_lost || standing == Standing::Lost, "lost is sticky");
                seen_lost |= standing == Standing::Lost;
                let since = |time: Option<Duration>| time.map_or(Duration::MAX, |time| now.saturating_sub(time));
                if standing == Standing::Serving {
                    prop_assert!(since(last_sent) < times.suspend);
                }
                if standing > Standing::Lost {
                    prop_assert!(since(last_sent) < times.close || since(Some(began)) < times.close);
                }
                prop_assert_eq!(now < rule.serves_until(), standing == Standing::Serving);
            }
        }
    }
}
