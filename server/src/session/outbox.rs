//! The bytes on their way from a session to its socket: bounded, with a written policy for "full". Under pressure
//! presence waits for messages, and the older one of a sender goes for the later (`queue.rs`).
//!
//! Policy: a client that lets more than the limit pile up is a slow consumer. It is counted, its queue is
//! dropped and its stream closed with `policy-violation` (RFC 6120 §4.9.3.14). Session, reader and writer
//! share the box on one arbiter; it never crosses a thread.
//!
//! On a stream with XEP-0198 stanzas are numbered where they are taken (`managed.rs`), for that is their order on the wire.

mod managed;
mod queue;
mod waited;

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Notify;

use althing_proto::stanza_id::StanzaId;
use althing_proto::stream::Framing;
use althing_proto::stream::error::StreamError;
use althing_proto::time::Timestamp;

use super::pressure::Pressure;
use crate::metrics::Waiting;
use crate::node::Bound;
use managed::Managed;
use queue::Queue;
use waited::Waited;

pub use managed::{Acknowledged, Left};
pub use queue::Entry;
pub use waited::Settler;

/// From so many waiting bytes on presence waits aside.
const PRESSED: usize = 32 * 1024;

/// Whether the box still takes bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// No more bytes are taken; those in the queue are still written.
    Closing,
    /// Of a stream that may be resumed: its connection is gone. What comes is kept, and nothing is written but the
    /// last words.
    Detached,
    /// Nothing is written any more.
    Closed,
}

/// What waits to be written.
#[derive(Debug)]
enum Piece {
    /// A stanza, whose bytes other sessions may share: it is framed when it is taken.
    Stanza(Left),
    /// An element that is no stanza, and is not counted.
    Element(Bytes),
    /// The element from which on stanzas are counted (XEP-0198 §4).
    Enabled(Bytes),
    /// The answer to a client that asks what is handled: what it says is known when it is taken, so that no answer
    /// says less than an earlier one.
    Answer,
    /// Bytes as they go out.
    Ready(Bytes),
}

/// The queue between a session and its socket's writer.
#[derive(Debug)]
pub struct Outbox {
    framing: Framing,
    queue: RefCell<Queue<Piece>>,
    /// Counts the presence that waits aside, over all boxes of the node.
    late: Waiting,
    bytes: Cell<usize>,
    limit: Bound,
    /// So much more may wait: what a stream that was resumed had not sent or had to send again. Over with the crowd.
    allowance: Cell<usize>,
    /// Shows others that the client does not keep up.
    pressure: Arc<Pressure>,
    state: Cell<State>,
    /// The last words to a connection that is given up.
    last: RefCell<Option<Bytes>>,
    /// On a stream with XEP-0198.
    managed: RefCell<Option<Managed>>,
    /// Messages that have waited in the store, and stay there until they have arrived.
    waited: Waited,
    /// Wakes the writer.
    filled: Arc<Notify>,
    /// Wakes the reader when the stream is to end.
    ended: Notify,
}

/// More bytes are waiting than the limit allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

impl Outbox {
    /// An empty box that holds at most `limit` bytes.
    #[must_use]
    pub fn new(limit: impl Into<Bound>, pressure: Arc<Pressure>, framing: Framing, late: Waiting) -> Self {
        Outbox {
            framing,
            queue: RefCell::default(),
            late,
            bytes: Cell::new(0),
            limit: limit.into(),
            allowance: Cell::new(0),
            pressure,
            state: Cell::new(State::Open),
            last: RefCell::default(),
            managed: RefCell::default(),
            waited: Waited::default(),
            filled: Arc::default(),
            ended: Notify::new(),
        }
    }

    /// Appends an element, as [`Framing::write`] takes it. A box that is closing swallows it: the stream is over for
    /// its client. Whether an older presence, which nobody needs any more, went for this one.
    ///
    /// # Errors
    /// [`Full`] where the limit would be passed; nothing was appended.
    pub fn push(&self, entry: Entry<'_>, element: Bytes) -> Result<bool, Full> {
        self.push_stanza(entry, element, (None, None))
    }

