//! PURE: what has come from one start of one peer on one lane: nothing is run twice, no reply is lost early.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

/// Most replies kept for repeating.
const MAX_REPLIES: usize = 8192;
/// Most bytes of replies kept for repeating. A reply above it is written once and not kept.
const MAX_REPLY_BYTES: usize = 16 << 20;

/// What to do with a task or request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// It is new: run it.
    Run,
    /// It has been run or is running; what answers it follows, or has been set to be written again.
    Repeated,
    /// It is a request that has been run, and its reply is no longer kept.
    ReplyLost,
}

/// What to write to the peer.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Answers {
    /// All tasks up to this number have been run.
    pub(crate) ack: Option<u64>,
    /// Replies by number.
    pub(crate) replies: Vec<(u64, Bytes)>,
}

/// The receiving side of an outbox. Numbers come in growing order on each connection, so the highest number seen
/// is all that is needed to know a repetition: no window can be too small.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    connection: u64,
    seen: u64,
    done: u64,
    ack_due: bool,
    running: BTreeSet<u64>,
    replies: BTreeMap<u64, Bytes>,
    bytes: usize,
    due: BTreeSet<u64>,
}

impl Inbox {
    /// A new connection, the number of which is returned: the peer gets to know what is done, and asks for the
    /// replies that it misses.
    pub(crate) fn connected(&mut self) -> u64 {
        self.connection += 1;
        self.due.clear();
        self.ack_due = self.done > 0;
        self.connection
    }

    /// A task or, if it `wants_reply`, a request has come.
    pub(crate) fn arrived(&mut self, number: u64, wants_reply: bool) -> Arrival {
        if number > self.seen {
            self.seen = number;
            if wants_reply {
                self.running.insert(number);
            }
            return Arrival::Run;
        }
        if !wants_reply {
            self.ack_due |= number <= self.done;
        } else if self.replies.contains_key(&number) {
            self.due.insert(number);
        } else if !self.running.contains(&number) {
            return Arrival::ReplyLost;
        }
        Arrival::Repeated
    }

    /// Something that is run in order is done, and all before it are.
    pub(crate) fn done_in_order(&mut self, number: u64) {
        self.done = self.done.max(number);
        self.ack_due = true;
    }

    /// A request has its reply.
    pub(crate) fn replied(&mut self, number: u64, body: Bytes) {
        self.running.remove(&number);
        self.bytes += body.len();
        if let Some(before) = self.replies.insert(number, body) {
            self.bytes -= before.len();
        }
        self.due.insert(number);
        while self.replies.len() > MAX_REPLIES || self.bytes > MAX_REPLY_BYTES {
            let Some((_, oldest)) = self.replies.pop_first() else { break };
            self.bytes -= oldest.len();
        }
    }

    /// The peer has all replies below `number`.
    pub(crate) fn forget_below(&mut self, number: u64) {
        let kept = self.replies.split_off(&number);
        let gone = std::mem::replace(&mut self.replies, kept);
        self.bytes -= gone.values().map(Bytes::len).sum::<usize>();
    }

