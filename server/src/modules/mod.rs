//! One file a XEP, one registry line each.
