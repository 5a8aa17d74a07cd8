//! Keeps the right members voting: runs on every node, acts on the one that leads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::discovery::ALIVE;
use super::group::{Change, Group, GroupView};
use super::voters::{self, Presence, Rules, Seat};
use crate::lease::boot_time;
use crate::node_id::NodeId;

/// How often it looks.
const PERIOD: Duration = Duration::from_secs(1);

/// Keeps the voters of one group, until it is dropped.
pub async fn keep(group: Arc<dyn Group>, rules: Rules) {
    let mut watch = Watch::default();
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(change) = watch.look(&group.view(), &rules, boot_time()) else { continue };
        let (label, shown) = (group.name().label(), format!("{change:?}"));
        match group.change(change).await {
            Ok(()) => tracing::info!(group = label, change = shown, "voters changed"),
            // It is tried again while it is still wanted.
            Err(error) => tracing::warn!(group = label, change = shown, %error, "voters not changed"),
        }
    }
}

/// PURE: since when each member is there or away, as one leader has seen it.
#[derive(Debug, Default)]
struct Watch {
    seen: BTreeMap<NodeId, (bool, Duration)>,
}

impl Watch {
    /// What to change, now that the group looks like that.
    fn look(&mut self, view: &GroupView, rules: &Rules, now: Duration) -> Option<Change> {
        if !view.leads {
            self.seen.clear();
            return None;
        }
        if view.joint {
            return Some(Change::Voters(view.voters.clone()));
        }
        self.seen.retain(|node, _| view.members.contains_key(node));
        let mut seats = Vec::with_capacity(view.members.len());
        for (node, member) in &view.members {
            let progress = view.progress.get(node).copied().unwrap_or_default();
            let alive = progress.heard.is_some_and(|heard| heard < ALIVE);
            let seen = self.seen.entry(*node).or_insert((alive, now));
            if seen.0 != alive {
                *seen = (alive, now);
            }
            let since = now.saturating_sub(seen.1);
            let presence = if alive { Presence::Alive(since) } else { Presence::Away(since) };
            let (name, voter) = (member.name.clone(), view.voters.contains(node));
            seats.push(Seat { node: *node, name, voter, presence, lag: progress.lag });
        }
        voters::change(&seats, rules).map(Change::Voters)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::group::Progress;
    use super::*;
    use crate::raft::Member;

    fn view(heard: &[Option<u64>]) -> GroupView {
        let nodes = || (0..).map(NodeId::new).zip(heard);
        let member = |node: NodeId| Member { name: format!("a-{}", node.get()), address: String::new() };
        GroupView {
            leads: true,
            members: nodes().map(|(node, _)| (node, member(node))).collect(),
            voters: BTreeSet::from([NodeId::new(0)]),
            progress: nodes()
                .map(|(node, heard)| (node, Progress { heard: heard.map(Duration::from_secs), lag: Some(0) }))
                .collect(),
            ..GroupView::default()
        }
    }

    #[test]
    fn learners_are_promoted_after_they_were_there_for_long_enough() {
        let (mut watch, rules) = (Watch::default(), Rules::default());
        let mut look =
            |heard: &[Option<u64>], now| watch.look(&view(heard), &rules, Duration::from_secs(now));
        let all = [Some(0), Some(0), Some(0)];
        let voters = Some(Change::Voters([0, 1, 2].map(NodeId::new).into()));
        assert_eq!(look(&all, 100), None);
        assert_eq!(look(&all, 109), None);
        // It was away in between: its time begins again.
        assert_eq!(look(&[Some(0), Some(3), Some(0)], 110), None);
        assert_eq!(look(&all, 111), None);
        assert_eq!(look(&all, 120), None);
        assert_eq!(look(&all, 121), voters);
    }

    #[test]
    fn a_new_leader_starts_to_count_anew_and_finishes_what_is_half_done() {
        let (mut watch, rules) = (Watch::default(), Rules::default());
        let all = view(&[Some(0), Some(0), Some(0)]);
        let second = Duration::from_secs(1);
        assert_eq!(watch.look(&all, &rules, second * 100), None);
        let follower = GroupView { leads: false, ..all.clone() };
        assert_eq!(watch.look(&follower, &rules, second * 101), None);
        assert_eq!(watch.look(&all, &rules, second * 111), None);
        let joint = GroupView { joint: true, ..all };
        assert_eq!(watch.look(&joint, &rules, second * 112), Some(Change::Voters(joint.voters.clone())));
    }
}
