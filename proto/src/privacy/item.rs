//! PURE: one rule of a privacy list (XEP-0016 §2.1).

use serde::{Deserialize, Serialize};

use crate::jid::Jid;
use crate::roster::Subscription;
use crate::stanza::{Kind, PresenceType};

/// Kinds of traffic, as a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kinds(u8);

impl Kinds {
    /// None.
    pub const NONE: Kinds = Kinds(0);
    /// Messages to the user.
    pub const MESSAGE: Kinds = Kinds(1);
    /// IQs to the user.
    pub const IQ: Kinds = Kinds(2);
    /// Presence to the user: available or unavailable, and nothing else.
    pub const PRESENCE_IN: Kinds = Kinds(4);
    /// The user's own presence to others: available or unavailable, and nothing else.
    pub const PRESENCE_OUT: Kinds = Kinds(8);
    /// What only a rule without kinds is about: subscriptions, probes, and what else the user sends.
    pub const OTHER: Kinds = Kinds(16);
    /// All: what a rule without kinds is about (§2.13).
    pub const ALL: Kinds = Kinds(31);

    /// Each by itself.
    pub const EACH: [Kinds; 5] =
        [Kinds::MESSAGE, Kinds::IQ, Kinds::PRESENCE_IN, Kinds::PRESENCE_OUT, Kinds::OTHER];

    /// Both sets.
    #[must_use]
    pub const fn or(self, other: Kinds) -> Kinds {
        Kinds(self.0 | other.0)
    }

    /// What is in the first set only.
    #[must_use]
    pub const fn without(self, other: Kinds) -> Kinds {
        Kinds(self.0 & !other.0)
    }

    /// Whether the sets share a kind.
    #[must_use]
    pub const fn meets(self, other: Kinds) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// What a stanza to the user is.
    #[must_use]
    pub const fn inbound(kind: Kind) -> Kinds {
        match kind {
            Kind::Message(_) => Kinds::MESSAGE,
            Kind::Iq(_) => Kinds::IQ,
            Kind::Presence(PresenceType::Available | PresenceType::Unavailable) => Kinds::PRESENCE_IN,
            Kind::Presence(_) => Kinds::OTHER,
        }
    }

    /// What a stanza of the user is.
    #[must_use]
    pub const fn outbound(kind: Kind) -> Kinds {
        match kind {
            Kind::Presence(PresenceType::Available | PresenceType::Unavailable) => Kinds::PRESENCE_OUT,
            _ => Kinds::OTHER,
        }
    }
}

/// Whom a rule is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Subject {
    /// Everybody: the fall-through.
    Any,
    /// An address, and what it stands for ([`keys_of`](super::keys_of)).
    Jid(Jid),
    /// The contacts of a roster group.
    Group(String),
    /// Whoever has exactly this subscription; strangers have [`Subscription::None`].
    Subscription(Subscription),
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// Its place: rules are looked at in ascending order.
    pub order: u32,
    /// Whom it is about.
    pub subject: Subject,
    /// Whether it lets through.
    pub allow: bool,
    /// What it is about.
    pub kinds: Kinds,
}

impl Item {
    /// The address that the rule blocks as the block list does: wholly (XEP-0191 §5).
    #[must_use]
    pub fn blocked(&self) -> Option<&Jid> {
        match &self.subject {
            Subject::Jid(jid) if !self.allow && self.kinds == Kinds::ALL => Some(jid),
            _ => None,
        }
    }

    /// Whether the rule is about this peer.
    #[must_use]
    pub fn is_about(&self, peer: &Jid, subscription: Subscription, groups: &[String]) -> bool {
        match &self.subject {
            Subject::Any => true,
            Subject::Jid(jid) => stands_for(jid, peer),
            Subject::Group(group) => groups.contains(group),
            Subject::Subscription(wanted) => *wanted == subscription,
        }
    }
}

/// Whether an address in a rule stands for `peer` (§2.1): a part that it does not name may be anything.
fn stands_for(jid: &Jid, peer: &Jid) -> bool {
    let node = jid.node().is_none_or(|node| peer.node() == Some(node));
    let resource = jid.resource().is_none_or(|resource| peer.resource() == Some(resource));
    // `domain/resource` names an address without a local part.
    let whole = jid.node().is_some() || jid.resource().is_none() || peer.node().is_none();
    jid.domain() == peer.domain() && node && resource && whole
}

#[cfg(test)]
mod tests {
    use super::*;

    /// XEP-0016 §2.1, XEP-0191 §6: each form of address, and what it is for.
    #[test]
    fn an_address_stands_for_what_it_does_not_name() {
        for (rule, met, not) in [
            ("a@b/c", vec!["a@b/c"], vec!["a@b", "a@b/d", "b/c", "b"]),
            ("a@b", vec!["a@b", "a@b/c"], vec!["x@b", "b", "a@c"]),
            ("b/c", vec!["b/c"], vec!["b", "a@b", "a@b/c"]),
            ("b", vec!["b", "b/c", "a@b", "a@b/c"], vec!["x.b", "a@x"]),
        ] {
            let rule = Jid::new(rule).unwrap();
            for (peers, expected) in [(met, true), (not, false)] {
                for peer in peers {
                    assert_eq!(stands_for(&rule, &Jid::new(peer).unwrap()), expected, "{rule} {peer}");
                }
            }
        }
    }

    #[test]
    fn kinds_are_told_by_direction() {
        let presence = Kind::Presence;
        assert_eq!(Kinds::inbound(presence(PresenceType::Unavailable)), Kinds::PRESENCE_IN);
        assert_eq!(Kinds::inbound(presence(PresenceType::Subscribe)), Kinds::OTHER);
        assert_eq!(Kinds::outbound(presence(PresenceType::Available)), Kinds::PRESENCE_OUT);
        assert_eq!(Kinds::outbound(Kind::Iq(crate::stanza::IqType::Get)), Kinds::OTHER);
        assert!(Kinds::EACH.iter().fold(Kinds::NONE, |all, one| all.or(*one)) == Kinds::ALL);
    }
}
