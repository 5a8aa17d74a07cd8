//! A session without a connection, and its way to the connection that resumes its stream (XEP-0198 §5).
//!
//! The session that goes on is a new actor. This one, when nothing in its mailbox is left before [`HandOver`], gives the
//! route away, and with it all that it knows; whatever comes later is sent after.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::{ActorFutureExt, AsyncContext, Context, Handler, ResponseActFuture, WrapFuture};
use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

use althing_cluster::routes::BindIndex;
use althing_proto::jid::{BareJid, FullJid};
use althing_proto::stanza::Stanza;
use althing_proto::stream::error::{StreamCondition, StreamError};
use althing_proto::stream::management::Count;
use althing_proto::time::Timestamp;

use super::management::elsewhere;
use super::{Farewell, Session};
use crate::delivery::keeping::keeping;
use crate::delivery::{self, account, keep, remote};
use crate::metrics::Waiting;
use crate::modules::push;
use crate::node::NodeContext;
use crate::pipeline::Effects;
use crate::router::steps;
use crate::session::copies::Share;
use crate::session::core::SessionState;
use crate::session::effect::{Effect, UserEvent};
use crate::session::handed_over::{Carried, HandedOver, NotHanded, Ticket};
use crate::session::held::Parcel;
use crate::session::logouts;
use crate::session::messages::{CanMove, Detach, EndReason, HandOver, Prepare};
use crate::session::outbox::Outbox;
use crate::session::records::{self, Records};
use crate::session::registry::SessionHandle;
use crate::storage::streams::{Handled, StreamChange};

/// How long what the client has sent may take to become safe before it is told less: it sends the rest again.
const SAFE: Duration = Duration::from_secs(5);

/// The same where the node stops and all of its sessions have waited already: their store says nothing.
const SAFE_AT_STOP: Duration = Duration::from_millis(100);

/// How long what the session has sent may take to be brought to its receivers before it goes on elsewhere, beside the time that
/// a node may stand still without losing its sessions (T2): whoever reads of it later reads it in order, from the store.
const BROUGHT: Duration = Duration::from_secs(2);

/// How long the connection of a session that is given away waits for that.
const GIVEN: Duration = Duration::from_secs(8);

/// How far the resumption of a session's stream has come.
#[derive(Default)]
pub(super) struct Resumption {
    /// `None`: its stream cannot be resumed.
    pub(super) ticket: Option<Ticket>,
    /// Counts it while it waits without a connection.
    waiting: Option<Detached>,
    /// How often it has lost its connection: an old timer does not end a later wait.
    detached: u64,
    /// Somebody resumes it: no stanza of the old connection is counted any more.
    pub(super) handing: bool,
    /// It goes on elsewhere, or will be known not to.
    moved: bool,
    /// The session that goes on in this actor, until it has loaded the rest.
    carried: Option<Box<HandedOver>>,
    /// When it began, where that was in another actor.
    since: Option<Timestamp>,
}

/// Counts a session that waits without a connection.
struct Detached(Waiting);

impl Detached {
    fn new(count: Waiting) -> Self {
        count.changed(0, 1);
        Detached(count)
    }
}

impl Drop for Detached {
    fn drop(&mut self) {
        self.0.changed(1, 0);
    }
}

impl Session {
    /// Starts the session that goes on with a stream, on this arbiter.
    #[must_use]
    pub fn resume(
        node: &Arc<NodeContext>,
        jid: FullJid,
        mut handed: HandedOver,
        outbox: &Rc<Outbox>,
        peer: Option<IpAddr>,
    ) -> Arc<SessionHandle> {
        let state = SessionState::new(jid.clone(), handed.index, 0, Vec::new());
        let mut session = Session::new(Arc::clone(node), state, Rc::clone(outbox));
        let bounds = &node.bounds;
        session.inbound = Some(outbox.resume(
            (handed.handled, handed.acknowledged),
            (handed.take_unsent(), handed.sent),
            (bounds.unacked_stanzas.clone(), bounds.unacked_bytes.clone()),
            node.metrics.streams.unacknowledged(),
        ));
        outbox.settle_by(session.settler());
        let (index, since) = (handed.index, handed.since);
        session.resumption.ticket = Some(handed.ticket());
        session.resumption.since = Some(since);
        session.record();
        session.resumption.carried = Some(Box::new(handed));
        session.start_as((jid, index), (since, peer))
    }

