//! PURE: the privacy list that applies to a session, made ready for quick answers (XEP-0016, XEP-0191).
//!
//! However long the list, a question costs a handful of look-ups and allocates nothing: one for each form of address
//! that the list has and the peer may be named by, one for the peer's groups. An address is kept as a 64-bit hash
//! with keys of the node's own, so that ten thousand of them take some 150 KB; two addresses with one hash are one in
//! 2^64 a pair.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};

use althing_proto::jid::Jid;
use althing_proto::privacy::{Item, Kinds, List, Subject};
use althing_proto::roster::{RosterItem, Subscription};

/// What a list says of a stanza.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It goes through.
    Allow,
    /// A rule denies it.
    Deny,
    /// The peer is blocked wholly.
    Block,
}

/// The rules of one list.
#[derive(Debug, Clone)]
pub struct Rules {
    keys: RandomState,
    /// Those blocked before all else.
    entries: HashSet<u64, AsItIs>,
    /// Those blocked by a rule further down, which an earlier one may overrule.
    later: HashSet<u64, AsItIs>,
    /// The forms of the addresses in `entries` and `jids`.
    forms: u8,
    jids: HashMap<u64, Places, AsItIs>,
    /// By contact: the rules for its groups.
    groups: HashMap<u64, Places, AsItIs>,
    subscriptions: Option<Box<[Places; 4]>>,
    any: Places,
    by_group: bool,
}

/// What a rule says and where it stands, in ascending order.
type Places = Vec<(u32, Kinds, bool)>;

type AsItIs = BuildHasherDefault<Hashed>;

/// The keys are hashes already.
#[derive(Debug, Clone, Default)]
pub struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Not reached for u64; whatever comes is mixed in.
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        #[cfg(test)]
        tests::LOOK_UPS.with(|count| count.set(count.get() + 1));
        self.0 = hash;
    }
}

const FULL: u8 = 1;
const BARE: u8 = 2;
const DOMAIN_RESOURCE: u8 = 4;
const DOMAIN: u8 = 8;

/// The form of an address.
fn form(jid: &Jid) -> u8 {
    match (jid.node().is_some(), jid.resource().is_some()) {
        (true, true) => FULL,
        (true, false) => BARE,
        (false, true) => DOMAIN_RESOURCE,
        (false, false) => DOMAIN,
    }
}

impl Rules {
    /// Makes `list` ready; `None` where it says nothing. `roster` tells who is in which group: it is looked at only
    /// where [`needs_roster`] says so.
    #[must_use]
    pub fn of(list: &List, roster: &[RosterItem], keys: &RandomState) -> Option<Rules> {
        if list.entries.is_empty() && list.items.is_empty() {
            return None;
        }
        let mut rules = Rules {
            keys: keys.clone(),
            entries: HashSet::default(),
            later: HashSet::default(),
            forms: 0,
            jids: HashMap::default(),
            groups: HashMap::default(),
            subscriptions: None,
            any: Places::new(),
            by_group: needs_roster(list),
        };
        rules.block(list.entries.iter().map(|entry| &entry.jid));
        for (rank, item) in (0..).zip(&list.items) {
            rules.add(rank, item);
        }
        if rules.by_group {
            for contact in roster {
                let mut places = Places::new();
                for (rank, item) in (0..).zip(&list.items) {
                    if matches!(&item.subject, Subject::Group(group) if contact.groups.contains(group)) {
                        place(&mut places, rank, item);
                    }
                }
                if !places.is_empty() {
                    rules.groups.insert(rules.hash(&contact.jid), places);
                }
            }
        }
        Some(rules)
    }

    fn add(&mut self, rank: u32, item: &Item) {
        match &item.subject {
            Subject::Any => place(&mut self.any, rank, item),
            Subject::Jid(jid) => {
                let hash = self.hash(jid);
                self.forms |= form(jid);
                place(self.jids.entry(hash).or_default(), rank, item);
                if item.blocked().is_some() {
                    self.later.insert(hash);
                }
            }
            Subject::Subscription(subscription) => {
                let places = self.subscriptions.get_or_insert_default();
                place(&mut places[*subscription as usize], rank, item);
            }
            Subject::Group(_) => {}
        }
    }

