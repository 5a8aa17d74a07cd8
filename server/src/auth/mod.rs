//! Credentials: making and checking them.
