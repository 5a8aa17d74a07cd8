//! PURE: what a session knows and decides. Events come in, effects go out; nothing here acts.

mod archive;
mod carbons;
mod carried;
mod directed;
mod invisible;
mod privacy;
mod reception;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use althing_cluster::routes::BindIndex;
use althing_proto::jid::{BareJid, FullJid, Jid};
use althing_proto::ns;
use althing_proto::privacy::Kinds;
use althing_proto::roster::{RosterItem, Subscription};
use althing_proto::stanza::{Kind, PresenceType, Stanza};
use althing_proto::stream::error::StreamCondition;
use althing_proto::xml::build::BuilderExt;
use althing_proto::xml::{Element, name};

use super::avatar::{self, Avatar};
use super::effect::{Audience, Effect, RosterChanged, SessionChange, UserEvent};
use super::inbound::Hold;
use super::losses::{self, Lost};
use super::pushes::{Next, Pushes};
use super::rules::Decision;
use super::seen::Seen;
use super::shown::{Contacts, Visible};
use crate::storage::messages::ArchivePreferences;

use carbons::Carbons;
use directed::Directed;
use privacy::Privacy;
use reception::Reception;

pub use directed::{MAX_DIRECTED, MAX_DIRECTED_BYTES};
pub use privacy::{LoadedPrivacy, SessionsOf, block_item, probe};
pub use reception::Judge;

/// Most roster changes that a session remembers. Changes of one roster come from several arbiters, in any
/// order, but close together; when full the oldest is forgotten.
const MAX_RECENT: usize = 64;

/// The state of one session.
#[derive(Debug)]
pub struct SessionState {
    jid: FullJid,
    account: BareJid,
    index: BindIndex,
    /// The last available presence that was broadcast, as others got it.
    presence: Option<Stanza>,
    /// What the client has of its roster.
    pushes: Pushes,
    /// The last presence that the client broadcast itself, available or not.
    said: Option<Stanza>,
    /// The account's avatar, which its presence shows.
    avatar: Avatar,
    /// Contacts with a subscription in either direction.
    contacts: Arc<Contacts>,
    /// Subscription requests that wait for an answer, as XML.
    pending: BTreeMap<BareJid, Bytes>,
    /// The version of the roster that the session began with.
    loaded_version: u64,
    /// The last changes since, as they came: version and contact.
    recent: VecDeque<(u64, BareJid)>,
    /// Whom directed presence told that this session is available.
    directed: Directed,
    /// What others are still to hear of the end of its availability.
    untold: Vec<Effect>,
    /// Whose available presence was delivered here.
    seen: Seen,
    /// Whether contacts may hold a lost predecessor for available.
    took_over: bool,
    /// Whom the user hides from, and wants to hear nothing of.
    privacy: Privacy,
    /// On a stream with XEP-0198: the stanza of the client whose effects are being performed.
    in_hand: Option<Hold>,
    /// Set while the session hides from all (XEP-0186); whether it asks for the presence of others then.
    invisible: Option<bool>,
    /// Copies of messages, and whether the client wants them (XEP-0280).
    carbons: Carbons,
    /// What the account has set for its archive.
    archive: Option<ArchivePreferences>,
    /// How the client gets what waits for the account.
    reception: Reception,
}

impl SessionState {
    /// A session that has just been bound and knows its roster as of `version`.
    #[must_use]
    pub fn new(jid: FullJid, index: BindIndex, version: u64, roster: Vec<RosterItem>) -> Self {
        let account = jid.to_bare();
        let mut contacts = Contacts::with_capacity(roster.len());
        let mut pending = BTreeMap::new();
        for item in roster {
            if let Some(request) = item.pending_in {
                pending.insert(item.jid.clone(), Bytes::from(request));
            }
            if item.subscription != Subscription::None {
                contacts.insert(item.jid, item.subscription);
            }
        }
        SessionState {
            jid,
            account,
            index,
            presence: None,
            pushes: Pushes::new(version),
            said: None,
            avatar: Avatar::default(),
            contacts: Arc::new(contacts),
            pending,
            loaded_version: version,
            recent: VecDeque::new(),
            directed: Directed::default(),
            untold: Vec::new(),
            seen: Seen::default(),
            took_over: false,
            privacy: Privacy::default(),
            in_hand: None,
            invisible: None,
            carbons: Carbons::default(),
            archive: None,
            reception: Reception::default(),
        }
    }

