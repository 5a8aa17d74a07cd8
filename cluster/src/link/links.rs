//! All links of one node: to run a task on one node, on all others, on all.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use parking_lot::{Mutex, RwLock};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::executor::{LaneService, TaskExecutor, TaskSource};
use crate::link::counts::TaskCount;
use crate::link::discovery;
use crate::link::envelope::{read_task, task_body};
use crate::link::error::{DiscoveryError, LinkError};
use crate::link::frame::Lane;
use crate::link::hello::{ClusterId, Hello};
use crate::link::peer::{Callback, Line};
use crate::link::server::Server;
use crate::link::tls::LinkTls;
use crate::link::worker::{Done, Job, Runner};
use crate::link::{Context, LaneStatus, LinkLimits, LinkTimes, Peer};
use crate::node_id::{Incarnation, NodeId};
use crate::task::{ClusterTask, Run, TaskKind, TaskReply};
use crate::wire::WireError;

/// Between two looks at what waits, when the node stops.
const SETTLING: Duration = Duration::from_millis(10);

/// All links of one node. Dropping it closes them.
pub struct Links {
    node: NodeId,
    /// Under which tasks are sent: that of the process, until it comes back as another.
    incarnation: AtomicU64,
    limits: LinkLimits,
    applied: AtomicU64,
    /// Sequence numbers begin above this: a peer that was down and is back must not take new tasks for old ones.
    floor: AtomicU64,
    peers: RwLock<BTreeMap<NodeId, PeerLines>>,
    own: mpsc::Sender<Job>,
    runner: Runner,
    /// `None` while the node is not clustered.
    context: Option<Arc<Context>>,
    accepting: Option<AbortHandle>,
}

struct PeerLines {
    lines: [(Arc<Line>, AbortHandle); Lane::KEPT.len()],
}

impl PeerLines {
    fn line(&self, lane: Lane) -> Option<&Arc<Line>> {
        let place = Lane::KEPT.iter().position(|have| *have == lane)?;
        self.lines.get(place).map(|(line, _)| line)
    }
}

impl Drop for PeerLines {
    fn drop(&mut self) {
        for (line, task) in &self.lines {
            task.abort();
            line.close();
        }
    }
}

impl Links {
    /// The links of a node that is not clustered: it runs its own tasks, and there is nobody else. To be called
    /// on the runtime on which tasks shall run.
    #[must_use]
    pub fn alone(node: NodeId, incarnation: Incarnation, executor: Arc<dyn TaskExecutor>) -> Self {
        let runner = Runner { executor, limit: LinkTimes::default().run, counts: Arc::default() };
        Links::new(node, incarnation, LinkLimits::default(), runner)
    }

    fn new(node: NodeId, incarnation: Incarnation, limits: LinkLimits, runner: Runner) -> Self {
        Links {
            node,
            incarnation: AtomicU64::new(incarnation.0),
            limits,
            applied: AtomicU64::new(0),
            floor: AtomicU64::new(0),
            peers: RwLock::default(),
            own: runner.start(),
            runner,
            context: None,
            accepting: None,
        }
    }

    /// The links of a member of a cluster, which lets others in by `listener` and dials nobody yet. `service`
    /// answers on the lanes that carry no tasks. To be called on the runtime on which links and tasks shall run.
    #[must_use]
    pub fn start(
        hello: Hello,
        tls: LinkTls,
        (times, limits): (LinkTimes, LinkLimits),
        listener: TcpListener,
        executor: Arc<dyn TaskExecutor>,
        service: Option<Arc<dyn LaneService>>,
    ) -> Self {
        let runner = Runner { executor, limit: times.run, counts: Arc::default() };
        let mut links = Links::new(hello.node, hello.incarnation, limits, runner.clone());
        let context = Arc::new(Context::new(hello, tls, times));
        let server =
            Arc::new(Server { context: context.clone(), runner, service, senders: Mutex::default() });
        links.accepting = Some(tokio::spawn(server.run(listener)).abort_handle());
        links.context = Some(context);
        links
    }

