//! The part of the outbox of a stream with XEP-0198: stanzas are numbered where they are taken, and kept until the client
//! has acknowledged them.
//!
//! Policy: while `limits.unacked_stanzas` or `limits.unacked_bytes` are kept nothing more is taken; it waits in the queue,
//! whose own bound holds. A client that was asked and does not answer is given up by the writer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use althing_proto::stanza_id::StanzaId;
use althing_proto::stream::management::{self, Count, TooHigh};
use althing_proto::time::Timestamp;

use super::queue::Queue;
use super::{Full, Outbox, Piece, State};
use crate::metrics::Waiting;
use crate::node::Bound;
use crate::session::inbound::Inbound;
use crate::session::outbox::Entry;
use crate::session::sent::Sent;

/// A stanza for the client that it may have to be sent again.
#[derive(Debug, Clone)]
pub struct Left {
    /// Its bytes, as [`Outbox::push`] takes them.
    pub bytes: Bytes,
    /// When it was delivered, where it is to go elsewhere if the client does not get it.
    pub elsewhere: Option<Timestamp>,
    /// Its id in the store, where its bytes do not say it: wherever it goes it is not kept anew.
    pub known: Option<StanzaId>,
    /// Its id in the store, where it has waited and still is: then it goes nowhere else from here.
    pub waited: Option<StanzaId>,
}

/// What the client has acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledged {
    /// How many stanzas are no longer kept.
    pub stanzas: usize,
}

/// Counts and what is kept.
#[derive(Debug)]
pub(super) struct Managed {
    inbound: Arc<Inbound>,
    sent: Sent<Left>,
    /// Whether the element has gone out from which on is counted.
    counting: bool,
    most: (Bound, Bound),
    /// Counts what is kept, over all boxes of the node.
    kept: Waiting,
}

impl Managed {
    /// Changes what is kept, and counts it.
    fn change<T>(&mut self, how: impl FnOnce(&mut Sent<Left>) -> T) -> T {
        let before = self.sent.kept().0;
        let result = how(&mut self.sent);
        self.kept.changed(before, self.sent.kept().0);
        result
    }

    fn is_full(&self) -> bool {
        let (stanzas, bytes) = self.sent.kept();
        stanzas >= self.most.0.get() || bytes >= self.most.1.get()
    }
}

impl Drop for Managed {
    fn drop(&mut self) {
        self.change(|sent| drop(sent.take_all()));
    }
}

impl Outbox {
    /// From here on the stream is managed; stanzas are counted from behind `enabled` on. At most so many stanzas and
    /// bytes are kept. What the client sends is counted by what is given back.
    ///
    /// # Errors
    /// [`Full`].
    pub fn manage(&self, enabled: Bytes, most: (Bound, Bound), kept: Waiting) -> Result<Arc<Inbound>, Full> {
        let length = self.framing.length(&enabled);
        self.append(Entry::Stanza(None), Piece::Enabled(enabled), length)?;
        let inbound = Inbound::new(Count::default(), Arc::clone(&self.filled));
        let sent = Sent::after(Count::default());
        let managed = Managed { inbound: Arc::clone(&inbound), sent, counting: false, most, kept };
        *self.managed.borrow_mut() = Some(managed);
        Ok(inbound)
    }

    /// The stream goes on where another has broken off: the client has sent `handled` stanzas, has `acknowledged`, and is
    /// to be sent those that wait, but for the first `already`, which it may have.
    #[must_use]
    pub fn resume(
        &self,
        (handled, acknowledged): (Count, Count),
        (mut waiting, already): (Vec<Left>, usize),
        most: (Bound, Bound),
        kept: Waiting,
    ) -> Arc<Inbound> {
        let inbound = Inbound::new(handled, Arc::clone(&self.filled));
        let sent = Sent::after(acknowledged);
        let most_bytes = most.1.get();
        let managed = Managed { inbound: Arc::clone(&inbound), sent, counting: true, most, kept };
        *self.managed.borrow_mut() = Some(managed);
        self.go_on_with(&waiting);
        let now = Instant::now();
        for stanza in waiting.drain(..already.min(waiting.len())) {
            if let Some(managed) = self.managed.borrow_mut().as_mut() {
                let length = stanza.bytes.len();
                managed.change(|sent| sent.push(stanza, length, now));
            }
        }
        for stanza in waiting {
            let length = self.framing.length(&stanza.bytes);
            self.count(self.bytes.get() + length);
            self.change(|queue| queue.push(Entry::Stanza(None), Piece::Stanza(stanza), length, false));
        }
        // The crowd is that of the stream before, and not this client's slowness: no stanza is to end it.
        let waiting = self.bytes.get();
        self.allowance.set(waiting.min(most_bytes));
        if waiting > self.limit.get() / 2 {
            self.pressure.set_congested(true);
        }
        self.filled.notify_one();
        inbound
    }

