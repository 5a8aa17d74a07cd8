//! PURE: what the privacy list that applies to a session means for it, and what follows when it changes.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use althing_proto::jid::{BareJid, FullJid, Jid};
use althing_proto::ns;
use althing_proto::privacy::{BlockDelta, Kinds, Lists, PrivacyChanged};
use althing_proto::stanza::{IqType, Kind, PresenceType, Stanza};
use althing_proto::xml::build::BuilderExt;
use althing_proto::xml::{Element, name};

use super::SessionState;
use crate::pipeline::packet::is_of_account;
use crate::session::effect::{Effect, Hidden, SessionChange};
use crate::session::losses;
use crate::session::rules::{Decision, Rules};

/// What a session knows of its user's privacy lists.
#[derive(Debug, Clone, Default)]
pub(super) struct Privacy {
    version: u64,
    default: Option<u32>,
    /// The list that applies instead of the default.
    active: Option<u32>,
    /// The list that applies; nothing where it says nothing.
    rules: Option<Arc<Rules>>,
    /// Whether the client has asked for the block list (XEP-0191 §3.2): then it is told of changes.
    asked_for_blocks: bool,
}

impl Privacy {
    /// The list that applies, where it says anything.
    pub(super) fn rules(&self) -> Option<Arc<Rules>> {
        self.rules.clone()
    }

    /// Whether the list that applies has rules for roster groups.
    pub(super) fn by_group(&self) -> bool {
        self.rules.as_ref().is_some_and(|rules| rules.by_group())
    }
}

/// Lists as they were read, and the one that applies made ready.
#[derive(Debug, Clone)]
pub struct LoadedPrivacy {
    /// The lists, with the one that applies.
    pub lists: Lists,
    /// The one that applies.
    pub rules: Option<Arc<Rules>>,
}

/// The sessions of an account that are available, wherever they are.
pub type SessionsOf<'a> = &'a dyn Fn(&BareJid) -> Vec<FullJid>;

impl SessionState {
    /// The lists that the session begins with.
    pub fn set_privacy(&mut self, loaded: LoadedPrivacy) {
        self.privacy.version = loaded.lists.version;
        self.privacy.default = loaded.lists.default;
        self.privacy.rules = loaded.rules;
    }

    /// The list that applies instead of the default.
    #[must_use]
    pub fn active_list(&self) -> Option<u32> {
        self.privacy.active
    }

    /// What the list that applies says of `kind` to or from `peer`. The user's own resources and the own server are
    /// never denied anything (XEP-0016 §2.1, XEP-0191 §5).
    #[must_use]
    pub fn decide(&self, peer: &Jid, kind: Kinds) -> Decision {
        self.decide_by(self.privacy.rules.as_deref(), peer, kind)
    }

    fn decide_by(&self, rules: Option<&Rules>, peer: &Jid, kind: Kinds) -> Decision {
        let Some(rules) = rules else { return Decision::Allow };
        if is_own(peer, &self.account) {
            return Decision::Allow;
        }
        rules.decide(peer, || self.subscription(&peer.to_bare()), kind)
    }

    /// Whether this session's presence may go to `peer`, as far as privacy lists are concerned.
    #[must_use]
    pub fn may_be_seen_by(&self, peer: &Jid) -> bool {
        self.decide(peer, Kinds::PRESENCE_OUT) == Decision::Allow
    }

    /// Whether the presence of `contact` may come in, at least that of some resource of it.
    #[must_use]
    pub fn wants_to_see(&self, contact: &BareJid) -> bool {
        self.decide(contact, Kinds::PRESENCE_IN) == Decision::Allow
            || self.privacy.rules.as_ref().is_some_and(|rules| rules.names_resources())
    }

    /// Sends `stanza` to whoever receives this session's presence (RFC 6121 §4.2.2, §4.4.2): contacts that the list
    /// lets see it, and the account itself.
    #[must_use]
    pub fn broadcast(&self, stanza: Stanza) -> Effect {
        let rules = self.privacy.rules.as_ref();
        let single = rules.filter(|rules| rules.names_resources());
        let seers = self.contacts.iter().filter(|(contact, subscription)| {
            subscription.is_from() && (single.is_some() || self.may_be_seen_by(contact))
        });
        let (mut to, mut subscriptions) = (Vec::new(), Vec::new());
        for (contact, subscription) in seers {
            to.push(contact.clone());
            if single.is_some() {
                subscriptions.push(*subscription);
            }
        }
        to.push(self.account.clone());
        let hidden = single.map(|rules| Box::new(Hidden { rules: Arc::clone(rules), subscriptions }));
        Effect::FanOut { stanza, to, hidden }
    }

