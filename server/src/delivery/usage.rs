//! Which users of a domain are being used now, on all nodes, and which are idle (XEP-0133 §4.16).
//!
//! Each node knows when its own clients spoke last (`session/shown.rs`); the table knows which sessions there are. So a
//! node is asked about the binds that it holds, so many at a time.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use althing_cluster::node_id::NodeId;
use althing_cluster::routes::BindIndex;
use althing_cluster::task::{FindUsed, TaskReply};
use tracing::warn;

use crate::node::NodeContext;

/// Sessions that a node is asked about at a time: at most 90 KB.
const AT_ONCE: usize = 10_000;

/// How long a node may take to answer that.
const PATIENCE: Duration = Duration::from_secs(10);

/// The users of a domain with sessions.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Their bare JIDs, each with whether somebody uses one of the user's clients.
    pub users: BTreeMap<String, bool>,
    /// Nodes that have not answered: what is there counts as idle.
    pub silent: usize,
}

/// The users of `domain` with sessions on any node. The table is copied by its shards and walked aside, so that neither
/// binds nor other sessions wait.
///
/// # Errors
/// That of the thread, where the server is about to end.
pub async fn usage(node: &NodeContext, domain: &str) -> Result<Usage, tokio::task::JoinError> {
    let (table, domain) = (node.routes.table(), domain.to_owned());
    let walk = move || {
        let mut held: HashMap<NodeId, Vec<(BindIndex, String)>> = HashMap::new();
        for (jid, route) in table.routes().filter(|(jid, _)| **jid.domain() == *domain) {
            held.entry(route.node).or_default().push((route.index, jid.to_bare().to_string()));
        }
        held
    };
    let held = tokio::task::spawn_blocking(walk).await?;
    let asked = held.into_iter().map(async |(owner, sessions)| (ask(node, owner, &sessions).await, sessions));
    let mut all = Usage::default();
    for (used, sessions) in futures_util::future::join_all(asked).await {
        all.silent += usize::from(used.is_none());
        let used = used.unwrap_or_default();
        for (index, user) in sessions {
            *all.users.entry(user).or_default() |= used.contains(&index);
        }
    }
    Ok(all)
}

/// Which of those sessions of a node are used; `None` where it does not tell.
async fn ask(
    node: &NodeContext,
    owner: NodeId,
    sessions: &[(BindIndex, String)],
) -> Option<HashSet<BindIndex>> {
    let mut used = HashSet::new();
    for some in sessions.chunks(AT_ONCE) {
        let sessions = some.iter().map(|(index, _)| *index).collect();
        match node.links.ask(owner, FindUsed { sessions }.into(), PATIENCE).await {
            Ok(TaskReply::FindUsed(some)) => used.extend(some),
            Ok(_) => return None,
            Err(error) => {
                warn!(node = %owner, %error, "a node does not tell which of its sessions are used");
                return None;
            }
        }
    }
    Some(used)
}

/// Which of those sessions of this node have a client that somebody uses.
#[must_use]
pub fn used_here(node: &NodeContext, sessions: &[BindIndex]) -> Vec<BindIndex> {
    let now = node.now();
    let is_used = |index: &BindIndex| node.sessions.get(*index).is_some_and(|own| own.shown().is_used(now));
    sessions.iter().copied().filter(is_used).collect()
}
