//! One change of one roster item: roster sets, removals and subscription stanzas (RFC 6121 §2.3–§2.5, §3).

use serde::{Deserialize, Serialize};

use super::item::{MAX_GROUPS, MAX_REQUEST_BYTES, MAX_TEXT_BYTES, RosterItem, Subscription};
use super::subscription::{Direction, SubscriptionKind, transition};
use crate::jid::BareJid;

/// A change of one roster item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RosterChange {
    /// A roster set without `subscription='remove'` (§2.3, §2.4): adds the contact, or gives it
    /// another name and other groups. Subscriptions cannot be changed this way (§2.1.2.5).
    Set {
        /// The owner's name for the contact.
        name: Option<String>,
        /// The owner's groups.
        groups: Vec<String>,
    },
    /// A roster set with `subscription='remove'` (§2.5).
    Remove,
    /// A presence stanza that manages the subscription (§3).
    Subscription(SubscriptionEvent),
}

/// A presence stanza that manages a subscription, as the owner's server sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionEvent {
    /// Whether the owner or the contact sent it.
    pub direction: Direction,
    /// Its type.
    pub kind: SubscriptionKind,
    /// The complete stanza as XML bytes; kept of an inbound `subscribe` only (§3.1.3). Without it,
    /// or if it is longer than [`MAX_REQUEST_BYTES`], a bare request is kept.
    pub request: Option<Vec<u8>>,
}

/// Halves of the subscription that a change began or ended, so that the server can send presence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PresenceChange {
    /// The contact may see the owner from now on: send it the owner's current presence (§3.1.5).
    pub contact_gained: bool,
    /// The contact may no longer see the owner: send it unavailable presence from each of the
    /// owner's available resources (§3.2.2, §3.3.3).
    pub contact_lost: bool,
    /// The owner may see the contact from now on (§3.1.6).
    pub owner_gained: bool,
    /// The owner may no longer see the contact (§3.2.3, §3.3.2).
    pub owner_lost: bool,
}

/// What a change leads to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RosterOutcome {
    /// The item afterwards, to be stored; `None`: no item is kept.
    pub item: Option<RosterItem>,
    /// Whether the interested resources get a roster push (§2.1.6): of `item` if it is listed, else
    /// of the removal. Always for a roster set or removal, otherwise when they would see a difference.
    pub push: bool,
    /// An outbound stanza: whether it goes on to the contact. An inbound one: whether it is
    /// delivered to the owner. `false` for roster sets and removals.
    pub route: bool,
    /// A stanza that the server sends to the contact in the owner's name, in answer to an inbound one.
    pub reply: Option<SubscriptionKind>,
    /// The stanzas that a removal sends to the contact in the owner's name, in this order (§2.5.2).
    pub cancel: Vec<SubscriptionKind>,
    /// Which halves of the subscription began or ended.
    pub presence: PresenceChange,
}

/// Why a change is refused. The server answers with the stanza error named at each. New cases are added at the
/// end: nodes send it to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum RosterError {
    /// Removal of a contact that is not in the roster: `item-not-found` (§2.5.3).
    #[error("the contact is not in the roster")]
    UnknownItem,
    /// A group without a name: `not-acceptable` (§2.3.3).
    #[error("a group has an empty name")]
    EmptyGroup,
    /// The same group twice: `bad-request` (§2.3.3).
    #[error("a group is given twice")]
    DuplicateGroup,
    /// A group's name is longer than [`MAX_TEXT_BYTES`]: `not-acceptable` (§2.3.3).
    #[error("the name of a group is longer than {MAX_TEXT_BYTES} bytes")]
    GroupTooLong,
    /// More groups than [`MAX_GROUPS`]: `not-acceptable`.
    #[error("more than {MAX_GROUPS} groups")]
    TooManyGroups,
    /// The contact's name is longer than [`MAX_TEXT_BYTES`]: `not-acceptable` (§2.3.3).
    #[error("the name is longer than {MAX_TEXT_BYTES} bytes")]
    NameTooLong,
    /// The roster has as many items as it may have: `resource-constraint` (RFC 6120 §8.3.3.18).
    #[error("the roster is full")]
    RosterFull,
    /// As many requests of strangers wait for the owner as may wait: `resource-constraint`.
    #[error("too many subscription requests wait for an answer")]
    TooManyRequests,
}

