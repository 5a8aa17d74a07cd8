//! Appendix A of RFC 6121 as a table: nine states, two directions, four stanza types.

use serde::{Deserialize, Serialize};

use super::item::Subscription;

/// The four presence types that manage subscriptions (RFC 6121 §4.7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SubscriptionKind {
    /// The sender asks for the receiver's presence (§3.1).
    Subscribe,
    /// The sender grants the receiver its presence (§3.1).
    Subscribed,
    /// The sender no longer wants the receiver's presence (§3.3).
    Unsubscribe,
    /// The sender denies a request or withdraws a grant (§3.2).
    Unsubscribed,
}

impl SubscriptionKind {
    /// The value of the presence stanza's `type` attribute.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            SubscriptionKind::Subscribe => "subscribe",
            SubscriptionKind::Subscribed => "subscribed",
            SubscriptionKind::Unsubscribe => "unsubscribe",
            SubscriptionKind::Unsubscribed => "unsubscribed",
        }
    }

    /// The kind that a `type` attribute names; `None` for every other presence type.
    #[must_use]
    pub fn from_type(text: &str) -> Option<Self> {
        Some(match text {
            "subscribe" => SubscriptionKind::Subscribe,
            "subscribed" => SubscriptionKind::Subscribed,
            "unsubscribe" => SubscriptionKind::Unsubscribe,
            "unsubscribed" => SubscriptionKind::Unsubscribed,
            _ => return None,
        })
    }
}

/// Which way a subscription stanza goes, seen from the owner of the roster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Direction {
    /// From the owner to the contact (Appendix A.2).
    Outbound,
    /// From the contact to the owner (Appendix A.3).
    Inbound,
}

/// A subscription state (Appendix A.1). Of the sixteen combinations of its parts the table reaches
/// nine: a half that is granted has no request pending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct State {
    /// The owner receives the contact's presence.
    pub to: bool,
    /// The contact receives the owner's presence.
    pub from: bool,
    /// The owner's request waits for the contact's answer.
    pub pending_out: bool,
    /// The contact's request waits for the owner's answer.
    pub pending_in: bool,
}

impl State {
    /// The state without its pending requests.
    #[must_use]
    pub const fn subscription(self) -> Subscription {
        Subscription::new(self.to, self.from)
    }
}

/// What a subscription stanza does to a state: one cell of Appendix A.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    /// The new state.
    pub state: State,
    /// Outbound: whether the stanza is routed to the contact. Inbound: whether it is delivered to
    /// the owner.
    pub pass: bool,
    /// The stanza with which the server answers the contact in the owner's name.
    pub reply: Option<SubscriptionKind>,
    /// Whether the owner's pre-approval of the contact stands afterwards (§3.4).
    pub approved: bool,
}