    /// Starts a session of which nothing is left but its route, which others may hold for available: it is there to end.
    #[must_use]
    pub fn of_lost(
        node: &Arc<NodeContext>,
        (jid, index): (FullJid, BindIndex),
        carried: Carried,
        outbox: &Rc<Outbox>,
    ) -> Arc<SessionHandle> {
        let state = SessionState::new(jid.clone(), index, 0, Vec::new());
        let mut session = Session::new(Arc::clone(node), state, Rc::clone(outbox));
        let (now, ticket) = (node.now(), Ticket { hash: [0; 32], seconds: 0 });
        let none = (Count(0), Count(0));
        let handed = HandedOver::new((node.node_id, now), ticket, none, Vec::new(), carried);
        session.resumption.carried = Some(Box::new(handed));
        session.start_as((jid, index), (now, None))
    }

    /// Lets the store know of a stream that can be resumed.
    pub(super) fn record(&self) {
        if let (Some(ticket), Some(inbound)) = (self.resumption.ticket, &self.inbound) {
            let key = records::key(self.state.jid(), ticket.hash);
            inbound.record(&self.node, key, self.state.index(), ticket.seconds);
        }
    }

    /// The session ends. Where its client may come back for it all the same it is to learn what was handled; one that has
    /// closed its stream does not come.
    pub(super) fn end_record(&self, reason: &EndReason) -> Option<BoxFuture<'static, ()>> {
        let (Some(ticket), Some(inbound)) = (self.resumption.ticket, &self.inbound) else { return None };
        let key = records::key(self.state.jid(), ticket.hash);
        let change = match reason {
            EndReason::ClientGone if self.resumption.waiting.is_none() => StreamChange::Ended(key),
            _ => StreamChange::Handled(Handled { key, number: inbound.safe(), place: None }),
        };
        Some(Records::ended(&self.node, change))
    }

    /// Whether it is yet to take up what another has left.
    pub(super) fn goes_on(&self) -> bool {
        self.resumption.carried.is_some()
    }

    /// A session that goes on is as it was; what has changed meanwhile follows.
    pub(super) fn go_on_as_carried(&mut self, ctx: &mut Context<Self>) {
        let Some(handed) = self.resumption.carried.take() else { return };
        let HandedOver { from, mut carried, .. } = *handed;
        let messages = (std::mem::take(&mut carried.arrived), std::mem::take(&mut carried.recent));
        if from != self.node.node_id {
            carried.seen = self.probably_seen();
        }
        let effects = self.state.carry(carried);
        if self.state.gives_receipts() {
            self.look_for_receipts();
        }
        self.show();
        // What waited for the stream that broke off waits for this one.
        self.go_on_draining(messages);
        self.perform_then(effects, ctx, |_, _| ());
    }

    /// Whose presence a client has seen whose session was on a node with other hashes: of whoever it may see and is there.
    fn probably_seen(&self) -> Vec<u64> {
        let mut seen = Vec::new();
        let mut see = |account: &BareJid| {
            self.node.routes.visit_account(account, &mut |jid, route| {
                if route.priority.is_some() && jid != self.state.jid() {
                    seen.push(self.node.seen_keys.hash_one(jid.as_str()));
                }
            });
        };
        let contacts = self.state.contacts();
        contacts.iter().filter(|(_, of)| of.is_to()).for_each(|(jid, _)| see(jid));
        see(self.state.account());
        seen
    }

    /// The session waits without a connection.
    fn wait_for_resumption(&mut self, seconds: u64, ctx: &mut Context<Self>) {
        debug!(jid = %self.state.jid(), "session waits to be resumed");
        self.outbox.detach(Bytes::new());
        if self.resumption.waiting.is_none() && self.outbox.has_unsettled() {
            // Whether the client has these nobody knows (XEP-0357).
            push(&self.node, self.state.account(), Some(self.state.jid().resource().as_str()), None);
        }
        self.resumption.waiting.get_or_insert_with(|| Detached::new(self.node.metrics.streams.detached()));
        self.resumption.detached += 1;
        let turn = self.resumption.detached;
        ctx.run_later(Duration::from_secs(seconds), move |session, _| {
            if session.resumption.detached == turn && session.farewell.is_none() {
                debug!(jid = %session.state.jid(), "session was not resumed in time");
                if let Some(own) = session.node.sessions.get(session.state.index()) {
                    // By its own door, so that nothing gets into the mailbox behind its end.
                    actix_rt::spawn(async move { own.end(EndReason::ClientGone).await });
                }
            }
        });
    }

    /// A client without a connection is told by its push service that something waits (XEP-0357).
    pub(super) fn push_if_away(&self, stanza: &Stanza) {
        if self.resumption.waiting.is_some() && keeping(stanza).waits {
            push(&self.node, self.state.account(), Some(self.state.jid().resource().as_str()), Some(stanza));
        }
    }

    /// Gives route and state away. The farewell ends when that is done, one way or the other.
    fn give_away(
        &mut self,
        ticket: Ticket,
        HandOver { to: (node_id, incarnation), given }: HandOver,
    ) -> oneshot::Receiver<Result<HandedOver, NotHanded>> {
        let (handled, safe) = self.inbound.as_ref().map(|inbound| inbound.give()).unwrap_or_default();
        let (acknowledged, unsent, sent) = self.outbox.hand_over();
        let since = self.resumption.since.unwrap_or_else(|| {
            let own = self.node.sessions.get(self.state.index());
            own.map_or_else(|| self.node.now(), |own| own.since)
        });
        let (from, mut carried) = (self.node.node_id, self.state.carried());
        (carried.arrived, carried.recent) = self.carried_messages();
        let mut handed =
            HandedOver::new((from, since), ticket, (handled, acknowledged), unsent.clone(), carried);
        if given.is_some() {
            // Else the client has said what it has: the rest is sent again.
            handed.sent = sent;
        }
        let seen_leaving = self.state.invisible().is_none();
        let logout =
            seen_leaving.then(|| logouts::logout(self.state.jid(), self.node.now(), &self.state.last_word()));
        // It goes on hearing of whom it has seen, for the session that goes on.
        let seen = self.state.seen_mut().clone();
        let unavailable = self.state.farewell();
        *self.state.seen_mut() = seen;
        let (node, jid, index) = (Arc::clone(&self.node), self.state.jid().clone(), self.state.index());
        let own = node.sessions.get(index);
        let (answer, answered) = oneshot::channel();
        let device = self.device();
        let settles = self.outbox.settles() || self.owed.has_given();
        let farewell: BoxFuture<'static, ()> = Box::pin(async move {
            if settles {
                // The session that goes on is not to get once more what its client has acknowledged.
                node.waiting.settles.flush(&jid.to_bare()).await;
            }
            handed.carried.arrived.extend(node.waiting.settles.arrived(&jid.to_bare(), device));
            let moved = node.routes.move_to(&jid, index, (node_id, incarnation)).await;
            let answer = match moved {
                Ok(index) => {
                    handed.index = index;
                    answer.send(Ok(handed)).is_ok()
                }
                Err(error) => {
                    warn!(%jid, %error, "a session cannot be handed over: it ends");
                    let key = records::key(&jid, ticket.hash);
                    Records::ended(&node, StreamChange::Handled(Handled { key, number: safe, place: None }))
                        .await;
                    logouts::unbind(&node, &jid, index, logout).await;
                    let (messages, answers) = elsewhere(unsent, &jid);
                    for message in messages {
                        let effects = steps::once_more(&node, message, 1).await;
                        delivery::drive(&node, effects).await;
                    }
                    delivery::drive(&node, answers).await;
                    delivery::drive(&node, unavailable).await;
                    // What has waited in the store waits on, for others.
                    keep::tell_those_there(&node, &jid.to_bare());
                    answer.send(Err(NotHanded::Unavailable)).is_ok()
                }
            };
            if !answer {
                debug!(%jid, "nobody waits for the session that was handed over");
            }
            node.sessions.remove(index);
        });
        if let Some(given) = given {
            let outbox = Rc::clone(&self.outbox);
            actix_rt::spawn(async move {
                // Where it came to nothing the connection ends all the same.
                let _ = timeout(GIVEN, given).await;
                let error =
                    StreamError::new(StreamCondition::SystemShutdown, "this server stops: resume on another");
                outbox.detach(outbox.last_words(Some(&error)));
            });
        }
        let farewell = farewell.shared();
        actix_rt::spawn(farewell.clone());
        self.farewell = Some(farewell.clone());
        self.resumption.moved = true;
        self.shown.set(None);
        self.give_up_held(&farewell);
        actix_rt::spawn(async move {
            farewell.await;
            // What is still in the mailbox is before this.
            if let Some(own) = own {
                own.end(EndReason::ClientGone).await;
            }
        });
        answered
    }

    /// Sends a stanza after the session, which goes on elsewhere; `false` where it does not.
    pub(super) fn send_after(&self, parcel: &Parcel, farewell: &Farewell) -> bool {
        if self.resumption.moved {
            let (jid, index) = (self.state.jid(), self.state.index());
            remote::send_after(&self.node, jid, index, farewell.clone(), parcel.stanza.clone());
        }
        self.resumption.moved
    }

    /// Sends an event after the session, if it goes on elsewhere.
    pub(super) fn tell_after(&mut self, event: UserEvent, farewell: Farewell) {
        if self.resumption.moved {
            let (node, jid) = (Arc::clone(&self.node), self.state.jid().clone());
            actix_rt::spawn(async move {
                farewell.await;
                account::notify_session(&node, &jid, &event).await;
            });
        }
    }

    /// Sends what is for the client after the session, if it goes on elsewhere; gives the rest back.
    pub(super) fn write_after(&mut self, effects: Effects, farewell: &Farewell) -> Effects {
        if !self.resumption.moved {
            return effects;
        }
        let (mut rest, mut queue) = (Effects::new(), VecDeque::from(effects));
        while let Some(effect) = queue.pop_front() {
            match effect {
                Effect::Deliver(stanza) => {
                    self.send_after(&Parcel { stanza, share: Share::Broadcast }, farewell);
                }
                other => rest.push(other),
            }
        }
        rest
    }
}

