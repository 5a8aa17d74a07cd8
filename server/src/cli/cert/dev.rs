//! `althing cert dev`: a development CA and a server certificate signed by it.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use rcgen::{ExtendedKeyUsagePurpose, SanType};
use time::OffsetDateTime;

use super::authority::{self, Authority, Purpose};
use crate::cli::console::say;

/// How long the server certificate is valid; clients refuse more than 398 days.
const SERVER_DAYS: u32 = 397;
/// Development nodes listen on 127.0.0.1 up to this last number.
const LAST_LOOPBACK: u8 = 16;

/// Arguments of `althing cert dev`.
#[derive(Debug, Args)]
pub(in crate::cli) struct CertDevArgs {
    /// Directory for the files; made when missing
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Domain the certificate is for; may be given more than once
    #[arg(long = "domain", value_name = "DOMAIN", default_value = "localhost")]
    domains: Vec<String>,
}

/// Paths of the files in one directory.
#[derive(Debug, Clone)]
pub(in crate::cli) struct DevCertificates {
    /// The CA's certificate: what clients have to trust.
    pub(in crate::cli) ca: PathBuf,
    /// The server's certificate.
    pub(in crate::cli) server: PathBuf,
    /// The server's private key.
    pub(in crate::cli) server_key: PathBuf,
}

pub(super) fn run(args: &CertDevArgs) -> anyhow::Result<()> {
    let files = ensure(&args.dir, &args.domains)?;
    say(format_args!("CA certificate, for clients:  {}", files.ca.display()))?;
    say(format_args!("server certificate:           {}", files.server.display()))?;
    say(format_args!("server key:                   {}", files.server_key.display()))?;
    Ok(())
}

/// Makes what is missing or about to expire. A CA that cannot sign any more is replaced: clients of a
/// development server can be told.
pub(in crate::cli) fn ensure(dir: &Path, domains: &[String]) -> anyhow::Result<DevCertificates> {
    fs::create_dir_all(dir).with_context(|| format!("{} cannot be made", dir.display()))?;
    let authority = authority(dir);
    let files = DevCertificates {
        ca: authority.certificate.clone(),
        server: dir.join("server.pem"),
        server_key: dir.join("server.key"),
    };
    let now = OffsetDateTime::now_utc();
    let kept = authority.load(now);
    let renewed = kept.is_none();
    let signer = match kept {
        Some(signer) => signer,
        None => authority.make(now)?,
    };
    let names = names(domains)?;
    if renewed || !files.server_key.exists() || !authority::is_good(&files.server, &names, now) {
        let purpose = Purpose {
            common_name: "Althing development server",
            names: &names,
            usages: &[ExtendedKeyUsagePurpose::ServerAuth],
            days: SERVER_DAYS,
        };
        authority::issue(&signer, &purpose, &files.server, &files.server_key, now)?;
    }
    Ok(files)
}

fn authority(dir: &Path) -> Authority {
    Authority::in_dir(dir, "Althing development CA")
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::cli::cert::authority::{CA_DAYS, DAY, RENEW_DAYS, is_good};
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
        for key in [&dir.path().join("ca.key"), &files.server_key] {
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
        assert!(is_good(&files.server, &names, now));
        assert!(!is_good(&files.server, &names, now + DAY * (SERVER_DAYS - RENEW_DAYS + 1)));
        let authority = authority(dir.path());
        assert!(authority.load(now).is_some());
        assert!(authority.load(now + DAY * (CA_DAYS - RENEW_DAYS + 1)).is_none());
    }

    #[test]
    fn a_ca_whose_key_is_lost_is_replaced_with_the_server_certificate() {
        let dir = tempfile::tempdir().unwrap();
        let files = ensure_for(dir.path(), "localhost");
        let server = fs::read(&files.server).unwrap();
        fs::remove_file(dir.path().join("ca.key")).unwrap();
        ensure_for(dir.path(), "localhost");
        assert_ne!(fs::read(&files.server).unwrap(), server);
    }
}
