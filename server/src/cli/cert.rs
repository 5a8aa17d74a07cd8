//! `althing cert dev`: a development CA and a server certificate signed by it.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::console::say;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long the CA is valid.
const CA_DAYS: u32 = 3650;
/// How long the server certificate is valid; clients refuse more than 398 days.
const SERVER_DAYS: u32 = 397;
/// A certificate that is valid for less than this is made anew.
const RENEW_DAYS: u32 = 30;
/// Development nodes listen on 127.0.0.1 up to this last number.
const LAST_LOOPBACK: u8 = 16;

#[derive(Debug, Subcommand)]
pub(super) enum CertCommand {
    /// Make a development CA and a server certificate (ECDSA P-256) for DOMAIN, localhost and loopback addresses
    ///
    /// An existing CA is kept. The server certificate is kept as long as it covers the domains and is valid
    /// for 30 days more. Files: ca.pem (give it to clients), ca.key, server.pem, server.key.
    Dev(CertDevArgs),
}

#[derive(Debug, Args)]
pub(super) struct CertDevArgs {
    /// Directory for the files; made when missing
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Domain the certificate is for; may be given more than once
    #[arg(long = "domain", value_name = "DOMAIN", default_value = "localhost")]
    domains: Vec<String>,
}

/// Paths of the files in one directory.
#[derive(Debug, Clone)]
pub(super) struct DevCertificates {
    /// The CA's certificate: what clients have to trust.
    pub(super) ca: PathBuf,
    ca_key: PathBuf,
    /// The server's certificate.
    pub(super) server: PathBuf,
    /// The server's private key.
    pub(super) server_key: PathBuf,
}

pub(super) fn cert(command: &CertCommand) -> anyhow::Result<()> {
    let CertCommand::Dev(args) = command;
    let files = ensure(&args.dir, &args.domains)?;
    say(format_args!("CA certificate, for clients:  {}", files.ca.display()))?;
    say(format_args!("server certificate:           {}", files.server.display()))?;
    say(format_args!("server key:                   {}", files.server_key.display()))?;
    Ok(())
}

/// Makes what is missing or about to expire.
pub(super) fn ensure(dir: &Path, domains: &[String]) -> anyhow::Result<DevCertificates> {
    fs::create_dir_all(dir).with_context(|| format!("{} cannot be made", dir.display()))?;
    let files = DevCertificates {
        ca: dir.join("ca.pem"),
        ca_key: dir.join("ca.key"),
        server: dir.join("server.pem"),
        server_key: dir.join("server.key"),
    };
    let now = OffsetDateTime::now_utc();
    let kept = load_ca(&files, now);
    let renewed = kept.is_none();
    let issuer = match kept {
        Some(issuer) => issuer,
        None => make_ca(&files, now)?,
    };
    let names = names(domains)?;
    if renewed || !files.server_key.exists() || !server_is_good(&files.server, &names, now) {
        make_server(&files, &issuer, &names, now)?;
    }
    Ok(files)
}

/// The existing CA, if both of its files can be read and it is valid for long enough.
fn load_ca(files: &DevCertificates, now: OffsetDateTime) -> Option<Issuer<'static, KeyPair>> {
    let pem = fs::read_to_string(&files.ca).ok()?;
    let key = KeyPair::from_pem(&fs::read_to_string(&files.ca_key).ok()?).ok()?;
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
    let (_, parsed) = X509Certificate::from_der(&der).ok()?;
    let fits = parsed.public_key().raw == rcgen::PublicKeyData::subject_public_key_info(&key);
    (fits && lasts(&parsed, now)).then(|| Issuer::new(ca_params(now), key))
}

/// Name and usages of the CA; the same at every start, so that an issuer can be made from the key alone.
fn ca_params(now: OffsetDateTime) -> CertificateParams {
    let mut params = validity(CertificateParams::default(), now, CA_DAYS);
    params.distinguished_name.push(DnType::CommonName, "Althing development CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn make_ca(files: &DevCertificates, now: OffsetDateTime) -> anyhow::Result<Issuer<'static, KeyPair>> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let params = ca_params(now);
    let certificate = params.self_signed(&key)?;
    write(&files.ca_key, &key.serialize_pem(), 0o600)?;
    write(&files.ca, &certificate.pem(), 0o644)?;
    Ok(Issuer::new(params, key))
}

fn make_server(
    files: &DevCertificates,
    issuer: &Issuer<'static, KeyPair>,
    names: &[SanType],
    now: OffsetDateTime,
) -> anyhow::Result<()> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = validity(CertificateParams::default(), now, SERVER_DAYS);
    params.distinguished_name.push(DnType::CommonName, "Althing development server");
    params.subject_alt_names = names.to_vec();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, issuer)?;
    write(&files.server_key, &key.serialize_pem(), 0o600)?;
    write(&files.server, &certificate.pem(), 0o644)
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