    /// The client has asked for the block list: it is told of changes from now on.
    pub(super) fn ask_for_blocks(&mut self) {
        self.privacy.asked_for_blocks = true;
    }

    /// The lists have changed. A change that follows what is known, and says all, is taken over; else they are read
    /// anew.
    pub fn on_privacy(
        &mut self,
        change: &PrivacyChanged,
        keys: &RandomState,
        sessions_of: SessionsOf<'_>,
    ) -> Vec<Effect> {
        let known = self.privacy.version;
        if change.version <= known {
            return Vec::new();
        }
        if change.version > known + 1 {
            return vec![Effect::Session(SessionChange::ReloadPrivacy)];
        }
        let default_changed = self.privacy.default != change.default;
        (self.privacy.version, self.privacy.default) = (change.version, change.default);
        let applies = self.privacy.active.or(change.default) == Some(change.list);
        let mut effects = Vec::new();
        let before = self.privacy.rules.clone();
        if applies && change.blocks != BlockDelta::None {
            let mut rules = before.clone().unwrap_or_else(|| Arc::new(Rules::empty(keys)));
            // A copy: those from before are compared with it.
            let changed = Arc::make_mut(&mut rules);
            match &change.blocks {
                BlockDelta::Blocked(jids) => changed.block(jids),
                BlockDelta::Unblocked(jids) => changed.unblock(jids),
                BlockDelta::None => {}
            }
            self.privacy.rules = Some(rules);
            effects.extend(self.seen_otherwise(before.as_deref(), keys, sessions_of));
        }
        if self.privacy.asked_for_blocks {
            effects.extend(self.block_push(&change.blocks));
        }
        if change.reload && (applies || default_changed) {
            effects.push(Effect::Session(SessionChange::ReloadPrivacy));
        }
        effects
    }

    /// The lists were read anew.
    pub fn on_privacy_loaded(
        &mut self,
        loaded: LoadedPrivacy,
        keys: &RandomState,
        sessions_of: SessionsOf<'_>,
    ) -> Vec<Effect> {
        let LoadedPrivacy { lists, rules } = loaded;
        if lists.version < self.privacy.version {
            // What was asked for later has been read before.
            return Vec::new();
        }
        let before = std::mem::replace(&mut self.privacy.rules, rules);
        (self.privacy.version, self.privacy.default) = (lists.version, lists.default);
        let number = lists.list.as_ref().map(|list| list.number);
        self.privacy.active = self.privacy.active.filter(|active| Some(*active) == number);
        let mut effects = self.seen_otherwise(before.as_deref(), keys, sessions_of);
        if self.privacy.asked_for_blocks && self.privacy.active.is_none() {
            effects.extend(self.compared(before.as_deref(), &lists));
        }
        effects
    }

    /// What the client must hear of a block list that is another one now.
    fn compared(&self, before: Option<&Rules>, lists: &Lists) -> Vec<Effect> {
        let mut now: Vec<&Jid> = lists.list.iter().flat_map(|list| list.blocked()).collect();
        now.sort();
        now.dedup();
        let new = |jid: &&Jid| before.is_none_or(|before| !before.shows(jid));
        let added: Vec<Jid> = now.iter().copied().filter(|jid| new(jid)).cloned().collect();
        let kept = now.len() - added.len();
        if before.is_some_and(|before| before.shown() > kept) {
            // Who was taken away is not known any more: the client is told from the beginning.
            let all = now.into_iter().cloned().collect();
            let pushes = [BlockDelta::Unblocked(Vec::new()), BlockDelta::Blocked(all)];
            return pushes.iter().flat_map(|push| self.block_push(push)).collect();
        }
        self.block_push(&BlockDelta::Blocked(added)).into_iter().collect()
    }

    /// XEP-0191 §3.3, §3.4: the push for a client that has asked for the list.
    fn block_push(&self, delta: &BlockDelta) -> Option<Effect> {
        let (word, jids) = match delta {
            BlockDelta::Blocked(jids) if !jids.is_empty() => ("block", jids),
            BlockDelta::Unblocked(jids) => ("unblock", jids),
            BlockDelta::Blocked(_) | BlockDelta::None => return None,
        };
        let items = jids.iter().map(block_item);
        let payload = Element::builder(word, ns::BLOCKING).append_all(items);
        let iq = Element::builder("iq", ns::CLIENT)
            .set(name!("type"), IqType::Set.name())
            .set(name!("id"), format!("{word}-{}", self.privacy.version))
            .append(payload)
            .build();
        let to = self.jid.clone().into();
        Some(Effect::Deliver(Stanza::from_parts(Kind::Iq(IqType::Set), None, Some(to), iq)))
    }

