//! The dialing side of links: keeps one lane to one peer connected, sends what waits, takes the answers.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout};

use crate::executor::TaskRefusal;
use crate::link::dial::{Dialed, Stream, dial};
use crate::link::envelope::read_reply;
use crate::link::error::{ConnectError, LinkError};
use crate::link::frame::{FrameKind, Lane};
use crate::link::hello::{ClusterId, Refusal};
use crate::link::io::{BATCH, FrameSource, send, write_bare};
use crate::link::outbox::{Entry, Outbox, OutboxLimits};
use crate::link::{Context, LinkTimes, Peer, wake};
use crate::node_id::Incarnation;

/// Who gets the reply to a request.
#[derive(Debug)]
enum Waiter {
    /// A task that waits.
    Channel(oneshot::Sender<Result<Bytes, LinkError>>),
    /// A call.
    Callback(Callback),
}

impl Waiter {
    /// Gives the result away. Callbacks may ask for anything: never to be called under the line's lock.
    fn send(self, result: Result<Bytes, LinkError>) {
        match self {
            // Nobody waits any more: the deadline is over.
            Waiter::Channel(waiter) => drop(waiter.send(result)),
            Waiter::Callback(callback) => callback.call(result),
        }
    }
}

type Reply = Box<dyn FnOnce(Result<Bytes, LinkError>) + Send>;

/// Called exactly once: with [`LinkError::PeerDown`] where it is dropped before.
pub(crate) struct Callback(Option<Reply>);

impl Callback {
    pub(crate) fn new(call: impl FnOnce(Result<Bytes, LinkError>) + Send + 'static) -> Self {
        Callback(Some(Box::new(call)))
    }

    fn call(mut self, result: Result<Bytes, LinkError>) {
        if let Some(call) = self.0.take() {
            call(result);
        }
    }

    /// Drops it without a call: its request was not taken, which the asker knows.
    fn forget(mut self) {
        self.0 = None;
    }
}

impl Drop for Callback {
    fn drop(&mut self) {
        if let Some(call) = self.0.take() {
            call(Err(LinkError::PeerDown));
        }
    }
}

impl std::fmt::Debug for Callback {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Callback")
    }
}

/// One lane to one peer.
pub(crate) struct Line {
    lane: Lane,
    peer: Peer,
    state: Mutex<State>,
    wake: Notify,
}

struct State {
    outbox: Outbox<Waiter>,
    /// The version agreed on, while connected.
    up: Option<u16>,
    /// Which start of the peer was connected last.
    theirs: Option<Incarnation>,
    closed: bool,
    connects: u64,
    error: Option<ConnectError>,
    ended: Option<ConnectError>,
}

/// How one lane to a peer is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneStatus {
    /// The lane.
    pub lane: Lane,
    /// The protocol version agreed on, while it is connected.
    pub version: Option<u16>,
    /// Tasks and requests that wait to be sent or answered.
    pub waiting: usize,
    /// Bytes of them.
    pub waiting_bytes: usize,
    /// How often it has been connected.
    pub connects: u64,
    /// Frames that were sent again on a new connection.
    pub resent: u64,
    /// Why it was not, or is no longer, connected: the last reason.
    pub error: Option<ConnectError>,
    /// Why the last connection ended; `None` while it holds, and before the first.
    pub ended: Option<ConnectError>,
}

impl Line {
    /// A lane that is not connected yet. Its first sequence number is `first`.
    pub(crate) fn new(lane: Lane, peer: Peer, first: u64, limits: OutboxLimits) -> Self {
        let outbox = Outbox::new(lane, first, limits);
        let state =
            State { outbox, up: None, theirs: None, closed: false, connects: 0, error: None, ended: None };
        Line { lane, peer, state: Mutex::new(state), wake: Notify::new() }
    }

    /// Only tasks outlive a connection: the other lanes' users have a repetition of their own, which wants to
    /// know soon that it is needed.
    fn repeats(&self) -> bool {
        self.lane == Lane::Tasks
    }

    /// Adds a task; it is sent, repeated and acknowledged in the background.
    ///
    /// # Errors
    /// As `Line::push`.
    pub(crate) fn post(&self, since: u16, body: Bytes) -> Result<(), LinkError> {
        self.push(Entry { since, body, waiter: None }).map(|_| ())
    }

