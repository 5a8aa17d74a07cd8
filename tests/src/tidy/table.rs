//! The tables of the tidy test. The words are split by `concat!` so that this file does not break its own rules.

/// Files of Rust are no longer than this; each has one reason to change.
pub const MAX_LINES: usize = 500;

/// Files that may be longer, each with the reason and the date of the exception.
pub const LONG_FILES: &[(&str, &str)] = &[];

/// The entries of the root that ARCHITECTURE.md may name: only paths below these are checked.
pub const TOP_LEVEL: &[&str] = &["proto/", "cluster/", "server/", "tests/", "deploy/", "k8s/"];

/// A word that may stand only in some places.
#[derive(Debug, Clone, Copy)]
pub struct WordRule {
    /// The word, as a whole: `sled` is not in `sledge`.
    pub word: &'static str,
    /// Path prefixes where the rule holds.
    pub within: &'static [&'static str],
    /// Path prefixes that are exempt from it.
    pub except: &'static [&'static str],
    /// Whether comments count too.
    pub comments: bool,
    /// Why; shown with each finding.
    pub reason: &'static str,
}

/// Everything that is Rust of ours.
const ALL: &[&str] = &["proto/", "cluster/", "server/", "tests/"];
const PROTO: &[&str] = &["proto/src/"];
const CLUSTER: &[&str] = &["cluster/src/"];
const CODE: &[&str] = &["proto/src/", "cluster/src/", "server/src/"];

/// The words. One line (or two) a rule.
pub const WORDS: &[WordRule] = &[
    word("tokio", PROTO, &[], "proto is pure: no I/O"),
    word("actix", PROTO, &[], "proto is pure: no actors"),
    word("sled", PROTO, &[], "proto is pure: no store"),
    word("openraft", PROTO, &[], "proto is pure: no Raft"),
    word(concat!("Instant::", "now"), PROTO, &[], "time is an input of proto"),
    word(concat!("SystemTime::", "now"), PROTO, &[], "time is an input of proto"),
    word("std::net", PROTO, &[], "proto does no I/O"),
    word("std::fs", PROTO, &[], "proto does no I/O"),
    word("std::thread", PROTO, &[], "proto starts no thread"),
    word("jabber:", CLUSTER, &[], "cluster knows no XEP"),
    word("xmpp:", CLUSTER, &[], "cluster knows no XEP"),
    word("minidom", CLUSTER, &[], "cluster carries stanzas as bytes"),
    word("actix", CODE, ACTIX_PLACES, "actors are thin shells: what decides does not know them"),
    word("tokio::net", CODE, NET_PLACES, "only listeners, streams, the HTTP door and links hold sockets"),
    word("sled", CODE, SLED_PLACES, "only the store knows its engine"),
    word("openraft", CODE, &["cluster/src/raft/"], "Raft stays behind our own thin wrapper"),
    word("faults::", CODE, FAULT_PLACES, "mistakes on purpose stand in few places, each one line"),
    word("do_send", CODE, &[], "it ignores the mailbox's bound: use try_send and a written policy"),
    word(concat!("#[", "ignore"), ALL, &[], "a test that does not run proves nothing"),
    word(concat!("todo", "!("), ALL, &[], "a stub is no code"),
    word(concat!("unimplemented", "!("), ALL, &[], "a stub is no code"),
    word(concat!("FIX", "ME"), ALL, &[], "an issue is the place for what is to be done").with_comments(),
    word(concat!("X", "XX"), ALL, &[], "an issue is the place for what is to be done").with_comments(),
];

/// Shells of actors, and what builds or ends them.
const ACTIX_PLACES: &[&str] = &[
    "server/src/session/actor",
    "server/src/session/messages.rs",
    "server/src/session/registry.rs",
    "server/src/admin/",
    "server/src/cli/",
    "server/src/listener/websocket.rs",
    "server/src/node.rs",
    "server/src/main.rs",
];
const NET_PLACES: &[&str] = &[
    "server/src/listener/",
    "server/src/stream/",
    "server/src/admin/",
    "server/src/cli/",
    "cluster/src/link/",
];
const FAULT_PLACES: &[&str] =
    &["server/src/delivery/kept.rs", "server/src/session/actor/drain.rs", "server/src/session/inbound.rs"];
const SLED_PLACES: &[&str] =
    &["server/src/storage/sled/", "server/src/storage/embedded/", "cluster/src/raft/log_store"];

/// What looks like a queue and is none that others can fill: file, word of its line, reason.
pub const NOT_QUEUES: &[(&str, &str, &str)] = &[
    ("server/src/node.rs", "hashing", "permits for cores: a login waits for one, and logins are bounded"),
    ("server/src/backup/making.rs", "questions", "whoever makes a backup asks for one part after the other"),
    ("server/src/cli/dev/child.rs", "last_lines", "the last lines of the log of a child of `althing dev`"),
];

/// Beginnings of paths that exist on one machine only. They may stand in no file at all.
pub const MACHINE_PATHS: &[&str] =
    &[concat!("/wo", "rk/"), concat!("/fa", "rm/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];

const fn word(
    word: &'static str,
    within: &'static [&'static str],
    except: &'static [&'static str],
    reason: &'static str,
) -> WordRule {
    WordRule { word, within, except, comments: false, reason }
}

impl WordRule {
    const fn with_comments(mut self) -> WordRule {
        self.comments = true;
        self
    }
}
