//! How a test node is configured: address, certificates, files. One way for a single node and for a cluster's.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail, ensure};
use toml::{Table, Value};

/// The domain of all test nodes.
pub const DOMAIN: &str = "localhost";
/// What a second domain of some test nodes begins with, below [`DOMAIN`]: their certificates have it.
pub const HOST_LABEL: &str = "quick";
/// Port for links between nodes.
const LINKS: u16 = 5275;
/// Port for external components.
pub const COMPONENTS: u16 = 5347;
/// The same over direct TLS.
pub const COMPONENTS_TLS: u16 = 5348;
/// The components that may attach to every test node: below [`DOMAIN`], and whether one connection is all they may have.
pub const COMPONENT_LABELS: &[(&str, bool)] = &[("gateway", false), ("bots", false), ("single", true)];
/// The secret of all of them.
pub const COMPONENT_SECRET: &str = "known to all tests, and to nobody else";

/// What a node is started with.
#[derive(Debug, Clone)]
pub struct Setup {
    /// `node.name`.
    pub name: String,
    /// Where it listens, on the ordinary ports.
    pub address: IpAddr,
    /// Its own directory: configuration, data, log.
    pub directory: PathBuf,
    /// Where `althing cert dev` has put the certificates that clients see.
    pub certificates: PathBuf,
    /// TOML laid over everything else.
    pub overlay: String,
    /// The network namespace in which it runs; `None` for that of the test.
    pub namespace: Option<String>,
    /// What makes it a node of a cluster.
    pub cluster: Option<Membership>,
}

/// The part of a [`Setup`] that is for clusters only.
#[derive(Debug, Clone)]
pub struct Membership {
    /// Names and addresses of the nodes that begin the cluster.
    pub initial: Vec<(String, IpAddr)>,
    /// Where `althing cert cluster` has put the certificates.
    pub certificates: PathBuf,
}

impl Setup {
    /// Writes the configuration, and returns where.
    ///
    /// # Errors
    /// An overlay that is no TOML, or a directory that cannot be written.
    pub fn write(&self) -> Result<PathBuf> {
        std::fs::create_dir_all(&self.directory)?;
        let file = self.file();
        std::fs::write(&file, self.config()?)?;
        Ok(file)
    }

    /// The file of the configuration.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.directory.join("althing.toml")
    }

    /// `node.data_dir`.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    fn config(&self) -> Result<String> {
        let place = |path: PathBuf| Value::String(path.display().to_string());
        let certificate = |name: &str| place(self.certificates.join(name));
        let (name, address) = (&self.name, self.address);
        let (data, chain, key) = (place(self.data()), certificate("server.pem"), certificate("server.key"));
        // Without TLS it is for loopback only; hosts of a lab have other addresses.
        let web = if address.is_loopback() { format!("\"{address}:5282\"") } else { String::new() };
        let base = format!(
            "[xmpp]\ndomains = [\"{DOMAIN}\"]\n\
             [node]\nname = \"{name}\"\ndata_dir = {data}\n\
             [listen]\nc2s = [\"{address}:5222\"]\nc2s_tls = [\"{address}:5223\"]\nhttp = \"{address}:5280\"\n\
             web_tls = [\"{address}:5281\"]\nweb = [{web}]\n\
             [tls]\ncertificate = {chain}\nkey = {key}\n\
             [registration]\nenabled = true\nunlimited_on_loopback = true\n\
             [search]\nenabled = true\n\
             [offline]\nbatches = true\n\
             [receipts]\nenabled = true\nlegacy_crs = true\nvalidity_s = 600\nrepeat_s = 300\n\
             [components]\nlisten = [\"{address}:{COMPONENTS}\"]\n\
             listen_tls = [\"{address}:{COMPONENTS_TLS}\"]\n"
        );
        let components = COMPONENT_LABELS.iter().map(|(label, exclusive)| {
            format!(
                "[[components.external]]\ndomain = \"{label}.{DOMAIN}\"\nname = \"The {label}\"\n\
                 secret = \"{COMPONENT_SECRET}\"\nexclusive = {exclusive}\n"
            )
        });
        let mut table: Table = components.fold(base, |base, component| base + &component).parse()?;
        if let Some(cluster) = &self.cluster {
            table.insert("cluster".to_owned(), Value::Table(cluster.section(name, address)));
        }
        lay_over(&mut table, self.overlay.parse().context("the overlay is no TOML")?);
        Ok(table.to_string())
    }
}

