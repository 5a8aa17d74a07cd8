//! PURE: rows of a snapshot as bytes. Each row is the length of its key (big-endian u32), the key, the length of
//! its value, the value.

use bytes::{BufMut, Bytes, BytesMut};

use super::fault::Fault;

/// Most bytes of a chunk, unless one row is larger.
pub(super) const MAX_CHUNK: usize = 1 << 20;

/// Rows on their way into a chunk.
#[derive(Default)]
pub(super) struct Chunk(BytesMut);

impl Chunk {
    /// Adds a row; `false`: the chunk is full, and the row belongs into the next one.
    pub(super) fn push(&mut self, key: &[u8], value: &[u8]) -> Result<bool, Fault> {
        let size = key.len() + value.len() + 8;
        if !self.0.is_empty() && self.0.len() + size > MAX_CHUNK {
            return Ok(false);
        }
        for part in [key, value] {
            let length = u32::try_from(part.len())
                .map_err(|_| Fault::Row("a row of more than 4 GiB cannot be sent".to_owned()))?;
            self.0.put_u32(length);
            self.0.put_slice(part);
        }
        Ok(true)
    }

    /// The bytes; `None` of a chunk without rows.
    pub(super) fn into_bytes(self) -> Option<Bytes> {
        (!self.0.is_empty()).then(|| self.0.freeze())
    }
}

/// The rows of a chunk, keys and values; `None` if the bytes are none.
pub(super) fn rows(mut bytes: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut rows = Vec::new();
    while !bytes.is_empty() {
        rows.push((part(&mut bytes)?, part(&mut bytes)?));
    }
    Some(rows)
}

fn part<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (part, rest) = rest.split_at_checked(length)?;
    *bytes = rest;
    Some(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_and_damage_is_seen() {
        let mut chunk = Chunk::default();
        assert!(chunk.push(b"k", b"").unwrap() && chunk.push(b"", b"value").unwrap());
        let bytes = chunk.into_bytes().unwrap();
        assert_eq!(rows(&bytes).unwrap(), [(&b"k"[..], &b""[..]), (b"", b"value")]);
        let whole = [9, bytes.len()];
        for cut in (1..bytes.len()).filter(|cut| !whole.contains(cut)) {
            assert_eq!(rows(&bytes[..cut]), None, "cut at {cut}");
        }
        assert!(Chunk::default().into_bytes().is_none());
    }

    #[test]
    fn a_chunk_is_bounded_but_takes_one_row_of_any_size() {
        let mut chunk = Chunk::default();
        assert!(chunk.push(b"k", &vec![1; 2 * MAX_CHUNK]).unwrap());
        assert!(!chunk.push(b"l", b"").unwrap());
        let mut chunk = Chunk::default();
        while chunk.push(b"key", &[7; 1_000]).unwrap() {}
        let size = chunk.into_bytes().unwrap().len();
        assert!(size <= MAX_CHUNK && size > MAX_CHUNK - 1_100);
    }
}
