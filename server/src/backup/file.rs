//! PURE: the file of a backup.
//!
//! [`MAGIC`], the [`VERSION`] (big-endian u32), then frames of length (big-endian u32) and bytes: the [`Head`] as JSON, then
//! rows, as a snapshot of the store has them; a frame without bytes is the end. Behind it are the number of rows (big-endian
//! u64) and the SHA-256 of all before it. Nothing of it is ever in memory but one frame.

use std::io::{self, ErrorKind, Read, Write};

use bytes::Bytes;
use ring::digest::{Context, SHA256, SHA256_OUTPUT_LEN};
use serde::{Deserialize, Serialize};

use crate::storage::embedded::backup::cut;

/// How each backup begins.
pub const MAGIC: &[u8] = b"althing backup\n";
/// The layout of the file that this release writes and reads.
pub const VERSION: u32 = 1;
/// Longest frame, in bytes.
const FRAME_BYTES: usize = 4 << 20;

/// What a backup says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// When it was begun (XEP-0082).
    pub made: String,
    /// The release that made it.
    pub release: String,
    /// The node that made it.
    pub node: String,
    /// `xmpp.domains` there.
    pub domains: Vec<String>,
    /// The layout of its rows.
    pub format: u32,
    /// The last change of the store group that is in it; `None` of a single node.
    pub index: Option<u64>,
}

/// What a whole backup has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Rows.
    pub rows: u64,
    /// Accounts among them.
    pub accounts: u64,
    /// Bytes of the file.
    pub bytes: u64,
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// It is something else.
    #[error("this is no backup of Althing: it does not begin as one")]
    Foreign,
    /// A later release made it.
    #[error(
        "this backup has the layout {found}, and this release ({release}) reads {VERSION}: restore it with the release that \
         made it, or a later one", release = env!("CARGO_PKG_VERSION")
    )]
    Newer {
        /// Its layout.
        found: u32,
    },
    /// Something is missing.
    #[error(
        "this backup ends at byte {at}, before its end: it was not made or not copied to the end; take another one, or \
         copy it again"
    )]
    Short {
        /// Where it ends.
        at: u64,
    },
    /// Something is not what was written.
    #[error("this backup is damaged before byte {at}: {what}; take another one, or copy it again")]
    Damaged {
        /// How far it was read.
        at: u64,
        /// What is wrong.
        what: String,
    },
    /// The system refused.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// A backup that is being written.
pub struct Writer<W> {
    out: W,
    hash: Context,
    totals: Totals,
}

impl<W: Write> Writer<W> {
    /// Writes the head.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn begin(out: W, head: &Head) -> io::Result<Self> {
        let mut writer = Writer { out, hash: Context::new(&SHA256), totals: Totals::default() };
        writer.write(MAGIC)?;
        writer.write(&VERSION.to_be_bytes())?;
        writer.frame(&serde_json::to_vec(head)?)?;
        Ok(writer)
    }

    /// Writes rows.
    ///
    /// # Errors
    /// Those of `out`, and [`ErrorKind::InvalidData`] for bytes that are no rows.
    pub fn rows(&mut self, rows: &[u8]) -> io::Result<()> {
        let (_, accounts, number) = cut(rows).map_err(|why| io::Error::new(ErrorKind::InvalidData, why))?;
        self.totals.rows += number;
        self.totals.accounts += accounts;
        self.frame(rows)
    }

    /// What was written so far.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Writes the end.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn finish(mut self) -> io::Result<(W, Totals)> {
        self.frame(&[])?;
        let rows = self.totals.rows.to_be_bytes();
        self.write(&rows)?;
        self.out.write_all(self.hash.finish().as_ref())?;
        self.totals.bytes += SHA256_OUTPUT_LEN as u64;
        self.out.flush()?;
        Ok((self.out, self.totals))
    }

    fn frame(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        self.write(&length.to_be_bytes())?;
        self.write(bytes)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.totals.bytes += bytes.len() as u64;
        self.out.write_all(bytes)
    }
}

/// A backup that is being read.
pub struct Reader<R> {
    input: R,
    hash: Context,
    head: Head,
    totals: Totals,
    ended: bool,
}

impl<R: Read> Reader<R> {
    /// Reads the head.
    ///
    /// # Errors
    /// As they say.
    pub fn open(mut input: R) -> Result<Self, BackupError> {
        let mut magic = Vec::new();
        input.by_ref().take(MAGIC.len() as u64).read_to_end(&mut magic)?;
        if magic != MAGIC {
            return Err(BackupError::Foreign);
        }
        let mut hash = Context::new(&SHA256);
        hash.update(MAGIC);
        let head = Head {
            made: String::new(),
            release: String::new(),
            node: String::new(),
            domains: Vec::new(),
            format: 0,
            index: None,
        };
        let totals = Totals { bytes: MAGIC.len() as u64, ..Totals::default() };
        let mut reader = Reader { input, hash, head, totals, ended: false };
        let found = u32::from_be_bytes(reader.array()?);
        if found != VERSION {
            return Err(BackupError::Newer { found });
        }
        let head = reader.frame()?.unwrap_or_default();
        reader.head = serde_json::from_slice(&head)
            .map_err(|error| reader.damaged(format!("its head cannot be read ({error})")))?;
        Ok(reader)
    }

