//! PLAIN (RFC 4616): authorization identity, user and password, with NUL between them.

use super::failure::{SaslCondition, SaslFailure};
use super::keys::{MAX_PASSWORD_BYTES, Secret};

/// What a client says in PLAIN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlainMessage {
    /// Whom the client wants to act as; `None` means as the user itself.
    pub authzid: Option<String>,
    /// The simple user name (RFC 6120 §6.3.8), as sent.
    pub username: String,
    /// The password, as sent: it is prepared where it is checked.
    pub password: Secret,
}

/// Takes a PLAIN message apart.
///
/// # Errors
/// `malformed-request` if it breaks RFC 4616 §2 (not UTF-8, not two NULs, no user, no password, too long).
pub fn parse(message: &[u8]) -> Result<PlainMessage, SaslFailure> {
    let malformed = |text| SaslFailure::new(SaslCondition::MalformedRequest, text);
    let text = std::str::from_utf8(message).map_err(|_| malformed("PLAIN is not UTF-8"))?;
    let mut parts = text.split('\0');
    let (Some(authzid), Some(username), Some(password), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(malformed("PLAIN needs exactly two NULs"));
    };
    if username.is_empty() || password.is_empty() {
        return Err(malformed("PLAIN needs a user and a password"));
    }
    if password.len() > MAX_PASSWORD_BYTES {
        return Err(malformed("the password is too long"));
    }
    Ok(PlainMessage {
        authzid: (!authzid.is_empty()).then(|| authzid.to_owned()),
        username: username.to_owned(),
        password: Secret::new(password),
    })
}

/// Writes a PLAIN message, for a client.
#[must_use]
pub fn write(username: &str, password: &str) -> Vec<u8> {
    [b"\0", username.as_bytes(), b"\0", password.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_of_rfc_4616() {
        let tim = parse(b"\0tim\0tanstaaftanstaaf").unwrap();
        assert_eq!((tim.authzid, tim.username.as_str()), (None, "tim"));
        assert_eq!(tim.password.expose(), "tanstaaftanstaaf");
        assert_eq!(parse(b"Ursel\0Kurt\0xipj3plmq").unwrap().authzid.as_deref(), Some("Ursel"));
        assert_eq!(parse(&write("tim", "secret")).unwrap().password.expose(), "secret");
    }

    #[test]
    fn broken_messages_are_malformed() {
        let long = [b"\0u\0".as_slice(), &[b'x'; 1025]].concat();
        for bad in [&b""[..], b"tim", b"\0tim", b"\0\0pw", b"\0tim\0", b"\0tim\0pw\0", b"\0t\xff\0pw", &long]
        {
            assert_eq!(parse(bad).unwrap_err().condition, SaslCondition::MalformedRequest, "{bad:?}");
        }
    }
}
