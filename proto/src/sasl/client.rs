//! SCRAM, the client's part (RFC 5802 §5).

use subtle::ConstantTimeEq;

use super::binding::{ChannelBinding, TlsInfo};
use super::keys::{PasswordError, bounded_iterations, prepare_password};
use super::mechanism::{Hash, Mechanism};
use super::scram::{self, Malformed};

/// What a client does about channel binding (RFC 5802 §6).
#[derive(Debug, Clone, Copy)]
pub enum ClientBinding<'a> {
    /// The client cannot bind: flag `n`.
    Unsupported,
    /// The client could, but the server offers no `-PLUS` mechanism: flag `y`.
    NotOffered,
    /// The client binds, with this type and this connection: flag `p=`.
    Use(ChannelBinding, &'a TlsInfo),
}

/// Why a client gives up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The mechanism is not SCRAM, or binding and mechanism do not fit, or the connection has no such data.
    #[error("mechanism and channel binding do not fit")]
    Binding,
    /// User name or password cannot be prepared, or the server asks for an iteration count out of bounds.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The server's message breaks the grammar.
    #[error("the server's message is malformed: {0}")]
    Malformed(&'static str),
    /// The server did not take up the client's nonce.
    #[error("the server's nonce does not continue the client's")]
    Nonce,
    /// The server does not know the account's keys: it is not who it says.
    #[error("the server's signature is wrong")]
    ServerSignature,
}

impl From<Malformed> for ClientError {
    fn from(Malformed(text): Malformed) -> Self {
        ClientError::Malformed(text)
    }
}

/// A client that has made its first message and waits for the challenge.
pub struct ScramClient {
    hash: Hash,
    password: String,
    gs2_header: String,
    binding: Vec<u8>,
    bare: String,
    nonce: String,
}

impl ScramClient {
    /// Prepares a login. `nonce` must be random, printable and without comma.
    ///
    /// # Errors
    /// [`ClientError::Binding`] or [`ClientError::Password`].
    pub fn new(
        mechanism: Mechanism,
        username: &str,
        password: &str,
        authzid: Option<&str>,
        binding: ClientBinding<'_>,
        nonce: &str,
    ) -> Result<ScramClient, ClientError> {
        let hash = mechanism.hash().ok_or(ClientError::Binding)?;
        let (flag, data) = match binding {
            ClientBinding::Unsupported if !mechanism.is_plus() => ("n".to_owned(), Vec::new()),
            ClientBinding::NotOffered if !mechanism.is_plus() => ("y".to_owned(), Vec::new()),
            ClientBinding::Use(kind, tls) if mechanism.is_plus() => {
                let data = tls.data(kind).ok_or(ClientError::Binding)?;
                (format!("p={}", kind.name()), data.to_vec())
            }
            _ => return Err(ClientError::Binding),
        };
        let username = stringprep::saslprep(username).map_err(|_| PasswordError::Prohibited)?;
        let authzid = authzid.map(|id| format!("a={}", scram::escape(id))).unwrap_or_default();
        Ok(ScramClient {
            hash,
            password: prepare_password(password)?,
            gs2_header: format!("{flag},{authzid},"),
            binding: data,
            bare: format!("n={},r={nonce}", scram::escape(&username)),
            nonce: nonce.to_owned(),
        })
    }

    /// `client-first-message`.
    #[must_use]
    pub fn first(&self) -> Vec<u8> {
        format!("{}{}", self.gs2_header, self.bare).into_bytes()
    }

    /// Answers the challenge with `client-final-message`. Costs a run of PBKDF2.
    ///
    /// # Errors
    /// [`ClientError`] if the challenge is malformed, asks for too many or too few iterations, or answers
    /// somebody else.
    pub fn respond(self, challenge: &[u8]) -> Result<(ScramVerify, Vec<u8>), ClientError> {
        let first = scram::server_first(challenge)?;
        if first.nonce.len() <= self.nonce.len() || !first.nonce.starts_with(&self.nonce) {
            return Err(ClientError::Nonce);
        }
        let iterations = bounded_iterations(first.iterations)?;
        let salted = self.hash.hi(self.password.as_bytes(), &first.salt, iterations);
        let client_key = self.hash.hmac(&salted, b"Client Key");
        let stored_key = self.hash.digest(&client_key);
        let binding = [self.gs2_header.as_bytes(), &self.binding].concat();
        let without_proof = format!("c={},r={}", scram::encode(&binding), first.nonce);
        let challenge = std::str::from_utf8(challenge).map_err(|_| Malformed("not UTF-8"))?;
        let auth_message = format!("{},{challenge},{without_proof}", self.bare);
        let signature = self.hash.hmac(&stored_key, auth_message.as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(&signature).map(|(a, b)| a ^ b).collect();
        let server_key = self.hash.hmac(&salted, b"Server Key");
        let expected = self.hash.hmac(&server_key, auth_message.as_bytes());
        let message = format!("{without_proof},p={}", scram::encode(&proof));
        Ok((ScramVerify { expected }, message.into_bytes()))
    }
}

/// A client that has sent its proof and waits for the server's.
pub struct ScramVerify {
    expected: Vec<u8>,
}

impl ScramVerify {
    /// Checks `server-final-message`.
    ///
    /// # Errors
    /// [`ClientError::ServerSignature`] if the server does not know the account, [`ClientError::Malformed`].
    pub fn finish(self, message: &[u8]) -> Result<(), ClientError> {
        let verifier = scram::server_final(message)?;
        if bool::from(verifier.ct_eq(&self.expected)) { Ok(()) } else { Err(ClientError::ServerSignature) }
    }
}
