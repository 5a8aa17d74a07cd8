//! The sessions of this node: from the bind that the route table names to the actor's address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use actix::prelude::SendError;
use actix::{Addr, MailboxError};
use parking_lot::{Mutex, RwLock};
use tokio::sync::oneshot;
use tokio::time::Instant;

use althing_cluster::node_id::{Incarnation, NodeId};
use althing_cluster::routes::BindIndex;
use althing_proto::jid::FullJid;
use althing_proto::stanza::Stanza;
use althing_proto::time::Timestamp;

use super::actor::Session;
use super::copies::Share;
use super::effect::UserEvent;
use super::handed_over::{Claim, HandedOver, NotHanded};
use super::inbound::Hold;
use super::losses::Lost;
use super::messages::{
    Advance, CanMove, CheckReceipts, Deliver, Detach, End, EndReason, HandOver, LostSessions, Notify,
    Prepare, Progress, Return, Show, Work,
};
use super::pressure::Pressure;
use super::shown::Shown;
use crate::pipeline::Effects;

/// Why a session did not take a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Its mailbox is full: `limits.mailbox_stanzas` or `limits.mailbox_bytes` are waiting.
    Full,
    /// It is about to end: nothing gets into its mailbox behind the end.
    Ending,
    /// It has ended.
    Gone,
}

impl<T> From<SendError<T>> for Refused {
    fn from(error: SendError<T>) -> Self {
        match error {
            SendError::Full(_) => Refused::Full,
            SendError::Closed(_) => Refused::Gone,
        }
    }
}

/// A session as others see it. One address a session: clones of actix addresses are dear.
#[derive(Debug)]
pub struct SessionHandle {
    /// The full JID.
    pub jid: FullJid,
    /// The bind that began the session.
    pub index: BindIndex,
    /// How often the node had lost its lease when the session began: after another loss it is over.
    pub losses: u64,
    /// When it began.
    pub since: Timestamp,
    /// Where its client connects from.
    pub peer: Option<IpAddr>,
    address: Addr<Session>,
    pressure: Arc<Pressure>,
    shown: Arc<Shown>,
    /// Shut while the end is put into the mailbox, so that it is behind all that was let in.
    gate: RwLock<()>,
}

impl SessionHandle {
    /// A handle on a running session.
    #[must_use]
    pub fn new(
        (jid, index, losses): (FullJid, BindIndex, u64),
        (since, peer): (Timestamp, Option<IpAddr>),
        address: Addr<Session>,
        (pressure, shown): (Arc<Pressure>, Arc<Shown>),
    ) -> Self {
        SessionHandle { jid, index, losses, since, peer, address, pressure, shown, gate: RwLock::default() }
    }

    /// What waits for the session.
    #[must_use]
    pub fn pressure(&self) -> &Pressure {
        &self.pressure
    }

    /// What others may be shown of the session.
    #[must_use]
    pub fn shown(&self) -> &Shown {
        &self.shown
    }

