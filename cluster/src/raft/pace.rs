//! PURE: when a member that got no snapshot is tried again, and whether the operator is told.
//!
//! To bring a snapshot costs the leader a copy of its whole store. A member that takes none, or a link that breaks in the
//! middle, must not cost it that ten times a second.

use std::collections::HashMap;
use std::time::Duration;

use crate::node_id::NodeId;

/// The first pause; each further one is twice as long.
const FIRST: Duration = Duration::from_millis(100);
/// Longest pause while there is no connection: to look is cheap, and who comes back shall not wait.
const MOST_AWAY: Duration = Duration::from_secs(1);
/// Longest pause after anything else.
const MOST: Duration = Duration::from_secs(10);
/// How long it is believed that a snapshot is as large as the last one. Until then nobody without room for that is tried.
const SIZE_HOLDS: Duration = Duration::from_secs(600);
/// After that long without another failure a member is as any other.
const FORGET: Duration = Duration::from_secs(900);

/// Why a member got no snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// There is no connection.
    Away,
    /// It took none, or not to the end; or none could be made here.
    Other,
}

/// What is remembered of one member.
#[derive(Debug)]
struct Pace {
    last: Failure,
    pause: Duration,
    next: Duration,
    told: bool,
}

/// The members of a group that got no snapshot when they were tried last. Times are of any clock that only grows.
#[derive(Debug, Default)]
pub(crate) struct Paces {
    members: HashMap<NodeId, Pace>,
    size: Option<(Duration, u64)>,
}

impl Paces {
    /// How long to wait before the member is tried again.
    pub(crate) fn pause(&self, member: NodeId, now: Duration) -> Duration {
        self.members.get(&member).map_or(Duration::ZERO, |pace| pace.next.saturating_sub(now))
    }

    /// It was in vain; whether the operator is to be told: once, until the member got one.
    pub(crate) fn failed(&mut self, member: NodeId, why: Failure, now: Duration) -> bool {
        self.members.retain(|_, pace| now < pace.next + FORGET);
        let fresh = || Pace { last: why, pause: Duration::ZERO, next: now, told: false };
        let pace = self.members.entry(member).or_insert_with(fresh);
        if pace.last != why {
            (pace.last, pace.pause) = (why, Duration::ZERO);
        }
        let most = if why == Failure::Away { MOST_AWAY } else { MOST };
        pace.pause = (pace.pause * 2).clamp(FIRST, most);
        pace.next = now + pace.pause;
        let tells = why == Failure::Other && !pace.told;
        pace.told |= tells;
        tells
    }

    /// The member got its snapshot.
    pub(crate) fn brought(&mut self, member: NodeId) {
        self.members.remove(&member);
    }

    /// A snapshot has that many bytes, or at least so many: more had no room here.
    pub(crate) fn measured(&mut self, bytes: u64, now: Duration) {
        self.size = Some((now, bytes));
    }

    /// How large the next one will be, as far as is known; 0: nobody knows.
    pub(crate) fn size(&self, now: Duration) -> u64 {
        self.size.filter(|(measured, _)| now < *measured + SIZE_HOLDS).map_or(0, |(_, bytes)| bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: NodeId = NodeId::new(1);

    fn pauses(paces: &mut Paces, why: Failure, failures: usize) -> Vec<u128> {
        let mut now = Duration::from_secs(1_000);
        let step = |_| {
            paces.failed(ONE, why, now);
            let pause = paces.pause(ONE, now);
            now += pause;
            pause.as_millis()
        };
        (0..failures).map(step).collect()
    }

    #[test]
    fn who_takes_none_is_asked_ever_less_often_until_it_takes_one() {
        let mut paces = Paces::default();
        let grows = [100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000];
        assert_eq!(pauses(&mut paces, Failure::Other, 9), grows);
        assert_eq!(paces.pause(NodeId::new(2), Duration::from_secs(1_000)), Duration::ZERO);
        paces.brought(ONE);
        assert_eq!(paces.pause(ONE, Duration::from_secs(1_000)), Duration::ZERO);
        assert_eq!(pauses(&mut paces, Failure::Other, 2), [100, 200]);
    }

    #[test]
    fn who_comes_back_waits_for_a_second_at_most_and_then_begins_at_the_beginning() {
        let mut paces = Paces::default();
        assert_eq!(pauses(&mut paces, Failure::Away, 6), [100, 200, 400, 800, 1_000, 1_000]);
        assert_eq!(pauses(&mut paces, Failure::Other, 2), [100, 200]);
    }

    #[test]
    fn the_operator_is_told_once_of_each_member_and_anew_when_it_has_had_one() {
        let (mut paces, now) = (Paces::default(), Duration::from_secs(5));
        assert!(!paces.failed(ONE, Failure::Away, now), "that is known");
        let mut told = || paces.failed(ONE, Failure::Other, now);
        assert_eq!([told(), told(), told()], [true, false, false]);
        assert!(paces.failed(NodeId::new(2), Failure::Other, now));
        paces.brought(ONE);
        assert!(paces.failed(ONE, Failure::Other, now));
        // Who is gone is forgotten.
        paces.failed(NodeId::new(2), Failure::Other, now + FORGET + MOST);
        assert_eq!(paces.members.len(), 1);
    }

    #[test]
    fn a_size_is_believed_for_a_while() {
        let (mut paces, now) = (Paces::default(), Duration::from_secs(5));
        assert_eq!(paces.size(now), 0);
        paces.measured(7, now);
        assert_eq!((paces.size(now), paces.size(now + SIZE_HOLDS)), (7, 0));
    }
}
