//! What a node is, kept in its data directory: its random id, and its secret.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use ring::rand::{SecureRandom, SystemRandom};

use crate::config::{Backend, Config};

const FILE: &str = "identity";
const BYTES: usize = 8 + 32;

/// A node's identity: made with the data directory, lost with it.
pub struct Identity {
    /// A random 63-bit number; never the ordinal of a StatefulSet (ARCHITECTURE.md, "Members").
    pub node_id: u64,
    /// Makes the salts of unknown users. Never leaves the node.
    pub decoy_secret: [u8; 32],
}

impl Identity {
    /// Reads the identity, or makes one on the first start. A node whose store is in memory has a new one at
    /// every start.
    ///
    /// # Errors
    /// A file that cannot be read or written, or that is not an identity.
    pub fn load_or_create(config: &Config) -> anyhow::Result<Self> {
        if config.storage.backend == Backend::Memory {
            return Ok(Identity::from_bytes(&random()?));
        }
        let path = config.node.data_dir.join(FILE);
        match fs::read(&path) {
            Ok(bytes) => match <[u8; BYTES]>::try_from(bytes) {
                Ok(bytes) => Ok(Identity::from_bytes(&bytes)),
                Err(bytes) => bail!(
                    "{}: {} bytes where an identity has {BYTES}: restore the file, or move it away for a new one",
                    path.display(),
                    bytes.len()
                ),
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let bytes = random()?;
                write(&path, &bytes).with_context(|| format!("{}: cannot be written", path.display()))?;
                Ok(Identity::from_bytes(&bytes))
            }
            Err(error) => Err(error).with_context(|| format!("{}: cannot be read", path.display())),
        }
    }

    fn from_bytes(bytes: &[u8; BYTES]) -> Self {
        let (mut id, mut decoy_secret) = ([0; 8], [0; 32]);
        id.copy_from_slice(&bytes[..8]);
        decoy_secret.copy_from_slice(&bytes[8..]);
        Identity { node_id: u64::from_be_bytes(id), decoy_secret }
    }
}

fn random() -> anyhow::Result<[u8; BYTES]> {
    let mut bytes = [0; BYTES];
    ensure!(SystemRandom::new().fill(&mut bytes).is_ok(), "the system has no randomness to give");
    Ok(bytes)
}

/// Whole or not at all, and for the owner's eyes only.
fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let temporary = path.with_extension("new");
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    path.parent().map_or(Ok(()), |dir| fs::File::open(dir)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(dir: &Path) -> Config {
        let mut config = Config::default();
        config.node.data_dir = dir.to_owned();
        config
    }

    #[test]
    fn an_identity_is_made_once_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let first = Identity::load_or_create(&config(dir.path())).unwrap();
        let second = Identity::load_or_create(&config(dir.path())).unwrap();
        assert_eq!((first.node_id, first.decoy_secret), (second.node_id, second.decoy_secret));
    }

    #[test]
    fn a_damaged_identity_is_refused_with_its_path() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), b"short").unwrap();
        let error = Identity::load_or_create(&config(dir.path())).err().unwrap().to_string();
        assert!(error.contains("identity: 5 bytes"), "{error}");
    }
}
