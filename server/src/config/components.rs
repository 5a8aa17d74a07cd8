//! Section `[components]`: services with domains of their own that attach to this server (XEP-0114).

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use althing_proto::jid::DomainPart;
use serde::{Deserialize, Serialize};

use super::Config;
use super::hidden::Hidden;
use super::section::{Described, Kind, section};
use super::validate::{Finding, finding};

/// Least characters of a component's secret. Whoever listens to a handshake can try secrets against it at leisure.
pub const LEAST_SECRET: usize = 16;

section! {
    /// External components (XEP-0114): gateways, rooms, bots that are processes of their own and serve a domain of
    /// their own. Keep their listener inside your network, and this list the same on all nodes of a cluster.
    Components = "components" {
        /// Addresses where components connect in clear text. Empty: nowhere. `127.0.0.1:5347` is usual.
        listen: Vec<SocketAddr> = Vec::new();
        /// Addresses where components connect over direct TLS, with the certificate of `[tls]`.
        listen_tls: Vec<SocketAddr> = Vec::new();
        /// The components that may attach, each in a table `[[components.external]]` with the keys `domain`;
        /// `secret_file` (a file with the secret in it) or `secret` (at least 16 characters); if wanted `name`, which
        /// service discovery shows; and `exclusive = true` where a second connection of the domain is refused with
        /// `conflict`. Without it all connections of a domain share its users, on whatever nodes they are. A reload ends
        /// connections of components that it removes (`host-gone`) or gives another secret (`reset`).
        external: Vec<External> = Vec::new();
        /// Connections of components at the same time, on both listeners together. One more is closed at once.
        connections: usize = 100, in 1..=100000;
        /// Seconds from the connection to the handshake, that of TLS counted.
        handshake_timeout_s: u64 = 30, in 1..=3600;
        /// Stanzas that wait for one connection of a component. More: a message or request is answered with
        /// `resource-constraint`, presence is dropped.
        inbox_stanzas: usize = 8_192, in 16..=1048576;
        /// Bytes of the stanzas that wait for one connection of a component, beside `inbox_stanzas`.
        inbox_bytes: usize = 16_777_216, in 65536..=4294967296;
        /// Seconds of silence after which a component is sent a space, so that a dead connection is noticed.
        keepalive_s: u64 = 60, in 5..=86400;
    }
}

/// A component that may attach.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct External {
    /// Its domain.
    pub domain: String,
    /// The secret that it shares with the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Hidden>,
    /// A file with the secret in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<PathBuf>,
    /// What service discovery calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whether it may have one connection only.
    #[serde(default)]
    pub exclusive: bool,
}

impl Described for Vec<External> {
    const KIND: Kind =
        Kind::Tables("`domain`, and `secret_file` or `secret`; if wanted `name` and `exclusive`");
}

impl Config {
    pub(super) fn check_components(&self, found: &mut Vec<Finding>) {
        const KEY: &str = "components.external";
        let components = &self.components;
        if !components.listen_tls.is_empty() && (self.tls.certificate.is_none() || self.tls.key.is_none()) {
            found.push(finding(
                "components.listen_tls",
                "has an address, but tls.certificate or tls.key is not set",
                "empty, or a certificate with its key in [tls]",
            ));
        }
        if components.inbox_bytes < self.limits.stanza_bytes {
            found.push(finding(
                "components.inbox_bytes",
                "cannot hold one stanza of limits.stanza_bytes",
                format!("at least {}", self.limits.stanza_bytes),
            ));
        }
        let mut seen = BTreeSet::new();
        for External { domain, secret, secret_file, .. } in &components.external {
            let mut refuse = |what: &str, allowed: &str| {
                found.push(finding(KEY, format!("\"{domain}\" {what}"), allowed));
            };
            match DomainPart::new(domain) {
                Err(_) => refuse("is no domain", "domain names"),
                Ok(prepared) if prepared.as_str() != domain => {
                    refuse("is not in its prepared form", &format!("\"{}\"", prepared.as_str()));
                }
                Ok(_) if self.xmpp.domains.contains(domain) => {
                    refuse("is in xmpp.domains as well", "a domain of its own for each component");
                }
                Ok(_) if !seen.insert(domain) => refuse("stands there twice", "each domain once"),
                Ok(_) => {}
            }
            match (secret, secret_file) {
                (None, None) => refuse("has no secret", "secret_file or secret"),
                (Some(_), Some(_)) => refuse("has two secrets", "secret_file or secret, not both"),
                (Some(secret), None) if secret.expose().chars().count() < LEAST_SECRET => {
                    refuse("has a secret that can be guessed", "at least 16 characters, drawn at random");
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("althing.toml");
        std::fs::write(&file, format!("[tls]\ncertificate = \"c\"\nkey = \"k\"\n{text}")).unwrap();
        let variables = [("ALTHING__COMPONENTS__LISTEN".to_owned(), "127.0.0.1:5347".to_owned())];
        Config::load_with(&file, variables).map_err(|error| error.to_string())
    }

    const GOOD: &str = "[[components.external]]\ndomain = \"irc.localhost\"\nname = \"IRC\"\n";

    #[test]
    fn a_component_is_a_table_and_its_secret_is_not_shown() {
        let config = load(&format!("{GOOD}secret = \"0123456789abcdef\"\n")).unwrap();
        assert_eq!(config.components.listen.len(), 1);
        let [external] = &config.components.external[..] else { panic!("one") };
        assert_eq!((external.domain.as_str(), external.exclusive), ("irc.localhost", false));
        assert_eq!(external.secret.as_ref().unwrap().expose(), "0123456789abcdef");
        let shown = format!("{config:?}{}", toml::to_string(&config).unwrap());
        assert!(!shown.contains("0123456789abcdef"), "{shown}");
        let config = load(&format!("{GOOD}secret_file = \"irc.secret\"\n")).unwrap();
        let file = config.components.external[0].secret_file.clone().unwrap();
        assert!(file.is_absolute(), "counts from the directory of the configuration");
    }

    #[test]
    fn what_is_wrong_with_a_component_is_told() {
        let told = |text: &str| load(text).unwrap_err();
        assert!(told(GOOD).contains("\"irc.localhost\" has no secret"));
        assert!(told(&format!("{GOOD}secret = \"short\"\n")).contains("can be guessed"));
        let two = format!("{GOOD}secret_file = \"f\"\nsecret = \"0123456789abcdef\"\n");
        assert!(told(&two).contains("has two secrets"));
        let served = GOOD.replace("irc.localhost", "localhost");
        assert!(told(&format!("{served}secret_file = \"f\"\n")).contains("is in xmpp.domains as well"));
        let twice = format!("{GOOD}secret_file = \"f\"\n").repeat(2);
        assert!(told(&twice).contains("stands there twice"));
        let unknown = told(&format!("{GOOD}secret_fil = \"f\"\n"));
        assert!(unknown.contains("secret_fil"), "{unknown}");
        assert!(unknown.contains("allowed: list of tables"), "{unknown}");
    }

    #[test]
    fn a_variable_can_hold_the_list() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("althing.toml");
        std::fs::write(&file, "[tls]\ncertificate = \"c\"\nkey = \"k\"\n").unwrap();
        let list = "[{ domain = \"a.localhost\", secret_file = \"f\", exclusive = true }]";
        let variables = [("ALTHING__COMPONENTS__EXTERNAL".to_owned(), list.to_owned())];
        let config = Config::load_with(&file, variables).unwrap();
        assert!(config.components.external[0].exclusive);
    }
}
