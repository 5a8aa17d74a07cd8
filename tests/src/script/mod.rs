//! Wire scripts: a conversation in text, played against real nodes. The format: `tests/wire/README.md`.

pub mod captures;
pub mod fence;
pub mod matcher;
pub mod parser;
pub mod play;
pub mod runner;
