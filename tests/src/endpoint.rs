//! Where a node is reached, and whose certificates it shows.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// The addresses of one node, as a client needs them.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// The XMPP domain served there.
    pub domain: String,
    /// Clients, plain and with STARTTLS.
    pub c2s: SocketAddr,
    /// Clients, TLS from the first byte (XEP-0368).
    pub c2s_tls: SocketAddr,
    /// External components (XEP-0114); `None` where they cannot connect.
    pub components: Option<SocketAddr>,
    /// The same over direct TLS.
    pub components_tls: Option<SocketAddr>,
    /// PEM file of the authority that signed its certificate.
    pub authority: PathBuf,
}

impl Endpoint {
    /// Reads `C2S,C2S_TLS,CA.pem[,DOMAIN]`, the form of `ALTHING_WIRE_ENDPOINT`: a server that already runs.
    ///
    /// # Errors
    /// A part that is missing or no address.
    pub fn parse(text: &str) -> Result<Endpoint> {
        let parts: Vec<&str> = text.split(',').collect();
        ensure!(parts.len() == 3 || parts.len() == 4, "expected C2S,C2S_TLS,CA.pem[,DOMAIN], got {text:?}");
        Ok(Endpoint {
            domain: parts.get(3).unwrap_or(&"localhost").to_string(),
            c2s: parts[0].parse().with_context(|| format!("{:?} is no address", parts[0]))?,
            c2s_tls: parts[1].parse().with_context(|| format!("{:?} is no address", parts[1]))?,
            components: None,
            components_tls: None,
            authority: Path::new(parts[2]).to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_variable() {
        let endpoint = Endpoint::parse("127.0.0.1:5322,127.0.0.1:5323,ca.pem").unwrap();
        assert_eq!((endpoint.domain.as_str(), endpoint.c2s_tls.port()), ("localhost", 5323));
        assert!(Endpoint::parse("127.0.0.1:5322").is_err());
        assert!(Endpoint::parse("127.0.0.1,127.0.0.1:1,ca.pem").is_err());
    }
}
