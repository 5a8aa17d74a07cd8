//! Section `[services]`: services outside of XMPP that users are told of (XEP-0215).

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Config;
use super::hidden::Hidden;
use super::section::{Described, Kind, section};
use super::validate::{Finding, finding};

section! {
    /// Services outside of XMPP that users of this server are told of (XEP-0215), such as STUN and TURN for calls. Keep
    /// the list the same on all nodes of a cluster.
    Services = "services" {
        /// The services, each in a table `[[services.external]]` with the keys `type` (`stun`, `turn`, `turns`) and
        /// `host`; if wanted `port`, `transport` (`udp`, `tcp`) and `name`. One that asks who comes has `secret_file` (a
        /// file with the secret that it shares with this server) or `secret`: credentials are then made for each user
        /// and valid for `credentials_s`, as TURN servers know it (`use-auth-secret` of coturn). Or it has `username`
        /// and `password_file` or `password`: all users get these.
        external: Vec<ExternalService> = Vec::new();
        /// Seconds for which credentials are valid that are made from a `secret`.
        credentials_s: u64 = 86_400, in 60..=2592000;
    }
}

/// A service outside of XMPP.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExternalService {
    /// Its type, as registered for XEP-0215.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its name in the DNS, or an IP address.
    pub host: String,
    /// Its port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The protocol below it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<String>,
    /// What people call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// As whom all users log in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// With which password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Hidden>,
    /// A file with that password in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// What credentials are made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Hidden>,
    /// A file with that in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<PathBuf>,
}

impl Described for Vec<ExternalService> {
    const KIND: Kind = Kind::Tables(
        "`type` and `host`; if wanted `port`, `transport`, `name`; and `secret_file` or `secret`, or `username` with \
         `password_file` or `password`",
    );
}

/// Whether `text` is a word as types and transports are (an NCName, XEP-0215 §8).
fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

impl Config {
    pub(super) fn check_services(&self, found: &mut Vec<Finding>) {
        const KEY: &str = "services.external";
        for service in &self.services.external {
            let mut refuse = |what: &str, allowed: &str| {
                let about = format!("{} at \"{}\" {what}", service.kind, service.host);
                found.push(finding(KEY, about, allowed));
            };
            if !is_word(&service.kind) {
                refuse("has no type", "types such as \"stun\" or \"turn\"");
            }
            let printable = |c: char| !c.is_whitespace() && !c.is_control();
            if service.host.is_empty() || !service.host.chars().all(printable) {
                refuse("has no host", "a name in the DNS, or an IP address");
            }
            if service.port == Some(0) {
                refuse("has port 0", "a port from 1 to 65535");
            }
            if service.transport.as_deref().is_some_and(|transport| !is_word(transport)) {
                refuse("has a transport that is none", "\"udp\" or \"tcp\"");
            }
            let given = |text: bool, file: bool| usize::from(text) + usize::from(file);
            let secrets = given(service.secret.is_some(), service.secret_file.is_some());
            let passwords = given(service.password.is_some(), service.password_file.is_some());
            let empty = [&service.secret, &service.password].into_iter().flatten();
            if empty.into_iter().any(|hidden| hidden.expose().is_empty()) {
                refuse("has an empty secret or password", "one that is not empty, or none");
            }
            match (secrets, service.username.is_some(), passwords) {
                (0, false, 0) | (1, false, 0) | (0, true, 1) => {}
                _ => refuse(
                    "has credentials that do not go together",
                    "secret_file or secret alone; or username with password_file or password; or none of them",
                ),
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
        let text = format!("[tls]\ncertificate = \"c\"\nkey = \"k\"\n[[services.external]]\n{text}\n");
        std::fs::write(&file, text).unwrap();
        Config::load_with(&file, []).map_err(|error| error.to_string())
    }

    #[test]
    fn a_service_is_a_table_and_its_secret_is_not_shown() {
        let text = "type = \"turn\"\nhost = \"turn.example.org\"\nport = 3478\ntransport = \"udp\"\nsecret = \"hush\"";
        let config = load(text).unwrap();
        let [service] = &config.services.external[..] else { panic!("one") };
        assert_eq!((service.kind.as_str(), service.port), ("turn", Some(3478)));
        assert_eq!(service.secret.as_ref().unwrap().expose(), "hush");
        let shown = format!("{config:?}{}", toml::to_string(&config).unwrap());
        assert!(!shown.contains("hush"), "{shown}");
        let config = load("type = \"turn\"\nhost = \"a\"\nsecret_file = \"turn.secret\"").unwrap();
        let file = config.services.external[0].secret_file.clone().unwrap();
        assert!(file.is_absolute(), "counts from the directory of the configuration");
    }

    #[test]
    fn what_is_wrong_with_a_service_is_told() {
        for (text, told) in [
            ("type = \"st un\"\nhost = \"a\"", "has no type"),
            ("type = \"stun\"\nhost = \"\"", "has no host"),
            ("type = \"stun\"\nhost = \"a\"\nport = 0", "has port 0"),
            ("type = \"stun\"\nhost = \"a\"\ntransport = \"\"", "has a transport that is none"),
            ("type = \"turn\"\nhost = \"a\"\nsecret = \"\"", "has an empty secret"),
            ("type = \"turn\"\nhost = \"a\"\nusername = \"u\"", "do not go together"),
            ("type = \"turn\"\nhost = \"a\"\npassword = \"p\"", "do not go together"),
            ("type = \"turn\"\nhost = \"a\"\nsecret = \"s\"\nsecret_file = \"f\"", "do not go together"),
            ("type = \"turn\"\nhost = \"a\"\nsecrt = \"s\"", "secrt"),
        ] {
            let error = load(text).unwrap_err();
            assert!(error.contains(told), "{text}: {error}");
        }
        assert!(load("type = \"turn\"\nhost = \"a\"\nusername = \"u\"\npassword = \"p\"").is_ok());
        assert!(load("type = \"stun\"\nhost = \"2001:db8::1\"").is_ok());
    }
}
