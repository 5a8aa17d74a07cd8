//! SCRAM, the server's part (RFC 5802 §5): first message, challenge, proof.
//!
//! Two types, one a step, so that no step can be skipped: [`ScramStart`] holds the client's first message
//! while the account's keys are fetched, [`ScramChallenge`] waits for the proof.

use subtle::ConstantTimeEq;

use super::binding::{ChannelBinding, TlsInfo};
use super::failure::{SaslCondition, SaslFailure};
use super::keys::ScramKeys;
use super::mechanism::{Hash, Mechanism};
use super::scram::{self, BindingFlag, Malformed};

impl From<Malformed> for SaslFailure {
    fn from(Malformed(text): Malformed) -> Self {
        SaslFailure::new(SaslCondition::MalformedRequest, text)
    }
}

/// A client's first message, read and found in order; waits for the keys of the account.
pub struct ScramStart {
    hash: Hash,
    username: String,
    authzid: Option<String>,
    /// What the client must repeat in `c=`: its GS2 header and the channel-binding data.
    binding: Vec<u8>,
    bare: String,
    nonce: String,
}

impl ScramStart {
    /// Reads the client's first message.
    ///
    /// `plus_offered` says whether this stream offered a `-PLUS` mechanism; a client that says `y` then was
    /// lied to by somebody in between (RFC 5802 §6). `tls` holds the binding data of the connection.
    /// `server_nonce` must be unguessable, printable and without comma.
    ///
    /// # Errors
    /// The failure to send: `invalid-mechanism` for a mechanism that is not SCRAM, `malformed-request` for a
    /// message that breaks the grammar or a binding that does not fit the mechanism, `not-authorized` for a downgrade.
    pub fn read(
        mechanism: Mechanism,
        plus_offered: bool,
        tls: Option<&TlsInfo>,
        server_nonce: &str,
        message: &[u8],
    ) -> Result<ScramStart, SaslFailure> {
        let hash = mechanism.hash().ok_or(SaslCondition::InvalidMechanism)?;
        let first = scram::client_first(message)?;
        let mut binding = first.gs2_header.as_bytes().to_vec();
        match (first.flag, mechanism.is_plus()) {
            (BindingFlag::Cannot, false) => {}
            (BindingFlag::BelievesServerCannot, false) if !plus_offered => {}
            (BindingFlag::BelievesServerCannot, false) => {
                return Err(SaslFailure::new(
                    SaslCondition::NotAuthorized,
                    "channel binding was offered but did not reach the client",
                ));
            }
            (BindingFlag::Uses(name), true) => {
                let data = ChannelBinding::from_name(name)
                    .and_then(|kind| tls?.data(kind))
                    .ok_or(Malformed("this type of channel binding is not offered"))?;
                binding.extend_from_slice(data);
            }
            (_, true) => return Err(Malformed("a -PLUS mechanism needs channel binding").into()),
            (BindingFlag::Uses(_), false) => {
                return Err(Malformed("channel binding needs a -PLUS mechanism").into());
            }
        }
        // RFC 5802 §5.1: a server prepares the name before it looks for the account.
        let username = stringprep::saslprep(&first.username)
            .ok()
            .filter(|name| !name.is_empty())
            .ok_or(Malformed("the user name cannot be prepared"))?
            .into_owned();
        Ok(ScramStart {
            hash,
            username,
            authzid: first.authzid,
            binding,
            bare: first.bare.to_owned(),
            nonce: format!("{}{server_nonce}", first.nonce),
        })
    }

    /// The simple user name (RFC 6120 §6.3.8), prepared by SASLprep.
    #[must_use]
    pub fn username(&self) -> &str {
        &self.username
    }

    /// Whom the client wants to act as, if it says so.
    #[must_use]
    pub fn authzid(&self) -> Option<&str> {
        self.authzid.as_deref()
    }