/// Applies `change` to the owner's item for the contact `jid`. `item` is what the owner's roster has
/// for that contact, `None` if nothing.
///
/// Pure, and the only place that knows what a change means. It knows one item: how many a roster may
/// have is for the caller to check.
///
/// # Errors
/// Any [`RosterError`] but [`RosterError::RosterFull`] and [`RosterError::TooManyRequests`]. The item
/// then stays as it is.
pub fn apply(
    item: Option<RosterItem>,
    jid: &BareJid,
    change: RosterChange,
) -> Result<RosterOutcome, RosterError> {
    match change {
        RosterChange::Set { name, groups } => set(item, jid, name, groups),
        RosterChange::Remove => remove(item),
        RosterChange::Subscription(event) => Ok(subscription(item, jid, event)),
    }
}

fn set(
    item: Option<RosterItem>,
    jid: &BareJid,
    name: Option<String>,
    groups: Vec<String>,
) -> Result<RosterOutcome, RosterError> {
    check_text(name.as_deref(), &groups)?;
    let item =
        RosterItem { name, groups, listed: true, ..item.unwrap_or_else(|| RosterItem::new(jid.clone())) };
    Ok(RosterOutcome { push: true, ..quiet(Some(item)) })
}

fn check_text(name: Option<&str>, groups: &[String]) -> Result<(), RosterError> {
    if name.is_some_and(|name| name.len() > MAX_TEXT_BYTES) {
        return Err(RosterError::NameTooLong);
    }
    if groups.len() > MAX_GROUPS {
        return Err(RosterError::TooManyGroups);
    }
    for (index, group) in groups.iter().enumerate() {
        if group.is_empty() {
            return Err(RosterError::EmptyGroup);
        }
        if group.len() > MAX_TEXT_BYTES {
            return Err(RosterError::GroupTooLong);
        }
        if groups.iter().take(index).any(|earlier| earlier == group) {
            return Err(RosterError::DuplicateGroup);
        }
    }
    Ok(())
}

/// §2.5.2. Requests that wait end with the subscriptions: the contact must not go on waiting for an
/// answer, nor grant later what the owner gave up.
fn remove(item: Option<RosterItem>) -> Result<RosterOutcome, RosterError> {
    let item = item.filter(|item| item.listed).ok_or(RosterError::UnknownItem)?;
    let (old, cancel) = (item.state(), item.cancellations().collect());
    let presence = PresenceChange { contact_lost: old.from, owner_lost: old.to, ..PresenceChange::default() };
    Ok(RosterOutcome { push: true, cancel, presence, ..quiet(None) })
}

fn subscription(before: Option<RosterItem>, jid: &BareJid, event: SubscriptionEvent) -> RosterOutcome {
    let item = before.clone().unwrap_or_else(|| RosterItem { listed: false, ..RosterItem::new(jid.clone()) });
    let old = item.state();
    let found = transition(old, item.approved, event.direction, event.kind);
    let new = found.state;
    let pending_in = match (new.pending_in, item.pending_in) {
        (false, _) => None,
        (true, Some(waiting)) => Some(waiting),
        (true, None) => Some(kept_request(jid, event.request)),
    };
    let subscription = new.subscription();
    // Whatever the owner did or was granted belongs into the roster; a stranger's request does not.
    let listed = item.listed || subscription != Subscription::None || new.pending_out || found.approved;
    let after = RosterItem {
        subscription,
        ask: new.pending_out,
        approved: found.approved,
        pending_in,
        listed,
        ..item
    };
    let after = (after.listed || after.pending_in.is_some()).then_some(after);
    let push = match (&before, &after) {
        (Some(before), Some(after)) => !before.looks_like(after),
        (Some(only), None) | (None, Some(only)) => only.listed,
        (None, None) => false,
    };
    RosterOutcome {
        push,
        route: found.pass,
        reply: found.reply,
        presence: PresenceChange {
            contact_gained: new.from && !old.from,
            contact_lost: old.from && !new.from,
            owner_gained: new.to && !old.to,
            owner_lost: old.to && !new.to,
        },
        ..quiet(after)
    }
}

