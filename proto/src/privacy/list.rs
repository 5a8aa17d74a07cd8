//! PURE: a privacy list as it is kept.
//!
//! The rules at the head of a list that block an address wholly are *entries*: their order among each other
//! says nothing, so that one is added or taken away without a look at the others. The rest are *items*, in order.

use serde::{Deserialize, Serialize};

use super::item::{Item, Kinds, Subject};
use crate::jid::Jid;

/// Longest name of a list, in bytes.
pub const MAX_NAME_BYTES: usize = 1_023;

/// An address that is blocked wholly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The address.
    pub jid: Jid,
    /// Its place, where a client gave it one.
    pub order: Option<u32>,
}

/// What is known of a list without reading it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListHead {
    /// Names it for the server. Never given to another list of the user.
    pub number: u32,
    /// Names it for the user.
    pub name: String,
    /// The version of the lists that changed it last.
    pub changed: u64,
    /// How many entries it has.
    pub entries: u32,
    /// The bytes of their addresses.
    pub bytes: u32,
}

/// One list.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct List {
    /// See [`ListHead::number`].
    pub number: u32,
    /// Those blocked wholly, before all else.
    pub entries: Vec<Entry>,
    /// The other rules, in order.
    pub items: Vec<Item>,
}

/// What a user has, with one list of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Lists {
    /// Grows by one with each change of a list or of the default; 0: never changed.
    pub version: u64,
    /// The default list.
    pub default: Option<u32>,
    /// All lists.
    pub heads: Vec<ListHead>,
    /// The list that was asked for, if it is there.
    pub list: Option<List>,
}

impl List {
    /// Divides rules, in ascending order, into entries and items.
    #[must_use]
    pub fn divided(number: u32, mut rules: Vec<Item>) -> List {
        rules.sort_by_key(|rule| rule.order);
        let mut list = List { number, ..List::default() };
        let mut met = std::collections::HashSet::new();
        for rule in rules {
            match rule.blocked() {
                Some(jid) if list.items.is_empty() && met.insert(jid.clone()) => {
                    list.entries.push(Entry { jid: jid.clone(), order: Some(rule.order) });
                }
                _ => list.items.push(rule),
            }
        }
        list
    }

    /// All rules in order, as a client may see them. Entries without a place come first; the others move up
    /// where there is no room before them.
    #[must_use]
    pub fn rules(&self) -> Vec<Item> {
        let (placed, free): (Vec<&Entry>, Vec<&Entry>) =
            self.entries.iter().partition(|entry| entry.order.is_some());
        let room = u32::try_from(free.len()).unwrap_or(u32::MAX);
        let entry = |entry: &Entry, order| Item {
            order,
            subject: Subject::Jid(entry.jid.clone()),
            allow: false,
            kinds: Kinds::ALL,
        };
        let placed = placed.into_iter().map(|placed| entry(placed, placed.order.unwrap_or_default()));
        let mut rules: Vec<Item> = placed.chain(self.items.iter().cloned()).collect();
        rules.sort_by_key(|rule| rule.order);
        if rules.first().is_some_and(|first| first.order < room) {
            let end = rules.last().map_or(0, |last| last.order);
            if end.checked_add(room).is_some() {
                rules.iter_mut().for_each(|rule| rule.order += room);
            } else {
                (room..).zip(&mut rules).for_each(|(order, rule)| rule.order = order);
            }
        }
        let free = free.into_iter().zip(0..).map(|(free, order)| entry(free, order));
        free.chain(rules).collect()
    }

    /// Every address that the list blocks wholly: what a block list shows (XEP-0191 §5).
    pub fn blocked(&self) -> impl Iterator<Item = &Jid> {
        let items = self.items.iter().filter_map(Item::blocked);
        self.entries.iter().map(|entry| &entry.jid).chain(items)
    }
}

/// The addresses that stand for `peer`, the narrowest first (XEP-0016 §2.1, XEP-0191 §6).
#[must_use]
pub fn keys_of(peer: &Jid) -> Vec<Jid> {
    let domain = Jid::from_parts(None, peer.domain(), None);
    let mut keys = vec![peer.clone()];
    if peer.node().is_some() && peer.resource().is_some() {
        keys.push(peer.to_bare().into());
    }
    if keys.last() != Some(&domain) {
        keys.push(domain);
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roster::Subscription;

    fn jid(text: &str) -> Jid {
        Jid::new(text).unwrap()
    }

    fn rule(order: u32, subject: Subject, allow: bool) -> Item {
        Item { order, subject, allow, kinds: Kinds::ALL }
    }

    fn block(order: u32, text: &str) -> Item {
        rule(order, Subject::Jid(jid(text)), false)
    }

    #[test]
    fn rules_come_back_in_the_places_that_they_were_given() {
        let rules = vec![
            rule(9, Subject::Subscription(Subscription::None), false),
            block(5, "a@b"),
            block(3, "c@b"),
            block(6, "a@b"),
            block(12, "late@b"),
        ];
        let list = List::divided(1, rules.clone());
        assert_eq!(list.entries.len(), 2, "only those before all else, each once");
        let mut sorted = rules;
        sorted.sort_by_key(|rule| rule.order);
        assert_eq!(list.rules(), sorted);
        let blocked: Vec<_> = list.blocked().map(Jid::as_str).collect();
        assert_eq!(blocked, ["c@b", "a@b", "a@b", "late@b"]);
    }

    #[test]
    fn an_entry_without_a_place_comes_first_and_places_stay_distinct() {
        for first in [0, 2, u32::MAX - 1] {
            let rules = vec![rule(first, Subject::Any, true), rule(u32::MAX, Subject::Any, true)];
            let mut list = List::divided(1, rules);
            for text in ["x@b", "y@b"] {
                list.entries.push(Entry { jid: jid(text), order: None });
            }
            let rules = list.rules();
            assert!(rules[0].blocked().is_some() && rules[1].blocked().is_some());
            assert!(rules.windows(2).all(|pair| pair[0].order < pair[1].order), "{rules:?}");
        }
    }

    #[test]
    fn the_keys_of_an_address_go_from_narrow_to_wide() {
        let keys = |text: &str| keys_of(&jid(text)).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(keys("a@b/c"), ["a@b/c", "a@b", "b"]);
        assert_eq!(keys("a@b"), ["a@b", "b"]);
        assert_eq!(keys("b/c"), ["b/c", "b"]);
        assert_eq!(keys("b"), ["b"]);
    }
}