    /// What changes for those who see this session, and whom it sees, now that other rules apply than `before`.
    /// Contacts see it go or come (XEP-0191 §3.3, §3.4; XEP-0016 §2.11), and it sees them (XEP-0016 §2.10).
    fn seen_otherwise(
        &mut self,
        before: Option<&Rules>,
        keys: &RandomState,
        sessions_of: SessionsOf<'_>,
    ) -> Vec<Effect> {
        let now = self.privacy.rules.clone();
        let now = now.as_deref();
        let names_resources = |rules: Option<&Rules>| rules.is_some_and(Rules::names_resources);
        let single = names_resources(before) || names_resources(now);
        let allows =
            |rules: Option<&Rules>, peer: &Jid, kind| self.decide_by(rules, peer, kind) == Decision::Allow;
        let change = |peer: &Jid, kind| match (allows(before, peer, kind), allows(now, peer, kind)) {
            (true, false) => Some(false),
            (false, true) => Some(true),
            _ => None,
        };
        let mut effects = Vec::new();
        for (contact, subscription) in self.contacts.iter() {
            if let Some(presence) = self.presence.as_ref().filter(|_| subscription.is_from()) {
                let mut tell = |peer: Jid| match change(&peer, Kinds::PRESENCE_OUT) {
                    Some(true) => effects.push(Effect::Route(presence.with_to(peer))),
                    Some(false) => effects.push(Effect::Route(self.unavailable().with_to(peer))),
                    None => {}
                };
                if single {
                    sessions_of(contact).into_iter().for_each(|jid| tell(jid.into()));
                } else {
                    tell(contact.clone().into());
                }
            }
            if subscription.is_to() {
                effects.extend(self.shown_otherwise(contact, &change, keys, sessions_of));
            }
        }
        // Whom directed presence told, and no broadcast.
        let told = |peer: &Jid| self.presence.is_some() && self.subscription(&peer.to_bare()).is_from();
        let gone = |peer: &&Jid| change(peer, Kinds::PRESENCE_OUT) == Some(false);
        let gone: Vec<Jid> = self.directed.iter().filter(gone).cloned().collect();
        let untold = gone.iter().filter(|peer| !told(peer));
        effects.extend(untold.map(|peer| Effect::Route(self.unavailable().with_to(peer.clone()))));
        for peer in gone {
            self.directed.remove(&peer);
        }
        effects
    }

    /// What the client must be shown of a contact whose presence is denied now, or no longer.
    fn shown_otherwise(
        &self,
        contact: &BareJid,
        change: &dyn Fn(&Jid, Kinds) -> Option<bool>,
        keys: &RandomState,
        sessions_of: SessionsOf<'_>,
    ) -> Vec<Effect> {
        if self.presence.is_none() {
            return Vec::new();
        }
        if change(contact, Kinds::PRESENCE_IN) == Some(true) {
            return vec![Effect::Route(probe(&self.jid, contact))];
        }
        if self.seen.is_empty() {
            return Vec::new();
        }
        let hidden = sessions_of(contact).into_iter().filter(|jid| {
            change(jid, Kinds::PRESENCE_IN) == Some(false) && self.seen.contains(keys.hash_one(jid.as_str()))
        });
        hidden.map(|jid| Effect::Deliver(losses::unavailable(&jid, self.account.clone()))).collect()
    }
}

/// Whether `peer` is the account, one of its resources, or its server.
fn is_own(peer: &Jid, account: &BareJid) -> bool {
    is_of_account(peer, account) || (peer.node().is_none() && peer.domain() == account.domain())
}

/// An address in a block list or a push (XEP-0191 §3.2).
#[must_use]
pub fn block_item(jid: &Jid) -> Element {
    Element::builder("item", ns::BLOCKING).set(name!("jid"), jid.as_str()).build()
}

/// Asks an account for its presence, for one session alone (RFC 6121 §4.3.1).
#[must_use]
pub fn probe(from: &FullJid, to: &BareJid) -> Stanza {
    let kind = PresenceType::Probe;
    let element = Element::builder("presence", ns::CLIENT).set(name!("type"), kind.name()).build();
    Stanza::from_parts(Kind::Presence(kind), Some(from.clone().into()), Some(to.clone().into()), element)
}

