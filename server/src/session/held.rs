//! PURE: stanzas for a session that wait behind an earlier one of the same sender, which is with a module.

use std::collections::VecDeque;

use althing_proto::stanza::Stanza;

use super::copies::Share;

/// Most stanzas that wait so in one session; their bytes count as the mailbox's.
pub const MAX_HELD: usize = 256;

/// A stanza for a session.
#[derive(Debug)]
pub struct Parcel {
    /// The stanza.
    pub stanza: Stanza,
    /// Who else gets it.
    pub share: Share,
}

/// A sender of whom something is with a module, and what waits behind that.
#[derive(Debug)]
struct Sender {
    id: u64,
    under_way: usize,
    parcels: VecDeque<Parcel>,
}

/// What waits in one session. Costs nothing while nothing is with a module.
#[derive(Debug, Default)]
pub struct Held {
    /// Few at a time: those whose stanzas a module is busy with.
    senders: Vec<Sender>,
    waiting: usize,
}

impl Held {
    /// Whether nobody's stanzas wait or would have to.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.senders.is_empty()
    }

    /// A stanza of `sender` is with a module from now on.
    pub fn begin(&mut self, sender: u64) {
        match self.of(sender) {
            Some(at) => at.under_way += 1,
            None => self.senders.push(Sender { id: sender, under_way: 1, parcels: VecDeque::new() }),
        }
    }

    /// Whether a stanza of `sender` has to wait.
    pub fn holds(&mut self, sender: u64) -> bool {
        self.of(sender).is_some()
    }

    /// Takes a stanza behind those of its sender; gives it back where none has to wait or too many do.
    pub fn hold(&mut self, sender: u64, parcel: Parcel) -> Option<Parcel> {
        if self.waiting >= MAX_HELD {
            return Some(parcel);
        }
        let Some(at) = self.of(sender) else { return Some(parcel) };
        at.parcels.push_back(parcel);
        self.waiting += 1;
        None
    }

    /// A stanza of `sender` is back from a module.
    pub fn back(&mut self, sender: u64) {
        if let Some(at) = self.of(sender) {
            at.under_way = at.under_way.saturating_sub(1);
        }
    }

    /// The next stanza of `sender` that need not wait any more. Without one the sender is forgotten.
    pub fn next(&mut self, sender: u64) -> Option<Parcel> {
        let at = self.of(sender)?;
        if at.under_way > 0 {
            return None;
        }
        let next = at.parcels.pop_front();
        match next {
            Some(_) => self.waiting -= 1,
            None => self.senders.retain(|other| other.id != sender),
        }
        next
    }

    /// All that waits, those of each sender in order.
    pub fn take_all(&mut self) -> Vec<Parcel> {
        self.waiting = 0;
        std::mem::take(&mut self.senders).into_iter().flat_map(|sender| sender.parcels).collect()
    }

    fn of(&mut self, sender: u64) -> Option<&mut Sender> {
        self.senders.iter_mut().find(|other| other.id == sender)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parcel(id: &str) -> Parcel {
        let xml = format!("<message xmlns='jabber:client' id='{id}'/>");
        Parcel { stanza: Stanza::parse(xml.parse().unwrap()).unwrap(), share: Share::Alone }
    }

    fn id(parcel: Option<Parcel>) -> Option<String> {
        parcel.and_then(|parcel| parcel.stanza.id().map(str::to_owned))
    }

    #[test]
    fn a_sender_waits_until_all_of_it_is_back_and_others_do_not() {
        let mut held = Held::default();
        held.begin(1);
        held.begin(1);
        assert!(held.holds(1) && !held.holds(2));
        for name in ["a", "b"] {
            assert!(held.hold(1, parcel(name)).is_none());
        }
        assert!(held.hold(2, parcel("c")).is_some());
        held.back(1);
        assert_eq!(id(held.next(1)), None);
        held.back(1);
        assert_eq!(id(held.next(1)), Some("a".to_owned()));
        held.begin(1);
        assert_eq!(id(held.next(1)), None, "the first one is with a module now");
        held.back(1);
        assert_eq!(id(held.next(1)), Some("b".to_owned()));
        assert_eq!(id(held.next(1)), None);
        assert!(held.is_empty());
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut held = Held::default();
        held.begin(1);
        for _ in 0..MAX_HELD {
            assert!(held.hold(1, parcel("a")).is_none());
        }
        assert!(held.hold(1, parcel("a")).is_some());
        assert_eq!(held.take_all().len(), MAX_HELD);
        assert!(held.hold(1, parcel("a")).is_some() && held.is_empty());
    }
}