impl Membership {
    fn section(&self, name: &str, address: IpAddr) -> Table {
        let place = |name: &str| Value::String(self.certificates.join(name).display().to_string());
        let entry = |(name, address): &(String, IpAddr)| Value::String(format!("{name}={address}:{LINKS}"));
        let initial = self.initial.iter().map(entry).collect();
        let keys = [
            ("enabled", true.into()),
            ("listen", format!("{address}:{LINKS}").into()),
            ("initial", Value::Array(initial)),
            ("ca", place("ca.pem")),
            ("certificate", place(&format!("{name}.pem"))),
            ("key", place(&format!("{name}.key"))),
        ];
        keys.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }
}

/// The `althing` binary: `ALTHING_BIN`, or the one built beside the running test.
///
/// # Errors
/// When there is none; says how to get one.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("ALTHING_BIN") {
        let path = PathBuf::from(path);
        ensure!(path.is_file(), "ALTHING_BIN is {}, where no file is", path.display());
        return Ok(path);
    }
    let test = std::env::current_exe()?;
    // A test stands in target/PROFILE/deps, the binary in target/PROFILE.
    let found = test.ancestors().skip(1).map(|place| place.join("althing")).find(|path| path.is_file());
    found.with_context(|| {
        format!("no `althing` beside {}: run `cargo build --bin althing`, or set ALTHING_BIN", test.display())
    })
}

/// Makes the certificates that clients see, and their authority.
///
/// # Errors
/// What `althing cert dev` says.
pub fn client_certificates(directory: &Path) -> Result<()> {
    certificates(&["dev", "--domain", DOMAIN, "--domain", &format!("{HOST_LABEL}.{DOMAIN}")], directory)
}

/// Makes the certificates of a cluster's nodes, and their authority.
///
/// # Errors
/// What `althing cert cluster` says.
pub fn cluster_certificates(directory: &Path, names: &[String]) -> Result<()> {
    let mut arguments = vec!["cluster", "--name"];
    arguments.extend(names.iter().map(String::as_str));
    certificates(&arguments, directory)
}

fn certificates(arguments: &[&str], directory: &Path) -> Result<()> {
    let mut command = Command::new(binary()?);
    let output = command.arg("cert").args(arguments).arg("--dir").arg(directory).output();
    let output = output.context("`althing cert` cannot be started")?;
    ensure!(output.status.success(), "`althing cert`: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// An address in 127.0.0.0/8 of its own, so that nodes of tests that run side by side can all have the
/// ordinary ports, and none can be lost to another process between two starts.
///
/// # Errors
/// None is free.
pub fn free_address() -> Result<IpAddr> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..1000 {
        // From 127.1.0.0 on; the first block belongs to `althing dev`.
        let number = std::process::id().wrapping_mul(7).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let [_, high, middle, low] = number.to_be_bytes();
        let address = IpAddr::V4(Ipv4Addr::new(127, 1 + high % 200, middle, 1 + low % 250));
        let free = |port| TcpListener::bind(SocketAddr::new(address, port)).is_ok();
        if [5222, 5223, LINKS, 5280, 5281, 5282, COMPONENTS, COMPONENTS_TLS].into_iter().all(free) {
            return Ok(address);
        }
    }
    bail!("no free address in 127.0.0.0/8")
}

fn lay_over(base: &mut Table, overlay: Table) {
    for (key, value) in overlay {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(inner)), Value::Table(over)) => lay_over(inner, over),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup(overlay: &str) -> Setup {
        Setup {
            name: "node-0".to_owned(),
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            directory: "x".into(),
            certificates: "certs".into(),
            overlay: overlay.to_owned(),
            namespace: None,
            cluster: None,
        }
    }

    #[test]
    fn an_overlay_changes_a_key_and_keeps_its_neighbours() {
        let table: Table =
            setup("[listen]\nhttp = \"no\"\n[limits]\nn = 1\n").config().unwrap().parse().unwrap();
        assert_eq!(table["listen"]["http"].as_str(), Some("no"));
        assert_eq!(table["listen"]["c2s"][0].as_str(), Some("127.0.0.1:5222"));
        assert_eq!(table["limits"]["n"].as_integer(), Some(1));
        assert!(table.get("cluster").is_none());
    }

    #[test]
    fn a_node_of_a_cluster_knows_the_initial_set_and_its_own_files() {
        let mut setup = setup("[cluster]\nheartbeat_ms = 100\n");
        let initial = vec![("node-0".to_owned(), setup.address)];
        setup.cluster = Some(Membership { initial, certificates: "peers".into() });
        let table: Table = setup.config().unwrap().parse().unwrap();
        assert_eq!(table["cluster"]["initial"][0].as_str(), Some("node-0=127.0.0.1:5275"));
        assert_eq!(table["cluster"]["key"].as_str(), Some("peers/node-0.key"));
        assert_eq!(table["cluster"]["heartbeat_ms"].as_integer(), Some(100));
    }
}
