//! The accepting side of links: lets members in, runs what they send, answers.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::executor::{LaneService, TaskRefusal, TaskSource};
use crate::link::discovery::answer;
use crate::link::envelope::{read_task, reply_body};
use crate::link::error::ConnectError;
use crate::link::frame::{Frame, FrameKind, Lane};
use crate::link::hello::{Hello, Refusal};
use crate::link::inbox::{Arrival, Inbox};
use crate::link::io::{BATCH, FrameSource, read_first, send, send_first, tune, write_bare};
use crate::link::tls::bears_name;
use crate::link::worker::{Done, Job, Runner};
use crate::link::{Context, wake};
use crate::node_id::{Incarnation, NodeId};
use crate::task::{Run, TaskReply};

/// Connections at once, in handshake or later. Full: the next waits in the kernel's queue.
const MAX_CONNECTIONS: usize = 4096;
/// Nodes whose tasks are remembered. Full: those that are not connected are forgotten, else the next is refused.
const MAX_SENDERS: usize = 1024;
/// Requests of one connection that run beside others. Full: it is not read on.
const MAX_ASIDE: usize = 256;

/// One start of a node that sends us tasks; lives on when its connection breaks.
pub(crate) struct Sender {
    node: NodeId,
    incarnation: Incarnation,
    inbox: Mutex<Inbox>,
    wake: Notify,
    /// The number of the last connection: a new one ends the one before.
    connections: watch::Sender<u64>,
    aside: Arc<Semaphore>,
    /// The worker, on the task lane.
    jobs: Option<mpsc::Sender<Job>>,
}

impl Sender {
    fn new(hello: &Hello, worker: Option<&Runner>) -> Arc<Self> {
        Arc::new(Sender {
            node: hello.node,
            incarnation: hello.incarnation,
            inbox: Mutex::default(),
            wake: Notify::new(),
            connections: watch::Sender::new(0),
            aside: Arc::new(Semaphore::new(MAX_ASIDE)),
            jobs: worker.map(Runner::start),
        })
    }

    /// A task of this sender is done.
    pub(crate) fn finished(
        &self,
        number: u64,
        wants_reply: bool,
        in_order: bool,
        result: Result<TaskReply, TaskRefusal>,
    ) {
        let reply = match result {
            result if wants_reply => {
                let bytes = result
                    .and_then(|reply| reply.encode().map_err(|error| TaskRefusal::Failed(error.to_string())));
                Some(reply_body(bytes, Lane::Tasks.max_body()))
            }
            Ok(_) => None,
            Err(refusal) => {
                tracing::warn!(member = %self.node, reason = %refusal, "task dropped");
                None
            }
        };
        let mut inbox = self.inbox.lock();
        if in_order {
            inbox.done_in_order(number);
        }
        if let Some(body) = reply {
            inbox.replied(number, body);
        }
        drop(inbox);
        self.wake.notify_one();
    }

    /// A new connection begins, and the one before ends; its number.
    fn connect(&self) -> (u64, watch::Receiver<u64>) {
        let mut inbox = self.inbox.lock();
        let number = inbox.connected();
        self.connections.send_replace(number);
        (number, self.connections.subscribe())
    }

    fn answer(&self, number: u64, result: Result<Bytes, TaskRefusal>, lane: Lane) {
        self.inbox.lock().replied(number, reply_body(result, lane.max_body()));
        self.wake.notify_one();
    }
}

/// The accepting side.
pub(crate) struct Server {
    pub(crate) context: Arc<Context>,
    pub(crate) runner: Runner,
    pub(crate) service: Option<Arc<dyn LaneService>>,
    pub(crate) senders: Mutex<HashMap<NodeId, Arc<Sender>>>,
}

