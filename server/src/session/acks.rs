//! PURE: the client's stanzas by number (XEP-0198 §4): which of them are safe, and which it may hear of.

use std::collections::VecDeque;

use althing_proto::stream::management::Count;

use super::noted::Noted;

/// A stanza that is not safe.
#[derive(Debug, Clone, Copy)]
struct Open {
    outstanding: u32,
    /// How much of that has its place in the order of the store.
    ahead: u32,
    /// Whether the session's own part is outstanding, and nothing that is to be kept follows from it.
    last: bool,
}

impl Open {
    fn is_ordered(self) -> bool {
        self.outstanding <= self.ahead + u32::from(self.last)
    }
}

/// The client's stanzas. One is safe when it is handled and nothing of it is outstanding, and so are all before it.
#[derive(Debug, Default)]
pub struct Received {
    safe: Count,
    /// Each later one.
    open: VecDeque<Open>,
    /// Up to here all were safe once, or ahead of whatever is kept from now on.
    ordered: Count,
    /// The places in the order of the store: how often one was lost, and how many were given since.
    turn: u32,
    places: u64,
    /// The client has asked when this was the last one, and was told less.
    owed: Option<Count>,
    told: Count,
    noted: Noted,
    /// The stream goes on elsewhere after so many: no more is told here.
    given: Option<Count>,
}

/// What follows from a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Follows {
    /// The client is to be told.
    pub due: bool,
    /// The store is to be told.
    pub note: bool,
    /// And at once, for the client waits for it.
    pub hurry: bool,
}

impl Received {
    /// A stream of which so many are safe, and no more have come.
    #[must_use]
    pub fn after(safe: Count) -> Self {
        Received { safe, told: safe, ordered: safe, noted: Noted::after(safe), ..Received::default() }
    }

    /// A stanza has come. One thing of it is outstanding: it is to be handled.
    pub fn begin(&mut self) -> Count {
        self.open.push_back(Open { outstanding: 1, ahead: 0, last: false });
        self.last()
    }

    /// The last one that has come.
    #[must_use]
    pub fn last(&self) -> Count {
        self.safe.plus(u32::try_from(self.open.len()).unwrap_or(u32::MAX))
    }

    /// The last one that is safe.
    #[must_use]
    pub fn safe(&self) -> Count {
        self.safe
    }

    /// How many are not safe.
    #[must_use]
    pub fn unsafe_stanzas(&self) -> usize {
        self.open.len()
    }

    fn of(&mut self, number: Count) -> Option<&mut Open> {
        let place = number.since(self.safe)?.checked_sub(1)?;
        self.open.get_mut(usize::try_from(place).ok()?)
    }

    /// One thing more of that stanza is outstanding.
    pub fn more(&mut self, number: Count) {
        if let Some(open) = self.of(number) {
            open.outstanding += 1;
        }
    }

    /// The session is about to do something for that stanza; whether nothing that is to be kept can follow.
    pub fn is_last(&mut self, number: Count, last: bool) {
        if let Some(open) = self.of(number) {
            open.last = last;
        }
    }

    /// A thing that is outstanding has got its place in the order of the store just now: its turn and its number there. Up
    /// to where all is safe, or has a place before it in that turn: so much is handled once all these are kept.
    pub fn ahead(&mut self, number: Count) -> (Count, u32, u64) {
        if let Some(open) = self.of(number) {
            open.ahead += 1;
        }
        self.places += 1;
        let handled = self.ordered();
        self.noted.ahead(self.places, handled);
        (handled, self.turn, self.places)
    }

    /// A thing was not kept in its place of that turn: nothing that has a place behind it counts any more. Another turn
    /// begins, unless that was known.
    pub fn behind(&mut self, turn: u32) {
        if turn != self.turn {
            return;
        }
        (self.turn, self.places) = (turn.wrapping_add(1), 0);
        self.open.iter_mut().for_each(|open| open.ahead = 0);
        self.ordered = self.safe;
        self.noted.behind();
    }

    /// What is handled once all that has its place in the order of the store is kept.
    pub fn ordered(&mut self) -> Count {
        let from = self.ordered.since(self.safe).unwrap_or(0);
        let later = self.open.iter().skip(usize::try_from(from).unwrap_or(usize::MAX));
        let more = later.take_while(|open| open.is_ordered()).count();
        self.ordered = self.safe.plus(from).plus(u32::try_from(more).unwrap_or(0));
        self.ordered
    }

