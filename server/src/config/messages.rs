//! Sections `[messages]`, `[archive]`, `[offline]` and `[receipts]`: which messages are kept, and for how long.

use std::collections::BTreeSet;
use std::time::Duration;

use althing_proto::jid::BareJid;
use althing_proto::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::Config;
use super::section::{Described, Kind, section, words};
use super::validate::{Finding, finding};
use crate::storage::messages::{ArchiveDefault, InboxQuota, SweepRules};

words! {
    /// What is archived for users who have not said what they want.
    ArchiveWhat {
        /// Everything.
        Always = "always",
        /// Nothing.
        Never = "never",
        /// What has to do with contacts of the roster.
        Roster = "roster",
    }
}

impl From<ArchiveWhat> for ArchiveDefault {
    fn from(what: ArchiveWhat) -> Self {
        match what {
            ArchiveWhat::Always => ArchiveDefault::Always,
            ArchiveWhat::Never => ArchiveDefault::Never,
            ArchiveWhat::Roster => ArchiveDefault::Roster,
        }
    }
}

words! {
    /// What the server has done with a message of which it says that it has it.
    Durability {
        /// It is in the store.
        Commit = "commit",
        /// It is on its way.
        Memory = "memory",
    }
}

section! {
    /// Messages on their way.
    Messages = "messages" {
        /// What an acknowledgement (XEP-0198) of a message to somebody who is there means. `commit`: it is in the store,
        /// of a majority of the nodes in a cluster, until it has arrived. `memory`: it is on its way; with the nodes of its
        /// sender or receiver it may be lost. Messages that wait for who is not there are in the store either way.
        durability: Durability = Durability::Commit;
        /// Domains of `xmpp.domains` for which it is another, each in a table `[[messages.hosts]]` with the keys `domain` and
        /// `durability`. What counts is where the accounts are that a message is kept for: that of its receiver says
        /// whether it is in the store until it has arrived; an acknowledgement waits as soon as one of the two, its sender
        /// (whose archive has it) or its receiver, is of a domain with `commit`. Keep the list the same on all nodes.
        hosts: Vec<HostMessages> = Vec::new();
    }
}

/// What is another for a domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostMessages {
    /// One of `xmpp.domains`.
    pub domain: String,
    /// As `messages.durability`.
    pub durability: Durability,
}

impl Described for Vec<HostMessages> {
    const KIND: Kind = Kind::Tables("`domain` and `durability`");
}

impl Messages {
    /// What the acknowledgement of a message means that is kept for `account`.
    #[must_use]
    pub fn durability_for(&self, account: &BareJid) -> Durability {
        self.durability_of(account.domain().as_str())
    }

    /// The same for all accounts of a domain.
    #[must_use]
    pub fn durability_of(&self, domain: &str) -> Durability {
        let host = self.hosts.iter().find(|host| host.domain == domain);
        host.map_or(self.durability, |host| host.durability)
    }

    /// Whether an acknowledgement means on one of `domains` at least that a message is in the store.
    #[must_use]
    pub fn commits_somewhere(&self, domains: &[String]) -> bool {
        domains.iter().any(|domain| self.durability_of(domain) == Durability::Commit)
    }
}

impl Config {
    pub(super) fn check_hosts(&self, found: &mut Vec<Finding>) {
        const KEY: &str = "messages.hosts";
        let mut seen = BTreeSet::new();
        for HostMessages { domain, .. } in &self.messages.hosts {
            let (what, allowed) = if !self.xmpp.domains.contains(domain) {
                ("is not in xmpp.domains", self.xmpp.domains.join(", "))
            } else if !seen.insert(domain) {
                ("stands there twice", "each domain once".to_owned())
            } else {
                continue;
            };
            found.push(finding(KEY, format!("\"{domain}\" {what}"), allowed));
        }
    }
}

section! {
    /// Archives of messages (XEP-0313).
    Archive = "archive" {
        /// Whether messages are archived for their senders and receivers.
        enabled: bool = true;
        /// What is archived for users who have not said what they want (XEP-0441): `always`, `never`, or `roster`:
        /// messages with their contacts.
        default: ArchiveWhat = ArchiveWhat::Always;
        /// Days after which a message is deleted; 0: never.
        retention_days: u32 = 365, in 0..=36500;
        /// Bytes of one user's archived messages; the oldest ones above it are deleted. 0: no bound.
        max_bytes_per_user: u64 = 1_073_741_824, in 0..=1000000000000;
    }
}

section! {
    /// Notifications for users whose devices have no connection (XEP-0357), at services that their clients name.
    Push = "push" {
        /// Whether clients may name services. They are components of this server: there is no way to others yet.
        enabled: bool = true;
        /// Services that an account may name, each with each of its nodes counted once.
        registrations: usize = 10, in 1..=100;
        /// Whether a notification says whom the last message is from. It passes through third parties.
        sender: bool = false;
        /// Whether a notification has the text of the last message. It passes through third parties.
        body: bool = false;
    }
}

