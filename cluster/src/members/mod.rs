//! Who belongs to the cluster: how a node finds it, joins it, and which members vote.
//!
//! | module        | what                                                              |
//! |---------------|-------------------------------------------------------------------|
//! | [`dead`]      | whether the process of a peer is known to be gone                  |
//! | [`discovery`] | answers to nodes that ask who is here, or want to join             |
//! | [`group`]     | a Raft group, as this module sees it                               |
//! | [`identity`]  | what a node keeps on its disk: its cluster, and how often it started |
//! | [`keeper`]    | keeps the right members voting, on the node that leads             |
//! | [`message`]   | what is asked and answered on the discovery lane                   |
//! | [`name`]      | PURE: the order of names                                           |
//! | [`plan`]      | PURE: join, begin a cluster, or wait                               |
//! | [`settle`]    | the start of a node: asks, and does what the plan says             |
//! | [`voters`]    | PURE: which members should vote                                    |

pub mod dead;
pub mod discovery;
pub mod group;
pub mod identity;
pub mod keeper;
pub mod message;
pub mod name;
pub mod plan;

pub mod settle;
pub mod voters;

pub use discovery::Discovery;
pub use group::{Change, Group, GroupError, GroupName, GroupView};
pub use identity::{ClusterIdentity, IdentityFile};
pub use message::Place;
pub use settle::{Asker, Seed, Settle, SettleError, Settled};
