//! What an account keeps instead of its password (RFC 5802 §3): salted, stretched, one-way.

use std::fmt;
use std::num::NonZeroU32;

use ring::hmac;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use super::mechanism::Hash;

/// Fewest iterations: RFC 5802 §5.1 and RFC 7677 §4 ask for 4,096.
pub const MIN_ITERATIONS: u32 = 4_096;
/// Most iterations, so that neither a setting nor a foreign server can hold a core for long.
pub const MAX_ITERATIONS: u32 = 1_000_000;
/// Longest password in octets. PBKDF2 does not get slower with it, but SASLprep does.
pub const MAX_PASSWORD_BYTES: usize = 1_024;

/// A password on its way to be checked. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a password.
    #[must_use]
    pub fn new(password: impl Into<String>) -> Self {
        Secret(password.into())
    }

    /// The password itself: for hashing, never for a log.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Why a password cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// Nothing is left of it after preparation.
    #[error("the password is empty")]
    Empty,
    /// More than [`MAX_PASSWORD_BYTES`].
    #[error("the password is longer than {MAX_PASSWORD_BYTES} bytes")]
    TooLong,
    /// SASLprep (RFC 4013) refuses one of its characters: a control character, one that Unicode 3.2
    /// does not know, or a mixture of writing directions.
    #[error("the password contains a character that SASLprep (RFC 4013) prohibits")]
    Prohibited,
    /// Not within [`MIN_ITERATIONS`] to [`MAX_ITERATIONS`].
    #[error("the iteration count is not within {MIN_ITERATIONS} to {MAX_ITERATIONS}")]
    Iterations,
}

/// SASLprep with the bounds above (RFC 5802 §2.2 `Normalize`).
pub(super) fn prepare_password(password: &str) -> Result<String, PasswordError> {
    if password.len() > MAX_PASSWORD_BYTES {
        return Err(PasswordError::TooLong);
    }
    let prepared = stringprep::saslprep(password).map_err(|_| PasswordError::Prohibited)?;
    if prepared.is_empty() { Err(PasswordError::Empty) } else { Ok(prepared.into_owned()) }
}

/// An iteration count within the bounds above.
pub(super) fn bounded_iterations(iterations: u32) -> Result<NonZeroU32, PasswordError> {
    if !(MIN_ITERATIONS..=MAX_ITERATIONS).contains(&iterations) {
        return Err(PasswordError::Iterations);
    }
    NonZeroU32::new(iterations).ok_or(PasswordError::Iterations)
}

/// The server's half of a password for one hash function (RFC 5802 §3). Whoever steals it can pose as the
/// server, and search for the password, but cannot log in with it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScramKeys {
    /// Iteration count of PBKDF2.
    pub iterations: u32,
    /// Salt, in octets.
    pub salt: Vec<u8>,
    /// `StoredKey`, which checks the client's proof.
    pub stored_key: Vec<u8>,
    /// `ServerKey`, which signs for the server.
    pub server_key: Vec<u8>,
}

impl ScramKeys {
    pub(super) fn derive(hash: Hash, prepared: &str, iterations: NonZeroU32, salt: &[u8]) -> ScramKeys {
        let salted = hash.hi(prepared.as_bytes(), salt, iterations);
        ScramKeys {
            iterations: iterations.get(),
            salt: salt.to_vec(),
            stored_key: hash.digest(&hash.hmac(&salted, b"Client Key")),
            server_key: hash.hmac(&salted, b"Server Key"),
        }
    }
}

impl fmt::Debug for ScramKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScramKeys").field("iterations", &self.iterations).finish_non_exhaustive()
    }
}

/// What an account keeps at rest: keys for each hash function, never the password.
///
/// The three share one salt: their PBKDF2 functions differ, so nothing can be carried from one to another,
/// and a client that moves to a stronger mechanism sees the salt it knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// Keys for SCRAM-SHA-1.
    pub sha1: ScramKeys,
    /// Keys for SCRAM-SHA-256.
    pub sha256: ScramKeys,
    /// Keys for SCRAM-SHA-512.
    pub sha512: ScramKeys,
}

impl Credentials {
    /// Derives the keys of a new password. Costs three runs of PBKDF2, milliseconds: not for an event loop.
    ///
    /// `salt` must be random and new for each password.
    ///
    /// # Errors
    /// [`PasswordError`] if the password or the iteration count is out of bounds.
    pub fn derive(password: &str, iterations: u32, salt: [u8; 16]) -> Result<Credentials, PasswordError> {
        let iterations = bounded_iterations(iterations)?;
        let prepared = prepare_password(password)?;
        let keys = |hash| ScramKeys::derive(hash, &prepared, iterations, &salt);
        Ok(Credentials { sha1: keys(Hash::Sha1), sha256: keys(Hash::Sha256), sha512: keys(Hash::Sha512) })
    }

    /// The keys for one hash function.
    #[must_use]
    pub fn keys(&self, hash: Hash) -> &ScramKeys {
        match hash {
            Hash::Sha1 => &self.sha1,
            Hash::Sha256 => &self.sha256,
            Hash::Sha512 => &self.sha512,
        }
    }

