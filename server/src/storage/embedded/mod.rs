//! The embedded store: sled below the data directory, one writer thread, a few reader threads.
//!
//! | file        | what                                                                        |
//! |-------------|-----------------------------------------------------------------------------|
//! | [`command`] | everything that changes the store, as values with a lasting form             |
//! | [`reply`]   | what a command came to                                                       |
//! | [`query`]   | what can be read from another node, and its answers                          |
//! | `tagged`    | the lasting form of those three                                              |
//! | `upload`    | how a document that is larger than a command gets in                         |
//! | `apply`     | what each command does to the rows; no clock, no randomness                  |
//! | `writer`    | the thread that groups commands: one batch, one flush, all answers           |
//! | `reader`    | the threads that read                                                        |
//! | `rows`      | the opened database                                                          |
//! | [`messages`] | kept messages: commands, rows, reads                                        |
//! | [`streams`] | records of streams                                                           |
//! | [`backup`]  | all rows into a backup, and out of one                                       |
//! | `privacy`   | the rows of privacy lists                                                    |
//! | `keys`      | every tree and key                                                           |
//! | `replica`   | the same rows, driven by the log of the store group                          |
//! | `undo`      | old values for a snapshot that is being read                                 |
//! | `replace`   | all rows thrown away, and others taken in                                    |
//! | `chunk`     | rows of a snapshot as bytes                                                  |
//!
//! sled is never called from the caller's thread: it may stall for many milliseconds.

pub mod backup;
pub mod command;
pub mod messages;
pub mod query;
pub mod reply;
pub mod streams;

mod apply;
mod chunk;
mod fault;
mod keys;
mod privacy;
mod reader;
mod replace;
mod replica;
mod rows;
mod store;
mod tagged;
mod undo;
pub(super) mod upload;
mod writer;

#[cfg(test)]
mod replica_tests;
#[cfg(test)]
mod tests;

pub(super) use messages::Commanded;
pub use replica::EmbeddedReplica;
pub use store::{Embedded, EmbeddedOptions};
