//! The files of `althing dev`: certificates, and a configuration a node.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use toml::{Table, Value};

use super::DevArgs;
use crate::cli::cert::cluster::{self as cluster_certificates, ClusterCertificate};
use crate::cli::cert::dev::{self as certificates, DevCertificates};
use crate::config::Config;

/// Name of a node that is the only one.
const SINGLE: &str = "node-0";
/// Says how many nodes the directory was made with.
const INITIAL_FILE: &str = "initial-nodes";
/// Port for links between nodes.
const LINKS: u16 = 5275;

/// What one node needs, ready to start.
#[derive(Debug)]
pub(super) struct NodeFiles {
    /// `node-0` where it is the only one, else `dev-0` and so on.
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
    let members = members(args, &root)?;
    let prepare = |index: usize| prepare_node(args, index, &root, &certificates, &members, &overlay);
    (0..args.nodes).map(prepare).collect()
}

/// The cluster that the nodes make; without entries for a single node, which makes none.
#[derive(Debug, Default)]
struct Members {
    /// `cluster.initial`: what the directory was made with, however many nodes run now.
    initial: Vec<String>,
    /// A certificate a node.
    certificates: Vec<ClusterCertificate>,
}

fn members(args: &DevArgs, root: &Path) -> anyhow::Result<Members> {
    let initial = initial_nodes(root, args.nodes)?;
    if args.nodes == 1 {
        return Ok(Members::default());
    }
    let names: Vec<String> = (0..args.nodes).map(cluster_name).collect();
    let addresses =
        (0..initial).map(|index| Ok(format!("{}={}", cluster_name(index), address(index, LINKS)?)));
    Ok(Members {
        initial: addresses.collect::<anyhow::Result<_>>()?,
        certificates: cluster_certificates::ensure(&root.join("certs/cluster"), &names)?,
    })
}

/// How many nodes the directory was made with. A cluster may grow beyond that; a single node's accounts are not a
/// cluster's, and a cluster with less than its first nodes could be without a majority.
fn initial_nodes(root: &Path, nodes: usize) -> anyhow::Result<usize> {
    let file = root.join(INITIAL_FILE);
    let made_with = match fs::read_to_string(&file) {
        Ok(text) => Some(
            text.trim().parse().with_context(|| format!("{} holds no number of nodes", file.display()))?,
        ),
        // Directories of earlier releases had one node and no such file.
        Err(_) if root.join(SINGLE).exists() => Some(1),
        Err(_) => None,
    };
    match made_with {
        Some(initial) if initial == nodes || (1 < initial && initial < nodes) => Ok(initial),
        Some(initial) => bail!(
            "{} was made with --nodes {initial}, which --nodes {nodes} cannot take over: give another --data, or \
             delete the directory with all its accounts",
            root.display()
        ),
        None => {
            fs::write(&file, format!("{nodes}\n"))
                .with_context(|| format!("{} cannot be written", file.display()))?;
            Ok(nodes)
        }
    }
}

fn cluster_name(index: usize) -> String {
    format!("dev-{index}")
}

/// Node `index` listens on 127.0.0.(index+1).
fn address(index: usize, port: u16) -> anyhow::Result<String> {
    let last = u8::try_from(index + 1).context("so many nodes have no loopback address each")?;
    Ok(format!("{}:{port}", Ipv4Addr::new(127, 0, 0, last)))
}

