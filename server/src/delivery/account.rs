//! Events of an account to all its sessions: those of this node directly, the others by one task a node.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tracing::error;

use althing_cluster::node_id::NodeId;
use althing_cluster::task::{
    ClusterTask, DeliverToAccount, DrainInbox, EndAccount, ProbeAccount, PushPrivacyChange, PushRosterItem,
    ReadPreferences, ShowAvatar, TaskAudience,
};
use althing_cluster::wire::{self, WireError};
use althing_proto::jid::{BareJid, FullJid};
use althing_proto::roster::Subscription;
use althing_proto::stanza::Stanza;

use super::local;
use crate::metrics::Dropped;
use crate::node::NodeContext;
use crate::session::avatar::Avatar;
use crate::session::effect::{Audience, RosterChanged, UserEvent};

/// Tells all sessions of `account`. Full links: see `delivery/remote/overflow.rs`.
pub fn notify(node: &Arc<NodeContext>, account: &BareJid, event: &UserEvent) {
    let (mut here, mut elsewhere) = (Vec::new(), BTreeSet::<NodeId>::new());
    node.routes.visit_account(account, &mut |_, route| {
        if route.node == node.node_id {
            here.push(route.index);
        } else {
            elsewhere.insert(route.node);
        }
    });
    for index in here {
        local::notify(node, index, event);
    }
    if elsewhere.is_empty() {
        return;
    }
    let task = match to_task(account, event) {
        Ok(task) => task,
        Err(problem) => {
            error!(jid = %account, error = %problem, "the event cannot be sent to other nodes");
            node.metrics.dropped(Dropped::Undeliverable);
            return;
        }
    };
    for target in elsewhere {
        node.remote.overflow().tell(node, target, task.clone());
    }
}

/// Tells one session, wherever it is now, of an event; on another node those of its account hear of it too.
pub async fn notify_session(node: &Arc<NodeContext>, jid: &FullJid, event: &UserEvent) {
    let Some(route) = node.routes.locate(jid) else { return };
    if route.node == node.node_id {
        if let Some(session) = local::session_soon(node, jid, route.index).await {
            local::notify(node, session.index, event);
        }
        return;
    }
    match to_task(&jid.to_bare(), event) {
        Ok(task) => node.remote.overflow().tell(node, route.node, task),
        Err(problem) => {
            error!(%jid, error = %problem, "the event cannot be sent to other nodes");
            node.metrics.dropped(Dropped::Undeliverable);
        }
    }
}

/// The task that tells another node's sessions of the event.
fn to_task(account: &BareJid, event: &UserEvent) -> Result<ClusterTask, WireError> {
    let account = account.clone();
    Ok(match event {
        UserEvent::Roster(change) => PushRosterItem { account, item: encode(change)? }.into(),
        UserEvent::Probe { from } => ProbeAccount { account, from: from.clone() }.into(),
        UserEvent::Avatar(Avatar { revision, hash }) => {
            ShowAvatar { account, revision: *revision, hash: hash.clone() }.into()
        }
        UserEvent::Removed => EndAccount { account }.into(),
        UserEvent::Drain => DrainInbox { account }.into(),
        UserEvent::Archive => ReadPreferences { account }.into(),
        UserEvent::Stanza { stanza, audience } => {
            let audience = match audience {
                Audience::Available => TaskAudience::Available,
                Audience::Interested => TaskAudience::Interested,
            };
            DeliverToAccount { account, audience, xml: Bytes::from(stanza.to_standalone()) }.into()
        }
        UserEvent::Privacy(change) => {
            let change = Bytes::from(wire::encode(&**change)?);
            PushPrivacyChange { account, change }.into()
        }
    })
}

/// [`RosterChanged`] between nodes. Fields never change: what must becomes another type under a task of its own.
#[derive(Serialize, Deserialize)]
struct Wire {
    version: u64,
    contact: BareJid,
    subscription: Subscription,
    pending: Option<Bytes>,
    push: Option<Bytes>,
}

/// A roster change as bytes, for [`PushRosterItem`].
///
/// # Errors
/// As [`wire::encode`].
pub fn encode(change: &RosterChanged) -> Result<Bytes, WireError> {
    let change = change.clone();
    let wire = Wire {
        version: change.version,
        contact: change.contact,
        subscription: change.subscription,
        pending: change.pending,
        push: change.push.map(|push| Bytes::from(push.to_standalone())),
    };
    wire::encode(&wire).map(Bytes::from)
}

/// Reads what [`encode`] wrote.
///
/// # Errors
/// [`WireError`] for damage.
pub fn decode(bytes: &[u8]) -> Result<RosterChanged, WireError> {
    let Wire { version, contact, subscription, pending, push } = wire::decode(bytes)?;
    let parse =
        |xml: Bytes| Stanza::from_standalone(&xml).ok_or_else(|| WireError::Malformed("the push".to_owned()));
    Ok(RosterChanged { version, contact, subscription, pending, push: push.map(parse).transpose()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nodes of two releases must read each other's changes.
    #[test]
    fn golden_bytes_of_a_roster_change() {
        let push = "<iq xmlns='jabber:client' type='set' id='p'><q xmlns='x:y'/></iq>";
        let push = Stanza::parse(push.parse().unwrap()).unwrap();
        let change = RosterChanged {
            version: 300,
            contact: BareJid::new("a@b").unwrap(),
            subscription: Subscription::Both,
            pending: Some(Bytes::from_static(b"<x/>")),
            push: Some(push),
        };
        let bytes = encode(&change).unwrap();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let push: String =
            change.push.iter().flat_map(Stanza::to_standalone).map(|byte| format!("{byte:02x}")).collect();
        let golden = format!("fb2c01036140620301043c782f3e01{:02x}{push}", push.len() / 2);
        assert_eq!(hex, golden);
        let back = decode(&bytes).unwrap();
        assert_eq!(
            (back.version, back.contact, back.subscription),
            (300, change.contact, Subscription::Both)
        );
        assert_eq!(back.push.unwrap().to_bytes(), change.push.unwrap().to_bytes());
        assert!(decode(&bytes[..bytes.len() - 1]).is_err());
    }
}
