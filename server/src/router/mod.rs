//! Where a stanza goes (RFC 6120 §10, RFC 6121 §8): a pure table and a chain of steps.

pub mod address;
pub mod component;
mod letter;
pub mod rules;
pub mod steps;
mod waits;
