//! What types cannot say: ranges, and keys that need each other.

use std::collections::BTreeSet;

use althing_proto::jid::{self, DomainPart};
use tracing_subscriber::EnvFilter;

use super::error::Problem;
use super::{Config, MECHANISMS, SECTIONS};

/// What an item of a block list takes beside its address: `<item jid=''/>`, and what is around them all.
const ITEM_BYTES: usize = 16;

/// Something wrong with the value of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// `section.key`.
    pub key: String,
    what: String,
    allowed: String,
}

impl Finding {
    /// What is wrong with it, in words.
    #[must_use]
    pub fn what(&self) -> &str {
        &self.what
    }

    pub(super) fn into_problem(self, source: &str) -> Problem {
        Problem { source: source.to_owned(), key: self.key, what: self.what, allowed: self.allowed }
    }
}

pub(super) fn finding(key: &str, what: impl Into<String>, allowed: impl Into<String>) -> Finding {
    Finding { key: key.to_owned(), what: what.into(), allowed: allowed.into() }
}

impl Config {
    /// Everything wrong with the values; empty when the configuration can be used.
    ///
    /// It reads no files: whether a certificate fits its key is found out when it is loaded.
    #[must_use]
    pub fn validate(&self) -> Vec<Finding> {
        let mut found = self.out_of_range();
        self.check_node(&mut found);
        self.check_domains(&mut found);
        self.check_admins(&mut found);
        self.check_contact(&mut found);
        self.check_tls(&mut found);
        self.check_auth(&mut found);
        self.check_web(&mut found);
        self.check_limits(&mut found);
        self.check_cluster(&mut found);
        self.check_components(&mut found);
        self.check_services(&mut found);
        self.check_hosts(&mut found);
        if let Err(error) = EnvFilter::try_new(&self.log.filter) {
            found.push(finding(
                "log.filter",
                format!("is no filter: {error}"),
                "a level, then module=level, separated by commas",
            ));
        }
        found
    }

    fn out_of_range(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        let Ok(values) = toml::Table::try_from(self) else { return found };
        for section in SECTIONS {
            for key in section.keys {
                let value =
                    values.get(section.name).and_then(|s| s.get(key.name)).and_then(toml::Value::as_integer);
                let (Some(value), Some((low, high))) = (value, key.range.first()) else { continue };
                if !u64::try_from(value).is_ok_and(|value| (*low..=*high).contains(&value)) {
                    found.push(Finding {
                        key: format!("{}.{}", section.name, key.name),
                        what: format!("{value} is out of range"),
                        allowed: key.allowed(),
                    });
                }
            }
        }
        found
    }

    fn check_node(&self, found: &mut Vec<Finding>) {
        let name = &self.node.name;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if name.is_empty() || name.len() > 63 || !name.chars().all(plain) {
            found.push(finding(
                "node.name",
                format!("\"{name}\" is no node name"),
                "1 to 63 ASCII letters, digits, '-', '.' and '_'",
            ));
        }
        if self.node.data_dir.as_os_str().is_empty() {
            found.push(finding("node.data_dir", "is empty", "path of a directory"));
        }
    }

    fn check_domains(&self, found: &mut Vec<Finding>) {
        const KEY: &str = "xmpp.domains";
        if self.xmpp.domains.is_empty() {
            found.push(finding(KEY, "is empty", "at least one domain"));
        }
        let mut seen = BTreeSet::new();
        for domain in &self.xmpp.domains {
            match DomainPart::new(domain) {
                Err(error) => found.push(finding(KEY, format!("\"{domain}\": {error}"), "domain names")),
                // Stored keys and certificates hold the prepared form; two spellings would be two services.
                Ok(prepared) if prepared.as_str() != domain => found.push(finding(
                    KEY,
                    format!("\"{domain}\" is not in its prepared form"),
                    format!("\"{}\"", prepared.as_str()),
                )),
                Ok(_) if !seen.insert(domain) => {
                    found.push(finding(KEY, format!("\"{domain}\" stands there twice"), "each domain once"));
                }
                Ok(_) => {}
            }
        }
    }