impl Handler<Detach> for Session {
    type Result = bool;

    fn handle(&mut self, _: Detach, ctx: &mut Self::Context) -> bool {
        if self.over().is_some() {
            return self.resumption.moved;
        }
        if self.resumption.handing {
            return true;
        }
        let ticket = self.resumption.ticket;
        if let Some(ticket) = ticket {
            self.wait_for_resumption(ticket.seconds, ctx);
        }
        ticket.is_some()
    }
}

impl Handler<CanMove> for Session {
    type Result = bool;

    fn handle(&mut self, _: CanMove, _: &mut Self::Context) -> bool {
        self.over().is_none() && self.resumption.ticket.is_some()
    }
}

impl Handler<Prepare> for Session {
    type Result = ResponseActFuture<Self, Result<(), NotHanded>>;

    fn handle(&mut self, prepare: Prepare, ctx: &mut Self::Context) -> Self::Result {
        let claim = match prepare {
            Prepare::Resumed(claim) => Some(claim),
            Prepare::Stopping(_) => None,
        };
        let refuse = |why| Box::pin(std::future::ready(Err(why)).into_actor(self)) as Self::Result;
        if !self.node.lease.holds() {
            return refuse(NotHanded::Unavailable);
        }
        let is_over = self.over().is_some();
        let refuse = |why| Box::pin(std::future::ready(Err(why)).into_actor(self)) as Self::Result;
        let known = self.resumption.ticket;
        let known = known.filter(|ticket| claim.is_none_or(|claim| claim.hash == ticket.hash));
        let (Some(ticket), Some(inbound)) = (known, self.inbound.clone()) else {
            return refuse(NotHanded::Unknown);
        };
        match (self.resumption.handing, is_over && !self.resumption.moved) {
            (_, true) => return refuse(NotHanded::Unknown),
            (true, false) => return refuse(NotHanded::Moving),
            (false, false) => {}
        }
        let (mut patience, mut brought) = (SAFE, BROUGHT);
        if let Prepare::Stopping(stored) = prepare {
            patience = stored.saturating_duration_since(Instant::now()).max(SAFE_AT_STOP);
        }
        if let Some(claim) = claim {
            // §5: as an <a/>.
            if let Err(too_high) = self.outbox.acknowledged(claim.handled) {
                return refuse(NotHanded::TooHigh(too_high));
            }
            if self.outbox.is_open() {
                // §5: the old stream, if it seems to live.
                let error = StreamError::new(StreamCondition::Conflict, "the stream is resumed elsewhere");
                self.node.metrics.stream_error(error.condition);
                self.outbox.detach(self.outbox.last_words(Some(&error)));
            }
            // Should nobody come for it after all.
            self.wait_for_resumption(ticket.seconds.max(SAFE.as_secs() * 2), ctx);
            brought = self.node.config().cluster.close() + BROUGHT;
        }
        self.resumption.handing = true;
        let (node, jid) = (Arc::clone(&self.node), self.state.jid().clone());
        let safe = async move {
            if timeout(patience, inbound.all_stored()).await.is_err() {
                debug!("not all of a stream that is resumed is safe, or known to the store");
            }
            keep::brought(&node, &jid, brought).await;
            Ok(())
        };
        Box::pin(safe.into_actor(self))
    }
}

impl Handler<HandOver> for Session {
    type Result = ResponseActFuture<Self, Result<HandedOver, NotHanded>>;

    fn handle(&mut self, hand_over: HandOver, _: &mut Self::Context) -> Self::Result {
        let ticket = self.resumption.ticket;
        let (None, Some(ticket)) = (self.over(), ticket) else {
            return Box::pin(std::future::ready(Err(NotHanded::Unknown)).into_actor(self));
        };
        let answered = self.give_away(ticket, hand_over);
        let answered = async move { answered.await.unwrap_or(Err(NotHanded::Unavailable)) };
        Box::pin(answered.into_actor(self).map(|handed, _, _| handed))
    }
}
