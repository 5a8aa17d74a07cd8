//! PURE: which members should vote: 1, 3 or 5, the lowest names first that are there.

use std::collections::BTreeSet;
use std::time::Duration;

use super::name;
use crate::node_id::NodeId;

/// How many members vote in a group of that many: 1 of 1 or 2, 3 of 3 or 4, else 5.
#[must_use]
pub const fn wanted(members: usize) -> usize {
    match members {
        0..=2 => 1,
        3 | 4 => 3,
        _ => 5,
    }
}

/// When members are fit to vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// How long a learner must have been there, caught up, before it is promoted.
    pub stable: Duration,
    /// How many entries a learner may lag behind to count as caught up.
    pub max_lag: u64,
    /// How long a voter must have been away before another may take its place: longer than a restart takes.
    pub gone: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Rules { stable: Duration::from_secs(10), max_lag: 1_000, gone: Duration::from_secs(30) }
    }
}

/// Whether a member is there, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It answers the leader, for that long.
    Alive(Duration),
    /// It does not, for that long.
    Away(Duration),
}

/// One member as the leader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seat {
    /// Its id.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Whether it votes.
    pub voter: bool,
    /// Whether it is there.
    pub presence: Presence,
    /// How many entries of the log it has yet to get; `None` if that is not known.
    pub lag: Option<u64>,
}

impl Seat {
    fn is_alive(&self) -> bool {
        matches!(self.presence, Presence::Alive(_))
    }

    fn is_ready(&self, rules: &Rules) -> bool {
        let stable = matches!(self.presence, Presence::Alive(since) if since >= rules.stable);
        stable && self.lag.is_some_and(|lag| lag <= rules.max_lag)
    }

    fn is_gone(&self, rules: &Rules) -> bool {
        matches!(self.presence, Presence::Away(since) if since >= rules.gone)
    }
}

/// The voters that the group should have instead of those it has, in one joint change; `None` while nothing can or
/// need be changed. Old and new voters both have a quorum that is alive. A voter that is down keeps its vote until a
/// learner is fit to take it.
#[must_use]
pub fn change(seats: &[Seat], rules: &Rules) -> Option<BTreeSet<NodeId>> {
    let now: BTreeSet<NodeId> = seats.iter().filter(|seat| seat.voter).map(|seat| seat.node).collect();
    if !has_live_quorum(seats, &now) {
        return None;
    }
    let mut sorted: Vec<&Seat> = seats.iter().collect();
    sorted.sort_by(|left, right| name::compare(&left.name, &right.name).then(left.node.cmp(&right.node)));
    let wanted = wanted(seats.len());
    let fit = |seat: &&&Seat| if seat.voter { !seat.is_gone(rules) } else { seat.is_ready(rules) };
    let gone = |seat: &&&Seat| seat.voter && seat.is_gone(rules);
    let ordered = sorted.iter().filter(fit).chain(sorted.iter().filter(gone)).map(|seat| seat.node);
    let mut next: Vec<NodeId> = ordered.take(wanted).collect();
    if next.len() < wanted && next.len().is_multiple_of(2) {
        // An even number of voters survives no more than one less, and stands still more often.
        next.pop();
        if next.len() < now.len() {
            return None;
        }
    }
    let next: BTreeSet<NodeId> = next.into_iter().collect();
    (next != now && has_live_quorum(seats, &next)).then_some(next)
}

