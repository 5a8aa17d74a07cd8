//! PURE: what waits for one client: stanzas in order, and broadcast presence, which may be late.
//!
//! While little waits there is one queue. Under pressure presence that is broadcast waits aside, so that messages and
//! answers go first; there a later presence of a sender takes the place of the earlier one, which nobody needs any more.
//! Whatever else comes from that sender takes its presence along: the order of a pair never changes.
//!
//! For a client that says that nobody looks at it (XEP-0352) presence and chat states (XEP-0085) wait aside too, however
//! little waits, until something comes that matters: all of it goes before that then, in order.

use std::collections::{BTreeMap, HashMap, VecDeque};

use Sort::{Other, Presence, State};

/// Most bytes of late presence that go out behind the rest in one write: what comes meanwhile goes first again.
const LATE_BYTES: usize = 16 * 1024;

/// What is put into the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry<'a> {
    /// What must not wait behind presence, and who sends it: `None` for the server.
    Stanza(Option<&'a str>),
    /// Available or unavailable presence that this sender has broadcast.
    Presence(&'a str),
    /// Presence of this sender to the client alone: each is needed.
    Directed(&'a str),
    /// What this sender is doing in a conversation, and nothing else (XEP-0085).
    State(&'a str),
}

impl<'a> Entry<'a> {
    fn sender(self) -> Option<&'a str> {
        match self {
            Entry::Stanza(from) => from,
            Entry::Presence(from) | Entry::Directed(from) | Entry::State(from) => Some(from),
        }
    }
}

/// What waits aside: of the first two only the last of each sender is worth something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    Presence,
    State,
    Other,
}

/// What waits: pieces, each with its length in bytes.
#[derive(Debug)]
pub(super) struct Queue<T> {
    ready: VecDeque<T>,
    /// Presence and chat states by age.
    late: BTreeMap<u64, (Sort, Box<str>, T, usize)>,
    /// The place in `late` of each sender's presence.
    senders: HashMap<Box<str>, u64>,
    /// The place in `late` of each sender's chat state.
    states: HashMap<Box<str>, u64>,
    /// Bytes in `late`.
    bytes: usize,
    next: u64,
    /// Nobody looks at the client: what may wait, as long as it has no more than so many bytes.
    inactive: Option<usize>,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Queue {
            ready: VecDeque::new(),
            late: BTreeMap::new(),
            senders: HashMap::new(),
            states: HashMap::new(),
            bytes: 0,
            next: 0,
            inactive: None,
        }
    }
}