#[cfg(test)]
mod tests {
    use althing_cluster::routes::BindIndex;
    use althing_proto::privacy::{Item, List, Subject};
    use althing_proto::roster::{RosterItem, Subscription};

    use super::*;

    fn jid(text: &str) -> Jid {
        Jid::new(text).unwrap()
    }

    /// An available session of a@b/c with contacts that see it and that it sees.
    fn session(contacts: &[&str]) -> SessionState {
        let items = contacts.iter().map(|contact| {
            let mut item = RosterItem::new(BareJid::new(contact).unwrap());
            item.subscription = Subscription::Both;
            item
        });
        let own = FullJid::new("a@b/c").unwrap();
        let mut state = SessionState::new(own, BindIndex(1), 7, items.collect());
        let xml = "<presence xmlns='jabber:client' from='a@b/c'/>";
        state.apply(SessionChange::Presence(Some(Stanza::parse(xml.parse().unwrap()).unwrap())));
        state
    }

    fn changed(version: u64, blocks: BlockDelta) -> PrivacyChanged {
        let default = Some(1);
        PrivacyChanged { version, changed: true, list: 1, default, edited: None, blocks, reload: false }
    }

    fn blocked(texts: &[&str]) -> BlockDelta {
        BlockDelta::Blocked(texts.iter().map(|text| jid(text)).collect())
    }

    fn unblocked(texts: &[&str]) -> BlockDelta {
        BlockDelta::Unblocked(texts.iter().map(|text| jid(text)).collect())
    }

    fn loaded(version: u64, rules: Vec<Item>, keys: &RandomState) -> LoadedPrivacy {
        let list = List::divided(1, rules);
        let rules = Rules::of(&list, &[], keys).map(Arc::new);
        let lists = Lists { version, default: Some(1), heads: Vec::new(), list: Some(list) };
        LoadedPrivacy { lists, rules }
    }

    fn block(text: &str) -> Item {
        Item { order: 0, subject: Subject::Jid(jid(text)), allow: false, kinds: Kinds::ALL }
    }

    /// What is routed or delivered, in short.
    fn told(effects: &[Effect]) -> Vec<String> {
        let told = effects.iter().map(|effect| match effect {
            Effect::Route(stanza) | Effect::Deliver(stanza) => {
                String::from_utf8(stanza.to_bytes().to_vec()).unwrap()
            }
            Effect::Session(SessionChange::ReloadPrivacy) => "reload".to_owned(),
            other => panic!("{other:?}"),
        });
        told.collect()
    }

    fn one_each(account: &BareJid) -> Vec<FullJid> {
        vec![account.with_resource_str("r").unwrap()]
    }

    /// P6: whoever is blocked is told of the end once, and of nothing after it.
    #[test]
    fn p6_who_is_blocked_gets_unavailable_and_then_nothing() {
        let keys = RandomState::new();
        let mut state = session(&["x@y", "z@y"]);
        let follow = |state: &mut SessionState, version, blocks| {
            told(&state.on_privacy(&changed(version, blocks), &keys, &one_each))
        };
        let effects = follow(&mut state, 1, blocked(&["x@y"]));
        assert_eq!(effects, ["<presence to='x@y' from='a@b/c' type='unavailable'/>"]);
        let Effect::FanOut { to, hidden: None, .. } = state.broadcast(state.unavailable()) else { panic!() };
        assert!(to.contains(&BareJid::new("z@y").unwrap()) && !to.contains(&BareJid::new("x@y").unwrap()));
        assert!(state.answer_probe(&jid("x@y/r")).is_none() && state.answer_probe(&jid("z@y/r")).is_some());
        // The same once more, or late, is known.
        assert!(follow(&mut state, 1, blocked(&["x@y"])).is_empty());
        let mut back = follow(&mut state, 2, unblocked(&[]));
        back.sort();
        assert_eq!(
            back,
            ["<presence to='x@y' from='a@b/c' type='probe'/>", "<presence to='x@y' from='a@b/c'/>"]
        );
        assert!(state.answer_probe(&jid("x@y/r")).is_some());
    }

