//! PURE: the delivery rules of RFC 6121 §8.5 as a table.
//!
//! | stanza             | bare JID, someone available (§8.5.2.1) | bare JID, nobody (§8.5.1, §8.5.2.2) | full JID there (§8.5.3.1) | full JID absent (§8.5.3.2) |
//! |--------------------|------------------------|---------------------|---------|------------------------|
//! | message normal     | most available         | keep                | deliver | bounce                 |
//! | message chat       | most available         | keep                | deliver | as to the bare JID     |
//! | message headline   | all non-negative       | ignore              | deliver | ignore                 |
//! | message groupchat  | bounce                 | bounce              | deliver | bounce                 |
//! | message error      | ignore                 | ignore              | deliver | ignore                 |
//! | presence (un)available | all available      | ignore              | deliver | ignore                 |
//! | presence subscribe… | account               | account             | account | account                |
//! | presence probe     | account                | account             | deliver | ignore                 |
//! | presence error     | ignore                 | ignore              | deliver | ignore                 |
//! | iq get, set        | account                | account             | deliver | bounce                 |
//! | iq result, error   | account                | account             | deliver | ignore                 |
//!
//! "Bounce" is `service-unavailable` to the sender. An account that does not exist looks like one where
//! nobody is available, so that nobody can tell them apart. "Keep" is what `server/src/delivery/keeping.rs` says of the
//! message: it waits for the account (XEP-0160), or is bounced. Where the RFC allows several ways:
//!
//! - "Most available" (§8.5.2.1.1) are all resources of the highest priority. A user sets a priority to say where
//!   messages are to go, and most set none: then all get them. Those of lower priority that want every message enable
//!   carbons (XEP-0280), whose copies go to whomever the rules pass over; to all would make two of each.
//! - Normal and groupchat messages to an absent full JID bounce rather than vanish, headlines vanish (§8.5.3.2.1 leaves
//!   it open): who sends a headline expects no answer.
//! - A message or subscription for an account that does not exist is like one for an account where nobody is (§8.5.1).
//! - Errors of presence to a bare JID, which the RFC does not speak of, go nowhere: no resource has sent the cause.

use althing_proto::stanza::{IqType, Kind, MessageType, PresenceType};

/// Who is there at the addressed account or resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// A bare JID; whether any available session has a non-negative priority, and whether any is available.
    Account {
        /// Some session is available with a priority of at least 0.
        reachable: bool,
    },
    /// A full JID with a session.
    ResourceBound,
    /// A full JID without one; whether its account is reachable as above.
    ResourceAbsent {
        /// Some session of the account is available with a priority of at least 0.
        reachable: bool,
    },
}

/// What to do with a stanza.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// To the one session that the full JID names.
    ToResource,
    /// To the available sessions of the highest priority, none below 0.
    ToMostAvailable,
    /// To every available session with a priority of at least 0.
    ToNonNegative,
    /// To every available session.
    ToAvailable,
    /// To the server, on behalf of the account.
    ToAccount,
    /// It waits until somebody is there, if it is one to be kept; else back to the sender.
    Keep,
    /// Back to the sender with `service-unavailable`.
    Bounce,
    /// Nothing: silence is what the RFC asks for. Counted.
    Ignore,
}

/// The table.
#[must_use]
pub fn rule(kind: Kind, there: Presence) -> Rule {
    use Presence::{Account, ResourceAbsent, ResourceBound};

    match (kind, there) {
        // Subscriptions concern accounts whatever the address says (RFC 6121 §3.1.2: servers handle the bare JID).
        (Kind::Presence(presence), _) if presence.is_subscription() => Rule::ToAccount,
        (_, ResourceBound) => Rule::ToResource,
        (Kind::Message(message), Account { reachable }) => match message {
            MessageType::Normal | MessageType::Chat if reachable => Rule::ToMostAvailable,
            MessageType::Headline if reachable => Rule::ToNonNegative,
            MessageType::Normal | MessageType::Chat => Rule::Keep,
            MessageType::Groupchat => Rule::Bounce,
            MessageType::Headline | MessageType::Error => Rule::Ignore,
        },
        (Kind::Message(message), ResourceAbsent { reachable }) => match message {
            MessageType::Chat if reachable => Rule::ToMostAvailable,
            MessageType::Chat => Rule::Keep,
            MessageType::Normal | MessageType::Groupchat => Rule::Bounce,
            MessageType::Headline | MessageType::Error => Rule::Ignore,
        },
        (Kind::Presence(presence), Account { .. }) => match presence {
            PresenceType::Available | PresenceType::Unavailable => Rule::ToAvailable,
            PresenceType::Probe => Rule::ToAccount,
            _ => Rule::Ignore,
        },
        (Kind::Presence(_), ResourceAbsent { .. }) => Rule::Ignore,
        (Kind::Iq(_), Account { .. }) => Rule::ToAccount,
        (Kind::Iq(IqType::Get | IqType::Set), ResourceAbsent { .. }) => Rule::Bounce,
        (Kind::Iq(IqType::Result | IqType::Error), ResourceAbsent { .. }) => Rule::Ignore,
    }
}

/// The highest priority among those of available sessions, if any is at least 0.
#[must_use]
pub fn top_priority(priorities: impl Iterator<Item = i8>) -> Option<i8> {
    priorities.filter(|priority| *priority >= 0).max()
}

/// The lowest priority of the available sessions that a rule is for; `None` where it is for none of them.
/// `priorities` are those of the available sessions.
#[must_use]
pub fn least_priority(rule: Rule, priorities: impl Iterator<Item = i8>) -> Option<i8> {
    match rule {
        Rule::ToAvailable => Some(i8::MIN),
        Rule::ToNonNegative => Some(0),
        Rule::ToMostAvailable => top_priority(priorities),
        Rule::ToResource | Rule::ToAccount | Rule::Keep | Rule::Bounce | Rule::Ignore => None,
    }
}

#[cfg(test)]
mod tests;
