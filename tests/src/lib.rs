//! Drives whole nodes from outside.
