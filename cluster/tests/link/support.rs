//! Nodes with certificates, an executor that writes down what it runs, and a proxy that cuts and freezes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use althing_cluster::executor::{LaneService, TaskExecutor, TaskRefusal, TaskSource};
use althing_cluster::link::frame::Lane;
use althing_cluster::link::hello::{ClusterId, Hello, VERSION_MAX, VERSION_MIN};
use althing_cluster::link::{LaneStatus, LinkLimits, LinkTimes, LinkTls, Links, Peer};
use althing_cluster::node_id::{Incarnation, NodeId};
use althing_cluster::task::{
    BroadcastLocal, ClusterTask, NodeNumbers, ReadStore, SessionFound, TaskKind, TaskReply,
};
use althing_proto::time::Timestamp;
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

/// Longest wait for what must happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// A cluster's certificate authority.
pub(crate) struct Ca {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let pem = params.self_signed(&key).unwrap().pem();
        Ca { pem, issuer: Issuer::new(params, key) }
    }

    /// What the node of that name has on its disk.
    pub(crate) fn tls(&self, name: &str) -> LinkTls {
        self.tls_trusting(name, self)
    }

    /// A certificate of this CA for a node that trusts `other`.
    pub(crate) fn tls_trusting(&self, name: &str, other: &Ca) -> LinkTls {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        LinkTls::from_pem(other.pem.as_bytes(), certificate.pem().as_bytes(), key.serialize_pem().as_bytes())
            .unwrap()
    }
}

/// Writes down what it runs. A task `wait` lasts until the gate is opened, `panic` panics.
pub(crate) struct Recorder {
    ran: watch::Sender<Vec<(TaskSource, String)>>,
    gate: Semaphore,
}

impl Recorder {
    pub(crate) fn texts(&self) -> Vec<String> {
        self.ran.borrow().iter().map(|(_, text)| text.clone()).collect()
    }

    pub(crate) fn sources(&self) -> Vec<TaskSource> {
        self.ran.borrow().iter().map(|(source, _)| *source).collect()
    }

    /// Waits until that many tasks have begun.
    pub(crate) async fn count(&self, count: usize) {
        let mut ran = self.ran.subscribe();
        let done = ran.wait_for(|ran| ran.len() >= count);
        tokio::time::timeout(PATIENCE, done).await.expect("tasks did not come").unwrap();
    }

    pub(crate) fn open_gate(&self) {
        self.gate.close();
    }

    async fn note(&self, source: TaskSource, text: String) {
        let (waits, panics) = (text.starts_with("wait"), text == "panic");
        self.ran.send_modify(|ran| ran.push((source, text)));
        assert!(!panics, "as the test asked");
        if waits {
            // Closing the gate's semaphore ends all waits.
            let _ = self.gate.acquire().await;
        }
    }
}

#[async_trait]
impl TaskExecutor for Recorder {
    async fn execute(&self, source: TaskSource, task: ClusterTask) -> Result<TaskReply, TaskRefusal> {
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        let number = |text: &str| text.parse().unwrap_or(0);
        match task {
            ClusterTask::BroadcastLocal(task) => {
                let text = text(&task.xml);
                let reply = TaskReply::BroadcastLocal(number(&text));
                self.note(source, text).await;
                Ok(reply)
            }
            ClusterTask::ReadStore(task) => {
                self.note(source, text(&task.query)).await;
                Ok(TaskReply::ReadStore(task.query))
            }
            ClusterTask::NodeStats(_) => {
                let numbers = NodeNumbers { started: Timestamp::from_millis(1), sessions: 2, applied: 3 };
                Ok(TaskReply::NodeStats(numbers))
            }
            ClusterTask::ReplaceSession(_) => Ok(TaskReply::DeliverStanza(SessionFound::Done)),
            other => Err(TaskRefusal::Failed(format!("{} is not in this test", other.kind().label()))),
        }
    }
}

/// Answers on the other lanes with the lane's name and the request; never answers `wait`.
struct Echo;

#[async_trait]
impl LaneService for Echo {
    async fn answer(&self, _: NodeId, lane: Lane, request: Bytes) -> Result<Bytes, TaskRefusal> {
        match &request[..] {
            b"wait" => std::future::pending().await,
            b"refuse" => Err(TaskRefusal::Suspended),
            text => Ok([lane.label().as_bytes(), b" ", text].concat().into()),
        }
    }
}

/// A running node.
pub(crate) struct Node {
    pub(crate) links: Links,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) address: SocketAddr,
    pub(crate) id: NodeId,
    pub(crate) name: String,
}

/// What a node of a test differs in from the others.
pub(crate) struct Setup {
    pub(crate) hello: Hello,
    pub(crate) tls: LinkTls,
    pub(crate) times: LinkTimes,
    pub(crate) limits: LinkLimits,
}

