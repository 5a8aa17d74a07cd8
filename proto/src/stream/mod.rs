//! Streams (RFC 6120 §4 to §7): their errors and the client-to-server machine.

pub mod error;
