//! The node's Prometheus registry.
//!
//! A registry belongs to one node, so that several nodes can live in one process. Hot counters are
//! fields, found without a lookup. Adding a metric: one row in [`METRICS`], one field here.

mod cluster;
mod keeping;
mod labels;
mod module;
mod storage;
mod streams;
mod table;
mod turns;

use prometheus::core::Collector;
use prometheus::{
    Error, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, Result,
};

use althing_proto::sasl::{Mechanism, SaslCondition};
use althing_proto::stanza::{Kind, StanzaCondition};
use althing_proto::stream::error::StreamCondition;
use althing_proto::time::Timestamp;

pub use cluster::{ClusterCollector, ClusterMetrics};
pub use keeping::KeepMetrics;
pub use labels::{
    Attachment, BindRefused, Delivery, Direction, Dropped, Handshake, Keep, Listener, Login, OwnRequest,
    Pushed, Registration, Rejection, Reload, Report, Resumed, StoreOp, WebAnswer,
};
use labels::{Counters, Counters2, Gauges, Label, Name};
use module::Modules;
pub use module::{ModuleMetrics, ModuleNumbers, SAMPLED};
pub use streams::StreamMetrics;
pub use table::{CLUSTER_METRICS, METRICS, Metric, MetricKind, PROCESS_METRICS, markdown};
pub use turns::TurnMetrics;

/// The label of a login whose mechanism is none of ours; what the client called it would be a series each.
const NO_MECHANISM: &str = "other";

/// The metrics of one node; clones count into the same series. Meanings: [`METRICS`].
#[derive(Debug, Clone)]
pub struct NodeMetrics {
    sessions: IntGauge,
    connections: Gauges<Listener>,
    accepted: Counters<Listener>,
    rejected: Counters<Rejection>,
    config_hash: IntGauge,
    reloads: Counters<Reload>,
    last_reload: IntGauge,
    web_answers: Counters<WebAnswer>,
    handshakes: Counters<Handshake>,
    handshake_duration: Histogram,
    certificate_expiry: IntGauge,
    logins: IntCounterVec,
    session_setup_duration: Histogram,
    registrations: Counters<Registration>,
    reports: Counters<Report>,
    pushes: Counters<Pushed>,
    stanzas: Counters2<Direction, Name>,
    deliveries: Counters<Delivery>,
    dropped: Counters<Dropped>,
    stanza_errors: Counters<StanzaCondition>,
    stream_errors: Counters<StreamCondition>,
    own_requests: Counters<OwnRequest>,
    mailbox_full: IntCounter,
    slow_consumers: IntCounter,
    presence_superseded: IntCounter,
    presence_waiting: IntGauge,
    /// Streams with XEP-0198.
    pub streams: StreamMetrics,
    /// Clients that come or leave, many at a time.
    pub turns: TurnMetrics,
    /// Of messages that are kept.
    pub keeping: KeepMetrics,
    components: IntGauge,
    component_handshakes: Counters<Attachment>,
    component_stanzas: Counters2<Direction, Name>,
    component_inbox_full: IntCounter,
    modules: Modules,
    storage_queue: IntGauge,
    storage_size: IntGauge,
    storage_free: IntGauge,
    storage_full: IntGauge,
    storage_errors: IntCounter,
    storage_duration: Vec<Histogram>,
}

/// A gauge of what waits in many places.
#[derive(Debug, Clone)]
pub struct Waiting(IntGauge);

impl Waiting {
    /// One place had `before`, and has `now`.
    pub fn changed(&self, before: usize, now: usize) {
        if before != now {
            let signed = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
            self.0.add(signed(now) - signed(before));
        }
    }

