//! The session actor: the thin shell round `core.rs`. One stanza at a time; it never waits.

mod asides;
mod client;
mod client_state;
mod drain;
mod handlers;
mod management;
mod privacy;
mod receipts;
mod received;
mod resumption;
mod stored;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use actix::{Actor, ActorFutureExt, AsyncContext, Context, WrapFuture};
use futures_util::future::{BoxFuture, FutureExt, Shared};
use tokio::sync::Semaphore;
use tracing::debug;

use althing_cluster::routes::BindIndex;
use althing_proto::jid::FullJid;
use althing_proto::stanza::Stanza;
use althing_proto::time::Timestamp;

use super::copies::Share;
use super::core::SessionState;
use super::effect::{Effect, Later, SessionChange, left_behind, stanza_span};
use super::held::{Held, Parcel};
use super::inbound::{Hold, Inbound};
use super::logouts;
use super::messages::{EndReason, Progress, Work};
use super::outbox::{Left, Outbox};
use super::receipts::Owed;
use super::registry::SessionHandle;
use super::shown::Shown;
use crate::delivery::{self, Next};
use crate::metrics::{Delivery, Dropped};
use crate::node::NodeContext;
use crate::pipeline::{self, Effects, Packet, Pass, View};
use crate::router::steps::Origin;
use crate::turns::Turns;

/// How many times in a row effects may follow from effects before others have their turn.
const FOLLOWED: usize = 256;

/// One bound resource.
pub struct Session {
    node: Arc<NodeContext>,
    state: SessionState,
    outbox: Rc<Outbox>,
    /// What others see of it.
    shown: Arc<Shown>,
    /// How often the node had lost its lease when the session began.
    losses: u64,
    /// One permit for each aside of its client under way; made when the first is.
    asides: Option<Arc<Semaphore>>,
    /// Stanzas for it behind others that are with a module.
    held: Held,
    /// On a stream with XEP-0198: what its client has sent.
    inbound: Option<Arc<Inbound>>,
    /// The client's stanza of which something is performed that ran aside.
    yielded: Option<Hold>,
    /// Whether no other session has got what is being delivered.
    alone: bool,
    /// What the client has not got and is to go elsewhere.
    unsent: Vec<Left>,
    /// How its stream is resumed, and how far that has come.
    resumption: Resumption,
    draining: drain::Draining,
    /// Receipts that the client owes, if it gives any.
    owed: Owed,
    /// Set when the session ends: done when its contacts were told and its route is gone.
    farewell: Option<Farewell>,
}

/// Where an effect comes from.
#[derive(Clone, Copy)]
enum Lane {
    /// What the session's own client has sent.
    Client,
    /// What others have sent, or an event. Whatever it waits for, the mailbox waits for.
    Mailbox,
}

use resumption::Resumption;

type Farewell = Shared<BoxFuture<'static, ()>>;

impl Session {
    fn new(node: Arc<NodeContext>, state: SessionState, outbox: Rc<Outbox>) -> Self {
        node.metrics.session_started();
        let losses = node.lease.losses();
        let (shown, held) = (Arc::default(), Held::default());
        Session {
            node,
            state,
            outbox,
            shown,
            losses,
            asides: None,
            held,
            inbound: None,
            yielded: None,
            alone: false,
            unsent: Vec::new(),
            resumption: Resumption::default(),
            draining: drain::Draining::default(),
            owed: Owed::default(),
            farewell: None,
        }
    }

    /// Starts the session of a fresh bind on this arbiter. It loads its roster before it looks into its
    /// mailbox, so that no change falls in between.
    #[must_use]
    pub fn begin(
        node: &Arc<NodeContext>,
        jid: FullJid,
        index: BindIndex,
        outbox: &Rc<Outbox>,
        peer: Option<IpAddr>,
    ) -> Arc<SessionHandle> {
        let state = SessionState::new(jid.clone(), index, 0, Vec::new());
        let session = Session::new(Arc::clone(node), state, Rc::clone(outbox));
        session.start_as((jid, index), (node.now(), peer))
    }

    /// Starts the actor.
    fn start_as(
        self,
        (jid, index): (FullJid, BindIndex),
        begun: (Timestamp, Option<IpAddr>),
    ) -> Arc<SessionHandle> {
        let (losses, shown) = (self.losses, Arc::clone(&self.shown));
        shown.spoke(begun.0);
        let pressure = Arc::clone(self.outbox.pressure());
        Arc::new(SessionHandle::new((jid, index, losses), begun, self.start(), (pressure, shown)))
    }

