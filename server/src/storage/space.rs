//! Room on the disk: looked at often, so that new things are refused while there is still room for what must go on.
//!
//! A store that the system refuses a write is over until the node starts anew: nobody knows what the disk has. So nothing
//! new is taken from `storage.reserve_mib` on. What is left is for what makes room, for the logs of the cluster, and
//! for what a session needs to come to its end.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::StorageError;

/// The disk of one store.
#[derive(Debug)]
pub struct Space {
    path: PathBuf,
    /// Bytes that are to stay free.
    reserve: u64,
    free: AtomicU64,
    is_low: AtomicBool,
}

/// What a look has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Bytes that a store may still take from the disk.
    pub free: u64,
    /// Whether nothing new is taken now.
    pub is_low: bool,
}

impl Space {
    /// The disk that has `path`, of which `reserve` bytes are to stay free; 0: all may be used. Nobody has looked yet.
    #[must_use]
    pub fn new(path: &Path, reserve: u64) -> Self {
        let (free, is_low) = (AtomicU64::new(u64::MAX), AtomicBool::new(false));
        Space { path: path.to_owned(), reserve, free, is_low }
    }

    /// Asks the system, and says so in the log when it is time to do something. Blocks for a moment.
    ///
    /// # Errors
    /// The system's.
    pub fn look(&self) -> Result<Room, StorageError> {
        let stat = rustix::fs::statvfs(&self.path).map_err(|error| StorageError::Io {
            path: self.path.clone(),
            what: "ask for the free space of",
            error: error.to_string(),
        })?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        let was_low = self.is_low.load(Ordering::Relaxed);
        let is_low = is_low(was_low, free, self.reserve);
        self.free.store(free, Ordering::Relaxed);
        self.is_low.store(is_low, Ordering::Relaxed);
        if is_low && !was_low {
            tracing::error!(error = %self.refusal(), "the disk is nearly full");
        } else if was_low && !is_low {
            tracing::info!("the disk has room again: new things are kept");
        }
        Ok(Room { free, is_low })
    }

    /// Refuses what takes room for longer, while there is too little.
    ///
    /// # Errors
    /// [`StorageError::NoRoom`].
    pub(super) fn admit(&self, takes_room: bool) -> Result<(), StorageError> {
        if takes_room && self.is_low.load(Ordering::Relaxed) { Err(self.refusal()) } else { Ok(()) }
    }

    fn refusal(&self) -> StorageError {
        let free = self.free.load(Ordering::Relaxed);
        StorageError::NoRoom { path: self.path.clone(), free, reserve: self.reserve }
    }
}

/// PURE: whether there is too little. Once there is, a quarter more must be free than was asked for: what waits comes
/// all at once.
fn is_low(was_low: bool, free: u64, reserve: u64) -> bool {
    free < if was_low { reserve.saturating_add(reserve / 4) } else { reserve }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_refused_is_taken_again_only_when_there_is_some_room() {
        assert!(!is_low(false, 100, 100));
        assert!(is_low(false, 99, 100));
        assert!(is_low(true, 124, 100));
        assert!(!is_low(true, 125, 100));
        assert!(!is_low(true, 0, 0), "without a reserve all may be used");
    }

    #[test]
    fn a_disk_that_is_too_small_refuses_what_takes_room_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let space = Space::new(dir.path(), u64::MAX);
        assert_eq!(space.admit(true), Ok(()), "nobody has looked");
        let room = space.look().unwrap();
        assert!(room.is_low && room.free > 0, "{room:?}");
        let refused = space.admit(true).unwrap_err().to_string();
        assert!(refused.contains("storage.reserve_mib"), "{refused}");
        assert_eq!(space.admit(false), Ok(()));
        assert!(!Space::new(dir.path(), 0).look().unwrap().is_low);
    }
}
