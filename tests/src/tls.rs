//! TLS of the test client: verified against the node's authority, and the data for channel binding.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use ring::digest;
use rustls::client::ClientConfig;
use rustls::{ClientConnection, ProtocolVersion, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Which versions of TLS the client offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Versions {
    /// Whatever both have, which is 1.3.
    #[default]
    Any,
    /// Only TLS 1.2, as old clients do: there `tls-exporter` is not to be had (RFC 9266 §4.2).
    Only12,
}

/// Handshakes as a client of `domain`; `direct` announces `xmpp-client` by ALPN (XEP-0368 §3).
///
/// # Errors
/// An unreadable authority, or a handshake that fails, such as for a certificate of another name.
pub async fn handshake(
    tcp: TcpStream,
    domain: &str,
    authority: &Path,
    versions: Versions,
    direct: bool,
) -> Result<Box<TlsStream<TcpStream>>> {
    let mut config = client_config(authority, versions)?;
    if direct {
        config.alpn_protocols = vec![b"xmpp-client".to_vec()];
    }
    let name = ServerName::try_from(domain.to_owned()).context("the domain is no DNS name")?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.context("TLS handshake")?;
    if direct {
        ensure!(
            stream.get_ref().1.alpn_protocol().is_none_or(|chosen| chosen == b"xmpp-client"),
            "the server chose another ALPN protocol"
        );
    }
    Ok(Box::new(stream))
}

fn client_config(authority: &Path, versions: Versions) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let place = || format!("the authority {}", authority.display());
    for certificate in CertificateDer::pem_file_iter(authority).with_context(place)? {
        roots.add(certificate.with_context(place)?).with_context(place)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = match versions {
        Versions::Any => builder.with_safe_default_protocol_versions()?,
        Versions::Only12 => builder.with_protocol_versions(&[&rustls::version::TLS12])?,
    };
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// `tls-exporter` (RFC 9266): 32 bytes under the label `EXPORTER-Channel-Binding` with an empty context.
///
/// # Errors
/// Under TLS 1.2, where it does not hold without the extended master secret.
pub fn exporter(connection: &ClientConnection) -> Result<Vec<u8>> {
    ensure!(connection.protocol_version() == Some(ProtocolVersion::TLSv1_3), "tls-exporter needs TLS 1.3");
    Ok(connection.export_keying_material([0_u8; 32], b"EXPORTER-Channel-Binding", None)?.to_vec())
}

/// `tls-server-end-point` (RFC 5929 §4.1): the server certificate under the hash of its signature,
/// SHA-256 in place of MD5 and SHA-1.
///
/// # Errors
/// No certificate, or one whose signature has no single hash.
pub fn server_end_point(connection: &ClientConnection) -> Result<Vec<u8>> {
    let leaf = connection.peer_certificates().and_then(|chain| chain.first()).context("no certificate")?;
    let (_, parsed) = x509_parser::parse_x509_certificate(leaf).context("the server's certificate")?;
    let algorithm = match parsed.signature_algorithm.algorithm.to_id_string().as_str() {
        // md5, sha1, sha256 with RSA; ECDSA with SHA-1 and SHA-256
        "1.2.840.113549.1.1.4"
        | "1.2.840.113549.1.1.5"
        | "1.2.840.113549.1.1.11"
        | "1.2.840.10045.4.1"
        | "1.2.840.10045.4.3.2" => &digest::SHA256,
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => &digest::SHA384,
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => &digest::SHA512,
        other => bail!("no hash is known for the signature algorithm {other}"),
    };
    Ok(digest::digest(algorithm, leaf).as_ref().to_vec())
}
