//! Every metric of a node, in one table: the source of its registration and of the reference page.

use crate::modules::{REGISTRY, Spec};

use super::labels::{
    Attachment, BindRefused, Delivery, Direction, Dropped, Handshake, Keep, Listener, Login, Name,
    OwnRequest, Pushed, Registration, Rejection, Reload, Report, Resumed, StoreOp, WebAnswer,
};

/// What kind of metric it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MetricKind {
    /// Only grows while the process lives.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts values in buckets; the upper bounds.
    Histogram(&'static [f64]),
}

/// One row.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// The full name.
    pub name: &'static str,
    /// Its kind.
    pub kind: MetricKind,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
}

/// Upper bounds in seconds for what is done in memory: 0.25 ms to 10 s.
const HANDLING: &[f64] =
    &[0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Upper bounds in seconds for what may wait for a disk: 0.05 ms to 4 s.
const DISK: &[f64] =
    &[0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.25, 1.0, 4.0];
/// Upper bounds in seconds for what computes, as a rule well below the first: 1 us to 10 ms.
const COMPUTING: &[f64] = &[0.000_001, 0.000_01, 0.000_1, 0.001, 0.01];
/// Upper bounds in seconds for what a module waits for: 1 ms to 16 s.
const WAITING: &[f64] = &[0.001, 0.004, 0.016, 0.064, 0.25, 1.0, 4.0, 16.0];

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: MetricKind::Counter, labels, help }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: MetricKind::Gauge, labels, help }
}

const fn histogram(
    name: &'static str,
    buckets: &'static [f64],
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric { name, kind: MetricKind::Histogram(buckets), labels, help }
}

