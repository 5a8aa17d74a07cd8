//! Frames over a socket: reading that notices silence, writing that notices a peer that takes nothing.

use std::future::Future;
use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde::Serialize;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::link::error::ConnectError;
use crate::link::frame::{Frame, FrameKind, FrameReader, Lane, VERSION_OF_HELLO};
use crate::link::hello::{MAX_HELLO, Refusal};
use crate::wire;

/// Bytes asked of the socket at once.
const READ: usize = 64 << 10;
/// Bytes gathered for one write.
pub(crate) const BATCH: usize = 256 << 10;

/// No delay for small frames; unacknowledged data breaks the connection after `silence`.
pub(crate) fn tune(stream: &TcpStream, silence: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    #[cfg(target_os = "linux")]
    SockRef::from(stream).set_tcp_user_timeout(Some(silence))?;
    Ok(())
}

/// The reading half of a connection.
pub(crate) struct FrameSource<R> {
    reader: R,
    frames: FrameReader,
}

impl<R: AsyncRead + Unpin> FrameSource<R> {
    /// Reads hellos only, until [`FrameSource::allow`] raises the limit.
    pub(crate) fn new(reader: R) -> Self {
        FrameSource { reader, frames: FrameReader::new(MAX_HELLO) }
    }

    /// From now on bodies of the lane's size are read.
    pub(crate) fn allow(&mut self, lane: Lane) {
        self.frames.set_limit(lane.max_body());
    }

    /// The next frame. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`ConnectError::Silent`] when no byte comes for `silence`; else what broke the connection.
    pub(crate) async fn next(&mut self, silence: Duration) -> Result<Frame, ConnectError> {
        loop {
            if let Some(frame) = self.frames.next_frame()? {
                return Ok(frame);
            }
            let buffer = self.frames.buffer();
            buffer.reserve(READ);
            match timeout(silence, self.reader.read_buf(buffer)).await {
                Err(_) => return Err(ConnectError::Silent),
                Ok(Ok(0)) => return Err(ConnectError::Closed),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(error.into()),
            }
        }
    }
}

/// Writes all of `bytes`.
///
/// # Errors
/// [`ConnectError::Stuck`] when the peer takes nothing for `silence`, however much it took before.
pub(crate) async fn send<W>(writer: &mut W, mut bytes: &[u8], silence: Duration) -> Result<(), ConnectError>
where
    W: AsyncWrite + Unpin,
{
    while !bytes.is_empty() {
        match progress(silence, writer.write(bytes)).await? {
            0 => return Err(ConnectError::Closed),
            written => bytes = &bytes[written..],
        }
    }
    progress(silence, writer.flush()).await
}

async fn progress<T>(
    silence: Duration,
    step: impl Future<Output = io::Result<T>>,
) -> Result<T, ConnectError> {
    Ok(timeout(silence, step).await.map_err(|_| ConnectError::Stuck)??)
}

/// Writes a hello or refusal.
pub(crate) async fn send_first<W, T>(
    writer: &mut W,
    lane: Lane,
    kind: FrameKind,
    value: &T,
    silence: Duration,
) -> Result<(), ConnectError>
where
    W: AsyncWrite + Unpin,
    T: Serialize,
{
    let body = wire::encode(value).map_err(|_| ConnectError::Unexpected)?;
    let frame = Frame { version: VERSION_OF_HELLO, lane, kind, id: 0, body: body.into() };
    let mut out = BytesMut::new();
    frame.write(&mut out)?;
    send(writer, &out, silence).await
}

/// Appends a frame without a body.
pub(crate) fn write_bare(out: &mut BytesMut, version: u16, lane: Lane, kind: FrameKind, id: u64) {
    // An empty body is never too long.
    let _ = Frame { version, lane, kind, id, body: Bytes::new() }.write(out);
}

/// Reads the value of a hello or refusal.
pub(crate) fn read_first<T: serde::de::DeserializeOwned>(frame: &Frame) -> Result<T, ConnectError> {
    wire::decode(&frame.body).map_err(|_| ConnectError::NotAccepted(Refusal::Malformed))
}