    /// Blocks these before all else.
    pub fn block<'a>(&mut self, jids: impl IntoIterator<Item = &'a Jid>) {
        for jid in jids {
            self.forms |= form(jid);
            self.entries.insert(self.hash(jid));
        }
    }

    /// Blocks these no more, or nobody where none is named. Rules further down stay: whoever takes one of those
    /// away has the list read anew.
    pub fn unblock(&mut self, jids: &[Jid]) {
        if jids.is_empty() {
            (self.entries, self.later) = Default::default();
        }
        for jid in jids {
            let hash = self.hash(jid);
            self.entries.remove(&hash);
            self.later.remove(&hash);
        }
    }

    /// Rules for nobody yet.
    #[must_use]
    pub fn empty(keys: &RandomState) -> Rules {
        Rules {
            keys: keys.clone(),
            entries: HashSet::default(),
            later: HashSet::default(),
            forms: 0,
            jids: HashMap::default(),
            groups: HashMap::default(),
            subscriptions: None,
            any: Places::new(),
            by_group: false,
        }
    }

    /// What the list says of `kind` to or from `peer`, with whom the user has that subscription.
    #[must_use]
    pub fn decide(&self, peer: &Jid, subscription: impl FnOnce() -> Subscription, kind: Kinds) -> Decision {
        let mut first: Option<(u32, bool)> = None;
        let mut consider = |places: &Places| {
            let place = places.iter().find(|(_, kinds, _)| kinds.meets(kind));
            if let Some((rank, _, allow)) = place
                && first.is_none_or(|(before, _)| *rank < before)
            {
                first = Some((*rank, *allow));
            }
        };
        let mut bare = None;
        for (form, hash) in self.hashes(peer) {
            if form == BARE {
                bare = Some(hash);
            }
            if self.forms & form == 0 {
                continue;
            }
            if self.entries.contains(&hash) {
                return Decision::Block;
            }
            if let Some(places) = (!self.jids.is_empty()).then(|| self.jids.get(&hash)).flatten() {
                consider(places);
            }
        }
        if !self.groups.is_empty()
            && let Some(places) = bare.and_then(|bare| self.groups.get(&bare))
        {
            consider(places);
        }
        if let Some(places) = &self.subscriptions {
            consider(&places[subscription() as usize]);
        }
        consider(&self.any);
        match first {
            Some((_, false)) => Decision::Deny,
            _ => Decision::Allow,
        }
    }

    /// Whether a rule is about single resources: then the bare address does not say all.
    #[must_use]
    pub fn names_resources(&self) -> bool {
        self.forms & (FULL | DOMAIN_RESOURCE) != 0
    }

    /// Whether a change of a contact's groups changes the rules.
    #[must_use]
    pub fn by_group(&self) -> bool {
        self.by_group
    }

    /// Whether the block list shows that address.
    #[must_use]
    pub fn shows(&self, jid: &Jid) -> bool {
        let hash = self.hash(jid);
        self.entries.contains(&hash) || self.later.contains(&hash)
    }

    /// How many addresses the block list shows.
    #[must_use]
    pub fn shown(&self) -> usize {
        self.entries.union(&self.later).count()
    }

    /// The forms by which `peer` may be named, the widest first, and the hash of each: made in one go, as far as the
    /// list has need of it.
    fn hashes(&self, peer: &Jid) -> impl Iterator<Item = (u8, u64)> {
        let mut hasher = self.keys.build_hasher();
        hasher.write(peer.domain().as_str().as_bytes());
        let domain = (DOMAIN, hasher.finish());
        let narrower = self.forms != DOMAIN || !self.groups.is_empty();
        let bare = peer.node().filter(|_| narrower).map(|node| {
            write_part(&mut hasher, NODE, node.as_str());
            (BARE, hasher.finish())
        });
        let resource = peer.resource().filter(|_| self.names_resources());
        let narrowest = resource.map(|resource| {
            write_part(&mut hasher, RESOURCE, resource.as_str());
            (if peer.node().is_some() { FULL } else { DOMAIN_RESOURCE }, hasher.finish())
        });
        [Some(domain), bare, narrowest].into_iter().flatten()
    }

    fn hash(&self, jid: &Jid) -> u64 {
        let mut hasher = self.keys.build_hasher();
        hasher.write(jid.domain().as_str().as_bytes());
        if let Some(node) = jid.node() {
            write_part(&mut hasher, NODE, node.as_str());
        }
        if let Some(resource) = jid.resource() {
            write_part(&mut hasher, RESOURCE, resource.as_str());
        }
        hasher.finish()
    }
}