impl<T> Queue<T> {
    /// Whether nothing waits.
    #[must_use]
    pub(super) fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.late.is_empty()
    }

    /// Whether something waits that is to go out now.
    #[must_use]
    pub(super) fn is_due(&self) -> bool {
        !self.ready.is_empty() || (self.inactive.is_none() && !self.late.is_empty())
    }

    /// How much presence waits aside, and chat states.
    #[must_use]
    pub(super) fn late(&self) -> usize {
        self.late.len()
    }

    /// Nobody looks at the client, of whose presence and chat states so many bytes may wait; or somebody does, and what
    /// has waited goes out.
    pub(super) fn set_inactive(&mut self, inactive: Option<usize>) {
        self.inactive = inactive;
        if inactive.is_none() {
            self.release();
        }
    }

    /// Whether nobody looks at the client.
    #[must_use]
    pub(super) fn is_inactive(&self) -> bool {
        self.inactive.is_some()
    }

    /// Nobody is to be spared any more; what waits aside goes on to do so as it does under pressure.
    pub(super) fn forget_inactive(&mut self) {
        self.inactive = None;
    }

    /// What waits aside goes out before all that comes, in order.
    fn release(&mut self) {
        self.senders.clear();
        self.states.clear();
        self.bytes = 0;
        self.ready.extend(std::mem::take(&mut self.late).into_values().map(|(_, _, piece, _)| piece));
    }

    /// Puts a piece of so many bytes into the queue, under pressure or not. How many bytes of an older presence went
    /// for it.
    pub(super) fn push(&mut self, entry: Entry<'_>, piece: T, length: usize, pressed: bool) -> Option<usize> {
        if let Some(most) = self.inactive {
            return self.push_inactive(entry, piece, length, most);
        }
        // As a rule nothing is late, and nothing is looked up.
        let older = match entry.sender() {
            Some(from) if !self.late.is_empty() => self.remove(Presence, from),
            _ => None,
        };
        match (entry, older) {
            (Entry::Presence(from), Some((_, older))) => {
                self.push_late(Presence, from, piece, length);
                return Some(older);
            }
            (Entry::Presence(from), None) if pressed => self.push_late(Presence, from, piece, length),
            (_, older) => {
                self.ready.extend(older.map(|(piece, _)| piece));
                self.ready.push_back(piece);
            }
        }
        None
    }

    /// As [`push`](Self::push), while nobody looks at the client.
    fn push_inactive(&mut self, entry: Entry<'_>, piece: T, length: usize, most: usize) -> Option<usize> {
        let (sort, from) = match entry {
            Entry::Stanza(_) => {
                self.release();
                self.ready.push_back(piece);
                return None;
            }
            Entry::Presence(from) => (Presence, from),
            Entry::State(from) => (State, from),
            Entry::Directed(from) => (Other, from),
        };
        let older = self.remove(sort, from);
        self.push_late(sort, from, piece, length);
        if self.bytes > most {
            self.release();
        }
        older.map(|(_, length)| length)
    }

    /// How many bytes would go for a piece: those of the older one of its sender.
    #[must_use]
    pub(super) fn replaced_by(&self, entry: Entry<'_>) -> usize {
        let place = match entry {
            Entry::Presence(from) => self.senders.get(from),
            Entry::State(from) if self.inactive.is_some() => self.states.get(from),
            _ => None,
        };
        place.and_then(|place| self.late.get(place)).map_or(0, |(_, _, _, length)| *length)
    }

    /// The places of what is superseded, if any is.
    fn places(&mut self, sort: Sort) -> Option<&mut HashMap<Box<str>, u64>> {
        match sort {
            Presence => Some(&mut self.senders),
            State => Some(&mut self.states),
            Other => None,
        }
    }

    fn push_late(&mut self, sort: Sort, from: &str, piece: T, length: usize) {
        self.next += 1;
        let place = self.next;
        if let Some(places) = self.places(sort) {
            places.insert(from.into(), place);
        }
        self.bytes += length;
        self.late.insert(place, (sort, from.into(), piece, length));
    }

    fn remove(&mut self, sort: Sort, from: &str) -> Option<(T, usize)> {
        let place = self.places(sort)?.remove(from)?;
        let (_, _, piece, length) = self.late.remove(&place)?;
        self.bytes -= length;
        Some((piece, length))
    }

    /// Puts a piece behind all that waits.
    pub(super) fn push_last(&mut self, piece: T) {
        self.release();
        self.ready.push_back(piece);
    }

    /// Gives what is next to `out`, until that wants no more: all that must not wait, and some of the presence that is
    /// late.
    pub(super) fn take(&mut self, mut out: impl FnMut(T) -> bool) {
        while let Some(piece) = self.ready.pop_front() {
            if !out(piece) {
                return;
            }
        }
        let mut taken = 0;
        while taken < LATE_BYTES && self.inactive.is_none() {
            let Some((_, (sort, from, piece, length))) = self.late.pop_first() else { break };
            if let Some(places) = self.places(sort) {
                places.remove(&from);
            }
            self.bytes -= length;
            taken += length;
            if !out(piece) {
                return;
            }
        }
    }

    /// Takes out those for which `is_meant`, in order.
    pub(super) fn extract(&mut self, is_meant: impl Fn(&T) -> bool) -> Vec<T> {
        let (out, ready): (Vec<T>, Vec<T>) = std::mem::take(&mut self.ready).into_iter().partition(is_meant);
        self.ready = ready.into();
        out
    }

    /// Drops all that waits.
    pub(super) fn clear(&mut self) {
        *self = Queue::default();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    type Texts = Queue<String>;

    fn push(queue: &mut Texts, entry: Entry<'_>, text: &str, pressed: bool) -> Option<usize> {
        queue.push(entry, text.to_owned(), text.len(), pressed)
    }

    fn taken(queue: &mut Texts) -> String {
        let mut out = String::new();
        queue.take(|text| {
            out.push_str(&text);
            true
        });
        out
    }

    #[test]
    fn without_pressure_all_goes_in_order() {
        let mut queue = Texts::default();
        push(&mut queue, Entry::Presence("a"), "1", false);
        push(&mut queue, Entry::Stanza(None), "2", false);
        push(&mut queue, Entry::Presence("a"), "3", false);
        assert_eq!(taken(&mut queue), "123");
        assert!(queue.is_empty());
    }

    /// P14: presence of the same resource is worth only its last word.
    #[test]
    fn p14_a_later_presence_takes_the_place_of_an_earlier_one_that_waits() {
        let mut queue = Texts::default();
        assert_eq!(push(&mut queue, Entry::Presence("a"), "a1", true), None);
        assert_eq!(push(&mut queue, Entry::Presence("b"), "b1", true), None);
        assert_eq!(push(&mut queue, Entry::Presence("a"), "a2!", true), Some(2));
        assert_eq!(queue.late(), 2);
        assert_eq!(taken(&mut queue), "b1a2!");
        assert!(queue.is_empty());
    }

    #[test]
    fn a_message_goes_before_presence_of_others_and_behind_that_of_its_sender() {
        let mut queue = Texts::default();
        push(&mut queue, Entry::Presence("a"), "a1", true);
        push(&mut queue, Entry::Presence("b"), "b1", true);
        push(&mut queue, Entry::Stanza(Some("b")), "b2", true);
        push(&mut queue, Entry::Stanza(Some("c")), "c1", true);
        // The older one has gone: this one does not overtake the message.
        push(&mut queue, Entry::Presence("b"), "b3", true);
        assert_eq!(taken(&mut queue), "b1b2c1a1b3");
    }

    #[test]
    fn late_presence_goes_in_pieces_and_the_last_words_are_last() {
        let mut queue = Texts::default();
        let long = "x".repeat(LATE_BYTES);
        for from in ["a", "b", "c"] {
            push(&mut queue, Entry::Presence(from), &long, true);
        }
        assert_eq!(taken(&mut queue).len(), LATE_BYTES);
        push(&mut queue, Entry::Stanza(None), "!", true);
        assert!(taken(&mut queue).starts_with('!'));
        queue.push_last("end".to_owned());
        assert_eq!(taken(&mut queue), format!("{long}end"));
    }

    /// XEP-0352: the last word of each sender and each conversation waits, and goes before what matters.
    #[test]
    fn while_nobody_looks_only_what_matters_goes_out_and_takes_the_rest_along() {
        let mut queue = Texts::default();
        queue.set_inactive(Some(100));
        assert_eq!(push(&mut queue, Entry::Presence("a"), "a1", false), None);
        push(&mut queue, Entry::State("a"), "s1", false);
        push(&mut queue, Entry::Directed("b"), "b1", false);
        push(&mut queue, Entry::Directed("b"), "b2", false);
        assert_eq!(queue.replaced_by(Entry::State("a")), 2);
        assert_eq!(
            push(&mut queue, Entry::State("a"), "s2!", false),
            Some(2),
            "no presence goes for a state"
        );
        assert_eq!(push(&mut queue, Entry::Presence("a"), "a2!", false), Some(2));
        assert!(!queue.is_due() && !queue.is_empty());
        assert_eq!(taken(&mut queue), "");
        push(&mut queue, Entry::Stanza(Some("c")), "c", false);
        assert!(queue.is_due());
        push(&mut queue, Entry::Presence("a"), "a3", false);
        assert_eq!(taken(&mut queue), "b1b2s2!a2!c");
        assert_eq!(queue.late(), 1);
        queue.set_inactive(None);
        assert_eq!(taken(&mut queue), "a3");
    }

    #[test]
    fn what_waits_while_nobody_looks_is_bounded() {
        let mut queue = Texts::default();
        queue.set_inactive(Some(6));
        for (from, text) in [("a", "a1a"), ("b", "b1b"), ("a", "a2a")] {
            push(&mut queue, Entry::Presence(from), text, true);
            assert_eq!(taken(&mut queue), "");
        }
        push(&mut queue, Entry::State("c"), "c", false);
        assert_eq!(taken(&mut queue), "b1ba2ac");
        push(&mut queue, Entry::Presence("a"), "a3", false);
        queue.forget_inactive();
        push(&mut queue, Entry::Stanza(Some("a")), "!", true);
        assert_eq!(taken(&mut queue), "a3!", "its connection is gone: as under pressure");
        assert_eq!(queue.bytes, 0);
    }

    #[test]
    fn it_gives_no_more_than_is_wanted() {
        let mut queue = Texts::default();
        for (entry, text) in
            [(Entry::Stanza(None), "1"), (Entry::Stanza(None), "2"), (Entry::Presence("a"), "3")]
        {
            push(&mut queue, entry, text, true);
        }
        let mut out = String::new();
        queue.take(|text| {
            out.push_str(&text);
            false
        });
        assert_eq!((out.as_str(), queue.is_empty()), ("1", false));
        assert_eq!(queue.extract(|text| text == "2"), ["2"]);
        assert_eq!(taken(&mut queue), "3");
    }

    proptest! {
        /// Whatever comes: of each sender all but superseded presence arrives, in order, and its last word always.
        #[test]
        fn the_order_of_a_pair_never_changes(
            pushes in proptest::collection::vec((0..4_usize, any::<bool>(), any::<bool>(), any::<bool>()), 0..200)
        ) {
            let names = ["a", "b", "c", "d"];
            let mut queue = Texts::default();
            let mut out = String::new();
            let mut sent: BTreeMap<usize, Vec<(usize, bool)>> = BTreeMap::new();
            for (number, (sender, is_presence, pressed, take)) in pushes.into_iter().enumerate() {
                let entry = match is_presence {
                    true => Entry::Presence(names[sender]),
                    false => Entry::Stanza(Some(names[sender])),
                };
                push(&mut queue, entry, &format!("{sender}:{number} "), pressed);
                sent.entry(sender).or_default().push((number, is_presence));
                if take {
                    out.push_str(&taken(&mut queue));
                }
            }
            while !queue.is_empty() {
                out.push_str(&taken(&mut queue));
            }
            for (sender, sent) in sent {
                let prefix = format!("{sender}:");
                let arrived: Vec<usize> =
                    out.split(' ').filter_map(|word| word.strip_prefix(&prefix)?.parse().ok()).collect();
                prop_assert!(arrived.is_sorted());
                for (at, (number, is_presence)) in sent.iter().enumerate() {
                    let superseded = *is_presence && sent.get(at + 1).is_some_and(|(_, next)| *next);
                    prop_assert!(superseded || arrived.contains(number));
                }
            }
        }
    }
}
