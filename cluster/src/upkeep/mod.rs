//! What keeps a member going, beside Raft: leases asked for and granted, and the end of those that are silent.

pub(crate) mod clock;
pub(crate) mod granting;
pub(crate) mod holder;
pub(crate) mod room;
