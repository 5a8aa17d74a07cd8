//! One row of a roster, and what of it a client may see (RFC 6121 §2.1.2).

use serde::{Deserialize, Serialize};

use super::subscription::{State, SubscriptionKind};
use crate::jid::BareJid;

/// Longest name and longest group name, in bytes. RFC 6121 §2.3.3 leaves the number to the server;
/// this is that of a JID part (RFC 7622 §3.1).
pub const MAX_TEXT_BYTES: usize = 1_023;

/// Most groups of one item.
pub const MAX_GROUPS: usize = 64;

/// Longest presence stanza kept for a subscription request that waits for its answer, in bytes.
/// A longer one is replaced by a bare request without its extended content.
pub const MAX_REQUEST_BYTES: usize = 4_096;

/// Who receives whose presence (RFC 6121 §2.1.2.5), seen from the owner of the roster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Subscription {
    /// Neither side receives the other's presence.
    #[default]
    None,
    /// The owner receives the contact's presence.
    To,
    /// The contact receives the owner's presence.
    From,
    /// Both sides receive each other's presence.
    Both,
}

impl Subscription {
    /// The subscription with these two halves.
    #[must_use]
    pub const fn new(to: bool, from: bool) -> Self {
        match (to, from) {
            (false, false) => Subscription::None,
            (true, false) => Subscription::To,
            (false, true) => Subscription::From,
            (true, true) => Subscription::Both,
        }
    }

    /// Whether the owner receives the contact's presence.
    #[must_use]
    pub const fn is_to(self) -> bool {
        matches!(self, Subscription::To | Subscription::Both)
    }

    /// Whether the contact receives the owner's presence.
    #[must_use]
    pub const fn is_from(self) -> bool {
        matches!(self, Subscription::From | Subscription::Both)
    }

    /// The value of the `subscription` attribute.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Subscription::None => "none",
            Subscription::To => "to",
            Subscription::From => "from",
            Subscription::Both => "both",
        }
    }
}

/// What a roster's owner and the server know of one contact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RosterItem {
    /// The contact.
    pub jid: BareJid,
    /// The owner's name for the contact (§2.1.2.4).
    pub name: Option<String>,
    /// The owner's groups, in the order given (§2.1.2.6); no two are equal.
    pub groups: Vec<String>,
    /// Who receives whose presence (§2.1.2.5).
    pub subscription: Subscription,
    /// Whether the owner's request waits for the contact's answer: `ask='subscribe'` (§2.1.2.2).
    pub ask: bool,
    /// Whether the owner approved a future request of the contact: `approved='true'` (§3.4).
    pub approved: bool,
    /// The contact's request that waits for the owner's answer: the whole presence stanza, to be
    /// delivered again whenever the owner comes online (§3.1.3). At most [`MAX_REQUEST_BYTES`].
    pub pending_in: Option<Vec<u8>>,
    /// Whether the contact is in the roster. An item that stands only for a request that waits is
    /// not: no roster result or push may show it (§3.1.3, Appendix A.1).
    pub listed: bool,
}

impl RosterItem {
    /// An item in state "None" that is in the roster.
    #[must_use]
    pub fn new(jid: BareJid) -> Self {
        RosterItem {
            jid,
            name: None,
            groups: Vec::new(),
            subscription: Subscription::None,
            ask: false,
            approved: false,
            pending_in: None,
            listed: true,
        }
    }

    /// The state of the subscription (Appendix A.1).
    #[must_use]
    pub const fn state(&self) -> State {
        State {
            to: self.subscription.is_to(),
            from: self.subscription.is_from(),
            pending_out: self.ask,
            pending_in: self.pending_in.is_some(),
        }
    }

    /// What the owner's side tells the contact so that nothing between them is left, requests that wait for an answer
    /// included (§2.5.2).
    pub fn cancellations(&self) -> impl Iterator<Item = SubscriptionKind> + use<> {
        let State { to, from, pending_out, pending_in } = self.state();
        let ends = [
            (to || pending_out, SubscriptionKind::Unsubscribe),
            (from || pending_in, SubscriptionKind::Unsubscribed),
        ];
        ends.into_iter().filter_map(|(due, kind)| due.then_some(kind))
    }

    /// Whether roster results and pushes would show both items the same. A request that waits for
    /// the owner's answer is never shown.
    #[must_use]
    pub fn looks_like(&self, other: &RosterItem) -> bool {
        self.listed == other.listed
            && (!self.listed
                || (self.jid == other.jid
                    && self.name == other.name
                    && self.groups == other.groups
                    && self.subscription == other.subscription
                    && self.ask == other.ask
                    && self.approved == other.approved))
    }
}
