//! Section `[cluster]`: the nodes that make one server, and how long each may act without the others.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::section::section;
use super::validate::{Finding, finding};
use super::{Backend, Config};

/// Least milliseconds between `close_ms` and `down_ms`: for clocks that differ in pace, and a round trip.
const DOWN_MARGIN_MS: u64 = 2_000;
/// Longest node name, in bytes: one label of a domain name (RFC 1035 §2.3.4).
const MAX_NAME: usize = 63;

section! {
    /// The cluster. All nodes of it have the same `initial` set, the same times, and certificates of one CA, which
    /// signs for nobody else.
    Cluster = "cluster" {
        /// Whether the node is part of a cluster. Off: it is a server by itself.
        enabled: bool = false;
        /// Address for links from other nodes: mutual TLS. Keep it inside your network.
        listen: SocketAddr = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 5275));
        /// `host:port` under which other nodes reach this one. Not set: what `initial` gives for `node.name`.
        advertise: Option<String> = None, like "\"node-3.althing.internal:5275\"";
        /// The nodes that begin the cluster, as `name=host:port`. It is the same on all nodes and never changes, also
        /// when nodes are added or leave: a node that is not in it finds the cluster through these.
        initial: Vec<String> = Vec::new();
        /// PEM file with the certificate of the cluster's CA. Whoever it signs for may join.
        ca: Option<PathBuf> = None, like "\"/etc/althing/cluster/ca.pem\"";
        /// PEM file with this node's certificate, for servers and clients, with `node.name` as its DNS name.
        certificate: Option<PathBuf> = None, like "\"/etc/althing/cluster/node-0.pem\"";
        /// PEM file with the private key of `certificate`. Only the node's user should be able to read it.
        key: Option<PathBuf> = None, like "\"/etc/althing/cluster/node-0.key\"";
        /// Milliseconds between two signs of life of the leader.
        heartbeat_ms: u64 = 250, in 10..=10000;
        /// Milliseconds without a sign of life after which an election begins; it takes 1.5 to 2 times that.
        election_ms: u64 = 800, in 50..=60000;
        /// Milliseconds without a majority after which a node suspends: no login, no delivery, until it has one again.
        suspend_ms: u64 = 3_000, in 100..=300000;
        /// Milliseconds without a majority after which a node closes its clients' streams. At least two elections
        /// after `suspend_ms`, so that an election costs nobody a stream.
        close_ms: u64 = 8_000, in 200..=600000;
        /// Milliseconds of silence after which the others give away the addresses of a node's clients. At least
        /// 2000 after `close_ms`, so that the node has let go of them by then.
        down_ms: u64 = 12_000, in 400..=900000;
    }
}

/// A node of the initial set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitialNode {
    /// Its `node.name`.
    pub name: String,
    /// Where the others reach it: `host:port`.
    pub address: String,
}

impl InitialNode {
    /// Reads `name=host:port`; the error says what is wrong.
    fn parse(text: &str) -> Result<Self, String> {
        let (name, address) = text.split_once('=').ok_or("has no '='")?;
        if !is_cluster_name(name) {
            return Err(format!("\"{name}\" is no name of a node: {NAME_RULE}"));
        }
        check_address(address)?;
        Ok(InitialNode { name: name.to_owned(), address: address.to_owned() })
    }
}

impl Cluster {
    /// The initial set, in the order of the configuration. Entries that cannot be read are left out; the checks
    /// have refused them.
    #[must_use]
    pub fn initial_set(&self) -> Vec<InitialNode> {
        self.initial.iter().filter_map(|entry| InitialNode::parse(entry).ok()).collect()
    }

    /// Where the others reach the node called `name`: `advertise`, or what the initial set says.
    #[must_use]
    pub fn advertised(&self, name: &str) -> Option<String> {
        let listed = || self.initial_set().into_iter().find(|node| node.name == name);
        self.advertise.clone().or_else(|| listed().map(|node| node.address))
    }

    /// `heartbeat_ms`.
    #[must_use]
    pub fn heartbeat(&self) -> Duration {
        Duration::from_millis(self.heartbeat_ms)
    }

    /// `election_ms`: an election begins 1.5 to 2 times that after the leader was heard last.
    #[must_use]
    pub fn election(&self) -> Duration {
        Duration::from_millis(self.election_ms)
    }

    /// `suspend_ms`, T1 of the lease.
    #[must_use]
    pub fn suspend(&self) -> Duration {
        Duration::from_millis(self.suspend_ms)
    }

    /// `close_ms`, T2 of the lease.
    #[must_use]
    pub fn close(&self) -> Duration {
        Duration::from_millis(self.close_ms)
    }

    /// `down_ms`, T3 of the lease.
    #[must_use]
    pub fn down(&self) -> Duration {
        Duration::from_millis(self.down_ms)
    }
}

const NAME_RULE: &str = "lower-case letters, digits, '-' and '.', at most 63, as in a domain name";

