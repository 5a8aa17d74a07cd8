//! Logs: to standard error, for people or as JSON, with the fields of `deploy/reference/log-fields.md`.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{Log, LogFormat};

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `log.filter` cannot be read.
    #[error("log.filter is no filter: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// This process logs already; it can be set up once.
    #[error("logging is set up already")]
    AlreadySet(#[from] tracing_subscriber::util::TryInitError),
}

/// Starts logging for this process. Called by the command line, never by a node: nodes that share a
/// process share its log.
///
/// # Errors
///
/// A filter that cannot be read; a second call.
pub fn init(log: &Log) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(&log.filter)?;
    let base = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match log.format {
        LogFormat::Human => base.with_ansi(std::io::stderr().is_terminal()).finish().try_init()?,
        LogFormat::Json => {
            base.json()
                .flatten_event(true)
                .with_current_span(true)
                .with_span_list(false)
                .finish()
                .try_init()?;
        }
    }
    Ok(())
}

/// Fields of log events and spans: name, kind, meaning. One word means one thing in the whole log.
pub const FIELDS: &[(&str, &str, &str)] = &[
    ("address", "address:port", "A socket address, of a listener or of a peer."),
    ("bytes", "number", "Bytes written or read."),
    ("condition", "text", "Element name of a stream, stanza or SASL error condition."),
    ("domain", "text", "A domain of this server."),
    ("dropped", "text", "Why a stanza was dropped, in a word or two."),
    ("error", "text", "What went wrong, as a chain of causes."),
    ("from", "JID", "Sender of the stanza."),
    ("id", "text", "The stanza's id, as the sender chose it."),
    ("jid", "JID", "The session's full JID, or the account's bare JID."),
    ("kind", "text", "message, presence or iq."),
    ("listener", "text", "c2s or c2s_tls."),
    ("mechanism", "text", "SASL mechanism."),
    ("module", "text", "Module that handled or refused the stanza."),
    ("node", "text", "node.name."),
    ("pass", "text", "outbound (the sender's) or inbound (the receiver's)."),
    ("path", "path", "A file or directory."),
    ("peer", "address:port", "The client's address."),
    ("reason", "text", "Why something ended or was refused."),
    ("stop", "text", "Stop of the way of one stanza, as in ARCHITECTURE.md."),
    ("to", "JID", "Receiver of the stanza."),
    ("version", "text", "Version of this binary or of a format."),
];

/// The text of `deploy/reference/log-fields.md`.
#[must_use]
pub fn markdown() -> String {
    let mut out = "# Log fields\n\n\
         Made by `althing reference log-fields`; do not edit.\n\n\
         With `log.format = \"json\"` each line is one object with `timestamp`, `level`, `target`, `message`, the fields\n\
         of the event, and `span` with those of the innermost span. A message is in lower case and constant; what varies\n\
         stands in fields.\n\n\
         | field | kind | meaning |\n|---|---|---|\n"
        .to_owned();
    for (name, kind, meaning) in FIELDS {
        out.push_str(&format!("| `{name}` | {kind} | {meaning} |\n"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reference_page_is_up_to_date() {
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/reference/log-fields.md");
        assert_eq!(std::fs::read_to_string(file).unwrap(), markdown(), "run `make fix`");
    }

    #[test]
    fn fields_are_sorted_and_unique() {
        assert!(FIELDS.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn a_bad_filter_is_refused_before_anything_is_set() {
        let log = Log { filter: "a=b=c".to_owned(), ..Log::default() };
        assert!(matches!(init(&log), Err(TelemetryError::Filter(_))));
    }
}