    /// Goes on with work until it is done or has to wait.
    fn advance(&mut self, mut work: Work) -> Progress {
        let mut followed = 0;
        loop {
            if self.over().is_some() {
                delivery::drive_aside(&self.node, left_behind(work.effects, self.state.jid()));
                return Progress::Ended;
            }
            if !self.node.lease.holds() {
                let lease = self.node.lease.clone();
                let serving = async move {
                    // Where it is lost the session is about to be ended.
                    lease.serving().await;
                    Vec::new()
                };
                return Progress::Waiting(Box::pin(serving), work);
            }
            let next = if let Some(effect) = work.effects.pop_front() {
                match effect {
                    Effect::Aside(job) => self.submit_for_client(job),
                    effect => {
                        self.is_last(&effect, work.effects.iter().all(Effect::keeps_nothing));
                        self.perform(effect, Lane::Client)
                    }
                }
            } else if self.resumption.handing {
                // The client sends again what was not counted; what is in hand is done, and counts.
                self.state.set_in_hand(None);
                return Progress::Ended;
            } else if let Some(room) = self.next_stanza(&work) {
                return Progress::Waiting(room, work);
            } else if let Some(element) = work.elements.pop_front() {
                followed = 0;
                Next::Effects(self.on_client(element))
            } else {
                return Progress::Done;
            };
            match next {
                Next::Effects(effects) => {
                    followed += usize::from(!effects.is_empty());
                    for effect in effects.into_iter().rev() {
                        work.effects.push_front(effect);
                    }
                }
                Next::Wait(future) => return Progress::Waiting(future, work),
            }
            if followed > FOLLOWED {
                return Progress::Waiting(Box::pin(std::future::ready(Vec::new())), work);
            }
        }
    }

    /// Performs one effect; gives back what is to be performed next.
    fn perform(&mut self, effect: Effect, lane: Lane) -> Next {
        if matches!((lane, &effect), (Lane::Client, Effect::Deliver(_) | Effect::Probe { .. }))
            && self.outbox.pressure().is_congested()
            && !self.outbox.pressure().is_ending()
        {
            // What a client asks for comes no faster than it reads.
            let pressure = Arc::clone(self.outbox.pressure());
            return Next::Wait(Box::pin(async move {
                pressure.relieved().await;
                vec![effect]
            }));
        }
        let span = effect.span(Some(self.state.jid()));
        let _in_span = span.enter();
        if !pipeline::stage::filter(&self.node.modules, &effect, &self.view()) {
            self.node.metrics.dropped(Dropped::Filter);
            return Next::NOTHING;
        }
        if let Effect::Route(stanza) = &effect {
            delivery::bounce::count_error(&self.node, stanza, Some(self.state.jid()));
        }
        match effect {
            Effect::Deliver(stanza) => self.write(&stanza),
            Effect::Copies(stanzas) => stanzas.iter().for_each(|stanza| self.write_copy(stanza)),
            Effect::Session(change) => return self.change(change),
            // The way to oneself is short: the receiver's pass, here and now.
            Effect::Route(stanza)
                if stanza.to().is_some_and(|to| to.as_str() == self.state.jid().as_str()) =>
            {
                self.node.metrics.delivery(Delivery::Delivered);
                return Next::Effects(self.receive(Parcel { stanza, share: Share::Broadcast }));
            }
            Effect::Route(stanza) => {
                let origin = match lane {
                    Lane::Client => Origin::Client(&self.state),
                    Lane::Mailbox => Origin::Session(&self.state),
                };
                return delivery::route(&self.node, stanza, origin);
            }
            Effect::FanOut { stanza, to, hidden } => {
                delivery::fan_out::to_accounts(&self.node, stanza, &to, hidden.as_deref());
            }
            Effect::Probe { from, asker, targets, here } => {
                let here = delivery::probes::ask(&self.node, &from, asker, &targets, here);
                if !here.is_empty() {
                    // What was answered is in the mailbox: it comes first, and the rest when there is room again.
                    let rest = Effect::Probe { from, asker, targets: Vec::new(), here };
                    return Next::Wait(Box::pin(std::future::ready(vec![rest])));
                }
            }
            Effect::Notify { account, event } => delivery::account::notify(&self.node, &account, &event),
            Effect::Later(Later(future)) => return Next::Wait(future),
            Effect::Aside(job) => return Next::Effects(self.submit(job)),
            Effect::Resume(resumed) => {
                return Next::Effects(pipeline::resume(&self.node.modules, &resumed, &self.view()));
            }
        }
        Next::NOTHING
    }

