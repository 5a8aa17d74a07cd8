//! Tells the operator of administrators without an account: a name that is misspelt gives nobody rights.

use std::time::Duration;

use tracing::{debug, warn};

use althing_proto::jid::BareJid;

use super::NodeContext;
use crate::storage::StorageError;

/// Between two tries while the store does not answer: a cluster may not have come together yet.
const PAUSE: Duration = Duration::from_secs(5);

/// Logs each of `xmpp.admins` that has no account, as soon as the store answers or the node stops.
pub(super) async fn tell_of_missing(node: &NodeContext) {
    while !*node.stopping.borrow() {
        match missing(node).await {
            Ok(missing) => {
                for jid in missing {
                    warn!(%jid, "an administrator has no account: nobody can log in as that one");
                }
                return;
            }
            Err(error) => {
                debug!(%error, "administrators' accounts not looked up");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn missing(node: &NodeContext) -> Result<Vec<BareJid>, StorageError> {
    let admins = node.config().xmpp.admins.clone();
    let mut missing = Vec::new();
    for admin in admins.iter().filter_map(|admin| BareJid::new(admin).ok()) {
        if node.storage.accounts.get(&admin).await?.is_none() {
            missing.push(admin);
        }
    }
    Ok(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn administrators_without_an_account_are_named() {
        let node = NodeContext::for_tests();
        let jid = |jid| BareJid::new(jid).unwrap();
        node.configure(|config| config.xmpp.admins = vec!["a@localhost".into(), "b@localhost".into()]);
        node.has_account(&jid("a@localhost")).await;
        assert_eq!(missing(&node).await.unwrap(), [jid("b@localhost")]);
        node.has_account(&jid("b@localhost")).await;
        assert_eq!(missing(&node).await.unwrap(), Vec::<BareJid>::new());
    }
}