/// The request to keep: as it came, or a bare one if that is missing or too long.
fn kept_request(jid: &BareJid, request: Option<Vec<u8>>) -> Vec<u8> {
    request.filter(|request| request.len() <= MAX_REQUEST_BYTES).unwrap_or_else(|| {
        // Nodeprep forbids these already; the bytes must stay XML if a later preparation does not.
        let from = jid.as_str().replace('&', "&amp;").replace('<', "&lt;").replace('\'', "&apos;");
        format!("<presence xmlns='jabber:client' from='{from}' type='subscribe'/>").into_bytes()
    })
}

/// An outcome that only stores `item`.
fn quiet(item: Option<RosterItem>) -> RosterOutcome {
    RosterOutcome {
        item,
        push: false,
        route: false,
        reply: None,
        cancel: Vec::new(),
        presence: PresenceChange::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Direction::{Inbound, Outbound};
    use SubscriptionKind::{Subscribe, Subscribed, Unsubscribe, Unsubscribed};

    fn romeo() -> BareJid {
        BareJid::new("romeo@example.net").unwrap()
    }

    fn set_to(name: &str, groups: &[&str]) -> RosterChange {
        RosterChange::Set {
            name: Some(name.to_owned()),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        }
    }

    fn step(item: Option<RosterItem>, direction: Direction, kind: SubscriptionKind) -> RosterOutcome {
        let event = SubscriptionEvent { direction, kind, request: None };
        apply(item, &romeo(), RosterChange::Subscription(event)).unwrap()
    }

    fn walk(steps: &[(Direction, SubscriptionKind)]) -> Option<RosterItem> {
        steps.iter().fold(None, |item, (direction, kind)| step(item, *direction, *kind).item)
    }

    #[test]
    fn a_roster_set_adds_and_changes_and_always_pushes() {
        let added = apply(None, &romeo(), set_to("Romeo", &["Friends"])).unwrap();
        assert!(added.push && !added.route && added.cancel.is_empty());
        let item = added.item.unwrap();
        assert_eq!(
            (item.name.as_deref(), item.groups.as_slice()),
            (Some("Romeo"), &["Friends".to_owned()][..])
        );
        assert_eq!((item.subscription, item.ask, item.listed), (Subscription::None, false, true));

        let both = RosterItem { subscription: Subscription::Both, approved: true, ..item };
        let changed = apply(Some(both.clone()), &romeo(), set_to("R", &[])).unwrap();
        let expected = RosterItem { name: Some("R".to_owned()), groups: vec![], ..both };
        assert_eq!(changed.item.as_ref(), Some(&expected));
        let again = apply(changed.item, &romeo(), set_to("R", &[])).unwrap();
        assert!(again.push, "a set that changes nothing is pushed too");
        assert_eq!(again.presence, PresenceChange::default());
    }

    #[test]
    fn bad_sets_are_refused() {
        let long = "x".repeat(MAX_TEXT_BYTES + 1);
        let many: Vec<String> = (0..=MAX_GROUPS).map(|number| number.to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        for (change, error) in [
            (set_to(&long, &[]), RosterError::NameTooLong),
            (set_to("R", &[""]), RosterError::EmptyGroup),
            (set_to("R", &["a", "b", "a"]), RosterError::DuplicateGroup),
            (set_to("R", &[&long]), RosterError::GroupTooLong),
            (set_to("R", &many), RosterError::TooManyGroups),
        ] {
            assert_eq!(apply(None, &romeo(), change), Err(error));
        }
        assert!(apply(None, &romeo(), set_to(&long[1..], &[&long[1..], "A", "a"])).is_ok());
    }

    #[test]
    fn removal_ends_what_was_there() {
        type Steps = &'static [(Direction, SubscriptionKind)];
        let cases: [(Steps, &[SubscriptionKind], bool, bool); 6] = [
            (&[], &[], false, false),
            (&[(Outbound, Subscribe)], &[Unsubscribe], false, false),
            (&[(Inbound, Subscribe)], &[Unsubscribed], false, false),
            (&[(Outbound, Subscribe), (Inbound, Subscribed)], &[Unsubscribe], false, true),
            (&[(Inbound, Subscribe), (Outbound, Subscribed)], &[Unsubscribed], true, false),
            (
                &[(Outbound, Subscribe), (Inbound, Subscribed), (Inbound, Subscribe), (Outbound, Subscribed)],
                &[Unsubscribe, Unsubscribed],
                true,
                true,
            ),
        ];
        for (steps, cancel, contact_lost, owner_lost) in cases {
            let item = apply(walk(steps), &romeo(), set_to("R", &[])).unwrap().item;
            let removed = apply(item, &romeo(), RosterChange::Remove).unwrap();
            assert_eq!((removed.item, removed.push, removed.route), (None, true, false));
            assert_eq!(removed.cancel, cancel, "{steps:?}");
            let presence = PresenceChange { contact_lost, owner_lost, ..PresenceChange::default() };
            assert_eq!(removed.presence, presence, "{steps:?}");
        }
    }

    #[test]
    fn what_is_not_in_the_roster_cannot_be_removed() {
        assert_eq!(apply(None, &romeo(), RosterChange::Remove), Err(RosterError::UnknownItem));
        let hidden = walk(&[(Inbound, Subscribe)]);
        assert_eq!(apply(hidden, &romeo(), RosterChange::Remove), Err(RosterError::UnknownItem));
    }

    #[test]
    fn the_handshake_pushes_each_visible_step() {
        let asked = step(None, Outbound, Subscribe);
        let item = asked.item.clone().unwrap();
        assert!(asked.push && asked.route && item.ask && item.listed);

        let again = step(asked.item, Outbound, Subscribe);
        assert!(again.route && !again.push, "a repeated request is routed, and nothing new is shown");

        let granted = step(again.item, Inbound, Subscribed);
        let item = granted.item.clone().unwrap();
        assert!(granted.push && granted.route && granted.presence.owner_gained && !item.ask);
        assert_eq!(item.subscription, Subscription::To);

        let unasked = step(granted.item, Inbound, Subscribed);
        assert_eq!((unasked.push, unasked.route), (false, false));

        let ended = step(unasked.item, Outbound, Unsubscribe);
        assert!(ended.push && ended.route && ended.presence.owner_lost);
        assert_eq!(ended.item.unwrap().subscription, Subscription::None, "the contact stays in the roster");
    }

    #[test]
    fn a_strangers_request_waits_unseen() {
        let event =
            SubscriptionEvent { direction: Inbound, kind: Subscribe, request: Some(b"<presence/>".to_vec()) };
        let asked = apply(None, &romeo(), RosterChange::Subscription(event.clone())).unwrap();
        assert!(asked.route && !asked.push && asked.reply.is_none());
        let item = asked.item.clone().unwrap();
        assert!(!item.listed);
        assert_eq!(item.pending_in.as_deref(), Some(&b"<presence/>"[..]));

        let second = SubscriptionEvent { request: Some(b"<other/>".to_vec()), ..event };
        let repeated = apply(asked.item, &romeo(), RosterChange::Subscription(second)).unwrap();
        assert_eq!((repeated.route, repeated.push), (false, false));
        assert_eq!(repeated.item.as_ref(), Some(&item), "the first request is the one that waits");

        let denied = step(repeated.item.clone(), Outbound, Unsubscribed);
        assert_eq!((denied.item, denied.push, denied.route), (None, false, true));
        let taken_back = step(repeated.item.clone(), Inbound, Unsubscribe);
        assert_eq!((taken_back.item, taken_back.push, taken_back.route), (None, false, true));

        let granted = step(repeated.item.clone(), Outbound, Subscribed);
        let now = granted.item.unwrap();
        assert!(granted.push && granted.route && granted.presence.contact_gained && now.listed);
        assert_eq!((now.subscription, now.pending_in), (Subscription::From, None));

        let added = apply(repeated.item, &romeo(), set_to("Romeo", &[])).unwrap().item.unwrap();
        assert!(added.listed && added.pending_in.is_some(), "adding the contact leaves its request waiting");
    }

    #[test]
    fn a_listed_contacts_request_changes_nothing_that_clients_see() {
        let listed = apply(None, &romeo(), set_to("Romeo", &[])).unwrap().item;
        let asked = step(listed.clone(), Inbound, Subscribe);
        assert!(asked.route && !asked.push && asked.item.as_ref().unwrap().pending_in.is_some());
        let denied = step(asked.item, Outbound, Unsubscribed);
        assert_eq!((denied.item, denied.push), (listed, false));
    }

    #[test]
    fn kept_requests_are_bounded() {
        for (request, kept) in [(MAX_REQUEST_BYTES, true), (MAX_REQUEST_BYTES + 1, false)] {
            let bytes = vec![b'x'; request];
            let event =
                SubscriptionEvent { direction: Inbound, kind: Subscribe, request: Some(bytes.clone()) };
            let outcome = apply(None, &romeo(), RosterChange::Subscription(event)).unwrap();
            let waiting = outcome.item.unwrap().pending_in.unwrap();
            assert_eq!(waiting == bytes, kept);
            if !kept {
                let text = String::from_utf8(waiting).unwrap();
                let bare = "<presence xmlns='jabber:client' from='romeo@example.net' type='subscribe'/>";
                assert_eq!(text, bare);
            }
        }
    }

    #[test]
    fn pre_approval_is_kept_and_answers_for_the_owner() {
        let approved = step(None, Outbound, Subscribed);
        let item = approved.item.clone().unwrap();
        assert!(approved.push && !approved.route && item.approved && item.listed);

        let asked = step(approved.item.clone(), Inbound, Subscribe);
        assert!(asked.push && !asked.route && asked.presence.contact_gained);
        assert_eq!(asked.reply, Some(Subscribed));
        assert_eq!(asked.item.unwrap().subscription, Subscription::From);

        let withdrawn = step(approved.item, Outbound, Unsubscribed);
        assert!(withdrawn.push && !withdrawn.route && !withdrawn.item.unwrap().approved);
    }

    #[test]
    fn a_subscriber_who_asks_again_is_answered_without_the_owner() {
        let from = walk(&[(Inbound, Subscribe), (Outbound, Subscribed)]);
        let again = step(from.clone(), Inbound, Subscribe);
        assert_eq!((again.route, again.push, again.reply), (false, false, Some(Subscribed)));
        assert_eq!(again.item, from);
    }

    #[test]
    fn losing_a_subscriber_is_told() {
        let from = walk(&[(Inbound, Subscribe), (Outbound, Subscribed)]);
        for (direction, kind) in [(Outbound, Unsubscribed), (Inbound, Unsubscribe)] {
            let lost = step(from.clone(), direction, kind);
            assert!(lost.push && lost.route && lost.presence.contact_lost, "{direction:?} {kind:?}");
        }
    }

    #[test]
    fn stanzas_about_nobody_leave_no_trace() {
        for (direction, kind, route) in [
            (Outbound, Unsubscribe, true),
            (Outbound, Unsubscribed, false),
            (Inbound, Unsubscribe, false),
            (Inbound, Subscribed, false),
            (Inbound, Unsubscribed, false),
        ] {
            let outcome = step(None, direction, kind);
            assert_eq!(
                (outcome.item, outcome.push, outcome.route),
                (None, false, route),
                "{direction:?} {kind:?}"
            );
        }
    }
}
