//! What a node keeps in its data directory beside its id: its cluster, and how often it has been started.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::link::hello::ClusterId;
use crate::node_id::Incarnation;
use crate::wire;

/// Keeps the cluster that a node belongs to.
pub trait ClusterIdentity: Send + Sync {
    /// The cluster, if the node has one.
    fn cluster(&self) -> Option<ClusterId>;

    /// Keeps it: on the disk when this returns. Blocks.
    ///
    /// # Errors
    /// What the file system reports; [`io::ErrorKind::AlreadyExists`] when another cluster is kept.
    fn keep(&self, cluster: ClusterId) -> io::Result<()>;
}

const FILE: &str = "cluster";
const VERSION: u8 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    version: u8,
    cluster: Option<ClusterId>,
    incarnation: Incarnation,
}

/// The file `cluster` of a data directory.
#[derive(Debug)]
pub struct IdentityFile {
    path: PathBuf,
    kept: Mutex<Kept>,
}

impl IdentityFile {
    /// What `dir`, which exists, holds; a new identity if it holds none. Blocks.
    ///
    /// # Errors
    /// What the file system reports; [`io::ErrorKind::InvalidData`] for a file that is damaged or of a later
    /// release.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let path = dir.join(FILE);
        let kept = match fs::read(&path) {
            Ok(bytes) => wire::decode(&bytes).ok().filter(|kept: &Kept| kept.version == VERSION).ok_or_else(|| {
                let why = "neither written by this release nor by one before it: restore the file from a backup";
                io::Error::new(io::ErrorKind::InvalidData, format!("{}: {why}", path.display()))
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Kept { version: VERSION, cluster: None, incarnation: Incarnation(0) }
            }
            Err(error) => return Err(with_path(&error, &path)),
        };
        Ok(IdentityFile { path, kept: Mutex::new(kept) })
    }

    /// A later incarnation than any before; on the disk when this returns. Blocks.
    ///
    /// # Errors
    /// What the file system reports. The incarnation must not be used then.
    pub fn next_incarnation(&self) -> io::Result<Incarnation> {
        self.write(|kept| {
            let next = kept.incarnation.0.checked_add(1).ok_or(io::ErrorKind::QuotaExceeded)?;
            kept.incarnation = Incarnation(next);
            Ok(())
        })
        .map(|kept| kept.incarnation)
    }

    fn write(&self, change: impl FnOnce(&mut Kept) -> io::Result<()>) -> io::Result<Kept> {
        let mut kept = self.kept.lock();
        let mut next = *kept;
        change(&mut next)?;
        if next != *kept {
            replace(&self.path, &wire::encode(&next).map_err(io::Error::other)?)
                .map_err(|error| with_path(&error, &self.path))?;
            *kept = next;
        }
        Ok(next)
    }
}

impl ClusterIdentity for IdentityFile {
    fn cluster(&self) -> Option<ClusterId> {
        self.kept.lock().cluster
    }

    fn keep(&self, cluster: ClusterId) -> io::Result<()> {
        let path = self.path.display();
        self.write(|kept| match kept.cluster {
            Some(other) if other != cluster => Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                format!("{path}: the node belongs to cluster {other}, not to {cluster}: give it an empty data directory"),
            )),
            _ => {
                kept.cluster = Some(cluster);
                Ok(())
            }
        })
        .map(|_| ())
    }
}

/// Whole or not at all, and for the owner's eyes only.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    path.parent().map_or(Ok(()), |dir| fs::File::open(dir)?.sync_all())
}

fn with_path(error: &io::Error, path: &Path) -> io::Error {
    match error.kind() {
        // Its text has the path already.
        io::ErrorKind::AlreadyExists => io::Error::new(error.kind(), error.to_string()),
        kind => io::Error::new(kind, format!("{}: {error}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn each_start_is_a_later_one_and_the_cluster_stays() {
        let dir = tempfile::tempdir().unwrap();
        for start in 1..4 {
            let file = IdentityFile::open(dir.path()).unwrap();
            assert_eq!(file.cluster(), (start > 1).then_some(ClusterId(7)));
            assert_eq!(file.next_incarnation().unwrap(), Incarnation(start));
            file.keep(ClusterId(7)).unwrap();
        }
        let mode = fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn another_cluster_is_refused_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let file = IdentityFile::open(dir.path()).unwrap();
        file.keep(ClusterId(7)).unwrap();
        let error = file.keep(ClusterId(8)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert!(error.to_string().contains("empty data directory"), "{error}");
        assert_eq!(IdentityFile::open(dir.path()).unwrap().cluster(), Some(ClusterId(7)));
    }

    #[test]
    fn a_damaged_file_is_refused_with_its_path() {
        let dir = tempfile::tempdir().unwrap();
        for damage in [&b""[..], b"\x01", b"\x02\0\x01", b"nonsense"] {
            fs::write(dir.path().join(FILE), damage).unwrap();
            let error = IdentityFile::open(dir.path()).err().unwrap();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            assert!(error.to_string().contains("/cluster: "), "{error}");
        }
    }
}
