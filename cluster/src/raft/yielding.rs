//! A leader must have room to go on: one whose disk is nearly full hands its group on, and one whose disk is full falls silent.

use std::time::Duration;

use openraft::storage::RaftStateMachine;

use super::group::GroupHandle;
use super::types::Group;
use crate::node_id::NodeId;
use crate::upkeep::room::DiskWord;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// An heir was heard since.
const HEARD: Duration = Duration::from_secs(1);
/// Entries that an heir may lack.
const MOST_BEHIND: u64 = 1_000;
/// Longest wait for another leader.
const HAND_ON: Duration = Duration::from_secs(3);

/// PURE: whether somebody may take a group over: not who is gone or far behind, for while it is handed on the group writes nothing,
/// and then elects the same one again.
fn may_lead(is_low: bool, silence: Duration, lacks: u64) -> bool {
    !is_low && silence < HEARD && lacks < MOST_BEHIND
}

/// Hands the leadership of `group` on while the disk of this node, `own`, is low, if somebody else's is not. A disk that is full
/// at once leaves no time for that: then it keeps the others no longer from electing one of them.
pub(crate) async fn yield_when_low<C: Group, M: RaftStateMachine<C>>(
    group: GroupHandle<C, M>,
    own: NodeId,
    disk: DiskWord,
) {
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut room = disk.disk.as_ref().map(|disk| disk.watch());
    let mut changed = async || {
        if let Some(room) = &mut room
            && room.changed().await.is_ok()
        {
            return;
        }
        // Nobody looks, or no more: the node ends.
        std::future::pending().await
    };
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = changed() => {}
        }
        group.stand_aside_when_full();
        if !disk.is_low() || group.leader() != Some(own) {
            continue;
        }
        let handed = group.hand_on_to(|node, silence, lacks| may_lead(disk.low.has(node), silence, lacks));
        if tokio::time::timeout(HAND_ON, handed).await.is_ok() && group.leader() != Some(own) {
            tracing::info!(group = C::NAME, "leadership handed on: the disk of this node is nearly full");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_heir_has_room_and_is_there_and_near() {
        let (lately, long_ago) = (HEARD - Duration::from_millis(1), HEARD);
        assert!(may_lead(false, lately, MOST_BEHIND - 1));
        assert!(!may_lead(true, lately, 0), "its disk is low too");
        assert!(!may_lead(false, long_ago, 0), "it is gone");
        assert!(!may_lead(false, lately, MOST_BEHIND), "it has much to fetch");
    }
}
