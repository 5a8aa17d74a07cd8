//! What a process that serves is told from outside: to end, by a signal or because its parent is gone; to reload.

use std::io::Read;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

/// SIGINT and SIGTERM, caught from the moment this value is made.
pub(super) struct EndSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl EndSignals {
    /// Catches the signals. Needs a running tokio runtime.
    pub(super) fn catch() -> std::io::Result<Self> {
        Ok(EndSignals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for the first of them and names it. May be dropped and called again.
    pub(super) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

/// SIGHUP: the configuration is to be read again. Caught from now on; it would end the process else.
pub(super) fn hang_ups() -> std::io::Result<Signal> {
    signal(SignalKind::hangup())
}

/// Resolves when standard input is closed: the parent held its other end and is gone.
///
/// A thread of its own waits, since tokio's standard input would keep the runtime from ending.
pub(super) fn parent_gone() -> oneshot::Receiver<()> {
    let (gone, receiver) = oneshot::channel();
    std::thread::spawn(move || {
        let mut sink = [0_u8; 256];
        while matches!(std::io::stdin().read(&mut sink), Ok(read) if read > 0) {}
        let _ = gone.send(());
    });
    receiver
}
