//! PURE: what the privacy list that applies to a session means for it, and what follows when it changes.

mod pushes;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use althing_proto::jid::{BareJid, FullJid, Jid};
use althing_proto::ns;
use althing_proto::privacy::{BlockDelta, Kinds, Lists, PrivacyChanged};
use althing_proto::stanza::{Kind, PresenceType, Stanza};
use althing_proto::xml::build::BuilderExt;
use althing_proto::xml::{Element, name};

use super::SessionState;
use crate::pipeline::packet::is_of_account;
use crate::session::effect::{Effect, Hidden, SessionChange};
use crate::session::losses;
use crate::session::rules::{Decision, Rules};

pub use pushes::block_item;

/// What a session knows of its user's privacy lists.
#[derive(Debug, Clone)]
pub(super) struct Privacy {
    version: u64,
    default: Option<u32>,
    /// The list that applies instead of the default.
    active: Option<u32>,
    /// The list that applies; nothing where it says nothing.
    rules: Option<Arc<Rules>>,
    /// Whether that is the default list, of which the block list is a part.
    by_default: bool,
    /// Whether the client has asked for the block list (XEP-0191 §3.2): then it is told of changes.
    asked_for_blocks: bool,
}

impl Default for Privacy {
    fn default() -> Self {
        Privacy {
            version: 0,
            default: None,
            active: None,
            rules: None,
            by_default: true,
            asked_for_blocks: false,
        }
    }
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
        self.privacy.by_default = true;
    }

    /// The list that applies instead of the default.
    #[must_use]
    pub fn active_list(&self) -> Option<u32> {
        self.privacy.active
    }

    /// Whether the client is told of changes of the block list.
    #[must_use]
    pub fn asked_for_blocks(&self) -> bool {
        self.privacy.asked_for_blocks
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
        if self.invisible.is_some() {
            // XEP-0186 §3.1.1 rule 1.
            return Effect::FanOut { stanza, to: Vec::new(), hidden: None };
        }
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

    /// Another list applies from now on, or the default: it is to be read next.
    pub fn set_active_list(&mut self, active: Option<u32>) {
        self.privacy.active = active;
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
        let mut effects: Vec<Effect> =
            change.edited.iter().map(|name| self.list_push(name, change.version)).collect();
        if change.version > known + 1 {
            effects.push(Effect::Session(SessionChange::ReloadPrivacy));
            return effects;
        }
        let default_changed = self.privacy.default != change.default;
        (self.privacy.version, self.privacy.default) = (change.version, change.default);
        let applied = self.privacy.active.or(change.default);
        let applies = applied == Some(change.list);
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
            let of_default = default_changed || change.default == Some(change.list);
            if of_default && change.blocks == BlockDelta::None && applied != change.default {
                // It is not the list that applies here, so that nobody knows what it said before.
                effects.push(Effect::Session(SessionChange::ReloadBlocks));
            }
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
        let known = self.privacy.version;
        if lists.version < known {
            // What was asked for later has been read before.
            return Vec::new();
        }
        let number = lists.list.as_ref().map(|list| list.number);
        let before = std::mem::replace(&mut self.privacy.rules, rules);
        let was_by_default = std::mem::replace(&mut self.privacy.by_default, number == lists.default);
        (self.privacy.version, self.privacy.default) = (lists.version, lists.default);
        self.privacy.active = self.privacy.active.filter(|active| Some(*active) == number);
        // Changes of which nobody has told yet.
        let missed = lists.heads.iter().filter(|head| head.changed > known);
        let mut effects: Vec<Effect> = missed.map(|head| self.list_push(&head.name, head.changed)).collect();
        effects.extend(self.seen_otherwise(before.as_deref(), keys, sessions_of));
        if self.privacy.asked_for_blocks {
            match (was_by_default, self.privacy.by_default) {
                (true, true) => effects.extend(self.compared(before.as_deref(), &lists)),
                _ if lists.version == known => {}
                (false, true) => effects.extend(self.whole_block_list(&lists)),
                (_, false) => effects.push(Effect::Session(SessionChange::ReloadBlocks)),
            }
        }
        effects
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
            if let Some(presence) = self.told_presence().filter(|_| subscription.is_from()) {
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
        let told =
            |peer: &Jid| self.told_presence().is_some() && self.subscription(&peer.to_bare()).is_from();
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
pub(super) fn is_own(peer: &Jid, account: &BareJid) -> bool {
    is_of_account(peer, account) || (peer.node().is_none() && peer.domain() == account.domain())
}

/// Asks an account for its presence, for one session alone (RFC 6121 §4.3.1).
#[must_use]
pub fn probe(from: &FullJid, to: &BareJid) -> Stanza {
    let kind = PresenceType::Probe;
    let element = Element::builder("presence", ns::CLIENT).set(name!("type"), kind.name()).build();
    Stanza::from_parts(Kind::Presence(kind), Some(from.clone().into()), Some(to.clone().into()), element)
}

#[cfg(test)]
mod tests;
