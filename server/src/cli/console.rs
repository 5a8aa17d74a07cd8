//! What the commands say on standard output.

use std::fmt::Display;
use std::io::{self, Write};

/// Writes one line and flushes it, so that a waiting program sees it at once.
///
/// # Errors
///
/// When standard output is closed.
pub(super) fn say(line: impl Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}
