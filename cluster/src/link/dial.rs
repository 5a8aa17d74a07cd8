//! Dialing a node: TCP, TLS and the two hellos, within one deadline.

use rustls_pki_types::ServerName;
use tokio::io::{ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::client::TlsStream;

use crate::link::Context;
use crate::link::error::ConnectError;
use crate::link::frame::{FrameKind, Lane};
use crate::link::hello::{Hello, Refusal};
use crate::link::io::{FrameSource, read_first, send_first, tune};

/// What a dialed connection is made of.
pub(crate) type Stream = TlsStream<TcpStream>;

/// A connection after the hellos. Whether the two belong together is not decided yet.
pub(crate) struct Dialed {
    pub(crate) writer: WriteHalf<Stream>,
    /// Still reads hellos only.
    pub(crate) source: FrameSource<ReadHalf<Stream>>,
    /// What the other node says of itself.
    pub(crate) theirs: Hello,
}

/// Connects to the node of that name at `address`, whose certificate must bear the name.
///
/// # Errors
/// [`ConnectError`].
pub(crate) async fn dial(
    context: &Context,
    ours: &Hello,
    lane: Lane,
    name: &str,
    address: &str,
) -> Result<Dialed, ConnectError> {
    let times = &context.times;
    let deadline = Instant::now() + times.connect;
    let in_time = |_| ConnectError::Timeout;
    let server =
        ServerName::try_from(name.to_owned()).map_err(|_| ConnectError::NotAccepted(Refusal::WrongName))?;
    // By name, so that an address that has changed is found at each attempt.
    let stream = timeout_at(deadline, TcpStream::connect(address)).await.map_err(in_time)??;
    tune(&stream, times.silence)?;
    let stream = context.tls.connector.connect(server, stream);
    let stream = timeout_at(deadline, stream).await.map_err(in_time)??;
    let (reader, mut writer) = tokio::io::split(stream);
    let mut source = FrameSource::new(reader);
    send_first(&mut writer, lane, FrameKind::Hello, ours, times.silence).await?;
    let first = timeout_at(deadline, source.next(times.connect)).await.map_err(in_time)??;
    match first.kind {
        FrameKind::Hello => Ok(Dialed { writer, theirs: read_first(&first)?, source }),
        FrameKind::Refusal => Err(ConnectError::Refused(read_first(&first)?)),
        _ => Err(ConnectError::Unexpected),
    }
}
