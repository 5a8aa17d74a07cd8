//! TLS of the client-to-server listeners: certificates, ALPN, channel-binding data.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use althing_proto::time::Timestamp;
use ring::digest;
use rustls::server::{NoServerSessionStorage, ServerConfig};
use rustls::sign::CertifiedKey;
use rustls::{ProtocolVersion, ServerConnection, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::signature_algorithm::SignatureAlgorithm;

use crate::config::{Tls, TlsVersion};

/// XEP-0368 §5: the application protocol of direct TLS.
pub const ALPN_CLIENT: &[u8] = b"xmpp-client";

/// RFC 7301 §6: the application protocol of the HTTPS port; a WebSocket needs HTTP/1.1.
const ALPN_HTTP: &[u8] = b"http/1.1";

/// RFC 9266 §2: the label of `tls-exporter`.
const EXPORTER_LABEL: &[u8] = b"EXPORTER-Channel-Binding";

/// Why a certificate cannot be used; names the file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// No file is configured.
    #[error("{0} is not set")]
    NotSet(&'static str),
    /// The file cannot be read.
    #[error("{}: cannot be read: {source}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not PEM, or holds nothing of the kind needed.
    #[error("{}: {what}", .path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is missing or broken.
        what: String,
    },
    /// Certificate and key belong to different pairs, or the key's kind is not supported.
    #[error("{} does not fit {}: {reason}", .key.display(), .certificate.display())]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The TLS library refuses the settings.
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
}

/// What the listeners need for TLS, made from one certificate. Replace the whole value to reload.
#[derive(Debug, Clone)]
pub struct TlsContext {
    /// For direct TLS: ALPN `xmpp-client` (XEP-0368).
    pub direct: Arc<ServerConfig>,
    /// For STARTTLS: no ALPN.
    pub starttls: Arc<ServerConfig>,
    /// For HTTPS: ALPN `http/1.1`.
    pub web: Arc<ServerConfig>,
    /// `tls-server-end-point` (RFC 5929 §4.1); none when the certificate's signature names no single hash.
    pub server_end_point: Option<Vec<u8>>,
    /// When the certificate begins to be valid.
    pub not_before: Timestamp,
    /// When the certificate expires.
    pub not_after: Timestamp,
}

impl TlsContext {
    /// Loads certificate and key.
    ///
    /// A certificate that has expired is loaded: refusing to start would help nobody. The caller compares
    /// `not_after` with its clock and warns; readiness fails.
    ///
    /// # Errors
    ///
    /// A file that is not set, not found, or holds no certificate or key, and a key that is another's.
    pub fn load(tls: &Tls) -> Result<Self, TlsError> {
        let certificate = tls.certificate.as_deref().ok_or(TlsError::NotSet("tls.certificate"))?;
        let key = tls.key.as_deref().ok_or(TlsError::NotSet("tls.key"))?;
        let chain = read_chain(certificate)?;
        let content = |what: String| TlsError::Content { path: certificate.to_owned(), what };
        let leaf = chain.first().ok_or_else(|| content("holds no certificate".to_owned()))?;
        let (_, parsed) = X509Certificate::from_der(leaf)
            .map_err(|error| content(format!("the first certificate cannot be read: {error}")))?;
        let validity = parsed.validity();
        let (not_before, not_after) =
            (timestamp(validity.not_before.timestamp()), timestamp(validity.not_after.timestamp()));
        let server_end_point = end_point(leaf, &parsed);
        let certified = certify(certificate, key, chain.clone(), read_key(key)?)?;
        Ok(TlsContext {
            direct: Arc::new(server_config(&certified, tls.min_version, &[ALPN_CLIENT])?),
            starttls: Arc::new(server_config(&certified, tls.min_version, &[])?),
            web: Arc::new(server_config(&certified, tls.min_version, &[ALPN_HTTP])?),
            server_end_point,
            not_before,
            not_after,
        })
    }

    /// Whether the certificate is valid at `now`.
    #[must_use]
    pub fn is_valid(&self, now: Timestamp) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }
}