    /// Takes out all stanzas that the client has not acknowledged or was not sent, in order, for a stream that goes on
    /// after so many; and how many of them it was sent.
    #[must_use]
    pub fn hand_over(&self) -> (Count, Vec<Left>, usize) {
        let mut managed = self.managed.borrow_mut();
        let Some(managed) = managed.as_mut() else { return (Count::default(), Vec::new(), 0) };
        let mut stanzas = managed.change(Sent::again);
        let sent = stanzas.len();
        let acknowledged = managed.sent.last();
        self.change(Queue::forget_inactive);
        while !self.queue.borrow().is_empty() {
            self.change(|queue| {
                queue.take(|piece| {
                    if let Piece::Stanza(stanza) = piece {
                        stanzas.push(stanza);
                    }
                    true
                });
            });
        }
        self.count(0);
        (acknowledged, stanzas, sent)
    }

    /// The client asks what is handled: it is told where its question stands among what it is sent.
    ///
    /// # Errors
    /// [`Full`].
    pub fn push_answer(&self) -> Result<(), Full> {
        self.append(Entry::Stanza(None), Piece::Answer, self.answer_length()).map(|_| ())
    }

    /// The longest that an answer can be.
    fn answer_length(&self) -> usize {
        self.framing.length(&management::answer(Count(u32::MAX)))
    }

    /// Whether the stream is managed.
    #[must_use]
    pub fn is_managed(&self) -> bool {
        self.managed.borrow().is_some()
    }

    /// The client says what it has handled.
    ///
    /// # Errors
    /// [`TooHigh`].
    pub fn acknowledged(&self, handled: Count) -> Result<Acknowledged, TooHigh> {
        let mut managed = self.managed.borrow_mut();
        let Some(managed) = managed.as_mut() else { return Ok(Acknowledged { stanzas: 0 }) };
        let was_full = managed.is_full();
        let mut stanzas = 0;
        managed.change(|sent| {
            sent.acknowledged(handled, |stanza: Left| {
                stanzas += 1;
                self.waited.arrived(stanza.waited);
            })
        })?;
        if was_full || managed.sent.kept().0 > 0 {
            // There is room again, or something to be asked for.
            self.filled.notify_one();
        }
        Ok(Acknowledged { stanzas })
    }

    /// When the writer has to look again though nothing comes; `patience` is the client's time to answer.
    #[must_use]
    pub fn look_again(&self, patience: Duration) -> Option<Instant> {
        self.managed.borrow().as_ref()?.sent.look_again(patience)
    }

    /// Whether the client was asked and has not answered in time.
    #[must_use]
    pub fn is_overdue(&self, patience: Duration) -> bool {
        let managed = self.managed.borrow();
        managed.as_ref().is_some_and(|managed| managed.sent.is_overdue(Instant::now(), patience))
    }

    /// The client's time to answer begins anew: it could not be heard.
    pub fn be_patient(&self) {
        if let Some(managed) = self.managed.borrow_mut().as_mut() {
            managed.sent.be_patient(Instant::now());
        }
    }

    /// Gives the connection up: only `last` is still tried. What comes for the client is kept, as what it has not
    /// acknowledged is.
    pub fn detach(&self, last: Bytes) {
        if self.state.get() != State::Open {
            return;
        }
        self.state.set(State::Detached);
        // §5.2 of XEP-0352: whatever it has said of itself is over.
        self.change(Queue::forget_inactive);
        *self.last.borrow_mut() = Some(last);
        self.pressure.set_congested(false);
        self.filled.notify_one();
        self.ended.notify_one();
    }

    /// Takes out, in order, what the client has not acknowledged, and what it was not sent, as far as that is to go
    /// elsewhere: the session ends.
    #[must_use]
    pub fn take_left(&self) -> Vec<Left> {
        let mut managed = self.managed.borrow_mut();
        let Some(managed) = managed.as_mut() else { return Vec::new() };
        let mut left: Vec<Left> = managed.change(|sent| sent.take_all().collect());
        left.retain(|stanza| stanza.elsewhere.is_some());
        let waiting = self.change(|queue| {
            queue.extract(|piece| matches!(piece, Piece::Stanza(Left { elsewhere: Some(_), .. })))
        });
        for piece in waiting {
            if let Piece::Stanza(stanza) = piece {
                self.count(self.bytes.get().saturating_sub(self.framing.length(&stanza.bytes)));
                left.push(stanza);
            }
        }
        left
    }

