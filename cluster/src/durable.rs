//! What every sled database of a node needs from the file system.

use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::Duration;

/// How often, and with which pause, the release of sled's file is awaited: five seconds in all.
const RELEASE_TRIES: u32 = 1_000;
const RELEASE_PAUSE: Duration = Duration::from_millis(5);

/// Makes a directory, and those above it, for the owner's eyes only: keys and messages will lie in it. One
/// that exists stays as it is.
///
/// # Errors
/// The system's.
pub fn create_private(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Waits for an earlier database of this process that had `file` open: threads of sled's own let go of it a
/// moment after it was closed. A file that is not there is free. Blocks for five seconds at most.
///
/// # Errors
/// [`io::ErrorKind::WouldBlock`] where another process holds the file; whatever else the system says.
pub fn await_release(file: &Path) -> io::Result<()> {
    let Ok(file) = File::open(file) else { return Ok(()) };
    for _ in 0..RELEASE_TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) => std::thread::sleep(RELEASE_PAUSE),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Err(io::ErrorKind::WouldBlock.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_awaited_until_it_is_free() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        await_release(&path).unwrap();
        let held = File::create(&path).unwrap();
        held.lock().unwrap();
        let waiting = std::thread::spawn({
            let path = path.clone();
            move || await_release(&path)
        });
        assert!(!waiting.is_finished());
        held.unlock().unwrap();
        waiting.join().unwrap().unwrap();
    }
}
