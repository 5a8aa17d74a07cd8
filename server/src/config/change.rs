//! PURE. From the configuration in force to another: what can change while the node runs, and what cannot.

use ring::digest;
use toml::{Table, Value};

use super::{Config, Finding, SECTIONS};

/// Sections that are read at the start of the node only: addresses, identity, data, members.
const FIXED_SECTIONS: &[&str] = &["node", "listen", "cluster", "storage", "http", "runtime"];

/// Single keys of the same kind.
const FIXED_KEYS: &[&str] = &[
    "xmpp.domains",
    "components.listen",
    "components.listen_tls",
    "log.format",
    "limits.binds_at_once",
    "limits.binds_waiting",
];

/// Whether a key is read at the start of the node only.
#[must_use]
pub fn needs_restart(section: &str, key: &str) -> bool {
    FIXED_SECTIONS.contains(&section)
        || FIXED_KEYS.iter().any(|fixed| fixed.split_once('.') == Some((section, key)))
}

/// What a node takes over from another configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// In force from now on: what can change is as wanted, the rest as it was.
    pub config: Config,
    /// Keys whose value is another now, `section.key`.
    pub changed: Vec<String>,
    /// Keys whose value is another in `wanted`, but takes a restart.
    pub restart: Vec<String>,
}

impl Config {
    /// What becomes of this configuration when `wanted` is read while the node runs.
    ///
    /// # Errors
    /// What is wrong with the mixture, where keys that change do not go with others that stay.
    pub fn changed_to(&self, wanted: &Config) -> Result<Change, Vec<Finding>> {
        let (old, new) = (table(self), table(wanted));
        let (mut changed, mut restart) = (Vec::new(), Vec::new());
        for section in SECTIONS {
            for key in section.keys {
                let value =
                    |table: &Table| table.get(section.name).and_then(|keys| keys.get(key.name)).cloned();
                if value(&old) != value(&new) {
                    let list =
                        if needs_restart(section.name, key.name) { &mut restart } else { &mut changed };
                    list.push(format!("{}.{}", section.name, key.name));
                }
            }
        }
        // Secrets are shown in no table.
        for (key, same) in [
            ("components.external", self.components.external == wanted.components.external),
            ("services.external", self.services.external == wanted.services.external),
        ] {
            if !same && !changed.iter().any(|known| known == key) {
                changed.push(key.to_owned());
            }
        }
        let mut config = wanted.clone();
        self.keep_fixed(&mut config);
        let findings = config.validate();
        if findings.is_empty() { Ok(Change { config, changed, restart }) } else { Err(findings) }
    }

    /// Gives `config` the values of this one for what takes a restart.
    fn keep_fixed(&self, config: &mut Config) {
        config.node = self.node.clone();
        config.listen = self.listen.clone();
        config.cluster = self.cluster.clone();
        config.storage = self.storage.clone();
        config.http = self.http.clone();
        config.runtime = self.runtime.clone();
        config.xmpp.domains.clone_from(&self.xmpp.domains);
        config.components.listen.clone_from(&self.components.listen);
        config.components.listen_tls.clone_from(&self.components.listen_tls);
        config.log.format = self.log.format;
        config.limits.binds_at_once = self.limits.binds_at_once;
        config.limits.binds_waiting = self.limits.binds_waiting;
    }

    /// A number that is the same on all nodes where what can change is the same; 48 bits of a hash.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let mut table = table(self);
        for section in SECTIONS {
            if let Some(Value::Table(keys)) = table.get_mut(section.name) {
                keys.retain(|key, _| !needs_restart(section.name, key));
            }
        }
        let hash = digest::digest(&digest::SHA256, table.to_string().as_bytes());
        hash.as_ref().iter().take(6).fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
}

