//! What goes wrong inside the store, before the directory is known to the message.

use std::path::Path;

use super::super::StorageError;
use althing_cluster::wire::{WireError, split_tag};

/// A failure of sled, or a row that does not decode.
#[derive(Debug)]
pub(super) enum Fault {
    /// sled's own error.
    Sled(sled::Error),
    /// A row is not what this release writes.
    Row(String),
    /// The log has a change that this release cannot read, and why.
    Later(String),
    /// A backup is being restored.
    Restoring,
    /// All rows are being replaced.
    Replacing,
    /// A reader or writer of a snapshot whose time is over.
    Superseded,
}

impl Fault {
    /// The row at `key` did not decode.
    pub(super) fn row(key: &[u8], error: &WireError) -> Self {
        Fault::Row(format!("the row {:?} does not decode ({error})", String::from_utf8_lossy(key)))
    }

    /// A command of the log did not decode: all that is ordered was a command to who ordered it.
    pub(super) fn command(bytes: &[u8], error: &WireError) -> Self {
        let of_kind = |(kind, _)| format!("kind {kind}: {error}");
        Fault::Later(split_tag(bytes).map_or_else(|_| error.to_string(), of_kind))
    }

    /// The error for the operator. `what` was being done, as a verb.
    pub(super) fn at(self, path: &Path, what: &'static str) -> StorageError {
        let path = path.to_owned();
        match self {
            Fault::Sled(sled::Error::Io(error)) => StorageError::Io { path, what, error: error.to_string() },
            Fault::Sled(error) => StorageError::Corrupt { path, what: error.to_string() },
            Fault::Row(what) => StorageError::Corrupt { path, what },
            Fault::Later(what) => StorageError::LaterRelease { path, what },
            Fault::Restoring => StorageError::Restoring,
            Fault::Replacing => {
                StorageError::Unavailable { why: "a snapshot is replacing the rows of this node".to_owned() }
            }
            Fault::Superseded => StorageError::Unavailable {
                why: "another snapshot has taken the place of this one".to_owned(),
            },
        }
    }
}

impl From<sled::Error> for Fault {
    fn from(error: sled::Error) -> Self {
        Fault::Sled(error)
    }
}