impl Server {
    /// Accepts until it is dropped, which ends all connections too.
    pub(crate) async fn run(self: Arc<Self>, listener: TcpListener) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "link not accepted");
                    // Without a pause a lack of file descriptors would spin here.
                    tokio::time::sleep(self.context.times.backoff_min).await;
                    continue;
                }
            };
            let server = self.clone();
            connections.spawn(async move {
                if let Err(error) = Box::pin(server.serve(stream)).await {
                    tracing::debug!(%error, "link ended");
                }
                drop(place);
            });
            while connections.try_join_next().is_some() {}
        }
    }

    async fn serve(&self, stream: TcpStream) -> Result<(), ConnectError> {
        let times = &self.context.times;
        let deadline = Instant::now() + times.connect;
        tune(&stream, times.silence)?;
        let handshake = self.context.tls.acceptor.accept(stream);
        let stream = timeout_at(deadline, handshake).await.map_err(|_| ConnectError::Timeout)??;
        let chain: Option<Vec<_>> = stream.get_ref().1.peer_certificates().map(<[_]>::to_vec);
        let (reader, mut writer) = tokio::io::split(stream);
        let mut source = FrameSource::new(reader);
        let first = timeout_at(deadline, source.next(times.connect)).await;
        let first = first.map_err(|_| ConnectError::Timeout)??;
        if first.kind != FrameKind::Hello {
            return Err(ConnectError::Unexpected);
        }
        let lane = first.lane;
        let ours = self.context.hello();
        let admitted = admit_hello(&ours, &first, chain.as_deref())
            .and_then(|(theirs, version)| Ok((self.sender(lane, &theirs)?, theirs, version)));
        let (sender, theirs, version) = match admitted {
            Ok(admitted) => admitted,
            Err(refusal) => {
                send_first(&mut writer, lane, FrameKind::Refusal, &refusal, times.silence).await?;
                return Err(ConnectError::NotAccepted(refusal));
            }
        };
        if lane == Lane::Discovery {
            send_first(&mut writer, lane, FrameKind::Hello, &ours, times.silence).await?;
            source.allow(lane);
            let who = (&theirs, version);
            return answer(times, self.service.as_deref(), who, &mut source, &mut writer).await;
        }
        // Before the answer: once the peer has it, nothing of its older connection may come in between.
        let (connection, mut connections) = sender.connect();
        send_first(&mut writer, lane, FrameKind::Hello, &ours, times.silence).await?;
        source.allow(lane);
        let link = Accepted { server: self, sender: &sender, lane, version, connection };
        tokio::select! {
            ended = link.read(&mut source) => ended,
            ended = link.write(&mut writer) => ended,
            _ = connections.wait_for(|last| *last != connection) => Err(ConnectError::Closed),
        }
    }

    /// What is known of who sends on that lane.
    fn sender(&self, lane: Lane, hello: &Hello) -> Result<Arc<Sender>, Refusal> {
        if lane != Lane::Tasks {
            return Ok(Sender::new(hello, None));
        }
        let mut senders = self.senders.lock();
        match senders.get(&hello.node) {
            Some(known) if known.incarnation > hello.incarnation => return Err(Refusal::StaleIncarnation),
            Some(known) if known.incarnation == hello.incarnation => return Ok(known.clone()),
            Some(_) => {}
            None => {
                if senders.len() >= MAX_SENDERS {
                    // Nodes come and go over the years: what is known of those that are gone makes room.
                    senders.retain(|_, known| known.connections.receiver_count() > 0);
                }
                if senders.len() >= MAX_SENDERS {
                    return Err(Refusal::Busy);
                }
            }
        }
        let sender = Sender::new(hello, Some(&self.runner));
        senders.insert(hello.node, sender.clone());
        Ok(sender)
    }
}

/// Checks who wants in; what it says, and the agreed version.
fn admit_hello(
    ours: &Hello,
    first: &Frame,
    chain: Option<&[CertificateDer<'_>]>,
) -> Result<(Hello, u16), Refusal> {
    let theirs: Hello = read_first(first).map_err(|_| Refusal::Malformed)?;
    let version = match first.lane {
        Lane::Discovery => ours.agree_on_version(&theirs)?,
        _ => ours.agree(&theirs)?,
    };
    if !bears_name(chain, &theirs.name) {
        return Err(Refusal::WrongName);
    }
    Ok((theirs, version))
}

/// One accepted connection after the hellos.
struct Accepted<'a> {
    server: &'a Server,
    sender: &'a Arc<Sender>,
    lane: Lane,
    version: u16,
    connection: u64,
}

