//! The metrics of a cluster's node: read from the cluster at each scrape, but for what is counted as it happens.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Error, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, Result};

use althing_cluster::cluster::{Cluster, GroupNumbers};
use althing_cluster::link::LaneStatus;

use super::table::{CLUSTER_METRICS, Metric, MetricKind};

/// What is counted as it happens.
#[derive(Debug, Clone)]
pub struct ClusterMetrics {
    proposals: IntCounterVec,
    commands: IntCounterVec,
    proposal_duration: HistogramVec,
    suspensions: IntCounter,
    nodes_down: IntCounter,
}

impl ClusterMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// When `registry` holds one of them already.
    pub fn register(registry: &Registry) -> Result<Self> {
        let row = row("althing_raft_proposal_duration_seconds")?;
        let MetricKind::Histogram(buckets) = row.kind else {
            return Err(Error::Msg("no histogram".to_owned()));
        };
        let opts = prometheus::HistogramOpts::new(row.name, row.help).buckets(buckets.to_vec());
        let own = ClusterMetrics {
            proposals: counters("althing_raft_proposals_total")?,
            commands: counters("althing_raft_commands_total")?,
            proposal_duration: HistogramVec::new(opts, row.labels)?,
            suspensions: counter("althing_cluster_suspensions_total")?,
            nodes_down: counter("althing_cluster_nodes_down_total")?,
        };
        registry.register(Box::new(own.proposals.clone()))?;
        registry.register(Box::new(own.commands.clone()))?;
        registry.register(Box::new(own.proposal_duration.clone()))?;
        registry.register(Box::new(own.suspensions.clone()))?;
        registry.register(Box::new(own.nodes_down.clone()))?;
        for group in ["routes", "store"] {
            own.proposals.with_label_values(&[group]);
            own.commands.with_label_values(&[group]);
            own.proposal_duration.with_label_values(&[group]);
        }
        Ok(own)
    }

    /// A batch of that many commands was answered.
    pub fn batch(&self, group: &str, commands: usize, took: Duration) {
        self.proposals.with_label_values(&[group]).inc();
        self.commands.with_label_values(&[group]).inc_by(commands as u64);
        self.proposal_duration.with_label_values(&[group]).observe(took.as_secs_f64());
    }

    /// The lease has run out.
    pub fn suspended(&self) {
        self.suspensions.inc();
    }

    /// This node, as the leader, has declared a node down.
    pub fn node_down(&self) {
        self.nodes_down.inc();
    }
}

fn row(name: &str) -> Result<&'static Metric> {
    let row = CLUSTER_METRICS.iter().find(|row| row.name == name);
    row.ok_or_else(|| Error::Msg(format!("{name} is not in the table")))
}

fn opts(name: &str) -> Result<(prometheus::Opts, &'static [&'static str])> {
    let row = row(name)?;
    Ok((prometheus::Opts::new(row.name, row.help), row.labels))
}

fn counter(name: &str) -> Result<IntCounter> {
    IntCounter::with_opts(opts(name)?.0)
}

fn counters(name: &str) -> Result<IntCounterVec> {
    let (opts, labels) = opts(name)?;
    IntCounterVec::new(opts, labels)
}

fn gauges(name: &str) -> Result<IntGaugeVec> {
    let (opts, labels) = opts(name)?;
    IntGaugeVec::new(opts, labels)
}

/// Reads the cluster at each scrape.
pub struct ClusterCollector {
    cluster: Arc<Cluster>,
    /// One scrape at a time.
    scraping: Mutex<()>,
    series: Series,
}

/// Reads one number.
type Read<T> = fn(&T) -> u64;

struct Series {
    by_group: [(IntGaugeVec, Read<GroupNumbers>); 8],
    group_counters: [(IntCounterVec, Read<GroupNumbers>); 2],
    serving: IntGauge,
    remaining: prometheus::Gauge,
    members: IntGauge,
    link_gauges: [(IntGaugeVec, Read<LaneStatus>); 3],
    link_counters: [(IntCounterVec, Read<LaneStatus>); 2],
    sent: IntCounterVec,
    ran: IntCounterVec,
    routes: IntGauge,
    events: IntGauge,
}

