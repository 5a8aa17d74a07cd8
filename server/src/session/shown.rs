//! What others may be shown of a session without asking it: its presence, and to whom.
//!
//! A login asks for the presence of many sessions at once. Each of them would have to be woken, and would send one
//! stanza back; so a session publishes here what it would answer, before it tells anybody. Whoever answers in its stead
//! holds the lock until the answer is on its way: what the session says next comes behind it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::{RwLock, RwLockReadGuard};

use althing_proto::jid::{BareJid, FullJid, Jid};
use althing_proto::privacy::Kinds;
use althing_proto::roster::Subscription;
use althing_proto::stanza::{Broadcast, Stanza};
use althing_proto::time::Timestamp;

use super::rules::{Decision, Rules};

/// So long after its last message or presence a client counts as idle.
pub const IDLE_AFTER: Duration = Duration::from_secs(600);

/// The contacts of an account with a subscription in either direction.
pub type Contacts = HashMap<BareJid, Subscription>;

/// The presence of an available session, and who may see it.
#[derive(Debug)]
pub struct Visible {
    jid: FullJid,
    account: BareJid,
    presence: Stanza,
    contacts: Arc<Contacts>,
    /// The privacy list that applies.
    rules: Option<Arc<Rules>>,
    /// Made for the first who asks.
    prepared: OnceLock<Broadcast>,
}

impl Visible {
    /// The presence that the session `jid` has broadcast last, for those of `contacts` that receive it.
    #[must_use]
    pub fn new(jid: FullJid, account: BareJid, presence: Stanza, contacts: Arc<Contacts>) -> Self {
        Visible { jid, account, presence, contacts, rules: None, prepared: OnceLock::new() }
    }

    /// The same, but for those from whom the session hides by `rules`.
    #[must_use]
    pub fn within(mut self, rules: Option<Arc<Rules>>) -> Self {
        self.rules = rules;
        self
    }

    /// The presence for one who asks, if the asker may know: a contact that receives it, or another resource of the
    /// account (RFC 6121 §4.3.2).
    #[must_use]
    pub fn answer(&self, from: &Jid) -> Option<Stanza> {
        self.may_see(from).then(|| self.prepared().copy_for(from.clone()))
    }

    /// As [`Visible::answer`], as XML that stands on its own, without an address: for another node.
    #[must_use]
    pub fn answer_elsewhere(&self, from: &Jid) -> Option<Vec<u8>> {
        self.may_see(from).then(|| self.presence.to_standalone())
    }

    /// Whether `from` is one of those who may see it.
    #[must_use]
    pub fn may_see(&self, from: &Jid) -> bool {
        let asker = from.to_bare();
        if asker == self.account {
            return from.as_str() != self.jid.as_str();
        }
        let Some(subscription) = self.contacts.get(&asker).filter(|subscription| subscription.is_from())
        else {
            return false;
        };
        // A probe from one who is blocked is not answered, nor is one that would be answered by presence that is denied.
        self.rules.as_ref().is_none_or(|rules| {
            let allows = |kind| rules.decide(from, || *subscription, kind) == Decision::Allow;
            allows(Kinds::OTHER) && allows(Kinds::PRESENCE_OUT)
        })
    }

    #[cfg(test)]
    pub(super) fn is_prepared(&self) -> bool {
        self.prepared.get().is_some()
    }

    fn prepared(&self) -> &Broadcast {
        self.prepared.get_or_init(|| Broadcast::new(self.presence.clone()))
    }
}

/// What a session shows now; nothing while it is not available.
#[derive(Debug, Default)]
pub struct Shown {
    visible: RwLock<Option<Visible>>,
    fetches: AtomicBool,
    /// When the client said something last, in milliseconds; 0 while it has not.
    spoke: AtomicU64,
    /// Whether nobody looks at the client, by its own word.
    unwatched: AtomicBool,
}

impl Shown {
    /// The session shows that from now on.
    pub fn set(&self, visible: Option<Visible>) {
        *self.visible.write() = visible;
    }

