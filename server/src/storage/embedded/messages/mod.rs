//! Kept messages in the embedded store.
//!
//! | file      | what                                                    |
//! |-----------|---------------------------------------------------------|
//! | `command` | fields of the commands, replies and queries              |
//! | `body`    | the row of a message's text                              |
//! | `scope`   | the rows as one command sees and writes them             |
//! | `apply`   | what the commands do                                     |
//! | `upkeep`  | what takes messages away: sweep, purge, a deleted account |
//! | `read`    | what the queries find                                    |
//! | `page`    | pages of an archive                                      |
//! | `traits`  | the storage traits as commands and queries, for whoever can be given these |
//!
//! What a message costs: one row of its text, by id; two rows an owner in the archive (one by number, an empty one by
//! the other side and number), for its sender another empty one where its client gave it an id (by a hash of that and number:
//! 17 bytes and the user's name, and 9 more in the row); one while it waits; and the account's head, which has the figures, so that nothing is
//! ever counted. The text says where its owners have it, so an id needs no row of its own to be found by. Who has let
//! go of it is noted beside the text, for a text is large and is written once.

pub mod command;

mod apply;
mod body;
mod page;
mod read;
mod scope;
mod traits;
mod upkeep;

#[cfg(test)]
mod golden;
#[cfg(test)]
pub(super) mod tests;

pub(super) use read::{answer, get};
pub(super) use scope::{Scope, decode};
pub(in super::super) use traits::Commanded;
pub(super) use upkeep::take_messages;