/// Channel-binding data of a finished handshake: `tls-exporter` (RFC 9266) and `tls-server-end-point`.
///
/// The exporter is unique to a connection only in TLS 1.3, or in TLS 1.2 with the extended master secret,
/// which cannot be asked for; so it is given for TLS 1.3 alone (RFC 9266 §4.2).
#[must_use]
pub fn channel_bindings(
    connection: &ServerConnection,
    context: &TlsContext,
) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
    let exporter = (connection.protocol_version() == Some(ProtocolVersion::TLSv1_3))
        .then(|| connection.export_keying_material([0_u8; 32], EXPORTER_LABEL, None).ok())
        .flatten()
        .map(|bytes| bytes.to_vec());
    (exporter, context.server_end_point.clone())
}

/// All certificates of a PEM file, in its order.
fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    CertificateDer::pem_slice_iter(&read(path)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| TlsError::Content { path: path.to_owned(), what: format!("is not PEM: {error}") })
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|error| {
        let what = match error {
            rustls_pki_types::pem::Error::NoItemsFound => "holds no private key".to_owned(),
            other => format!("is not PEM: {other}"),
        };
        TlsError::Content { path: path.to_owned(), what }
    })
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Unreadable { path: path.to_owned(), source })
}

fn certify(
    certificate: &Path,
    key: &Path,
    chain: Vec<CertificateDer<'static>>,
    private: PrivateKeyDer<'static>,
) -> Result<Arc<CertifiedKey>, TlsError> {
    let mismatch = |error: rustls::Error| TlsError::Mismatch {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
        reason: match error {
            rustls::Error::InconsistentKeys(_) => "the key is another certificate's".to_owned(),
            other => other.to_string(),
        },
    };
    let signing = rustls::crypto::ring::sign::any_supported_type(&private).map_err(mismatch)?;
    let certified = CertifiedKey::new(chain, signing);
    certified.keys_match().map_err(mismatch)?;
    Ok(Arc::new(certified))
}

