//! Nodes in one process that share one log of routes and talk over real links; clients without sockets.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::sync::{mpsc, watch};

use althing_cluster::executor::{Begun, TaskExecutor, TaskRefusal, TaskSource};
use althing_cluster::lease::Lease;
use althing_cluster::link::hello::{ClusterId, Hello, VERSION_MAX, VERSION_MIN};
use althing_cluster::link::{LinkLimits, LinkTimes, LinkTls, Links, Peer};
use althing_cluster::node_id::{Incarnation, NodeId};
use althing_cluster::routes::command::NodeUp;
use althing_cluster::routes::{BindIndex, Routes};
use althing_cluster::task::{ClusterTask, TaskKind, TaskReply};
use althing_proto::jid::{BareJid, FullJid, ResourcePart};
use althing_proto::stream::management::Count;
use althing_proto::stream::{Framing, ResumeError};

use super::log::{Log, View};
use super::reads::Reads;
use crate::delivery::remote::Remote;
use crate::listener::tcp::Workers;
use crate::metrics::Waiting;
use crate::node::NodeContext;
use crate::session::actor::Session;
use crate::session::effect::Effect;
use crate::session::messages::{Progress, Work};
use crate::session::outbox::Outbox;
use crate::session::pressure::Pressure;
use crate::session::requests::Requests;
use crate::session::{SessionHandle, losses};
use crate::stream::{login, resume};
use crate::task_executor::NodeExecutor;

/// Longest wait for what must happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// Counts what it runs.
pub(super) struct Counting {
    inner: Arc<NodeExecutor>,
    ran: Mutex<Vec<TaskKind>>,
    /// Stanzas of that node wait.
    held: watch::Sender<Option<NodeId>>,
}

impl Counting {
    pub(super) fn count(&self, kind: TaskKind) -> usize {
        self.ran.lock().iter().filter(|ran| **ran == kind).count()
    }

    /// Stanzas of that node wait from now on, those of all others go on.
    pub(super) fn hold(&self, node: Option<NodeId>) {
        self.held.send_replace(node);
    }
}

#[async_trait]
impl TaskExecutor for Counting {
    async fn execute(&self, source: TaskSource, task: ClusterTask) -> Result<TaskReply, TaskRefusal> {
        self.ran.lock().push(task.kind());
        self.inner.execute(source, task).await
    }

    async fn begin(&self, source: TaskSource, task: ClusterTask) -> Result<Begun, TaskRefusal> {
        self.ran.lock().push(task.kind());
        if task.kind() == TaskKind::DeliverStanza {
            let held = |node: &Option<NodeId>| *node != Some(source.node);
            self.held.subscribe().wait_for(held).await.expect("it lives as long as this");
        }
        self.inner.begin(source, task).await
    }
}

/// One node. Its links have a runtime of their own, as in a real one.
pub(super) struct Node {
    pub(super) context: Arc<NodeContext>,
    pub(super) view: Arc<View>,
    pub(super) tasks: Arc<Counting>,
    pub(super) reads: Arc<Reads>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Node {
    /// Its process is gone, for the others.
    pub(super) fn stop(&mut self) {
        self.view.lag(true);
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// Binds a resource of `user@localhost`.
    pub(super) async fn bind(&self, user: &str, resource: &str) -> Client {
        self.bind_with(user, resource, self.context.config().limits.outbox_bytes).await
    }

    /// The same, and so many bytes may wait for it.
    pub(super) async fn bind_with(&self, user: &str, resource: &str, outbox_bytes: usize) -> Client {
        let outbox = self.outbox(outbox_bytes);
        let account = BareJid::new(&format!("{user}@localhost")).unwrap();
        let resource = ResourcePart::new(resource).unwrap().into_owned();
        self.context.has_account(&account).await;
        let session = login::bind(&self.context, &account, &resource, &outbox, None).await.unwrap();
        Client { session, outbox, read: String::new() }
    }

    /// A session for a bind that the table has.
    pub(super) fn begin(&self, jid: &FullJid, index: BindIndex) -> Client {
        let outbox = self.outbox(self.context.config().limits.outbox_bytes);
        let session = Session::begin(&self.context, jid.clone(), index, &outbox, None);
        self.context.sessions.insert(Arc::clone(&session));
        Client { session, outbox, read: String::new() }
    }

    fn outbox(&self, outbox_bytes: usize) -> Rc<Outbox> {
        let config = self.context.config();
        let pressure = Arc::new(Pressure::new(config.limits.mailbox_bytes));
        Rc::new(Outbox::new(outbox_bytes, pressure, Framing::Tcp, Waiting::for_tests()))
    }

    /// Resumes a stream of `user@localhost`, of which the client has handled so much; what the server has handled.
    pub(super) async fn resume(
        &self,
        user: &str,
        previd: &str,
        handled: u32,
    ) -> Result<(Client, u32), ResumeError> {
        let outbox = self.outbox(self.context.config().limits.outbox_bytes);
        let account = BareJid::new(&format!("{user}@localhost")).unwrap();
        let claim = (previd, Count(handled));
        self.context.has_account(&account).await;
        let (session, handled) = resume::resume(&self.context, &account, claim, &outbox, None).await?;
        Ok((Client { session, outbox, read: String::new() }, handled.0))
    }
}

/// Nodes 1 to `count`, each a peer of each.
pub(super) async fn cluster(count: u64) -> (Arc<Log>, Vec<Node>) {
    cluster_with(count, |_| Lease::always()).await
}

/// The same, each node with the lease of its number.
pub(super) async fn cluster_with(count: u64, lease: impl Fn(u64) -> Lease) -> (Arc<Log>, Vec<Node>) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let ca_pem = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);

