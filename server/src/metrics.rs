//! The node's Prometheus registry.
//!
//! A registry belongs to one node, so that several nodes can live in one process. Hot counters are
//! fields, found without a lookup. Adding a metric: one row in [`METRICS`], one field here.

mod labels;
mod table;

use prometheus::core::Collector;
use prometheus::{
    Error, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, Result,
};

use althing_proto::stream::error::StreamCondition;

pub use labels::{
    Counters, Counters2, Direction, DropReason, Gauges, Handshake, Kind, Label, Listener, Login, Outcome,
    Registration, Rejection, SlowConsumer, StoreOp,
};
pub use table::{METRICS, Metric, MetricKind, PROCESS_METRICS, markdown};

/// The metrics of one node; clones count into the same series. Meanings: [`METRICS`].
#[derive(Debug, Clone)]
pub struct NodeMetrics {
    /// `althing_sessions`.
    pub sessions: IntGauge,
    /// `althing_connections`.
    pub connections: Gauges<Listener>,
    /// `althing_connections_accepted_total`.
    pub accepted: Counters<Listener>,
    /// `althing_connections_rejected_total`.
    pub rejected: Counters<Rejection>,
    /// `althing_tls_handshakes_total`.
    pub handshakes: Counters<Handshake>,
    /// `althing_tls_handshake_duration_seconds`.
    pub handshake_duration: Histogram,
    /// `althing_tls_certificate_expiry_timestamp_seconds`.
    pub certificate_expiry: IntGauge,
    /// `althing_session_setup_duration_seconds`.
    pub session_setup_duration: Histogram,
    /// `althing_registrations_total`.
    pub registrations: Counters<Registration>,
    /// `althing_stanzas_total`.
    pub stanzas: Counters2<Direction, Kind>,
    /// `althing_delivery_total`.
    pub delivery: Counters<Outcome>,
    /// `althing_stanzas_dropped_total`.
    pub dropped: Counters<DropReason>,
    /// `althing_stream_errors_total`.
    pub stream_errors: Counters<StreamCondition>,
    /// `althing_mailbox_full_total`.
    pub mailbox_full: IntCounter,
    /// `althing_slow_consumers_total`.
    pub slow_consumers: Counters<SlowConsumer>,
    /// `althing_storage_queue_commands`.
    pub storage_queue: IntGauge,
    /// `althing_storage_size_bytes`.
    pub storage_size: IntGauge,
    /// `althing_storage_errors_total`.
    pub storage_errors: IntCounter,
    storage_duration: Vec<Histogram>,
    stanza_handling: Vec<Histogram>,
    logins: IntCounterVec,
    stanza_errors: IntCounterVec,
}

impl NodeMetrics {
    /// Registers all metrics of the node called `node`.
    ///
    /// # Errors
    ///
    /// When `registry` holds one of them already.
    pub fn register(registry: &Registry, node: &str) -> Result<Self> {
        let make = Maker(registry);
        make.gauges("althing_build_info")?.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        make.gauges("althing_node_info")?.with_label_values(&[node]).set(1);
        #[cfg(target_os = "linux")]
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        Ok(NodeMetrics {
            sessions: make.gauge("althing_sessions")?,
            connections: Gauges::new(&make.gauges("althing_connections")?),
            accepted: make.by_label("althing_connections_accepted_total")?,
            rejected: make.by_label("althing_connections_rejected_total")?,
            handshakes: make.by_label("althing_tls_handshakes_total")?,
            handshake_duration: make.histogram("althing_tls_handshake_duration_seconds")?,
            certificate_expiry: make.gauge("althing_tls_certificate_expiry_timestamp_seconds")?,
            session_setup_duration: make.histogram("althing_session_setup_duration_seconds")?,
            registrations: make.by_label("althing_registrations_total")?,
            stanzas: Counters2::new(&make.counters("althing_stanzas_total")?),
            delivery: make.by_label("althing_delivery_total")?,
            dropped: make.by_label("althing_stanzas_dropped_total")?,
            stream_errors: make.by_label("althing_stream_errors_total")?,
            mailbox_full: make.counter("althing_mailbox_full_total")?,
            slow_consumers: make.by_label("althing_slow_consumers_total")?,
            storage_queue: make.gauge("althing_storage_queue_commands")?,
            storage_size: make.gauge("althing_storage_size_bytes")?,
            storage_errors: make.counter("althing_storage_errors_total")?,
            storage_duration: make.histograms::<StoreOp>("althing_storage_duration_seconds")?,
            stanza_handling: make.histograms::<Kind>("althing_stanza_handling_duration_seconds")?,
            logins: make.counters("althing_logins_total")?,
            stanza_errors: make.counters("althing_stanza_errors_total")?,
        })
    }

    /// Counts the end of a login with the SASL mechanism of this name; one that is not ours is `other`,
    /// since a client chooses the name.
    pub fn login(&self, mechanism: &str, result: Login) {
        let known = crate::config::MECHANISMS.iter().find(|name| **name == mechanism);
        self.logins.with_label_values(&[known.unwrap_or(&"other"), result.word()]).inc();
    }

    /// Counts a stanza error that this server made; `condition` is the element's name in RFC 6120 §8.3.3.
    pub fn stanza_error(&self, condition: &'static str) {
        self.stanza_errors.with_label_values(&[condition]).inc();
    }