    /// As [`push`](Self::push), for a stanza that is to go elsewhere if the client does not acknowledge it: with the
    /// time of its delivery, and the id that it has in the store where its bytes do not say it.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn push_stanza(
        &self,
        entry: Entry<'_>,
        bytes: Bytes,
        (elsewhere, known): (Option<Timestamp>, Option<StanzaId>),
    ) -> Result<bool, Full> {
        let length = self.framing.length(&bytes);
        self.append(entry, Piece::Stanza(Left { bytes, elsewhere, known, waited: None }), length)
    }

    /// Appends an element that is no stanza.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn push_element(&self, element: Bytes) -> Result<(), Full> {
        let length = self.framing.length(&element);
        self.append(Entry::Stanza(None), Piece::Element(element), length).map(|_| ())
    }

    /// Appends bytes that are framed already: what the stream machine says.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn push_ready(&self, bytes: Bytes) -> Result<(), Full> {
        let length = bytes.len();
        self.append(Entry::Stanza(None), Piece::Ready(bytes), length).map(|_| ())
    }

    fn append(&self, entry: Entry<'_>, piece: Piece, length: usize) -> Result<bool, Full> {
        if !matches!(self.state.get(), State::Open | State::Detached) {
            return Ok(false);
        }
        let detached = self.state.get() == State::Detached;
        let total = self.bytes.get() + length;
        let limit = self.limit.get() + self.allowance.get();
        if total > limit {
            // Where an older presence of the sender goes for it, it may need no more room than that had.
            let freed = self.queue.borrow().replaced_by(entry);
            if total - freed > limit {
                return Err(Full);
            }
        }
        let superseded = self.change(|queue| queue.push(entry, piece, length, total > PRESSED || detached));
        let total = total - superseded.unwrap_or(0);
        self.count(total);
        let is_presence = matches!(entry, Entry::Presence(_));
        // Nobody is to wait for a client that is not there.
        if total > self.limit.get() / 2 && !detached {
            self.pressure.set_congested(true);
        }
        if self.queue.borrow().is_due() {
            self.filled.notify_one();
        }
        Ok(superseded.is_some() && is_presence)
    }

    /// Whether nobody looks at the client.
    #[must_use]
    pub fn is_inactive(&self) -> bool {
        self.queue.borrow().is_inactive()
    }

    /// Nobody looks at the client: of what can do so at most so many bytes wait until something comes that matters. Or
    /// somebody does again, and all that has waited goes out before what comes (XEP-0352).
    pub fn set_inactive(&self, most: Option<usize>) {
        let most = most.map(|most| most.min(self.limit.get() / 4));
        self.change(|queue| queue.set_inactive(most));
        self.filled.notify_one();
    }

    /// Changes the queue, and counts what waits aside.
    fn change<T>(&self, how: impl FnOnce(&mut Queue<Piece>) -> T) -> T {
        let mut queue = self.queue.borrow_mut();
        let before = queue.late();
        let result = how(&mut queue);
        self.late.changed(before, queue.late());
        result
    }

    fn count(&self, bytes: usize) {
        self.bytes.set(bytes);
        self.pressure.set_waiting(bytes);
    }

    /// Closes the box: what waits is written, then `last`, then the socket is closed.
    pub fn close(&self, last: Bytes) {
        if self.state.get() != State::Open {
            return;
        }
        self.count(self.bytes.get() + last.len());
        self.change(|queue| queue.push_last(Piece::Ready(last)));
        self.state.set(State::Closing);
        self.pressure.set_congested(false);
        self.filled.notify_one();
        self.ended.notify_one();
    }

    /// Closes the box and drops what waits: only `last` is still tried.
    pub fn abort(&self, last: Bytes) {
        if self.state.get() != State::Open {
            return;
        }
        self.change(Queue::clear);
        self.count(0);
        self.close(last);
    }

    /// Ends everything: nothing more is written. For the side that found the socket broken. A managed stream keeps what
    /// its client has not got.
    pub fn hang_up(&self) {
        if self.is_managed() {
            return self.detach(Bytes::new());
        }
        self.state.set(State::Closed);
        self.pressure.set_congested(false);
        self.change(Queue::clear);
        self.count(0);
        self.filled.notify_one();
        self.ended.notify_one();
    }

    /// Waits for bytes and moves what is next into `out`; `false` when the box is closed and empty. May be dropped where
    /// it waits.
    pub async fn take(&self, out: &mut Vec<u8>) -> bool {
        loop {
            if self.take_now(out) {
                return true;
            }
            if self.state.get() != State::Open {
                return false;
            }
            self.filled().await;
        }
    }

    /// Waits until something may have come. May be dropped where it waits.
    pub async fn filled(&self) {
        self.filled.notified().await;
    }

    /// Moves what is next into `out`, if there is something.
    pub fn take_now(&self, out: &mut Vec<u8>) -> bool {
        let before = out.len();
        self.waited.take_begins(before);
        if self.state.get() == State::Detached {
            out.extend_from_slice(&self.last.take().unwrap_or_default());
        } else if self.managed.borrow().is_some() {
            self.take_managed(out);
        } else if !self.queue.borrow().is_empty() {
            self.change(|queue| {
                queue.take(|piece| {
                    match piece {
                        Piece::Stanza(Left { bytes, waited, .. }) => {
                            self.framing.write(&bytes, out);
                            self.waited.taken(waited, out.len());
                        }
                        Piece::Element(bytes) | Piece::Enabled(bytes) => self.framing.write(&bytes, out),
                        Piece::Ready(bytes) => out.extend_from_slice(&bytes),
                        // Of a managed stream only.
                        Piece::Answer => {}
                    }
                    true
                });
            });
        }
        out.len() > before
    }

    /// The writer wrote `count` bytes that it had taken: they no longer count against the limit.
    pub fn written(&self, count: usize) {
        self.waited.written(count);
        let left = self.bytes.get().saturating_sub(count);
        self.count(left);
        if left <= self.limit.get() / 4 {
            self.allowance.set(0);
            self.pressure.set_congested(false);
        }
    }

    /// What waits for the session, as others see it.
    #[must_use]
    pub fn pressure(&self) -> &Arc<Pressure> {
        &self.pressure
    }

    /// Waits until the stream is to end.
    pub async fn ended(&self) {
        while self.state.get() == State::Open {
            self.ended.notified().await;
        }
    }

    /// The last words of the stream: the error, if there is one, and its end.
    #[must_use]
    pub fn last_words(&self, error: Option<&StreamError>) -> Bytes {
        self.framing.last_words(error).into()
    }

    /// Whether bytes are still taken.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state.get() == State::Open
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        // A connection that was aborted leaves its queue as it is.
        self.change(Queue::clear);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    fn outbox(limit: usize) -> Outbox {
        Outbox::new(limit, Arc::new(Pressure::new(1)), Framing::Tcp, Waiting::for_tests())
    }

    #[actix_rt::test]
    async fn others_see_a_client_that_does_not_keep_up() {
        let outbox = outbox(8);
        outbox.push(Entry::Stanza(None), bytes("abcd")).unwrap();
        assert!(!outbox.pressure().is_congested());
        outbox.push(Entry::Stanza(None), bytes("e")).unwrap();
        assert!(outbox.pressure().is_congested());
        assert!(outbox.take(&mut Vec::new()).await);
        outbox.written(2);
        assert!(outbox.pressure().is_congested());
        outbox.written(1);
        assert!(!outbox.pressure().is_congested());
    }

    #[actix_rt::test]
    async fn bytes_come_out_in_order_and_count_until_written() {
        let outbox = outbox(6);
        outbox.push(Entry::Stanza(None), bytes("abc")).unwrap();
        outbox.push(Entry::Stanza(None), bytes("def")).unwrap();
        let mut out = Vec::new();
        assert!(outbox.take(&mut out).await);
        assert_eq!(out, b"abcdef");
        assert_eq!(outbox.push(Entry::Stanza(None), bytes("g")), Err(Full), "taken, but not written");
        outbox.written(6);
        assert_eq!(outbox.push(Entry::Stanza(None), bytes("g")), Ok(false));
    }

    /// What a WebSocket adds counts as it comes and goes: else the bound would move with each stanza.
    #[actix_rt::test]
    async fn over_a_websocket_each_element_is_a_message_and_counts_as_one() {
        let outbox = Outbox::new(40, Arc::new(Pressure::new(1)), Framing::WebSocket, Waiting::for_tests());
        outbox.push(Entry::Stanza(None), bytes("<presence/>")).unwrap();
        assert_eq!(outbox.push(Entry::Stanza(None), bytes("<x/>")), Err(Full));
        outbox.push_ready(bytes("\u{1}\u{2}")).unwrap();
        let mut out = Vec::new();
        assert!(outbox.take(&mut out).await);
        assert_eq!(out, b"\x81\x21<presence xmlns='jabber:client'/>\x01\x02");
        outbox.written(out.len());
        assert_eq!(outbox.bytes.get(), 0);
    }

    /// P14: only the last word counts, also where no more words fit.
    #[actix_rt::test]
    async fn p14_a_later_presence_has_the_room_of_the_earlier_one() {
        let outbox = outbox(100_000);
        let text = |length: usize| Bytes::from("x".repeat(length));
        outbox.push(Entry::Stanza(None), text(PRESSED)).unwrap();
        for (from, length) in [("a", 40_000), ("b", 100_000 - PRESSED - 40_000)] {
            assert_eq!(outbox.push(Entry::Presence(from), text(length)), Ok(false));
        }
        assert_eq!(outbox.push(Entry::Presence("a"), text(40_000)), Ok(true));
        assert_eq!(outbox.push(Entry::Presence("a"), text(40_001)), Err(Full));
        assert_eq!(outbox.push(Entry::Stanza(Some("a")), text(40_000)), Err(Full), "it takes nobody's place");
        assert_eq!(outbox.push(Entry::Presence("a"), text(1)), Ok(true));
        assert_eq!(outbox.bytes.get(), 100_000 - 40_000 + 1);
    }

    #[actix_rt::test]
    async fn closing_writes_what_waits_and_the_last_words() {
        let outbox = outbox(3);
        outbox.push(Entry::Stanza(None), bytes("abc")).unwrap();
        outbox.close(bytes("</stream:stream>"));
        outbox.push(Entry::Stanza(None), bytes("too late")).unwrap();
        outbox.ended().await;
        let mut out = Vec::new();
        assert!(outbox.take(&mut out).await);
        assert_eq!(out, b"abc</stream:stream>");
        assert!(!outbox.take(&mut out).await);
    }

    #[actix_rt::test]
    async fn aborting_drops_what_waits() {
        let outbox = outbox(3);
        outbox.push(Entry::Stanza(None), bytes("abc")).unwrap();
        outbox.abort(bytes("!"));
        let mut out = Vec::new();
        assert!(outbox.take(&mut out).await);
        assert_eq!(out, b"!");
    }
}
