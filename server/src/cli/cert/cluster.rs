//! `althing cert cluster`: the cluster's own CA, and a certificate for each node.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use clap::Args;
use rcgen::{ExtendedKeyUsagePurpose, SanType};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};

use althing_cluster::link::LinkTls;

use super::authority::{self, Authority, Purpose, Signer};
use crate::cli::console::say;
use crate::config::{Config, is_cluster_name};

/// How long a node's certificate is valid.
const NODE_DAYS: u32 = 1825;

/// Arguments of `althing cert cluster`.
#[derive(Debug, Args)]
pub(in crate::cli) struct CertClusterArgs {
    /// Directory for the files; made when missing
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Name of a node, as in its node.name; several may follow
    #[arg(long = "name", value_name = "NAME", required = true, num_args = 1..)]
    names: Vec<String>,
}

/// Paths of the files of one node.
#[derive(Debug, Clone)]
pub(in crate::cli) struct ClusterCertificate {
    /// The CA's certificate; the same for all nodes.
    pub(in crate::cli) ca: PathBuf,
    /// The node's certificate.
    pub(in crate::cli) certificate: PathBuf,
    /// The node's private key.
    pub(in crate::cli) key: PathBuf,
}

pub(super) fn run(args: &CertClusterArgs) -> anyhow::Result<()> {
    let made = ensure(&args.dir, &args.names)?;
    if let Some(first) = made.first() {
        say(format_args!("CA certificate, for all nodes (cluster.ca): {}", first.ca.display()))?;
        say("its key, ca.key, lets whoever has it join: keep it away from the nodes")?;
    }
    for (name, files) in args.names.iter().zip(&made) {
        say(format_args!(
            "{name}: {} (cluster.certificate), {} (cluster.key)",
            files.certificate.display(),
            files.key.display()
        ))?;
    }
    Ok(())
}

/// Makes what is missing or about to expire, in the order of `names`.
///
/// # Errors
/// A name that cannot stand in a certificate; a CA that is there but cannot sign: a new one in its place would
/// shut out every node that runs with the old one.
pub(in crate::cli) fn ensure(dir: &Path, names: &[String]) -> anyhow::Result<Vec<ClusterCertificate>> {
    for name in names {
        if !is_cluster_name(name) || name == "ca" {
            bail!(
                "\"{name}\" is no name of a node: lower-case letters, digits, '-' and '.', at most 63, and not \"ca\""
            );
        }
    }
    fs::create_dir_all(dir).with_context(|| format!("{} cannot be made", dir.display()))?;
    let now = OffsetDateTime::now_utc();
    let authority = Authority::in_dir(dir, "Althing cluster CA");
    let (signer, renewed) = match authority.load(now) {
        Some(signer) => (signer, false),
        None if authority.certificate.exists() => bail!(
            "{} is there, but cannot sign: {} is missing or another's, or the CA expires within {} days. Put the \
             key back, or make a new CA in another directory and give all nodes certificates of it",
            authority.certificate.display(),
            authority.key.display(),
            authority::RENEW_DAYS
        ),
        None => (authority.make(now)?, true),
    };
    let ensure_one = |name: &String| {
        let files = files_of(dir, &authority, name);
        ensure_node(&files, &signer, name, renewed, now)?;
        Ok(files)
    };
    names.iter().map(ensure_one).collect()
}

/// Checks that links can be set up with the files of `[cluster]`, and that the certificate is this node's and valid
/// now.
///
/// # Errors
/// What is wrong, with the key of the configuration.
pub(in crate::cli) fn check(config: &Config) -> anyhow::Result<()> {
    let cluster = &config.cluster;
    let read = |key: &'static str, path: &Option<PathBuf>| {
        let path = path.as_ref().with_context(|| format!("{key} is not set"))?;
        fs::read(path).with_context(|| format!("{key}: {} cannot be read", path.display()))
    };
    let certificate = read("cluster.certificate", &cluster.certificate)?;
    LinkTls::from_pem(&read("cluster.ca", &cluster.ca)?, &certificate, &read("cluster.key", &cluster.key)?)
        .context("[cluster]")?;
    let der = CertificateDer::from_pem_slice(&certificate).context("cluster.certificate")?;
    let (_, parsed) = X509Certificate::from_der(&der).context("cluster.certificate")?;
    ensure!(
        authority::covers(&parsed, &[dns_name(&config.node.name)?]),
        "cluster.certificate does not bear node.name, \"{}\", as a DNS name; `althing cert cluster` makes one",
        config.node.name
    );
    let validity = parsed.validity();
    ensure!(
        validity.is_valid(),
        "cluster.certificate is valid from {} to {}, not now",
        validity.not_before,
        validity.not_after
    );
    Ok(())
}

