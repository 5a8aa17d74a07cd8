//! PURE: the leader's side of leases: how long it may grant, and whom it may declare down.
//!
//! A leader grants from the time at which a quorum last acknowledged it, never from now: one that was deposed
//! without noticing grants nothing that reaches beyond the wait of its successor.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::LeaseTimes;
use crate::node_id::{Incarnation, NodeId};

/// The leases that one leader has granted, while it leads. Times are those of [`boot_time`](super::boot_time).
#[derive(Debug)]
pub struct Granter {
    times: LeaseTimes,
    became_leader_at: Duration,
    /// Whether it has looked at the nodes that are up.
    looked: bool,
    nodes: BTreeMap<NodeId, Known>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    /// Nothing is declared down before this and T3: the last grant, or since when that start is known to be up.
    since: Duration,
    /// Whether this leader has granted it anything.
    granted: bool,
    /// The start of it that was seen up last.
    up: Option<Incarnation>,
    /// The start that was given out as down; it gets no lease any more.
    condemned: Option<Incarnation>,
}

impl Granter {
    /// A leader that began to lead at that time. It knows of no grant of the leader before it, so it waits a full
    /// T3 from then on.
    #[must_use]
    pub fn new(times: LeaseTimes, became_leader_at: Duration) -> Self {
        Granter { times, became_leader_at, looked: false, nodes: BTreeMap::new() }
    }

    /// For how long that start of `node` may serve, counted from when it sent its request: T1 less the age of the
    /// last acknowledgement of a quorum. `None` if nothing is left of it, or that start was given out as down.
    pub fn grant(
        &mut self,
        node: NodeId,
        incarnation: Incarnation,
        now: Duration,
        quorum_acked_at: Duration,
    ) -> Option<Duration> {
        let age = now.saturating_sub(quorum_acked_at);
        let left = self.times.suspend.checked_sub(age).filter(|left| !left.is_zero())?;
        let known = self.known(node);
        if known.condemned.is_some_and(|condemned| incarnation <= condemned) {
            return None;
        }
        known.since = known.since.max(now);
        known.granted = true;
        Some(left)
    }

    /// Which of the nodes that the route table has as up may be declared down, each with the start that is over:
    /// those without a grant for T3, and those of `known_dead`, whose process has been seen to be gone, as soon as
    /// what this leader has granted them is over: what a firewall answers must not take a lease away.
    /// They get no lease any more from this leader, until a later start of theirs is up.
    pub fn down_candidates(
        &mut self,
        now: Duration,
        up: impl IntoIterator<Item = (NodeId, Incarnation)>,
        known_dead: &BTreeSet<(NodeId, Incarnation)>,
    ) -> Vec<(NodeId, Incarnation)> {
        let (LeaseTimes { suspend, down, .. }, looked) = (self.times, self.looked);
        self.looked = true;
        let mut candidates = Vec::new();
        for (node, incarnation) in up {
            let known = self.known(node);
            if known.up != Some(incarnation) {
                // A start that has just come up has had no time to ask. Those of the first look may be as old as
                // the leader before: their time runs from the change of leaders.
                if looked {
                    known.since = known.since.max(now);
                }
                known.up = Some(incarnation);
            }
            let age = now.saturating_sub(known.since);
            let dead = known_dead.contains(&(node, incarnation)) && (!known.granted || age >= suspend);
            if dead || age >= down {
                known.condemned = known.condemned.max(Some(incarnation));
                candidates.push((node, incarnation));
            }
        }
        candidates
    }

