//! The session: one bound resource. A pure core that decides, an actor that performs.

pub mod acks;
pub mod actor;
pub mod admission;
pub mod avatar;
pub mod copies;
pub mod core;
pub mod effect;
pub mod ending;
pub mod giving;
pub mod handed_over;
pub mod held;
pub mod inbound;
pub mod logouts;
pub mod losses;
pub mod lost_lease;
pub mod messages;
pub mod noted;
pub mod orphans;
pub mod outbox;
pub mod pressure;
pub mod pushes;
pub mod receipts;
pub mod records;
pub mod registry;
pub mod remembered;
pub mod requests;
pub mod rules;
pub mod seen;
pub mod sent;
pub mod shown;

pub use registry::{SessionHandle, SessionRegistry};

#[cfg(test)]
mod tests;
