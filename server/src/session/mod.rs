//! The session actor: one bound resource.