impl ClusterCollector {
    /// A collector of that cluster.
    ///
    /// # Errors
    /// When a row of the table is no metric.
    pub fn new(cluster: Arc<Cluster>) -> Result<Self> {
        let series = Series {
            by_group: [
                (gauges("althing_raft_is_leader")?, |group| group.is_leader.into()),
                (gauges("althing_raft_has_leader")?, |group| group.leader.is_some().into()),
                (gauges("althing_raft_term")?, |group| group.term),
                (gauges("althing_raft_last_log_index")?, |group| group.last_log),
                (gauges("althing_raft_applied_index")?, |group| group.applied),
                (gauges("althing_raft_voters")?, |group| group.voters.len() as u64),
                (gauges("althing_raft_learners")?, |group| group.learners.len() as u64),
                (gauges("althing_raft_reads_waiting")?, |group| group.reads_waiting),
            ],
            group_counters: [
                (counters("althing_raft_leader_changes_total")?, |group| group.leader_changes),
                (counters("althing_raft_snapshot_failures_total")?, |group| group.snapshot_failures),
            ],
            serving: IntGauge::with_opts(opts("althing_cluster_serving")?.0)?,
            remaining: prometheus::Gauge::with_opts(opts("althing_cluster_lease_remaining_seconds")?.0)?,
            members: IntGauge::with_opts(opts("althing_cluster_members")?.0)?,
            link_gauges: [
                (gauges("althing_link_up")?, |lane| lane.version.is_some().into()),
                (gauges("althing_link_waiting")?, |lane| lane.waiting as u64),
                (gauges("althing_link_waiting_bytes")?, |lane| lane.waiting_bytes as u64),
            ],
            link_counters: [
                (counters("althing_link_connects_total")?, |lane| lane.connects),
                (counters("althing_link_resent_total")?, |lane| lane.resent),
            ],
            sent: counters("althing_tasks_sent_total")?,
            ran: counters("althing_tasks_run_total")?,
            routes: IntGauge::with_opts(opts("althing_routes")?.0)?,
            events: IntGauge::with_opts(opts("althing_route_events_waiting")?.0)?,
        };
        Ok(ClusterCollector { cluster, scraping: Mutex::new(()), series })
    }

    fn read(&self) {
        let (series, cluster) = (&self.series, &self.cluster);
        let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        series.group_counters.iter().for_each(|(counter, _)| counter.reset());
        for group in cluster.groups() {
            for (gauge, value) in &series.by_group {
                gauge.with_label_values(&[group.name]).set(signed(value(&group)));
            }
            for (counter, value) in &series.group_counters {
                counter.with_label_values(&[group.name]).inc_by(value(&group));
            }
        }
        series.serving.set(cluster.lease().holds().into());
        series.remaining.set(cluster.lease().remaining().as_secs_f64());
        series.routes.set(signed(cluster.routes().sessions() as u64));
        series.events.set(signed(cluster.events_waiting() as u64));
        let members = cluster.members();
        series.members.set(signed(members.len() as u64));
        // Peers come and go: only those that are there are shown.
        series.link_gauges.iter().for_each(|(gauge, _)| gauge.reset());
        series.link_counters.iter().for_each(|(counter, _)| counter.reset());
        for member in &members {
            for lane in &member.lanes {
                let labels = [member.name.as_str(), lane.lane.label()];
                for (gauge, value) in &series.link_gauges {
                    gauge.with_label_values(&labels).set(signed(value(lane)));
                }
                for (counter, value) in &series.link_counters {
                    counter.with_label_values(&labels).inc_by(value(lane));
                }
            }
        }
        series.sent.reset();
        series.ran.reset();
        for count in cluster.links().counts() {
            let kind = count.kind.label();
            series.sent.with_label_values(&[kind]).inc_by(count.sent);
            series.ran.with_label_values(&[kind, "done"]).inc_by(count.done);
            series.ran.with_label_values(&[kind, "refused"]).inc_by(count.refused);
        }
    }

    fn collectors(&self) -> Vec<&dyn Collector> {
        let series = &self.series;
        let mut all: Vec<&dyn Collector> = Vec::new();
        all.extend(series.by_group.iter().map(|(gauge, _)| gauge as &dyn Collector));
        all.extend(series.link_gauges.iter().map(|(gauge, _)| gauge as &dyn Collector));
        all.extend(series.link_counters.iter().map(|(counter, _)| counter as &dyn Collector));
        all.extend(series.group_counters.iter().map(|(counter, _)| counter as &dyn Collector));
        let others: [&dyn Collector; 7] = [
            &series.serving,
            &series.remaining,
            &series.members,
            &series.sent,
            &series.ran,
            &series.routes,
            &series.events,
        ];
        all.extend(others);
        all
    }
}

impl Collector for ClusterCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.collectors().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let _scraping = self.scraping.lock();
        self.read();
        self.collectors().into_iter().flat_map(Collector::collect).collect()
    }
}
