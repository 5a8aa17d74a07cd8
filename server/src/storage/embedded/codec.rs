//! Stored values and commands to bytes and back: the only calls of bincode in the store.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Most bytes that one decoding may claim. A damaged length must not ask for memory without end.
const LIMIT: usize = 1 << 20;

/// Why bytes are not what was encoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The bytes do not form the value.
    #[error("{0}")]
    Malformed(String),
    /// The value ends before the bytes do.
    #[error("{0} bytes are left over")]
    Trailing(usize),
}

/// Encodes `value`.
///
/// # Errors
/// None for the types that the store keeps: all of them have a length known beforehand.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    bincode::serde::encode_to_vec(value, bincode::config::standard())
        .map_err(|error| CodecError::Malformed(error.to_string()))
}

/// Decodes a value that takes all of `bytes`.
///
/// # Errors
/// [`CodecError`] if the bytes are cut off, damaged, too many, or claim more than the limit.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let config = bincode::config::standard().with_limit::<LIMIT>();
    let (value, used) = bincode::serde::decode_from_slice(bytes, config)
        .map_err(|error| CodecError::Malformed(error.to_string()))?;
    match bytes.len() - used {
        0 => Ok(value),
        left => Err(CodecError::Trailing(left)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_and_damage_is_seen() {
        let bytes = encode(&("romeo", 7_u64, vec![1_u8, 2])).unwrap();
        let whole: (String, u64, Vec<u8>) = decode(&bytes).unwrap();
        assert_eq!(whole, ("romeo".to_owned(), 7, vec![1, 2]));
        for cut in 0..bytes.len() {
            assert!(decode::<(String, u64, Vec<u8>)>(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        let longer = [bytes.as_slice(), b"!"].concat();
        assert_eq!(decode::<(String, u64, Vec<u8>)>(&longer), Err(CodecError::Trailing(1)));
    }

    #[test]
    fn a_length_that_lies_is_refused() {
        let mut bytes = encode(&(1_u64 << 40)).unwrap();
        bytes.extend_from_slice(b"abc");
        assert!(decode::<Vec<String>>(&bytes).is_err());
    }
}