/// All metrics of a node. None has an address, a domain of another server or an id as a label: their
/// number must not grow with the users.
pub const METRICS: &[Metric] = &[
    gauge("althing_build_info", &["version"], "Always 1; the label is the version of this binary."),
    gauge("althing_node_info", &["node"], "Always 1; the label is node.name."),
    gauge(
        "althing_config_hash",
        &[],
        "A number for the configuration in force, without what only a restart changes: the same on nodes that agree.",
    ),
    counter("althing_config_reloads_total", &["result"], "How often the configuration was read again."),
    gauge(
        "althing_config_last_reload_successful",
        &[],
        "0 after a reload that was refused: the file is not what is in force.",
    ),
    gauge("althing_sessions", &[], "Bound sessions on this node."),
    gauge("althing_connections", &["listener"], "Open connections of clients and components."),
    counter("althing_connections_accepted_total", &["listener"], "Connections accepted, by listener."),
    counter(
        "althing_connections_rejected_total",
        &["reason"],
        "Connections closed at once, by the bound that was reached.",
    ),
    counter(
        "althing_web_requests_total",
        &["answer"],
        "Requests at `listen.web` and `listen.web_tls`, by how they were answered.",
    ),
    counter("althing_tls_handshakes_total", &["result"], "TLS handshakes, by version when they succeeded."),
    histogram("althing_tls_handshake_duration_seconds", HANDLING, &[], "Time of successful TLS handshakes."),
    gauge(
        "althing_tls_certificate_expiry_timestamp_seconds",
        &[],
        "When the served certificate expires, in seconds since 1970.",
    ),
    counter("althing_logins_total", &["mechanism", "result"], "SASL logins that ended."),
    histogram(
        "althing_session_setup_duration_seconds",
        HANDLING,
        &[],
        "Time from the accepted connection to the bound resource.",
    ),
    counter("althing_registrations_total", &["result"], "Attempts to make an account in band (XEP-0077)."),
    counter("althing_push_total", &["outcome"], "Push notifications (XEP-0357), and what became of them."),
    counter("althing_reports_total", &["report"], "Reports of abuse by users (XEP-0377)."),
    counter(
        "althing_stanzas_total",
        &["direction", "kind"],
        "Stanzas read from clients (in) and written to them (out).",
    ),
    counter("althing_delivery_total", &["outcome"], "What became of routed stanzas that were not dropped."),
    counter("althing_stanzas_dropped_total", &["reason"], "Stanzas dropped, and why."),
    counter(
        "althing_stanza_errors_total",
        &["condition"],
        "Stanza errors made by this server, but for those to a resource binding.",
    ),
    counter(
        "althing_stream_errors_total",
        &["condition"],
        "Stream errors that this server ended streams with.",
    ),
    counter(
        "althing_own_requests_total",
        &["outcome"],
        "Requests (IQ) that the server itself has sent, by how they ended.",
    ),
    counter("althing_mailbox_full_total", &[], "Stanzas that met a full mailbox of a session."),
    counter(
        "althing_slow_consumers_total",
        &[],
        "Clients closed because they read too slowly: limits.outbox_bytes or limits.outbox_stall_s was reached.",
    ),
    counter(
        "althing_presence_superseded_total",
        &[],
        "Presences that waited for a client and were not sent, because a later one of the same sender had come.",
    ),
    gauge(
        "althing_presence_waiting",
        &[],
        "Presences that let messages go first, because more than 32 KiB wait for their client.",
    ),
    gauge(
        "althing_sessions_detached",
        &[],
        "Sessions without a connection, which wait for their clients to resume their streams (XEP-0198).",
    ),
    counter("althing_streams_resumed_total", &["result"], "Attempts to resume a stream (XEP-0198)."),
    gauge(
        "althing_stanzas_unacknowledged",
        &[],
        "Stanzas that clients were sent and have not acknowledged (XEP-0198).",
    ),
    gauge(
        "althing_binds_waiting",
        &[],
        "Clients that have logged in and wait until fewer resources are being bound.",
    ),
    counter("althing_binds_refused_total", &["reason"], "Resources that were not bound, and why."),
    gauge(
        "althing_turns_waiting",
        &[],
        "Connections, steps of logins, first presences and ends that wait for a turn of their arbiter.",
    ),
    histogram("althing_turn_wait_seconds", WAITING, &[], "How long they have waited for it."),
    gauge("althing_components", &[], "Components that are attached to this node."),
    counter(
        "althing_component_handshakes_total",
        &["result"],
        "Streams of external components, by how their handshake ended.",
    ),
    counter(
        "althing_component_stanzas_total",
        &["direction", "kind"],
        "Stanzas read from external components (in) and written to them (out).",
    ),
    counter("althing_component_inbox_full_total", &[], "Stanzas that met a full inbox of a component."),
    counter("althing_module_handled_total", &["module"], "Packets that the module handled."),
    histogram(
        "althing_module_duration_seconds",
        WAITING,
        &["module"],
        "Time of what the module had to wait for, from the packet to what follows from it; time in its queue counts.",
    ),
    histogram(
        "althing_module_computing_seconds",
        COMPUTING,
        &["module"],
        "Time of one call of the module, in which nothing else of its arbiter goes on. One pass of a stanza in 61 is timed.",
    ),
    gauge(
        "althing_module_queue",
        &["module"],
        "Packets in the module's own queue: waiting, running, being handed over.",
    ),
    counter(
        "althing_module_dropped_total",
        &["module"],
        "Packets that met a full queue of the module: refused with resource-constraint, or passed over.",
    ),
    histogram(
        "althing_keep_duration_seconds",
        HANDLING,
        &[],
        "From when a message comes until it is committed; its sender's acknowledgement waits for that.",
    ),
    counter("althing_keeps_total", &["result"], "Messages that were to be kept, and what became of them."),
    counter(
        "althing_messages_settled_total",
        &[],
        "Messages that have arrived, of which the store knows that they need not wait any more.",
    ),
    gauge("althing_storage_queue_commands", &[], "Writes that wait for the store; read every 5 s."),
    gauge("althing_storage_size_bytes", &[], "Bytes of the store on disk; read every 5 s."),
    gauge("althing_storage_free_bytes", &[], "Free bytes of the disk that has the store; read every second."),
    gauge(
        "althing_storage_full",
        &[],
        "1 while less is free than `storage.reserve_mib`: nothing new is kept, in a cluster by this node.",
    ),
    counter(
        "althing_storage_errors_total",
        &[],
        "Reads and writes that the store failed to do: the disk, damage, a full queue.",
    ),
    histogram(
        "althing_storage_duration_seconds",
        DISK,
        &["op"],
        "Time of reads and of writes, from the queue to the answer.",
    ),
];