    /// The same session, which knows its account's avatar.
    #[must_use]
    pub fn with_avatar(self, avatar: Avatar) -> Self {
        SessionState { avatar, ..self }
    }

    /// An available presence of the client as others get it: it shows the avatar (XEP-0153).
    #[must_use]
    pub fn advertised(&self, presence: &Stanza) -> Stanza {
        avatar::advertise(presence, &self.avatar)
    }

    /// The session's full JID.
    #[must_use]
    pub fn jid(&self) -> &FullJid {
        &self.jid
    }

    /// The account.
    #[must_use]
    pub fn account(&self) -> &BareJid {
        &self.account
    }

    /// The bind that began the session.
    #[must_use]
    pub fn index(&self) -> BindIndex {
        self.index
    }

    /// The last available presence, while the session is available.
    #[must_use]
    pub fn presence(&self) -> Option<&Stanza> {
        self.presence.as_ref()
    }

    /// How many contacts have a subscription.
    #[must_use]
    pub fn contact_count(&self) -> usize {
        self.contacts.len()
    }

    /// The client's stanza whose effects are being performed, on a stream with XEP-0198. Whoever commits something of it
    /// clones the hold until that is done: so long the stanza is not acknowledged.
    #[must_use]
    pub fn in_hand(&self) -> Option<&Hold> {
        self.in_hand.as_ref()
    }

    /// Another stanza is in hand, or none; gives back the one before.
    pub fn set_in_hand(&mut self, hold: Option<Hold>) -> Option<Hold> {
        std::mem::replace(&mut self.in_hand, hold)
    }

    /// The subscription with a contact.
    #[must_use]
    pub fn subscription(&self, contact: &BareJid) -> Subscription {
        self.contacts.get(contact).copied().unwrap_or_default()
    }

    /// Whose presence this session asks for when it becomes available: contacts whose presence the
    /// account receives, and its own other resources (RFC 6121 §4.3.1, §4.2.2).
    pub fn probe_targets(&self) -> impl Iterator<Item = &BareJid> {
        let contacts = self
            .contacts
            .iter()
            .filter(|(contact, subscription)| subscription.is_to() && self.wants_to_see(contact));
        contacts.map(|(contact, _)| contact).chain([&self.account])
    }

    /// Subscription requests that wait for the user's answer, as XML; not those of whom the user blocks.
    pub fn pending_requests(&self) -> impl Iterator<Item = &Bytes> {
        let wanted =
            self.pending.iter().filter(|(from, _)| self.decide(from, Kinds::OTHER) == Decision::Allow);
        wanted.map(|(_, request)| request)
    }

    /// The contacts, and how they are subscribed.
    #[must_use]
    pub fn contacts(&self) -> Arc<Contacts> {
        Arc::clone(&self.contacts)
    }

