//! Lines of the admin socket, with a bound.

use std::io::{Error, ErrorKind, Result};

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Reads one line without its end; `None` at the end of the stream.
///
/// # Errors
/// [`ErrorKind::InvalidData`] for a line of more than `limit` bytes; [`ErrorKind::UnexpectedEof`] for one without
/// end; whatever the stream itself has.
pub(super) async fn read(stream: &mut (impl AsyncBufRead + Unpin), limit: usize) -> Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let bound = u64::try_from(limit).unwrap_or(u64::MAX);
    if stream.take(bound).read_until(b'\n', &mut line).await? == 0 {
        return Ok(None);
    }
    if line.pop() == Some(b'\n') {
        return Ok(Some(line));
    }
    if line.len() + 1 >= limit {
        return Err(Error::new(ErrorKind::InvalidData, format!("a line has at most {limit} bytes")));
    }
    Err(ErrorKind::UnexpectedEof.into())
}

/// Writes `line` and its end.
///
/// # Errors
/// Those of the stream.
pub(super) async fn write(stream: &mut (impl AsyncWrite + Unpin), mut line: Vec<u8>) -> Result<()> {
    line.push(b'\n');
    stream.write_all(&line).await?;
    stream.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_bounded() {
        let mut input = &b"one\n\ntwelve bytes\n"[..];
        assert_eq!(read(&mut input, 4).await.unwrap().unwrap(), b"one");
        assert_eq!(read(&mut input, 4).await.unwrap().unwrap(), b"");
        assert_eq!(read(&mut input, 12).await.unwrap_err().kind(), ErrorKind::InvalidData);
        assert_eq!(read(&mut &b"half"[..], 100).await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
        assert_eq!(read(&mut &b""[..], 100).await.unwrap(), None);
    }
}
