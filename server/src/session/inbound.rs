//! The client's stanzas on a stream with XEP-0198, shared with whoever makes something durable of them.

use std::borrow::Cow;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::thread;

use parking_lot::Mutex;
use tokio::sync::Notify;

use althing_cluster::routes::BindIndex;
use althing_proto::ns;
use althing_proto::stanza::Stanza;
use althing_proto::stanza_id::StanzaId;
use althing_proto::stream::management::Count;
use althing_proto::xml::Element;

use super::acks::{Follows, Received};
use super::records::Records;
use crate::config::Durability;
use crate::faults::{self, Fault};
use crate::node::NodeContext;
use crate::storage::streams::{Handled, KeepPlace, StreamKey, StreamRecord};

/// Most stanzas of one client that have come and are not safe: with more its socket is not read.
pub const MAX_UNSAFE: usize = 1_024;

/// What has come from one client, and what of it is safe.
pub struct Inbound {
    received: Mutex<Received>,
    /// Wakes the stream's writer, where an answer is due that was owed.
    writer: Arc<Notify>,
    /// Tells that more is safe, or stored.
    progress: Notify,
    /// Set where the store has a record of the stream.
    recorded: OnceLock<(StreamKey, BindIndex, Weak<NodeContext>)>,
    /// Whether it is among those of which the store is to be told more.
    listed: AtomicBool,
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
        let (progress, recorded) = (Notify::new(), OnceLock::new());
        Arc::new(Inbound { received, writer, progress, recorded, listed: AtomicBool::new(false) })
    }

    /// The store knows of the stream from now on, so far as it is safe. Where its host commits
    /// (`durability`) its client is told no more than the store has.
    pub fn record(self: &Arc<Self>, node: &Arc<NodeContext>, key: StreamKey, bind: BindIndex, seconds: u64) {
        let durable = node.config().messages.durability_for(&key.jid.to_bare()) == Durability::Commit;
        let handled = {
            let mut received = self.received.lock();
            let safe = received.safe();
            received.noted().begins(safe, durable && !faults::makes(Fault::HandledNotCommitted));
            safe
        };
        // Once only.
        let _ = self.recorded.set((key.clone(), bind, Arc::downgrade(node)));
        Records::began(node, self, StreamRecord { key, bind, handled, seconds });
    }

    /// The store has the record of the stream. `late`: so far, and not with what was kept meanwhile.
    pub(super) fn is_known(self: &Arc<Self>, late: Option<Count>) {
        self.change(|received| match late {
            Some(handled) => received.known_late(handled),
            None => received.noted().is_known(),
        });
    }

    /// The store will not have a record of the stream.
    pub(super) fn is_unknown(self: &Arc<Self>) {
        self.change(|received| received.noted().is_none());
    }

    /// What the store does not know and is told now: [`noted`](Self::noted) says how that went.
    pub(super) fn to_note(&self) -> Option<Handled> {
        self.listed.store(false, Ordering::SeqCst);
        let (key, ..) = self.recorded.get()?;
        let number = self.received.lock().note()?;
        Some(Handled { key: key.clone(), number, place: None })
    }

    /// The store was told so much, or could not be.
    pub(super) fn noted(self: &Arc<Self>, number: Count, stored: bool) {
        self.change(|received| received.noted().noted(number, stored));
    }

    /// Changes what has come or what is known of it, and sees to what follows.
    fn change<T>(self: &Arc<Self>, how: impl FnOnce(&mut Received) -> T) -> T {
        let (result, follows) = {
            let mut received = self.received.lock();
            (how(&mut received), received.follows())
        };
        self.progress.notify_waiters();
        self.see_to(follows);
        result
    }

    fn see_to(self: &Arc<Self>, follows: Follows) {
        if follows.due {
            self.writer.notify_one();
        }
        if follows.note
            && let Some((_, _, node)) = self.recorded.get()
            && let Some(node) = node.upgrade()
        {
            if !self.listed.swap(true, Ordering::SeqCst) {
                Records::behind(&node, self);
            }
            if follows.hurry {
                node.records.hurry();
            }
        }
    }

    /// A stanza has come: it is not safe before the hold is dropped.
    #[must_use]
    pub fn begin(self: &Arc<Self>) -> Hold {
        let number = self.received.lock().begin();
        Hold::of(Arc::clone(self), number, true)
    }

    /// The client asks what is safe. What is, but is not stored, is stored at once.
    #[must_use]
    pub fn asked(self: &Arc<Self>) -> Count {
        let (told, follows) = {
            let mut received = self.received.lock();
            (received.asked(), received.follows())
        };
        self.see_to(follows);
        told
    }

    /// What the client is to be told unasked.
    #[must_use]
    pub fn due(&self) -> Option<Count> {
        self.received.lock().due()
    }

    /// The stream goes on elsewhere after so many stanzas, the last of which the client may hear here; and the last that is
    /// safe.
    #[must_use]
    pub fn give(&self) -> (Count, Count) {
        let mut received = self.received.lock();
        (received.give(), received.safe())
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

    /// Waits until all that has come is safe, and the store knows. The caller sets the deadline.
    pub async fn all_stored(self: &Arc<Self>) {
        self.all_safe().await;
        let follows = self.received.lock().follows();
        self.see_to(Follows { hurry: true, ..follows });
        self.until(|received| received.may_be_told() == received.safe()).await;
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
/// Whoever commits something of a stanza clones the hold, and says when that is committed ([`kept`](Hold::kept)), or drops the
/// clone when the sender was told that it will not be. May be dropped on any thread. One that goes with its place and without
/// a word (a panic, the end of the node) makes nothing safe.
#[derive(Debug)]
pub struct Hold {
    inbound: Arc<Inbound>,
    number: Count,
    /// The session's own.
    own: bool,
    /// What it is for has its place in the order of the store: the turn, and the number in it.
    ahead: Option<(u32, u64)>,
    /// What has its place is kept.
    kept: bool,
    /// It will never be safe.
    void: bool,
}

impl Hold {
    fn of(inbound: Arc<Inbound>, number: Count, own: bool) -> Self {
        Hold { inbound, number, own, ahead: None, kept: false, void: false }
    }

    /// What it is for is kept, in its place if it has one.
    pub fn kept(mut self) {
        self.kept = true;
    }

    /// What it is for is not kept, and its sender was told so on another stream: nothing more is acknowledged on this one.
    pub fn never(mut self) {
        self.is_behind();
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
    /// it is kept, and all that has its place before it, where the store has a record of the stream. To be kept in the same
    /// change ([`Storage::keep_and_handle`](crate::storage::Storage::keep_and_handle)), at once.
    #[must_use]
    pub fn commits(&mut self) -> Option<Handled> {
        let (key, bind, _) = self.inbound.recorded.get()?;
        if self.own || self.ahead.is_some() || faults::makes(Fault::HandledNotCommitted) {
            return None;
        }
        let (handled, turn, number) = self.inbound.received.lock().ahead(self.number);
        self.ahead = Some((turn, number));
        let place = Some(KeepPlace { bind: *bind, turn, number });
        Some(Handled { key: key.clone(), number: handled, place })
    }

    /// What the hold is for was not kept, or nobody knows whether it was: it has no place in the order of the store any more,
    /// and what is kept behind it says nothing of what is handled.
    pub fn is_behind(&mut self) {
        if let Some((turn, _)) = self.ahead.take() {
            self.inbound.change(|received| received.behind(turn));
        }
    }

    /// The id of a message that came as this stanza: the same each time it comes (XEP-0359). Under the same number another
    /// one may come, from a client that has forgotten what it had sent: that is another message. `xml`: the message standing
    /// alone. `None` where the store has no record of the stream.
    #[must_use]
    pub fn stanza_id(&self, secret: &[u8; 32], message: &Stanza, xml: &[u8]) -> Option<StanzaId> {
        let (key, ..) = self.inbound.recorded.get()?;
        let xml = as_written(message).map_or(Cow::Borrowed(xml), |first| Cow::Owned(first.to_standalone()));
        let parts = [&key.hash[..], &self.number.0.to_be_bytes(), &xml];
        Some(StanzaId::derived(secret, &parts))
    }
}

/// A message as it was written the first time: XEP-0198 §5 has a client say when that was (XEP-0203), if it sends it again.
/// `None`: it is so.
fn as_written(message: &Stanza) -> Option<Stanza> {
    let says_when = |child: &Element| child.is("delay", ns::DELAY);
    if !message.element().children().any(says_when) {
        return None;
    }
    let mut element = message.element().clone();
    for node in element.take_nodes() {
        if !node.as_element().is_some_and(says_when) {
            element.append_node(node);
        }
    }
    let (from, to) = (message.from().cloned(), message.to().cloned());
    Some(Stanza::from_parts(message.kind(), from, to, element))
}

impl Clone for Hold {
    fn clone(&self) -> Self {
        self.inbound.received.lock().more(self.number);
        Hold::of(Arc::clone(&self.inbound), self.number, false)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.void {
            return;
        }
        if thread::panicking() || self.ahead.is_some() && !self.kept {
            return self.is_behind();
        }
        let (advanced, follows) = {
            let mut received = self.inbound.received.lock();
            (received.done(self.number, self.own, self.ahead), received.follows())
        };
        if advanced || self.ahead.is_some() {
            self.inbound.progress.notify_waiters();
        }
        self.inbound.see_to(follows);
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

    /// What is being kept and is given up without a word, as by a panic, is not handled: nor is it told so.
    #[tokio::test]
    async fn r1_what_has_its_place_is_handled_when_it_is_said_to_be_kept() {
        let node = Arc::new(NodeContext::for_tests());
        let jid = althing_proto::jid::FullJid::new("a@localhost/x").unwrap();
        let keep = |end: fn(Hold)| {
            let inbound = Inbound::new(Count(0), Arc::default());
            inbound.record(&node, StreamKey { jid: jid.clone(), hash: [7; 32] }, BindIndex(1), 60);
            let mut keeping = inbound.begin().clone();
            assert_eq!(keeping.commits().unwrap().number, Count(1));
            end(keeping);
            let second = inbound.begin();
            second.is_last(true);
            (inbound.safe(), second.clone().commits().unwrap().number)
        };
        assert_eq!(keep(Hold::kept), (Count(1), Count(2)));
        assert_eq!(keep(drop), (Count(0), Count(0)), "nor is what comes behind it");
        let panicking = |hold: Hold| {
            let mut hold = hold;
            hold.is_behind();
            std::thread::spawn(move || {
                let _hold = hold;
                panic!("while it is kept");
            })
            .join()
            .unwrap_err();
        };
        assert_eq!(keep(panicking), (Count(0), Count(0)));
        let told = |mut hold: Hold| hold.is_behind();
        assert_eq!(keep(told), (Count(1), Count(2)), "its sender was told");
    }

    /// A stanza that comes again under its number is the same message, another one under it is not.
    #[tokio::test]
    async fn another_message_under_the_same_number_has_another_id() {
        let node = Arc::new(NodeContext::for_tests());
        let jid = althing_proto::jid::FullJid::new("a@localhost/x").unwrap();
        let id = |inside: &str, to: &str| {
            let inbound = Inbound::new(Count(0), Arc::default());
            inbound.record(&node, StreamKey { jid: jid.clone(), hash: [7; 32] }, BindIndex(1), 60);
            let xml = format!(
                "<message xmlns='jabber:client' from='{jid}' to='b@localhost{to}' id='1'>{inside}</message>"
            );
            let message = Stanza::parse(xml.parse().unwrap()).unwrap();
            inbound.begin().stanza_id(&[1; 32], &message, &message.to_standalone()).unwrap()
        };
        let (first, body) = (id("<body>x</body>", ""), "<body>x</body>");
        let delay = "<delay xmlns='urn:xmpp:delay' from='a@localhost/x' stamp='2026-11-26T22:00:00Z'/>";
        assert_eq!(id(&format!("{body}{delay}"), ""), first, "it says when it was written first");
        assert_ne!(id("<body>y</body>", ""), first);
        assert_ne!(id(body, "/phone"), id(body, "/desk"), "one stanza for both (XEP-0033)");
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
