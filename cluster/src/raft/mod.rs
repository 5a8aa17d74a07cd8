//! The Raft groups: what orders the commands of all nodes. Everything of openraft's stays in here.

mod answers;
pub mod barrier;
pub(crate) mod fatal;
pub mod group;
mod leader;
pub mod log_store;
pub mod membership;
mod network;
mod pace;
pub mod proposer;
pub mod raft_routes;
mod rpc;
pub(crate) mod service;
pub mod snapshot;
pub mod spool;
pub mod state_machine;
pub mod store_machine;
pub mod types;
pub(crate) mod yielding;

/// What keeps openraft's own words out of a log: it tells every vote at info level, and warns ten times a second of a
/// node that is away. The leader warns once when it declares a node down.
pub const QUIET_LOG: &str = "openraft=error";

pub use barrier::Barrier;
pub use group::{GroupError, GroupHandle, GroupNumbers, GroupTimes};
pub use log_store::{LogOptions, LogReader, LogStore};
pub use membership::RaftGroup;
pub(crate) use network::ask_member;
pub use proposer::{ProposeError, Proposer};
pub use raft_routes::RaftRoutes;
pub use spool::{Spool, SpoolFile};
pub use state_machine::{AppliedRoutes, RouteStateMachine};
pub use store_machine::{StoreMachine, StoreSnapshot, StoreSpool};
pub use types::{Group, Member, RouteGroup, StoreBatch, StoreGroup, StoreReplies};

#[cfg(test)]
mod tests;