    /// Whether it can remember all of those as targets of directed presence.
    pub fn may_direct_to<'a>(&self, targets: impl IntoIterator<Item = &'a Jid>) -> bool {
        self.directed.has_room_for(targets)
    }

    /// The latest version of the roster that this session has heard of.
    #[must_use]
    pub fn roster_version(&self) -> u64 {
        self.pushes.known()
    }

    /// The client has been sent its roster as of `version`, and gets pushes from now on: what it still lacks is to be
    /// asked for, since the version given back.
    pub fn roster_told(&mut self, version: u64) -> Option<u64> {
        self.pushes.told(version)
    }

    /// Takes a change over. What the actor does more than that is its own.
    pub fn apply(&mut self, change: SessionChange) {
        match change {
            SessionChange::Presence(presence) => {
                self.took_over = false;
                self.presence = Some(presence);
            }
            SessionChange::Left(word) => self.leave(&word),
            SessionChange::Said(presence) => self.said = Some(presence),
            SessionChange::Directed(target) => self.directed.insert(target),
            SessionChange::Undirected(target) => self.directed.remove(&target),
            SessionChange::TookOver => self.took_over = true,
            SessionChange::AskedForBlocks => self.ask_for_blocks(),
            SessionChange::Carbons(enabled) => self.set_carbons(enabled),
            SessionChange::Copied(hash) => self.note_copied(hash),
            SessionChange::Fetches => self.set_fetches(),
            SessionChange::GivesReceipts => self.set_gives_receipts(),
            // What the actor does with the node at hand.
            SessionChange::Arrive
            | SessionChange::Broadcast
            | SessionChange::Probe
            | SessionChange::Farewell
            | SessionChange::Invisible(_)
            | SessionChange::Privacy(_)
            | SessionChange::ReloadPrivacy
            | SessionChange::PrivacyLoaded(_)
            | SessionChange::ActiveList(_)
            | SessionChange::ReloadBlocks
            | SessionChange::BlocksLoaded(_)
            | SessionChange::Interested { .. }
            | SessionChange::MissingPush { .. }
            | SessionChange::Drain
            | SessionChange::Receipt(_)
            | SessionChange::Close(_) => {}
        }
    }

    /// Whose available presence was delivered to this session, as hashes of full JIDs.
    pub fn seen_mut(&mut self) -> &mut Seen {
        &mut self.seen
    }

    /// Sessions were lost with their node: what the client must be told. `is_back` says of an address whether it is
    /// available again, elsewhere: then the new presence is the better word, and may be here already.
    #[must_use]
    pub fn on_lost(&self, lost: &Lost, is_back: impl Fn(&FullJid) -> bool) -> Vec<Effect> {
        let gone = lost.seen_by(&self.seen).into_iter().filter(|jid| !is_back(jid));
        gone.map(|jid| Effect::Deliver(losses::unavailable(jid, self.account.clone()))).collect()
    }

    /// An event of the account.
    pub fn on_event(&mut self, event: UserEvent) -> Vec<Effect> {
        match event {
            UserEvent::Roster(change) => self.on_roster_changed(change),
            UserEvent::Probe { from } => self.answer_probe(&from).into_iter().collect(),
            UserEvent::Avatar(avatar) => self.on_avatar(avatar),
            UserEvent::Removed => {
                let close = SessionChange::Close(StreamCondition::NotAuthorized.into());
                vec![Effect::Session(close)]
            }
            UserEvent::Stanza { stanza, audience } => {
                let wanted = match audience {
                    Audience::Available => self.presence.is_some(),
                    Audience::Interested => self.pushes.is_interested(),
                };
                let denied = stanza
                    .from()
                    .is_some_and(|from| self.decide(from, Kinds::inbound(stanza.kind())) != Decision::Allow);
                if wanted && !denied { vec![Effect::Deliver(stanza)] } else { Vec::new() }
            }
            UserEvent::Privacy(change) => vec![Effect::Session(SessionChange::Privacy(change))],
            // The actor takes them.
            UserEvent::Drain | UserEvent::Archive => Vec::new(),
        }
    }

    /// The presence for one who asks, if there is one and the asker may know: a contact that receives it, or
    /// another resource of the account (RFC 6121 §4.3.2).
    #[must_use]
    pub fn answer_probe(&self, from: &Jid) -> Option<Effect> {
        self.visible()?.answer(from).map(Effect::Route)
    }

    /// What others may be shown of the session, while it is available.
    #[must_use]
    pub fn visible(&self) -> Option<Visible> {
        let presence = self.told_presence()?.clone();
        let visible =
            Visible::new(self.jid.clone(), self.account.clone(), presence, Arc::clone(&self.contacts));
        Some(visible.within(self.privacy.rules()))
    }

    /// Shows a new avatar to all who see the session's presence.
    fn on_avatar(&mut self, avatar: Avatar) -> Vec<Effect> {
        // Changes of one vCard come from several nodes, in any order.
        if avatar.revision <= self.avatar.revision {
            return Vec::new();
        }
        self.avatar = avatar;
        let told = self.said.as_ref().zip(self.presence.as_ref());
        match told.and_then(|(said, shown)| avatar::changed(said, shown, &self.avatar)) {
            Some(presence) => {
                [SessionChange::Presence(presence), SessionChange::Broadcast].map(Effect::Session).into()
            }
            None => Vec::new(),
        }
    }

    /// Follows a roster change: the push, and the presence that a contact gains or loses the sight of
    /// (RFC 6121 §3.1.5, §3.2.1).
    fn on_roster_changed(&mut self, change: RosterChanged) -> Vec<Effect> {
        let mut effects = Vec::new();
        if let Some(push) = &change.push {
            effects.extend(match self.pushes.changed(change.version) {
                Next::Nothing => None,
                Next::Push => Some(Effect::Deliver(push.with_to(self.jid.clone()))),
                Next::Ask(since) => Some(Effect::Session(SessionChange::MissingPush { since })),
            });
        }
        if change.push.is_some() && self.privacy.by_group() {
            // XEP-0016 §2.2 rule 9: its groups may be others now.
            effects.push(Effect::Session(SessionChange::ReloadPrivacy));
        }
        let overtaken =
            |(version, contact): &(u64, BareJid)| *contact == change.contact && *version > change.version;
        if self.recent.iter().any(overtaken) {
            return effects;
        }
        // A request that waits is no visible change and raises no version.
        match &change.pending {
            Some(request) => self.pending.insert(change.contact.clone(), request.clone()),
            None => self.pending.remove(&change.contact),
        };
        if change.version <= self.loaded_version {
            // The roster that this session loaded has it already.
            return effects;
        }
        let before = match change.subscription {
            now if now == self.subscription(&change.contact) => Some(now),
            Subscription::None => Arc::make_mut(&mut self.contacts).remove(&change.contact),
            now => Arc::make_mut(&mut self.contacts).insert(change.contact.clone(), now),
        }
        .unwrap_or_default();
        if before != change.subscription || change.push.is_some() {
            self.recent.push_back((change.version, change.contact.clone()));
            if self.recent.len() > MAX_RECENT {
                self.recent.pop_front();
            }
        }
        if let Some(presence) = self.told_presence().filter(|_| self.may_be_seen_by(&change.contact)) {
            match (before.is_from(), change.subscription.is_from()) {
                (false, true) => effects.push(Effect::Route(presence.with_to(change.contact))),
                (true, false) => {
                    effects.push(Effect::Route(self.unavailable().with_to(change.contact)));
                }
                _ => {}
            }
        }
        effects
    }

    /// Tells the presence that the session has now to all who may see it now.
    #[must_use]
    pub fn presence_broadcast(&self) -> Option<Effect> {
        let presence = self.presence.clone()?;
        Some(match self.invisible {
            None => self.broadcast(presence),
            // XEP-0186 §3.1.1 rule 1: its own copy is all that there is.
            Some(_) => Effect::Deliver(presence.with_to(self.account.clone())),
        })
    }

    /// Asks for the presence of all whom the session may see now. The answers come to it and to no other.
    #[must_use]
    pub fn probes(&self) -> Option<Effect> {
        // XEP-0186 §3.1.1 rule 3.
        let asks = self.presence.is_some() && self.invisible != Some(false);
        asks.then(|| Effect::Probe {
            from: self.jid.clone(),
            asker: self.index,
            targets: self.probe_targets().cloned().collect(),
            here: Vec::new(),
        })
    }

    /// It is no longer available, with that word. Whoever holds it for available now must hear of it: contacts, the
    /// account's other resources, and targets of directed presence (RFC 6121 §4.5.2, §4.6.3).
    fn leave(&mut self, word: &Stanza) {
        let (told, directed) = (self.told_presence().is_some(), self.directed.take());
        if told || self.took_over {
            let broadcast = self.broadcast(word.clone());
            self.untold.push(broadcast);
        }
        for target in directed {
            let account = target.to_bare();
            // Also while it is not available: directed presence has been told then, and no broadcast reaches it.
            if !told || !(self.subscription(&account).is_from() || account == self.account) {
                self.untold.push(Effect::Route(word.with_to(target)));
            }
        }
        // It is told of nobody's presence any more; when it is available again it asks anew.
        self.seen.clear();
        self.took_over = false;
        self.presence = None;
    }

    /// What others have not heard yet of the end of its availability.
    pub fn take_untold(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.untold)
    }

    /// What must be told to others when the session ends: what they have not heard yet.
    pub fn farewell(&mut self) -> Vec<Effect> {
        self.leave(&self.unavailable());
        self.take_untold()
    }

    /// The last word of the session: the client's own, or what the server says in its place.
    #[must_use]
    pub fn last_word(&self) -> Stanza {
        let gone = |said: &&Stanza| said.kind() == Kind::Presence(PresenceType::Unavailable);
        self.said.as_ref().filter(gone).cloned().unwrap_or_else(|| self.unavailable())
    }

    /// Its own unavailable presence.
    #[must_use]
    pub fn unavailable(&self) -> Stanza {
        let kind = Kind::Presence(PresenceType::Unavailable);
        let element = Element::builder("presence", ns::CLIENT)
            .set(name!("type"), PresenceType::Unavailable.name())
            .build();
        Stanza::from_parts(kind, Some(self.jid.clone().into()), None, element)
    }
}

#[cfg(test)]
mod tests;