    /// One thing less, the session's own or not, with its turn and place in the order of the store, where it is kept, or none.
    /// Whether others are safe now than were before.
    pub fn done(&mut self, number: Count, own: bool, kept: Option<(u32, u64)>) -> bool {
        let kept = kept.filter(|(turn, _)| *turn == self.turn);
        if let Some((_, place)) = kept {
            self.noted.kept(place);
        }
        let ahead = kept.is_some();
        if let Some(open) = self.of(number) {
            open.outstanding = open.outstanding.saturating_sub(1);
            open.ahead = open.ahead.saturating_sub(u32::from(ahead));
            open.last &= !own;
        }
        let before = self.safe;
        while self.open.front().is_some_and(|open| open.outstanding == 0) {
            self.open.pop_front();
            self.safe = self.safe.next();
        }
        self.safe != before
    }

    /// What the store knows of the stream.
    pub fn noted(&mut self) -> &mut Noted {
        &mut self.noted
    }

    /// The store has a record of the stream since this moment, and so much is handled by it: no place that was given before
    /// counts.
    pub fn known_late(&mut self, handled: Count) {
        self.behind(self.turn);
        self.noted.is_known();
        self.noted.noted(handled, true);
    }

    /// What the store is to be told now.
    pub fn note(&mut self) -> Option<Count> {
        self.noted.note(self.safe)
    }

    /// The last one of which the client may hear that it is safe.
    #[must_use]
    pub fn may_be_told(&self) -> Count {
        self.given.unwrap_or_else(|| self.noted.may_be_told(self.safe))
    }

    /// The stream goes on elsewhere, after what is given back: nothing above that is told from now on.
    pub fn give(&mut self) -> Count {
        *self.given.insert(self.may_be_told())
    }

    /// What is to be done now.
    #[must_use]
    pub fn follows(&self) -> Follows {
        let note = self.noted.is_behind(self.safe);
        Follows { due: self.is_due(), note, hurry: note && self.owed.is_some() && self.noted.binds() }
    }

    /// The client asks: what it is to be told. If that is less than what has come, more is due later.
    pub fn asked(&mut self) -> Count {
        self.told = self.may_be_told();
        self.owed = (self.told != self.last()).then(|| self.last());
        self.told
    }

    /// What the client is to be told though it does not ask now.
    pub fn due(&mut self) -> Option<Count> {
        let owed = self.owed.filter(|_| self.may_be_told() != self.told)?;
        self.told = self.may_be_told();
        if self.told.since(owed).is_some() {
            self.owed = None;
        }
        Some(self.told)
    }

    /// Whether [`due`](Self::due) would yield something.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.owed.is_some() && self.may_be_told() != self.told
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn r2_what_is_outstanding_holds_the_acks_of_all_that_came_later() {
        let mut received = Received::after(Count(u32::MAX - 1));
        let [one, two, three] = [(); 3].map(|()| received.begin());
        assert_eq!(three, Count(1), "counts go round");
        received.more(two);
        for number in [one, two, three] {
            received.done(number, false, None);
        }
        assert_eq!((received.asked(), received.is_due()), (one, false));
        assert!(received.done(two, false, None));
        assert_eq!((received.due(), received.due()), (Some(three), None));
        assert_eq!(received.unsafe_stanzas(), 0);
    }

    #[test]
    fn what_was_not_asked_for_is_not_told() {
        let mut received = Received::default();
        let first = received.begin();
        assert_eq!(received.asked(), Count(0));
        let second = received.begin();
        received.done(first, false, None);
        assert_eq!(received.due(), Some(first));
        received.done(second, false, None);
        assert_eq!(received.due(), None, "the question was about the first");
        assert_eq!(received.asked(), second);
    }

    #[test]
    fn an_old_or_repeated_word_changes_nothing() {
        let mut received = Received::default();
        let first = received.begin();
        received.done(first, false, None);
        received.done(first, false, None);
        received.more(first);
        assert_eq!((received.safe(), received.last()), (first, first));
    }

    #[test]
    fn r1_what_is_kept_covers_what_is_before_it_in_the_order() {
        let mut received = Received::after(Count(10));
        let [one, two, three] = [(); 3].map(|()| received.begin());
        // Each has a part that is kept, and the session's own.
        for number in [one, two, three] {
            received.more(number);
            received.is_last(number, true);
        }
        assert_eq!(received.ahead(two), (Count(10), 0, 1), "the first may fail yet");
        assert_eq!(received.ahead(one), (two, 0, 2));
        received.done(one, true, None);
        received.done(one, false, Some((0, 2)));
        assert_eq!((received.safe(), received.ordered()), (one, two));
        received.done(three, true, None);
        assert!(!received.done(three, false, None), "it was no message");
        received.done(two, true, None);
        assert!(received.done(two, false, Some((0, 1))));
        assert_eq!((received.safe(), received.ordered()), (three, three));
    }

