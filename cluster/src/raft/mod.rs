//! The Raft groups: what orders the commands of all nodes. Everything of openraft's stays in here.

pub mod log_store;
pub mod membership;
pub mod snapshot;
pub mod state_machine;
pub mod types;

pub use log_store::{LogOptions, LogReader, LogStore};
pub use membership::RaftGroup;
pub use state_machine::{AppliedRoutes, RouteStateMachine};
pub use types::{Member, RouteGroup};