fn server_config(
    certified: &Arc<CertifiedKey>,
    oldest: TlsVersion,
    alpn: &[&[u8]],
) -> Result<ServerConfig, rustls::Error> {
    let versions: &[&SupportedProtocolVersion] = match oldest {
        TlsVersion::V1_2 => &[&rustls::version::TLS13, &rustls::version::TLS12],
        TlsVersion::V1_3 => &[&rustls::version::TLS13],
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let resolver = Arc::new(rustls::sign::SingleCertAndKey::from(certified.clone()));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    // A session kept on one node is unknown to the others, and costs memory on each.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn timestamp(seconds: i64) -> Timestamp {
    Timestamp::from_millis(u64::try_from(seconds).unwrap_or(0).saturating_mul(1000))
}

/// RFC 5929 §4.1: the certificate's hash by its signature's hash function, SHA-256 in place of MD5 and SHA-1.
fn end_point(der: &[u8], certificate: &X509Certificate<'_>) -> Option<Vec<u8>> {
    let algorithm = SignatureAlgorithm::try_from(&certificate.signature_algorithm).ok()?;
    let oid = match &algorithm {
        SignatureAlgorithm::RSASSA_PSS(parameters) => parameters.hash_algorithm_oid().to_id_string(),
        // Signs without a hash function of its own: the binding is undefined for it.
        SignatureAlgorithm::ED25519 => return None,
        _ => certificate.signature_algorithm.algorithm.to_id_string(),
    };
    let hash = match oid.as_str() {
        // sha384WithRSAEncryption, ecdsa-with-SHA384, id-sha384
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" | "2.16.840.1.101.3.4.2.2" => &digest::SHA384,
        // sha512WithRSAEncryption, ecdsa-with-SHA512, id-sha512
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" | "2.16.840.1.101.3.4.2.3" => &digest::SHA512,
        // MD5, SHA-1 and SHA-256 with RSA; SHA-1 and SHA-256 with ECDSA; id-sha1, id-sha256
        "1.2.840.113549.1.1.4"
        | "1.2.840.113549.1.1.5"
        | "1.2.840.113549.1.1.11"
        | "1.2.840.10045.4.1"
        | "1.2.840.10045.4.3.2"
        | "1.3.14.3.2.26"
        | "2.16.840.1.101.3.4.2.1" => &digest::SHA256,
        _ => return None,
    };
    Some(digest::digest(hash, der).as_ref().to_vec())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384};
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;

    struct Files {
        _dir: tempfile::TempDir,
        tls: Tls,
        der: CertificateDer<'static>,
    }

    fn files(algorithm: &'static rcgen::SignatureAlgorithm) -> Files {
        let dir = tempfile::tempdir().unwrap();
        let pair = KeyPair::generate_for(algorithm).unwrap();
        let certificate =
            CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&pair).unwrap();
        let tls = Tls {
            certificate: Some(dir.path().join("c.pem")),
            key: Some(dir.path().join("k.pem")),
            min_version: TlsVersion::V1_2,
        };
        std::fs::write(dir.path().join("c.pem"), certificate.pem()).unwrap();
        std::fs::write(dir.path().join("k.pem"), pair.serialize_pem()).unwrap();
        Files { _dir: dir, tls, der: certificate.der().clone() }
    }

    fn handshake(
        server: Arc<ServerConfig>,
        root: &CertificateDer<'static>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Result<(ServerConnection, ClientConnection), rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add(root.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![ALPN_CLIENT.to_vec()];
        let mut client = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
        let mut server = ServerConnection::new(server).unwrap();
        while client.is_handshaking() || server.is_handshaking() {
            let mut bytes = Vec::new();
            client.write_tls(&mut bytes).unwrap();
            server.read_tls(&mut bytes.as_slice()).unwrap();
            server.process_new_packets()?;
            bytes.clear();
            server.write_tls(&mut bytes).unwrap();
            client.read_tls(&mut bytes.as_slice()).unwrap();
            client.process_new_packets()?;
        }
        Ok((server, client))
    }

    #[test]
    fn both_ends_see_the_same_exporter_in_tls_1_3() {
        let files = files(&PKCS_ECDSA_P256_SHA256);
        let context = TlsContext::load(&files.tls).unwrap();
        let (server, client) =
            handshake(context.direct.clone(), &files.der, &[&rustls::version::TLS13]).unwrap();
        assert_eq!(server.alpn_protocol(), Some(ALPN_CLIENT));
        let expected = client.export_keying_material([0_u8; 32], EXPORTER_LABEL, Some(b"")).unwrap();
        let (exporter, end_point) = channel_bindings(&server, &context);
        assert_eq!(exporter.unwrap(), expected);
        assert_eq!(end_point.unwrap(), digest::digest(&digest::SHA256, &files.der).as_ref());
    }

    #[test]
    fn tls_1_2_has_no_exporter_and_can_be_refused() {
        let mut files = files(&PKCS_ECDSA_P256_SHA256);
        let context = TlsContext::load(&files.tls).unwrap();
        let old: &[&'static SupportedProtocolVersion] = &[&rustls::version::TLS12];
        let (server, _) = handshake(context.starttls.clone(), &files.der, old).unwrap();
        assert_eq!(server.alpn_protocol(), None);
        assert_eq!(channel_bindings(&server, &context).0, None);
        files.tls.min_version = TlsVersion::V1_3;
        let strict = TlsContext::load(&files.tls).unwrap();
        assert!(handshake(strict.starttls.clone(), &files.der, old).is_err());
    }

    #[test]
    fn end_point_follows_the_signature_hash() {
        let files = files(&PKCS_ECDSA_P384_SHA384);
        let context = TlsContext::load(&files.tls).unwrap();
        assert_eq!(context.server_end_point.unwrap(), digest::digest(&digest::SHA384, &files.der).as_ref());
    }

    #[test]
    fn errors_name_the_file_and_the_reason() {
        let (mut one, two) = (files(&PKCS_ECDSA_P256_SHA256), files(&PKCS_ECDSA_P256_SHA256));
        let certificate = one.tls.certificate.clone();
        let own_key = std::mem::replace(&mut one.tls.key, two.tls.key.clone());
        let error = TlsContext::load(&one.tls).unwrap_err().to_string();
        assert!(error.contains("k.pem does not fit") && error.contains("another certificate's"), "{error}");

        one.tls.key = certificate;
        let error = TlsContext::load(&one.tls).unwrap_err().to_string();
        assert!(error.ends_with("c.pem: holds no private key"), "{error}");

        one.tls.certificate = own_key;
        let error = TlsContext::load(&one.tls).unwrap_err().to_string();
        assert!(error.ends_with("k.pem: holds no certificate"), "{error}");

        one.tls.certificate = Some("/nowhere/c.pem".into());
        let error = TlsContext::load(&one.tls).unwrap_err().to_string();
        assert!(error.starts_with("/nowhere/c.pem: cannot be read: "), "{error}");
        one.tls.certificate = None;
        assert_eq!(TlsContext::load(&one.tls).unwrap_err().to_string(), "tls.certificate is not set");
    }
}
