//! Takes away messages that have been kept for long enough. One node does it for all: the first of those that are up.
//!
//! A round goes through the users of each domain a few at a time, and asks the store for a change only where there is
//! something to take away. It rests between its steps, so that it never is more than a small part of what the store does;
//! where the round is cut off, by an error or because another node is the first now, the next one begins anew.

use std::sync::Arc;
use std::time::Duration;

use althing_proto::jid::BareJid;
use althing_proto::time::Timestamp;
use tokio::time::sleep;

use super::NodeContext;
use crate::metrics::Dropped;
use crate::session::records;
use crate::storage::StorageError;
use crate::storage::messages::{SweepRules, Swept};

/// From the end of a round to the next.
const EVERY: Duration = Duration::from_secs(10 * 60);
/// Rest after each step.
const REST: Duration = Duration::from_millis(50);
/// Users that one step looks at.
const LOOK: usize = 200;
/// Messages that one step takes away.
const LIMIT: u32 = 100;

/// Runs until it is dropped. `now` tells the time.
pub(super) async fn run(node: Arc<NodeContext>, now: impl Fn() -> Timestamp) {
    loop {
        sleep(EVERY).await;
        match round(&node, now()).await {
            Ok(Swept { inbox: 0, archive: 0, .. }) => {}
            Ok(swept) => {
                tracing::info!(expired = swept.inbox, deleted = swept.archive, "old messages were deleted");
            }
            Err(error) => tracing::warn!(%error, "deleting old messages was cut off: it will be tried again"),
        }
        if let Err(error) = records::sweep(&node, now(), || is_mine(&node)).await {
            tracing::warn!(%error, "deleting records of streams was cut off: it will be tried again");
        }
    }
}

/// Whether this node is the one that does it.
fn is_mine(node: &NodeContext) -> bool {
    node.lease.holds() && node.routes.first_up() == Some(node.node_id)
}

/// One round through all users, by the configuration in force.
async fn round(node: &NodeContext, now: Timestamp) -> Result<Swept, StorageError> {
    let (rules, domains) = {
        let config = node.config();
        (config.archive.sweep_rules(now), config.xmpp.domains.clone())
    };
    let mut all = Swept::default();
    for domain in domains {
        let mut after = None;
        loop {
            if !is_mine(node) {
                return Ok(all);
            }
            let due = node.storage.retention.due(&domain, after.as_ref(), rules, LOOK).await?;
            for user in due.users {
                sweep(node, &user, rules, &mut all).await?;
            }
            after = due.next;
            if after.is_none() {
                break;
            }
            sleep(REST).await;
        }
    }
    Ok(all)
}

/// All that has to go of one user.
async fn sweep(
    node: &NodeContext,
    user: &BareJid,
    rules: SweepRules,
    all: &mut Swept,
) -> Result<(), StorageError> {
    while is_mine(node) {
        let swept = node.storage.retention.sweep(user, rules, LIMIT).await?;
        all.inbox = all.inbox.saturating_add(swept.inbox);
        all.archive = all.archive.saturating_add(swept.archive);
        (0..swept.inbox).for_each(|_| node.metrics.dropped(Dropped::Expired));
        if !swept.more {
            break;
        }
        sleep(REST).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use althing_cluster::lease::Lease;
    use althing_proto::jid::Jid;
    use althing_proto::stanza_id::StanzaId;

    use super::*;
    use crate::storage::Storage;
    use crate::storage::messages::{ArchiveDefault, ArchiveQuery, KeepFor, KeepInInbox, KeepMessage};

    const DAY: u64 = 24 * 60 * 60 * 1_000;

    /// Midnight of that day.
    fn day(number: u64) -> Timestamp {
        Timestamp::from_millis(number * DAY)
    }

    fn juliet() -> BareJid {
        BareJid::new("juliet@localhost").unwrap()
    }

    async fn node() -> NodeContext {
        let node = NodeContext::for_tests();
        node.has_account(&juliet()).await;
        node
    }

    /// A message to juliet on that day, as the configuration has it.
    async fn keep(node: &NodeContext, number: u64) {
        let config = node.config();
        let inbox = KeepInInbox {
            takers: Vec::new(),
            expires: config.offline.expires(day(number)),
            quota: config.offline.quota(),
            each_device: false,
        };
        let owner = KeepFor {
            owner: juliet(),
            peer: Jid::new("romeo@localhost/orchard").unwrap(),
            outgoing: false,
            archive: Some(ArchiveDefault::Always),
            inbox: Some(inbox),
        };
        let id = StanzaId::derived(b"test", &[&number.to_be_bytes()]);
        let message =
            KeepMessage { name: None, id, stamp: day(number), xml: "<message/>".into(), owners: vec![owner] };
        node.storage.keep(message).await.unwrap();
    }

    /// How many wait, and how many are archived.
    async fn there(storage: &Storage) -> (u32, u64) {
        let query = ArchiveQuery { limit: 1, ..ArchiveQuery::default() };
        let page = storage.archive.page(&juliet(), query).await.unwrap().unwrap();
        (storage.inbox.summary(&juliet()).await.unwrap().messages, page.count.unwrap())
    }

    /// R22, by a clock that the test turns on: what nobody has fetched within the window goes, and what is archived
    /// after its own; nothing a day before.
    #[tokio::test]
    async fn r22_old_messages_go_when_their_time_has_come() {
        let node = node().await;
        keep(&node, 1).await;
        keep(&node, 3).await;
        for (today, left) in [
            (30, (2, 2)),
            (31, (1, 2)),
            (32, (1, 2)),
            (33, (0, 2)),
            (366, (0, 2)),
            (367, (0, 1)),
            (368, (0, 1)),
            (369, (0, 0)),
        ] {
            round(&node, day(today)).await.unwrap();
            assert_eq!(there(&node.storage).await, left, "on day {today}");
        }
    }

    /// Both bounds may be lifted, and the size of an archive is one too.
    #[tokio::test]
    async fn an_archive_goes_by_age_and_size_as_configured() {
        let node = node().await;
        node.configure(|config| config.archive.retention_days = 0);
        keep(&node, 1).await;
        keep(&node, 2).await;
        round(&node, day(100_000)).await.unwrap();
        assert_eq!(there(&node.storage).await, (0, 2));
        node.configure(|config| config.archive.max_bytes_per_user = 10);
        round(&node, day(100_000)).await.unwrap();
        assert_eq!(there(&node.storage).await, (0, 1));
        node.configure(|config| config.archive.max_bytes_per_user = 0);
        round(&node, day(100_000)).await.unwrap();
        assert_eq!(there(&node.storage).await, (0, 1));
    }

    #[tokio::test]
    async fn a_round_goes_on_until_all_is_gone_and_a_node_without_its_lease_leaves_it() {
        let mut node = node().await;
        let many = u64::from(LIMIT) + 50;
        for number in 1..=many {
            keep(&node, number).await;
        }
        let late = day(10_000);
        node.lease = Lease::none();
        assert_eq!(round(&node, late).await, Ok(Swept::default()));
        assert_eq!(there(&node.storage).await, (u32::try_from(many).unwrap(), many));
        node.lease = Lease::always();
        let swept = round(&node, late).await.unwrap();
        assert_eq!((u64::from(swept.inbox), u64::from(swept.archive)), (many, many));
        assert_eq!(there(&node.storage).await, (0, 0));
    }
}