    /// One that nobody reads.
    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        Waiting(IntGauge::new("waiting", "what waits").unwrap())
    }
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
            config_hash: make.gauge("althing_config_hash")?,
            reloads: make.by_label("althing_config_reloads_total")?,
            last_reload: make.gauge("althing_config_last_reload_successful")?,
            web_answers: make.by_label("althing_web_requests_total")?,
            handshakes: make.by_label("althing_tls_handshakes_total")?,
            handshake_duration: make.histogram("althing_tls_handshake_duration_seconds")?,
            certificate_expiry: make.gauge("althing_tls_certificate_expiry_timestamp_seconds")?,
            session_setup_duration: make.histogram("althing_session_setup_duration_seconds")?,
            registrations: make.by_label("althing_registrations_total")?,
            reports: make.by_label("althing_reports_total")?,
            pushes: make.by_label("althing_push_total")?,
            stanzas: Counters2::new(&make.counters("althing_stanzas_total")?),
            deliveries: make.by_label("althing_delivery_total")?,
            dropped: make.by_label("althing_stanzas_dropped_total")?,
            stream_errors: make.by_label("althing_stream_errors_total")?,
            own_requests: make.by_label("althing_own_requests_total")?,
            mailbox_full: make.counter("althing_mailbox_full_total")?,
            slow_consumers: make.counter("althing_slow_consumers_total")?,
            presence_superseded: make.counter("althing_presence_superseded_total")?,
            presence_waiting: make.gauge("althing_presence_waiting")?,
            streams: StreamMetrics::new(&make)?,
            turns: TurnMetrics::new(&make)?,
            keeping: KeepMetrics::new(&make)?,
            components: make.gauge("althing_components")?,
            component_handshakes: make.by_label("althing_component_handshakes_total")?,
            component_stanzas: Counters2::new(&make.counters("althing_component_stanzas_total")?),
            component_inbox_full: make.counter("althing_component_inbox_full_total")?,
            modules: Modules::new(
                make.counters("althing_module_handled_total")?,
                (
                    make.histogram_vec("althing_module_duration_seconds")?,
                    make.histogram_vec("althing_module_computing_seconds")?,
                ),
                make.gauges("althing_module_queue")?,
                make.counters("althing_module_dropped_total")?,
            ),
            storage_queue: make.gauge("althing_storage_queue_commands")?,
            storage_size: make.gauge("althing_storage_size_bytes")?,
            storage_free: make.gauge("althing_storage_free_bytes")?,
            storage_full: make.gauge("althing_storage_full")?,
            storage_errors: make.counter("althing_storage_errors_total")?,
            storage_duration: make.histograms::<StoreOp>("althing_storage_duration_seconds")?,
            logins: make.logins()?,
            stanza_errors: make.by_label("althing_stanza_errors_total")?,
        })
    }

    /// A client's connection was accepted.
    pub fn connection_opened(&self, listener: Listener) {
        self.accepted.inc(listener);
        self.connections.add(listener, 1);
    }

    /// An accepted connection is closed.
    pub fn connection_closed(&self, listener: Listener) {
        self.connections.add(listener, -1);
    }

    /// A connection was closed at once, before [`NodeMetrics::connection_opened`].
    pub fn connection_rejected(&self, reason: Rejection) {
        self.rejected.inc(reason);
    }

    /// This configuration is in force, by its fingerprint.
    pub fn config_loaded(&self, fingerprint: u64) {
        self.config_hash.set(i64::try_from(fingerprint).unwrap_or(i64::MAX));
        self.last_reload.set(1);
    }

    /// The configuration was read again.
    pub fn config_reloaded(&self, successful: bool) {
        self.reloads.inc(if successful { Reload::Success } else { Reload::Failure });
        self.last_reload.set(i64::from(successful));
    }

    /// A client's HTTP request was answered.
    pub fn web_answer(&self, answer: WebAnswer) {
        self.web_answers.inc(answer);
    }

    /// A TLS handshake ended after `seconds`.
    pub fn handshake(&self, result: Handshake, seconds: f64) {
        self.handshakes.inc(result);
        if result != Handshake::Failed {
            self.handshake_duration.observe(seconds);
        }
    }

    /// When the served certificate expires.
    pub fn certificate_expires(&self, at: Timestamp) {
        self.certificate_expiry.set(i64::try_from(at.as_millis() / 1000).unwrap_or(i64::MAX));
    }

    /// A login ended, with that condition if it failed. Without a mechanism of ours it counts as `other`.
    pub fn login(&self, mechanism: Option<Mechanism>, failure: Option<SaslCondition>) {
        let result = match failure {
            None => Login::Success,
            Some(SaslCondition::TemporaryAuthFailure) => Login::Unavailable,
            Some(_) => Login::Failure,
        };
        let mechanism = mechanism.map_or(NO_MECHANISM, Mechanism::name);
        self.logins.with_label_values(&[mechanism, result.word()]).inc();
    }

    /// An attempt to make an account in band ended.
    pub fn registration(&self, result: Registration) {
        self.registrations.inc(result);
    }

    /// A user has reported abuse.
    pub fn report(&self, what: Report) {
        self.reports.inc(what);
    }

    /// A push notification.
    pub fn pushed(&self, what: Pushed) {
        self.pushes.inc(what);
    }

    /// A client bound its resource `seconds` after its connection was accepted.
    pub fn session_set_up(&self, seconds: f64) {
        self.session_setup_duration.observe(seconds);
    }

    /// A session began.
    pub fn session_started(&self) {
        self.sessions.inc();
    }

    /// A session ended.
    pub fn session_ended(&self) {
        self.sessions.dec();
    }

    /// A stanza was read from a client or written to one.
    pub fn stanza(&self, kind: Kind, direction: Direction) {
        self.stanzas.inc(direction, kind.into());
    }

    /// How many stanzas of that kind were read from clients, or written to them.
    #[must_use]
    pub fn stanzas(&self, kind: Kind, direction: Direction) -> u64 {
        self.stanzas.get(direction, kind.into())
    }

    /// What became of a routed stanza.
    pub fn delivery(&self, outcome: Delivery) {
        self.deliveries.inc(outcome);
    }

    /// So many deliveries ended so.
    pub fn deliveries(&self, outcome: Delivery, count: u64) {
        self.deliveries.add(outcome, count);
    }

    /// A stanza was dropped.
    pub fn dropped(&self, reason: Dropped) {
        self.dropped.inc(reason);
    }

    /// This server made a stanza error.
    pub fn stanza_error(&self, condition: StanzaCondition) {
        self.stanza_errors.inc(condition);
    }

    /// This server ended a stream with an error.
    pub fn stream_error(&self, condition: StreamCondition) {
        self.stream_errors.inc(condition);
    }

    /// A request of the server itself ended, or an answer to one was ignored.
    pub fn own_request(&self, outcome: OwnRequest) {
        self.own_requests.inc(outcome);
    }

    /// A stanza met a full mailbox.
    pub fn mailbox_full(&self) {
        self.mailbox_full.inc();
    }

    /// A presence that waited for a client went for a later one of the same sender.
    pub fn presence_superseded(&self) {
        self.presence_superseded.inc();
    }

    /// Counts the presence that waits aside for slow clients.
    #[must_use]
    pub fn presence_waiting(&self) -> Waiting {
        Waiting(self.presence_waiting.clone())
    }

    /// A client was closed because it read too slowly.
    pub fn slow_consumer(&self) {
        self.slow_consumers.inc();
    }

    /// A component was attached.
    pub fn component_attached(&self) {
        self.components.inc();
    }

    /// A component was detached.
    pub fn component_detached(&self) {
        self.components.dec();
    }

    /// The handshake of an external component ended.
    pub fn component_handshake(&self, result: Attachment) {
        self.component_handshakes.inc(result);
    }

    /// A stanza was read from an external component or written to one.
    pub fn component_stanza(&self, kind: Kind, direction: Direction) {
        self.component_stanzas.inc(direction, kind.into());
    }

    /// A stanza met a full inbox of a component.
    pub fn component_inbox_full(&self) {
        self.component_inbox_full.inc();
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

    /// The logins, each series from the start: a rate needs a zero before the first one.
    fn logins(&self) -> Result<IntCounterVec> {
        let vec = self.counters("althing_logins_total")?;
        for mechanism in Mechanism::ALL.into_iter().map(Mechanism::name).chain([NO_MECHANISM]) {
            for result in Login::ALL {
                // Making the series is all that is wanted.
                let _zero = vec.with_label_values(&[mechanism, result.word()]);
            }
        }
        Ok(vec)
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

    fn histogram_vec(&self, name: &str) -> Result<HistogramVec> {
        let (opts, labels) = Self::histogram_opts(name)?;
        self.add(HistogramVec::new(opts, labels)?)
    }

    fn histograms<L: Label>(&self, name: &str) -> Result<Vec<Histogram>> {
        let vec = self.histogram_vec(name)?;
        Ok(L::ALL.iter().map(|value| vec.with_label_values(&[value.word()])).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use althing_proto::stanza::PresenceType;

    use super::*;

    #[test]
    fn reference_page_is_up_to_date() {
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/reference/metrics.md");
        assert_eq!(std::fs::read_to_string(file).unwrap(), markdown(), "run `make fix`");
    }

    #[test]
    fn the_table_and_the_registry_agree() {
        let registry = Registry::new();
        NodeMetrics::register(&registry, "node-0").unwrap();
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
        metrics.clone().stanza(Kind::Presence(PresenceType::Available), Direction::In);
        assert_eq!(metrics.stanzas.get(Direction::In, Name::Presence), 1);
        assert_eq!(metrics.stanzas.get(Direction::Out, Name::Presence), 0);
        assert_eq!(other.stanzas.get(Direction::In, Name::Presence), 0);
    }

    #[test]
    fn a_login_counts_under_its_mechanism_and_how_it_ended() {
        let metrics = NodeMetrics::register(&Registry::new(), "node-0").unwrap();
        metrics.login(Some(Mechanism::Plain), None);
        metrics.login(Some(Mechanism::Plain), Some(SaslCondition::NotAuthorized));
        metrics.login(Some(Mechanism::Plain), Some(SaslCondition::TemporaryAuthFailure));
        metrics.login(None, Some(SaslCondition::InvalidMechanism));
        for labels in
            [["PLAIN", "success"], ["PLAIN", "failure"], ["PLAIN", "unavailable"], ["other", "failure"]]
        {
            assert_eq!(metrics.logins.with_label_values(&labels).get(), 1, "{labels:?}");
        }
    }
}
