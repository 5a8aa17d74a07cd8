//! PURE: the server's stanzas by number (XEP-0198 §4): which of them the client has not acknowledged.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use althing_proto::stream::management::{Count, TooHigh};

/// After so many stanzas the client is asked what it has handled.
pub const ASK_AFTER: usize = 16;

/// So long after a stanza the client is asked, if it is not sooner.
pub const ASK_IN: Duration = Duration::from_secs(1);

/// The server's stanzas to the client, kept until it has acknowledged them. `T` is one of them.
#[derive(Debug)]
pub struct Sent<T> {
    last: Count,
    kept: VecDeque<(T, usize)>,
    bytes: usize,
    /// When the client was asked, if it has not answered.
    asked: Option<Instant>,
    /// When the first one went out of which it was not asked, and how many there are.
    unasked: Option<(Instant, usize)>,
}

impl<T> Sent<T> {
    /// A stream whose client has handled so many, and was sent no more.
    #[must_use]
    pub fn after(last: Count) -> Self {
        Sent { last, kept: VecDeque::new(), bytes: 0, asked: None, unasked: None }
    }

    /// A stanza of so many bytes goes out.
    pub fn push(&mut self, stanza: T, bytes: usize, now: Instant) {
        self.last = self.last.next();
        self.bytes += bytes;
        self.kept.push_back((stanza, bytes));
        self.unasked.get_or_insert((now, 0)).1 += 1;
    }

    /// How many are kept, and their bytes.
    #[must_use]
    pub fn kept(&self) -> (usize, usize) {
        (self.kept.len(), self.bytes)
    }

    /// The client says that it has handled all up to `handled`: gives those to `settled`, in order. An older word is
    /// passed over.
    ///
    /// # Errors
    /// [`TooHigh`] where it was not sent so many (§6).
    pub fn acknowledged(&mut self, handled: Count, settled: impl FnMut(T)) -> Result<(), TooHigh> {
        let first = Count(self.last.0.wrapping_sub(u32::try_from(self.kept.len()).unwrap_or(u32::MAX)));
        let many = handled.since(first).and_then(|many| usize::try_from(many).ok()).unwrap_or(0);
        if many > self.kept.len() {
            return Err(TooHigh { handled, sent: self.last });
        }
        let mut bytes = 0;
        let stanzas = self.kept.drain(..many).map(|(stanza, length)| {
            bytes += length;
            stanza
        });
        stanzas.for_each(settled);
        self.bytes -= bytes;
        self.asked = None;
        Ok(())
    }

    /// Whether the client is to be asked now: it counts as asked then. Never twice at a time.
    pub fn ask(&mut self, now: Instant) -> bool {
        let due = self.unasked.is_some_and(|(since, many)| many >= ASK_AFTER || now >= since + ASK_IN);
        // What it has acknowledged unasked needs no question.
        let ask = due && self.asked.is_none() && !self.kept.is_empty();
        if ask {
            self.asked = Some(now);
        }
        if ask || (due && self.kept.is_empty()) {
            self.unasked = None;
        }
        ask
    }

    /// When to look next: whether to ask, or whether the client has let `patience` pass without an answer.
    #[must_use]
    pub fn look_again(&self, patience: Duration) -> Option<Instant> {
        let asked = self.asked.map(|at| at + patience);
        asked.or_else(|| self.unasked.map(|(since, _)| since + ASK_IN))
    }

    /// Whether the client has not answered for longer than that.
    #[must_use]
    pub fn is_overdue(&self, now: Instant, patience: Duration) -> bool {
        self.asked.is_some_and(|at| now >= at + patience)
    }

    /// The client's time to answer begins anew.
    pub fn be_patient(&mut self, now: Instant) {
        self.asked = self.asked.map(|_| now);
    }

    /// All that is kept, in order.
    pub fn take_all(&mut self) -> impl Iterator<Item = T> + use<T> {
        (self.bytes, self.asked, self.unasked) = (0, None, None);
        std::mem::take(&mut self.kept).into_iter().map(|(stanza, _)| stanza)
    }

    /// All that is kept is to be sent once more, from the first on: it is taken out, and the count goes back to before
    /// it.
    pub fn again(&mut self) -> Vec<T> {
        self.last = Count(self.last.0.wrapping_sub(u32::try_from(self.kept.len()).unwrap_or(u32::MAX)));
        self.take_all().collect()
    }

    /// How many were sent.
    #[must_use]
    pub fn last(&self) -> Count {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acknowledged(sent: &mut Sent<u32>, handled: u32) -> Result<Vec<u32>, TooHigh> {
        let mut settled = Vec::new();
        sent.acknowledged(Count(handled), |stanza| settled.push(stanza)).map(|()| settled)
    }

    #[test]
    fn r2_an_ack_settles_what_it_covers_and_a_second_one_nothing() {
        let now = Instant::now();
        let mut sent = Sent::after(Count(u32::MAX));
        (0..3).for_each(|stanza| sent.push(stanza, 10, now));
        assert_eq!(acknowledged(&mut sent, 1), Ok(vec![0, 1]));
        assert_eq!(acknowledged(&mut sent, 1), Ok(vec![]));
        assert_eq!(acknowledged(&mut sent, 0), Ok(vec![]), "an older word");
        assert_eq!(sent.kept(), (1, 10));
        let too_high = TooHigh { handled: Count(3), sent: Count(2) };
        assert_eq!(acknowledged(&mut sent, 3), Err(too_high));
        assert_eq!(sent.again(), [2]);
        assert_eq!((sent.last(), sent.kept()), (Count(1), (0, 0)));
    }

    #[test]
    fn r3_the_client_is_asked_by_number_or_by_time_and_once() {
        let now = Instant::now();
        let patience = Duration::from_secs(60);
        let mut sent = Sent::after(Count(0));
        assert_eq!(sent.look_again(patience), None);
        sent.push(1, 1, now);
        assert!(!sent.ask(now));
        assert_eq!(sent.look_again(patience), Some(now + ASK_IN));
        assert!(sent.ask(now + ASK_IN));
        (0..ASK_AFTER as u32).for_each(|stanza| sent.push(stanza, 1, now));
        assert!(!sent.ask(now + patience / 2), "one question at a time");
        assert!(!sent.is_overdue(now + patience, patience));
        assert!(sent.is_overdue(now + ASK_IN + patience, patience), "R4");
        assert_eq!(acknowledged(&mut sent, 1), Ok(vec![1]));
        assert!(sent.ask(now));
        acknowledged(&mut sent, 1 + ASK_AFTER as u32).unwrap();
        sent.push(1, 1, now);
        acknowledged(&mut sent, 2 + ASK_AFTER as u32).unwrap();
        assert!(!sent.ask(now + ASK_IN), "it has said so unasked");
        assert_eq!(sent.look_again(patience), None);
    }
}