fn dns_name(name: &str) -> anyhow::Result<SanType> {
    Ok(SanType::DnsName(name.try_into().with_context(|| format!("\"{name}\""))?))
}

fn files_of(dir: &Path, authority: &Authority, name: &str) -> ClusterCertificate {
    ClusterCertificate {
        ca: authority.certificate.clone(),
        // Not `with_extension`: a name may have dots.
        certificate: dir.join(format!("{name}.pem")),
        key: dir.join(format!("{name}.key")),
    }
}

/// `renewed`: the CA is new, so what another one has signed is worth nothing.
fn ensure_node(
    files: &ClusterCertificate,
    signer: &Signer,
    name: &str,
    renewed: bool,
    now: OffsetDateTime,
) -> anyhow::Result<()> {
    let names = [dns_name(name)?];
    if !renewed && files.key.exists() && authority::is_good(&files.certificate, &names, now) {
        return Ok(());
    }
    let purpose = Purpose {
        common_name: name,
        names: &names,
        usages: &[ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        days: NODE_DAYS,
    };
    authority::issue(signer, &purpose, &files.certificate, &files.key, now)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn ensure_for(dir: &Path, names: &[&str]) -> Vec<ClusterCertificate> {
        ensure(dir, &names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn links_take_the_certificates_and_keys_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let made = ensure_for(dir.path(), &["node-0", "node-1.peers"]);
        assert_eq!(made[1].certificate, dir.path().join("node-1.peers.pem"));
        for files in &made {
            let read = |path: &Path| fs::read(path).unwrap();
            LinkTls::from_pem(&read(&files.ca), &read(&files.certificate), &read(&files.key)).unwrap();
            assert_eq!(fs::metadata(&files.key).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let ca_key = dir.path().join("ca.key");
        assert_eq!(fs::metadata(ca_key).unwrap().permissions().mode() & 0o777, 0o600);
        let der = CertificateDer::from_pem_file(&made[0].certificate).unwrap();
        let (_, parsed) = X509Certificate::from_der(&der).unwrap();
        let usage = parsed.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.server_auth && usage.client_auth);
    }

    #[test]
    fn a_node_is_checked_with_its_files() {
        let dir = tempfile::tempdir().unwrap();
        let made = ensure_for(dir.path(), &["node-0", "node-1"]);
        let mut config = Config::default();
        config.cluster.ca = Some(made[0].ca.clone());
        config.cluster.certificate = Some(made[0].certificate.clone());
        config.cluster.key = Some(made[0].key.clone());
        check(&config).unwrap();
        config.cluster.key = Some(made[1].key.clone());
        assert!(check(&config).is_err());
        config.cluster.certificate = Some(made[1].certificate.clone());
        let error = check(&config).unwrap_err().to_string();
        assert!(error.contains("does not bear node.name, \"node-0\""), "{error}");
    }

    #[test]
    fn a_later_name_gets_a_certificate_of_the_same_ca() {
        let dir = tempfile::tempdir().unwrap();
        let first = ensure_for(dir.path(), &["node-0"]).remove(0);
        let read = |path: &Path| fs::read(path).unwrap();
        let before = (read(&first.ca), read(&first.certificate), read(&first.key));
        ensure_for(dir.path(), &["node-0", "node-1"]);
        assert_eq!((read(&first.ca), read(&first.certificate), read(&first.key)), before);
    }

    #[test]
    fn a_ca_that_cannot_sign_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let files = ensure_for(dir.path(), &["node-0"]).remove(0);
        let ca = fs::read(&files.ca).unwrap();
        fs::remove_file(dir.path().join("ca.key")).unwrap();
        let error = ensure(dir.path(), &["node-1".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("cannot sign"), "{error}");
        assert_eq!(fs::read(&files.ca).unwrap(), ca);
    }

    #[test]
    fn a_new_ca_signs_anew() {
        let dir = tempfile::tempdir().unwrap();
        let files = ensure_for(dir.path(), &["node-0"]).remove(0);
        let before = fs::read(&files.certificate).unwrap();
        fs::remove_file(&files.ca).unwrap();
        ensure_for(dir.path(), &["node-0"]);
        assert_ne!(fs::read(&files.certificate).unwrap(), before);
    }

    #[test]
    fn names_that_would_not_fit_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["Node", "a_b", "../x", "ca", ""] {
            assert!(ensure(dir.path(), &[name.to_owned()]).is_err(), "{name}");
        }
    }
}