    /// As [`Outbox::take`], of a managed stream.
    pub(super) fn take_managed(&self, out: &mut Vec<u8>) {
        let mut managed = self.managed.borrow_mut();
        let Some(managed) = managed.as_mut() else { return };
        let now = Instant::now();
        // Whoever ends the stream has taken out what is not to go this way.
        let is_open = self.state.get() == State::Open;
        if !(is_open && managed.is_full()) {
            self.change(|queue| {
                queue.take(|piece| {
                    match piece {
                        Piece::Stanza(stanza) => {
                            self.framing.write(&stanza.bytes, out);
                            if managed.counting {
                                let length = stanza.bytes.len();
                                managed.change(|sent| sent.push(stanza, length, now));
                            }
                        }
                        Piece::Element(bytes) => self.framing.write(&bytes, out),
                        Piece::Enabled(bytes) => {
                            self.framing.write(&bytes, out);
                            managed.counting = true;
                        }
                        Piece::Ready(bytes) => out.extend_from_slice(&bytes),
                        Piece::Answer => {
                            let answer = management::answer(managed.inbound.asked());
                            let spare = self.answer_length().saturating_sub(self.framing.length(&answer));
                            self.count(self.bytes.get().saturating_sub(spare));
                            self.framing.write(&answer, out);
                        }
                    }
                    !(is_open && managed.is_full())
                });
            });
        }
        let mut say = |element: &[u8]| {
            self.count(self.bytes.get() + self.framing.length(element));
            self.framing.write(element, out);
        };
        if is_open && managed.counting {
            if let Some(safe) = managed.inbound.due() {
                say(&management::answer(safe));
            }
            if managed.sent.ask(now) {
                say(&management::ask());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use althing_proto::stream::Framing;

    use super::*;
    use crate::session::pressure::Pressure;
    use crate::session::sent::{ASK_AFTER, ASK_IN};

    const AT: Option<Timestamp> = Some(Timestamp::from_millis(7));
    const PATIENCE: Duration = Duration::from_secs(60);

    fn outbox() -> Outbox {
        Outbox::new(100_000, Arc::new(Pressure::new(1)), Framing::Tcp, Waiting::for_tests())
    }

    fn managed(most: usize) -> (Outbox, Arc<Inbound>) {
        let outbox = outbox();
        let enabled = Bytes::from_static(b"<enabled/>");
        let inbound = outbox.manage(enabled, (most.into(), 100_000.into()), Waiting::for_tests()).unwrap();
        (outbox, inbound)
    }

    fn push(outbox: &Outbox, text: &'static str, elsewhere: Option<Timestamp>) {
        outbox
            .push_stanza(Entry::Stanza(None), Bytes::from_static(text.as_bytes()), (elsewhere, None))
            .unwrap();
    }

    fn taken(outbox: &Outbox) -> String {
        let mut out = Vec::new();
        outbox.take_now(&mut out);
        outbox.written(out.len());
        String::from_utf8(out).unwrap()
    }

    #[tokio::test]
    async fn stanzas_count_from_enabled_on_and_nothing_else_does() {
        let outbox = outbox();
        push(&outbox, "1", None);
        outbox.manage(Bytes::from_static(b"<enabled/>"), (9.into(), 9.into()), Waiting::for_tests()).unwrap();
        push(&outbox, "2", None);
        outbox.push_element(Bytes::from_static(b"<a/>")).unwrap();
        assert_eq!(taken(&outbox), "1<enabled/>2<a/>");
        assert_eq!(outbox.acknowledged(Count(2)), Err(TooHigh { handled: Count(2), sent: Count(1) }));
        assert_eq!(outbox.acknowledged(Count(1)), Ok(Acknowledged { stanzas: 1 }));
        assert_eq!(outbox.acknowledged(Count(1)), Ok(Acknowledged { stanzas: 0 }));
    }

    #[tokio::test]
    async fn who_acknowledges_nothing_is_sent_no_more() {
        let (outbox, _) = managed(2);
        for text in ["1", "2", "3"] {
            push(&outbox, text, None);
        }
        assert_eq!(taken(&outbox), "<enabled/>12");
        assert_eq!(taken(&outbox), "");
        outbox.acknowledged(Count(1)).unwrap();
        assert_eq!(taken(&outbox), "3");
    }

    #[tokio::test]
    async fn r3_the_client_is_asked_in_the_same_write() {
        let (outbox, _) = managed(1_000);
        for _ in 0..ASK_AFTER {
            push(&outbox, "x", None);
        }
        assert!(taken(&outbox).ends_with("x<r xmlns='urn:xmpp:sm:3'/>"));
        assert!(outbox.look_again(PATIENCE).is_some_and(|at| at > Instant::now() + ASK_IN));
        assert!(!outbox.is_overdue(PATIENCE) && outbox.is_overdue(Duration::ZERO));
        outbox.acknowledged(Count(ASK_AFTER as u32)).unwrap();
        assert_eq!(outbox.look_again(PATIENCE), None);
        push(&outbox, "y", None);
        assert_eq!(taken(&outbox), "y");
        assert!(outbox.look_again(PATIENCE).is_some_and(|at| at <= Instant::now() + ASK_IN));
        assert_eq!(outbox.bytes.get(), 0, "what it says itself is counted too");
    }

    #[tokio::test]
    async fn r4_what_is_left_goes_elsewhere_in_order_and_is_not_written() {
        let (outbox, _) = managed(2);
        for (text, elsewhere) in [("1", AT), ("2", None), ("3", AT), ("4", None), ("5", AT)] {
            push(&outbox, text, elsewhere);
        }
        assert_eq!(taken(&outbox), "<enabled/>12");
        let left = outbox.take_left();
        let left: Vec<&[u8]> = left.iter().map(|stanza| &stanza.bytes[..]).collect();
        assert_eq!(left, [b"1", b"3", b"5"]);
        outbox.close(Bytes::from_static(b"|"));
        assert_eq!(taken(&outbox), "4|");
        assert_eq!(outbox.bytes.get(), 0);
    }

    #[tokio::test]
    async fn r2_the_writer_tells_what_has_become_safe() {
        let (outbox, inbound) = managed(9);
        let hold = inbound.begin();
        outbox.push_answer().unwrap();
        assert_eq!(taken(&outbox), "<enabled/><a xmlns='urn:xmpp:sm:3' h='0'/>");
        assert_eq!((taken(&outbox), outbox.bytes.get()), (String::new(), 0));
        drop(hold);
        let mut out = Vec::new();
        assert!(outbox.take(&mut out).await);
        assert_eq!(out, b"<a xmlns='urn:xmpp:sm:3' h='1'/>");
    }

    /// An answer that waits, because the client acknowledges nothing, says no less than what was said meanwhile.
    #[tokio::test]
    async fn r2_no_answer_says_less_than_one_before_it() {
        let (outbox, inbound) = managed(1);
        let [first, second] = [(); 2].map(|()| inbound.begin());
        outbox.push_answer().unwrap();
        push(&outbox, "1", None);
        assert_eq!(taken(&outbox), "<enabled/><a xmlns='urn:xmpp:sm:3' h='0'/>1");
        outbox.push_answer().unwrap();
        drop((first, second));
        assert_eq!(taken(&outbox), "<a xmlns='urn:xmpp:sm:3' h='2'/>");
        outbox.acknowledged(Count(1)).unwrap();
        assert_eq!(taken(&outbox), "<a xmlns='urn:xmpp:sm:3' h='2'/>");
    }

    /// What waited for the stream before, and what that had sent in vain, is more than may wait for a client.
    #[tokio::test]
    async fn a_stream_that_is_resumed_with_much_goes_on() {
        let outbox = Outbox::new(10, Arc::new(Pressure::new(1)), Framing::Tcp, Waiting::for_tests());
        let left = |text: &'static str| Left {
            bytes: Bytes::from_static(text.as_bytes()),
            elsewhere: None,
            known: None,
            waited: None,
        };
        let waiting = vec![left("12345678"), left("12345678")];
        drop(outbox.resume((Count(0), Count(0)), (waiting, 0), (9.into(), 20.into()), Waiting::for_tests()));
        assert!(outbox.pressure().is_congested(), "whoever writes to it is slowed down");
        push(&outbox, "1234", None);
        assert!(
            outbox.push_stanza(Entry::Stanza(None), vec![b'x'; 10].into(), (None, None)).is_err(),
            "it has an end"
        );
        assert_eq!(taken(&outbox).len(), 20);
        assert!(!outbox.pressure().is_congested());
        assert!(
            outbox.push_stanza(Entry::Stanza(None), vec![b'x'; 11].into(), (None, None)).is_err(),
            "as ever"
        );
    }
}