    fn change(&mut self, change: SessionChange) -> Next {
        let next = match &change {
            SessionChange::Presence(_) | SessionChange::Left(_) => {
                let priority = match &change {
                    SessionChange::Presence(presence) => presence.priority(),
                    _ => None,
                };
                let before = self.state.presence().and_then(Stanza::priority);
                let unchanged = before == priority;
                if before < Some(0) && priority >= Some(0) {
                    self.will_drain();
                } else if priority < Some(0) {
                    self.will_not_drain();
                }
                if unchanged { Next::NOTHING } else { Next::Wait(self.commit_priority(priority)) }
            }
            SessionChange::Interested { version } => match self.state.roster_told(*version) {
                Some(since) => Next::Wait(self.missing_pushes(since)),
                None => Next::NOTHING,
            },
            SessionChange::Drain => {
                self.look_what_waits();
                Next::NOTHING
            }
            SessionChange::GivesReceipts if !self.state.gives_receipts() => {
                self.look_for_receipts();
                Next::NOTHING
            }
            SessionChange::Receipt(receipt) => {
                self.take_receipt(receipt);
                Next::NOTHING
            }
            SessionChange::MissingPush { since } => Next::Wait(self.missing_pushes(*since)),
            SessionChange::Invisible(invisible) => return self.change_visibility(*invisible),
            SessionChange::Privacy(_)
            | SessionChange::ActiveList(_)
            | SessionChange::ReloadPrivacy
            | SessionChange::PrivacyLoaded(_)
            | SessionChange::ReloadBlocks
            | SessionChange::BlocksLoaded(_) => return self.change_privacy(change),
            SessionChange::Arrive => {
                let turn = Turns::here(&self.node.metrics.turns).next();
                Next::Wait(Box::pin(async move {
                    turn.await;
                    [SessionChange::Broadcast, SessionChange::Probe].map(Effect::Session).into()
                }))
            }
            SessionChange::Broadcast => Next::Effects(self.state.presence_broadcast().into_iter().collect()),
            SessionChange::Probe => Next::Effects(self.state.probes().into_iter().collect()),
            SessionChange::Farewell => Next::Effects(self.state.take_untold()),
            SessionChange::Close(error) => {
                drop(self.end(&EndReason::Error(error.clone())));
                Next::NOTHING
            }
            _ => Next::NOTHING,
        };
        let shows =
            matches!(change, SessionChange::Presence(_) | SessionChange::Left(_) | SessionChange::Fetches);
        self.state.apply(change);
        if shows {
            self.show();
        }
        next
    }

    /// The receiver's pass of a stanza for this session.
    fn receive(&mut self, parcel: Parcel) -> Effects {
        self.alone = matches!(parcel.share, Share::Alone);
        self.in_order(parcel).map_or_else(Vec::new, |stanza| self.pass_once(stanza))
    }

    fn pass(&self, stanza: Stanza) -> Effects {
        let span = stanza_span(&stanza, Some(self.state.jid()));
        let _in_span = span.enter();
        debug!(stop = "session.actor", pass = "inbound", from = stanza.from().map(tracing::field::display));
        let packet = Packet::new(stanza, Pass::Inbound);
        pipeline::run(&self.node.modules, &packet, &self.view())
    }