/// Looks up Appendix A: what a stanza of `kind` going in `direction` does to `state`, given whether
/// the owner has approved the contact beforehand (§3.4).
#[must_use]
pub fn transition(state: State, approved: bool, direction: Direction, kind: SubscriptionKind) -> Transition {
    use Direction::{Inbound, Outbound};
    use SubscriptionKind::{Subscribe, Subscribed, Unsubscribe, Unsubscribed};

    let keep = Transition { state, pass: false, reply: None, approved };
    let pass = Transition { pass: true, ..keep };
    match (direction, kind) {
        // A.2.1. Routed in every state: the contact's server may have lost what it knew.
        (Outbound, Subscribe) if state.to => pass,
        (Outbound, Subscribe) => Transition { state: State { pending_out: true, ..state }, ..pass },

        // A.2.2. Routed in every state.
        (Outbound, Unsubscribe) => {
            Transition { state: State { to: false, pending_out: false, ..state }, ..pass }
        }

        // A.2.3. Without a request to answer it is a pre-approval, which is not routed (§3.4.2).
        (Outbound, Subscribed) if state.from => keep,
        (Outbound, Subscribed) if state.pending_in => {
            Transition { state: State { from: true, pending_in: false, ..state }, ..pass }
        }
        (Outbound, Subscribed) => Transition { approved: true, ..keep },

        // A.2.4. It withdraws a pre-approval too, of which the contact never heard (§3.4.2).
        (Outbound, Unsubscribed) if state.from || state.pending_in => {
            Transition { state: State { from: false, pending_in: false, ..state }, approved: false, ..pass }
        }
        (Outbound, Unsubscribed) => Transition { approved: false, ..keep },

        // A.3.1. Whoever is subscribed already, or approved beforehand, is answered by the server.
        (Inbound, Subscribe) if state.from => Transition { reply: Some(Subscribed), ..keep },
        (Inbound, Subscribe) if approved => Transition {
            state: State { from: true, pending_in: false, ..state },
            reply: Some(Subscribed),
            ..keep
        },
        (Inbound, Subscribe) if state.pending_in => keep,
        (Inbound, Subscribe) => Transition { state: State { pending_in: true, ..state }, ..pass },

        // A.3.2.
        (Inbound, Unsubscribe) if state.from || state.pending_in => {
            Transition { state: State { from: false, pending_in: false, ..state }, ..pass }
        }
        (Inbound, Unsubscribe) => keep,

        // A.3.3. Nobody can make the owner subscribe: a grant counts only if it was asked for.
        (Inbound, Subscribed) if state.pending_out => {
            Transition { state: State { to: true, pending_out: false, ..state }, ..pass }
        }
        (Inbound, Subscribed) => keep,

        // A.3.4.
        (Inbound, Unsubscribed) if state.to || state.pending_out => {
            Transition { state: State { to: false, pending_out: false, ..state }, ..pass }
        }
        (Inbound, Unsubscribed) => keep,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Direction::{Inbound, Outbound};
    use SubscriptionKind::{Subscribe, Subscribed, Unsubscribe, Unsubscribed};

    /// The names of Appendix A.1, shortened: `N+POI` is "None + Pending Out+In".
    fn state(name: &str) -> State {
        let (base, pending) = name.split_once('+').unwrap_or((name, ""));
        State {
            to: matches!(base, "T" | "B"),
            from: matches!(base, "F" | "B"),
            pending_out: pending.contains('O'),
            pending_in: pending.contains('I'),
        }
    }

    const STATES: [&str; 9] = ["N", "N+PO", "N+PI", "N+POI", "T", "T+PI", "F", "F+PO", "B"];

    /// One table of Appendix A, checked against the RFC cell by cell: 9 states, 8 tables, all 72. A column of "pass on?" and a column of new states, `-` for none.
    fn check(direction: Direction, kind: SubscriptionKind, pass: [bool; 9], new: [&str; 9]) {
        for ((old, pass), new) in STATES.into_iter().zip(pass).zip(new) {
            let found = transition(state(old), false, direction, kind);
            let new = if new == "-" { old } else { new };
            assert_eq!(found.state, state(new), "{direction:?} {kind:?} in {old}");
            assert_eq!(found.pass, pass, "{direction:?} {kind:?} in {old}: pass");
        }
    }

    const Y: bool = true;
    const X: bool = false;

    #[test]
    fn a_2_1_outbound_subscribe() {
        check(Outbound, Subscribe, [Y; 9], ["N+PO", "-", "N+POI", "-", "-", "-", "F+PO", "-", "-"]);
    }

    #[test]
    fn a_2_2_outbound_unsubscribe() {
        check(Outbound, Unsubscribe, [Y; 9], ["-", "N", "-", "N+PI", "N", "N+PI", "-", "F", "F"]);
    }

    #[test]
    fn a_2_3_outbound_subscribed() {
        check(
            Outbound,
            Subscribed,
            [X, X, Y, Y, X, Y, X, X, X],
            ["-", "-", "F", "F+PO", "-", "B", "-", "-", "-"],
        );
    }

    #[test]
    fn a_2_4_outbound_unsubscribed() {
        check(
            Outbound,
            Unsubscribed,
            [X, X, Y, Y, X, Y, Y, Y, Y],
            ["-", "-", "N", "N+PO", "-", "T", "N", "N+PO", "T"],
        );
    }

    #[test]
    fn a_3_1_inbound_subscribe() {
        check(
            Inbound,
            Subscribe,
            [Y, Y, X, X, Y, X, X, X, X],
            ["N+PI", "N+POI", "-", "-", "T+PI", "-", "-", "-", "-"],
        );
    }

    #[test]
    fn a_3_2_inbound_unsubscribe() {
        check(
            Inbound,
            Unsubscribe,
            [X, X, Y, Y, X, Y, Y, Y, Y],
            ["-", "-", "N", "N+PO", "-", "T", "N", "N+PO", "T"],
        );
    }

    #[test]
    fn a_3_3_inbound_subscribed() {
        check(
            Inbound,
            Subscribed,
            [X, Y, X, Y, X, X, X, Y, X],
            ["-", "T", "-", "T+PI", "-", "-", "-", "B", "-"],
        );
    }

    #[test]
    fn a_3_4_inbound_unsubscribed() {
        check(
            Inbound,
            Unsubscribed,
            [X, Y, X, Y, Y, Y, X, Y, Y],
            ["-", "N", "-", "N+PI", "N", "N+PI", "-", "F", "F"],
        );
    }

    #[test]
    fn only_a_known_or_approved_subscriber_is_answered() {
        for old in STATES {
            for direction in [Outbound, Inbound] {
                for kind in [Subscribe, Subscribed, Unsubscribe, Unsubscribed] {
                    let expected = (direction, kind) == (Inbound, Subscribe) && state(old).from;
                    let found = transition(state(old), false, direction, kind).reply;
                    assert_eq!(found, expected.then_some(Subscribed), "{direction:?} {kind:?} in {old}");
                }
            }
        }
    }

    /// A pre-approval is asked about in one cell only: a request of whom the owner does not yet grant anything. In all
    /// others the states and routes are those of the tables above.
    #[test]
    fn pre_approval_changes_no_other_cell() {
        for old in STATES {
            for direction in [Outbound, Inbound] {
                for kind in [Subscribe, Subscribed, Unsubscribe, Unsubscribed] {
                    if (direction, kind) == (Inbound, Subscribe) && !state(old).from {
                        continue;
                    }
                    let [with, without] =
                        [true, false].map(|approved| transition(state(old), approved, direction, kind));
                    let seen = |found: Transition| (found.state, found.pass, found.reply);
                    assert_eq!(seen(with), seen(without), "{direction:?} {kind:?} in {old}");
                }
            }
        }
    }

    /// §3.4.2: the three lists of states of an outbound `subscribed`.
    #[test]
    fn pre_approval_is_noted_only_where_nothing_is_pending_or_granted() {
        for (old, noted) in STATES.into_iter().zip([Y, Y, X, X, Y, X, X, X, X]) {
            assert_eq!(transition(state(old), false, Outbound, Subscribed).approved, noted, "{old}");
        }
    }

    #[test]
    fn pre_approval_grants_the_request_without_asking_the_owner() {
        for (old, new) in [("N", "F"), ("N+PO", "F+PO"), ("T", "B")] {
            let found = transition(state(old), true, Inbound, Subscribe);
            assert_eq!(found.state, state(new), "{old}");
            assert_eq!((found.pass, found.reply), (false, Some(Subscribed)), "{old}");
        }
    }

    #[test]
    fn unsubscribed_withdraws_a_pre_approval_and_tells_nobody() {
        for old in ["N", "N+PO", "T"] {
            let found = transition(state(old), true, Outbound, Unsubscribed);
            assert_eq!((found.state, found.pass, found.approved), (state(old), false, false), "{old}");
        }
        assert!(!transition(state("F"), true, Outbound, Unsubscribed).approved);
    }

    #[test]
    fn only_the_nine_states_are_reached() {
        for old in STATES {
            for direction in [Outbound, Inbound] {
                for kind in [Subscribe, Subscribed, Unsubscribe, Unsubscribed] {
                    for approved in [false, true] {
                        let new = transition(state(old), approved, direction, kind).state;
                        assert!(STATES.iter().any(|name| state(name) == new), "{old} -> {new:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn types_read_and_write_alike() {
        for kind in [Subscribe, Subscribed, Unsubscribe, Unsubscribed] {
            assert_eq!(SubscriptionKind::from_type(kind.as_str()), Some(kind));
        }
        assert_eq!(SubscriptionKind::from_type("unavailable"), None);
    }
}
