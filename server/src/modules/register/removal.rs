//! The removal of an account (XEP-0077 §3.2): by its owner in band, or by an operator.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use althing_proto::jid::BareJid;

use crate::delivery;
use crate::modules::roster::subscription_stanza;
use crate::node::NodeContext;
use crate::session::effect::{Effect, UserEvent};
use crate::storage::StorageError;

/// How long the contacts may take to be told. The store ends all subscriptions with the account anyhow: who was not told
/// sees it at the next login, or with the next change of the roster.
const TELLING: Duration = Duration::from_secs(15);

/// Removes an account for an operator or administrator: its sessions end at once on all nodes, its contacts learn that
/// the subscriptions are over, then it goes with all that it keeps. `false`: there is no such account.
///
/// Goes on where whoever asked waits no longer.
///
/// # Errors
/// [`StorageError`]; the account is still there then, or nobody knows.
pub async fn remove_account(node: &Arc<NodeContext>, user: &BareJid) -> Result<bool, StorageError> {
    let (node, user) = (Arc::clone(node), user.clone());
    let removal = tokio::spawn(async move {
        delivery::drive(&node, vec![sessions_end(&user)]).await;
        let removed = remove(&node, &user).await;
        if matches!(removed, Ok(true)) {
            // Once more: clients connect again by themselves, and could until now.
            delivery::drive(&node, vec![sessions_end(&user)]).await;
        }
        removed
    });
    removal.await.unwrap_or(Err(StorageError::Closed))
}

/// Ends the sessions of an account that was removed.
pub(super) fn sessions_end(user: &BareJid) -> Effect {
    Effect::Notify { account: user.clone(), event: UserEvent::Removed }
}

/// Tells the contacts, then removes the account. The sessions stay: see [`sessions_end`]. `false`: there is no such
/// account.
///
/// Both make the contacts' rosters what they must be. The stanzas come first, for only they tell the clients that are
/// there; the store does in one step what they have not done: for contacts that block the account, or were not reached
/// in time, or because this process has died. Whoever takes the name next inherits no subscription.
pub(super) async fn remove(node: &Arc<NodeContext>, user: &BareJid) -> Result<bool, StorageError> {
    if node.storage.accounts.get(user).await?.is_none() {
        return Ok(false);
    }
    let mut items = node.storage.rosters.load(user).await?.items;
    // Those who are there come first: the others have no client to tell.
    items.sort_by_cached_key(|item| !is_here(node, &item.jid));
    let told = items.iter().flat_map(|item| {
        item.cancellations().map(|kind| Effect::Route(subscription_stanza(kind, user, &item.jid)))
    });
    if timeout(TELLING, delivery::drive(node, told.collect())).await.is_err() {
        tracing::warn!(jid = %user, "not all contacts of a removed account could be told in time");
    }
    match node.storage.accounts.delete(user).await {
        // A look tells what became of it.
        Err(StorageError::Unknown) => match node.storage.accounts.get(user).await? {
            Some(_) => Err(StorageError::Unknown),
            None => Ok(true),
        },
        other => other,
    }
}

/// Whether a contact has a session, or is of another domain, which only stanzas reach.
fn is_here(node: &NodeContext, contact: &BareJid) -> bool {
    let mut found = !node.serves(contact.domain().as_str());
    node.routes.visit_account(contact, &mut |_, _| found = true);
    found
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use althing_proto::roster::{Direction, RosterChange, Subscription, SubscriptionEvent, SubscriptionKind};

    use super::*;
    use crate::storage::RosterLimits;

    const CONTACTS: usize = 1_000;

    fn contact(number: usize) -> BareJid {
        BareJid::new(&format!("c{number}@localhost")).unwrap()
    }

    async fn subscribe(node: &NodeContext, owner: &BareJid, contact: &BareJid) {
        use SubscriptionKind::{Subscribe, Subscribed};
        for (direction, kind) in [
            (Direction::Outbound, Subscribe),
            (Direction::Inbound, Subscribed),
            (Direction::Inbound, Subscribe),
            (Direction::Outbound, Subscribed),
        ] {
            let change = RosterChange::Subscription(SubscriptionEvent { direction, kind, request: None });
            node.storage
                .rosters
                .change(owner, contact, change, RosterLimits::default())
                .await
                .unwrap()
                .unwrap();
        }
    }

    /// A node where alice and a thousand others see each other's presence.
    async fn popular() -> (Arc<NodeContext>, BareJid) {
        let (node, alice) = (Arc::new(NodeContext::for_tests()), BareJid::new("alice@localhost").unwrap());
        node.has_account(&alice).await;
        for contact in (0..CONTACTS).map(contact) {
            node.has_account(&contact).await;
            subscribe(&node, &alice, &contact).await;
            subscribe(&node, &contact, &alice).await;
        }
        (node, alice)
    }

    async fn subscription(node: &NodeContext, owner: &BareJid, contact: &BareJid) -> Subscription {
        node.storage.rosters.item(owner, contact).await.unwrap().unwrap().subscription
    }

    /// With no word about it the contacts would go on sending their presence to whoever takes the name.
    #[tokio::test]
    async fn no_contact_stays_subscribed_however_many_there_are() {
        let (node, alice) = popular().await;
        assert_eq!(subscription(&node, &contact(CONTACTS - 1), &alice).await, Subscription::Both);
        assert_eq!(remove_account(&node, &alice).await, Ok(true));
        for contact in (0..CONTACTS).map(contact) {
            assert_eq!(subscription(&node, &contact, &alice).await, Subscription::None, "{contact}");
        }
        assert_eq!(remove_account(&node, &alice).await, Ok(false));
    }

    #[tokio::test]
    async fn a_removal_goes_on_when_nobody_waits_for_it() {
        let (node, alice) = popular().await;
        assert_eq!(remove_account(&node, &alice).now_or_never(), None, "nothing is cut off");
        timeout(Duration::from_secs(60), async {
            while node.storage.accounts.get(&alice).await.unwrap().is_some() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
        assert_eq!(subscription(&node, &contact(CONTACTS - 1), &alice).await, Subscription::None);
    }
}
