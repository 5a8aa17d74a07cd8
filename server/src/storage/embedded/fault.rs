//! What goes wrong inside the store, before the directory is known to the message.

use std::path::Path;

use super::super::StorageError;
use althing_cluster::wire::WireError;

/// A failure of sled, or a row that does not decode.
#[derive(Debug)]
pub(super) enum Fault {
    /// sled's own error.
    Sled(sled::Error),
    /// A row is not what this release writes.
    Row(String),
    /// The log has a change of a kind that this release does not know.
    Later(u16),
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

    /// The error for the operator. `what` was being done, as a verb.
    pub(super) fn at(self, path: &Path, what: &'static str) -> StorageError {
        let path = path.to_owned();
        match self {
            Fault::Sled(sled::Error::Io(error)) => StorageError::Io { path, what, error: error.to_string() },
            Fault::Sled(error) => StorageError::Corrupt { path, what: error.to_string() },
            Fault::Row(what) => StorageError::Corrupt { path, what },
            Fault::Later(kind) => StorageError::LaterRelease { path, kind },
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