    /// What could not be kept is not covered by what had its place behind it, and is by what gets one from then on.
    #[test]
    fn r1_what_has_lost_its_place_begins_another_turn() {
        let mut received = Received::default();
        let [one, two, three] = [(); 3].map(|()| received.begin());
        for number in [one, two, three] {
            received.more(number);
            received.done(number, true, None);
        }
        assert_eq!((received.ahead(one), received.ahead(two)), ((one, 0, 1), (two, 0, 2)));
        received.behind(0);
        received.behind(0);
        assert_eq!(received.ordered(), Count(0));
        assert_eq!(received.ahead(one), (one, 1, 1), "the second one counts on what was not kept");
        received.done(two, false, Some((0, 2)));
        assert_eq!(received.ahead(three), (three, 1, 2), "and is kept itself");
        received.done(one, false, Some((1, 1)));
        assert_eq!((received.safe(), received.ordered()), (two, three));
    }

    #[test]
    fn r1_nothing_is_told_before_the_store_knows_the_stream() {
        let mut received = Received::default();
        received.noted().begins(Count(0), true);
        let [first, second] = [(); 2].map(|()| received.begin());
        received.done(first, true, None);
        assert_eq!((received.asked(), received.due()), (Count(0), None));
        assert_eq!(received.follows(), Follows { due: false, note: false, hurry: false });
        received.known_late(first);
        assert_eq!((received.is_due(), received.due(), received.due()), (true, Some(first), None));
        received.done(second, true, None);
        assert_eq!(received.follows(), Follows { due: false, note: true, hurry: true }, "it was asked for");
        assert_eq!((received.note(), received.due()), (Some(second), None));
        received.noted().noted(second, true);
        assert_eq!((received.due(), received.due()), (Some(second), None));
        assert_eq!(received.follows(), Follows { due: false, note: false, hurry: false });
        assert_eq!(received.ahead(first).1, 1, "the store has not heard of the first turn");
    }

    /// Its client would give up what it has heard of, and number the rest otherwise than the next node.
    #[test]
    fn r2_a_stream_that_goes_on_elsewhere_tells_no_more_than_it_has_given() {
        let mut received = Received::default();
        let [one, two] = [(); 2].map(|()| received.begin());
        received.done(one, true, None);
        assert_eq!(received.asked(), one);
        assert_eq!(received.give(), one);
        received.done(two, true, None);
        assert_eq!((received.due(), received.asked(), received.give()), (None, one, one));
    }

    #[test]
    fn r1_what_may_be_followed_by_more_is_not_covered() {
        let mut received = Received::default();
        let [one, two] = [(); 2].map(|()| received.begin());
        received.more(one);
        received.is_last(one, false);
        assert_eq!(received.ahead(one).0, Count(0), "to the first of several addresses");
        received.more(one);
        received.is_last(one, true);
        assert_eq!(received.ahead(one).0, one);
        received.more(two);
        received.done(two, true, None);
        received.is_last(two, true);
        received.done(two, true, None);
        assert_eq!(received.ahead(two).0, two);
    }

    proptest! {
        /// Against the plain rule: safe is the longest prefix of which nothing is outstanding.
        #[test]
        fn safe_is_the_longest_prefix(steps in proptest::collection::vec((0..3_u8, 0..20_u32), 0..200)) {
            let first = u32::MAX - 5;
            let mut received = Received::after(Count(first));
            let mut model: Vec<u32> = Vec::new();
            for (what, at) in steps {
                let number = Count(first).plus(at + 1);
                let place = model.get_mut(at as usize).filter(|outstanding| **outstanding > 0);
                match (what, place) {
                    (0, _) => {
                        received.begin();
                        model.push(1);
                    }
                    (1, Some(place)) => {
                        received.more(number);
                        *place += 1;
                    }
                    (2, Some(place)) => {
                        received.done(number, false, None);
                        *place -= 1;
                    }
                    _ => {}
                }
                let safe = model.iter().take_while(|outstanding| **outstanding == 0).count() as u32;
                prop_assert_eq!(received.safe(), Count(first).plus(safe));
                prop_assert_eq!(received.last(), Count(first).plus(model.len() as u32));
            }
        }
    }
}