section! {
    /// Messages that wait for users who are not there (XEP-0160), or until it is certain that they have arrived.
    Offline = "offline" {
        /// Whether messages wait for users who are not there. If not, their senders get an error.
        enabled: bool = true;
        /// Messages that may wait for one user; for further ones the sender gets `resource-constraint`.
        messages: u32 = 1_000, in 1..=100000;
        /// Bytes of messages that may wait for one user.
        bytes: u64 = 16_777_216, in 65536..=1073741824;
        /// Days after which a message that nobody fetched is deleted.
        expiry_days: u32 = 30, in 1..=3650;
        /// Whether clients may fetch what waits in batches, in the namespace `http://jabber.org/protocol/offmsg`, as clients of
        /// old do. XEP-0013 and XEP-0313 are there either way.
        batches: bool = false;
        /// Whether a message waits for each device of its receiver, and not only for the first that comes. What waits for a device
        /// that does not come counts as waiting for the user too, until the device is forgotten.
        per_device: bool = false;
        /// Days after which a device that was not seen is forgotten, where messages wait for each.
        device_days: u32 = 30, in 1..=3650;
    }
}

section! {
    /// Receipts that clients give the server for each message (`urn:althing:receipts:0`), beside XEP-0198 and XEP-0184.
    Receipts = "receipts" {
        /// Whether clients may ask for it. It takes `offline.enabled` and a domain with `messages.durability = "commit"`: on
        /// others it is refused.
        enabled: bool = false;
        /// Seconds after which the session of a client ends that has given no receipt; what has none waits for the next.
        validity_s: u64 = 10, in 1..=3600;
        /// Seconds after which a message without a receipt is sent again.
        repeat_s: u64 = 3, in 1..=3600;
        /// Whether messages and IQs of type `crs`, as clients of old send them, are receipts. RFC 6120 does not know the type.
        legacy_crs: bool = false;
    }
}

impl Receipts {
    /// How old a message without a receipt may be.
    #[must_use]
    pub fn validity(&self) -> Duration {
        Duration::from_secs(self.validity_s)
    }

    /// After how long it is sent again.
    #[must_use]
    pub fn repeat(&self) -> Duration {
        Duration::from_secs(self.repeat_s)
    }
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// That many days before `now`.
fn days_before(now: Timestamp, days: u32) -> Timestamp {
    let span = u64::try_from((DAY * days).as_millis()).unwrap_or(u64::MAX);
    Timestamp::from_millis(now.as_millis().saturating_sub(span))
}

impl Archive {
    /// What has been kept for long enough at `now`.
    #[must_use]
    pub fn sweep_rules(&self, now: Timestamp) -> SweepRules {
        SweepRules {
            now,
            archive_before: (self.retention_days > 0).then(|| days_before(now, self.retention_days)),
            archive_bytes: (self.max_bytes_per_user > 0).then_some(self.max_bytes_per_user),
        }
    }
}

impl Offline {
    /// What may wait for one user.
    #[must_use]
    pub fn quota(&self) -> InboxQuota {
        InboxQuota { messages: self.messages, bytes: self.bytes }
    }

    /// Until when a message waits that came at `now`.
    #[must_use]
    pub fn expires(&self, now: Timestamp) -> Timestamp {
        now.after(DAY * self.expiry_days)
    }

    /// Devices that were not seen since are forgotten at `now`.
    #[must_use]
    pub fn forget(&self, now: Timestamp) -> Timestamp {
        days_before(now, self.device_days)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("althing.toml");
        let domains =
            "[xmpp]\ndomains = [\"a.example\", \"b.example\"]\n[tls]\ncertificate = \"c\"\nkey = \"k\"\n";
        std::fs::write(&file, format!("{domains}[messages]\n{text}")).unwrap();
        Config::load_with(&file, []).map_err(|error| error.to_string())
    }

    #[test]
    fn a_host_has_a_durability_of_its_own() {
        let own = |config: &Config, account| config.messages.durability_for(&BareJid::new(account).unwrap());
        let quick = "[[messages.hosts]]\ndomain = \"b.example\"\ndurability = \"memory\"\n";
        for (text, [a, b], commits) in [
            ("", [Durability::Commit; 2], true),
            ("durability = \"memory\"\n", [Durability::Memory; 2], false),
            (quick, [Durability::Commit, Durability::Memory], true),
            (&format!("durability = \"memory\"\n{quick}"), [Durability::Memory; 2], false),
            (
                &format!("durability = \"memory\"\n{}", quick.replace("\"memory\"", "\"commit\"")),
                [Durability::Memory, Durability::Commit],
                true,
            ),
        ] {
            let config = load(text).unwrap();
            assert_eq!([own(&config, "x@a.example"), own(&config, "x@b.example")], [a, b], "{text}");
            assert_eq!(config.messages.commits_somewhere(&config.xmpp.domains), commits, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_host_is_told() {
        let host =
            |domain: &str| format!("[[messages.hosts]]\ndomain = \"{domain}\"\ndurability = \"memory\"\n");
        let told = |text: &str| load(text).unwrap_err();
        let foreign = told(&host("c.example"));
        assert!(foreign.contains("messages.hosts: \"c.example\" is not in xmpp.domains"), "{foreign}");
        assert!(foreign.contains("allowed: a.example, b.example"), "{foreign}");
        assert!(told(&host("b.example").repeat(2)).contains("\"b.example\" stands there twice"));
        let word = told(&host("b.example").replace("\"memory\"", "\"disk\""));
        assert!(word.contains("messages.hosts") && word.contains("disk"), "{word}");
        assert!(told("[[messages.hosts]]\ndomain = \"b.example\"\n").contains("durability"));
    }
}