    /// Whether `password` is the one the keys were derived from. Compares in constant time. Costs a run of
    /// PBKDF2, milliseconds: not for an event loop. For an unknown user call it on [`decoy`], so that the
    /// answer takes as long.
    #[must_use]
    pub fn verify_password(&self, password: &str) -> bool {
        let (Ok(prepared), Ok(iterations)) =
            (prepare_password(password), bounded_iterations(self.sha256.iterations))
        else {
            return false;
        };
        let candidate = ScramKeys::derive(Hash::Sha256, &prepared, iterations, &self.sha256.salt);
        candidate.stored_key.ct_eq(&self.sha256.stored_key).into()
    }
}

/// Credentials for a user who does not exist: the same salt for the same name each time, so that a stranger
/// who asks twice cannot tell (RFC 5802 §9 leaves this to the server). No password opens them: their
/// keys are no hashes of anything known.
///
/// `secret` must be the same on all nodes and over restarts. `iterations` should be what real accounts have;
/// accounts from before a change of that setting can be told from decoys.
#[must_use]
pub fn decoy(secret: &[u8], user: &str, iterations: u32) -> Credentials {
    let key = hmac::Key::new(hmac::HMAC_SHA512, secret);
    let bytes = |label: &str, len: usize| {
        // The label's length is fixed per label and ends in NUL: no two inputs collide.
        let mut context = hmac::Context::with_key(&key);
        context.update(label.as_bytes());
        context.update(&[0]);
        context.update(user.as_bytes());
        context.sign().as_ref().get(..len).map_or_else(Vec::new, <[u8]>::to_vec)
    };
    let salt = bytes("salt", 16);
    let keys = |stored: &str, server: &str, hash: Hash| ScramKeys {
        iterations,
        salt: salt.clone(),
        stored_key: bytes(stored, hash.output_len()),
        server_key: bytes(server, hash.output_len()),
    };
    Credentials {
        sha1: keys("stored sha1", "server sha1", Hash::Sha1),
        sha256: keys("stored sha256", "server sha256", Hash::Sha256),
        sha512: keys("stored sha512", "server sha512", Hash::Sha512),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: [u8; 16] = *b"sixteen octets!!";

    #[test]
    fn only_the_password_itself_verifies() {
        let credentials = Credentials::derive("pencil", 4096, SALT).unwrap();
        assert!(credentials.verify_password("pencil"));
        for wrong in ["", "pencil ", "Pencil", "penci", "\u{7}"] {
            assert!(!credentials.verify_password(wrong), "{wrong:?}");
        }
    }

    #[test]
    fn saslprep_makes_equal_what_looks_equal() {
        // RFC 4013 §3: a soft hyphen goes, a Roman numeral folds, a non-breaking space becomes a space.
        let credentials = Credentials::derive("IX I", 4096, SALT).unwrap();
        assert!(credentials.verify_password("\u{2168}\u{a0}\u{ad}I"));
    }

    #[test]
    fn unusable_passwords_are_refused() {
        let derive = |password: &str, iterations| Credentials::derive(password, iterations, SALT).err();
        assert_eq!(derive("", 4096), Some(PasswordError::Empty));
        assert_eq!(derive("\u{ad}", 4096), Some(PasswordError::Empty));
        assert_eq!(derive("bell\u{7}", 4096), Some(PasswordError::Prohibited));
        assert_eq!(derive(&"x".repeat(1025), 4096), Some(PasswordError::TooLong));
        assert_eq!(derive("x", 4095), Some(PasswordError::Iterations));
        assert_eq!(derive("x", 1_000_001), Some(PasswordError::Iterations));
    }

    #[test]
    fn a_decoy_is_stable_has_the_right_shape_and_opens_to_nobody() {
        let real = Credentials::derive("pencil", 4096, SALT).unwrap();
        let fake = decoy(b"secret", "nobody", 4096);
        assert_eq!(fake, decoy(b"secret", "nobody", 4096));
        assert_ne!(fake.sha1.salt, decoy(b"secret", "noone", 4096).sha1.salt);
        assert_ne!(fake.sha1.salt, decoy(b"other", "nobody", 4096).sha1.salt);
        for hash in Hash::ALL {
            assert_eq!(fake.keys(hash).salt.len(), real.keys(hash).salt.len());
            assert_eq!(fake.keys(hash).stored_key.len(), real.keys(hash).stored_key.len());
            assert_eq!(fake.keys(hash).server_key.len(), real.keys(hash).server_key.len());
        }
        assert!(!fake.verify_password("pencil"));
    }

    #[test]
    fn keys_do_not_show_in_debug_output() {
        let credentials = Credentials::derive("pencil", 4096, SALT).unwrap();
        let shown = format!("{credentials:?} {:?}", Secret::new("pencil"));
        assert!(!shown.contains("pencil") && !shown.contains("stored_key"), "{shown}");
    }
}
