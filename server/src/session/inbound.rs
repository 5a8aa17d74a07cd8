//! The client's stanzas on a stream with XEP-0198, shared with whoever makes something durable of them.

use std::fmt;
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;
use tokio::sync::Notify;

use althing_cluster::routes::BindIndex;
use althing_proto::jid::BareJid;
use althing_proto::stanza_id::StanzaId;
use althing_proto::stream::management::Count;

use super::acks::Received;
use super::records::Records;
use crate::faults::{self, Fault};
use crate::node::NodeContext;
use crate::storage::streams::{Handled, StreamKey, StreamRecord};

/// Most stanzas of one client that have come and are not safe: with more its socket is not read.
pub const MAX_UNSAFE: usize = 1_024;

/// What has come from one client, and what of it is safe.
pub struct Inbound {
    received: Mutex<Received>,
    /// Wakes the stream's writer, where an answer is due that was owed.
    writer: Arc<Notify>,
    /// Tells that more is safe.
    progress: Notify,
    /// Set where the store has a record of the stream.
    recorded: OnceLock<(StreamKey, Weak<NodeContext>)>,
    /// What the store knows or is about to, and whether it is told of more soon.
    noted: Mutex<(Count, bool)>,
}

impl fmt::Debug for Inbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbound").field("received", &self.received).finish_non_exhaustive()
    }
}

impl Inbound {
    /// After so many stanzas, which are safe. `writer` is woken when an answer is due.
    #[must_use]
    pub fn new(safe: Count, writer: Arc<Notify>) -> Arc<Self> {
        let received = Mutex::new(Received::after(safe));
        let (recorded, noted) = (OnceLock::new(), Mutex::new((safe, false)));
        Arc::new(Inbound { received, writer, progress: Notify::new(), recorded, noted })
    }

    /// The store knows of the stream from now on, so far as it is safe.
    pub fn record(&self, node: &Arc<NodeContext>, key: StreamKey, bind: BindIndex, seconds: u64) {
        let handled = self.safe();
        Records::began(node, StreamRecord { key: key.clone(), bind, handled, seconds });
        // Once only.
        let _ = self.recorded.set((key, Arc::downgrade(node)));
    }

    /// More is safe: the store is to know it.
    fn advanced(self: &Arc<Self>) {
        let Some((_, node)) = self.recorded.get() else { return };
        let (noted, soon) = &mut *self.noted.lock();
        if !*soon
            && self.received.lock().ordered() != *noted
            && let Some(node) = node.upgrade()
        {
            *soon = true;
            Records::behind(&node, self);
        }
    }

    /// What the store does not know and is told now.
    pub fn to_note(&self) -> Option<Handled> {
        let (key, _) = self.recorded.get()?;
        let (noted, soon) = &mut *self.noted.lock();
        *soon = false;
        let number = self.received.lock().ordered();
        (number != *noted).then(|| {
            *noted = number;
            Handled { key: key.clone(), number }
        })
    }

    /// A stanza has come: it is not safe before the hold is dropped.
    #[must_use]
    pub fn begin(self: &Arc<Self>) -> Hold {
        let number = self.received.lock().begin();
        Hold { inbound: Arc::clone(self), number, own: true, ahead: false, void: false }
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
    /// The session's own.
    own: bool,
    /// What it is for has its place in the order of the store.
    ahead: bool,
    /// It will never be safe.
    void: bool,
}

impl Hold {
    /// What it is for is not kept, and its sender was told so on another stream: nothing more is acknowledged on this one.
    pub fn never(mut self) {
        self.void = true;
    }

    /// The stanza's number on its stream.
    #[must_use]
    pub fn number(&self) -> Count {
        self.number
    }

    /// Of the session's own: it is about to do something; whether nothing that is to be kept can follow.
    pub fn is_last(&self, last: bool) {
        self.inbound.received.lock().is_last(self.number, last);
    }

    /// What the hold is for is about to be kept, in the order in which this is called: what is handled of the stream when
    /// it is kept, where the store has a record of the stream. To be kept in the same change
    /// ([`Storage::keep_and_handle`](crate::storage::Storage::keep_and_handle)), at once.
    #[must_use]
    pub fn commits(&mut self) -> Option<Handled> {
        let (key, _) = self.inbound.recorded.get()?;
        if self.own || self.ahead || faults::makes(Fault::HandledNotCommitted) {
            return None;
        }
        self.ahead = true;
        let number = self.inbound.received.lock().ahead(self.number);
        let (noted, _) = &mut *self.inbound.noted.lock();
        if number.since(*noted).is_some() {
            *noted = number;
        }
        Some(Handled { key: key.clone(), number })
    }

    /// The id of a message to `to` that came as this stanza: the same each time it comes (XEP-0359). `None` where the store
    /// has no record of the stream.
    #[must_use]
    pub fn stanza_id(&self, secret: &[u8; 32], to: &BareJid) -> Option<StanzaId> {
        let (key, _) = self.inbound.recorded.get()?;
        let parts = [&key.hash[..], &self.number.0.to_be_bytes(), to.as_str().as_bytes()];
        Some(StanzaId::derived(secret, &parts))
    }
}

impl Clone for Hold {
    fn clone(&self) -> Self {
        self.inbound.received.lock().more(self.number);
        let inbound = Arc::clone(&self.inbound);
        Hold { inbound, number: self.number, own: false, ahead: false, void: false }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.void {
            return;
        }
        let (advanced, due) = {
            let mut received = self.inbound.received.lock();
            (received.done(self.number, self.own, self.ahead), received.is_due())
        };
        if advanced {
            self.inbound.progress.notify_waiters();
            self.inbound.advanced();
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
