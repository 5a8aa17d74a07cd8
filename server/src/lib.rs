//! The Althing node. Modules in the order of the way of one stanza (ARCHITECTURE.md).

pub mod delivery;
pub mod listener;
pub mod modules;
pub mod pipeline;
pub mod router;
pub mod session;
pub mod stream;
pub mod task_executor;

pub mod aside;
pub mod auth;
pub mod components;
pub mod storage;

pub mod admin;
pub mod backup;
pub mod cli;
pub mod clock;
mod cluster_node;
pub mod config;
mod faults;
pub mod identity;
pub mod metrics;
pub mod node;
pub mod queues;
pub mod statistics;
pub mod telemetry;
pub mod turns;
