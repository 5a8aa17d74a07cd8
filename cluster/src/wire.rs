//! PURE: values to bytes and back, the only calls of bincode: between nodes, in logs and in the store.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Most bytes of one value, in and out: no frame of any lane carries more.
pub const MAX_VALUE: usize = 16 << 20;

/// Why a value cannot be written, or bytes are not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The bytes do not form the value.
    #[error("malformed: {0}")]
    Malformed(String),
    /// The value ends before the bytes do.
    #[error("{0} bytes are left over")]
    Trailing(usize),
    /// The value takes more than [`MAX_VALUE`].
    #[error("{0} bytes are too many")]
    TooLarge(usize),
    /// A number names no kind that this release knows.
    #[error("kind {0} is unknown")]
    UnknownKind(u16),
}

/// Encodes `value`.
///
/// # Errors
/// [`WireError::TooLarge`] above [`MAX_VALUE`]; [`WireError::Malformed`] for a type whose length is not known
/// beforehand.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, WireError> {
    let bytes = bincode::serde::encode_to_vec(value, bincode::config::standard())
        .map_err(|error| WireError::Malformed(error.to_string()))?;
    if bytes.len() > MAX_VALUE {
        return Err(WireError::TooLarge(bytes.len()));
    }
    Ok(bytes)
}

/// Decodes a value that takes all of `bytes`.
///
/// # Errors
/// [`WireError`] when the bytes are cut off, damaged, too many, or claim more than [`MAX_VALUE`].
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    if bytes.len() > MAX_VALUE {
        return Err(WireError::TooLarge(bytes.len()));
    }
    let config = bincode::config::standard().with_limit::<MAX_VALUE>();
    let (value, used) = bincode::serde::decode_from_slice(bytes, config)
        .map_err(|error| WireError::Malformed(error.to_string()))?;
    match bytes.len() - used {
        0 => Ok(value),
        left => Err(WireError::Trailing(left)),
    }
}

/// Encodes `value` behind the number of its kind, a big-endian u16.
///
/// # Errors
/// As [`encode`].
pub fn encode_tagged<T: Serialize>(tag: u16, value: &T) -> Result<Bytes, WireError> {
    Ok([&tag.to_be_bytes()[..], &encode(value)?].concat().into())
}

/// Divides what [`encode_tagged`] made into the number and the bytes of the value.
///
/// # Errors
/// [`WireError::Malformed`] below two bytes.
pub fn split_tag(bytes: &[u8]) -> Result<(u16, &[u8]), WireError> {
    let (tag, rest) = bytes
        .split_first_chunk::<2>()
        .ok_or_else(|| WireError::Malformed("the number of the kind is missing".to_owned()))?;
    Ok((u16::from_be_bytes(*tag), rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Value = (String, u64, Vec<String>, Bytes, Option<i8>);

    #[test]
    fn values_come_back_and_damage_is_seen() {
        let value: Value = ("a".into(), 700, vec!["b".into()], Bytes::from_static(b"<x/>"), Some(-1));
        let bytes = encode(&value).unwrap();
        assert_eq!(decode::<Value>(&bytes).unwrap(), value);
        for cut in 0..bytes.len() {
            assert!(decode::<Value>(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        let longer = [bytes.as_slice(), b"!"].concat();
        assert_eq!(decode::<Value>(&longer), Err(WireError::Trailing(1)));
    }

    #[test]
    fn a_length_that_lies_is_refused() {
        for length in [1_u64 << 26, 1 << 40, u64::MAX] {
            let mut bytes = encode(&length).unwrap();
            bytes.extend_from_slice(b"abc");
            assert!(decode::<Vec<String>>(&bytes).is_err());
            assert!(decode::<Bytes>(&bytes).is_err());
        }
    }

    #[test]
    fn a_value_above_the_limit_is_not_written() {
        let value = Bytes::from(vec![0; MAX_VALUE]);
        assert!(matches!(encode(&value), Err(WireError::TooLarge(_))));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_value_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(value) = decode::<Value>(&bytes) {
                prop_assert_eq!(decode::<Value>(&encode(&value).unwrap()).unwrap(), value);
            }
        }
    }
}
