//! From the session's outbox to the socket: whatever waits goes out in one write.

use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::node::NodeContext;
use crate::session::outbox::Outbox;

/// A write buffer that grew beyond this is given back once it is empty.
const KEPT_BYTES: usize = 16 * 1024;

/// How long a peer may take to take the last words and the end of TLS.
const GOODBYE: Duration = Duration::from_secs(5);

/// Writes until the outbox is closed and empty, or the peer takes nothing for `limits.outbox_stall_s`. While the
/// node is suspended it waits: for what is written the node must be the owner of the session.
pub async fn run(node: &NodeContext, mut socket: impl AsyncWrite + Unpin, outbox: Rc<Outbox>) {
    let mut buffer = Vec::new();
    while outbox.take(&mut buffer).await {
        if !node.lease.holds() && !node.lease.serving().await && outbox.is_open() {
            // Nothing is written without a lease but the last words, which are about to come.
            buffer.clear();
            continue;
        }
        let stall = Duration::from_secs(node.config().limits.outbox_stall_s);
        let patience = if outbox.is_open() { stall } else { GOODBYE.min(stall) };
        if let Err(error) = write(&mut socket, &mut buffer, &outbox, patience).await {
            // Our own patience, and not the kernel's: then the client's host is gone, not slow.
            let out_of_patience = error.kind() == ErrorKind::TimedOut && error.raw_os_error().is_none();
            if out_of_patience && outbox.is_open() {
                node.metrics.slow_consumer();
            }
            outbox.hang_up();
            return;
        }
    }
    // The peer may be gone already.
    let _ = timeout(GOODBYE, socket.shutdown()).await;
}

/// Writes the whole buffer; the patience is for each bit of progress, not for the whole.
async fn write(
    socket: &mut (impl AsyncWrite + Unpin),
    buffer: &mut Vec<u8>,
    outbox: &Outbox,
    patience: Duration,
) -> std::io::Result<()> {
    let mut rest: &[u8] = buffer;
    while !rest.is_empty() {
        let count = timeout(patience, socket.write(rest)).await??;
        if count == 0 {
            return Err(ErrorKind::WriteZero.into());
        }
        outbox.written(count);
        rest = rest.get(count..).unwrap_or_default();
    }
    timeout(patience, socket.flush()).await??;
    buffer.clear();
    buffer.shrink_to(KEPT_BYTES);
    Ok(())
}