    /// Sends a request; `callback` gets the reply, however long it takes, or the peer's end.
    ///
    /// # Errors
    /// As `Line::push`; then it is not called.
    pub(crate) fn request_then(&self, since: u16, body: Bytes, callback: Callback) -> Result<(), LinkError> {
        match self.try_push(Entry { since, body, waiter: Some(Waiter::Callback(callback)) }) {
            Ok(_) => Ok(()),
            Err((error, entry)) => {
                if let Some(Waiter::Callback(callback)) = entry.waiter {
                    callback.forget();
                }
                Err(error)
            }
        }
    }

    /// Sends a request and waits for the reply.
    ///
    /// # Errors
    /// [`LinkError`].
    pub(crate) async fn request(
        &self,
        since: u16,
        body: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, LinkError> {
        let (waiter, reply) = oneshot::channel();
        let number = self.push(Entry { since, body, waiter: Some(Waiter::Channel(waiter)) })?;
        // Also when the asking future is dropped: what nobody waits for is not sent again.
        let _forget = Forget { line: self, number };
        match timeout(deadline, reply).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(LinkError::PeerDown),
            Err(_) => Err(LinkError::Deadline),
        }
    }

    fn push(&self, entry: Entry<Waiter>) -> Result<u64, LinkError> {
        self.try_push(entry).map_err(|(error, _)| error)
    }

    /// The entry comes back with the error, so that it is dropped outside the lock.
    fn try_push(&self, entry: Entry<Waiter>) -> Result<u64, (LinkError, Entry<Waiter>)> {
        let mut state = self.state.lock();
        if state.closed {
            return Err((LinkError::PeerDown, entry));
        }
        if !self.repeats() && state.up.is_none() {
            return Err((LinkError::NotConnected, entry));
        }
        if let Err(error) = state.outbox.room_for(entry.body.len()) {
            return Err((error, entry));
        }
        let number = state.outbox.push_unchecked(entry);
        drop(state);
        self.wake.notify_one();
        Ok(number)
    }

    /// Takes nothing more. Returns the bodies of the tasks that were not acknowledged, in order; who waits for a
    /// reply gets [`LinkError::PeerDown`].
    pub(crate) fn close(&self) -> Vec<Bytes> {
        let entries = {
            let mut state = self.state.lock();
            state.closed = true;
            state.outbox.drain()
        };
        let mut left = Vec::new();
        for entry in entries {
            match entry.waiter {
                Some(waiter) => waiter.send(Err(LinkError::PeerDown)),
                None => left.push(entry.body),
            }
        }
        left
    }

    /// Who is dialed.
    pub(crate) fn peer(&self) -> &Peer {
        &self.peer
    }

    /// The sequence number that comes next.
    pub(crate) fn next(&self) -> u64 {
        self.state.lock().outbox.next()
    }

    pub(crate) fn status(&self) -> LaneStatus {
        let state = self.state.lock();
        LaneStatus {
            lane: self.lane,
            version: state.up,
            waiting: state.outbox.len(),
            waiting_bytes: state.outbox.bytes(),
            connects: state.connects,
            resent: state.outbox.resent(),
            error: state.error.clone(),
            ended: state.ended.clone(),
        }
    }

    /// Keeps the lane connected until it is dropped.
    pub(crate) async fn keep(self: Arc<Self>, context: Arc<Context>) {
        let mut pause = context.times.backoff_min;
        loop {
            let before = self.state.lock().connects;
            let error = match Box::pin(self.connect(&context)).await {
                Ok((stream, source, agreed)) => self.talk(&context.times, stream, source, agreed).await,
                Err(error) => error,
            };
            tracing::debug!(member = %self.peer.node, lane = self.lane.label(), %error, "link is down");
            if self.disconnected(error) > before {
                pause = context.times.backoff_min;
            }
            tokio::select! {
                () = tokio::time::sleep(jittered(pause)) => {}
                // What stood in the way all the time has just gone.
                () = context.cluster_changes() => pause = context.times.backoff_min,
            }
            pause = pause.saturating_mul(2).min(context.times.backoff_max);
        }
    }

    async fn connect(&self, context: &Context) -> Result<Connection, ConnectError> {
        let ours = context.hello();
        // Without a cluster there is nobody to agree with: do not even knock.
        if ours.cluster == ClusterId::NONE {
            return Err(ConnectError::NotAccepted(Refusal::NoCluster));
        }
        let Dialed { writer, mut source, theirs } =
            dial(context, &ours, self.lane, &self.peer.name, &self.peer.address).await?;
        let version = ours.agree(&theirs).map_err(ConnectError::NotAccepted)?;
        if theirs.node != self.peer.node {
            return Err(ConnectError::NotAccepted(Refusal::WrongNode));
        }
        source.allow(self.lane);
        Ok((writer, source, (version, theirs.incarnation)))
    }