impl Setup {
    /// Node `number` of cluster 1, called `node-<number>`.
    pub(crate) fn new(number: u64, ca: &Ca) -> Self {
        let name = format!("node-{number}");
        let hello = Hello {
            cluster: ClusterId(1),
            node: NodeId::new(number),
            name: name.clone(),
            incarnation: Incarnation(1),
            min: VERSION_MIN,
            max: VERSION_MAX,
        };
        let times = LinkTimes {
            heartbeat: Duration::from_millis(100),
            silence: Duration::from_secs(1),
            connect: Duration::from_secs(5),
            backoff_min: Duration::from_millis(5),
            backoff_max: Duration::from_millis(100),
            run: Duration::from_secs(60),
        };
        Setup { hello, tls: ca.tls(&name), times, limits: LinkLimits::default() }
    }

    pub(crate) async fn start(self) -> Node {
        self.start_at(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// Starts at an address that another node may just be giving up.
    pub(crate) async fn start_at(self, address: SocketAddr) -> Node {
        let give_up = tokio::time::Instant::now() + PATIENCE;
        let listener = loop {
            match TcpListener::bind(address).await {
                Ok(listener) => break listener,
                Err(error) => assert!(tokio::time::Instant::now() < give_up, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        };
        let address = listener.local_addr().unwrap();
        let recorder = Arc::new(Recorder { ran: watch::Sender::default(), gate: Semaphore::new(0) });
        let (id, name) = (self.hello.node, self.hello.name.clone());
        let set = (self.times, self.limits);
        let service = Some(Arc::new(Echo) as Arc<dyn LaneService>);
        let links = Links::start(self.hello, self.tls, set, listener, recorder.clone(), service);
        Node { links, recorder, address, id, name }
    }
}

impl Node {
    pub(crate) async fn start(number: u64, ca: &Ca) -> Node {
        Setup::new(number, ca).start().await
    }

    /// How others call it, at `address`.
    pub(crate) fn at(&self, address: SocketAddr) -> Peer {
        Peer { node: self.id, name: self.name.clone(), address: address.to_string() }
    }

    pub(crate) fn dial(&self, other: &Node) {
        assert!(self.links.add_peer(&other.at(other.address)).is_empty());
    }

    pub(crate) fn lane(&self, other: &Node, lane: Lane) -> LaneStatus {
        self.links.status(other.id).into_iter().find(|status| status.lane == lane).unwrap()
    }

    /// Waits until the task lane to `other` is as wanted.
    pub(crate) async fn until(&self, other: &Node, what: impl Fn(&LaneStatus) -> bool) -> LaneStatus {
        self.until_lane(other, Lane::Tasks, what).await
    }

    pub(crate) async fn until_lane(
        &self,
        other: &Node,
        lane: Lane,
        what: impl Fn(&LaneStatus) -> bool,
    ) -> LaneStatus {
        let give_up = tokio::time::Instant::now() + PATIENCE;
        loop {
            let status = self.lane(other, lane);
            if what(&status) {
                return status;
            }
            assert!(tokio::time::Instant::now() < give_up, "still {status:?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// A task that runs in order and answers with the number that it holds.
pub(crate) fn note(text: impl ToString) -> ClusterTask {
    BroadcastLocal { xml: text.to_string().into() }.into()
}

/// A task that, asked, runs beside others and answers with what it holds.
pub(crate) fn read(text: &str) -> ClusterTask {
    ReadStore { query: text.to_owned().into() }.into()
}

pub(crate) fn is_note(reply: &TaskReply, number: u64) -> bool {
    reply.kind() == TaskKind::BroadcastLocal && *reply == TaskReply::BroadcastLocal(number)
}

/// Stands between two nodes.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    cuts: watch::Sender<u64>,
    /// Nothing goes to the accepting side.
    forth_frozen: Arc<AtomicBool>,
    /// Nothing comes back from it.
    back_frozen: Arc<AtomicBool>,
    tasks: Mutex<Vec<tokio::task::AbortHandle>>,
}

impl Proxy {
    pub(crate) async fn before(target: SocketAddr) -> Arc<Proxy> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Arc::new(Proxy {
            address: listener.local_addr().unwrap(),
            cuts: watch::Sender::new(0),
            forth_frozen: Arc::default(),
            back_frozen: Arc::default(),
            tasks: Mutex::default(),
        });
        let (cuts, forth, back) = (proxy.cuts.clone(), proxy.forth_frozen.clone(), proxy.back_frozen.clone());
        let accepting = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(target).await else { continue };
                let mut cut = cuts.subscribe();
                let (forth, back) = (forth.clone(), back.clone());
                tokio::spawn(async move {
                    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
                    tokio::select! {
                        () = pump(near_in, far_out, &forth) => {}
                        () = pump(far_in, near_out, &back) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        proxy.tasks.lock().push(accepting.abort_handle());
        proxy
    }

    /// Breaks all connections.
    pub(crate) fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// From now on nothing is passed on to the accepting side, or back from it; no connection is closed.
    pub(crate) fn freeze(&self, forth: bool, back: bool) {
        self.forth_frozen.store(forth, Ordering::SeqCst);
        self.back_frozen.store(back, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.tasks.lock().iter().for_each(tokio::task::AbortHandle::abort);
        self.cut();
    }
}

async fn pump(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    frozen: &AtomicBool,
) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        while frozen.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
