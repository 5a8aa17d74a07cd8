//! What can go wrong with stored data, in words for the operator: what, where, and what to do.

use std::path::PathBuf;

use althing_proto::jid::BareJid;

/// Why a store could not be opened, read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StorageError {
    /// The system refused to read or write.
    #[error("cannot {what} {}: {error}; check free space, permissions and the health of the disk", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was being done, as a verb: `open`, `write`.
        what: &'static str,
        /// The system's own words.
        error: String,
    },
    /// Stored bytes are not what was written.
    #[error(
        "the store {} is damaged: {what}; stop the node, move the directory away and restore a backup",
        path.display()
    )]
    Corrupt {
        /// The directory of the store.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The disk has less room than is to stay free. Nothing was done; it may be tried again.
    #[error(
        "{free} bytes are free on the disk of {}, less than storage.reserve_mib ({reserve} bytes): nothing new is kept \
         before there is more; make the disk larger, or take other files away",
        path.display()
    )]
    NoRoom {
        /// The directory of the store.
        path: PathBuf,
        /// Bytes that are free.
        free: u64,
        /// Bytes that are to stay free.
        reserve: u64,
    },
    /// Most nodes that keep the store of a cluster are away, or have less room than is to stay free. Nothing was done; it
    /// may be tried again.
    #[error(
        "too few of the nodes that keep the store have room on their disks (storage.reserve_mib): nothing new is kept before \
         there is more; althing_storage_free_bytes of each node says where"
    )]
    NoRoomInGroup,
    /// The queue of the store is full. Nothing was done; it may be tried again.
    #[error("the store is busy: its queue is full")]
    Busy,
    /// The store was closed. Nothing was done.
    #[error("the store is closed")]
    Closed,
    /// Another release made the store, in a form that this one does not read.
    #[error(
        "the store {} has format {found}, this release reads format {expected}; \
         start the release that made it, or restore a backup of format {expected}",
        path.display()
    )]
    WrongVersion {
        /// The directory of the store.
        path: PathBuf,
        /// The format of the store.
        found: u32,
        /// The format of this release.
        expected: u32,
    },
    /// The cluster has made a change that this release cannot read. Nothing is lost.
    #[error(
        "the cluster has made a change that this release cannot read ({what}), so this node stops before it: start it \
         with the release that the other nodes have; its data {} stay as they are",
        path.display()
    )]
    LaterRelease {
        /// The directory of the store.
        path: PathBuf,
        /// What is wrong with it, with the number of its kind.
        what: String,
    },
    /// Another process has the store open.
    #[error("another process uses the store {}; stop it, or give each node a data directory of its own", path.display())]
    Locked {
        /// The directory of the store.
        path: PathBuf,
    },
    /// A name or value is larger than the store takes. Nothing was done.
    #[error("a {what} of {size} bytes is larger than the {limit} bytes that the store takes")]
    TooLarge {
        /// What is too large: `namespace`, `key`, `value`.
        what: &'static str,
        /// Its size in bytes.
        size: usize,
        /// The most that is taken, in bytes.
        limit: usize,
    },
    /// The user has as much of it as is allowed. Nothing was done.
    #[error("the user has as many {what} as allowed: {limit}")]
    Full {
        /// What there is too much of: `rows`, `bytes`.
        what: &'static str,
        /// The most that is allowed.
        limit: u64,
    },
    /// A change for a user who has no account. Nothing was done.
    #[error("{user} has no account")]
    UnknownUser {
        /// The user.
        user: BareJid,
    },
    /// A backup is being restored, or its restoring has broken off. Nothing was done.
    #[error(
        "a backup is being restored, and nothing else is done before that is finished; where it has broken off, run \
         `althing restore` again"
    )]
    Restoring,
    /// A backup cannot be made, or restored. Nothing was done.
    #[error("{why}")]
    Backup {
        /// Why not, and what to do.
        why: String,
    },
    /// The store group does nothing now. Nothing was done; it may be tried again.
    #[error("the store group cannot be used now: {why}; see that most of its nodes run and reach each other")]
    Unavailable {
        /// What keeps it.
        why: String,
    },
    /// Whether the change was made is unknown: whoever asked for it looks before asking again.
    #[error("the store group did not answer in time: whether the change was made is unknown")]
    Unknown,
}

impl StorageError {
    /// Whether it may be otherwise in a moment.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(
            self,
            StorageError::Busy
                | StorageError::Restoring
                | StorageError::Unavailable { .. }
                | StorageError::Unknown
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_say_where_and_what_to_do() {
        let path = PathBuf::from("/var/lib/althing/store");
        let wrong = StorageError::WrongVersion { path: path.clone(), found: 7, expected: 1 }.to_string();
        assert!(wrong.contains("/var/lib/althing/store") && wrong.contains("format 7"), "{wrong}");
        let locked = StorageError::Locked { path }.to_string();
        assert!(locked.contains("/var/lib/althing/store") && locked.contains("stop it"), "{locked}");
    }
}