/// Whether a node of a cluster may be called so: its certificate bears the name as a DNS name (RFC 5280
/// §4.2.1.6), and DNS makes no difference between cases.
#[must_use]
pub fn is_cluster_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let label = |label: &str| {
        !label.is_empty() && label.chars().all(plain) && !label.starts_with('-') && !label.ends_with('-')
    };
    // A name of digits alone would be read as an address.
    name.len() <= MAX_NAME && name.split('.').all(label) && name.chars().any(|c| c.is_ascii_lowercase())
}

/// `host:port`; a host of IPv6 stands in brackets.
fn check_address(text: &str) -> Result<(), String> {
    let wrong = |why: &str| Err(format!("\"{text}\" is no host:port: {why}"));
    let Some((host, port)) = text.rsplit_once(':') else { return wrong("there is no port") };
    if !port.parse::<u16>().is_ok_and(|port| port > 0) {
        return wrong("the port is a number from 1 to 65535");
    }
    if text.parse::<SocketAddr>().is_ok() {
        return Ok(());
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if host.is_empty() || !host.chars().all(plain) {
        return wrong("the host is a domain name or an IP address, of IPv6 in brackets");
    }
    Ok(())
}

impl Config {
    pub(super) fn check_cluster(&self, found: &mut Vec<Finding>) {
        self.check_times(found);
        if !self.cluster.enabled {
            return;
        }
        let cluster = &self.cluster;
        if !is_cluster_name(&self.node.name) {
            found.push(finding(
                "node.name",
                format!("\"{}\" cannot stand in the node's certificate", self.node.name),
                NAME_RULE,
            ));
        }
        for (key, path) in [
            ("cluster.ca", &cluster.ca),
            ("cluster.certificate", &cluster.certificate),
            ("cluster.key", &cluster.key),
        ] {
            if path.is_none() {
                found.push(finding(
                    key,
                    "is not set, but cluster.enabled is true",
                    "path of a PEM file; `althing cert cluster` makes them",
                ));
            }
        }
        if self.storage.backend == Backend::Memory {
            found.push(finding(
                "storage.backend",
                "is \"memory\", but cluster.enabled is true: a node that forgets could vote twice",
                "\"embedded\"",
            ));
        }
        self.check_initial(found);
    }

    fn check_initial(&self, found: &mut Vec<Finding>) {
        const KEY: &str = "cluster.initial";
        const ALLOWED: &str =
            "name=host:port for each node that begins the cluster, each name and address once";
        let cluster = &self.cluster;
        if cluster.initial.is_empty() {
            found.push(finding(
                KEY,
                "is empty: the node could neither find a cluster nor begin one",
                ALLOWED,
            ));
        }
        let (mut names, mut addresses) = (BTreeSet::new(), BTreeSet::new());
        for entry in &cluster.initial {
            match InitialNode::parse(entry) {
                Err(why) => found.push(finding(KEY, format!("\"{entry}\": {why}"), ALLOWED)),
                Ok(node) => {
                    let (address, name) = (node.address, node.name);
                    if addresses.contains(&address) || names.contains(&name) {
                        found.push(finding(
                            KEY,
                            format!("\"{entry}\": name or address stands there twice"),
                            ALLOWED,
                        ));
                    }
                    names.insert(name);
                    addresses.insert(address);
                }
            }
        }
        match &cluster.advertise {
            Some(address) => {
                if let Err(why) = check_address(address) {
                    found.push(finding("cluster.advertise", why, "host:port"));
                }
            }
            None if !names.contains(&self.node.name) => found.push(finding(
                "cluster.advertise",
                format!("is not set, and cluster.initial has no \"{}\"", self.node.name),
                "host:port under which the other nodes reach this one",
            )),
            None => {}
        }
    }

    /// The inequality that the lease rests on (ARCHITECTURE.md, "Lease"): a node has let go of its clients before
    /// the others give their addresses away, and an election is over before anything is let go.
    fn check_times(&self, found: &mut Vec<Finding>) {
        let Cluster { heartbeat_ms, election_ms, suspend_ms, close_ms, down_ms, .. } = self.cluster;
        if election_ms < heartbeat_ms.saturating_mul(3) {
            found.push(finding(
                "cluster.election_ms",
                format!("{election_ms} is below three times cluster.heartbeat_ms ({heartbeat_ms})"),
                format!("at least {}", heartbeat_ms.saturating_mul(3)),
            ));
        }
        let close_least = suspend_ms.saturating_add(election_ms.saturating_mul(4));
        if close_ms <= suspend_ms {
            found.push(finding(
                "cluster.close_ms",
                format!("{close_ms} is not above cluster.suspend_ms ({suspend_ms})"),
                format!("at least {close_least}"),
            ));
        } else if close_ms < close_least {
            found.push(finding(
                "cluster.close_ms",
                format!(
                    "{close_ms} leaves no time for two elections of 2 x cluster.election_ms ({election_ms}) after \
                     cluster.suspend_ms ({suspend_ms})"
                ),
                format!("at least {close_least}"),
            ));
        }
        let down_least = close_ms.saturating_add(DOWN_MARGIN_MS);
        if down_ms < down_least {
            found.push(finding(
                "cluster.down_ms",
                format!("{down_ms} is less than {DOWN_MARGIN_MS} above cluster.close_ms ({close_ms})"),
                format!("at least {down_least}"),
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(change: impl FnOnce(&mut Config)) -> Vec<String> {
        let mut config = Config::default();
        config.tls.certificate = Some("c".into());
        config.tls.key = Some("k".into());
        config.cluster = Cluster {
            enabled: true,
            initial: vec!["node-0=127.0.0.1:5275".into(), "node-1=node-1.internal:5275".into()],
            ca: Some("ca".into()),
            certificate: Some("c".into()),
            key: Some("k".into()),
            ..Cluster::default()
        };
        change(&mut config);
        config.validate().into_iter().map(|finding| format!("{}: {}", finding.key, finding.what())).collect()
    }

    #[test]
    fn a_whole_section_is_fine() {
        assert_eq!(findings(|_| ()), Vec::<String>::new());
        assert_eq!(findings(|config| config.cluster = Cluster::default()), Vec::<String>::new());
    }

    #[test]
    fn certificates_and_an_initial_set_are_needed() {
        let found = findings(|config| {
            config.cluster.ca = None;
            config.cluster.initial.clear();
        });
        assert_eq!(
            found,
            [
                "cluster.ca: is not set, but cluster.enabled is true",
                "cluster.initial: is empty: the node could neither find a cluster nor begin one",
                "cluster.advertise: is not set, and cluster.initial has no \"node-0\"",
            ]
        );
    }

    #[test]
    fn the_times_keep_their_order() {
        let one = |change: fn(&mut Cluster)| findings(|config| change(&mut config.cluster)).join("; ");
        assert!(
            one(|c| c.close_ms = 3_000).contains("cluster.close_ms: 3000 is not above cluster.suspend_ms")
        );
        assert!(one(|c| c.close_ms = 6_199).contains("leaves no time for two elections"));
        assert_eq!(one(|c| c.close_ms = 6_200), "");
        assert!(one(|c| c.down_ms = 9_999).contains("cluster.down_ms: 9999 is less than 2000 above"));
        assert_eq!(one(|c| c.down_ms = 10_000), "");
        assert!(one(|c| c.heartbeat_ms = 267).contains("cluster.election_ms: 800 is below three times"));
        assert_eq!(one(|c| c.heartbeat_ms = 266), "");
    }

    #[test]
    fn entries_of_the_initial_set_are_read_and_unique() {
        let one = |entry: &str| findings(|config| config.cluster.initial[1] = entry.into()).join("; ");
        assert!(one("node-1").contains("has no '='"));
        assert!(one("node_1=h:1").contains("is no name of a node"));
        assert!(one("node-1=h").contains("there is no port"));
        assert!(one("node-1=h:0").contains("the port is a number"));
        assert!(one("node-1=::1:5275").contains("in brackets"));
        assert_eq!(one("node-1=[::1]:5275"), "");
        assert!(one("node-0=h:1").contains("twice"));
        assert!(one("node-1=127.0.0.1:5275").contains("twice"));
    }

    #[test]
    fn a_node_outside_the_initial_set_says_where_it_is() {
        let found = findings(|config| config.node.name = "node-7".into());
        assert_eq!(found, ["cluster.advertise: is not set, and cluster.initial has no \"node-7\""]);
        let found = findings(|config| {
            config.node.name = "node-7".into();
            config.cluster.advertise = Some("node-7.internal:5275".into());
            assert_eq!(config.cluster.advertised("node-7").unwrap(), "node-7.internal:5275");
        });
        assert_eq!(found, Vec::<String>::new());
    }

    #[test]
    fn the_initial_set_says_where_its_nodes_are() {
        let cluster = Cluster { initial: vec!["a=1.2.3.4:5".into(), "b=h:6".into()], ..Cluster::default() };
        assert_eq!(cluster.advertised("b").unwrap(), "h:6");
        assert_eq!(cluster.advertised("c"), None);
    }

    #[test]
    fn names_can_stand_in_certificates() {
        for good in ["node-0", "a", "xmpp-2.xmpp-headless", "9a"] {
            assert!(is_cluster_name(good), "{good}");
        }
        for bad in ["", "Node", "a_b", "-a", "a-", "a..b", "10.0.0.1", &"a".repeat(64)] {
            assert!(!is_cluster_name(bad), "{bad}");
        }
        let found = findings(|config| {
            config.node.name = "Node".into();
            config.cluster.advertise = Some("h:1".into());
        });
        assert_eq!(found, ["node.name: \"Node\" cannot stand in the node's certificate"]);
    }

    #[test]
    fn a_cluster_needs_a_store_that_lasts() {
        let found = findings(|config| config.storage.backend = Backend::Memory);
        assert!(found[0].starts_with("storage.backend: is \"memory\", but cluster.enabled is true"));
    }
}