    fn check_admins(&self, found: &mut Vec<Finding>) {
        const KEY: &str = "xmpp.admins";
        for admin in &self.xmpp.admins {
            // Compared as text with what clients are bound to: only the prepared form can ever be met.
            let (what, allowed) = match jid::parse(admin) {
                Err(error) => (format!("\"{admin}\": {error}"), "bare addresses".to_owned()),
                Ok(jid) if jid.as_str() != admin => {
                    ("is not in its prepared form".to_owned(), format!("\"{jid}\""))
                }
                Ok(jid) if jid.node().is_none() || jid.resource().is_some() => {
                    (format!("\"{admin}\" is no account"), "user@domain".to_owned())
                }
                Ok(jid) if !self.xmpp.domains.iter().any(|domain| domain == jid.domain().as_str()) => (
                    format!("\"{admin}\" is not of this server"),
                    format!("accounts of {}", self.xmpp.domains.join(", ")),
                ),
                Ok(_) => continue,
            };
            found.push(finding(KEY, what, allowed));
        }
    }

    fn check_tls(&self, found: &mut Vec<Finding>) {
        let (listen, tls) = (&self.listen, &self.tls);
        let needed_by = if !listen.c2s_tls.is_empty() {
            Some("listen.c2s_tls has an address")
        } else if !listen.web_tls.is_empty() {
            Some("listen.web_tls has an address")
        } else if !listen.c2s.is_empty() && !self.auth.allow_plaintext {
            Some("listen.c2s has an address and auth.allow_plaintext is off")
        } else {
            None
        };
        for (key, path, other) in
            [("tls.certificate", &tls.certificate, &tls.key), ("tls.key", &tls.key, &tls.certificate)]
        {
            if path.is_some() {
                continue;
            }
            if let Some(reason) = needed_by {
                found.push(finding(key, format!("is not set, but {reason}"), "path of a PEM file"));
            } else if other.is_some() {
                found.push(finding(key, "is not set, but its other half is", "both or neither"));
            }
        }
    }

    fn check_auth(&self, found: &mut Vec<Finding>) {
        if self.auth.mechanisms.is_empty() {
            found.push(finding("auth.mechanisms", "is empty: nobody could log in", MECHANISMS.join(", ")));
        }
        for name in self.auth.mechanisms.iter().filter(|name| !MECHANISMS.contains(&name.as_str())) {
            found.push(finding(
                "auth.mechanisms",
                format!("unknown mechanism \"{name}\""),
                MECHANISMS.join(", "),
            ));
        }
        if self.auth.allow_plaintext {
            for (key, addresses) in [("listen.c2s", &self.listen.c2s), ("listen.web", &self.listen.web)] {
                for address in addresses.iter().filter(|address| !address.ip().is_loopback()) {
                    found.push(finding(
                        "auth.allow_plaintext",
                        format!("true, but {key} has {address}, which others can reach"),
                        format!("true only when every address of {key} is a loopback address, such as 127.0.0.1:5222"),
                    ));
                }
            }
        }
    }

