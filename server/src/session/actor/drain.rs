//! What waits for the account goes to a session that takes it: XEP-0160 §2 step 5, in the order in which it came.
//!
//! Messages that come meanwhile wait behind it; the rest of the mailbox runs on. What was handed to the client
//! goes from the store when it has arrived: when it is acknowledged (XEP-0198), else when it is written to the socket.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use actix::{ActorFutureExt, AsyncContext, Context, WrapFuture};
use tokio::time::Instant;
use tracing::{debug, warn};

use althing_proto::jid::{BareJid, FullJid};
use althing_proto::privacy::Kinds;
use althing_proto::stanza::{Kind, Stanza};
use althing_proto::stanza_id::StanzaId;

use super::Session;
use crate::delivery::{inbox, keep, kept, local};
use crate::faults::{self, Fault};
use crate::metrics::Dropped;
use crate::node::NodeContext;
use crate::pipeline::Effects;
use crate::session::effect::{Effect, UserEvent};
use crate::session::held::Parcel;
use crate::session::outbox::Settler;
use crate::session::remembered::Remembered;
use crate::session::rules::Decision;
use crate::storage::StorageError;
use crate::storage::messages::{DeviceId, Drain, Drained, InboxMessage, Settle, Taker};

/// Most messages of one page.
const PAGE: u32 = 50;

/// How long a session lets messages wait behind those that were there before it, where it does not show its presence.
const NEW: Duration = Duration::from_secs(5);

/// After how long the store is asked once more for what it did not give.
pub(super) const AGAIN: Duration = Duration::from_secs(2);

/// What a session does about messages that wait.
#[derive(Debug, Default)]
pub(super) struct Draining {
    /// How often it has begun.
    pass: u32,
    /// Whether a page is under way, which may be this session's in the store already.
    under_way: bool,
    /// Whether the session is about to take what waits for the first time: others may know before it does.
    due: bool,
    /// Whether something has become free meanwhile, which the page that is under way may not have seen.
    again: bool,
    /// Whether the next pass takes what is pending for this session too: it may have been lost on its way.
    mine: bool,
    /// Whether nothing has to come before what comes for the session though it has shown no presence: nothing waits, or it
    /// has let that wait for long enough, or goes on for another.
    alone: bool,
    /// Whether that is being found out.
    looking: bool,
    /// Messages that have come meanwhile, behind those that were there before.
    behind: VecDeque<Parcel>,
    /// Messages that were handed out, where not all that has an id is in the inbox.
    handed: HashSet<StanzaId>,
    /// The last ones that the session has got.
    recent: Remembered,
    /// Those that had arrived at the session that this one goes on for, and that the store did not know then.
    arrived: HashSet<StanzaId>,
}

/// Most messages that wait behind those that are being taken; their bytes are the mailbox's.
const MAX_BEHIND: usize = 1_024;

/// Where a drain stands: its pass, and the last number of the page before.
#[derive(Clone, Copy)]
struct At {
    pass: u32,
    after: Option<u64>,
    /// Whether what is pending for the session itself is taken too.
    mine: bool,
}

impl Session {
    /// Takes what waits, if the session is one that takes it (RFC 6121 §8.5.2.1.1: no negative priority).
    fn drain(&mut self, ctx: &mut Context<Self>) {
        let takes = self.state.presence().and_then(Stanza::priority) >= Some(0) && !self.state.fetches();
        if takes && !self.outbox.is_open() {
            // What was due is so still when its client is back: what comes meanwhile waits behind it.
            return;
        }
        self.draining.due = false;
        if takes && self.draining.under_way {
            self.draining.again = true;
        }
        if !takes || self.draining.under_way {
            return;
        }
        self.draining.again = false;
        self.draining.pass += 1;
        let mine = std::mem::take(&mut self.draining.mine);
        self.page(At { pass: self.draining.pass, after: None, mine }, ctx);
    }

    /// A node is lost: what it had kept for this session may never have got here. It is taken from the store, and what has
    /// come is not taken twice.
    pub(super) fn look_what_is_lost(&mut self, ctx: &mut Context<Self>) {
        if !kept::is_pending(&self.node, self.state.account()) {
            return;
        }
        // Where its client is away the session that goes on takes it, or others when this one ends: what comes from here on
        // waits behind it all the same.
        self.draining.mine = true;
        self.will_drain();
        self.look(ctx);
    }

    /// As [`drain`](Self::drain); where it does not, what has waited behind that waits no longer.
    pub(super) fn look(&mut self, ctx: &mut Context<Self>) {
        self.drain(ctx);
        if !self.draining.under_way && !self.draining.due {
            self.receive_behind(ctx);
        }
    }

