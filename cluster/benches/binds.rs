//! How many binds a second go through the route table of three processes, each with its logs on disk.
//!
//! `cargo bench -p althing-cluster --bench binds`

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, reason = "a benchmark")]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use althing_cluster::cluster::{Cluster, ClusterConfig, Hooks};
use althing_cluster::executor::{TaskExecutor, TaskRefusal, TaskSource};
use althing_cluster::lease::LeaseTimes;
use althing_cluster::link::LinkTls;
use althing_cluster::link::hello::ClusterId;
use althing_cluster::members::Seed;
use althing_cluster::node_id::NodeId;
use althing_cluster::raft::GroupTimes;
use althing_cluster::store_log::{Replica, RowReader, RowWriter, Seal};
use althing_cluster::task::{ClusterTask, TaskReply};
use althing_proto::jid::FullJid;
use async_trait::async_trait;
use bytes::Bytes;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

const NODES: usize = 3;
/// Binds of each node, and how many of them are under way at a time.
const BINDS: usize = 60_000;
const AT_A_TIME: usize = 1_000;
const ROUNDS: usize = 3;

/// No tasks, and a store without rows.
struct Nothing;

#[async_trait]
impl TaskExecutor for Nothing {
    async fn execute(&self, _: TaskSource, _: ClusterTask) -> Result<TaskReply, TaskRefusal> {
        Err(TaskRefusal::Suspended)
    }
}

#[async_trait]
impl Replica for Nothing {
    async fn mark(&self) -> std::io::Result<Option<Bytes>> {
        Ok(None)
    }

    async fn apply(&self, commands: Vec<Bytes>, seal: Seal) -> std::io::Result<Vec<Bytes>> {
        seal(&commands);
        Ok(commands)
    }

    async fn flush(&self) -> std::io::Result<()> {
        Ok(())
    }

    async fn read_rows(&self) -> std::io::Result<Box<dyn RowReader>> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    async fn replace_rows(&self) -> std::io::Result<Box<dyn RowWriter>> {
        Err(std::io::ErrorKind::Unsupported.into())
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.iter().position(|argument| argument == "--node") {
        Some(at) => node(arguments[at + 1].parse().unwrap(), Path::new(&arguments[at + 2])),
        None => parent(),
    }
}

fn address(number: usize) -> String {
    format!("127.0.9.{}:5275", number + 1)
}

fn parent() {
    let dir = tempfile::tempdir().unwrap();
    let ca_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    std::fs::write(dir.path().join("ca.pem"), params.self_signed(&ca_key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(params, ca_key);
    let mut children = Vec::new();
    for number in 0..NODES {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([format!("node-{number}")]).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        let file = |kind: &str| dir.path().join(format!("node-{number}.{kind}"));
        std::fs::write(file("pem"), certificate.pem()).unwrap();
        std::fs::write(file("key"), key.serialize_pem()).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--node", &number.to_string()])
            .arg(dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        children.push((child, input, output.lines()));
    }
    for (_, _, lines) in &mut children {
        assert_eq!(lines.next().unwrap().unwrap(), "serves");
    }
    let mut rates = Vec::new();
    for round in 0..ROUNDS {
        let began = Instant::now();
        for (_, input, _) in &mut children {
            writeln!(input, "{round}").unwrap();
        }
        for (_, _, lines) in &mut children {
            assert_eq!(lines.next().unwrap().unwrap(), "done");
        }
        rates.push((NODES * BINDS) as f64 / began.elapsed().as_secs_f64());
    }
    rates.sort_by(f64::total_cmp);
    println!("{:.0} binds a second (median of {ROUNDS}; {rates:.0?})", rates[ROUNDS / 2]);
    for (child, _, _) in &mut children {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

fn node(number: usize, dir: &Path) {
    let read = |file: String| std::fs::read(dir.join(file)).unwrap();
    let (certificate, key) = (read(format!("node-{number}.pem")), read(format!("node-{number}.key")));
    let seed = |number| Seed { name: format!("node-{number}"), address: address(number) };
    let data: PathBuf = dir.join(format!("data-{number}"));
    let config = ClusterConfig {
        node: NodeId::new(number as u64 + 1),
        name: format!("node-{number}"),
        address: address(number),
        initial: (0..NODES).map(seed).collect(),
        dir: data,
        tls: LinkTls::from_pem(&read("ca.pem".to_owned()), &certificate, &key).unwrap(),
        groups: GroupTimes::default(),
        lease: LeaseTimes::default(),
        fresh: ClusterId(number as u128 + 1),
    };
    let listener = TcpListener::bind(address(number)).unwrap();
    let hooks = Hooks { on_batch: Arc::new(|_, _, _| ()), on_down: Box::new(|_| ()) };
    let nothing = Arc::new(Nothing);
    let cluster = Cluster::start(config, listener, nothing.clone(), nothing, hooks).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    while !cluster.lease().holds() {
        std::thread::sleep(Duration::from_millis(50));
    }
    println!("serves");
    for line in std::io::stdin().lines() {
        let round = line.unwrap();
        runtime.block_on(async {
            let routes = cluster.routes();
            let bind = async |worker: usize| {
                for bind in 0..BINDS / AT_A_TIME {
                    let jid = format!("u{}@localhost/{round}-{number}-{bind}", worker);
                    routes.bind(&FullJid::new(&jid).unwrap()).await.unwrap();
                }
            };
            futures_util::future::join_all((0..AT_A_TIME).map(bind)).await;
        });
        println!("done");
    }
}