    let log = Arc::new(Log::default());
    // What one node has written another reads.
    let storage = crate::storage::Storage::memory();
    let (mut nodes, mut peers) = (Vec::new(), Vec::new());
    for number in 1..=count {
        let (id, name) = (NodeId::new(number), format!("node-{number}"));
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([name.clone()]).unwrap().signed_by(&key, &issuer).unwrap();
        let tls = LinkTls::from_pem(
            ca_pem.as_bytes(),
            certificate.pem().as_bytes(),
            key.serialize_pem().as_bytes(),
        );
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (ended, ends) = mpsc::channel(64);
        let view = View::new(id, &log, ended);
        let inner = NodeExecutor::new(None);
        let tasks = Arc::new(Counting {
            inner: Arc::clone(&inner),
            ran: Mutex::default(),
            held: watch::Sender::new(None),
        });
        let listening = runtime.spawn(Links::listen(SocketAddr::from(([127, 0, 0, 1], 0))));
        let listener = listening.await.unwrap().unwrap();
        peers.push(Peer {
            node: id,
            name: name.clone(),
            address: listener.local_addr().unwrap().to_string(),
        });
        let hello = Hello {
            cluster: ClusterId(1),
            node: id,
            name,
            incarnation: Incarnation(1),
            min: VERSION_MIN,
            max: VERSION_MAX,
        };
        let mut context = NodeContext::for_tests();
        context.storage = storage.clone();
        {
            let _on = runtime.enter();
            let set = (LinkTimes::default(), LinkLimits::default());
            let executor = Arc::clone(&tasks) as Arc<dyn TaskExecutor>;
            context.links = Arc::new(Links::start(hello, tls.unwrap(), set, listener, executor, None));
        }
        context.node_id = id;
        context.requests = Requests::new(id, context.started, context.metrics.clone());
        context.lease = lease(number);
        context.routes = Arc::clone(&view) as Arc<dyn Routes>;
        context.remote = Remote::new(runtime.handle().clone());
        let reads = Reads::count(&mut context.storage);
        context.workers.get_or_init(|| Workers::new([actix_rt::Arbiter::current()]));
        let context = Arc::new(context);
        inner.set_node(&context);
        view.links.get_or_init(|| Arc::clone(&context.links));
        runtime.spawn(losses::announce(Arc::clone(&context), ends));
        nodes.push(Node { context, view, tasks, reads, runtime: Some(runtime) });
    }
    for node in &nodes {
        log.append(None, NodeUp { node: node.context.node_id, incarnation: Incarnation(1) });
        let _on = node.runtime.as_ref().unwrap().enter();
        for peer in &peers {
            node.context.links.add_peer(peer);
        }
    }
    (log, nodes)
}

/// A client that is bound.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) session: Arc<SessionHandle>,
    pub(super) outbox: Rc<Outbox>,
    /// What it has read.
    pub(super) read: String,
}

impl Client {
    /// Sends a stanza, and waits until the server has done with it.
    pub(super) async fn send(&self, xml: &str) {
        let elements = [xml.replacen(' ', " xmlns='jabber:client' ", 1).parse().unwrap()].into();
        self.work(Work { elements, ..Work::default() }).await;
    }

    /// Sends an element of stream management, of that name and with those attributes.
    pub(super) async fn manage(&self, element: &str) {
        let elements = [format!("<{element} xmlns='urn:xmpp:sm:3'/>").parse().unwrap()].into();
        self.work(Work { elements, ..Work::default() }).await;
    }

    /// Turns stream management on, to be resumed within so many seconds; the stream's id.
    pub(super) async fn enable(&mut self, seconds: u32) -> String {
        self.manage(&format!("enable resume='true' max='{seconds}'")).await;
        self.until("<enabled ", 1).await;
        self.read.split_once(" id='").unwrap().1.split_once('\'').unwrap().0.to_owned()
    }

    /// Lets the session perform an effect.
    pub(super) async fn perform(&self, effect: Effect) {
        self.work(Work { effects: [effect].into(), ..Work::default() }).await;
    }

    async fn work(&self, mut work: Work) {
        loop {
            match self.session.advance(work).await.unwrap() {
                Progress::Waiting(future, mut rest) => {
                    for effect in future.await.into_iter().rev() {
                        rest.effects.push_front(effect);
                    }
                    work = rest;
                }
                Progress::Done | Progress::Ended => return,
            }
        }
    }

    /// Reads until it has read `text` so many times.
    pub(super) async fn until(&mut self, text: &str, times: usize) {
        let reading = async {
            while self.read.matches(text).count() < times {
                let mut bytes = Vec::new();
                assert!(self.outbox.take(&mut bytes).await, "{} ended before {text}", self.read);
                self.outbox.written(bytes.len());
                self.read.push_str(std::str::from_utf8(&bytes).unwrap());
            }
        };
        let read = tokio::time::timeout(PATIENCE, reading).await;
        assert!(read.is_ok(), "{text} did not come: {}", self.read);
    }

    /// Reads what is there.
    pub(super) fn read_now(&mut self) -> &str {
        let mut bytes = Vec::new();
        if self.outbox.take_now(&mut bytes) {
            self.outbox.written(bytes.len());
            self.read.push_str(std::str::from_utf8(&bytes).unwrap());
        }
        &self.read
    }

    /// What was read of messages: their ids.
    pub(super) fn ids(&self) -> Vec<usize> {
        let ids = self.read.split("id='n").skip(1);
        // The id of a stream may begin like that of a message.
        ids.filter_map(|rest| rest.split('\'').next()?.parse().ok()).collect()
    }
}

/// A message with the id `n<number>`.
pub(super) fn message(to: &str, kind: &str, number: usize) -> String {
    format!("<message to='{to}' type='{kind}' id='n{number}'><body>{number}</body></message>")
}
