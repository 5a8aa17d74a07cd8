//! PURE: what waits to be sent to a peer or to be answered by it, on one lane.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};

use crate::link::error::LinkError;
use crate::link::frame::{Frame, FrameKind, Lane};

/// How much may wait. A full outbox refuses what comes next: the sender decides what becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxLimits {
    /// Tasks and requests.
    pub entries: usize,
    /// Bytes of their bodies.
    pub bytes: usize,
}

/// Something to send; `waiter` gets the reply.
#[derive(Debug)]
pub(crate) struct Entry<W> {
    /// The first protocol version that knows what is sent.
    pub(crate) since: u16,
    /// The body of the frame.
    pub(crate) body: Bytes,
    /// Who waits for the reply: then a request is sent, else a task.
    pub(crate) waiter: Option<W>,
}

/// The outbox of one lane to one peer. Sequence numbers only grow, over all connections.
#[derive(Debug)]
pub(crate) struct Outbox<W> {
    lane: Lane,
    limits: OutboxLimits,
    next: u64,
    /// The highest number written to the present connection.
    sent: u64,
    /// The highest number written to any.
    sent_ever: u64,
    entries: BTreeMap<u64, Entry<W>>,
    bytes: usize,
    resent: u64,
}

impl<W> Outbox<W> {
    /// An empty outbox whose first sequence number is `first`, at least 1.
    pub(crate) fn new(lane: Lane, first: u64, limits: OutboxLimits) -> Self {
        let (next, sent) = (first.max(1), first.max(1) - 1);
        Outbox { lane, limits, next, sent, sent_ever: sent, entries: BTreeMap::new(), bytes: 0, resent: 0 }
    }

    /// Adds an entry and returns its number.
    ///
    /// # Errors
    /// As [`Outbox::room_for`].
    #[cfg(test)]
    pub(crate) fn push(&mut self, entry: Entry<W>) -> Result<u64, LinkError> {
        self.room_for(entry.body.len())?;
        Ok(self.push_unchecked(entry))
    }

    /// Whether an entry with a body of that size fits.
    ///
    /// # Errors
    /// [`LinkError::TooLarge`] and [`LinkError::Full`].
    pub(crate) fn room_for(&self, size: usize) -> Result<(), LinkError> {
        if size > self.lane.max_body() {
            return Err(LinkError::TooLarge(size));
        }
        if self.entries.len() >= self.limits.entries || self.bytes + size > self.limits.bytes {
            return Err(LinkError::Full);
        }
        Ok(())
    }

    /// Adds an entry for which there is room and returns its number.
    pub(crate) fn push_unchecked(&mut self, entry: Entry<W>) -> u64 {
        let number = self.next;
        self.next += 1;
        self.bytes += entry.body.len();
        self.entries.insert(number, entry);
        number
    }

    /// Appends frames that the present connection has not carried yet, until `out` holds `enough` bytes. Returns
    /// the entries that the peer is too old for; they are not sent at all.
    pub(crate) fn write(&mut self, version: u16, enough: usize, out: &mut BytesMut) -> Vec<Entry<W>> {
        let mut too_old = Vec::new();
        let mut written = self.sent;
        for (number, entry) in self.entries.range(self.sent + 1..) {
            if out.len() >= enough {
                break;
            }
            written = *number;
            if entry.since > version {
                too_old.push(*number);
                continue;
            }
            let kind = if entry.waiter.is_some() { FrameKind::Request } else { FrameKind::Task };
            let frame = Frame { version, lane: self.lane, kind, id: *number, body: entry.body.clone() };
            // The size was checked when the entry came in.
            let _ = frame.write(out);
            self.resent += u64::from(*number <= self.sent_ever);
        }
        self.sent = written;
        self.sent_ever = self.sent_ever.max(written);
        too_old.into_iter().filter_map(|number| self.remove(number)).collect()
    }

    /// All tasks up to `number` have been run. Requests wait for their replies.
    pub(crate) fn acknowledged(&mut self, number: u64) {
        let up_to = self.entries.range(..=number);
        let done: Vec<u64> = up_to.filter(|(_, entry)| entry.waiter.is_none()).map(|(n, _)| *n).collect();
        for number in done {
            self.remove(number);
        }
    }

    /// Takes the request out whose reply has come, or for which nobody waits any more.
    pub(crate) fn remove(&mut self, number: u64) -> Option<Entry<W>> {
        let entry = self.entries.remove(&number)?;
        self.bytes -= entry.body.len();
        Some(entry)
    }

    /// A new connection: everything that waits is written to it, in the old order.
    pub(crate) fn reconnected(&mut self) {
        self.sent = self.lowest() - 1;
    }

    /// Takes out the requests that were written to any connection, in order: their replies may come no more.
    pub(crate) fn take_asked(&mut self) -> Vec<Entry<W>> {
        let asked = self.entries.range(..=self.sent_ever).filter(|(_, entry)| entry.waiter.is_some());
        let asked: Vec<u64> = asked.map(|(number, _)| *number).collect();
        asked.into_iter().filter_map(|number| self.remove(number)).collect()
    }

    /// Takes everything out, in order.
    pub(crate) fn drain(&mut self) -> Vec<Entry<W>> {
        self.bytes = 0;
        std::mem::take(&mut self.entries).into_values().collect()
    }