    /// Performs effects until one must be waited for; the rest follows it.
    fn perform_all(&mut self, effects: Effects) -> Option<BoxFuture<'static, Effects>> {
        // These are not of the stanza that the client's lane has in hand, which may wait for something.
        let in_hand = self.state.set_in_hand(self.yielded.clone());
        let rest = self.perform_some(effects);
        self.state.set_in_hand(in_hand);
        rest
    }

    fn perform_some(&mut self, effects: Effects) -> Option<BoxFuture<'static, Effects>> {
        let (mut effects, mut followed) = (VecDeque::from(effects), 0);
        while let Some(effect) = effects.pop_front() {
            let future = match self.perform(effect, Lane::Mailbox) {
                Next::Effects(next) => {
                    followed += usize::from(!next.is_empty());
                    for effect in next.into_iter().rev() {
                        effects.push_front(effect);
                    }
                    if followed <= FOLLOWED {
                        continue;
                    }
                    Box::pin(std::future::ready(Vec::new()))
                }
                Next::Wait(future) => future,
            };
            return Some(Box::pin(async move {
                let mut next = future.await;
                next.extend(effects);
                next
            }));
        }
        None
    }

    /// Performs what did not come from the client, such as deliveries, `then` goes on. While it waits, so do later ones.
    fn perform_then(
        &mut self,
        effects: Effects,
        ctx: &mut Context<Self>,
        then: impl FnOnce(&mut Self, &mut Context<Self>) + 'static,
    ) {
        match self.perform_all(effects) {
            None => then(self, ctx),
            Some(future) => ctx.wait(future.into_actor(self).map(|effects, session, ctx| {
                session.perform_then(effects, ctx, then);
            })),
        }
    }

    /// The end of the session, if it has ended, or ends here and now: where the node has lost its lease since it
    /// began, it owns nothing any more, even if the node serves again.
    fn over(&mut self) -> Option<Farewell> {
        if self.farewell.is_none() && self.node.lease.losses() != self.losses {
            drop(self.end(&EndReason::LeaseLost));
        }
        self.farewell.clone()
    }

    /// Ends the session: closes the stream, gives the route up, tells its contacts. Idempotent.
    fn end(&mut self, reason: &EndReason) -> Farewell {
        if let Some(farewell) = &self.farewell {
            return farewell.clone();
        }
        self.outbox.pressure().set_ending();
        let error = match reason {
            _ if self.node.lease.losses() != self.losses => return self.cut_off(),
            EndReason::ClientGone | EndReason::Known => None,
            EndReason::Error(error) => {
                self.node.metrics.stream_error(error.condition);
                Some(error)
            }
            EndReason::LeaseLost => return self.cut_off(),
        };
        let condition = error.map(|error| error.condition.name());
        debug!(jid = %self.state.jid(), condition, "session ends");
        let recorded = self.end_record(reason);
        let mut left = std::mem::take(&mut self.unsent);
        left.extend(self.outbox.take_left());
        let waited = self.leave_waited();
        self.outbox.close(self.outbox.last_words(error));
        let mut effects = self.state.farewell();
        // One that hides has left when it began to hide.
        let logout = self.state.invisible().is_none();
        let logout =
            logout.then(|| logouts::logout(self.state.jid(), self.node.now(), &self.state.last_word()));
        let pressure = Arc::clone(self.outbox.pressure());
        self.show();
        let (node, jid, index) = (Arc::clone(&self.node), self.state.jid().clone(), self.state.index());
        let turn = Turns::here(&self.node.metrics.turns).next();
        // The route goes first, so that nobody delivers to a session that has said farewell.
        let farewell: BoxFuture<'static, ()> = Box::pin(async move {
            if let Some(recorded) = recorded {
                recorded.await;
            }
            waited.settled(&node, &jid.to_bare()).await;
            // Before the address is free: a successor is not to be heard of before the end of this one.
            turn.await;
            logouts::unbind(&node, &jid, index, logout).await;
            if pressure.is_displaced() {
                // What contacts hear of the address now is the successor's.
                effects.retain(|effect| !matches!(effect, Effect::FanOut { .. }));
            }
            delivery::drive(&node, effects).await;
            node.sessions.remove(index);
            waited.tell_others(&node, &jid);
        });
        let farewell = farewell.shared();
        // It goes on even if nobody waits for it.
        actix_rt::spawn(farewell.clone());
        self.farewell = Some(farewell.clone());
        self.give_up_unacknowledged(left, &farewell);
        self.give_up_held(&farewell);
        farewell
    }

    /// Runs `then` when the node may act: at once, as a rule. While it waits, so does the mailbox.
    fn when_serving(
        &mut self,
        ctx: &mut Context<Self>,
        then: impl FnOnce(&mut Self, &mut Context<Self>) + 'static,
    ) {
        if self.node.lease.holds() {
            return then(self, ctx);
        }
        let lease = self.node.lease.clone();
        let serving = async move { lease.serving().await };
        ctx.wait(serving.into_actor(self).map(|_, session, ctx| {
            if session.over().is_none() {
                then(session, ctx);
            }
        }));
    }

    fn view(&self) -> View<'_> {
        View { node: &self.node, session: Some(&self.state), now: self.node.now() }
    }
}
