//! Where a stanza goes (RFC 6120 §10, RFC 6121 §8).