    fn page(&mut self, at: At, ctx: &mut Context<Self>) {
        self.draining.under_way = true;
        let (node, account) = (Arc::clone(&self.node), self.state.account().clone());
        let taker = Taker { bind: self.state.index(), device: self.device() };
        let page = async move { page(&node, &account, taker, at).await };
        ctx.wait(page.into_actor(self).map(move |drained, session, ctx| session.paged(drained, at, ctx)));
    }

    /// A page is there, or not.
    fn paged(&mut self, drained: Result<Drained, StorageError>, at: At, ctx: &mut Context<Self>) {
        match drained {
            Ok(Drained { messages, next }) => {
                let next = next.map(|after| At { after: Some(after), ..at });
                self.when_serving(ctx, move |session, ctx| session.hand_out(messages.into(), next, ctx));
            }
            Err(error) => {
                warn!(jid = %self.state.jid(), %error, "messages that wait are late");
                ctx.run_later(AGAIN, move |session, ctx| {
                    if session.over().is_none() {
                        session.page(at, ctx);
                    }
                });
            }
        }
    }

    /// The receiver's pass of one message after another, as fast as the client reads.
    fn hand_out(&mut self, mut messages: VecDeque<InboxMessage>, next: Option<At>, ctx: &mut Context<Self>) {
        while let Some(message) = messages.pop_front() {
            let pressure = Arc::clone(self.outbox.pressure());
            if self.over().is_some() || pressure.is_ending() || !self.outbox.is_open() {
                return;
            }
            if pressure.is_congested() || !self.node.lease.holds() {
                messages.push_front(message);
                let room = async move { pressure.relieved().await };
                // The mailbox goes on: the client's acknowledgements, without which nothing more is written, are in it.
                // What comes for the client waits behind.
                ctx.spawn(room.into_actor(self).map(move |(), session, ctx| {
                    session.when_serving(ctx, move |session, ctx| session.hand_out(messages, next, ctx));
                }));
                return;
            }
            let id = message.id;
            if self.has_arrived(id) || !self.is_new(id) {
                continue;
            }
            if !kept::is_pending(&self.node, self.state.account()) {
                self.draining.handed.insert(id);
            }
            let stanza =
                (!message.retracted).then(|| inbox::waited(&message, self.state.account())).flatten();
            self.alone = false;
            let effects = stanza.map(|stanza| self.pass(stanza)).unwrap_or_default();
            self.settle_unless_delivered(id, &effects);
            if let Some(future) = self.perform_all(effects) {
                ctx.wait(future.into_actor(self).map(move |effects, session, ctx| {
                    session.perform_then(effects, ctx, move |session, ctx| {
                        session.hand_out(messages, next, ctx)
                    });
                }));
                return;
            }
        }
        match next {
            Some(at) => self.page(at, ctx),
            None => {
                self.draining.under_way = false;
                if self.draining.mine || self.draining.again {
                    self.drain(ctx);
                }
                if !self.draining.under_way {
                    self.receive_behind(ctx);
                }
            }
        }
    }

    /// Retracted, or from somebody who is blocked: nobody has to get it any more.
    fn settle_unless_delivered(&self, id: StanzaId, effects: &Effects) {
        let goes_on = |effect: &Effect| {
            matches!(effect, Effect::Deliver(_) | Effect::Later(_) | Effect::Aside(_) | Effect::Resume(_))
        };
        if !effects.iter().any(goes_on) {
            debug!(jid = %self.state.jid(), "a kept message is not delivered");
            self.settler().settle(id);
        }
    }

    /// The session is about to take what waits: what comes from here on comes behind that.
    pub(super) fn will_drain(&mut self) {
        self.draining.due = true;
    }

    /// The stanza, unless it has to wait behind messages that came before it.
    pub(super) fn behind_drain(&mut self, parcel: Parcel, ctx: &mut Context<Self>) -> Option<Parcel> {
        let is_early = self.is_early(&parcel.stanza);
        let Draining { due, under_way, behind, .. } = &self.draining;
        let waits = *due || *under_way || !behind.is_empty() || is_early;
        if !waits || !matches!(parcel.stanza.kind(), Kind::Message(_)) {
            return Some(parcel);
        }
        let is_stored = kept::is_pending(&self.node, self.state.account())
            && kept::id_of(&parcel.stanza, self.state.account()).is_some();
        if is_stored && !self.outbox.is_open() && (*due || *under_way) {
            // Its client is away: whoever comes takes it from the store, in its order.
            self.push_if_allowed(&parcel.stanza);
            self.leave_in_store(parcel, ctx);
            return None;
        }
        let bytes = parcel.stanza.to_bytes().len();
        if behind.len() >= MAX_BEHIND || !self.outbox.pressure().enter(bytes) {
            if is_stored && !self.outbox.is_open() {
                self.leave_in_store(parcel, ctx);
            } else {
                self.congested(&parcel);
            }
            return None;
        }
        self.draining.behind.push_back(parcel);
        if self.draining.due {
            self.look(ctx);
        } else if is_early {
            self.look_what_was_before(ctx);
        }
        None
    }

