//! A leader must have room to go on: one whose disk is nearly full hands its group on.

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

/// Hands the leadership of `group` on while the disk of this node, `own`, is low, if somebody else's is not.
pub(crate) async fn yield_when_low<C: Group, M: RaftStateMachine<C>>(
    group: GroupHandle<C, M>,
    own: NodeId,
    disk: DiskWord,
) {
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if !disk.is_low() || group.leader() != Some(own) {
            continue;
        }
        // To nobody who is gone or far behind: while it is handed on the group writes nothing, and then elects this one again.
        let may_lead = |node, silence, lacks| !disk.low.has(node) && silence < HEARD && lacks < MOST_BEHIND;
        let handed = group.hand_on_to(may_lead);
        if tokio::time::timeout(HAND_ON, handed).await.is_ok() && group.leader() != Some(own) {
            tracing::info!(group = C::NAME, "leadership handed on: the disk of this node is nearly full");
        }
    }
}
