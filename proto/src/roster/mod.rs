//! Roster items and the subscription table (RFC 6121 §2, §3, Appendix A).
//!
//! | file             | what                                                                  |
//! |------------------|-----------------------------------------------------------------------|
//! | [`item`]         | one row of a roster, and what of it a client may see                  |
//! | [`subscription`] | Appendix A as a table: nine states, two directions, four stanza types |
//! | [`change`]       | [`apply`]: roster sets, removals and presence stanzas to one item     |
//!
//! Storage calls [`apply`] with the row it has and keeps the row it gets back; the server then
//! performs the rest of the [`RosterOutcome`]: pushes, routing, replies, presence.

pub mod change;
pub mod item;
pub mod subscription;

pub use change::{PresenceChange, RosterChange, RosterError, RosterOutcome, SubscriptionEvent, apply};
pub use item::{MAX_GROUPS, MAX_REQUEST_BYTES, MAX_TEXT_BYTES, RosterItem, Subscription};
pub use subscription::{Direction, State, SubscriptionKind, Transition, transition};
