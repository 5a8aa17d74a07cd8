//! The asking side of a probe: one bounded HTTP GET.

use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Most bytes that are read of an answer.
const ANSWER_BYTES: u64 = 1 << 20;

/// Asks `address` for `path` by HTTP/1.0 and returns the status and the body, within `patience`.
///
/// # Errors
///
/// When nobody answers in time, or what answers does not speak HTTP.
pub async fn get(address: SocketAddr, path: &str, patience: Duration) -> Result<(u16, String)> {
    let answer =
        timeout(patience, ask(address, path)).await.map_err(|_| Error::from(ErrorKind::TimedOut))??;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| Error::from(ErrorKind::InvalidData))?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok((status.ok_or_else(|| Error::from(ErrorKind::InvalidData))?, body.to_owned()))
}

async fn ask(address: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES).read_to_string(&mut answer).await?;
    Ok(answer)
}
