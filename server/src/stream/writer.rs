//! From the session's outbox to the socket: whatever waits goes out in one write.

use std::io::ErrorKind;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use althing_proto::stream::error::{StreamCondition, StreamError};

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
    let mut alarm = Alarm(None);
    while take(node, &outbox, &mut buffer, &mut alarm).await {
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

/// Takes what is to be written; `false` when there will be nothing more. Sees to it that a client is asked what it has
/// handled (XEP-0198 §4), and given up when it does not answer.
async fn take(node: &NodeContext, outbox: &Outbox, buffer: &mut Vec<u8>, alarm: &mut Alarm) -> bool {
    loop {
        if outbox.take_now(buffer) {
            return true;
        }
        if !outbox.is_open() {
            return false;
        }
        let patience = Duration::from_secs(node.config().limits.ack_timeout_s);
        alarm.set(outbox.look_again(patience));
        tokio::select! {
            () = outbox.filled() => {}
            () = alarm.rings() => {
                if !outbox.is_overdue(patience) {
                } else if node.lease.holds() {
                    let text = "nothing was acknowledged in limits.ack_timeout_s";
                    let error = StreamError::new(StreamCondition::ConnectionTimeout, text);
                    node.metrics.stream_error(error.condition);
                    outbox.detach(outbox.last_words(Some(&error)));
                } else {
                    // A node that is suspended hears nobody.
                    outbox.be_patient();
                }
            }
        }
    }
}

/// A timer that is moved only to an earlier time: one that is not needed any more rings in vain.
struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    fn set(&mut self, at: Option<Instant>) {
        match (at, &mut self.0) {
            (None, _) => {}
            (Some(at), None) => self.0 = Some(Box::pin(sleep_until(at))),
            (Some(at), Some(timer)) if timer.is_elapsed() || at < timer.deadline() => {
                timer.as_mut().reset(at)
            }
            _ => {}
        }
    }

    async fn rings(&mut self) {
        match &mut self.0 {
            Some(timer) if !timer.is_elapsed() => timer.as_mut().await,
            _ => std::future::pending().await,
        }
    }
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
