//! Stanzas (RFC 6120 §8): a typed head over an immutable element.
