//! Logs: to standard error, for people or as JSON, with the fields of `deploy/reference/log-fields.md`.

use std::io::IsTerminal;
use std::sync::Arc;

use althing_cluster::raft::QUIET_LOG;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{Log, LogFormat};

/// The filter of this process' log, which can be replaced by another.
#[derive(Clone)]
pub struct LogFilter(Arc<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>);

impl LogFilter {
    /// The filter of `log`, with the rules of the house before it.
    ///
    /// # Errors
    /// `log.filter` cannot be read.
    pub fn parse(log: &Log) -> Result<EnvFilter, TelemetryError> {
        // First, so that the operator's filter has the last word.
        Ok(EnvFilter::try_new(format!("{QUIET_LOG},{}", log.filter))?)
    }

    /// From now on this one.
    pub fn set(&self, filter: EnvFilter) {
        // It fails where the log has gone, and then there is none to filter.
        let _ = (self.0)(filter);
    }
}

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
pub fn init(log: &Log) -> Result<LogFilter, TelemetryError> {
    let filter = LogFilter::parse(log)?;
    let base = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    Ok(match log.format {
        LogFormat::Human => {
            let base = base.with_ansi(std::io::stderr().is_terminal()).with_filter_reloading();
            let handle = base.reload_handle();
            base.finish().try_init()?;
            LogFilter(Arc::new(move |filter| handle.reload(filter)))
        }
        LogFormat::Json => {
            let base = base.json().flatten_event(true).with_current_span(true).with_span_list(false);
            let base = base.with_filter_reloading();
            let handle = base.reload_handle();
            base.finish().try_init()?;
            LogFilter(Arc::new(move |filter| handle.reload(filter)))
        }
    })
}

/// Fields of log events and spans: name, kind, meaning. One word means one thing in the whole log.
pub const FIELDS: &[(&str, &str, &str)] = &[
    ("answer", "text", "How an HTTP request was answered, as in althing_web_requests_total."),
    ("applied", "number", "Index in the log of routes."),
    ("bytes", "number", "Bytes of the stanza that is written."),
    ("change", "text", "Change of the members of a group."),
    ("changed", "list", "Keys of the configuration that have another value now."),
    ("cluster", "text", "Id of the cluster."),
    ("command", "text", "Node of the ad-hoc command that somebody runs."),
    ("condition", "text", "Element name of a stream, stanza or SASL error condition."),
    ("deleted", "number", "Messages of archives that were kept for long enough."),
    ("direction", "text", "in (from the client or component) or out (to it)."),
    ("domains", "list", "xmpp.domains."),
    ("error", "text", "What went wrong, as a chain of causes."),
    ("expired", "number", "Messages that waited too long for their receivers."),
    ("from", "JID", "Sender of the stanza."),
    ("group", "text", "Raft group: routes or store."),
    ("id", "text", "The stanza's id, as the sender chose it."),
    ("incarnation", "number", "Which start of this node: it grows when a lease was lost, too."),
    ("jid", "JID", "The full JID of the session or component at work, or the bare JID of the account."),
    ("kind", "text", "message, presence or iq."),
    ("lane", "text", "What a connection between nodes is for: routes, store, snapshot, tasks or discovery."),
    ("left", "number", "Effects that were not performed any more."),
    ("listener", "text", "c2s, c2s_tls, component or component_tls."),
    ("mechanism", "text", "SASL mechanism."),
    ("member", "text", "Id of another node of the cluster."),
    ("messages", "number", "Messages that have arrived and are to be deleted."),
    ("module", "text", "Module that handled or refused the stanza."),
    ("node", "text", "node.name."),
    ("others", "number", "Sessions that the account has already."),
    (
        "pass",
        "text",
        "For whom the stanza passes: outbound (its sender), server, account, or inbound (its receiver).",
    ),
    ("peer", "IP address", "The address of the client or component."),
    ("reason", "text", "Why something ended, or was refused or dropped."),
    ("receivers", "number", "Accounts that a broadcast goes to."),
    ("restart", "list", "Keys of the configuration whose new value takes a restart."),
    ("rule", "text", "What RFC 6121 §8.5 asks for, as a row of server/src/router/rules.rs."),
    ("sessions", "number", "Sessions of this node."),
    ("stop", "text", "Stop of the way of one stanza: see below."),
    ("task", "text", "Kind of task, as in cluster/src/task.rs."),
    ("to", "JID", "Receiver of the stanza."),
    ("tries", "number", "How often a stanza for another node was not delivered."),
    ("until", "time", "The last moment at which the certificate is valid."),
    ("via", "text", "Name of the node over which this one joins."),
    ("voters", "number", "Members that vote."),
];

/// Stops of the way of one stanza, in the order of the way: name, what happens there.
pub const STOPS: &[(&str, &str)] = &[
    ("stream.connection", "The stanza was read from the client's socket, or is about to be written to it."),
    ("stream.component", "The stanza was read from a component's socket, or was written to it."),
    ("session.actor", "The session of the sender (outbound) or of a receiver (inbound) takes it."),
    ("pipeline", "It enters the stages for the sender, the server, an account or a receiver."),
    ("pipeline.preprocess", "A module blocked it before anything else looked at it."),
    ("pipeline.process", "A module that wants this kind of stanza handled it."),
    ("pipeline.postprocess", "A module handled what nobody else did."),
    ("pipeline.filter", "A module stopped a stanza that resulted."),
    ("router", "Its receiver is looked for."),
    ("router.rules", "It is for an account, or a resource that is absent: the table says what to do."),
    ("router.component", "It is for a component: to the connection that has the sender's lane."),
    ("router.remote", "It is for another server."),
    ("delivery.fan_out", "A presence goes to the available sessions of many accounts."),
    ("delivery.probes", "A session that has become available asks for the presence of many accounts."),
    ("delivery.local", "It is put into the mailbox of a session of this node."),
    ("delivery.remote", "It is sent to the node of a session, or was not delivered there."),
    ("task_executor", "Another node has sent a task: for a stanza its way goes on here."),
    ("delivery.keep", "Nobody is there: it is kept until somebody is."),
    ("delivery.bounce", "Nobody can take it: it goes back as an error, where one may be sent."),
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
    out.push_str(
        "\n## The way of one stanza\n\n\
         At level `debug` each stop of a stanza's way is an event with `stop`; the span round it has `kind`, `id` and\n\
         `jid`. The first stop has no span yet and carries these fields itself. A search for the stanza's `id` finds its way.\n\n\
         | stop | what happens there |\n|---|---|\n",
    );
    for (name, meaning) in STOPS {
        out.push_str(&format!("| `{name}` | {meaning} |\n"));
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