fn names(domains: &[String]) -> anyhow::Result<Vec<SanType>> {
    let mut names = Vec::new();
    for domain in domains.iter().map(String::as_str).chain(["localhost"]) {
        if domain.is_empty() || !domain.is_ascii() {
            bail!("\"{domain}\": give a domain in its ASCII form (xn--...)");
        }
        let name = match domain.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(domain.try_into().with_context(|| format!("\"{domain}\""))?),
        };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let addresses = (1..=LAST_LOOPBACK).map(|last| IpAddr::from([127, 0, 0, last]));
    names.extend(addresses.chain([IpAddr::from(std::net::Ipv6Addr::LOCALHOST)]).map(SanType::IpAddress));
    names.dedup();
    Ok(names)
}

/// Whether the certificate lasts and covers every name.
fn server_is_good(path: &Path, names: &[SanType], now: OffsetDateTime) -> bool {
    let Ok(der) = CertificateDer::from_pem_file(path) else { return false };
    let Ok((_, parsed)) = X509Certificate::from_der(&der) else { return false };
    let Ok(Some(covered)) = parsed.subject_alternative_name() else { return false };
    let covers = |name: &SanType| {
        covered.value.general_names.iter().any(|have| match (have, name) {
            (GeneralName::DNSName(have), SanType::DnsName(want)) => *have == want.as_str(),
            (GeneralName::IPAddress(have), SanType::IpAddress(IpAddr::V4(want))) => *have == want.octets(),
            (GeneralName::IPAddress(have), SanType::IpAddress(IpAddr::V6(want))) => *have == want.octets(),
            _ => false,
        })
    };
    lasts(&parsed, now) && names.iter().all(covers)
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::config::{Tls, TlsVersion};
    use crate::listener::tls::TlsContext;

    fn ensure_for(dir: &Path, domain: &str) -> DevCertificates {
        ensure(dir, &[domain.to_owned()]).unwrap()
    }

    #[test]
    fn files_load_and_keys_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let files = ensure_for(dir.path(), "chat.example");
        let tls = Tls {
            certificate: Some(files.server.clone()),
            key: Some(files.server_key.clone()),
            min_version: TlsVersion::V1_2,
        };
        assert!(TlsContext::load(&tls).unwrap().is_valid(crate::clock::now()));
        for key in [&files.ca_key, &files.server_key] {
            assert_eq!(fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_second_call_keeps_everything_and_a_new_domain_keeps_the_ca() {
        let dir = tempfile::tempdir().unwrap();
        let files = ensure_for(dir.path(), "localhost");
        let read = |path: &Path| fs::read(path).unwrap();
        let (ca, server) = (read(&files.ca), read(&files.server));
        ensure_for(dir.path(), "localhost");
        assert_eq!((read(&files.ca), read(&files.server)), (ca.clone(), server.clone()));
        ensure_for(dir.path(), "chat.example");
        assert_eq!(read(&files.ca), ca);
        assert_ne!(read(&files.server), server);
    }

    #[test]
    fn what_is_about_to_expire_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let files = ensure_for(dir.path(), "localhost");
        let names = names(&["localhost".to_owned()]).unwrap();
        let now = OffsetDateTime::now_utc();
        assert!(server_is_good(&files.server, &names, now));
        assert!(!server_is_good(&files.server, &names, now + DAY * (SERVER_DAYS - RENEW_DAYS + 1)));
        assert!(load_ca(&files, now).is_some());
        assert!(load_ca(&files, now + DAY * (CA_DAYS - RENEW_DAYS + 1)).is_none());
    }

    #[test]
    fn a_ca_whose_key_is_lost_is_replaced_with_the_server_certificate() {
        let dir = tempfile::tempdir().unwrap();
        let files = ensure_for(dir.path(), "localhost");
        let server = fs::read(&files.server).unwrap();
        fs::remove_file(&files.ca_key).unwrap();
        ensure_for(dir.path(), "localhost");
        assert_ne!(fs::read(&files.server).unwrap(), server);
    }
}