    /// Puts presences into the session's mailbox, as one message.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn show(&self, presences: Vec<Stanza>) -> Result<(), Refused> {
        let bytes = presences.iter().map(|presence| presence.to_bytes().len()).sum();
        if !self.pressure.enter_shown(bytes) {
            return Err(Refused::Full);
        }
        let sent = self.address.try_send(Show(presences));
        if sent.is_err() {
            self.pressure.leave_shown(bytes);
        }
        Ok(sent?)
    }

    /// Puts a stanza into the session's mailbox. Behind the end only what nobody misses gets there.
    ///
    /// # Errors
    /// [`Refused`]; the caller keeps to the policy of `delivery/local.rs`.
    pub fn deliver(&self, stanza: Stanza, share: Share) -> Result<(), Refused> {
        let _open = self.gate.read();
        if self.pressure.is_ending() && !matches!(share, Share::Broadcast) {
            return Err(Refused::Ending);
        }
        let bytes = stanza.to_bytes().len();
        if !self.pressure.enter(bytes) {
            return Err(Refused::Full);
        }
        let sent = self.address.try_send(Deliver { stanza, share });
        if sent.is_err() {
            self.pressure.leave(bytes);
        }
        Ok(sent?)
    }

    /// Tells the session of an event.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn notify(&self, event: UserEvent) -> Result<(), Refused> {
        Ok(self.address.try_send(Notify(event))?)
    }

    /// Gives the session what something that ran aside for it came to, and waits until it has begun to perform that.
    /// Gives the effects back where the session has gone.
    pub async fn take_back(&self, effects: Effects, sender: Option<u64>, hold: Option<Hold>) -> Effects {
        let effects = Arc::new(Mutex::new(effects));
        let sent = self.address.send(Return { effects: Arc::clone(&effects), sender, hold }).await;
        // Taken, unless it is gone.
        if sent.is_ok() { Effects::new() } else { std::mem::take(&mut *effects.lock()) }
    }

    /// Lets the session look whether receipts are late; `false`: it is over.
    pub async fn check_receipts(&self) -> bool {
        self.address.send(CheckReceipts).await.unwrap_or(false)
    }

    /// Tells the session of others that were lost with their node.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn tell_lost(&self, lost: Arc<Lost>) -> Result<(), Refused> {
        Ok(self.address.try_send(LostSessions(lost))?)
    }

    /// Lets the session go on with work of its own client.
    ///
    /// # Errors
    /// [`MailboxError`] where the session is gone.
    pub async fn advance(&self, work: Work) -> Result<Progress, MailboxError> {
        self.address.send(Advance(work)).await
    }

    /// The connection is lost: whether the session goes on without one, or with another. Else it is to be ended.
    pub async fn detach(&self) -> bool {
        self.address.send(Detach).await.unwrap_or(false)
    }

    /// Whether the session could be handed over.
    pub async fn can_move(&self) -> bool {
        self.address.send(CanMove).await.unwrap_or(false)
    }

    /// Hands the session over to that start of a node, where a client resumes it (XEP-0198 §5).
    ///
    /// # Errors
    /// [`NotHanded`].
    pub async fn hand_over(&self, claim: Claim, to: (NodeId, Incarnation)) -> Result<HandedOver, NotHanded> {
        self.prepare(Prepare::Resumed(claim), HandOver { to, given: None }).await
    }

    /// Gives the session to that start of a node, for this one stops, and waits for its store until `stored`. When `given` ends
    /// the connection is closed.
    ///
    /// # Errors
    /// [`NotHanded`].
    pub async fn give(
        &self,
        to: (NodeId, Incarnation),
        given: oneshot::Receiver<()>,
        stored: Instant,
    ) -> Result<HandedOver, NotHanded> {
        self.prepare(Prepare::Stopping(stored), HandOver { to, given: Some(given) }).await
    }

    async fn prepare(&self, prepare: Prepare, hand_over: HandOver) -> Result<HandedOver, NotHanded> {
        self.address.send(prepare).await.unwrap_or(Err(NotHanded::Unknown))?;
        let handed = {
            let _shut = self.gate.write();
            self.pressure.set_ending();
            self.address.send(hand_over)
        };
        handed.await.unwrap_or(Err(NotHanded::Unknown))
    }

    /// Ends the session and waits until its contacts were told and its route is gone. One that has
    /// ended already is fine.
    pub async fn end(&self, reason: EndReason) {
        let end = {
            let _shut = self.gate.write();
            self.pressure.set_ending();
            self.address.send(End(reason))
        };
        // An error says that the actor is gone, which is what was asked for.
        let _ = end.await;
    }
}

/// Looks for something each time that `change` tells of one, and waits until it is there.
async fn until<T>(change: &tokio::sync::Notify, look: impl Fn() -> Option<T>) -> T {
    loop {
        let changed = change.notified();
        tokio::pin!(changed);
        // Enabled before the look: it does not miss what comes in between.
        changed.as_mut().enable();
        if let Some(found) = look() {
            return found;
        }
        changed.await;
    }
}

/// All sessions of this node.
#[derive(Debug, Default)]
pub struct SessionRegistry {
    sessions: RwLock<HashMap<BindIndex, Arc<SessionHandle>>>,
    /// Tells of each session that was added.
    added: tokio::sync::Notify,
    /// Tells of each that was removed.
    removed: tokio::sync::Notify,
}

impl SessionRegistry {
    /// Adds a session.
    pub fn insert(&self, handle: Arc<SessionHandle>) {
        self.sessions.write().insert(handle.index, handle);
        self.added.notify_waiters();
    }

    /// The session that `index` began, as soon as it is here. The caller sets the deadline.
    pub async fn added(&self, index: BindIndex) -> Arc<SessionHandle> {
        until(&self.added, || self.get(index)).await
    }

    /// Returns as soon as the session that `index` began is not here. The caller sets the deadline.
    pub async fn gone(&self, index: BindIndex) {
        until(&self.removed, || self.get(index).is_none().then_some(())).await;
    }

    /// Removes the session that `index` began.
    pub fn remove(&self, index: BindIndex) {
        self.sessions.write().remove(&index);
        self.removed.notify_waiters();
    }

    /// The session that `index` began.
    #[must_use]
    pub fn get(&self, index: BindIndex) -> Option<Arc<SessionHandle>> {
        self.sessions.read().get(&index).cloned()
    }

    /// All sessions, as they are now.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<SessionHandle>> {
        self.sessions.read().values().cloned().collect()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sessions.read().len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