    fn check_limits(&self, found: &mut Vec<Finding>) {
        let limits = &self.limits;
        if limits.stanza_bytes < limits.stanza_bytes_before_login {
            found.push(finding(
                "limits.stanza_bytes",
                "is below limits.stanza_bytes_before_login",
                format!("at least {}", limits.stanza_bytes_before_login),
            ));
        }
        // With the markup of an item: a client gets its whole block list in one stanza.
        let list = limits.block_bytes.saturating_add(limits.block_entries.saturating_mul(ITEM_BYTES));
        if limits.outbox_bytes < list {
            found.push(finding(
                "limits.outbox_bytes",
                "cannot hold the list of limits.block_entries addresses of limits.block_bytes",
                format!("at least {list}"),
            ));
        }
        if limits.outbox_bytes < limits.stanza_bytes {
            found.push(finding(
                "limits.outbox_bytes",
                "cannot hold one stanza of limits.stanza_bytes",
                format!("at least {}", limits.stanza_bytes),
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
        change(&mut config);
        config.validate().into_iter().map(|finding| format!("{}: {}", finding.key, finding.what)).collect()
    }

    #[test]
    fn defaults_with_a_certificate_are_fine() {
        assert_eq!(findings(|_| ()), Vec::<String>::new());
    }

    #[test]
    fn numbers_stay_in_their_range() {
        let found = findings(|config| config.limits.depth = 7);
        assert_eq!(found, ["limits.depth: 7 is out of range"]);
    }

    #[test]
    fn plaintext_login_needs_loopback() {
        let found = findings(|config| config.auth.allow_plaintext = true);
        assert_eq!(
            found,
            ["auth.allow_plaintext: true, but listen.c2s has 0.0.0.0:5222, which others can reach"]
        );
        let loopback = |config: &mut Config| {
            config.auth.allow_plaintext = true;
            config.listen.c2s = vec!["127.0.0.2:5222".parse().unwrap(), "[::1]:5222".parse().unwrap()];
        };
        assert_eq!(findings(loopback), Vec::<String>::new());
    }

    #[test]
    fn tls_listeners_need_a_certificate() {
        let found = findings(|config| config.tls.certificate = None);
        assert_eq!(found, ["tls.certificate: is not set, but listen.c2s_tls has an address"]);
        let half = findings(|config| {
            config.listen.c2s.clear();
            config.listen.c2s_tls.clear();
            config.tls.key = None;
        });
        assert_eq!(half, ["tls.key: is not set, but its other half is"]);
    }

    #[test]
    fn domains_are_prepared_and_unique() {
        assert_eq!(
            findings(|config| config.xmpp.domains = vec!["Example.ORG".into()]),
            ["xmpp.domains: \"Example.ORG\" is not in its prepared form"]
        );
        assert_eq!(
            findings(|config| config.xmpp.domains = vec!["a.example".into(), "a.example".into()]),
            ["xmpp.domains: \"a.example\" stands there twice"]
        );
        assert_eq!(findings(|config| config.xmpp.domains.clear()), ["xmpp.domains: is empty"]);
    }

    #[test]
    fn admins_are_accounts_of_this_server() {
        let admins = |jid: &str| findings(|config| config.xmpp.admins = vec![jid.into()]);
        assert_eq!(admins("alice@localhost"), Vec::<String>::new());
        assert_eq!(admins("alice@example.org"), ["xmpp.admins: \"alice@example.org\" is not of this server"]);
        assert_eq!(admins("localhost"), ["xmpp.admins: \"localhost\" is no account"]);
        assert_eq!(admins("alice@localhost/x"), ["xmpp.admins: \"alice@localhost/x\" is no account"]);
        assert_eq!(admins("Alice@localhost"), ["xmpp.admins: is not in its prepared form"]);
        assert!(admins("@localhost")[0].starts_with("xmpp.admins: \"@localhost\": "));
    }

    #[test]
    fn a_client_can_be_sent_the_longest_block_list() {
        let found = findings(|config| config.limits.block_bytes = config.limits.outbox_bytes);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("limits.outbox_bytes: cannot hold the list"), "{found:?}");
    }

    #[test]
    fn contacts_are_uris() {
        let found = findings(|config| config.contact.abuse = vec!["mailto:a@b".into(), "a@b".into()]);
        assert_eq!(found, ["contact.abuse: \"a@b\" is no URI"]);
    }

    #[test]
    fn mechanisms_and_filters_are_known() {
        assert_eq!(
            findings(|config| config.auth.mechanisms = vec!["CRAM-MD5".into()]),
            ["auth.mechanisms: unknown mechanism \"CRAM-MD5\""]
        );
        assert!(
            findings(|config| config.log.filter = "a=b=c".into())[0].starts_with("log.filter: is no filter")
        );
    }

    #[test]
    fn one_stanza_fits_into_the_outbox() {
        let found = findings(|config| {
            config.limits.outbox_bytes = 65_536;
            config.limits.block_entries = 1_000;
            config.limits.block_bytes = 16_384;
        });
        assert_eq!(found, ["limits.outbox_bytes: cannot hold one stanza of limits.stanza_bytes"]);
    }
}
