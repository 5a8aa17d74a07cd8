//! The dialing side of links: keeps one lane to one peer connected, sends what waits, takes the answers.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout};

use crate::link::dial::{Dialed, Stream, dial};
use crate::link::envelope::read_reply;
use crate::link::error::{ConnectError, LinkError};
use crate::link::frame::{FrameKind, Lane};
use crate::link::hello::{ClusterId, Refusal};
use crate::link::io::{BATCH, FrameSource, send, write_bare};
use crate::link::outbox::{Entry, Outbox, OutboxLimits};
use crate::link::{Context, LinkTimes, Peer, wake};

type Waiter = oneshot::Sender<Result<Bytes, LinkError>>;

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
    closed: bool,
    connects: u64,
    error: Option<ConnectError>,
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
}

impl Line {
    /// A lane that is not connected yet. Its first sequence number is `first`.
    pub(crate) fn new(lane: Lane, peer: Peer, first: u64, limits: OutboxLimits) -> Self {
        let outbox = Outbox::new(lane, first, limits);
        let state = State { outbox, up: None, closed: false, connects: 0, error: None };
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
        let number = self.push(Entry { since, body, waiter: Some(waiter) })?;
        // Also when the asking future is dropped: what nobody waits for is not sent again.
        let _forget = Forget { line: self, number };
        match timeout(deadline, reply).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(LinkError::PeerDown),
            Err(_) => Err(LinkError::Deadline),
        }
    }

    fn push(&self, entry: Entry<Waiter>) -> Result<u64, LinkError> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(LinkError::PeerDown);
        }
        if !self.repeats() && state.up.is_none() {
            return Err(LinkError::NotConnected);
        }
        let number = state.outbox.push(entry)?;
        drop(state);
        self.wake.notify_one();
        Ok(number)
    }

    /// Takes nothing more. Returns the bodies of the tasks that were not acknowledged, in order; who waits for a
    /// reply gets [`LinkError::PeerDown`].
    pub(crate) fn close(&self) -> Vec<Bytes> {
        let mut state = self.state.lock();
        state.closed = true;
        let mut left = Vec::new();
        for entry in state.outbox.drain() {
            match entry.waiter {
                Some(waiter) => drop(waiter.send(Err(LinkError::PeerDown))),
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
        }
    }

    /// Keeps the lane connected until it is dropped.
    pub(crate) async fn keep(self: Arc<Self>, context: Arc<Context>) {
        let mut pause = context.times.backoff_min;
        loop {
            let before = self.state.lock().connects;
            let error = match Box::pin(self.connect(&context)).await {
                Ok((stream, source, version)) => self.talk(&context.times, stream, source, version).await,
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
        Ok((writer, source, version))
    }

    async fn talk<R, W>(
        &self,
        times: &LinkTimes,
        mut writer: W,
        mut source: FrameSource<R>,
        version: u16,
    ) -> ConnectError
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        {
            let mut state = self.state.lock();
            state.outbox.reconnected();
            state.up = Some(version);
            state.connects += 1;
            state.error = None;
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
                        // Nobody waits any more: its deadline is over.
                        let _ = waiter.send(read_reply(frame.body));
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
                    Some(waiter) => drop(waiter.send(Err(error))),
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
        state.up = None;
        state.error = Some(error);
        if !self.repeats() {
            for waiter in state.outbox.drain().into_iter().filter_map(|entry| entry.waiter) {
                let _ = waiter.send(Err(LinkError::Disconnected));
            }
        }
        state.connects
    }
}

type Connection = (WriteHalf<Stream>, FrameSource<ReadHalf<Stream>>, u16);

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
