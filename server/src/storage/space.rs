//! Room on the disk: looked at often, so that new things are refused while there is still room for what must go on.
//!
//! A store that the system refuses a write is over until the node starts anew: nobody knows what the disk has. So nothing
//! new is taken from `storage.reserve_mib` on. What is left is for what makes room, for the logs of the cluster, and
//! for what a session needs to come to its end.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use althing_cluster::disk::{Disk, Room as Level};
use tokio::sync::watch;

use super::StorageError;

/// The disk of one store.
#[derive(Debug)]
pub struct Space {
    path: PathBuf,
    /// Bytes that are to stay free.
    reserve: u64,
    free: AtomicU64,
    level: watch::Sender<Level>,
}

/// What a look has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Bytes that a store may still take from the disk.
    pub free: u64,
    /// Whether less is free than is to stay so.
    pub is_low: bool,
}

impl Space {
    /// The disk that has `path`, of which `reserve` bytes are to stay free; 0: all may be used. Nobody has looked yet.
    #[must_use]
    pub fn new(path: &Path, reserve: u64) -> Self {
        let (free, level) = (AtomicU64::new(u64::MAX), watch::Sender::new(Level::Enough));
        Space { path: path.to_owned(), reserve, free, level }
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
        self.free.store(free, Ordering::Relaxed);
        let (mut was, mut now) = (Level::Enough, Level::Enough);
        self.level.send_if_modified(|level| {
            was = *level;
            now = level_of(was, free, self.reserve);
            *level = now;
            was != now
        });
        match now {
            _ if now == was => {}
            Level::Enough => tracing::info!("the disk has room again: new things are kept"),
            _ if was == Level::Enough => {
                tracing::error!(error = %self.refusal(), "the disk is nearly full");
            }
            Level::Low => tracing::info!("the disk has a little room again"),
            Level::Routes | Level::Nothing => {
                tracing::error!(error = %self.refusal(), "the disk is nearly full, and the cluster goes on without it");
            }
        }
        Ok(Room { free, is_low: now < Level::Enough })
    }

    /// Refuses what needs that much, while there is less.
    ///
    /// # Errors
    /// [`StorageError::NoRoom`].
    pub(super) fn admit(&self, least: Level) -> Result<(), StorageError> {
        if *self.level.borrow() < least { Err(self.refusal()) } else { Ok(()) }
    }

    fn refusal(&self) -> StorageError {
        let free = self.free.load(Ordering::Relaxed);
        StorageError::NoRoom { path: self.path.clone(), free, reserve: self.reserve }
    }
}

impl Disk for Space {
    fn look(&self) -> Level {
        // Where the system does not say, what was known last is as good as anything.
        let _unknown = Space::look(self);
        *self.level.borrow()
    }

    fn watch(&self) -> watch::Receiver<Level> {
        self.level.subscribe()
    }

    fn spare(&self, least: Level) -> u64 {
        if Disk::look(self) < least {
            return 0;
        }
        self.free.load(Ordering::Relaxed).saturating_sub(need(least, self.reserve))
    }
}

/// PURE: what `free` bytes are enough for: of the reserve the store of a cluster takes one half, what its nodes
/// need to know of each other goes on until an eighth is left. Once there is too little for something, a quarter more must be free than it needs: what
/// waits comes all at once.
fn level_of(was: Level, free: u64, reserve: u64) -> Level {
    let more = |level, least: u64| if level > was { least.saturating_add(least / 4) } else { least };
    let mut levels = [Level::Enough, Level::Low, Level::Routes].into_iter();
    levels.find(|level| free >= more(*level, need(*level, reserve))).unwrap_or(Level::Nothing)
}

/// PURE: the bytes that must be free for that.
fn need(level: Level, reserve: u64) -> u64 {
    match level {
        Level::Enough => reserve,
        Level::Low => reserve / 2,
        Level::Routes => reserve / 8,
        Level::Nothing => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_refused_is_taken_again_only_when_there_is_some_room() {
        use Level::{Enough, Low, Nothing, Routes};
        for (was, free, now) in [
            (Enough, 1_000, Enough),
            (Enough, 999, Low),
            (Low, 1_249, Low),
            (Low, 1_250, Enough),
            (Low, 499, Routes),
            (Routes, 624, Routes),
            (Routes, 625, Low),
            (Enough, 124, Nothing),
            (Nothing, 155, Nothing),
            (Nothing, 156, Routes),
            (Nothing, 1_250, Enough),
        ] {
            assert_eq!(level_of(was, free, 1_000), now, "{free} after {was:?}");
        }
        assert_eq!(level_of(Nothing, 0, 0), Enough, "without a reserve all may be used");
    }

    #[test]
    fn a_disk_that_is_too_small_refuses_what_takes_room_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let space = Space::new(dir.path(), u64::MAX);
        assert_eq!(space.admit(Level::Enough), Ok(()), "nobody has looked");
        let room = space.look().unwrap();
        assert!(room.is_low && room.free > 0, "{room:?}");
        let refused = space.admit(Level::Enough).unwrap_err().to_string();
        assert!(refused.contains("storage.reserve_mib"), "{refused}");
        assert_eq!(space.admit(Level::Nothing), Ok(()));
        assert_eq!(space.spare(Level::Enough), 0);
        assert!(space.spare(Level::Nothing) > 0);
        let all = Space::new(dir.path(), 0);
        assert!(!all.look().unwrap().is_low);
        assert!(all.spare(Level::Enough) > 0);
    }
}