    /// What is not passed to the client now, for it is away: its push service is told all the same, unless the user does not
    /// want to hear of it.
    fn push_if_allowed(&self, stanza: &Stanza) {
        let kind = Kinds::inbound(stanza.kind());
        if stanza.from().is_none_or(|from| self.state.decide(from, kind) == Decision::Allow) {
            self.push_if_away(stanza);
        }
    }

    /// Its client is gone: whoever comes takes it from the store, where no more of them may wait than for who is away.
    fn leave_in_store(&self, parcel: Parcel, ctx: &mut Context<Self>) {
        let (node, account) = (Arc::clone(&self.node), self.state.account().clone());
        let full = async move {
            let waits = node.storage.inbox.summary(&account).await;
            waits.is_ok_and(|waits| waits.is_beyond(node.config().offline.quota()))
        };
        // What comes after it is looked at after it: so they are refused one by one, and bounded by the mailbox.
        ctx.wait(full.into_actor(self).map(move |is_full, session, _| {
            if is_full {
                session.congested(&parcel);
            }
        }));
    }

    /// Whether a message may have come by a shorter way than earlier ones of its sender: those wait until the session shows
    /// its presence, and this one is for its very address.
    fn is_early(&self, stanza: &Stanza) -> bool {
        !self.draining.alone
            && self.state.presence().is_none()
            && self.node.config().offline.enabled
            && kept::id_of(stanza, self.state.account()).is_some()
    }

    /// Messages have come for a session that has shown no presence. What waits goes before them, as soon as it takes that.
    fn look_what_was_before(&mut self, ctx: &mut Context<Self>) {
        if std::mem::replace(&mut self.draining.looking, true) {
            return;
        }
        let reader = inbox::Reader::new(&self.node, &self.state);
        let waits = async move { reader.has_some().await };
        ctx.spawn(waits.into_actor(self).map(|waits, session, ctx| match waits {
            Ok(true) => drop(ctx.run_later(NEW, Self::wait_no_longer)),
            Ok(false) => session.wait_no_longer(ctx),
            Err(error) => {
                warn!(jid = %session.state.jid(), %error, "what waits may come late");
                session.wait_no_longer(ctx);
            }
        }));
    }

    fn wait_no_longer(&mut self, ctx: &mut Context<Self>) {
        self.draining.alone = true;
        if self.over().is_none() && !self.draining.behind.is_empty() {
            self.look(ctx);
        }
    }

    /// The session does not take what waits, and has said so.
    pub(super) fn will_not_drain(&mut self) {
        if !std::mem::replace(&mut self.draining.alone, true) && !self.draining.behind.is_empty() {
            self.look_what_waits();
        }
    }

    /// The receiver's pass of what has waited behind messages that came before.
    fn receive_behind(&mut self, ctx: &mut Context<Self>) {
        while let Some(parcel) = self.draining.behind.pop_front() {
            self.outbox.pressure().leave(parcel.stanza.to_bytes().len());
            let effects = self.receive(parcel);
            if let Some(future) = self.perform_all(effects) {
                ctx.wait(future.into_actor(self).map(|effects, session, ctx| {
                    session.perform_then(effects, ctx, |session, ctx| session.receive_behind(ctx));
                }));
                return;
            }
        }
    }

    /// What has waited so, when the session ends.
    pub(super) fn take_behind(&mut self) -> VecDeque<Parcel> {
        let behind = std::mem::take(&mut self.draining.behind);
        let pressure = self.outbox.pressure();
        behind.iter().for_each(|parcel| pressure.leave(parcel.stanza.to_bytes().len()));
        behind
    }

    /// Whether a message has arrived that was kept later than that: the store is told once more, and it goes nowhere.
    fn has_arrived(&self, id: StanzaId) -> bool {
        if self.node.waiting.settles.has_arrived(self.state.account(), id, self.device()) {
            return true;
        }
        let arrived = self.draining.arrived.contains(&id);
        if arrived {
            self.settler().settle(id);
        }
        arrived
    }

    /// What the session that goes on for this one has to know of messages: those that have arrived and that the store may give
    /// once more, and those that it has got, for others may bring them once more.
    pub(super) fn carried_messages(&self) -> (Vec<StanzaId>, Vec<StanzaId>) {
        let arrived = self.draining.arrived.iter().copied().collect();
        // What is with a module is sent after the session, and is new to it.
        let recent = if self.held.is_empty() { self.draining.recent.ids().collect() } else { Vec::new() };
        (arrived, recent)
    }

