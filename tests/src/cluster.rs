//! Several nodes that are one server, each a process of its own.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard};

use crate::admin::{self, ClusterStatus, RouteReport};
use crate::deadline::{step, within_time};
use crate::endpoint::Endpoint;
use crate::node::{POLL, START, TestNode};
use crate::setup::{Membership, Setup, client_certificates, cluster_certificates, free_address};

/// The times of a cluster with [`SHORT_TIMES`], in the order of their length.
pub const SUSPEND: Duration = Duration::from_millis(1_500);
/// See [`SUSPEND`].
pub const CLOSE: Duration = Duration::from_millis(3_500);
/// See [`SUSPEND`].
pub const DOWN: Duration = Duration::from_millis(5_500);

/// An overlay with times as short as a crowded machine can keep.
pub const SHORT_TIMES: &str = "[cluster]\nheartbeat_ms = 120\nelection_ms = 400\n\
                               suspend_ms = 1500\nclose_ms = 3500\ndown_ms = 5500\n";

/// One cluster at a time in a test process: tests that measure time would disturb each other.
static TURN: Mutex<()> = Mutex::const_new(());

/// What each node said of its cluster, in the order of the nodes; `None` where it said nothing.
pub type View = [Option<ClusterStatus>];

/// The nodes, `node-0` and so on. Dropping it kills them all; while a test panics, the ends of their logs are
/// shown.
pub struct TestCluster {
    nodes: Vec<TestNode>,
    _directory: TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl TestCluster {
    /// Starts `size` nodes at once and waits until they are one cluster; `overlay` is TOML laid over the
    /// configuration of each.
    ///
    /// # Errors
    /// As [`TestCluster::prepare`], or nodes that do not become a cluster in time.
    pub async fn start(size: usize, overlay: &str) -> Result<TestCluster> {
        let mut cluster = TestCluster::prepare(size, overlay).await?;
        cluster.start_all().await?;
        Ok(cluster)
    }

    /// Configures `size` nodes of a cluster that none of them has begun yet. Waits for its turn: a test process
    /// has one cluster at a time.
    ///
    /// # Errors
    /// No binary, no address, or a wrong overlay.
    pub async fn prepare(size: usize, overlay: &str) -> Result<TestCluster> {
        let hosts: Result<Vec<_>> = (0..size).map(|_| Ok((free_address()?, None))).collect();
        TestCluster::on_hosts(&hosts?, overlay).await
    }

    /// As [`TestCluster::prepare`], on given addresses, each in a network namespace where there is one.
    ///
    /// # Errors
    /// No binary, or a wrong overlay.
    pub async fn on_hosts(hosts: &[(IpAddr, Option<String>)], overlay: &str) -> Result<TestCluster> {
        let turn = TURN.lock().await;
        let directory = tempfile::Builder::new().prefix("althing-test-").tempdir()?;
        let place = |name: &str| directory.path().join(name);
        let names: Vec<String> = (0..hosts.len()).map(|index| format!("node-{index}")).collect();
        client_certificates(&place("certs"))?;
        cluster_certificates(&place("peers"), &names)?;
        let addresses = hosts.iter().map(|(address, _)| *address);
        let initial: Vec<_> = names.iter().cloned().zip(addresses).collect();
        let prepare = |(name, (address, namespace)): (&String, &(IpAddr, Option<String>))| {
            TestNode::prepare(Setup {
                name: name.clone(),
                address: *address,
                directory: place(name),
                certificates: place("certs"),
                overlay: overlay.to_owned(),
                namespace: namespace.clone(),
                cluster: Some(Membership { initial: initial.clone(), certificates: place("peers") }),
            })
        };
        let nodes = names.iter().zip(hosts).map(prepare).collect::<Result<_>>()?;
        Ok(TestCluster { nodes, _directory: directory, _turn: turn })
    }

    /// Starts every node that does not run, at once, and waits until all are one cluster.
    ///
    /// # Errors
    /// Nodes that do not become a cluster in time.
    pub async fn start_all(&mut self) -> Result<()> {
        for node in &mut self.nodes {
            if !node.is_alive() {
                node.spawn()?;
            }
        }
        for node in &mut self.nodes {
            node.until_ready().await?;
        }
        self.until_settled().await
    }

    /// Waits until every running node serves, knows its leaders, and sees just the running nodes up.
    ///
    /// # Errors
    /// What the nodes said last, when that takes too long.
    pub async fn until_settled(&mut self) -> Result<()> {
        let running = self.running();
        self.wait_until(START, "a settled cluster", |view| {
            let whole = |status: &ClusterStatus| status.settled() && status.up() == running.len();
            running.iter().all(|index| view[*index].as_ref().is_some_and(whole))
        })
        .await
        .map(drop)
    }

    /// Waits until `condition` holds for what the nodes say; returns how long that took.
    ///
    /// # Errors
    /// What the nodes said last, when it does not hold within `limit`.
    pub async fn wait_until(
        &mut self,
        limit: Duration,
        what: &str,
        condition: impl Fn(&View) -> bool,
    ) -> Result<Duration> {
        let began = Instant::now();
        loop {
            let view = self.view().await;
            if condition(&view) {
                return Ok(began.elapsed());
            }
            if began.elapsed() > limit {
                bail!("{what}: not within {limit:?}; the nodes say {view:#?}");
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// What each node says of the cluster now. One that does not run, or is paused, says nothing.
    pub async fn view(&mut self) -> Vec<Option<ClusterStatus>> {
        // A paused node still takes connections.
        let answer = |index: usize| within_time(Duration::from_millis(500), "status", self.status(index));
        let answers = futures_util::future::join_all((0..self.nodes.len()).map(answer)).await;
        answers.into_iter().map(Result::ok).collect()
    }

    /// What one node says of the cluster.
    ///
    /// # Errors
    /// As [`admin::ask`].
    pub async fn status(&self, index: usize) -> Result<ClusterStatus> {
        admin::status(&self.nodes[index].setup().data()).await
    }

    /// Which node leads the group of the routes, by the first node that knows.
    ///
    /// # Errors
    /// None is known within one step.
    pub async fn leader(&mut self) -> Result<usize> {
        let began = Instant::now();
        while began.elapsed() < step() {
            for status in self.view().await.into_iter().flatten().filter(ClusterStatus::settled) {
                let leader = status.group("routes").and_then(|group| group.leader.clone());
                let index = self.nodes.iter().position(|node| Some(&node.setup().name) == leader.as_ref());
                if let Some(index) = index {
                    return Ok(index);
                }
            }
            tokio::time::sleep(POLL).await;
        }
        bail!("no node knows a leader of the routes")
    }

    /// The nodes but `index`, those of the cluster that run or not.
    #[must_use]
    pub fn others(&self, index: usize) -> Vec<usize> {
        (0..self.nodes.len()).filter(|other| *other != index).collect()
    }

    /// Where `jid` is, by one node's route table.
    ///
    /// # Errors
    /// As [`admin::ask`].
    pub async fn route(&self, index: usize, jid: &str) -> Result<RouteReport> {
        admin::route(&self.nodes[index].setup().data(), jid).await
    }

    /// One node.
    #[must_use]
    pub fn node(&self, index: usize) -> &TestNode {
        &self.nodes[index]
    }

    /// One node, to be started, killed, paused.
    pub fn node_mut(&mut self, index: usize) -> &mut TestNode {
        &mut self.nodes[index]
    }

    /// Where clients reach a node.
    #[must_use]
    pub fn endpoint(&self, index: usize) -> Endpoint {
        self.nodes[index].endpoint()
    }

    /// Where clients reach all of them.
    #[must_use]
    pub fn endpoints(&self) -> Vec<Endpoint> {
        self.nodes.iter().map(TestNode::endpoint).collect()
    }

    /// SIGKILL for every node that runs.
    ///
    /// # Errors
    /// The system's.
    pub fn kill_all(&mut self) -> Result<()> {
        for node in &mut self.nodes {
            if node.is_alive() {
                node.kill()?;
            }
        }
        Ok(())
    }

    /// The series of a node's metrics whose names with labels begin with `prefix`, added up.
    ///
    /// # Errors
    /// No answer, or no such series.
    pub async fn metric(&self, index: usize, prefix: &str) -> Result<f64> {
        let series = self.nodes[index].metrics().await?;
        let found: Vec<f64> =
            series.iter().filter(|(name, _)| name.starts_with(prefix)).map(|(_, value)| *value).collect();
        ensure!(!found.is_empty(), "node-{index} shows no series {prefix}");
        Ok(found.iter().sum())
    }

    fn running(&mut self) -> Vec<usize> {
        let alive =
            self.nodes.iter_mut().enumerate().filter_map(|(index, node)| node.is_alive().then_some(index));
        alive.collect()
    }
}

impl TestNode {
    /// Its metrics: series with labels, as Prometheus writes them, and value.
    ///
    /// # Errors
    /// No answer, or one that cannot be read.
    pub async fn metrics(&self) -> Result<BTreeMap<String, f64>> {
        let (status, body) = self.http("/metrics").await?;
        ensure!(status == 200, "/metrics answered {status}");
        let lines = body.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        let series = lines.map(|line| {
            let (name, value) = line.rsplit_once(' ').context("a line without value")?;
            Ok((name.to_owned(), value.parse()?))
        });
        series.collect()
    }
}
