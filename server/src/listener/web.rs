//! The HTTP ports for clients: reads one request, answers it, or hands over the WebSocket that it asks for.
//!
//! Not the operator's door (`listen.http`): nothing of that may be seen from here. What a request is answered with is
//! decided in `request`, PURE. One request a connection; who wants a stream gets it, and whoever else is here reads a
//! few hundred bytes now and then.

mod host_meta;
mod request;

use std::io;
use std::net::IpAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tracing::debug;

use super::tcp::ByAddress;
use crate::node::NodeContext;
use request::Answer;

/// Largest head of a request, in bytes.
const MAX_HEAD: usize = 8 * 1024;

/// A WebSocket whose opening handshake is done.
pub struct Upgraded {
    /// The client's address; a trusted proxy tells another than the socket.
    pub peer: IpAddr,
    /// A trusted proxy says that TLS ends at it.
    pub secured: bool,
    /// What came behind the request.
    pub early: Vec<u8>,
    /// Its place among the connections of its address, where that is not the socket's.
    pub by_address: Option<ByAddress>,
}

/// Serves the request that comes over `socket`; `None` where it asked for no WebSocket, or may have none. `proxied` is
/// for a port where proxies are believed, if the peer is one.
///
/// # Errors
/// The socket's.
pub async fn open(
    node: &NodeContext,
    socket: &mut (impl AsyncRead + AsyncWrite + Unpin),
    peer: IpAddr,
    proxied: bool,
) -> io::Result<Option<Upgraded>> {
    let config = node.config();
    let mut read = Vec::new();
    let mut answer = loop {
        let mut chunk = [0; 1024];
        let count = socket.read(&mut chunk).await?;
        if count == 0 {
            return Ok(None);
        }
        read.extend_from_slice(&chunk[..count]);
        match request::answer(&config, &read, peer, proxied) {
            Some(answer) => break answer,
            None if read.len() > MAX_HEAD => break Answer::too_large(),
            None => {}
        }
    };
    let mut by_address = None;
    if let Some(upgrade) = &answer.upgrade
        && upgrade.peer != peer
    {
        match node.connections.admit_address(upgrade.peer, config.limits.connections_per_ip) {
            Ok(place) => by_address = Some(place),
            Err(rejection) => {
                node.metrics.connection_rejected(rejection);
                answer = Answer::busy();
            }
        }
    }
    node.metrics.web_answer(answer.kind);
    debug!(%peer, answer = answer.kind.name(), "request answered");
    socket.write_all(&answer.bytes).await?;
    socket.flush().await?;
    Ok(answer.upgrade.map(|upgrade| Upgraded {
        peer: upgrade.peer,
        secured: upgrade.secured,
        early: read.split_off(upgrade.head.min(read.len())),
        by_address,
    }))
}