/// The metrics that a node of a cluster has beside [`METRICS`]. `group` is `routes` or `store`, `peer` a node's name.
pub const CLUSTER_METRICS: &[Metric] = &[
    gauge("althing_raft_is_leader", &["group"], "1 while this node leads the group."),
    gauge("althing_raft_has_leader", &["group"], "1 while this node knows a leader of the group."),
    gauge("althing_raft_term", &["group"], "The Raft term."),
    gauge("althing_raft_last_log_index", &["group"], "Index of the last entry in this node's log."),
    gauge("althing_raft_applied_index", &["group"], "Index of the last entry that this node has applied."),
    gauge("althing_raft_voters", &["group"], "Members with a vote."),
    gauge("althing_raft_learners", &["group"], "Members without a vote."),
    gauge(
        "althing_raft_reads_waiting",
        &["group"],
        "Linearizable reads that wait for their question to the leader.",
    ),
    counter("althing_raft_leader_changes_total", &["group"], "How often this node has seen another leader."),
    counter(
        "althing_raft_snapshot_failures_total",
        &["group"],
        "How often this node, as the leader, could not bring a snapshot to a member that was there: no room here or there, or the link broke.",
    ),
    counter("althing_raft_proposals_total", &["group"], "Batches of changes that this node has proposed."),
    counter("althing_raft_commands_total", &["group"], "Changes in those batches."),
    histogram(
        "althing_raft_proposal_duration_seconds",
        DISK,
        &["group"],
        "Time from a batch's proposal to the word that it is committed.",
    ),
    gauge("althing_cluster_serving", &[], "1 while the leader's lease lets this node act."),
    gauge("althing_cluster_lease_remaining_seconds", &[], "How long the lease still holds."),
    counter("althing_cluster_suspensions_total", &[], "How often the lease has run out."),
    gauge("althing_cluster_members", &[], "Members of the cluster, up or not."),
    counter(
        "althing_cluster_nodes_down_total",
        &[],
        "Nodes that this node, as the leader, has declared down.",
    ),
    gauge("althing_link_up", &["peer", "lane"], "1 while the lane to the peer is connected."),
    gauge("althing_link_waiting", &["peer", "lane"], "Tasks and requests that wait to be sent or answered."),
    gauge("althing_link_waiting_bytes", &["peer", "lane"], "Bytes of them."),
    counter("althing_link_connects_total", &["peer", "lane"], "How often the lane has been connected."),
    counter(
        "althing_link_resent_total",
        &["peer", "lane"],
        "Frames that were sent again on a new connection.",
    ),
    counter(
        "althing_tasks_sent_total",
        &["kind"],
        "Tasks made for other nodes; one for all of them counts once.",
    ),
    counter("althing_tasks_run_total", &["kind", "outcome"], "Tasks of other nodes: done or refused."),
    gauge("althing_routes", &[], "Sessions of all nodes in the route table."),
    gauge(
        "althing_route_events_waiting",
        &[],
        "Events of the route log that this node's sessions are to hear of.",
    ),
];

/// Values of a label, each with its meaning.
type Values = &'static [(&'static str, &'static str)];