    /// What is to be written now, until the replies have `enough` bytes. Nothing for a `connection` that is no
    /// longer the last: what it took would be lost with it.
    pub(crate) fn take(&mut self, connection: u64, enough: usize) -> Answers {
        if connection != self.connection {
            return Answers::default();
        }
        let ack = std::mem::take(&mut self.ack_due).then_some(self.done);
        let mut answers = Answers { ack, replies: Vec::new() };
        let mut bytes = 0;
        while bytes < enough {
            let Some(number) = self.due.pop_first() else { break };
            if let Some(body) = self.replies.get(&number) {
                bytes += body.len();
                answers.replies.push((number, body.clone()));
            }
        }
        answers
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use proptest::prelude::*;

    use super::*;
    use crate::link::frame::{FrameKind, FrameReader, Lane};
    use crate::link::outbox::{Entry, Outbox, OutboxLimits};

    fn body(size: usize) -> Bytes {
        Bytes::from(vec![0; size])
    }

    #[test]
    fn nothing_is_run_twice() {
        let mut inbox = Inbox::default();
        assert_eq!(inbox.arrived(5, false), Arrival::Run);
        assert_eq!(inbox.arrived(7, false), Arrival::Run, "a number may be missing: its sender gave it up");
        assert_eq!(inbox.arrived(5, false), Arrival::Repeated);
        assert_eq!(inbox.arrived(6, false), Arrival::Repeated, "it would be out of order");
    }

    #[test]
    fn tasks_are_acknowledged_when_done_and_again_on_a_new_connection() {
        let mut inbox = Inbox::default();
        inbox.arrived(1, false);
        inbox.arrived(2, false);
        assert_eq!(inbox.take(0, 100).ack, None);
        inbox.done_in_order(1);
        inbox.done_in_order(2);
        assert_eq!(inbox.take(0, 100).ack, Some(2));
        assert_eq!(inbox.take(0, 100).ack, None);
        assert_eq!(inbox.connected(), 1);
        assert_eq!(inbox.take(0, 100), Answers::default(), "the older connection takes nothing away");
        assert_eq!(inbox.take(1, 100).ack, Some(2));
    }

    #[test]
    fn a_repeated_request_gets_its_reply_once_more() {
        let mut inbox = Inbox::default();
        assert_eq!(inbox.arrived(1, true), Arrival::Run);
        inbox.connected();
        assert_eq!(inbox.arrived(1, true), Arrival::Repeated, "it is running");
        assert!(inbox.take(1, 100).replies.is_empty());
        inbox.replied(1, body(1));
        assert_eq!(inbox.take(1, 100).replies, [(1, body(1))]);
        inbox.connected();
        assert_eq!(inbox.arrived(1, true), Arrival::Repeated);
        assert_eq!(inbox.take(2, 100).replies, [(1, body(1))]);
        inbox.forget_below(2);
        assert_eq!(inbox.arrived(1, true), Arrival::ReplyLost);
    }

    #[test]
    fn kept_replies_are_bounded_by_number_and_bytes() {
        let mut inbox = Inbox::default();
        let last = MAX_REPLIES as u64 + 10;
        for number in 1..=last {
            inbox.arrived(number, true);
            inbox.replied(number, body(1));
        }
        assert_eq!(inbox.replies.len(), MAX_REPLIES);
        assert_eq!(inbox.arrived(10, true), Arrival::ReplyLost);
        for number in last + 1..last + 40 {
            inbox.arrived(number, true);
            inbox.replied(number, body(1 << 20));
            assert!(inbox.bytes <= MAX_REPLY_BYTES);
        }
        assert_eq!(inbox.replies.len(), 16);
        inbox.forget_below(u64::MAX);
        assert_eq!(inbox.bytes, 0);
    }

    #[test]
    fn a_batch_of_replies_ends_when_it_has_enough() {
        let mut inbox = Inbox::default();
        for number in 1..=3 {
            inbox.arrived(number, true);
            inbox.replied(number, body(10));
        }
        assert_eq!(inbox.take(0, 20).replies.len(), 2);
        assert_eq!(inbox.take(0, 20).replies.len(), 1);
    }

    /// An outbox and an inbox with a wire between them that breaks: what gets through is drawn.
    struct Pair {
        outbox: Outbox<u64>,
        inbox: Inbox,
        connection: u64,
        ran: Vec<u64>,
        answered: BTreeSet<u64>,
    }

    impl Pair {
        /// One connection that carries `forth` frames to the inbox and `back` answers from it, then breaks.
        fn connect(&mut self, forth: usize, back: usize) {
            self.outbox.reconnected();
            self.connection = self.inbox.connected();
            let mut out = BytesMut::new();
            self.outbox.write(1, usize::MAX, &mut out);
            let mut reader = FrameReader::new(100);
            reader.buffer().extend_from_slice(&out);
            let frames = std::iter::from_fn(|| reader.next_frame().unwrap());
            for frame in frames.take(forth) {
                let wants_reply = frame.kind == FrameKind::Request;
                if self.inbox.arrived(frame.id, wants_reply) == Arrival::Run {
                    self.ran.push(frame.id);
                    self.inbox.done_in_order(frame.id);
                    if wants_reply {
                        self.inbox.replied(frame.id, body(1));
                    }
                }
            }
            let answers = self.inbox.take(self.connection, usize::MAX);
            if let Some(number) = answers.ack.filter(|_| back > 0) {
                self.outbox.acknowledged(number);
            }
            for (number, _) in answers.replies.into_iter().take(back) {
                let waiter = self.outbox.remove(number).and_then(|entry| entry.waiter);
                assert!(waiter.is_none_or(|waiter| waiter == number && self.answered.insert(number)));
            }
            self.inbox.forget_below(self.outbox.lowest());
        }
    }

    proptest! {
        #[test]
        fn over_any_breaks_all_is_run_once_in_order_and_answered(
            rounds in proptest::collection::vec((any::<Vec<bool>>(), 0..200_usize, 0..200_usize), 0..12)
        ) {
            let limits = OutboxLimits { entries: usize::MAX, bytes: usize::MAX };
            let outbox = Outbox::new(Lane::Tasks, 1, limits);
            let (inbox, ran, answered) = Default::default();
            let mut pair = Pair { outbox, inbox, connection: 0, ran, answered };
            let mut asked = BTreeSet::new();
            for (posted, forth, back) in rounds {
                for asks in posted {
                    let number = pair.outbox.next();
                    let waiter = asks.then_some(number);
                    asked.extend(waiter);
                    prop_assert_eq!(pair.outbox.push(Entry { since: 1, body: body(1), waiter }), Ok(number));
                }
                pair.connect(forth, back);
            }
            pair.connect(usize::MAX, usize::MAX);
            prop_assert_eq!(pair.ran, (1..pair.outbox.next()).collect::<Vec<_>>());
            prop_assert_eq!(pair.answered, asked);
            prop_assert_eq!((pair.outbox.len(), pair.outbox.bytes()), (0, 0));
        }
    }
}