    /// The hash function whose keys are needed.
    #[must_use]
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// Makes the challenge (`server-first-message`) from the account's keys for [`ScramStart::hash`].
    #[must_use]
    pub fn challenge(self, keys: &ScramKeys) -> (ScramChallenge, Vec<u8>) {
        let challenge = format!("r={},s={},i={}", self.nonce, scram::encode(&keys.salt), keys.iterations);
        let next = ScramChallenge {
            hash: self.hash,
            stored_key: keys.stored_key.clone(),
            server_key: keys.server_key.clone(),
            binding: self.binding,
            signed_so_far: format!("{},{challenge}", self.bare),
            nonce: self.nonce,
        };
        (next, challenge.into_bytes())
    }
}

/// A challenge that was sent; waits for the client's proof.
pub struct ScramChallenge {
    hash: Hash,
    stored_key: Vec<u8>,
    server_key: Vec<u8>,
    binding: Vec<u8>,
    /// The first two thirds of `AuthMessage`.
    signed_so_far: String,
    nonce: String,
}

impl ScramChallenge {
    /// Checks the client's final message; gives the server's (`server-final-message`), which proves to the
    /// client that the server knows the account's keys too.
    ///
    /// # Errors
    /// `malformed-request` if it breaks the grammar, `not-authorized` if nonce, channel binding or proof are
    /// wrong; the client does not learn which.
    pub fn finish(self, message: &[u8]) -> Result<Vec<u8>, SaslFailure> {
        let last = scram::client_final(message)?;
        let auth_message = format!("{},{}", self.signed_so_far, last.without_proof);
        let client_signature = self.hash.hmac(&self.stored_key, auth_message.as_bytes());
        // A proof of another length cannot be right; `zip` would shorten it, so it is compared first.
        let length = last.proof.len().ct_eq(&client_signature.len());
        let client_key: Vec<u8> = last.proof.iter().zip(&client_signature).map(|(a, b)| a ^ b).collect();
        let proof = self.hash.digest(&client_key).ct_eq(&self.stored_key);
        let nonce = last.nonce.as_bytes().ct_eq(self.nonce.as_bytes());
        let binding = last.binding.ct_eq(&self.binding);
        if bool::from(length & proof & nonce & binding) {
            let signature = self.hash.hmac(&self.server_key, auth_message.as_bytes());
            Ok(format!("v={}", scram::encode(&signature)).into_bytes())
        } else {
            Err(SaslCondition::NotAuthorized.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;
    use crate::sasl::client::{ClientBinding, ClientError, ScramClient};
    use crate::sasl::{Credentials, decoy};

    /// User `user`, password `pencil`, client nonce, server nonce, salt, 4,096 iterations; then the four
    /// messages.
    struct Vector {
        mechanism: Mechanism,
        server_nonce: &'static str,
        salt: &'static str,
        messages: [&'static str; 4],
    }

    /// RFC 5802 §5.
    const SHA_1: Vector = Vector {
        mechanism: Mechanism::ScramSha1,
        server_nonce: "3rfcNHYJY1ZVvWVs7j",
        salt: "QSXCR+Q6sek8bf92",
        messages: [
            "n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL",
            "r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
            "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
            "v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
        ],
    };

    /// RFC 7677 §3.
    const SHA_256: Vector = Vector {
        mechanism: Mechanism::ScramSha256,
        server_nonce: "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
        salt: "W22ZaJ0SNY7soEsUEjb6gQ==",
        messages: [
            "n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
             p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
            "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
        ],
    };

    /// The input of RFC 7677 §3 with SHA-512, computed by Python's hashlib and hmac.
    const SHA_512: Vector = Vector {
        mechanism: Mechanism::ScramSha512,
        messages: [
            SHA_256.messages[0],
            SHA_256.messages[1],
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
             p=gMGXRcevScNtxZ6/8lQYpGtnsNAc3mGcmNomv+xnoOMw+3R2xNJdMNnzMlTN8PPC6wdp6dybEmDYXYTxwnYPJQ==",
            "v=ZQnYEgWQMFmmsM8aQMF0nDDCy/AgCzkwk8CmMZYcMg0vSVlKDanekLtifDSeVGT4+5ZxXnJq199RVG2rR7N7Zw==",
        ],
        ..SHA_256
    };

    /// The same, bound by `tls-exporter` to the octets 0 to 31.
    const SHA_512_PLUS: Vector = Vector {
        mechanism: Mechanism::ScramSha512Plus,
        messages: [
            "p=tls-exporter,,n=user,r=rOprNGfwEbeRWgbNEkqO",
            SHA_256.messages[1],
            "c=cD10bHMtZXhwb3J0ZXIsLAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f,\
             r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
             p=jVaGV/PIJ7hgkpxV9a1jdpzyYkHQH9gW6fn3DbAL2oEA+5w4CCSJjoq8G37bn2FsGaVEMsk4kiHRqMUoN/aiiA==",
            "v=bTvxua5nsJsvSd2bk+1WbSe84MBgjkACQPOqiN7MhTBLYxVX2QUqwET2NLcZEv2CfexR6NbAMluKltOEs5vLYw==",
        ],
        ..SHA_256
    };

    fn exporter() -> TlsInfo {
        TlsInfo { exporter: Some((0..32).collect()), server_end_point: None }
    }

    fn keys(vector: &Vector) -> ScramKeys {
        let salt = STANDARD.decode(vector.salt).unwrap();
        let hash = vector.mechanism.hash().unwrap();
        ScramKeys::derive(hash, "pencil", NonZeroU32::new(4096).unwrap(), &salt)
    }

    fn challenge(vector: &Vector) -> ScramChallenge {
        let first = vector.messages[0].as_bytes();
        let start =
            ScramStart::read(vector.mechanism, false, Some(&exporter()), vector.server_nonce, first).unwrap();
        let (next, message) = start.challenge(&keys(vector));
        assert_eq!(String::from_utf8(message).unwrap(), vector.messages[1]);
        next
    }

    #[test]
    fn server_and_client_agree_with_the_vectors() {
        for vector in [SHA_1, SHA_256, SHA_512, SHA_512_PLUS] {
            let server_final = challenge(&vector).finish(vector.messages[2].as_bytes()).unwrap();
            assert_eq!(String::from_utf8(server_final).unwrap(), vector.messages[3]);

            let tls = exporter();
            let binding = if vector.mechanism.is_plus() {
                ClientBinding::Use(ChannelBinding::TlsExporter, &tls)
            } else {
                ClientBinding::Unsupported
            };
            let nonce = vector.messages[0].rsplit_once("r=").unwrap().1;
            let client = ScramClient::new(vector.mechanism, "user", "pencil", None, binding, nonce).unwrap();
            assert_eq!(client.first(), vector.messages[0].as_bytes());
            let (verify, proof) = client.respond(vector.messages[1].as_bytes()).unwrap();
            assert_eq!(String::from_utf8(proof).unwrap(), vector.messages[2]);
            assert_eq!(verify.finish(vector.messages[3].as_bytes()), Ok(()));
        }
    }

    #[test]
    fn a_proof_is_refused_when_anything_in_it_is_changed() {
        let good = SHA_256.messages[2];
        for (from, to) in [
            ("c=biws", "c=eSws"),
            ("$k0", "$k1"),
            ("r=rOp", "x=1,r=rOp"),
            ("p=dHz", "p=eHz"),
            ("ndVQ=", "nQ=="),
            (",p=", ",x=1,p="),
            ("p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=", "p="),
        ] {
            let bad = good.replacen(from, to, 1);
            assert_ne!(bad, good);
            assert!(challenge(&SHA_256).finish(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    fn refused(mechanism: Mechanism, offered: bool, tls: Option<&TlsInfo>, first: &str) -> SaslCondition {
        ScramStart::read(mechanism, offered, tls, "s", first.as_bytes()).err().expect(first).condition
    }

    #[test]
    fn binding_and_mechanism_must_fit() {
        let tls = exporter();
        let (scram, plus) = (Mechanism::ScramSha256, Mechanism::ScramSha256Plus);
        assert_eq!(refused(scram, true, Some(&tls), "y,,n=u,r=c"), SaslCondition::NotAuthorized);
        assert!(ScramStart::read(scram, false, Some(&tls), "s", b"y,,n=u,r=c").is_ok());
        assert!(ScramStart::read(scram, true, Some(&tls), "s", b"n,,n=u,r=c").is_ok());
        let malformed = SaslCondition::MalformedRequest;
        assert_eq!(refused(scram, true, Some(&tls), "p=tls-exporter,,n=u,r=c"), malformed);
        assert_eq!(refused(plus, true, Some(&tls), "n,,n=u,r=c"), malformed);
        assert_eq!(refused(plus, true, Some(&tls), "y,,n=u,r=c"), malformed);
        assert_eq!(refused(plus, true, Some(&tls), "p=tls-unique,,n=u,r=c"), malformed);
        assert_eq!(refused(plus, true, Some(&tls), "p=tls-server-end-point,,n=u,r=c"), malformed);
        assert_eq!(refused(plus, true, None, "p=tls-exporter,,n=u,r=c"), malformed);
        assert_eq!(refused(Mechanism::Plain, true, None, "n,,n=u,r=c"), SaslCondition::InvalidMechanism);
    }

    #[test]
    fn a_man_in_the_middle_with_another_connection_is_refused() {
        let other = TlsInfo { exporter: Some(vec![9; 32]), server_end_point: None };
        let binding = ClientBinding::Use(ChannelBinding::TlsExporter, &other);
        let client =
            ScramClient::new(Mechanism::ScramSha512Plus, "user", "pencil", None, binding, "c").unwrap();
        let start =
            ScramStart::read(Mechanism::ScramSha512Plus, true, Some(&exporter()), "s", &client.first())
                .unwrap();
        let (server, challenge) = start.challenge(&keys(&SHA_512));
        let (_, proof) = client.respond(&challenge).unwrap();
        assert_eq!(server.finish(&proof).unwrap_err().condition, SaslCondition::NotAuthorized);
    }

    #[test]
    fn an_unknown_user_looks_like_a_wrong_password() {
        let talk = |credentials: &Credentials| {
            let client = ScramClient::new(
                Mechanism::ScramSha256,
                "user",
                "wrong",
                None,
                ClientBinding::Unsupported,
                "client",
            )
            .unwrap();
            let start =
                ScramStart::read(Mechanism::ScramSha256, false, None, "server", &client.first()).unwrap();
            let (server, challenge) = start.challenge(credentials.keys(Hash::Sha256));
            let (_, proof) = client.respond(&challenge).unwrap();
            (challenge.len(), server.finish(&proof).unwrap_err())
        };
        let known = Credentials::derive("pencil", 4096, [1; 16]).unwrap();
        assert_eq!(talk(&known), talk(&decoy(b"secret", "user", 4096)));
    }

    #[test]
    fn a_client_refuses_a_server_that_does_not_know_it() {
        let client = || {
            ScramClient::new(Mechanism::ScramSha1, "u", "p", None, ClientBinding::NotOffered, "abc").unwrap()
        };
        let respond = |text: &str| client().respond(text.as_bytes()).err();
        assert_eq!(respond("r=xyz1,s=AAAA,i=4096"), Some(ClientError::Nonce));
        assert_eq!(respond("r=abc,s=AAAA,i=4096"), Some(ClientError::Nonce));
        assert!(matches!(respond("r=abc1,s=AAAA,i=1"), Some(ClientError::Password(_))));
        assert!(matches!(respond("r=abc1,s=AAAA,i=4294967295"), Some(ClientError::Password(_))));
        let (verify, _) = client().respond(b"r=abc1,s=AAAA,i=4096").unwrap();
        assert_eq!(verify.finish(b"v=AAAA"), Err(ClientError::ServerSignature));
    }
}
