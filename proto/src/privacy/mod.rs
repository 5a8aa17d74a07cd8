//! Privacy lists (XEP-0016), and the block list (XEP-0191), which is a part of the default one.
//!
//! | file       | what                                                                     |
//! |------------|--------------------------------------------------------------------------|
//! | [`item`]   | one rule of a list, and whom and what it is about                        |
//! | [`list`]   | a list as it is kept: those blocked first, then the other rules in order |
//! | [`change`] | what a user can ask for, what came of it, and why it may be refused      |

pub mod change;
pub mod item;
pub mod list;

pub use change::{BlockDelta, Connected, PrivacyChange, PrivacyChanged, PrivacyError, SessionKey};
pub use item::{Item, Kinds, Subject};
pub use list::{Entry, List, ListHead, Lists, MAX_NAME_BYTES, keys_of};
