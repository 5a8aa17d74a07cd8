//! What the session actor does with each message.

use std::collections::VecDeque;
use std::sync::Arc;

use actix::{
    Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, ResponseActFuture, WrapFuture,
};

use althing_proto::jid::FullJid;
use althing_proto::stream::error::StreamCondition;

use super::Session;
use crate::delivery;
use crate::pipeline::Effects;
use crate::session::copies::Share;
use crate::session::effect::{UserEvent, left_behind};
use crate::session::held::Parcel;
use crate::session::losses::Lost;
use crate::session::messages::{
    Advance, Deliver, End, EndReason, LostSessions, Notify, Progress, Return, Show,
};

impl Actor for Session {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(self.node.config().limits.mailbox_stanzas);
        self.load_roster(ctx);
    }
}

impl Drop for Session {
    /// A panic in a handler skips `End`: the route must go all the same.
    fn drop(&mut self) {
        drop(self.end(&EndReason::Error(StreamCondition::InternalServerError.into())));
        self.node.metrics.session_ended();
    }
}

impl Handler<Advance> for Session {
    type Result = Progress;

    fn handle(&mut self, Advance(work): Advance, _: &mut Self::Context) -> Progress {
        self.advance(work)
    }
}

impl Handler<Deliver> for Session {
    type Result = ();

    fn handle(&mut self, Deliver { stanza, share }: Deliver, ctx: &mut Self::Context) {
        self.outbox.pressure().leave(stanza.to_bytes().len());
        let parcel = Parcel { stanza, share };
        if let Some(farewell) = self.over() {
            self.left(parcel, farewell);
            return;
        }
        self.when_serving(ctx, |session, ctx| {
            let Some(parcel) = session.behind_drain(parcel, ctx) else { return };
            let effects = session.receive(parcel);
            session.perform_then(effects, ctx, |_, _| ());
        });
    }
}

impl Handler<Show> for Session {
    type Result = ();

    fn handle(&mut self, Show(presences): Show, ctx: &mut Self::Context) {
        let parcels = presences.into_iter().map(|stanza| Parcel { stanza, share: Share::Broadcast });
        self.receive_all(parcels.collect(), ctx);
    }
}

impl Handler<Notify> for Session {
    type Result = ();

    fn handle(&mut self, Notify(event): Notify, ctx: &mut Self::Context) {
        if let Some(farewell) = self.over() {
            self.tell_after(event, farewell);
        } else {
            self.when_serving(ctx, |session, ctx| {
                let effects = match event {
                    UserEvent::Drain => return session.look(ctx),
                    UserEvent::Archive => return session.read_archive(ctx),
                    UserEvent::Roster(_) => {
                        let (shown, state) = (&session.shown, &mut session.state);
                        shown.change_contacts(|| (state.on_event(event), state.contacts()))
                    }
                    // What else changes for others follows as a change of the session.
                    _ => session.state.on_event(event),
                };
                session.alone = false;
                session.perform_then(effects, ctx, |_, _| ());
            });
        }
    }
}

impl Handler<Return> for Session {
    type Result = ();

    fn handle(&mut self, Return { effects, sender, hold }: Return, ctx: &mut Self::Context) {
        let effects = std::mem::take(&mut *effects.lock());
        if let Some(farewell) = self.over() {
            let effects = self.write_after(effects, &farewell);
            if self.node.lease.losses() == self.losses {
                delivery::drive_aside(&self.node, left_behind(effects, self.state.jid()));
            }
            return;
        }
        self.when_serving(ctx, move |session, ctx| {
            session.yielded = hold;
            session.alone = true;
            session.perform_then(effects, ctx, move |session, ctx| {
                session.yielded = None;
                if let Some(sender) = sender {
                    session.held.back(sender);
                    session.go_on(sender, ctx);
                }
            });
        });
    }
}

impl Handler<LostSessions> for Session {
    type Result = ();

    fn handle(&mut self, LostSessions(lost): LostSessions, ctx: &mut Self::Context) {
        if let Some(farewell) = self.over() {
            let effects = self.on_lost(&lost);
            self.write_after(effects, &farewell);
        } else {
            self.when_serving(ctx, move |session, ctx| {
                let effects = session.on_lost(&lost);
                session.perform_then(effects, ctx, |session, ctx| session.look_what_is_lost(ctx));
            });
        }
    }
}

impl Handler<End> for Session {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, End(reason): End, _: &mut Self::Context) -> Self::Result {
        // The actor stays until the farewell is done, so that what is still in its mailbox is routed anew.
        Box::pin(self.end(&reason).into_actor(self).map(|(), _, ctx| ctx.stop()))
    }
}

impl Session {
    /// The receiver's pass of what the session has asked for, one after another, as fast as the client reads: it may be
    /// more than may wait for it. The writer is of this arbiter, and has its turn meanwhile.
    fn receive_all(&mut self, mut parcels: VecDeque<Parcel>, ctx: &mut Context<Self>) {
        while let Some(parcel) = parcels.pop_front() {
            let pressure = Arc::clone(self.outbox.pressure());
            if let Some(farewell) = self.over() {
                // They are shown to the session that goes on, if one does.
                parcels.push_front(parcel);
                for parcel in &parcels {
                    self.send_after(parcel, &farewell);
                }
                return;
            }
            if pressure.is_ending() && !self.resumption.handing {
                return;
            }
            if pressure.is_congested() || !self.node.lease.holds() {
                parcels.push_front(parcel);
                let room = async move { pressure.relieved().await };
                ctx.wait(room.into_actor(self).map(|(), session, ctx| {
                    session.when_serving(ctx, |session, ctx| session.receive_all(parcels, ctx));
                }));
                return;
            }
            pressure.leave_shown(parcel.stanza.to_bytes().len());
            let effects = self.receive(parcel);
            if let Some(future) = self.perform_all(effects) {
                ctx.wait(future.into_actor(self).map(|effects, session, ctx| {
                    session.perform_then(effects, ctx, |session, ctx| session.receive_all(parcels, ctx));
                }));
                return;
            }
        }
    }

    fn on_lost(&self, lost: &Lost) -> Effects {
        let is_back =
            |jid: &FullJid| self.node.routes.locate(jid).is_some_and(|route| route.priority.is_some());
        self.state.on_lost(lost, is_back)
    }
}
