//! The removal of an account (XEP-0077 §3.2): by its owner in band, or by an operator.

use std::sync::Arc;

use althing_proto::jid::BareJid;
use althing_proto::roster::{RosterItem, SubscriptionKind};

use crate::modules::roster::subscription_stanza;
use crate::node::NodeContext;
use crate::pipeline::Effects;
use crate::session::effect::{Effect, UserEvent};
use crate::storage::StorageError;

/// Removes the account with all that it keeps, and tells what must follow: its sessions end on all nodes, its contacts
/// learn that the subscriptions are over. `None`: there is no such account.
///
/// The account goes first, so that whoever is thrown out cannot log in again.
///
/// # Errors
/// [`StorageError`]; the account is still there then.
pub async fn remove_account(
    node: &Arc<NodeContext>,
    user: &BareJid,
) -> Result<Option<Effects>, StorageError> {
    let roster = node.storage.rosters.load(user).await?;
    let removed = match node.storage.accounts.delete(user).await {
        // A look tells what became of it.
        Err(StorageError::Unknown) => match node.storage.accounts.get(user).await? {
            Some(_) => return Err(StorageError::Unknown),
            None => true,
        },
        other => other?,
    };
    if !removed {
        return Ok(None);
    }
    let mut effects = vec![Effect::Notify { account: user.clone(), event: UserEvent::Removed }];
    for item in &roster.items {
        let ends = ends(item).map(|kind| Effect::Route(subscription_stanza(kind, user, &item.jid)));
        effects.extend(ends);
    }
    Ok(Some(effects))
}

/// What ends the subscriptions with a contact, those that wait for an answer too.
fn ends(item: &RosterItem) -> impl Iterator<Item = SubscriptionKind> {
    let to = item.subscription.is_to() || item.ask;
    let from = item.subscription.is_from() || item.pending_in.is_some();
    let ends = [(to, SubscriptionKind::Unsubscribe), (from, SubscriptionKind::Unsubscribed)];
    ends.into_iter().filter_map(|(due, kind)| due.then_some(kind))
}

#[cfg(test)]
mod tests {
    use althing_proto::roster::Subscription;

    use super::*;

    #[test]
    fn each_direction_that_there_is_ends() {
        use SubscriptionKind::{Unsubscribe, Unsubscribed};
        let item =
            |subscription| RosterItem { subscription, ..RosterItem::new(BareJid::new("a@b").unwrap()) };
        let ends = |item: &RosterItem| ends(item).collect::<Vec<_>>();
        assert_eq!(ends(&item(Subscription::None)), []);
        assert_eq!(ends(&item(Subscription::To)), [Unsubscribe]);
        assert_eq!(ends(&item(Subscription::From)), [Unsubscribed]);
        assert_eq!(ends(&item(Subscription::Both)), [Unsubscribe, Unsubscribed]);
        assert_eq!(ends(&RosterItem { ask: true, ..item(Subscription::None) }), [Unsubscribe]);
        let asked = RosterItem { pending_in: Some(b"<p/>".to_vec()), ..item(Subscription::To) };
        assert_eq!(ends(&asked), [Unsubscribe, Unsubscribed]);
    }
}
