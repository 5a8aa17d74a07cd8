//! `althing reference`: pages made from the code, so that they cannot fall behind it.

use std::fmt::Write as _;

use clap::ValueEnum;

use crate::config::reference;
use crate::modules::REGISTRY;
use crate::{metrics, queues, telemetry};

/// A page.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Reference {
    /// Configuration keys, as Markdown
    Config,
    /// A configuration file with every key, as TOML
    Single,
    /// A configuration file of a cluster's node, as TOML
    Cluster,
    /// Metrics, as Markdown
    Metrics,
    /// Log fields, as Markdown
    LogFields,
    /// RFCs and XEPs, as the table of the README
    Xeps,
    /// Queues with bounds and policies, as the tables of ARCHITECTURE.md
    Queues,
}

impl Reference {
    /// The page's text.
    pub(super) fn text(self) -> String {
        match self {
            Reference::Config => reference::markdown(),
            Reference::Single => reference::example(),
            Reference::Cluster => reference::cluster_example(),
            Reference::Metrics => metrics::markdown(),
            Reference::LogFields => telemetry::markdown(),
            Reference::Xeps => specifications(),
            Reference::Queues => queues::markdown(),
        }
    }
}

/// What no module implements, since it is needed before a stanza reaches one: specification, title, place.
const CORE: &[(&str, &str, &str)] = &[
    ("RFC 4616", "SASL PLAIN, over TLS only", "proto/src/sasl/plain.rs"),
    ("RFC 5802", "SCRAM-SHA-1, with and without -PLUS", "proto/src/sasl/server.rs"),
    ("RFC 5929 §4", "Channel binding tls-server-end-point", "server/src/listener/tls.rs"),
    ("RFC 6120", "XMPP: Core", "proto/src/stream/machine.rs"),
    ("RFC 6121 §8", "Delivery of stanzas", "server/src/router/rules.rs"),
    ("RFC 7395", "Streams over WebSocket", "proto/src/stream/websocket.rs"),
    ("RFC 7622", "Addresses, prepared by stringprep and IDNA2008, not by PRECIS", "proto/src/jid.rs"),
    (
        "RFC 7677",
        "SCRAM-SHA-256; SCRAM-SHA-512 in the same way, both with and without -PLUS",
        "proto/src/sasl/mechanism.rs",
    ),
    ("RFC 9266", "Channel binding tls-exporter, under TLS 1.3", "server/src/listener/tls.rs"),
    ("XEP-0004", "Data Forms, with XEP-0068 for their FORM_TYPE", "proto/src/form/mod.rs"),
    ("XEP-0082", "XMPP Date and Time Profiles", "proto/src/time.rs"),
    (
        "XEP-0156",
        "host-meta, which tells browsers where the WebSocket is",
        "server/src/listener/web/host_meta.rs",
    ),
    (
        "XEP-0114",
        "Jabber Component Protocol: external components that connect to the server",
        "server/src/stream/component.rs",
    ),
    (
        "XEP-0106",
        "JID Escaping: in registration and search; else a client's affair",
        "proto/src/jid/escaping.rs",
    ),
    ("XEP-0126", "Invisibility, by privacy lists", "server/src/session/core/privacy.rs"),
    ("XEP-0128", "Service Discovery Extensions, of the server", "proto/src/disco.rs"),
    ("XEP-0172", "User Nickname: passes untouched", "tests/wire/stanza_id.wire"),
    (
        "XEP-0203",
        "Delayed Delivery, by the server alone for its own domain",
        "server/src/session/actor/drain.rs",
    ),
    ("XEP-0334", "Message Processing Hints", "server/src/delivery/keeping.rs"),
    ("XEP-0368", "Direct TLS for clients; the SRV records are the operator's", "server/src/listener/tls.rs"),
    ("XEP-0440", "SASL Channel-Binding Type Capability", "proto/src/stream/features.rs"),
    ("XEP-0478", "Stream Limits Advertisement, for clients", "proto/src/stream/features.rs"),
];

/// The table between the marks in README.md: what modules say of themselves, and [`CORE`].
fn specifications() -> String {
    let modules = REGISTRY.iter().map(|module| {
        let spec = module.spec();
        (spec.document, spec.version, spec.title, format!("server/src/modules/{}", spec.name))
    });
    let core = CORE.iter().map(|(document, title, place)| (*document, "", *title, (*place).to_owned()));
    let mut rows: Vec<_> = modules.chain(core).collect();
    rows.sort();
    let mut out = "| specification | version | what | code |\n|---|---|---|---|\n".to_owned();
    for (document, version, title, place) in rows {
        let _ = writeln!(out, "| {document} | {version} | {title} | `{place}` |");
    }
    out
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const BEGIN: &str = "<!-- Made by `althing reference xeps`; `make fix` writes it anew. -->\n";
    const END: &str = "<!-- End of what `althing reference xeps` made. -->";

    fn root() -> &'static Path {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
    }

    #[test]
    fn the_table_of_the_readme_is_up_to_date() {
        let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
        let (_, rest) = readme.split_once(BEGIN).expect("the mark before the table");
        let (table, _) = rest.split_once(END).expect("the mark after the table");
        assert_eq!(table, specifications(), "run `make fix`");
    }

    #[test]
    fn every_place_in_the_table_exists() {
        let table = specifications();
        let places: Vec<&str> = table.split('`').skip(1).step_by(2).collect();
        assert_eq!(places.len(), REGISTRY.len() + CORE.len());
        for place in places {
            let found =
                [place.to_owned(), format!("{place}.rs")].iter().any(|path| root().join(path).exists());
            assert!(found, "{place}");
        }
    }
}