    /// A single resource is hidden from, and no other.
    #[test]
    fn one_resource_of_a_contact_may_be_blocked() {
        let keys = RandomState::new();
        let mut state = session(&["x@y"]);
        let sessions = |account: &BareJid| {
            ["r", "s"].map(|resource| account.with_resource_str(resource).unwrap()).to_vec()
        };
        let effects = state.on_privacy(&changed(1, blocked(&["x@y/r"])), &keys, &sessions);
        assert_eq!(told(&effects), ["<presence to='x@y/r' from='a@b/c' type='unavailable'/>"]);
        let Effect::FanOut { to, hidden: Some(hidden), .. } = state.broadcast(state.unavailable()) else {
            panic!("it is said of single resources")
        };
        assert_eq!(to.iter().map(|jid| jid.as_str()).collect::<Vec<_>>(), ["x@y", "a@b"]);
        let hides = |at, text| hidden.is_from(at, &FullJid::new(text).unwrap());
        assert!(hides(0, "x@y/r") && !hides(0, "x@y/s") && !hides(1, "a@b/d"));
    }

    #[test]
    fn oneself_and_the_own_server_are_never_blocked() {
        let keys = RandomState::new();
        let mut state = session(&[]);
        state.on_privacy(&changed(1, blocked(&["a@b", "b", "a@b/d"])), &keys, &one_each);
        for (peer, decision) in [
            ("a@b/d", Decision::Allow),
            ("a@b", Decision::Allow),
            ("b", Decision::Allow),
            ("b/x", Decision::Allow),
            ("other@b", Decision::Block),
        ] {
            assert_eq!(state.decide(&jid(peer), Kinds::OTHER), decision, "{peer}");
        }
    }

    /// Changes of two nodes may come in either order: none is lost, none comes twice.
    #[test]
    fn a_change_that_does_not_follow_is_read_anew() {
        let keys = RandomState::new();
        let mut state = session(&["x@y", "z@y"]);
        state.ask_for_blocks();
        let gap = state.on_privacy(&changed(2, blocked(&["z@y"])), &keys, &one_each);
        assert_eq!(told(&gap), ["reload"]);
        let both = loaded(2, vec![block("x@y"), block("z@y")], &keys);
        let effects = told(&state.on_privacy_loaded(both, &keys, &one_each));
        let item = |text: &str| format!("<item jid='{text}'/>");
        let push = effects.iter().find(|effect| effect.starts_with("<iq")).unwrap();
        assert!(push.contains("<block ") && push.contains(&item("x@y")) && push.contains(&item("z@y")));
        assert_eq!(effects.len(), 3, "and both see it go");
        assert!(state.on_privacy(&changed(1, blocked(&["x@y"])), &keys, &one_each).is_empty());
        // Somebody is gone from the list: the client hears it from the beginning.
        let less = loaded(3, vec![block("z@y")], &keys);
        let effects = told(&state.on_privacy_loaded(less, &keys, &one_each));
        let pushes: Vec<_> = effects.iter().filter(|effect| effect.starts_with("<iq")).collect();
        assert!(pushes[0].contains("<unblock xmlns='urn:xmpp:blocking'/>"), "{pushes:?}");
        assert!(pushes[1].contains(&item("z@y")) && !pushes[1].contains("x@y"));
        // What was read before a later change says nothing.
        state.on_privacy(&changed(4, blocked(&["q@y"])), &keys, &one_each);
        assert!(state.on_privacy_loaded(loaded(3, Vec::new(), &keys), &keys, &one_each).is_empty());
        assert_eq!(state.decide(&jid("q@y"), Kinds::OTHER), Decision::Block);
    }

    #[test]
    fn a_stranger_who_was_told_by_directed_presence_learns_of_the_end() {
        let keys = RandomState::new();
        let mut state = session(&[]);
        state.apply(SessionChange::Directed(jid("s@y/r")));
        let effects = state.on_privacy(&changed(1, blocked(&["y"])), &keys, &one_each);
        assert_eq!(told(&effects), ["<presence to='s@y/r' from='a@b/c' type='unavailable'/>"]);
        assert!(told(&state.farewell()[2..]).is_empty(), "and not twice");
    }

    /// Requests of those who are blocked do not come back at each login.
    #[test]
    fn a_request_that_waits_is_kept_from_one_who_blocks() {
        let keys = RandomState::new();
        let mut item = RosterItem::new(BareJid::new("x@y").unwrap());
        item.pending_in = Some(b"<presence/>".to_vec());
        let own = FullJid::new("a@b/c").unwrap();
        let mut state = SessionState::new(own, BindIndex(1), 7, vec![item]);
        assert_eq!(state.pending_requests().count(), 1);
        state.set_privacy(loaded(1, vec![block("x@y")], &keys));
        assert_eq!(state.pending_requests().count(), 0);
    }
}
