//! Mutual TLS between nodes: both sides prove, by a certificate of the cluster's own CA, which node they are.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// The application protocol: a link is not mistaken for anything else that the node listens for.
const ALPN: &[u8] = b"althing-link";

/// Why links cannot be set up with the given certificates.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkTlsError {
    /// Something is not PEM, or holds nothing of the kind needed.
    #[error("{what}: {why}")]
    Pem {
        /// Which of the inputs.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The TLS library refuses them: the key is another certificate's, or not supported.
    #[error("{0}")]
    Setup(String),
}

/// What both ends of links need for TLS 1.3.
#[derive(Clone)]
pub struct LinkTls {
    pub(crate) connector: TlsConnector,
    pub(crate) acceptor: TlsAcceptor,
}

impl LinkTls {
    /// From PEM: the certificates of the cluster's CA, the node's certificate with those between it and the CA,
    /// and the node's private key. The node's certificate bears its name as a DNS name and may be used by
    /// servers and by clients.
    ///
    /// # Errors
    /// [`LinkTlsError`].
    pub fn from_pem(ca: &[u8], certificate: &[u8], key: &[u8]) -> Result<Self, LinkTlsError> {
        let mut roots = RootCertStore::empty();
        for root in certificates("CA", ca)? {
            roots.add(root).map_err(setup)?;
        }
        let chain = certificates("certificate", certificate)?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| LinkTlsError::Pem { what: "key", why: error.to_string() })?;
        let (roots, provider) = (Arc::new(roots), Arc::new(rustls::crypto::ring::default_provider()));
        let versions = &[&rustls::version::TLS13];

        let mut client = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions)
            .map_err(setup)?
            .with_root_certificates(roots.clone())
            .with_client_auth_cert(chain.clone(), key.clone_key())
            .map_err(setup)?;
        client.alpn_protocols = vec![ALPN.to_vec()];
        // Links live long: tickets would cost memory and save nothing.
        client.resumption = Resumption::disabled();

        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
            .build()
            .map_err(|error| LinkTlsError::Setup(error.to_string()))?;
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .map_err(setup)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(setup)?;
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;

        Ok(LinkTls { connector: Arc::new(client).into(), acceptor: Arc::new(server).into() })
    }
}

impl std::fmt::Debug for LinkTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LinkTls").finish_non_exhaustive()
    }
}

/// Whether the first of the peer's certificates bears `name` as a DNS name.
pub(crate) fn bears_name(chain: Option<&[CertificateDer<'_>]>, name: &str) -> bool {
    let Some(leaf) = chain.and_then(<[_]>::first) else { return false };
    let (Ok(parsed), Ok(name)) = (ParsedCertificate::try_from(leaf), ServerName::try_from(name)) else {
        return false;
    };
    matches!(name, ServerName::DnsName(_)) && rustls::client::verify_server_name(&parsed, &name).is_ok()
}

fn certificates(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, LinkTlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(LinkTlsError::Pem { what, why: "holds no certificate".to_owned() }),
        Err(error) => Err(LinkTlsError::Pem { what, why: error.to_string() }),
    }
}

fn setup(error: rustls::Error) -> LinkTlsError {
    LinkTlsError::Setup(error.to_string())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn certificate(names: &[&str]) -> (String, String, CertificateDer<'static>) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let made = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        (made.pem(), key.serialize_pem(), made.der().clone())
    }

    #[test]
    fn only_the_dns_names_of_the_first_certificate_count() {
        let chain = [certificate(&["althing-0", "127.0.0.1"]).2, certificate(&["althing-1"]).2];
        assert!(bears_name(Some(&chain), "althing-0"));
        for other in ["althing-1", "althing-00", "127.0.0.1", "", "*", "not a name"] {
            assert!(!bears_name(Some(&chain), other), "{other}");
        }
        assert!(!bears_name(None, "althing-0"));
        assert!(!bears_name(Some(&[CertificateDer::from(vec![1, 2, 3])]), "althing-0"));
    }

    #[test]
    fn what_is_missing_or_mixed_up_is_named() {
        let ((ca, _, _), (leaf, key, _), (_, other, _)) =
            (certificate(&["ca"]), certificate(&["a"]), certificate(&["b"]));
        let load = |ca: &str, leaf: &str, key: &str| {
            LinkTls::from_pem(ca.as_bytes(), leaf.as_bytes(), key.as_bytes()).err()
        };
        assert_eq!(load(&ca, &leaf, &key), None);
        let part = |error| match error {
            Some(LinkTlsError::Pem { what, .. }) => what,
            _ => "",
        };
        assert_eq!(part(load("", &leaf, &key)), "CA");
        assert_eq!(part(load(&ca, "x", &key)), "certificate");
        assert_eq!(part(load(&ca, &leaf, &ca)), "key");
        assert!(matches!(load(&ca, &leaf, &other), Some(LinkTlsError::Setup(_))));
    }
}