/// Labels with a closed set of values, but for conditions and mechanisms, which the RFCs name: metric, label,
/// values.
const VALUES: &[(&str, &str, Values)] = &[
    ("althing_connections_accepted_total", "listener", Listener::VALUES),
    ("althing_connections_rejected_total", "reason", Rejection::VALUES),
    ("althing_binds_refused_total", "reason", BindRefused::VALUES),
    ("althing_keeps_total", "result", Keep::VALUES),
    ("althing_web_requests_total", "answer", WebAnswer::VALUES),
    ("althing_streams_resumed_total", "result", Resumed::VALUES),
    ("althing_config_reloads_total", "result", Reload::VALUES),
    ("althing_push_total", "outcome", Pushed::VALUES),
    ("althing_reports_total", "report", Report::VALUES),
    ("althing_tls_handshakes_total", "result", Handshake::VALUES),
    ("althing_logins_total", "result", Login::VALUES),
    ("althing_registrations_total", "result", Registration::VALUES),
    ("althing_stanzas_total", "direction", Direction::VALUES),
    ("althing_stanzas_total", "kind", Name::VALUES),
    ("althing_delivery_total", "outcome", Delivery::VALUES),
    ("althing_stanzas_dropped_total", "reason", Dropped::VALUES),
    ("althing_own_requests_total", "outcome", OwnRequest::VALUES),
    ("althing_component_handshakes_total", "result", Attachment::VALUES),
    ("althing_component_stanzas_total", "direction", Direction::VALUES),
    ("althing_component_stanzas_total", "kind", Name::VALUES),
    ("althing_storage_duration_seconds", "op", StoreOp::VALUES),
];

/// Metrics of the process, by the `prometheus` crate: name and meaning. Linux only.
pub const PROCESS_METRICS: &[(&str, &str)] = &[
    ("process_cpu_seconds_total", "User and system time spent, in seconds."),
    ("process_max_fds", "Most file descriptors that may be open."),
    ("process_open_fds", "File descriptors that are open."),
    ("process_resident_memory_bytes", "Memory that is in use."),
    ("process_start_time_seconds", "When the process was started, in seconds since 1970."),
    ("process_threads", "Threads."),
    ("process_virtual_memory_bytes", "Memory that is mapped."),
];

fn push_row(out: &mut String, metric: &Metric) {
    let kind = match metric.kind {
        MetricKind::Counter => "counter",
        MetricKind::Gauge => "gauge",
        MetricKind::Histogram(_) => "histogram",
    };
    let labels = metric.labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(" ");
    out.push_str(&format!("| `{}` | {kind} | {labels} | {} |\n", metric.name, metric.help));
}

/// The text of `deploy/reference/metrics.md`.
#[must_use]
pub fn markdown() -> String {
    let mut out = "# Metrics\n\n\
         Made by `althing reference metrics`; do not edit.\n\n\
         `GET /metrics` on `listen.http`, in Prometheus' text form. Times are seconds, sizes bytes.\n\n\
         | name | kind | labels | meaning |\n|---|---|---|---|\n"
        .to_owned();
    METRICS.iter().for_each(|metric| push_row(&mut out, metric));
    out.push_str(
        "\nOf a node in a cluster, beside these:\n\n| name | kind | labels | meaning |\n|---|---|---|---|\n",
    );
    CLUSTER_METRICS.iter().for_each(|metric| push_row(&mut out, metric));
    out.push_str(
        "\nValues of labels. Conditions and mechanisms have the names of their RFCs; a mechanism that is none of ours\n\
         is `other`.\n\n| metric | label | value | meaning |\n|---|---|---|---|\n",
    );
    for (metric, label, values) in VALUES {
        for (value, meaning) in *values {
            out.push_str(&format!("| `{metric}` | `{label}` | `{value}` | {} |\n", meaning.trim()));
        }
    }
    for module in REGISTRY {
        let Spec { name, title, .. } = module.spec();
        out.push_str(&format!("| `althing_module_handled_total` | `module` | `{name}` | {title} |\n"));
    }
    out.push_str("\nOf the process, on Linux:\n\n| name | meaning |\n|---|---|\n");
    for (name, help) in PROCESS_METRICS {
        out.push_str(&format!("| `{name}` | {help} |\n"));
    }
    out
}
