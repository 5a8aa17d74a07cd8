//! A certificate authority of our own: a key and a certificate in files, and what it signs.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a CA is valid.
pub(super) const CA_DAYS: u32 = 3650;
/// A certificate that is valid for less than this is made anew.
pub(super) const RENEW_DAYS: u32 = 30;

/// The files of a CA and the name that its certificate bears.
#[derive(Debug, Clone)]
pub(super) struct Authority {
    /// The certificate.
    pub(super) certificate: PathBuf,
    /// The private key.
    pub(super) key: PathBuf,
    /// The common name. It must never change: an issuer is made from it and the key.
    pub(super) common_name: &'static str,
}

/// What can sign.
pub(super) type Signer = Issuer<'static, KeyPair>;

/// What a certificate is for.
#[derive(Debug)]
pub(super) struct Purpose<'a> {
    pub(super) common_name: &'a str,
    pub(super) names: &'a [SanType],
    pub(super) usages: &'a [ExtendedKeyUsagePurpose],
    pub(super) days: u32,
}

impl Authority {
    /// `ca.pem` and `ca.key` in `dir`.
    pub(super) fn in_dir(dir: &Path, common_name: &'static str) -> Self {
        Authority { certificate: dir.join("ca.pem"), key: dir.join("ca.key"), common_name }
    }

    /// The existing CA, if both of its files can be read, fit each other and it is valid for long enough.
    pub(super) fn load(&self, now: OffsetDateTime) -> Option<Signer> {
        let pem = fs::read_to_string(&self.certificate).ok()?;
        let key = KeyPair::from_pem(&fs::read_to_string(&self.key).ok()?).ok()?;
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
        let (_, parsed) = X509Certificate::from_der(&der).ok()?;
        let fits = parsed.public_key().raw == rcgen::PublicKeyData::subject_public_key_info(&key);
        (fits && lasts(&parsed, now)).then(|| Issuer::new(self.params(now), key))
    }

    /// A new CA, over an older one.
    pub(super) fn make(&self, now: OffsetDateTime) -> anyhow::Result<Signer> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let params = self.params(now);
        let certificate = params.self_signed(&key)?;
        write(&self.key, &key.serialize_pem(), 0o600)?;
        write(&self.certificate, &certificate.pem(), 0o644)?;
        Ok(Issuer::new(params, key))
    }

    /// Name and usages of the CA; the same at every start, so that an issuer can be made from the key alone.
    fn params(&self, now: OffsetDateTime) -> CertificateParams {
        let mut params = validity(CertificateParams::default(), now, CA_DAYS);
        params.distinguished_name.push(DnType::CommonName, self.common_name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
    }
}

/// Makes a key and a certificate signed by `signer`, and writes both.
pub(super) fn issue(
    signer: &Signer,
    purpose: &Purpose<'_>,
    certificate_file: &Path,
    key_file: &Path,
    now: OffsetDateTime,
) -> anyhow::Result<()> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = validity(CertificateParams::default(), now, purpose.days);
    params.distinguished_name.push(DnType::CommonName, purpose.common_name);
    params.subject_alt_names = purpose.names.to_vec();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = purpose.usages.to_vec();
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, signer)?;
    write(key_file, &key.serialize_pem(), 0o600)?;
    write(certificate_file, &certificate.pem(), 0o644)
}

/// Whether the certificate in `path` lasts and covers every name.
pub(super) fn is_good(path: &Path, names: &[SanType], now: OffsetDateTime) -> bool {
    let Ok(der) = CertificateDer::from_pem_file(path) else { return false };
    let Ok((_, parsed)) = X509Certificate::from_der(&der) else { return false };
    lasts(&parsed, now) && covers(&parsed, names)
}

/// Whether the certificate bears every name.
pub(super) fn covers(certificate: &X509Certificate<'_>, names: &[SanType]) -> bool {
    let Ok(Some(covered)) = certificate.subject_alternative_name() else { return false };
    let covers = |name: &SanType| {
        covered.value.general_names.iter().any(|have| match (have, name) {
            (GeneralName::DNSName(have), SanType::DnsName(want)) => *have == want.as_str(),
            (GeneralName::IPAddress(have), SanType::IpAddress(IpAddr::V4(want))) => *have == want.octets(),
            (GeneralName::IPAddress(have), SanType::IpAddress(IpAddr::V6(want))) => *have == want.octets(),
            _ => false,
        })
    };
    names.iter().all(covers)
}

/// Valid from yesterday, since clocks differ.
fn validity(mut params: CertificateParams, now: OffsetDateTime, days: u32) -> CertificateParams {
    params.not_before = now - DAY;
    params.not_after = now + DAY * days;
    params
}

fn lasts(certificate: &X509Certificate<'_>, now: OffsetDateTime) -> bool {
    certificate.validity().not_after.timestamp() > (now + DAY * RENEW_DAYS).unix_timestamp()
}

/// Writes a file whole or not at all, with these permissions from the first byte.
fn write(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let fresh = path.with_extension("new");
    let attempt = || -> std::io::Result<()> {
        let _ = fs::remove_file(&fresh);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&fresh)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&fresh, path)
    };
    attempt().with_context(|| format!("{} cannot be written", path.display()))
}