fn has_live_quorum(seats: &[Seat], voters: &BTreeSet<NodeId>) -> bool {
    let live = seats.iter().filter(|seat| voters.contains(&seat.node) && seat.is_alive()).count();
    live > voters.len() / 2
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FRESH: Presence = Presence::Alive(Duration::from_secs(1));
    const STABLE: Presence = Presence::Alive(Duration::from_secs(10));
    const AWAY: Presence = Presence::Away(Duration::from_secs(5));
    const GONE: Presence = Presence::Away(Duration::from_secs(30));

    fn seat(number: u64, voter: bool, presence: Presence, lag: Option<u64>) -> Seat {
        Seat { node: NodeId::new(100 - number), name: format!("a-{number}"), voter, presence, lag }
    }

    /// Seats by letter, numbered in order: voter that is alive `v`, away `w`, gone `x`; learner that is ready `r`,
    /// fresh `f`, lagging `l`, away `a`. What the numbers of the new voters are.
    fn changed(seats: &str) -> Option<Vec<u64>> {
        let seats: Vec<Seat> = seats
            .chars()
            .zip(0..)
            .map(|(letter, number)| match letter {
                'v' => seat(number, true, STABLE, Some(0)),
                'w' => seat(number, true, AWAY, None),
                'x' => seat(number, true, GONE, None),
                'r' => seat(number, false, STABLE, Some(1_000)),
                'f' => seat(number, false, FRESH, Some(0)),
                'l' => seat(number, false, STABLE, Some(1_001)),
                _ => seat(number, false, GONE, None),
            })
            .collect();
        change(&seats, &Rules::default())
            .map(|voters| voters.iter().rev().map(|node| 100 - node.get()).collect())
    }

    #[test]
    fn the_number_follows_the_members() {
        assert_eq!([0, 1, 2, 3, 4, 5, 6, 99].map(wanted), [1, 1, 1, 3, 3, 5, 5, 5]);
        for (seats, voters) in [
            ("v", None),
            ("vr", None),
            ("vrr", Some(vec![0, 1, 2])),
            ("vvvr", None),
            ("vvvrr", Some(vec![0, 1, 2, 3, 4])),
            ("vvvvvrr", None),
            // Members have left.
            ("vvvv", Some(vec![0, 1, 2])),
            ("vv", Some(vec![0])),
        ] {
            assert_eq!(changed(seats), voters, "{seats}");
        }
    }

    #[test]
    fn learners_wait_until_they_are_fit_and_voters_stay_odd() {
        for (seats, voters) in [
            ("vrf", None),
            ("vrl", None),
            ("vra", None),
            ("vvvrf", None),
            ("vvvrl", None),
            ("vfrrr", Some(vec![0, 2, 3])),
            ("vfrrrr", Some(vec![0, 2, 3, 4, 5])),
        ] {
            assert_eq!(changed(seats), voters, "{seats}");
        }
    }

    #[test]
    fn the_lowest_names_vote() {
        assert_eq!(changed("rvvv"), Some(vec![0, 1, 2]));
        assert_eq!(changed("fvvv"), None);
        assert_eq!(changed("rrrv"), Some(vec![0, 1, 2]));
    }

    #[test]
    fn a_voter_that_is_gone_gives_its_vote_to_a_learner_that_is_fit() {
        for (seats, voters) in [
            ("vvxr", Some(vec![0, 1, 3])),
            ("vvwr", None),
            ("vvxf", None),
            ("vvx", None),
            ("vxxr", None),
            ("xwv", None),
            ("vvvxxrr", Some(vec![0, 1, 2, 5, 6])),
            ("vvvxxr", Some(vec![0, 1, 2, 3, 5])),
            // Fewer members: those that are gone go first, but never so that no quorum is left.
            ("vxvv", Some(vec![0, 2, 3])),
            ("wwvvv", None),
        ] {
            assert_eq!(changed(seats), voters, "{seats}");
        }
    }

    fn seats() -> impl Strategy<Value = Vec<Seat>> {
        let presence = (any::<bool>(), 0..40_u64).prop_map(|(alive, seconds)| {
            let since = Duration::from_secs(seconds);
            if alive { Presence::Alive(since) } else { Presence::Away(since) }
        });
        let facts = (any::<bool>(), presence, proptest::option::of(0..2_000_u64));
        proptest::collection::vec(facts, 0..9).prop_map(|seats| {
            let seats = seats.into_iter().zip(0..);
            seats.map(|((voter, presence, lag), number)| seat(number, voter, presence, lag)).collect()
        })
    }

    proptest! {
        #[test]
        fn a_change_leaves_a_quorum_of_live_voters_and_comes_to_rest(mut seats in seats()) {
            let rules = Rules::default();
            let voters: BTreeSet<NodeId> = seats.iter().filter(|seat| seat.voter).map(|seat| seat.node).collect();
            let Some(next) = change(&seats, &rules) else { return Ok(()) };
            prop_assert!(has_live_quorum(&seats, &voters));
            prop_assert!(has_live_quorum(&seats, &next));
            prop_assert!(next.len() <= wanted(seats.len()));
            for seat in &seats {
                if next.contains(&seat.node) && !seat.voter {
                    prop_assert!(seat.is_ready(&rules));
                }
            }
            for seat in &mut seats {
                seat.voter = next.contains(&seat.node);
            }
            prop_assert_eq!(change(&seats, &rules), None);
        }
    }
}
