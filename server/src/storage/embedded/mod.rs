//! The embedded store: sled below the data directory, one writer thread, a few reader threads.
//!
//! | file        | what                                                                        |
//! |-------------|-----------------------------------------------------------------------------|
//! | [`command`] | everything that changes the store, as values with a lasting form             |
//! | `apply`     | what each command does to the rows; no clock, no randomness                  |
//! | `writer`    | the thread that groups commands: one batch, one flush, all answers           |
//! | `reader`    | the threads that read                                                        |
//! | `rows`      | the opened database                                                          |
//! | `keys`      | every tree and key                                                           |
//!
//! sled is never called from the caller's thread: it may stall for many milliseconds.

pub mod command;

mod apply;
mod fault;
mod keys;
mod reader;
mod rows;
mod store;
mod writer;

#[cfg(test)]
mod tests;

pub use store::{Embedded, EmbeddedOptions};