    /// What it says of itself.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// What was read so far.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// The next rows, in parts that the store takes at once; `None` when all were there, and nothing is damaged.
    ///
    /// # Errors
    /// As they say. What was read before may be damaged as well.
    pub fn next_rows(&mut self) -> Result<Option<Vec<Bytes>>, BackupError> {
        if self.ended {
            return Ok(None);
        }
        if let Some(rows) = self.frame()? {
            let (parts, accounts, number) = cut(&rows).map_err(|what| self.damaged(what))?;
            self.totals.rows += number;
            self.totals.accounts += accounts;
            return Ok(Some(parts));
        }
        let rows = u64::from_be_bytes(self.array()?);
        let expected = self.hash.clone().finish();
        let found: [u8; SHA256_OUTPUT_LEN] = self.array()?;
        if expected.as_ref() != found || rows != self.totals.rows {
            return Err(self.damaged("its checksum is another one".to_owned()));
        }
        if self.input.read(&mut [0])? > 0 {
            return Err(self.damaged("something follows its end".to_owned()));
        }
        self.ended = true;
        Ok(None)
    }

    /// Reads all of it and keeps nothing; what it has.
    ///
    /// # Errors
    /// As [`Reader::next_rows`].
    pub fn check(mut self) -> Result<(Head, Totals), BackupError> {
        while self.next_rows()?.is_some() {}
        Ok((self.head, self.totals))
    }

    fn frame(&mut self) -> Result<Option<Bytes>, BackupError> {
        let length = u32::from_be_bytes(self.array()?) as usize;
        if length > FRAME_BYTES {
            return Err(self.damaged(format!("a part of it is said to have {length} bytes")));
        }
        let mut bytes = vec![0; length];
        self.fill(&mut bytes)?;
        Ok((length > 0).then(|| bytes.into()))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BackupError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), BackupError> {
        self.input.read_exact(bytes).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => BackupError::Short { at: self.totals.bytes },
            _ => error.into(),
        })?;
        self.hash.update(bytes);
        self.totals.bytes += bytes.len() as u64;
        Ok(())
    }

    fn damaged(&self, what: String) -> BackupError {
        BackupError::Damaged { at: self.totals.bytes, what }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An account's row, as a snapshot has it.
    const ROW: &[u8] = b"\0\0\0\x05ad\0j\0\0\0\0\x01v";

    fn head() -> Head {
        Head {
            made: "2026-11-27T01:00:00Z".to_owned(),
            release: "0.1.0".to_owned(),
            node: "node-0".to_owned(),
            domains: vec!["d".to_owned()],
            format: 1,
            index: Some(9),
        }
    }

    fn backup() -> Vec<u8> {
        let mut writer = Writer::begin(Vec::new(), &head()).unwrap();
        writer.rows(ROW).unwrap();
        let (bytes, totals) = writer.finish().unwrap();
        assert_eq!(totals, Totals { rows: 1, accounts: 1, bytes: bytes.len() as u64 });
        bytes
    }

    fn wrong(bytes: &[u8]) -> Option<String> {
        Reader::open(bytes).and_then(Reader::check).err().map(|error| error.to_string())
    }

    #[test]
    fn what_was_written_is_read() {
        let bytes = backup();
        let mut reader = Reader::open(&bytes[..]).unwrap();
        assert_eq!(reader.head(), &head());
        assert_eq!(reader.next_rows().unwrap(), Some(vec![Bytes::from_static(ROW)]));
        assert_eq!(reader.next_rows().unwrap(), None);
        assert_eq!(reader.check().unwrap().1, Totals { rows: 1, accounts: 1, bytes: bytes.len() as u64 });
    }

    #[test]
    fn each_damage_is_found_wherever_it_is() {
        let bytes = backup();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(wrong(&damaged).is_some(), "byte {at}");
            assert!(wrong(&bytes[..at]).is_some(), "cut at {at}");
        }
        assert_eq!(wrong(&bytes), None);
        assert!(wrong(&[&bytes[..], b"x"].concat()).unwrap().contains("something follows its end"));
    }

    #[test]
    fn others_and_later_ones_are_refused_in_words() {
        let bytes = backup();
        assert!(wrong(b"PK\x03\x04").unwrap().contains("no backup of Althing"));
        let mut newer = bytes.clone();
        newer[MAGIC.len() + 3] = 2;
        assert!(wrong(&newer).unwrap().contains("has the layout 2, and this release"));
        assert!(wrong(&bytes[..60]).unwrap().contains("not copied to the end"));
        let mut writer = Writer::begin(Vec::new(), &head()).unwrap();
        let later = b"\0\0\0\x01Z\0\0\0\0";
        assert!(
            writer
                .rows(later)
                .unwrap_err()
                .to_string()
                .contains("a kind (0x5a) that this release does not know")
        );
    }
}