    /// The time, in seconds, of something the store did.
    pub fn storage_took(&self, op: StoreOp, seconds: f64) {
        if let Some(histogram) = self.storage_duration.get(op.index()) {
            histogram.observe(seconds);
        }
    }

    /// The time, in seconds, that the handling of a stanza took.
    pub fn stanza_took(&self, kind: Kind, seconds: f64) {
        if let Some(histogram) = self.stanza_handling.get(kind.index()) {
            histogram.observe(seconds);
        }
    }
}

/// Registers metrics by their row in the table.
struct Maker<'a>(&'a Registry);

impl Maker<'_> {
    fn row(name: &str) -> Result<&'static Metric> {
        METRICS
            .iter()
            .find(|metric| metric.name == name)
            .ok_or_else(|| Error::Msg(format!("{name} is not in the table of metrics")))
    }

    fn opts(name: &str) -> Result<(Opts, &'static [&'static str])> {
        let row = Self::row(name)?;
        Ok((Opts::new(row.name, row.help), row.labels))
    }

    fn add<C: Collector + Clone + 'static>(&self, collector: C) -> Result<C> {
        self.0.register(Box::new(collector.clone()))?;
        Ok(collector)
    }

    fn gauge(&self, name: &str) -> Result<IntGauge> {
        self.add(IntGauge::with_opts(Self::opts(name)?.0)?)
    }

    fn gauges(&self, name: &str) -> Result<IntGaugeVec> {
        let (opts, labels) = Self::opts(name)?;
        self.add(IntGaugeVec::new(opts, labels)?)
    }

    fn counter(&self, name: &str) -> Result<IntCounter> {
        self.add(IntCounter::with_opts(Self::opts(name)?.0)?)
    }

    fn counters(&self, name: &str) -> Result<IntCounterVec> {
        let (opts, labels) = Self::opts(name)?;
        self.add(IntCounterVec::new(opts, labels)?)
    }

    fn by_label<L: Label>(&self, name: &str) -> Result<Counters<L>> {
        Ok(Counters::new(&self.counters(name)?, &[]))
    }

    fn histogram_opts(name: &str) -> Result<(HistogramOpts, &'static [&'static str])> {
        let row = Self::row(name)?;
        let MetricKind::Histogram(buckets) = row.kind else {
            return Err(Error::Msg(format!("{name} is not a histogram")));
        };
        Ok((HistogramOpts::new(row.name, row.help).buckets(buckets.to_vec()), row.labels))
    }

    fn histogram(&self, name: &str) -> Result<Histogram> {
        self.add(Histogram::with_opts(Self::histogram_opts(name)?.0)?)
    }

    fn histograms<L: Label>(&self, name: &str) -> Result<Vec<Histogram>> {
        let (opts, labels) = Self::histogram_opts(name)?;
        let vec = self.add(HistogramVec::new(opts, labels)?)?;
        Ok(L::ALL.iter().map(|value| vec.with_label_values(&[value.word()])).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn reference_page_is_up_to_date() {
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/reference/metrics.md");
        assert_eq!(std::fs::read_to_string(file).unwrap(), markdown(), "run `make fix`");
    }

    #[test]
    fn the_table_and_the_registry_agree() {
        let registry = Registry::new();
        let metrics = NodeMetrics::register(&registry, "node-0").unwrap();
        metrics.login("PLAIN", Login::Success);
        metrics.stanza_error("bad-request");
        let shown: BTreeSet<String> =
            registry.gather().iter().map(|family| family.name().to_owned()).collect();
        let process = PROCESS_METRICS.iter().map(|(name, _)| *name).filter(|_| cfg!(target_os = "linux"));
        let documented: BTreeSet<String> =
            METRICS.iter().map(|metric| metric.name).chain(process).map(str::to_owned).collect();
        assert_eq!(shown, documented);
    }

    #[test]
    fn names_follow_the_rules_of_prometheus() {
        for metric in METRICS {
            assert!(metric.name.starts_with("althing_"), "{}", metric.name);
            assert_eq!(
                metric.name.ends_with("_total"),
                metric.kind == MetricKind::Counter,
                "{}",
                metric.name
            );
        }
    }

    #[test]
    fn clones_count_into_the_same_series_and_nodes_do_not() {
        let (one, two) = (Registry::new(), Registry::new());
        let metrics = NodeMetrics::register(&one, "node-0").unwrap();
        let other = NodeMetrics::register(&two, "node-1").unwrap();
        metrics.clone().stanzas.inc(Direction::In, Kind::Iq);
        assert_eq!(metrics.stanzas.get(Direction::In, Kind::Iq), 1);
        assert_eq!(metrics.stanzas.get(Direction::Out, Kind::Iq), 0);
        assert_eq!(other.stanzas.get(Direction::In, Kind::Iq), 0);
    }

    #[test]
    fn a_mechanism_chosen_by_a_stranger_makes_no_new_series() {
        let registry = Registry::new();
        let metrics = NodeMetrics::register(&registry, "node-0").unwrap();
        for name in ["X-1", "X-2", "X-3"] {
            metrics.login(name, Login::Failure);
        }
        let families = registry.gather();
        let logins = families.iter().find(|family| family.name() == "althing_logins_total").unwrap();
        assert_eq!(logins.get_metric().len(), 1);
    }
}
