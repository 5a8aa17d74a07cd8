//! Mistakes made on purpose, to prove that the fault test (`make nemesis`) finds them. Only in a binary that was built
//! with the feature `faults`, and there only the one that `ALTHING_FAULT` names.

/// A mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// `ack-before-commit`: what a client has written is acknowledged before it is in the store.
    AckBeforeCommit,
    /// `drain-deletes`: what has waited goes from the store when it is handed out, not when it has arrived.
    DrainDeletes,
    /// `handled-not-committed`: what is handled of a stream is not in the command that keeps a message.
    HandledNotCommitted,
}

/// Whether this mistake is to be made.
#[cfg(feature = "faults")]
#[must_use]
pub(crate) fn makes(fault: Fault) -> bool {
    use std::sync::OnceLock;

    // Of the process, like the variable: a binary for one experiment.
    static NAMED: OnceLock<String> = OnceLock::new();
    let name = match fault {
        Fault::AckBeforeCommit => "ack-before-commit",
        Fault::DrainDeletes => "drain-deletes",
        Fault::HandledNotCommitted => "handled-not-committed",
    };
    NAMED.get_or_init(|| std::env::var("ALTHING_FAULT").unwrap_or_default()) == name
}

/// None is made.
#[cfg(not(feature = "faults"))]
#[must_use]
pub(crate) const fn makes(_: Fault) -> bool {
    false
}