    fn known(&mut self, node: NodeId) -> &mut Known {
        let known = Known { since: self.became_leader_at, granted: false, up: None, condemned: None };
        self.nodes.entry(node).or_insert(known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEADS_AT: u64 = 1_000;

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    fn leader() -> Granter {
        Granter::new(LeaseTimes::default(), seconds(LEADS_AT))
    }

    const A: (NodeId, Incarnation) = (NodeId::new(1), Incarnation(1));
    const B: (NodeId, Incarnation) = (NodeId::new(2), Incarnation(1));

    fn candidates(granter: &mut Granter, now: u64) -> Vec<(NodeId, Incarnation)> {
        granter.down_candidates(seconds(now), [A, B], &BTreeSet::new())
    }

    fn grant(
        granter: &mut Granter,
        (node, incarnation): (NodeId, Incarnation),
        now: u64,
    ) -> Option<Duration> {
        granter.grant(node, incarnation, seconds(now), seconds(now))
    }

    #[test]
    fn a_grant_is_as_long_as_the_last_word_of_a_quorum_is_fresh() {
        let mut granter = leader();
        for (acked, granted) in
            [(2_000, Some(3)), (1_999, Some(2)), (1_998, Some(1)), (1_997, None), (5, None)]
        {
            let got = granter.grant(A.0, A.1, seconds(2_000), seconds(acked));
            assert_eq!(got, granted.map(seconds), "{acked}");
        }
        let late = granter.grant(A.0, A.1, seconds(2_000), seconds(2_001));
        assert_eq!(late, Some(seconds(3)), "never longer than T1");
    }

    #[test]
    fn a_new_leader_waits_a_full_t3() {
        let mut granter = leader();
        for now in LEADS_AT..LEADS_AT + 10 {
            assert_eq!(candidates(&mut granter, now), [], "{now}");
        }
        assert_eq!(candidates(&mut granter, LEADS_AT + 10), [A, B]);
    }

    #[test]
    fn a_grant_is_safe_until_t3_after_it() {
        let mut granter = leader();
        assert_eq!(candidates(&mut granter, LEADS_AT), []);
        assert!(grant(&mut granter, A, LEADS_AT + 5).is_some());
        assert_eq!(candidates(&mut granter, LEADS_AT + 14), [B]);
        assert_eq!(candidates(&mut granter, LEADS_AT + 15), [A, B]);
    }

    #[test]
    fn a_refused_grant_saves_nobody() {
        let mut granter = leader();
        assert_eq!(granter.grant(A.0, A.1, seconds(LEADS_AT + 9), seconds(LEADS_AT)), None);
        assert_eq!(candidates(&mut granter, LEADS_AT + 10), [A, B]);
    }

    #[test]
    fn a_process_known_to_be_dead_goes_at_once_and_a_later_start_of_it_does_not() {
        let mut granter = leader();
        let dead = BTreeSet::from([A]);
        assert_eq!(granter.down_candidates(seconds(LEADS_AT), [A, B], &dead), [A]);
        let restarted = (A.0, Incarnation(2));
        assert_eq!(granter.down_candidates(seconds(LEADS_AT + 1), [restarted, B], &dead), []);
    }

    #[test]
    fn a_process_that_only_seems_dead_keeps_what_it_was_granted() {
        let mut granter = leader();
        let dead = BTreeSet::from([A]);
        assert_eq!(granter.down_candidates(seconds(LEADS_AT), [A], &BTreeSet::new()), []);
        assert!(grant(&mut granter, A, LEADS_AT + 1).is_some());
        assert_eq!(granter.down_candidates(seconds(LEADS_AT + 3), [A], &dead), []);
        assert_eq!(granter.down_candidates(seconds(LEADS_AT + 4), [A], &dead), [A]);
    }

    #[test]
    fn what_was_given_out_as_down_gets_no_lease_until_it_is_another() {
        let mut granter = leader();
        assert_eq!(granter.down_candidates(seconds(LEADS_AT), [A], &BTreeSet::from([A])), [A]);
        assert_eq!(grant(&mut granter, A, LEADS_AT + 1), None);
        assert!(grant(&mut granter, (A.0, Incarnation(2)), LEADS_AT + 1).is_some());
    }

    #[test]
    fn a_start_that_has_just_come_up_has_t3_for_its_first_lease() {
        let mut granter = leader();
        assert_eq!(granter.down_candidates(seconds(LEADS_AT), [A], &BTreeSet::new()), []);
        assert!(grant(&mut granter, A, LEADS_AT + 1).is_some());
        // It restarts, and another joins, long after their last grants.
        let restarted = (A.0, Incarnation(2));
        for now in LEADS_AT + 100..LEADS_AT + 110 {
            assert_eq!(granter.down_candidates(seconds(now), [restarted, B], &BTreeSet::new()), [], "{now}");
        }
        assert_eq!(
            granter.down_candidates(seconds(LEADS_AT + 110), [restarted], &BTreeSet::new()),
            [restarted]
        );
    }
}
