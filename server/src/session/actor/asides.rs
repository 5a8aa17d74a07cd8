//! What modules do aside for a session, and the order of what comes meanwhile.

use std::hash::BuildHasher;
use std::sync::Arc;

use actix::Context;
use tokio::sync::Semaphore;

use althing_proto::stanza::{Kind, Stanza};

use super::{Farewell, Session};
use crate::aside::{self, Home, Job};
use crate::delivery::{self, Next};
use crate::metrics::Dropped;
use crate::pipeline::{Effects, Pass};
use crate::session::effect::Effect;
use crate::session::held::Parcel;

/// Most asides of one client under way at the same time: with more its socket is not read, so that it cannot fill a
/// module's queue.
const MAX_ASIDES: usize = 64;

impl Session {
    /// Hands a job of the session's own client in, as soon as fewer than [`MAX_ASIDES`] are under way.
    pub(super) fn submit_for_client(&mut self, job: Job) -> Next {
        let permits = self.asides.get_or_insert_with(|| Arc::new(Semaphore::new(MAX_ASIDES)));
        match Arc::clone(permits).try_acquire_owned() {
            Ok(permit) => Next::Effects(self.submit(job.with_permit(permit))),
            Err(_) => {
                let permits = Arc::clone(permits);
                Next::Wait(Box::pin(async move {
                    // Nobody closes it. The permit is taken anew: the client's lane has no other taker.
                    drop(permits.acquire().await);
                    vec![Effect::Aside(job)]
                }))
            }
        }
    }

    /// Hands a job in, whose yield comes back to this session.
    pub(super) fn submit(&mut self, job: Job) -> Effects {
        let packet = job.packet();
        let sender = (packet.pass == Pass::Inbound).then(|| self.sender_of(&packet.stanza));
        let hold = self.state.in_hand().cloned();
        let home = Home { jid: self.state.jid().clone(), index: self.state.index(), sender, hold };
        match aside::submit(&self.node, job, Some(home)) {
            Ok(()) => {
                if let Some(sender) = sender {
                    self.held.begin(sender);
                }
                Effects::new()
            }
            Err(refusal) => refusal,
        }
    }

    fn sender_of(&self, stanza: &Stanza) -> u64 {
        self.node.seen_keys.hash_one(stanza.from().map(|from| from.as_str()))
    }

    /// The stanza, if none of its sender is with a module; else it waits behind that. The mailbox's bytes have it then.
    pub(super) fn in_order(&mut self, parcel: Parcel) -> Option<Stanza> {
        if self.held.is_empty() {
            return Some(parcel.stanza);
        }
        let sender = self.sender_of(&parcel.stanza);
        if !self.held.holds(sender) {
            return Some(parcel.stanza);
        }
        let bytes = parcel.stanza.to_bytes().len();
        let fits = self.outbox.pressure().enter(bytes);
        let refused = if fits { self.held.hold(sender, parcel) } else { Some(parcel) };
        if let Some(parcel) = refused {
            if fits {
                self.outbox.pressure().leave(bytes);
            }
            self.congested(&parcel);
        }
        None
    }

    /// The policy of a full mailbox (`delivery/local.rs`), for a stanza that has left it.
    pub(super) fn congested(&mut self, Parcel { stanza, share }: &Parcel) {
        self.node.metrics.mailbox_full();
        if matches!(stanza.kind(), Kind::Presence(_)) {
            self.node.metrics.dropped(Dropped::MailboxFull);
            if let Some(session) = self.node.sessions.get(self.state.index()) {
                delivery::local::close_congested(&session);
            }
        } else if share.is_lost() {
            delivery::drive_aside(&self.node, delivery::bounce::congested(&self.node, stanza));
        } else {
            self.node.metrics.dropped(Dropped::MailboxFull);
        }
    }

    /// A stanza of `sender` is back from a module: those behind it go on.
    pub(super) fn go_on(&mut self, sender: u64, ctx: &mut Context<Self>) {
        let Some(parcel) = self.held.next(sender) else { return };
        self.outbox.pressure().leave(parcel.stanza.to_bytes().len());
        let effects = self.pass_once(parcel.stanza);
        self.perform_then(effects, ctx, move |session, ctx| session.go_on(sender, ctx));
    }

    /// The session ends: what it holds back goes the way of what is in its mailbox.
    pub(super) fn give_up_held(&mut self, farewell: &Farewell) {
        for parcel in self.held.take_all() {
            self.outbox.pressure().leave(parcel.stanza.to_bytes().len());
            self.left(parcel, farewell.clone());
        }
        for parcel in self.take_behind() {
            self.left(parcel, farewell.clone());
        }
    }

    /// A stanza that comes when the session has ended.
    pub(super) fn left(&self, parcel: Parcel, farewell: Farewell) {
        if self.send_after(&parcel, &farewell) {
            return;
        }
        let Parcel { stanza, share } = parcel;
        let over = self.node.lease.losses() != self.losses;
        if !share.is_lost() || over || matches!(stanza.kind(), Kind::Presence(_)) {
            // A node without a lease acts no more, then or later. What other sessions have would come to them
            // twice, and presence might come after its end.
            self.node.metrics.dropped(Dropped::SessionGone);
            return;
        }
        delivery::remote::left_in_mailbox(&self.node, self.state.index(), farewell, stanza);
    }
}
