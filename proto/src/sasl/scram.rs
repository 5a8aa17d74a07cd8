//! The texts of SCRAM, taken apart (RFC 5802 §5.1, §7).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// A text that breaks the grammar; says where, for the peer's developer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

/// `gs2-cbind-flag`: what the client says about channel binding (RFC 5802 §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BindingFlag<'a> {
    /// `n`: the client cannot bind.
    Cannot,
    /// `y`: the client can, and believes that the server cannot.
    BelievesServerCannot,
    /// `p=name`: the client binds, with this type.
    Uses(&'a str),
}

/// `client-first-message`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ClientFirst<'a> {
    pub(super) flag: BindingFlag<'a>,
    pub(super) authzid: Option<String>,
    /// Everything up to and with the second comma; the client repeats it in its final message.
    pub(super) gs2_header: &'a str,
    /// `client-first-message-bare`, which both sides sign.
    pub(super) bare: &'a str,
    pub(super) username: String,
    pub(super) nonce: &'a str,
}

/// `server-first-message`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ServerFirst<'a> {
    pub(super) nonce: &'a str,
    pub(super) salt: Vec<u8>,
    pub(super) iterations: u32,
}

/// `client-final-message`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ClientFinal<'a> {
    /// The GS2 header again, and the channel-binding data.
    pub(super) binding: Vec<u8>,
    pub(super) nonce: &'a str,
    /// `client-final-message-without-proof`, which both sides sign.
    pub(super) without_proof: &'a str,
    pub(super) proof: Vec<u8>,
}

pub(super) fn client_first(message: &[u8]) -> Result<ClientFirst<'_>, Malformed> {
    let text = utf8(message)?;
    let (flag, rest) = text.split_once(',').ok_or(Malformed("no channel-binding flag"))?;
    let flag = match flag {
        "n" => BindingFlag::Cannot,
        "y" => BindingFlag::BelievesServerCannot,
        _ => match flag.strip_prefix("p=") {
            Some(name) if !name.is_empty() && name.bytes().all(is_binding_name) => BindingFlag::Uses(name),
            _ => return Err(Malformed("bad channel-binding flag")),
        },
    };
    let (authzid, bare) = rest.split_once(',').ok_or(Malformed("no authorization identity field"))?;
    let authzid = match authzid {
        "" => None,
        _ => Some(unescape(authzid.strip_prefix("a=").ok_or(Malformed("bad authorization identity"))?)?),
    };
    let gs2_header = text.strip_suffix(bare).unwrap_or_default();
    let mut attributes = bare.split(',');
    let username = mandatory(attributes.next(), "n=", "no user name")?;
    let nonce = mandatory(attributes.next(), "r=", "no nonce")?;
    check_nonce(nonce)?;
    check_extensions(attributes)?;
    Ok(ClientFirst { flag, authzid, gs2_header, bare, username: unescape(username)?, nonce })
}

pub(super) fn server_first(message: &[u8]) -> Result<ServerFirst<'_>, Malformed> {
    let mut attributes = utf8(message)?.split(',');
    let nonce = mandatory(attributes.next(), "r=", "no nonce")?;
    let salt = mandatory(attributes.next(), "s=", "no salt")?;
    let iterations = mandatory(attributes.next(), "i=", "no iteration count")?;
    check_nonce(nonce)?;
    check_extensions(attributes)?;
    if !iterations.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Malformed("bad iteration count"));
    }
    Ok(ServerFirst {
        nonce,
        salt: base64(salt)?,
        iterations: iterations.parse().map_err(|_| Malformed("bad iteration count"))?,
    })
}

pub(super) fn client_final(message: &[u8]) -> Result<ClientFinal<'_>, Malformed> {
    let text = utf8(message)?;
    let (without_proof, proof) = text.rsplit_once(",p=").ok_or(Malformed("no proof"))?;
    let mut attributes = without_proof.split(',');
    let binding = mandatory(attributes.next(), "c=", "no channel-binding field")?;
    let nonce = mandatory(attributes.next(), "r=", "no nonce")?;
    check_extensions(attributes)?;
    Ok(ClientFinal { binding: base64(binding)?, nonce, without_proof, proof: base64(proof)? })
}

/// `server-final-message`: the verifier (`v=`); an error (`e=`) is malformed here, since XMPP carries errors
/// in `<failure/>`.
pub(super) fn server_final(message: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut attributes = utf8(message)?.split(',');
    let verifier = base64(mandatory(attributes.next(), "v=", "no verifier")?)?;
    check_extensions(attributes)?;
    Ok(verifier)
}

pub(super) fn encode(data: &[u8]) -> String {
    STANDARD.encode(data)
}

/// Escapes a name for `n=` or `a=` (RFC 5802 §5.1 `saslname`).
pub(super) fn escape(name: &str) -> String {
    name.replace('=', "=3D").replace(',', "=2C")
}