fn prepare_node(
    args: &DevArgs,
    index: usize,
    root: &Path,
    certificates: &DevCertificates,
    members: &Members,
    overlay: &Table,
) -> anyhow::Result<NodeFiles> {
    let name = if args.nodes == 1 { SINGLE.to_owned() } else { cluster_name(index) };
    let dir = root.join(&name);
    fs::create_dir_all(&dir).with_context(|| format!("{} cannot be made", dir.display()))?;
    let mut table = configuration(args, index, &name, certificates)?;
    table.extend(cluster_section(members, index)?);
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
    let address = |port: u16| address(index, port).map(Value::String);
    let mut sections = vec![
        ("node", section(vec![("name", name.into()), ("data_dir", "data".into())])),
        ("xmpp", section(vec![("domains", Value::Array(vec![args.domain.as_str().into()]))])),
        (
            "listen",
            section(vec![
                ("c2s", Value::Array(vec![address(5222)?])),
                ("c2s_tls", Value::Array(vec![address(5223)?])),
                ("http", address(5280)?),
                ("web_tls", Value::Array(vec![address(5281)?])),
                ("web", Value::Array(if args.plaintext { vec![address(5282)?] } else { Vec::new() })),
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
    if !args.components.is_empty() {
        let external = |text: &String| {
            let (domain, secret) = text.split_once('=').context("--component: expected DOMAIN=SECRET")?;
            Ok(section(vec![("domain", domain.into()), ("secret", secret.into())]))
        };
        let external = args.components.iter().map(external).collect::<anyhow::Result<Vec<Value>>>()?;
        let listen = Value::Array(vec![address(5347)?]);
        sections
            .push(("components", section(vec![("listen", listen), ("external", Value::Array(external))])));
    }
    if args.registration {
        let keys = vec![("enabled", true.into()), ("unlimited_on_loopback", true.into())];
        sections.push(("registration", section(keys)));
    }
    Ok(sections.into_iter().map(|(name, section)| (name.to_owned(), section)).collect())
}

/// `[cluster]` of node `index`; nothing for a single node.
fn cluster_section(members: &Members, index: usize) -> anyhow::Result<Option<(String, Value)>> {
    let Some(files) = members.certificates.get(index) else { return Ok(None) };
    let initial = members.initial.iter().cloned().map(Value::String).collect();
    let mut keys = vec![
        ("enabled", true.into()),
        ("listen", address(index, LINKS)?.into()),
        ("initial", Value::Array(initial)),
        ("ca", path(&files.ca)),
        ("certificate", path(&files.certificate)),
        ("key", path(&files.key)),
    ];
    if index >= members.initial.len() {
        keys.push(("advertise", address(index, LINKS)?.into()));
    }
    Ok(Some(("cluster".to_owned(), section(keys))))
}

fn path(path: &Path) -> Value {
    Value::String(path.to_string_lossy().into_owned())
}

fn section(keys: Vec<(&str, Value)>) -> Value {
    Value::Table(keys.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
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

    #[test]
    fn components_may_attach_to_each_node() {
        let dir = tempfile::tempdir().unwrap();
        let options = ["--nodes", "2", "--component", "irc.localhost=0123456789abcdef"];
        let nodes = prepare_with(dir.path(), &options).unwrap();
        let listen: Vec<_> = nodes.iter().map(|node| node.config.components.listen[0].to_string()).collect();
        assert_eq!(listen, ["127.0.0.1:5347", "127.0.0.2:5347"]);
        assert_eq!(nodes[1].config.components.external[0].domain, "irc.localhost");
        let refused = |option| {
            let dir = tempfile::tempdir().unwrap();
            format!("{:#}", prepare_with(dir.path(), &["--component", option]).unwrap_err())
        };
        let short = refused("irc.localhost=short");
        assert!(short.contains("can be guessed"), "{short}");
        let bare = refused("irc.localhost");
        assert!(bare.contains("DOMAIN=SECRET"), "{bare}");
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
        let nodes = prepare_with(dir.path(), &["--nodes", "3", "--domain", "chat.example"]).unwrap();
        let listen: Vec<_> = nodes.iter().map(|node| node.config.listen.c2s[0].to_string()).collect();
        assert_eq!(listen, ["127.0.0.1:5222", "127.0.0.2:5222", "127.0.0.3:5222"]);
        assert_ne!(nodes[0].config.node.data_dir, nodes[1].config.node.data_dir);
        assert_eq!(nodes[1].config.xmpp.domains, ["chat.example"]);
        assert!(!nodes[0].config.registration.enabled && !nodes[0].config.auth.allow_plaintext);
    }

    #[test]
    fn nodes_make_a_cluster_that_may_grow() {
        let dir = tempfile::tempdir().unwrap();
        let initial = ["dev-0=127.0.0.1:5275", "dev-1=127.0.0.2:5275", "dev-2=127.0.0.3:5275"];
        for (nodes, count) in [("3", 3), ("3", 3), ("5", 5), ("4", 4)] {
            let made = prepare_with(dir.path(), &["--nodes", nodes]).unwrap();
            assert_eq!(made.len(), count);
            for (index, node) in made.iter().enumerate() {
                let (config, cluster) = (&node.config, &node.config.cluster);
                assert_eq!(config.node.name, format!("dev-{index}"));
                assert!(cluster.enabled);
                assert_eq!(cluster.initial, initial);
                let here = format!("127.0.0.{}:5275", index + 1);
                assert_eq!(cluster.listen.to_string(), here);
                assert_eq!(cluster.advertised(&node.name), Some(here));
                assert!(cluster.key.as_ref().unwrap().exists());
            }
        }
        let error = prepare_with(dir.path(), &["--nodes", "2"]).unwrap_err().to_string();
        assert!(error.contains("was made with --nodes 3, which --nodes 2 cannot take over"), "{error}");
        assert!(prepare_with(dir.path(), &[]).is_err());
    }

    #[test]
    fn a_single_node_stays_single() {
        let dir = tempfile::tempdir().unwrap();
        let node = prepare_with(dir.path(), &[]).unwrap().remove(0);
        assert_eq!(node.name, "node-0");
        assert!(!node.config.cluster.enabled);
        assert!(prepare_with(dir.path(), &["--nodes", "3"]).is_err());
        // As an earlier release left it.
        fs::remove_file(dir.path().join("data").join(INITIAL_FILE)).unwrap();
        assert!(prepare_with(dir.path(), &["--nodes", "3"]).is_err());
        assert_eq!(prepare_with(dir.path(), &[]).unwrap().len(), 1);
    }

    #[test]
    fn so_many_nodes_there_are() {
        let dir = tempfile::tempdir().unwrap();
        for nodes in ["0", "10"] {
            let line = ["dev", "--data", dir.path().to_str().unwrap(), "--nodes", nodes];
            assert!(Line::try_parse_from(line).is_err());
        }
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
