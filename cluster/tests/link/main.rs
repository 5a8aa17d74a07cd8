//! Links between nodes over real TLS on loopback.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "the whole crate is a test")]

mod admission;
mod discovery;
mod faults;
mod members;
mod order;
mod support;
mod tasks;
