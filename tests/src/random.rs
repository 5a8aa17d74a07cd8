//! Random names, so that runs never meet each other's leftovers.

use ring::rand::{SecureRandom, SystemRandom};

/// `bytes` random bytes in hexadecimal.
#[must_use]
pub fn hex(bytes: usize) -> String {
    let mut buffer = vec![0_u8; bytes];
    // Without randomness from the system no TLS handshake would get this far.
    if SystemRandom::new().fill(&mut buffer).is_err() {
        buffer.fill(0);
    }
    buffer.iter().map(|byte| format!("{byte:02x}")).collect()
}