    async fn talk<R, W>(
        &self,
        times: &LinkTimes,
        mut writer: W,
        mut source: FrameSource<R>,
        (version, theirs): (u16, Incarnation),
    ) -> ConnectError
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let asked = {
            let mut state = self.state.lock();
            let before = state.theirs.replace(theirs);
            // The process that was asked is gone, with what it remembered: its successor would do it once more.
            let asked = match before.is_some_and(|before| before != theirs) {
                true => state.outbox.take_asked(),
                false => Vec::new(),
            };
            state.outbox.reconnected();
            state.up = Some(version);
            state.connects += 1;
            state.error = None;
            state.ended = None;
            asked
        };
        for waiter in asked.into_iter().filter_map(|entry| entry.waiter) {
            waiter.send(Err(LinkError::Refused(TaskRefusal::ReplyLost)));
        }
        let ended = tokio::select! {
            ended = self.read(times, &mut source, version) => ended,
            ended = self.write(times, &mut writer, version) => ended,
        };
        ended.err().unwrap_or(ConnectError::Closed)
    }

    async fn read<R>(
        &self,
        times: &LinkTimes,
        source: &mut FrameSource<R>,
        version: u16,
    ) -> Result<(), ConnectError>
    where
        R: AsyncRead + Unpin,
    {
        loop {
            let frame = source.next(times.silence).await?;
            if frame.lane != self.lane || frame.version != version {
                return Err(ConnectError::Unexpected);
            }
            match frame.kind {
                FrameKind::Heartbeat => {}
                FrameKind::Ack => self.state.lock().outbox.acknowledged(frame.id),
                FrameKind::Reply => {
                    let entry = self.state.lock().outbox.remove(frame.id);
                    if let Some(waiter) = entry.and_then(|entry| entry.waiter) {
                        waiter.send(read_reply(frame.body));
                    }
                }
                _ => return Err(ConnectError::Unexpected),
            }
        }
    }

    async fn write<W>(&self, times: &LinkTimes, writer: &mut W, version: u16) -> Result<(), ConnectError>
    where
        W: AsyncWrite + Unpin,
    {
        let mut beat = Instant::now();
        let mut out = BytesMut::new();
        loop {
            out.clear();
            let (too_old, lowest) = {
                let mut state = self.state.lock();
                (state.outbox.write(version, BATCH, &mut out), state.outbox.lowest())
            };
            for entry in too_old {
                let error = LinkError::TooOld { needed: entry.since, spoken: version };
                match entry.waiter {
                    Some(waiter) => waiter.send(Err(error)),
                    None => tracing::warn!(member = %self.peer.node, %error, "task dropped"),
                }
            }
            if Instant::now() >= beat {
                write_bare(&mut out, version, self.lane, FrameKind::Heartbeat, lowest);
                beat = Instant::now() + times.heartbeat;
            }
            if out.is_empty() {
                wake(&self.wake, beat).await;
            } else {
                send(writer, &out, times.silence).await?;
            }
        }
    }

    /// Notes the end of a connection or attempt; how often the lane has been connected.
    fn disconnected(&self, error: ConnectError) -> u64 {
        let mut state = self.state.lock();
        if state.up.take().is_some() {
            state.ended = Some(error.clone());
        }
        state.error = Some(error);
        let connects = state.connects;
        let given_up = if self.repeats() { Vec::new() } else { state.outbox.drain() };
        drop(state);
        for waiter in given_up.into_iter().filter_map(|entry| entry.waiter) {
            waiter.send(Err(LinkError::Disconnected));
        }
        connects
    }
}

type Connection = (WriteHalf<Stream>, FrameSource<ReadHalf<Stream>>, (u16, Incarnation));

/// Takes a request out of the outbox when nobody waits for it any more.
struct Forget<'a> {
    line: &'a Line,
    number: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.line.state.lock().outbox.remove(self.number);
    }
}

/// Between half of `pause` and all of it, so that nodes that lost the same peer do not come back as one.
fn jittered(pause: Duration) -> Duration {
    // A hasher with random keys is random enough for this, and needs no generator.
    let random = RandomState::new().hash_one(0_u8) % 1024;
    pause / 2 + pause / 2 * u32::try_from(random).unwrap_or(0) / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_differ_and_stay_within_half() {
        let pause = Duration::from_secs(2);
        let drawn: std::collections::HashSet<Duration> = (0..100).map(|_| jittered(pause)).collect();
        assert!(drawn.len() > 10);
        assert!(drawn.iter().all(|drawn| (pause / 2..=pause).contains(drawn)));
    }
}
