//! What the deletion of an account leaves in the rosters of others.

use althing_proto::jid::BareJid;
use althing_proto::roster::{Direction, Subscription, SubscriptionKind};

use super::super::{RosterLimits, RosterNews, Storage};
use super::{account, jid, stanza, with_users};

/// Whoever takes the name next must not see the presence of those who knew its predecessor. More contacts than one batch
/// of the embedded store ends subscriptions with.
pub(super) async fn deletion_ends_the_subscriptions_with_others(storage: Storage) {
    use Direction::{Inbound, Outbound};
    use SubscriptionKind::{Subscribe, Subscribed};
    with_users(&storage).await;
    let (juliet, romeo) = (jid("juliet@example.com"), jid("romeo@example.com"));
    let both = [(Outbound, Subscribe), (Inbound, Subscribed), (Inbound, Subscribe), (Outbound, Subscribed)];
    let limits = RosterLimits { items: 1_000, requests: 5 };
    let knows = async |owner: &BareJid, contact: &BareJid, steps: &[(Direction, SubscriptionKind)]| {
        for (direction, kind) in steps {
            let step = stanza(*direction, *kind);
            storage.rosters.change(owner, contact, step, limits).await.unwrap().unwrap();
        }
    };
    let contacts: Vec<BareJid> = (0..450).map(|number| jid(&format!("c{number}@example.com"))).collect();
    for contact in &contacts {
        storage.accounts.create(contact, account(1)).await.unwrap();
        knows(&juliet, contact, &both).await;
        knows(contact, &juliet, &both).await;
        knows(contact, &romeo, &both).await;
    }
    // A request that waits for its answer, and a contact that is elsewhere.
    knows(&juliet, &romeo, &both[..1]).await;
    knows(&romeo, &juliet, &both[2..3]).await;
    knows(&juliet, &jid("far@example.net"), &both).await;
    let before = storage.rosters.load(&contacts[0]).await.unwrap().version;

    assert_eq!(storage.accounts.delete(&juliet).await, Ok(true));
    assert_eq!(storage.accounts.create(&juliet, account(7)).await, Ok(true));
    for contact in &contacts {
        let item = storage.rosters.item(contact, &juliet).await.unwrap().unwrap();
        assert_eq!((item.subscription, item.listed), (Subscription::None, true), "{contact}");
        let other = storage.rosters.item(contact, &romeo).await.unwrap().unwrap();
        assert_eq!(other.subscription, Subscription::Both, "{contact}");
    }
    assert_eq!(storage.rosters.item(&romeo, &juliet).await, Ok(None));
    // Clients that come back learn of it.
    let RosterNews::Changes { version, changes } =
        storage.rosters.since(&contacts[0], before, 10).await.unwrap()
    else {
        panic!("the whole roster");
    };
    let changed: Vec<_> = changes.iter().map(|change| (&change.contact, change.version)).collect();
    assert_eq!(changed, [(&juliet, version)]);
}
