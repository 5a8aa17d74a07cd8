//! One question to a node that need not be a member yet, on a connection of its own.
//!
//! Certificates, names and protocol versions are checked as on every lane; cluster and node id are not: they are
//! what the question is about.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::executor::{LaneService, TaskRefusal};
use crate::link::dial::{Dialed, dial};
use crate::link::envelope::{read_reply, reply_body};
use crate::link::error::{ConnectError, DiscoveryError, LinkError};
use crate::link::frame::{Frame, FrameKind, Lane};
use crate::link::hello::{Hello, Refusal};
use crate::link::io::{FrameSource, send};
use crate::link::{Context, LinkTimes};

/// Most bytes of a question. An answer may have as many as the lane carries.
pub const MAX_QUESTION: usize = 4 << 10;

/// Asks the node of that name at `address`; who it says it is, and its answer.
///
/// # Errors
/// [`DiscoveryError`].
pub(crate) async fn ask(
    context: &Context,
    (name, address): (&str, &str),
    request: Bytes,
    deadline: Duration,
) -> Result<(Hello, Bytes), DiscoveryError> {
    if request.len() > MAX_QUESTION {
        return Err(LinkError::TooLarge(request.len()).into());
    }
    let asked = exchange(context, (name, address), request);
    timeout(deadline, Box::pin(asked)).await.unwrap_or(Err(LinkError::Deadline.into()))
}

async fn exchange(
    context: &Context,
    (name, address): (&str, &str),
    body: Bytes,
) -> Result<(Hello, Bytes), DiscoveryError> {
    let (ours, lane, silence) = (context.hello(), Lane::Discovery, context.times.silence);
    let Dialed { mut writer, mut source, theirs } = dial(context, &ours, lane, name, address).await?;
    let version = ours.agree_on_version(&theirs).map_err(ConnectError::NotAccepted)?;
    // A certificate may bear several names; the node has one.
    if theirs.name != name {
        return Err(ConnectError::NotAccepted(Refusal::WrongName).into());
    }
    source.allow(lane);
    let mut out = BytesMut::new();
    Frame { version, lane, kind: FrameKind::Request, id: 1, body }
        .write(&mut out)
        .map_err(ConnectError::from)?;
    send(&mut writer, &out, silence).await?;
    // No heartbeats here: whoever asks has set a deadline, and nothing is lost when the connection breaks.
    let reply = source.next(context.times.run).await?;
    if (reply.kind, reply.id, reply.lane) != (FrameKind::Reply, 1, lane) {
        return Err(ConnectError::Unexpected.into());
    }
    Ok((theirs, read_reply(reply.body)?))
}

/// Answers the one question of an accepted connection.
///
/// # Errors
/// [`ConnectError`], when the connection broke before the answer was sent.
pub(crate) async fn answer<R, W>(
    times: &LinkTimes,
    service: Option<&dyn LaneService>,
    (theirs, version): (&Hello, u16),
    source: &mut FrameSource<R>,
    writer: &mut W,
) -> Result<(), ConnectError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let lane = Lane::Discovery;
    let request = source.next(times.connect).await?;
    if (request.kind, request.lane, request.version) != (FrameKind::Request, lane, version) {
        return Err(ConnectError::Unexpected);
    }
    let result = match service {
        Some(_) if request.body.len() > MAX_QUESTION => {
            Err(TaskRefusal::Malformed(format!("a question of {} bytes", request.body.len())))
        }
        Some(service) => timeout(times.run, service.discover(theirs, request.body))
            .await
            .unwrap_or_else(|_| Err(TaskRefusal::Failed("it took too long".to_owned()))),
        None => Err(TaskRefusal::Failed("nobody answers on this lane".to_owned())),
    };
    let body = reply_body(result, lane.max_body());
    let mut out = BytesMut::new();
    Frame { version, lane, kind: FrameKind::Reply, id: request.id, body }.write(&mut out)?;
    send(writer, &out, times.silence).await
}

/// Whether `address` refuses TCP connections, which only a machine does on which nobody listens there. A silent
/// or unreachable one does not refuse.
pub async fn refuses(address: &str, deadline: Duration) -> bool {
    match timeout(deadline, TcpStream::connect(address)).await {
        Ok(Err(error)) => error.kind() == io::ErrorKind::ConnectionRefused,
        Ok(Ok(_)) | Err(_) => false,
    }
}
