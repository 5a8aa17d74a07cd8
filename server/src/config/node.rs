//! Sections `[node]`, `[xmpp]`, `[storage]`, `[log]` and `[runtime]`: the node itself.

use std::path::PathBuf;

use super::section::{section, words};

section! {
    /// Who this node is and where its data lies.
    Node = "node" {
        /// Stable name of the node; in Kubernetes the name of the pod.
        name: String = "node-0".to_owned();
        /// Directory of everything the node keeps. It is made when it is not there.
        data_dir: PathBuf = PathBuf::from("/var/lib/althing");
    }
}

section! {
    /// The XMPP service.
    Xmpp = "xmpp" {
        /// Domains that this server is responsible for. A stream without `to` is taken to mean the first.
        domains: Vec<String> = vec!["localhost".to_owned()];
        /// Accounts that may run the commands of XEP-0133 and read statistics: bare addresses, such as
        /// `alice@example.org`, of `domains`. `althing user add` makes them: nobody registers one in band.
        admins: Vec<String> = Vec::new();
    }
}

words! {
    /// Places where durable data can be kept.
    Backend {
        /// Files below `node.data_dir`.
        Embedded = "embedded",
        /// Nowhere: all accounts and rosters are gone when the node stops. For tests.
        Memory = "memory",
    }
}

section! {
    /// Where accounts, rosters and private data are kept.
    Storage = "storage" {
        /// `embedded`: files below `node.data_dir`. `memory`: nowhere, all is gone when the node stops.
        backend: Backend = Backend::Embedded;
        /// Mebibytes of memory that the embedded store may use to keep pages at hand.
        cache_mib: u64 = 128, in 8..=1048576;
        /// Mebibytes of the disk that are to stay free. With less, nothing new is kept: messages that would have to be,
        /// and changes, are refused with `resource-constraint`, and taken again when there is a quarter more. 0: the disk
        /// may be filled up, after which the node needs a restart. In a cluster the other nodes keep what is new as long as most
        /// have room; at half of it the store stands still on the node, at an eighth it serves nobody, until there is room.
        reserve_mib: u64 = 256, in 0..=1048576;
    }
}

impl Storage {
    /// `cache_mib` in bytes.
    #[must_use]
    pub fn cache_bytes(&self) -> u64 {
        self.cache_mib.saturating_mul(1024 * 1024)
    }

    /// `reserve_mib` in bytes.
    #[must_use]
    pub fn reserve_bytes(&self) -> u64 {
        self.reserve_mib.saturating_mul(1024 * 1024)
    }
}

words! {
    /// Forms of log lines.
    LogFormat {
        /// For people.
        Human = "human",
        /// One JSON object a line, for log collectors.
        Json = "json",
    }
}

section! {
    /// The log, written to standard error.
    Log = "log" {
        /// What is logged: a level (`error`, `warn`, `info`, `debug`, `trace`), then exceptions by module,
        /// separated by commas: `info,althing_server::router=debug`.
        filter: String = "info,actix_server=warn".to_owned();
        /// `human`: lines for people. `json`: one object a line, fields as in log-fields.md.
        format: LogFormat = LogFormat::Human;
    }
}

section! {
    /// Threads.
    Runtime = "runtime" {
        /// Threads that run sessions; 0 means one a processor core.
        workers: usize = 0, in 0..=1024;
    }
}