    /// The lowest number that is still unanswered, or else the next one.
    pub(crate) fn lowest(&self) -> u64 {
        self.entries.keys().next().copied().unwrap_or(self.next)
    }

    /// The number of the next entry.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// How many entries wait.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of the bodies that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many frames were written more than once.
    pub(crate) fn resent(&self) -> u64 {
        self.resent
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::frame::FrameReader;

    const LIMITS: OutboxLimits = OutboxLimits { entries: 4, bytes: 100 };

    fn entry(text: &'static str, waiter: Option<u8>) -> Entry<u8> {
        Entry { since: 1, body: Bytes::from_static(text.as_bytes()), waiter }
    }

    fn outbox(entries: &[(&'static str, Option<u8>)]) -> Outbox<u8> {
        let mut outbox = Outbox::new(Lane::Tasks, 1, LIMITS);
        for (text, waiter) in entries {
            outbox.push(entry(text, *waiter)).unwrap();
        }
        outbox
    }

    fn written(outbox: &mut Outbox<u8>, enough: usize) -> Vec<(u64, FrameKind)> {
        let mut reader = FrameReader::new(1000);
        assert!(outbox.write(1, enough, reader.buffer()).is_empty());
        std::iter::from_fn(|| reader.next_frame().unwrap()).map(|frame| (frame.id, frame.kind)).collect()
    }

    #[test]
    fn each_entry_is_written_once_a_connection_and_repeated_until_answered() {
        use FrameKind::{Request, Task};
        let mut outbox = outbox(&[("a", None), ("b", Some(2)), ("c", None)]);
        assert_eq!(written(&mut outbox, 1000), [(1, Task), (2, Request), (3, Task)]);
        assert_eq!(written(&mut outbox, 1000), []);
        outbox.acknowledged(2);
        assert_eq!(outbox.lowest(), 2, "a request waits for its reply, not for an acknowledgement");
        outbox.reconnected();
        assert_eq!(written(&mut outbox, 1000), [(2, Request), (3, Task)]);
        assert_eq!(outbox.resent(), 2);
        assert_eq!(outbox.remove(2).unwrap().waiter, Some(2));
        assert!(outbox.remove(2).is_none());
        outbox.acknowledged(3);
        assert_eq!((outbox.len(), outbox.bytes(), outbox.lowest()), (0, 0, 4));
    }

    #[test]
    fn requests_that_were_sent_can_be_taken_back_and_nothing_else() {
        let mut outbox = outbox(&[("a", None), ("b", Some(1)), ("c", Some(2))]);
        assert!(outbox.take_asked().is_empty(), "none was sent");
        assert_eq!(written(&mut outbox, 20).len(), 2);
        outbox.reconnected();
        let asked: Vec<_> = outbox.take_asked().into_iter().map(|entry| entry.waiter).collect();
        assert_eq!(asked, [Some(1)]);
        assert_eq!(written(&mut outbox, 1000), [(1, FrameKind::Task), (3, FrameKind::Request)]);
    }

    #[test]
    fn a_batch_ends_when_it_has_enough() {
        let mut outbox = outbox(&[("a", None), ("b", None), ("c", None)]);
        assert_eq!(written(&mut outbox, 20).len(), 2);
        assert_eq!(written(&mut outbox, 20).len(), 1);
    }

    #[test]
    fn what_is_full_takes_nothing_until_something_is_answered() {
        let mut outbox = outbox(&[("a", None), ("b", None), ("c", None), ("d", None)]);
        assert_eq!(outbox.push(entry("e", None)), Err(LinkError::Full));
        outbox.acknowledged(1);
        assert_eq!(outbox.push(entry("e", None)), Ok(5));
        outbox.acknowledged(4);
        let large = Entry { since: 1, body: Bytes::from(vec![0; 100]), waiter: None };
        assert_eq!(outbox.push(large), Err(LinkError::Full));
        let huge = Entry { since: 1, body: Bytes::from(vec![0; (4 << 20) + 1]), waiter: None };
        assert_eq!(outbox.push(huge), Err(LinkError::TooLarge((4 << 20) + 1)));
    }

    #[test]
    fn what_the_peer_is_too_old_for_is_given_back_and_delays_nothing() {
        let mut outbox = outbox(&[("a", None)]);
        outbox.push(Entry { since: 2, body: Bytes::new(), waiter: Some(9) }).unwrap();
        outbox.push(entry("c", None)).unwrap();
        let mut out = BytesMut::new();
        let too_old = outbox.write(1, 1000, &mut out);
        assert_eq!(too_old.len(), 1);
        assert_eq!(too_old[0].waiter, Some(9));
        assert_eq!((outbox.len(), out.len()), (2, 34));
    }

    #[test]
    fn everything_comes_back_in_order() {
        let mut outbox = outbox(&[("a", None), ("b", Some(1)), ("c", None)]);
        let bodies: Vec<Bytes> = outbox.drain().into_iter().map(|entry| entry.body).collect();
        assert_eq!(bodies, ["a", "b", "c"]);
        assert_eq!((outbox.len(), outbox.bytes(), outbox.next()), (0, 0, 4));
    }
}
