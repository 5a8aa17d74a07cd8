//! The client's stanzas on a stream with XEP-0198, shared with whoever makes something durable of them.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use althing_proto::stream::management::Count;

use super::acks::Received;

/// Most stanzas of one client that have come and are not safe: with more its socket is not read.
pub const MAX_UNSAFE: usize = 1_024;

/// What has come from one client, and what of it is safe.
#[derive(Debug)]
pub struct Inbound {
    received: Mutex<Received>,
    /// Wakes the stream's writer, where an answer is due that was owed.
    writer: Arc<Notify>,
    /// Tells that more is safe.
    progress: Notify,
}

impl Inbound {
    /// After so many stanzas, which are safe. `writer` is woken when an answer is due.
    #[must_use]
    pub fn new(safe: Count, writer: Arc<Notify>) -> Arc<Self> {
        let received = Mutex::new(Received::after(safe));
        Arc::new(Inbound { received, writer, progress: Notify::new() })
    }

    /// A stanza has come: it is not safe before the hold is dropped.
    #[must_use]
    pub fn begin(self: &Arc<Self>) -> Hold {
        let number = self.received.lock().begin();
        Hold { inbound: Arc::clone(self), number }
    }

    /// The client asks what is safe.
    #[must_use]
    pub fn asked(&self) -> Count {
        self.received.lock().asked()
    }

    /// What the client is to be told unasked.
    #[must_use]
    pub fn due(&self) -> Option<Count> {
        self.received.lock().due()
    }

    /// The last stanza that is safe.
    #[must_use]
    pub fn safe(&self) -> Count {
        self.received.lock().safe()
    }

    /// Whether the client may be read on.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.received.lock().unsafe_stanzas() < MAX_UNSAFE
    }

    /// Waits until the client may be read on.
    pub async fn room(&self) {
        self.until(|received| received.unsafe_stanzas() < MAX_UNSAFE).await;
    }

    /// Waits until all that has come is safe. The caller sets the deadline.
    pub async fn all_safe(&self) {
        self.until(|received| received.unsafe_stanzas() == 0).await;
    }

    async fn until(&self, is_so: impl Fn(&Received) -> bool) {
        loop {
            let progress = self.progress.notified();
            tokio::pin!(progress);
            // Enabled before the look: it does not miss what comes in between.
            progress.as_mut().enable();
            if is_so(&self.received.lock()) {
                return;
            }
            progress.await;
        }
    }
}

/// One stanza of the client is not safe while there is a hold on it: nor is it acknowledged, nor any that came later.
///
/// Whoever commits something of a stanza clones the hold, and drops the clone when that is committed, or when the sender
/// was told that it will not be. May be dropped on any thread.
#[derive(Debug)]
pub struct Hold {
    inbound: Arc<Inbound>,
    number: Count,
}

impl Hold {
    /// The stanza's number on its stream.
    #[must_use]
    pub fn number(&self) -> Count {
        self.number
    }
}

impl Clone for Hold {
    fn clone(&self) -> Self {
        self.inbound.received.lock().more(self.number);
        Hold { inbound: Arc::clone(&self.inbound), number: self.number }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let (advanced, due) = {
            let mut received = self.inbound.received.lock();
            (received.less(self.number), received.is_due())
        };
        if advanced {
            self.inbound.progress.notify_waiters();
        }
        if advanced && due {
            self.inbound.writer.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn the_writer_is_woken_when_what_was_asked_for_is_safe() {
        let writer = Arc::new(Notify::new());
        let inbound = Inbound::new(Count(4), Arc::clone(&writer));
        let first = inbound.begin();
        assert_eq!(first.number(), Count(5));
        let committing = first.clone();
        drop(first);
        assert_eq!(inbound.asked(), Count(4));
        assert!(writer.notified().now_or_never().is_none());
        let waiting = inbound.all_safe();
        tokio::pin!(waiting);
        assert!(waiting.as_mut().now_or_never().is_none());
        std::thread::spawn(move || drop(committing)).join().unwrap();
        writer.notified().await;
        waiting.await;
        assert_eq!((inbound.due(), inbound.due()), (Some(Count(5)), None));
    }

    #[tokio::test]
    async fn what_is_not_safe_is_bounded() {
        let inbound = Inbound::new(Count(0), Arc::default());
        let mut holds: Vec<Hold> = (0..MAX_UNSAFE).map(|_| inbound.begin()).collect();
        assert!(!inbound.has_room());
        let room = inbound.room();
        tokio::pin!(room);
        assert!(room.as_mut().now_or_never().is_none());
        holds.swap_remove(0);
        room.await;
        assert!(inbound.has_room());
    }
}
