//! Addresses (RFC 7622), by the `jid` crate.
//!
//! The crate prepares the parts with stringprep (nodeprep, nameprep, resourceprep) and IDNA2008,
//! which is the practice of the field, rather than with RFC 7622's PRECIS profiles: a change would
//! alter stored keys. A parsed JID is normalised; its parts are at most 1,023 bytes each.

pub use jid::{
    BareJid, DomainPart, DomainRef, Error as JidError, FullJid, Jid, NodePart, NodeRef, ResourcePart,
    ResourceRef,
};
