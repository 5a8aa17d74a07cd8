//! Backups: a copy of all that a server keeps, as one file.
//!
//! | file     | what                                                                                       |
//! |----------|--------------------------------------------------------------------------------------------|
//! | [`file`] | PURE: the file, written and read; what is wrong with one                                   |
//! | [`making`] | a backup on its way out of a running node, a part at a time                              |
//!
//! The rows come from a snapshot of the store ([`Backups`](crate::storage::Backups)), so they are of one moment, and the
//! node goes on writing. They go back in by the store's own commands, into a server that has no accounts. Whoever asks
//! (`server/src/cli/backup.rs`) has the file; the node only gives and takes rows, through its admin socket.

pub mod file;
pub mod making;