fn unescape(name: &str) -> Result<String, Malformed> {
    let mut out = String::with_capacity(name.len());
    let mut parts = name.split('=');
    out.push_str(parts.next().unwrap_or_default());
    for part in parts {
        if let Some(rest) = part.strip_prefix("2C") {
            out.push(',');
            out.push_str(rest);
        } else if let Some(rest) = part.strip_prefix("3D") {
            out.push('=');
            out.push_str(rest);
        } else {
            return Err(Malformed("a name has a bare '='"));
        }
    }
    if out.is_empty() || out.contains('\0') {
        Err(Malformed("a name is empty or has a NUL"))
    } else {
        Ok(out)
    }
}

fn utf8(message: &[u8]) -> Result<&str, Malformed> {
    std::str::from_utf8(message).map_err(|_| Malformed("not UTF-8"))
}

fn mandatory<'a>(
    attribute: Option<&'a str>,
    prefix: &str,
    missing: &'static str,
) -> Result<&'a str, Malformed> {
    let attribute = attribute.ok_or(Malformed(missing))?;
    if attribute.starts_with("m=") {
        return Err(Malformed("a mandatory extension is not supported"));
    }
    attribute.strip_prefix(prefix).ok_or(Malformed(missing))
}

/// Unknown optional extensions are ignored, `m=` is refused (RFC 5802 §5.1 `m`).
fn check_extensions<'a>(attributes: impl Iterator<Item = &'a str>) -> Result<(), Malformed> {
    for attribute in attributes {
        match attribute.as_bytes() {
            [b'm', b'=', ..] => return Err(Malformed("a mandatory extension is not supported")),
            [letter, b'=', _, ..] if letter.is_ascii_alphabetic() => {}
            _ => return Err(Malformed("bad extension")),
        }
    }
    Ok(())
}

/// `printable`: visible ASCII; the comma cannot occur after the split.
fn check_nonce(nonce: &str) -> Result<(), Malformed> {
    if !nonce.is_empty() && nonce.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(())
    } else {
        Err(Malformed("bad nonce"))
    }
}

fn is_binding_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'-'
}

fn base64(text: &str) -> Result<Vec<u8>, Malformed> {
    STANDARD.decode(text).map_err(|_| Malformed("bad base64"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_client_first_message() {
        let first = client_first(b"p=tls-exporter,a=juliet@example.com,n=jul=2Ciet=3D,r=abc,x=y").unwrap();
        assert_eq!(first.flag, BindingFlag::Uses("tls-exporter"));
        assert_eq!(first.gs2_header, "p=tls-exporter,a=juliet@example.com,");
        assert_eq!(first.bare, "n=jul=2Ciet=3D,r=abc,x=y");
        assert_eq!(first.authzid.as_deref(), Some("juliet@example.com"));
        assert_eq!((first.username.as_str(), first.nonce), ("jul,iet=", "abc"));
        assert_eq!(unescape(&escape("a,=b=2C")).unwrap(), "a,=b=2C");
    }

    #[test]
    fn broken_client_first_messages() {
        for bad in [
            "",
            "n",
            "n,",
            "n,,",
            "x,,n=u,r=a",
            "p=,,n=u,r=a",
            "p=a_b,,n=u,r=a",
            "n,b=x,n=u,r=a",
            "n,,n=u",
            "n,,n=,r=a",
            "n,,n=u,r=",
            "n,,n=u,r=\u{e9}",
            "n,,n=u=,r=a",
            "n,,n=u=2c,r=a",
            "n,,m=x,n=u,r=a",
            "n,,n=u,r=a,m=x",
            "n,,n=u,r=a,xy",
            "n,,n=u,r=a,x=",
            "n,,r=a,n=u",
            "n,a=,n=u,r=a",
            "n,,n=u\0,r=a",
        ] {
            assert!(client_first(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(client_first(b"n,,n=\xff,r=a").is_err());
    }

    #[test]
    fn broken_later_messages() {
        for bad in [
            "",
            "p=AA==",
            "c=biws,p=AA==",
            "c=biws,r=a",
            "c=biws,r=a,p=A",
            "c=b,r=a,p=AA==",
            "c=biws,r=a,m=1,p=AA==",
            "c=biws,r=a,p=AA==,x=1",
        ] {
            assert!(client_final(bad.as_bytes()).is_err(), "{bad:?}");
        }
        for bad in [
            "",
            "r=a",
            "r=a,s=AA==",
            "r=a,s=AA==,i=",
            "r=a,s=AA==,i=+1",
            "r=a,s=AA==,i=99999999999",
            "m=1,r=a,s=AA==,i=1",
            "r=a,s=!,i=1",
        ] {
            assert!(server_first(bad.as_bytes()).is_err(), "{bad:?}");
        }
        for bad in ["", "e=other-error", "v=!", "v=AA==,m=1"] {
            assert!(server_final(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }
}