impl Accepted<'_> {
    async fn read<R>(&self, source: &mut FrameSource<R>) -> Result<(), ConnectError>
    where
        R: AsyncRead + Unpin,
    {
        loop {
            let frame = source.next(self.server.context.times.silence).await?;
            if frame.lane != self.lane || frame.version != self.version {
                return Err(ConnectError::Unexpected);
            }
            match (frame.kind, self.lane) {
                (FrameKind::Heartbeat, _) => self.sender.inbox.lock().forget_below(frame.id),
                (FrameKind::Task | FrameKind::Request, Lane::Tasks) => self.take_task(frame).await,
                (FrameKind::Request, _) => self.take_request(frame).await,
                _ => return Err(ConnectError::Unexpected),
            }
        }
    }

    async fn take_task(&self, frame: Frame) {
        let (incarnation, applied, task) = read_task(&frame.body);
        let sender = self.sender;
        let wants_reply = frame.kind == FrameKind::Request;
        let run = task.as_ref().map_or(Run::InOrder, |task| task.kind().run());
        let in_order = run == Run::InOrder || !wants_reply;
        let number = frame.id;
        let source = TaskSource { node: sender.node, incarnation, applied };
        let done = Done::Remote { sender: sender.clone(), number, wants_reply, in_order };
        let job = Job { source, task, done };
        if in_order {
            // The worker lives as long as its sender.
            let Some(jobs) = &sender.jobs else { return };
            let Ok(place) = jobs.reserve().await else { return };
            let arrival = {
                // Under one lock, or an older connection of the same sender could slip in between.
                let mut inbox = sender.inbox.lock();
                let arrival = inbox.arrived(number, wants_reply);
                if arrival == Arrival::Run {
                    place.send(job);
                }
                arrival
            };
            self.repeated(number, arrival);
        } else {
            let Ok(place) = self.sender.aside.clone().acquire_owned().await else { return };
            let arrival = sender.inbox.lock().arrived(number, wants_reply);
            if arrival == Arrival::Run {
                let runner = self.server.runner.clone();
                tokio::spawn(async move {
                    runner.run(job).await;
                    drop(place);
                });
            } else {
                self.repeated(number, arrival);
            }
        }
    }

    fn repeated(&self, number: u64, arrival: Arrival) {
        match arrival {
            Arrival::Run => {}
            Arrival::Repeated => self.sender.wake.notify_one(),
            Arrival::ReplyLost => self.sender.answer(number, Err(TaskRefusal::ReplyLost), self.lane),
        }
    }

    async fn take_request(&self, frame: Frame) {
        let Ok(place) = self.sender.aside.clone().acquire_owned().await else { return };
        if self.sender.inbox.lock().arrived(frame.id, true) != Arrival::Run {
            return;
        }
        let (sender, lane, service) = (self.sender.clone(), self.lane, self.server.service.clone());
        tokio::spawn(async move {
            let result = match service {
                Some(service) => service.answer(sender.node, lane, frame.body).await,
                None => Err(TaskRefusal::Failed("nobody answers on this lane".to_owned())),
            };
            sender.answer(frame.id, result, lane);
            drop(place);
        });
    }

    async fn write<W>(&self, writer: &mut W) -> Result<(), ConnectError>
    where
        W: AsyncWrite + Unpin,
    {
        let times = &self.server.context.times;
        let mut beat = Instant::now();
        let mut out = BytesMut::new();
        loop {
            out.clear();
            let answers = self.sender.inbox.lock().take(self.connection, BATCH);
            if let Some(number) = answers.ack {
                write_bare(&mut out, self.version, self.lane, FrameKind::Ack, number);
            }
            for (id, body) in answers.replies {
                let (version, lane, kind) = (self.version, self.lane, FrameKind::Reply);
                Frame { version, lane, kind, id, body }.write(&mut out)?;
            }
            if Instant::now() >= beat {
                write_bare(&mut out, self.version, self.lane, FrameKind::Heartbeat, 0);
                beat = Instant::now() + times.heartbeat;
            }
            if out.is_empty() {
                wake(&self.sender.wake, beat).await;
            } else {
                send(writer, &out, times.silence).await?;
            }
        }
    }
}