    /// The session goes on where another was: these messages have arrived there, and what waits comes before what comes.
    pub(super) fn go_on_draining(&mut self, (arrived, recent): (Vec<StanzaId>, Vec<StanzaId>)) {
        self.draining.arrived = arrived.into_iter().collect();
        self.draining.alone = true;
        self.draining.recent = Remembered::new(recent, Instant::now());
        self.will_drain();
        self.look_what_waits();
    }

    /// Whether the session has not got a message yet; from now on it has.
    fn is_new(&mut self, id: StanzaId) -> bool {
        !self.outbox.is_unsettled(id) && self.draining.recent.insert(id, Instant::now())
    }

    /// The receiver's pass of a message under its id, unless the session has it already.
    pub(super) fn pass_once(&mut self, stanza: Stanza) -> Effects {
        let Some(id) = kept::id_of(&stanza, self.state.account()) else { return self.pass(stanza) };
        if !self.is_new(id) {
            self.node.metrics.dropped(Dropped::Twice);
            return Effects::new();
        }
        let effects = self.pass(stanza);
        if kept::is_pending(&self.node, self.state.account()) {
            self.settle_unless_delivered(id, &effects);
        }
        effects
    }

    /// The id of a message that is in the inbox until it has arrived.
    pub(super) fn waited_as(&mut self, stanza: &Stanza) -> Option<StanzaId> {
        let id = kept::id_of(stanza, self.state.account())?;
        (self.draining.handed.remove(&id) || kept::is_pending(&self.node, self.state.account())).then_some(id)
    }

    /// What becomes of messages that have arrived.
    pub(super) fn settler(&self) -> Settler {
        let (node, user, device) = (Arc::clone(&self.node), self.state.account().clone(), self.device());
        Settler { node, user, device }
    }

    /// Which device of the account it is, where messages wait for each: that of its resource.
    pub(super) fn device(&self) -> Option<DeviceId> {
        kept::device(&self.node, self.state.jid().resource().as_str())
    }

    /// Lets the mailbox bring the word that something may wait: what comes for the session from here on waits behind it.
    pub(super) fn look_what_waits(&self) {
        local::notify(&self.node, self.state.index(), &UserEvent::Drain);
    }

    /// The session ends: what its client has not got is for others, and the next one gets nothing twice.
    pub(super) fn leave_waited(&self) -> Leaving {
        // While a client fetches what waits, others are not sent it (XEP-0013 §2.2).
        let owed = !self.owed.is_empty() || self.state.fetches();
        let Draining { under_way, due, mine, .. } = self.draining;
        // What was another's whom it goes on for, or may have been lost on its way here, is for others as well.
        let untaken = under_way || due || mine || self.goes_on();
        let left = untaken || owed || self.outbox.has_unsettled();
        self.outbox.leave_waited();
        Leaving { settles: self.outbox.settles() || self.owed.has_given(), left }
    }
}

/// What a session that has ended leaves of messages that have waited.
pub(super) struct Leaving {
    settles: bool,
    left: bool,
}

impl Leaving {
    /// Waits until what has arrived is in the store: who comes next is not to get it once more.
    pub(super) async fn settled(&self, node: &NodeContext, user: &BareJid) {
        if self.settles {
            node.waiting.settles.flush(user).await;
        }
    }

    /// Tells others of the account, if there are any, to take what is left.
    pub(super) fn tell_others(&self, node: &Arc<NodeContext>, jid: &FullJid) {
        if self.left {
            keep::tell_those_there(node, &jid.to_bare());
        }
    }
}

async fn page(
    node: &NodeContext,
    account: &BareJid,
    taker: Taker,
    At { pass, after, mine }: At,
) -> Result<Drained, StorageError> {
    let store = &node.storage.inbox;
    if let (Some(device), None) = (taker.device, after) {
        let now = node.now();
        store.note_device(account, device, now, node.config().offline.forget(now)).await?;
    }
    // As a rule nothing waits: that costs no change.
    if after.is_none() && store.summary(account).await?.messages == 0 {
        return Ok(Drained::default());
    }
    if after.is_none() && inbox::somebody_fetches(node, account, taker.bind).await {
        return Ok(Drained::default());
    }
    if mine && after.is_none() {
        // What has arrived is not to be there any more.
        node.waiting.settles.flush(account).await;
    }
    let mut live = inbox::live(node, account).await?;
    live.retain(|bind| !mine || *bind != taker.bind);
    let drained = store.drain(account, Drain { taker, pass, live, after, limit: PAGE }).await?;
    if faults::makes(Fault::DrainDeletes) {
        let arrived =
            |message: &InboxMessage| Settle { user: account.clone(), id: message.id, device: taker.device };
        store.settle(drained.messages.iter().map(arrived).collect()).await?;
    }
    Ok(drained)
}
