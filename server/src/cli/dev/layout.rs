//! The files of `althing dev`: certificates, and a configuration a node.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use toml::{Table, Value};

use super::DevArgs;
use crate::cli::cert::dev::{self as certificates, DevCertificates};
use crate::config::Config;

/// What one node needs, ready to start.
#[derive(Debug)]
pub(super) struct NodeFiles {
    /// `node-0` and so on.
    pub(super) name: String,
    /// The configuration that was written.
    pub(super) config_file: PathBuf,
    /// What it says.
    pub(super) config: Config,
    /// Where the node's log goes.
    pub(super) log: PathBuf,
    /// The CA's certificate.
    pub(super) ca: PathBuf,
}

/// Makes everything below the data directory that is missing, and writes the configurations.
pub(super) fn prepare(args: &DevArgs) -> anyhow::Result<Vec<NodeFiles>> {
    fs::create_dir_all(&args.data).with_context(|| format!("{} cannot be made", args.data.display()))?;
    let root = fs::canonicalize(&args.data).with_context(|| format!("{}", args.data.display()))?;
    let certificates = certificates::ensure(&root.join("certs"), std::slice::from_ref(&args.domain))?;
    let overlay = args.overlay.as_deref().map(read_overlay).transpose()?.unwrap_or_default();
    (0..args.nodes).map(|index| prepare_node(args, index, &root, &certificates, &overlay)).collect()
}

fn prepare_node(
    args: &DevArgs,
    index: usize,
    root: &Path,
    certificates: &DevCertificates,
    overlay: &Table,
) -> anyhow::Result<NodeFiles> {
    let name = format!("node-{index}");
    let dir = root.join(&name);
    fs::create_dir_all(&dir).with_context(|| format!("{} cannot be made", dir.display()))?;
    let mut table = configuration(args, index, &name, certificates)?;
    lay_over(&mut table, overlay);
    let from = args.overlay.as_ref().map(|file| format!(" with {} laid over it", file.display()));
    let head = format!("# Written by `althing dev`{} at each start.\n\n", from.unwrap_or_default());
    let config_file = dir.join("althing.toml");
    fs::write(&config_file, head + &toml::to_string(&table)?)
        .with_context(|| format!("{} cannot be written", config_file.display()))?;
    let config = Config::load(&config_file)?;
    Ok(NodeFiles { name, config_file, config, log: dir.join("log"), ca: certificates.ca.clone() })
}

/// The configuration of node `index`, as far as it differs from the defaults.
fn configuration(
    args: &DevArgs,
    index: usize,
    name: &str,
    certificates: &DevCertificates,
) -> anyhow::Result<Table> {
    let last = u8::try_from(index + 1).context("so many nodes have no loopback address each")?;
    let address = |port: u16| Value::String(format!("{}:{port}", Ipv4Addr::new(127, 0, 0, last)));
    let path = |path: &Path| Value::String(path.to_string_lossy().into_owned());
    let section = |keys: Vec<(&str, Value)>| {
        Value::Table(keys.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
    };
    let mut sections = vec![
        ("node", section(vec![("name", name.into()), ("data_dir", "data".into())])),
        ("xmpp", section(vec![("domains", Value::Array(vec![args.domain.as_str().into()]))])),
        (
            "listen",
            section(vec![
                ("c2s", Value::Array(vec![address(5222)])),
                ("c2s_tls", Value::Array(vec![address(5223)])),
                ("http", address(5280)),
            ]),
        ),
        (
            "tls",
            section(vec![
                ("certificate", path(&certificates.server)),
                ("key", path(&certificates.server_key)),
            ]),
        ),
    ];
    if args.plaintext {
        sections.push(("auth", section(vec![("allow_plaintext", true.into())])));
    }
    if args.registration {
        let keys = vec![("enabled", true.into()), ("unlimited_on_loopback", true.into())];
        sections.push(("registration", section(keys)));
    }
    Ok(sections.into_iter().map(|(name, section)| (name.to_owned(), section)).collect())
}

fn read_overlay(file: &Path) -> anyhow::Result<Table> {
    let text = fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
    text.parse().with_context(|| format!("{} is not TOML", file.display()))
}

/// Keys of `overlay` win; tables are merged, lists are replaced.
fn lay_over(table: &mut Table, overlay: &Table) {
    for (key, value) in overlay {
        match (table.get_mut(key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => lay_over(below, above),
            _ => {
                table.insert(key.clone(), value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: DevArgs,
    }

    fn prepare_with(dir: &Path, options: &[&str]) -> anyhow::Result<Vec<NodeFiles>> {
        let data = dir.join("data");
        let mut line = vec!["dev", "--data", data.to_str().unwrap()];
        line.extend(options);
        prepare(&Line::try_parse_from(line).unwrap().args)
    }

    #[test]
    fn each_node_has_its_own_address_and_data() {
        let dir = tempfile::tempdir().unwrap();
        let nodes = prepare_with(dir.path(), &["--nodes", "2", "--domain", "chat.example"]).unwrap();
        let listen: Vec<_> = nodes.iter().map(|node| node.config.listen.c2s[0].to_string()).collect();
        assert_eq!(listen, ["127.0.0.1:5222", "127.0.0.2:5222"]);
        assert_ne!(nodes[0].config.node.data_dir, nodes[1].config.node.data_dir);
        assert_eq!(nodes[1].config.xmpp.domains, ["chat.example"]);
        assert!(!nodes[0].config.registration.enabled && !nodes[0].config.auth.allow_plaintext);
    }

    #[test]
    fn options_and_overlay_reach_the_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let overlay = dir.path().join("overlay.toml");
        fs::write(&overlay, "[listen]\nc2s = [\"127.0.0.1:6222\"]\n[limits]\nlogin_timeout_s = 2\n").unwrap();
        let options = ["--registration", "--plaintext", "--config", overlay.to_str().unwrap()];
        let config = &prepare_with(dir.path(), &options).unwrap()[0].config;
        assert!(config.registration.enabled && config.registration.unlimited_on_loopback);
        assert!(config.auth.allow_plaintext);
        assert_eq!(config.listen.c2s[0].port(), 6222);
        assert_eq!(config.listen.c2s_tls[0].port(), 5223);
        assert_eq!(config.limits.login_timeout_s, 2);
    }

    #[test]
    fn plaintext_stays_on_loopback() {
        let dir = tempfile::tempdir().unwrap();
        let overlay = dir.path().join("overlay.toml");
        fs::write(&overlay, "[listen]\nc2s = [\"0.0.0.0:5222\"]\n").unwrap();
        let error =
            prepare_with(dir.path(), &["--plaintext", "--config", overlay.to_str().unwrap()]).unwrap_err();
        assert!(error.to_string().contains("auth.allow_plaintext"), "{error}");
    }
}
