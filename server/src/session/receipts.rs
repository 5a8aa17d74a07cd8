//! PURE: messages that a client was sent and for which it owes a receipt (`server/src/modules/receipts.rs`).

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use althing_proto::stanza_id::StanzaId;
use althing_proto::time::Timestamp;

/// Most receipts that one client owes. With more it is too slow.
const MAX_OWED: usize = 1_024;

/// What one client owes, in the order in which it was sent.
#[derive(Debug, Default)]
pub struct Owed {
    next: u64,
    messages: BTreeMap<u64, Message>,
    by_id: HashMap<StanzaId, u64>,
    /// Whether it has given any.
    given: bool,
}

#[derive(Debug)]
struct Message {
    id: StanzaId,
    /// A hash of the `id` that its sender gave it, by which clients of old know it.
    name: Option<u64>,
    first: Timestamp,
    last: Timestamp,
}

/// What is to be done about receipts that have not come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Due {
    /// To send these once more, oldest first.
    Again(Vec<StanzaId>),
    /// To end the session: one is owed for too long.
    TooOld,
}

/// The client owes more receipts than it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany;

impl Owed {
    /// The client is sent a message. Sent once more, it is as old as it was.
    ///
    /// # Errors
    /// [`TooMany`].
    pub fn sent(&mut self, id: StanzaId, name: Option<u64>, now: Timestamp) -> Result<(), TooMany> {
        if self.by_id.contains_key(&id) {
            return Ok(());
        }
        if self.messages.len() >= MAX_OWED {
            return Err(TooMany);
        }
        self.by_id.insert(id, self.next);
        self.messages.insert(self.next, Message { id, name, first: now, last: now });
        self.next += 1;
        Ok(())
    }

    /// The receipt for a message has come; whether one was owed.
    pub fn received(&mut self, id: StanzaId) -> bool {
        self.given = true;
        let number = self.by_id.remove(&id);
        number.is_some_and(|number| self.messages.remove(&number).is_some())
    }

    /// The oldest message of that name for which a receipt is owed.
    #[must_use]
    pub fn named(&self, name: u64) -> Option<StanzaId> {
        self.messages.values().find(|message| message.name == Some(name)).map(|message| message.id)
    }

    /// Whether the client has ever given one: what it has got is on its way into the store then.
    #[must_use]
    pub fn has_given(&self) -> bool {
        self.given
    }

    /// Whether any receipt is owed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// The client is not connected at `now`: nothing is sent to it, and what it owes does not grow older (R4).
    pub fn away(&mut self, now: Timestamp) {
        for message in self.messages.values_mut() {
            (message.first, message.last) = (now, now);
        }
    }

    /// What is to be done at `now`: each message is sent once more when it was last sent `repeat` ago, and one that was
    /// first sent `validity` ago is too old.
    pub fn due(&mut self, now: Timestamp, repeat: Duration, validity: Duration) -> Due {
        if self.messages.values().any(|message| message.first.after(validity) <= now) {
            return Due::TooOld;
        }
        let mut again = Vec::new();
        for message in self.messages.values_mut().filter(|message| message.last.after(repeat) <= now) {
            message.last = now;
            again.push(message.id);
        }
        Due::Again(again)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPEAT: Duration = Duration::from_secs(3);
    const VALIDITY: Duration = Duration::from_secs(10);

    fn id(number: u8) -> StanzaId {
        StanzaId::from_bytes([number; 16])
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    /// R2, R3, R6: what has no receipt is sent again by its age, in the order of creation; what has one is not.
    #[test]
    fn r2_r3_r6_it_is_sent_again_by_age_and_in_order_until_the_receipt() {
        let mut owed = Owed::default();
        for (number, second) in [(9, 0), (2, 0), (7, 1)] {
            owed.sent(id(number), None, at(second)).unwrap();
        }
        assert_eq!(owed.due(at(2), REPEAT, VALIDITY), Due::Again(vec![]));
        assert_eq!(owed.due(at(3), REPEAT, VALIDITY), Due::Again(vec![id(9), id(2)]));
        assert_eq!(owed.due(at(4), REPEAT, VALIDITY), Due::Again(vec![id(7)]));
        assert!(owed.received(id(2)) && !owed.received(id(2)), "the second receipt does nothing");
        assert_eq!(owed.due(at(7), REPEAT, VALIDITY), Due::Again(vec![id(9), id(7)]));
        assert!(owed.received(id(9)) && owed.received(id(7)) && owed.is_empty());
        assert_eq!(owed.due(at(100), REPEAT, VALIDITY), Due::Again(vec![]));
    }

    /// R4: the age counts from the first time.
    #[test]
    fn r4_one_that_is_owed_for_too_long_ends_the_session() {
        let mut owed = Owed::default();
        owed.sent(id(1), None, at(0)).unwrap();
        for second in [3, 6, 9] {
            assert_eq!(owed.due(at(second), REPEAT, VALIDITY), Due::Again(vec![id(1)]));
            owed.sent(id(1), None, at(second)).unwrap();
        }
        assert_eq!(owed.due(at(10), REPEAT, VALIDITY), Due::TooOld);
    }

    /// R4: only a device that is connected is late.
    #[test]
    fn r4_nothing_grows_older_while_the_client_is_away() {
        let mut owed = Owed::default();
        owed.sent(id(1), None, at(0)).unwrap();
        (1..300).for_each(|second| owed.away(at(second)));
        assert_eq!(owed.due(at(301), REPEAT, VALIDITY), Due::Again(vec![]));
        assert_eq!(owed.due(at(302), REPEAT, VALIDITY), Due::Again(vec![id(1)]));
        assert_eq!(owed.due(at(309), REPEAT, VALIDITY), Due::TooOld);
    }

    #[test]
    fn what_is_owed_is_bounded_and_found_by_name() {
        let mut owed = Owed::default();
        for number in 0..MAX_OWED {
            let id = StanzaId::derived(b"", &[&number.to_be_bytes()]);
            owed.sent(id, Some(number as u64 / 2), at(0)).unwrap();
        }
        assert_eq!(owed.sent(id(1), None, at(0)), Err(TooMany));
        assert_eq!(owed.named(1), Some(StanzaId::derived(b"", &[&2_usize.to_be_bytes()])), "the oldest");
        assert_eq!(owed.named(MAX_OWED as u64), None);
    }
}
