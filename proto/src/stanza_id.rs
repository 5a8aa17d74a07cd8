//! The id that the server gives a message (XEP-0359 §3): what archive and offline messages are found by.

use std::fmt;
use std::str::FromStr;

use ring::hmac;

/// 128 bits; the text form is 32 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct StanzaId([u8; Self::BYTES]);

/// A text is the id of no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a stanza id has 32 hexadecimal digits")]
pub struct NoStanzaId;

impl StanzaId {
    /// How many bytes it has.
    pub const BYTES: usize = 16;

    /// The id of these bytes: random ones, for a message that nothing else tells from others.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        StanzaId(bytes)
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }

    /// The id that follows from `parts` by HMAC-SHA-256: the same for the same parts, so that a message which is
    /// kept twice is one, and none that others could know without `key`. No two lists of parts are alike.
    #[must_use]
    pub fn derived(key: &[u8], parts: &[&[u8]]) -> Self {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut id = [0; Self::BYTES];
        for (byte, from) in id.iter_mut().zip(context.sign().as_ref()) {
            *byte = *from;
        }
        StanzaId(id)
    }
}

impl fmt::Display for StanzaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for StanzaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StanzaId({self})")
    }
}

impl FromStr for StanzaId {
    type Err = NoStanzaId;

    /// Reads the text form, nothing else: an id that a client gives back is compared by its text.
    fn from_str(text: &str) -> Result<Self, NoStanzaId> {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        match u128::from_str_radix(text, 16) {
            Ok(number) if digits && text.len() == 2 * Self::BYTES => Ok(StanzaId(number.to_be_bytes())),
            _ => Err(NoStanzaId),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_form_comes_back_and_is_the_only_one() {
        let id = StanzaId::from_bytes([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0xff]);
        let text = "000102030405060708090a0b0c0d0eff";
        assert_eq!(id.to_string(), text);
        assert_eq!(text.parse(), Ok(id));
        for other in [&text[1..], &text.to_uppercase(), &format!("+{}", &text[1..]), &format!("0{text}"), ""]
        {
            assert_eq!(other.parse::<StanzaId>(), Err(NoStanzaId), "{other}");
        }
    }

    #[test]
    fn what_is_derived_depends_on_every_part_and_on_where_it_ends() {
        let id = |parts: &[&[u8]]| StanzaId::derived(b"key", parts);
        assert_eq!(id(&[b"ab", b"c"]), id(&[b"ab", b"c"]));
        assert_ne!(id(&[b"ab", b"c"]), id(&[b"a", b"bc"]));
        assert_ne!(id(&[b"ab"]), StanzaId::derived(b"other", &[b"ab"]));
        assert_eq!(id(&[b"stream", &7_u32.to_be_bytes()]).to_string(), "e7015a7bb8b455e116b303750827e2e4");
    }
}