/// Every key with its value; keys that are not set are left out.
fn table(config: &Config) -> Table {
    // A struct of plain keys always is one.
    Table::try_from(config).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::section::Kind;

    fn valid(change: impl FnOnce(&mut Config)) -> Config {
        let mut config = Config::default();
        config.tls.certificate = Some("c".into());
        config.tls.key = Some("k".into());
        change(&mut config);
        config
    }

    #[test]
    fn what_can_change_changes_and_the_rest_is_told() {
        let old = valid(|_| ());
        let wanted = valid(|config| {
            config.limits.depth = 32;
            config.tls.certificate = Some("d".into());
            config.web.websocket_url = Some("wss://a.example/x".into());
            config.node.name = "node-1".into();
            config.listen.c2s.clear();
            config.xmpp.domains = vec!["a.example".into()];
            config.xmpp.admins = vec!["a@localhost".into()];
            config.cluster.advertise = Some("a:1".into());
        });
        let change = old.changed_to(&wanted).unwrap();
        assert_eq!(change.changed, ["xmpp.admins", "tls.certificate", "web.websocket_url", "limits.depth"]);
        assert_eq!(change.restart, ["node.name", "xmpp.domains", "listen.c2s", "cluster.advertise"]);
        let expected = valid(|config| {
            config.limits.depth = 32;
            config.tls.certificate = Some("d".into());
            config.web.websocket_url = Some("wss://a.example/x".into());
            config.xmpp.admins = vec!["a@localhost".into()];
        });
        assert_eq!(change.config, expected);
        let back = change.config.changed_to(&old).unwrap();
        assert_eq!(back.config, old);
        assert_eq!(old.changed_to(&old).unwrap().changed, Vec::<String>::new());
    }

    /// Each key is asked for by itself: what the list names stays, and nothing else does.
    #[test]
    fn what_stays_is_what_the_list_names() {
        let old = valid(|_| ());
        for section in SECTIONS {
            for key in section.keys {
                let mut table = table(&old);
                let Some(Value::Table(keys)) = table.get_mut(section.name) else { panic!("a section") };
                let other = match keys.get(key.name) {
                    Some(Value::Boolean(value)) => Value::Boolean(!value),
                    Some(Value::Integer(number)) => Value::Integer(number + 1),
                    Some(Value::Array(_)) if key.kind == Kind::Addresses => vec!["127.0.0.1:1"].into(),
                    Some(Value::Array(_)) if key.kind == Kind::Texts => vec!["x"].into(),
                    Some(Value::Array(_)) => continue,
                    _ => match key.kind {
                        Kind::Address => "127.0.0.1:1".into(),
                        Kind::OneOf(words) => words[words.len() - 1].into(),
                        _ => "x".into(),
                    },
                };
                keys.insert(key.name.to_owned(), other);
                let wanted: Config = Value::Table(table).try_into().unwrap();
                let mut mixed = wanted.clone();
                old.keep_fixed(&mut mixed);
                let name = format!("{}.{}", section.name, key.name);
                assert_ne!(old, wanted, "{name}");
                let stays = needs_restart(section.name, key.name);
                assert_eq!(mixed, if stays { old.clone() } else { wanted }, "{name}");
            }
        }
    }

    #[test]
    fn another_secret_is_another_value() {
        let with = |secret: &str| {
            let external = format!("domain = \"a.example\"\nsecret = \"{secret}\"");
            valid(|config| config.components.external = vec![toml::from_str(&external).unwrap()])
        };
        let (old, new) = (with("0123456789abcdef"), with("0123456789abcdeg"));
        let change = old.changed_to(&new).unwrap();
        assert_eq!(change.changed, ["components.external"]);
        assert_eq!(change.config, new);
        let with = |secret: &str| {
            let external = format!("type = \"turn\"\nhost = \"a.example\"\nsecret = \"{secret}\"");
            valid(|config| config.services.external = vec![toml::from_str(&external).unwrap()])
        };
        assert_eq!(with("a").changed_to(&with("b")).unwrap().changed, ["services.external"]);
    }

    /// The file is fine by itself; with the address that stays it would let strangers log in without TLS.
    #[test]
    fn a_mixture_that_is_wrong_is_refused() {
        let wanted = valid(|config| {
            config.listen.c2s = vec!["127.0.0.1:5222".parse().unwrap()];
            config.auth.allow_plaintext = true;
        });
        assert!(wanted.validate().is_empty());
        let findings = valid(|_| ()).changed_to(&wanted).unwrap_err();
        assert_eq!(findings[0].key, "auth.allow_plaintext");
    }

    /// T15: a host can be another from now on, if it is one that is served already.
    #[test]
    fn t15_hosts_change_where_they_are_served() {
        let with = |hosts: &str, domains: &[&str]| {
            valid(|config| {
                config.messages =
                    toml::from_str(&format!("durability = \"commit\"\nhosts = {hosts}")).unwrap();
                config.xmpp.domains = domains.iter().map(|domain| (*domain).to_owned()).collect();
            })
        };
        let old = with("[]", &["localhost", "a.example"]);
        let host = "[{ domain = \"a.example\", durability = \"memory\" }]";
        let new = with(host, &["localhost", "a.example"]);
        let change = old.changed_to(&new).unwrap();
        assert_eq!((change.changed, change.config == new), (vec!["messages.hosts".to_owned()], true));
        let refused = valid(|_| ()).changed_to(&new).unwrap_err();
        assert_eq!(refused[0].key, "messages.hosts");
    }

    #[test]
    fn each_fixed_key_exists() {
        let keys =
            SECTIONS.iter().flat_map(|section| section.keys.iter().map(|key| (section.name, key.name)));
        let fixed = keys.filter(|(section, key)| needs_restart(section, key)).count();
        let sections = SECTIONS.iter().filter(|section| FIXED_SECTIONS.contains(&section.name));
        let (mut number, mut of_sections) = (0, 0);
        for section in sections {
            number += 1;
            of_sections += section.keys.len();
        }
        assert_eq!(number, FIXED_SECTIONS.len());
        assert_eq!(fixed, of_sections + FIXED_KEYS.len());
    }

    #[test]
    fn the_fingerprint_is_of_what_can_change() {
        let one = valid(|config| config.node.name = "node-1".into());
        let two = valid(|config| config.node.name = "node-2".into());
        assert_eq!(one.fingerprint(), two.fingerprint());
        assert_ne!(one.fingerprint(), valid(|config| config.limits.depth = 32).fingerprint());
        assert!(one.fingerprint() < 1 << 48);
    }
}
