//! Snapshots as files, on their way from the leader to a node that is too far behind for the log.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use openraft::RaftTypeConfig;
use openraft::alias::{SnapshotMetaOf, SnapshotOf};

use crate::disk::Gate;

/// The names of files with snapshots that come begin with this.
pub(crate) const INCOMING: &str = "snapshot-from-";
/// The same of those that go.
pub(crate) const OUTGOING: &str = "snapshot-to-";

/// Bytes between two looks at the disk.
const LOOK: u64 = 8 << 20;

/// Writes a group's snapshots to files and reads them.
#[async_trait]
pub trait Spool<C: RaftTypeConfig>: Clone + Send + Sync + 'static {
    /// What the group's state machine takes and gives.
    type Data: Send + Sync + 'static;

    /// Writes a snapshot to `file`. It may be a later one than asked for; what it covers is returned.
    ///
    /// # Errors
    /// The file's, and those of whoever keeps the data.
    async fn write(
        &self,
        snapshot: SnapshotOf<C, Self::Data>,
        file: SpoolFile,
    ) -> io::Result<(SnapshotMetaOf<C>, SpoolFile)>;

    /// Takes a received file in; it is this value's from now on.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] for a file that is no snapshot.
    async fn read(&self, file: PathBuf) -> io::Result<Self::Data>;
}

/// A file for a snapshot that goes. It goes with this value, and leaves the disk the room that others need.
#[derive(Debug)]
pub struct SpoolFile {
    file: File,
    path: PathBuf,
    room: Gate,
    /// Bytes that may be written before the next look at the disk.
    allowed: u64,
    written: Arc<AtomicU64>,
}

impl SpoolFile {
    /// A new file, if there is room for about `bytes`. A write that would leave less than `room` needs fails. Blocks.
    ///
    /// # Errors
    /// [`io::ErrorKind::StorageFull`], and the file system's.
    pub(crate) fn create(path: &Path, room: Gate, bytes: u64) -> io::Result<Self> {
        let spare = room.spare();
        if spare < bytes.max(LOOK) {
            return Err(no_room(format_args!("the last had {bytes} bytes, and there is room for {spare}")));
        }
        let file = File::options().read(true).write(true).create_new(true).open(path)?;
        Ok(SpoolFile { file, path: path.to_owned(), room, allowed: 0, written: Arc::default() })
    }

    /// How many bytes were written, also when this value is gone.
    pub(crate) fn written(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.written)
    }

    /// The file, from its beginning.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn reader(&self) -> io::Result<File> {
        File::open(&self.path)
    }
}

impl Write for SpoolFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let wanted = bytes.len() as u64;
        if self.allowed < wanted {
            self.allowed = self.room.spare().min(LOOK.max(wanted));
        }
        if self.allowed < wanted {
            let written = self.written.load(Ordering::Relaxed);
            return Err(no_room(format_args!("it ends at {written} bytes")));
        }
        let written = self.file.write(bytes)?;
        self.allowed -= written as u64;
        self.written.fetch_add(written as u64, Ordering::Relaxed);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for SpoolFile {
    fn drop(&mut self) {
        // The next start looks for what is left.
        let _left = std::fs::remove_file(&self.path);
    }
}

fn no_room(why: std::fmt::Arguments<'_>) -> io::Error {
    let why = format!("the disk of this node has no room for a copy of its store beside it: {why}");
    io::Error::new(io::ErrorKind::StorageFull, why)
}

/// Removes what transfers left that a crash has ended. Blocks.
///
/// # Errors
/// The file system's.
pub(crate) fn remove_left_over(dir: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(INCOMING) || name.starts_with(OUTGOING) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Room;
    use crate::disk::tests::TestDisk;

    #[test]
    fn a_snapshot_leaves_the_disk_the_room_that_others_need() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(format!("{OUTGOING}7"));
        let disk = TestDisk::new(Room::Enough);
        disk.set_spare(2 * LOOK + 5);
        let room = Gate::new(Some(disk.clone()), Room::Enough);
        let none = SpoolFile::create(&path, room.clone(), 2 * LOOK + 6).unwrap_err();
        assert_eq!((none.kind(), path.exists()), (io::ErrorKind::StorageFull, false));
        let mut file = SpoolFile::create(&path, room, 2 * LOOK + 5).unwrap();
        let part = vec![7; 1 << 20];
        let mut written = 0;
        let refused = loop {
            match file.write_all(&part) {
                Ok(()) => written += part.len() as u64,
                Err(error) => break error,
            }
            disk.set_spare(2 * LOOK + 5 - written);
        };
        assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
        assert_eq!((written, file.written().load(Ordering::Relaxed)), (2 * LOOK, 2 * LOOK));
        assert_eq!(std::fs::metadata(&path).unwrap().len(), written);
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn what_a_crash_has_left_goes_at_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["snapshot-to-1-2", "snapshot-from-3-4", "store.snapshot"] {
            std::fs::write(dir.path().join(name), name).unwrap();
        }
        remove_left_over(dir.path()).unwrap();
        let left: Vec<_> =
            std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["store.snapshot"]);
    }
}
