//! Hands a stanza to its receivers.