/// Stand before a part of an address: no part has them in it, so that two addresses are never the same bytes.
const NODE: u8 = 1;
const RESOURCE: u8 = 2;

fn write_part(hasher: &mut impl Hasher, part: u8, text: &str) {
    hasher.write_u8(part);
    hasher.write(text.as_bytes());
}

/// Whether the list has rules for groups.
#[must_use]
pub fn needs_roster(list: &List) -> bool {
    list.items.iter().any(|item| matches!(item.subject, Subject::Group(_)))
}

/// Adds a rule unless earlier ones for the same subject say all that it says: a client cannot make a long row.
fn place(places: &mut Places, rank: u32, item: &Item) {
    let said = places.iter().fold(Kinds::NONE, |said, (_, kinds, _)| said.or(*kinds));
    let kinds = item.kinds.without(said);
    if !kinds.is_empty() {
        places.push((rank, kinds, item.allow));
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use althing_proto::jid::BareJid;

    use super::*;

    thread_local! {
        pub(super) static LOOK_UPS: Cell<usize> = const { Cell::new(0) };
    }

    fn jid(text: &str) -> Jid {
        Jid::new(text).unwrap()
    }

    fn item(order: u32, subject: Subject, allow: bool, kinds: Kinds) -> Item {
        Item { order, subject, allow, kinds }
    }

    fn rules(items: Vec<Item>, roster: &[RosterItem]) -> Rules {
        Rules::of(&List::divided(1, items), roster, &RandomState::new()).unwrap()
    }

    fn says(rules: &Rules, peer: &str, subscription: Subscription, kind: Kinds) -> bool {
        rules.decide(&jid(peer), || subscription, kind) == Decision::Allow
    }

    fn blocking(count: usize) -> Rules {
        let mut rules = Rules::empty(&RandomState::new());
        let jids: Vec<Jid> = (0..count).map(|n| jid(&format!("user{n}@example.net"))).collect();
        rules.block(&jids);
        rules
    }

    /// P13, P6: what a stanza costs does not depend on how many are blocked.
    #[test]
    fn p13_ten_thousand_entries_cost_as_many_look_ups_as_one() {
        let look_ups = |rules: &Rules, peer: &str| {
            LOOK_UPS.with(|count| count.set(0));
            let decision = rules.decide(&jid(peer), Subscription::default, Kinds::MESSAGE);
            (decision, LOOK_UPS.with(Cell::get))
        };
        let (few, many) = (blocking(1), blocking(10_000));
        for peer in ["friend@example.net/x", "friend@example.org", "example.com"] {
            assert_eq!(look_ups(&few, peer), look_ups(&many, peer), "{peer}");
            assert!(look_ups(&many, peer).1 <= 1, "only the form that the list has");
        }
        assert_eq!(look_ups(&many, "user9999@example.net/x"), (Decision::Block, 1));
        // All forms at once: still no more than there are forms.
        let mut many = many;
        many.block([&jid("a@b/c"), &jid("b/c"), &jid("b")]);
        assert_eq!(look_ups(&many, "friend@example.net/x"), (Decision::Allow, 3));
    }

    /// XEP-0016 §2.2 rules 5 to 7: in order, the first that matches decides, and the end lets through.
    #[test]
    fn the_first_rule_that_matches_decides() {
        let all = Kinds::ALL;
        let rules = rules(
            vec![
                item(30, Subject::Any, false, Kinds::MESSAGE),
                item(10, Subject::Jid(jid("a@b/phone")), true, all),
                item(20, Subject::Jid(jid("a@b")), false, all),
                item(5, Subject::Jid(jid("x.org")), false, Kinds::PRESENCE_IN),
                item(25, Subject::Subscription(Subscription::Both), true, Kinds::MESSAGE),
            ],
            &[],
        );
        let none = Subscription::None;
        assert!(says(&rules, "a@b/phone", none, Kinds::MESSAGE));
        assert!(!says(&rules, "a@b/desk", none, Kinds::MESSAGE));
        assert!(!says(&rules, "a@b/desk", Subscription::Both, Kinds::IQ));
        assert!(!says(&rules, "c@x.org", none, Kinds::PRESENCE_IN));
        assert!(says(&rules, "c@x.org", none, Kinds::PRESENCE_OUT));
        assert!(!says(&rules, "c@x.org", none, Kinds::MESSAGE));
        assert!(says(&rules, "c@x.org", Subscription::Both, Kinds::MESSAGE));
        assert!(!says(&rules, "c@x.org", Subscription::To, Kinds::MESSAGE), "an exact match only");
        assert!(says(&rules, "c@x.org", none, Kinds::OTHER));
        assert!(rules.names_resources() && rules.shows(&jid("a@b")) && !rules.shows(&jid("a@b/phone")));
    }

    #[test]
    fn groups_are_looked_up_in_the_roster() {
        let mut enemy = RosterItem::new(BareJid::new("e@b").unwrap());
        enemy.groups = vec!["Others".to_owned(), "Enemies".to_owned()];
        let friend = RosterItem::new(BareJid::new("f@b").unwrap());
        let group = |name: &str| Subject::Group(name.to_owned());
        let rules = rules(
            vec![
                item(1, group("Enemies"), false, Kinds::IQ),
                item(2, group("Others"), true, Kinds::ALL),
                item(3, Subject::Any, false, Kinds::ALL),
            ],
            &[enemy, friend],
        );
        assert!(rules.by_group());
        assert!(!says(&rules, "e@b/x", Subscription::None, Kinds::IQ));
        assert!(says(&rules, "e@b/x", Subscription::None, Kinds::MESSAGE));
        assert!(!says(&rules, "f@b", Subscription::Both, Kinds::MESSAGE));
    }

    #[test]
    fn entries_come_and_go_without_the_list() {
        let mut rules = blocking(2);
        let blocked = |rules: &Rules, peer: &str| !says(rules, peer, Subscription::Both, Kinds::OTHER);
        assert!(blocked(&rules, "user0@example.net/x") && blocked(&rules, "user1@example.net"));
        rules.unblock(&[jid("user0@example.net")]);
        assert!(!blocked(&rules, "user0@example.net/x") && rules.shown() == 1);
        rules.block([&jid("example.net")]);
        assert!(blocked(&rules, "user0@example.net/x") && blocked(&rules, "example.net/y"));
        rules.unblock(&[]);
        assert!(!blocked(&rules, "user1@example.net") && rules.shown() == 0);
    }

    #[test]
    fn a_subject_takes_no_more_room_than_there_are_kinds() {
        let items = (0..1_000).map(|order| item(order, Subject::Any, order % 2 == 0, Kinds::IQ)).collect();
        let rules = rules(items, &[]);
        assert_eq!(rules.any, [(0, Kinds::IQ, true)]);
    }
}