    /// Whether the session's client fetches what waits by itself (XEP-0013).
    pub fn set_fetches(&self, fetches: bool) {
        self.fetches.store(fetches, Ordering::Release);
    }

    /// Whether it does.
    #[must_use]
    pub fn fetches(&self) -> bool {
        self.fetches.load(Ordering::Acquire)
    }

    /// The client has begun, or has sent a message or its presence.
    pub fn spoke(&self, now: Timestamp) {
        self.spoke.store(now.as_millis(), Ordering::Relaxed);
    }

    /// The client says whether nobody looks at it (XEP-0352).
    pub fn set_unwatched(&self, unwatched: bool) {
        self.unwatched.store(unwatched, Ordering::Relaxed);
    }

    /// Whether somebody uses the client: it has said something in the last [`IDLE_AFTER`], and not that nobody looks.
    /// IQs do not count, for keep-alives and answers are some.
    #[must_use]
    pub fn is_used(&self, now: Timestamp) -> bool {
        let spoke = Timestamp::from_millis(self.spoke.load(Ordering::Relaxed));
        !self.unwatched.load(Ordering::Relaxed) && now.since(spoke) < IDLE_AFTER
    }

    /// `change` gives back who may see the presence from now on. They are changed in place, and what was prepared
    /// stays: nobody looks meanwhile.
    pub fn change_contacts<T>(&self, change: impl FnOnce() -> (T, Arc<Contacts>)) -> T {
        let mut shown = self.visible.write();
        if let Some(visible) = shown.as_mut() {
            // Else there were two owners, and each change would copy all of them.
            visible.contacts = Arc::default();
        }
        let (result, contacts) = change();
        if let Some(visible) = shown.as_mut() {
            visible.contacts = contacts;
        }
        result
    }

    /// What it shows. It says nothing new while this is held.
    pub fn get(&self) -> RwLockReadGuard<'_, Option<Visible>> {
        // Recursive: one who holds several of them may hold this one already.
        self.visible.read_recursive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// XEP-0133 §4.16: who says nothing for long is idle, and whose client says that nobody looks (XEP-0352).
    #[test]
    fn a_client_is_used_while_it_speaks_and_somebody_looks() {
        let shown = Shown::default();
        let at = |seconds: u64| Timestamp::from_millis(1_700_000_000_000 + seconds * 1000);
        assert!(!shown.is_used(at(0)), "it has said nothing yet");
        shown.spoke(at(0));
        assert!(shown.is_used(at(599)));
        assert!(!shown.is_used(at(600)));
        shown.spoke(at(600));
        shown.set_unwatched(true);
        assert!(!shown.is_used(at(601)));
        shown.set_unwatched(false);
        assert!(shown.is_used(at(601)));
    }

    #[test]
    fn only_those_who_receive_the_presence_are_answered() {
        let bare = |text: &str| BareJid::new(text).unwrap();
        let contacts = [("from", Subscription::From), ("both", Subscription::Both), ("to", Subscription::To)];
        let contacts = contacts.map(|(user, subscription)| (bare(&format!("{user}@b")), subscription));
        let presence = "<presence xmlns='jabber:client' from='a@b/c'><show>away</show></presence>";
        let presence = Stanza::parse(presence.parse().unwrap()).unwrap();
        let jid = FullJid::new("a@b/c").unwrap();
        let visible = Visible::new(jid.clone(), jid.to_bare(), presence, Arc::new(contacts.into()));
        for (asker, may_see) in [
            ("from@b/x", true),
            ("both@b", true),
            ("to@b/x", false),
            ("else@b/x", false),
            ("a@b/d", true),
            ("a@b/c", false),
        ] {
            let asker = Jid::new(asker).unwrap();
            let answer = visible.answer(&asker);
            assert_eq!(answer.is_some(), may_see, "{asker}");
            assert_eq!(visible.answer_elsewhere(&asker).is_some(), may_see, "{asker}");
            if let Some(answer) = answer {
                assert_eq!(answer.to(), Some(&asker));
                let text = String::from_utf8(answer.to_bytes().to_vec()).unwrap();
                assert!(text.contains("<show>away</show>"), "{text}");
            }
        }
    }
}