    /// Listens for other nodes, for [`Links::start`].
    ///
    /// # Errors
    /// As `bind`.
    pub async fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
        TcpListener::bind(address).await
    }

    /// Takes over a listener that was bound before there was a runtime, for [`Links::start`].
    ///
    /// # Errors
    /// The system's.
    pub fn adopt(listener: std::net::TcpListener) -> std::io::Result<TcpListener> {
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    }

    /// From now on this node belongs to that cluster: it dials and lets in whoever does too. For a node that was
    /// started with [`ClusterId::NONE`]; call it once the id is on the disk. Links that hold stay as they are.
    pub fn set_cluster(&self, cluster: ClusterId) {
        if let Some(context) = &self.context {
            context.set_cluster(cluster);
        }
    }

    /// Asks one question of the node of that name at `address` (host and port), which need not be a member, and
    /// waits up to `deadline`. Who it says it is, and its answer.
    ///
    /// # Errors
    /// [`DiscoveryError`]; [`LinkError::TooLarge`] above [`MAX_QUESTION`](super::discovery::MAX_QUESTION) bytes.
    pub async fn discover(
        &self,
        name: &str,
        address: &str,
        request: Bytes,
        deadline: Duration,
    ) -> Result<(Hello, Bytes), DiscoveryError> {
        let Some(context) = &self.context else { return Err(LinkError::NotConnected.into()) };
        discovery::ask(context, (name, address), request, deadline).await
    }

    /// Begins to dial a peer, on all lanes. A peer of the same id is replaced, as by [`Links::peer_down`], whose
    /// return value this returns. Does nothing when not clustered, or for the node itself. To be called on the
    /// links' runtime.
    pub fn add_peer(&self, peer: &Peer) -> Vec<ClusterTask> {
        let Some(context) = &self.context else { return Vec::new() };
        if peer.node == self.node {
            return Vec::new();
        }
        let left = self.peer_down(peer.node);
        let first = self.floor.load(Ordering::SeqCst) + 1;
        let lines = Lane::KEPT.map(|lane| {
            let limits = if lane == Lane::Tasks { self.limits.tasks } else { self.limits.requests };
            let line = Arc::new(Line::new(lane, peer.clone(), first, limits));
            let task = tokio::spawn(line.clone().keep(context.clone())).abort_handle();
            (line, task)
        });
        self.peers.write().insert(peer.node, PeerLines { lines });
        left
    }

    /// Ends all links to a peer that was declared down or has left. Returns the tasks that it did not
    /// acknowledge, in order; it may have run some of them. Who waits for a reply of it gets
    /// [`LinkError::PeerDown`].
    pub fn peer_down(&self, node: NodeId) -> Vec<ClusterTask> {
        // Out of the lock before it is closed: who waits for a reply may ask for something else at once.
        let peer = self.peers.write().remove(&node);
        let Some(peer) = peer else { return Vec::new() };
        let Some(line) = peer.line(Lane::Tasks) else { return Vec::new() };
        let left = line.close();
        self.floor.fetch_max(line.next(), Ordering::SeqCst);
        left.iter().filter_map(|body| read_task(body).2.ok()).collect()
    }

    /// Returns when every peer that is connected has run all tasks that were sent to it. The caller sets the
    /// deadline.
    pub async fn settled(&self) {
        let waits = |peer: &PeerLines| {
            let status = peer.line(Lane::Tasks).map(|line| line.status());
            status.is_some_and(|lane| lane.version.is_some() && lane.waiting > 0)
        };
        while self.peers.read().values().any(waits) {
            tokio::time::sleep(SETTLING).await;
        }
    }

    /// Notes up to which index this node has applied the route log; every task tells.
    pub fn set_applied(&self, index: u64) {
        self.applied.fetch_max(index, Ordering::SeqCst);
    }

    /// From now on this node acts under that incarnation: later than the one before.
    pub fn set_incarnation(&self, incarnation: Incarnation) {
        self.incarnation.fetch_max(incarnation.0, Ordering::SeqCst);
    }

    /// The incarnation under which this node acts.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        Incarnation(self.incarnation.load(Ordering::SeqCst))
    }

    /// This node's id.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// The peers that are dialed.
    #[must_use]
    pub fn peers(&self) -> Vec<NodeId> {
        self.peers.read().keys().copied().collect()
    }

    /// How a peer is dialed; `None` for a node that is no peer.
    #[must_use]
    pub fn peer(&self, node: NodeId) -> Option<Peer> {
        let peers = self.peers.read();
        peers.get(&node).and_then(|peer| peer.lines.first()).map(|(line, _)| line.peer().clone())
    }

    /// How many tasks of each kind were sent and run.
    #[must_use]
    pub fn counts(&self) -> Vec<TaskCount> {
        self.runner.counts.all()
    }

    /// How the lanes to a peer are doing; nothing for a node that is no peer.
    #[must_use]
    pub fn status(&self, node: NodeId) -> Vec<LaneStatus> {
        let peers = self.peers.read();
        peers
            .get(&node)
            .map_or_else(Vec::new, |peer| peer.lines.iter().map(|(line, _)| line.status()).collect())
    }

    /// Runs `task` on `node`, which may be this one, after all tasks that were sent to it before. Returns at
    /// once.
    ///
    /// # Errors
    /// [`LinkError::NotMember`], [`LinkError::Full`], [`LinkError::TooLarge`] and [`LinkError::Wire`]: the task
    /// will not be run.
    pub fn run_on(&self, node: NodeId, task: ClusterTask) -> Result<(), LinkError> {
        if node == self.node {
            return self.own.try_send(self.job(task, None)).map_err(|_| LinkError::Full);
        }
        let line = self.line(node, Lane::Tasks)?;
        line.post(task.kind().since(), self.body(&task)?)
    }

    /// As [`Links::run_on`] for another node, by reference: the caller keeps the task where it was not taken.
    ///
    /// # Errors
    /// As [`Links::run_on`]; [`LinkError::NotMember`] for this node's own id.
    pub fn post(&self, node: NodeId, task: &ClusterTask) -> Result<(), LinkError> {
        self.line(node, Lane::Tasks)?.post(task.kind().since(), self.body(task)?)
    }

    /// Runs `task` on `node`, which may be this one, and waits up to `deadline` for its reply.
    ///
    /// # Errors
    /// [`LinkError`]. After `Deadline`, `PeerDown`, and `Refused` with `ReplyLost` or `Failed`, the task may have
    /// been run.
    pub async fn ask(
        &self,
        node: NodeId,
        task: ClusterTask,
        deadline: Duration,
    ) -> Result<TaskReply, LinkError> {
        if node == self.node {
            return self.ask_self(task, deadline).await;
        }
        let line = self.line(node, Lane::Tasks)?;
        let body = self.body(&task)?;
        let reply = line.request(task.kind().since(), body, deadline).await?;
        read_task_reply(task.kind(), &reply)
    }

    /// Runs `task` on another node, and calls `done` with its reply or with why there is none: once, on no
    /// lock of the links, soon. There is no deadline: it is called when the node has answered or is declared down.
    /// Costs no task of the runtime.
    ///
    /// # Errors
    /// As [`Links::run_on`]; then `done` is not called. This node's own id is no other node's: `NotMember`.
    pub fn ask_then(
        &self,
        node: NodeId,
        task: &ClusterTask,
        done: impl FnOnce(Result<TaskReply, LinkError>) + Send + 'static,
    ) -> Result<(), LinkError> {
        let line = self.line(node, Lane::Tasks)?;
        let (kind, body) = (task.kind(), self.body(task)?);
        let callback =
            Callback::new(move |reply| done(reply.and_then(|reply| read_task_reply(kind, &reply))));
        line.request_then(kind.since(), body, callback)
    }

    /// Runs `task` on every peer and not on this node; nothing when not clustered. What became of it, by node.
    pub fn run_on_all_but_self(&self, task: &ClusterTask) -> Vec<(NodeId, Result<(), LinkError>)> {
        let body = self.body(task);
        let post = |line: &Arc<Line>| line.post(task.kind().since(), body.clone()?);
        let peers = self.peers.read();
        let lines = peers.iter().filter_map(|(node, peer)| Some((*node, peer.line(Lane::Tasks)?)));
        lines.map(|(node, line)| (node, post(line))).collect()
    }

    /// Runs `task` on this node and every peer at once, and waits up to `deadline` for their replies. One result
    /// a node: some may fail where others do not.
    pub async fn ask_all(
        &self,
        task: &ClusterTask,
        deadline: Duration,
    ) -> Vec<(NodeId, Result<TaskReply, LinkError>)> {
        let nodes = std::iter::once(self.node).chain(self.peers());
        join_all(nodes.map(async |node| (node, self.ask(node, task.clone(), deadline).await))).await
    }

    /// Sends a request on a lane that carries no tasks, and waits up to `deadline` for the reply. It is sent once.
    ///
    /// # Errors
    /// [`LinkError`]; [`LinkError::NotConnected`] at once while there is no connection.
    pub async fn call(
        &self,
        node: NodeId,
        lane: Lane,
        request: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, LinkError> {
        self.line(node, lane)?.request(0, request, deadline).await
    }

    fn line(&self, node: NodeId, lane: Lane) -> Result<Arc<Line>, LinkError> {
        let peers = self.peers.read();
        peers.get(&node).and_then(|peer| peer.line(lane)).cloned().ok_or(LinkError::NotMember(node))
    }

    fn body(&self, task: &ClusterTask) -> Result<Bytes, LinkError> {
        self.runner.counts.sent(task.kind());
        Ok(task_body(self.incarnation(), self.applied.load(Ordering::SeqCst), &task.encode()?))
    }

    fn job(
        &self,
        task: ClusterTask,
        waiter: Option<oneshot::Sender<Result<TaskReply, crate::executor::TaskRefusal>>>,
    ) -> Job {
        let applied = self.applied.load(Ordering::SeqCst);
        let source = TaskSource { node: self.node, incarnation: self.incarnation(), applied };
        Job { source, task: Ok(task), done: Done::Local(waiter) }
    }

    async fn ask_self(&self, task: ClusterTask, deadline: Duration) -> Result<TaskReply, LinkError> {
        let run = task.kind().run();
        let (waiter, reply) = oneshot::channel();
        let job = self.job(task, Some(waiter));
        let all = async {
            match run {
                Run::InOrder => self.own.try_send(job).map_err(|_| LinkError::Full)?,
                Run::Aside => self.runner.run(job).await,
            }
            reply.await.map_err(|_| LinkError::PeerDown)?.map_err(LinkError::Refused)
        };
        timeout(deadline, all).await.unwrap_or(Err(LinkError::Deadline))
    }
}

/// The reply to a task of that kind.
fn read_task_reply(kind: TaskKind, reply: &[u8]) -> Result<TaskReply, LinkError> {
    let reply = TaskReply::decode(reply)?;
    if reply.kind() != kind {
        return Err(LinkError::Wire(WireError::Malformed("the reply is another task's".to_owned())));
    }
    Ok(reply)
}

impl Drop for Links {
    fn drop(&mut self) {
        if let Some(accepting) = &self.accepting {
            accepting.abort();
        }
    }
}

impl std::fmt::Debug for Links {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Links")
            .field("node", &self.node)
            .field("peers", &self.peers())
            .finish_non_exhaustive()
    }
}
