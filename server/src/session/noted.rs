//! PURE: how far the store knows a stream (XEP-0198 §5). Its client is told no more than that: what it has heard holds when its
//! node is lost.

use std::collections::VecDeque;

use althing_proto::stream::management::Count;

/// A message on its way to the store.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// What is handled of the stream with it and all before it.
    handled: Count,
    kept: bool,
}

/// What the store knows of a stream, and what is on its way there.
#[derive(Debug, Default)]
pub struct Noted {
    /// Whether the client is told no more than what is stored.
    binds: bool,
    /// The store may not have the record of the stream yet: what is kept meanwhile does not count before it has.
    unknown: bool,
    stored: Count,
    /// A note of so much is on its way.
    noting: Option<Count>,
    /// Messages that have their places in the order of the store, one after the other, from the first that is not known to
    /// be kept.
    places: VecDeque<Place>,
    /// The place of the first of them.
    first: u64,
}

/// Whether `one` comes after `other`.
#[must_use]
pub fn is_later(one: Count, other: Count) -> bool {
    one != other && one.since(other).is_some()
}

fn later(one: Count, other: Count) -> Count {
    if is_later(other, one) { other } else { one }
}

impl Noted {
    /// Of a stream that goes on after so many.
    #[must_use]
    pub fn after(stored: Count) -> Self {
        Noted { stored, ..Noted::default() }
    }

    /// A record of the stream is on its way to the store, up to what is handled so far. `binds`: its client is told no more
    /// than the store has.
    pub fn begins(&mut self, handled: Count, binds: bool) {
        (self.binds, self.unknown, self.stored) = (binds, true, handled);
    }

    /// The record is in the store, before all that has a place.
    pub fn is_known(&mut self) {
        self.unknown = false;
        self.settle();
    }

    /// The store will have no record.
    pub fn is_none(&mut self) {
        (self.binds, self.unknown) = (false, false);
    }

    /// A message gets the next place in the order of the store: so much is handled when it and all before it are kept.
    pub fn ahead(&mut self, place: u64, handled: Count) {
        if self.places.is_empty() {
            self.first = place;
        }
        self.places.push_back(Place { handled, kept: false });
    }

    /// The message in that place is kept.
    pub fn kept(&mut self, place: u64) {
        let at = place.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        if let Some(place) = at.and_then(|at| self.places.get_mut(at)) {
            place.kept = true;
            self.settle();
        }
    }

    fn settle(&mut self) {
        while !self.unknown
            && let Some(place) = self.places.front().filter(|place| place.kept)
        {
            self.stored = later(self.stored, place.handled);
            self.places.pop_front();
            self.first += 1;
        }
    }

    /// The places that were given count no more.
    pub fn behind(&mut self) {
        self.places.clear();
    }

    /// The store has, or is about to have, so much.
    fn under_way(&self) -> Count {
        let noting = self.noting.unwrap_or(self.stored);
        let placed = self.places.back().map_or(self.stored, |place| place.handled);
        later(later(self.stored, noting), placed)
    }

    /// Whether the store is to be told of more, where so much is safe.
    #[must_use]
    pub fn is_behind(&self, safe: Count) -> bool {
        !self.unknown && is_later(safe, self.under_way())
    }

    /// What the store is to be told now, where so much is safe: it counts as on its way.
    pub fn note(&mut self, safe: Count) -> Option<Count> {
        self.is_behind(safe).then(|| *self.noting.insert(safe))
    }

    /// A note of so much was made, or not.
    pub fn noted(&mut self, number: Count, stored: bool) {
        self.noting.take_if(|noting| *noting == number);
        if stored {
            self.stored = later(self.stored, number);
        }
    }

    /// Whether the client waits for what is noted.
    #[must_use]
    pub fn binds(&self) -> bool {
        self.binds
    }

    /// What the client may be told, where so much is safe.
    #[must_use]
    pub fn may_be_told(&self, safe: Count) -> Count {
        if self.binds && is_later(safe, self.stored) { self.stored } else { safe }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> Noted {
        let mut noted = Noted::after(Count(10));
        noted.begins(Count(10), true);
        noted.is_known();
        noted
    }

    #[test]
    fn r1_what_is_told_waits_for_the_store() {
        let mut noted = stream();
        assert_eq!(noted.may_be_told(Count(12)), Count(10));
        assert_eq!(
            (noted.note(Count(12)), noted.note(Count(12))),
            (Some(Count(12)), None),
            "one note at a time"
        );
        assert_eq!(noted.may_be_told(Count(12)), Count(10), "it is on its way");
        noted.noted(Count(12), false);
        assert_eq!(noted.note(Count(13)), Some(Count(13)), "once more, with what is new");
        noted.noted(Count(13), true);
        assert_eq!((noted.may_be_told(Count(14)), noted.is_behind(Count(13))), (Count(13), false));
        assert_eq!(noted.may_be_told(Count(11)), Count(11), "what is not safe is not told");
    }

    #[test]
    fn r1_a_message_says_what_is_handled_when_all_before_it_are_kept() {
        let mut noted = stream();
        noted.ahead(1, Count(11));
        noted.ahead(2, Count(13));
        assert!(!noted.is_behind(Count(13)), "the messages bring it");
        noted.kept(2);
        assert_eq!(noted.may_be_told(Count(13)), Count(10));
        noted.kept(1);
        assert_eq!(noted.may_be_told(Count(13)), Count(13));
        noted.ahead(3, Count(14));
        noted.kept(3);
        assert_eq!(noted.may_be_told(Count(14)), Count(14));
    }

    #[test]
    fn r1_places_that_are_lost_count_no_more() {
        let mut noted = stream();
        noted.ahead(1, Count(11));
        noted.ahead(2, Count(12));
        noted.behind();
        noted.kept(2);
        assert_eq!((noted.may_be_told(Count(12)), noted.note(Count(12))), (Count(10), Some(Count(12))));
        noted.ahead(1, Count(13));
        noted.kept(1);
        assert_eq!(noted.may_be_told(Count(13)), Count(13));
    }

    #[test]
    fn r1_without_a_record_in_the_store_nothing_counts_until_it_is_there() {
        let mut noted = Noted::after(Count(0));
        noted.begins(Count(0), true);
        noted.ahead(1, Count(1));
        noted.kept(1);
        assert_eq!((noted.may_be_told(Count(1)), noted.note(Count(2))), (Count(0), None));
        noted.is_known();
        assert_eq!(noted.may_be_told(Count(1)), Count(1));
        noted.is_none();
        assert_eq!(noted.may_be_told(Count(9)), Count(9), "it never will be");
    }

    #[test]
    fn what_binds_nobody_is_noted_all_the_same() {
        let mut noted = Noted::after(Count(0));
        noted.begins(Count(0), false);
        noted.is_known();
        assert_eq!((noted.may_be_told(Count(2)), noted.note(Count(2))), (Count(2), Some(Count(2))));
    }
}
