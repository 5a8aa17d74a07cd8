//! What a stanza waits for on its way: for its turn, for a place, for receivers that do not keep up.

use std::sync::Arc;

use futures_util::future::{BoxFuture, join_all};

use althing_proto::jid::{BareJid, FullJid};
use althing_proto::stanza::{Kind, Stanza};

use super::letter::Letter;
use super::steps::{Origin, Routed, Walk, once_more};
use crate::delivery::bounce;
use crate::delivery::keep::{self, Planned};
use crate::delivery::places::{self, Place};
use crate::delivery::receivers::Slow;
use crate::node::NodeContext;
use crate::session::SessionHandle;
use crate::session::inbound::Hold;
use crate::session::messages::EndReason;

impl Walk<'_> {
    /// Finds out what of a message is to be kept. Gives back what has to be waited for, where it has to wait for its turn.
    pub(super) fn plan(&self, letter: &mut Letter, account: Option<&BareJid>) -> Option<Routed> {
        if letter.planned.is_some() || !matches!(letter.stanza.kind(), Kind::Message(_)) {
            return None;
        }
        let place = letter.place.take();
        let planned = keep::plan(self.node, &letter.stanza, account, (self.in_hand(letter), place));
        if matches!(planned, Planned::NoRoom) {
            return Some(Routed::Done(bounce::no_room(self.node, &letter.stanza)));
        }
        let crowded = matches!(planned, Planned::Crowded);
        letter.planned = Some(planned);
        let sender = letter.stanza.from().cloned();
        crowded.then(|| {
            self.later(letter, |node| Box::pin(async move { places::room(&node, sender.as_ref()).await }))
        })
    }

    /// Whether a message for somebody who is there has to wait for earlier ones that are being kept because nobody was:
    /// they come first.
    pub(super) fn behind(&self, letter: &mut Letter, account: &BareJid) -> Option<Routed> {
        let behind = self.tries == 0
            && matches!(letter.stanza.kind(), Kind::Message(_))
            && self.node.waiting.absent.holds(account);
        let account = account.clone();
        behind.then(|| {
            self.later(letter, |node| {
                Box::pin(async move {
                    node.waiting.absent.told(&account).await;
                    None
                })
            })
        })
    }

    /// Walks anew when that is done, with the place that it gives.
    fn later(
        &self,
        letter: &mut Letter,
        until: impl FnOnce(Arc<NodeContext>) -> BoxFuture<'static, Option<Place>>,
    ) -> Routed {
        let (node, tries, hold) = (Arc::clone(self.node), self.tries, self.hold(letter));
        let (stanza, until) = (letter.stanza.clone(), until(Arc::clone(self.node)));
        Routed::Later(Box::pin(async move {
            let letter = Letter { place: until.await, hold, ..Letter::from(stanza) };
            let routed = Walk { node: &node, origin: Origin::Elsewhere, tries }.route(letter);
            BoxFuture::from(routed).await
        }))
    }

    /// What sees to it that the stanza is not safe meanwhile. A letter that has waited gives away what it has: whatever else is
    /// outstanding when the stanza gets its place in the order of the store keeps its number out of that change.
    pub(super) fn hold(&self, letter: &mut Letter) -> Option<Hold> {
        match self.origin {
            Origin::Client(session) | Origin::Session(session) => session.in_hand().cloned(),
            Origin::Elsewhere => letter.hold.take(),
        }
    }

    /// The same, where it is.
    fn in_hand<'b>(&'b self, letter: &'b Letter) -> Option<&'b Hold> {
        match self.origin {
            Origin::Client(session) | Origin::Session(session) => session.in_hand(),
            Origin::Elsewhere => letter.hold.as_ref(),
        }
    }

    /// Receivers have the stanza, but do not keep up: the client that sent it goes on when all of them have room
    /// again, or after a while. Nobody else waits: what follows from an effect is no client's pace.
    pub(super) fn brake(&self, slow: Vec<Slow>) -> Routed {
        let Origin::Client(sender) = self.origin else { return Routed::Done(Vec::new()) };
        let own = |slow: &Slow| matches!(slow, Slow::Here(session) if session.jid == *sender.jid());
        let pauses: Vec<_> = slow.into_iter().filter(|slow| !own(slow)).map(Slow::pause).collect();
        if pauses.is_empty() {
            return Routed::Done(Vec::new());
        }
        Routed::Later(Box::pin(async move {
            join_all(pauses).await;
            Vec::new()
        }))
    }

    /// Walks on for a stanza when its receiver has ended: those behind it wait meanwhile.
    pub(super) fn after(&self, receiver: Arc<SessionHandle>, stanza: Stanza) -> Routed {
        let (node, tries) = (Arc::clone(self.node), self.tries);
        Routed::Later(Box::pin(async move {
            receiver.end(EndReason::Known).await;
            once_more(&node, stanza, tries).await
        }))
    }

    /// The stanza waits behind others for that address: its client goes on when they are found, or after a while.
    pub(super) fn until_found(&self, to: &FullJid) -> Routed {
        let (node, to) = (Arc::clone(self.node), to.clone());
        self.pause(Box::pin(async move { node.remote.found(&to).await }))
    }

    /// As `brake`, for one receiver that is not on this node, or is a component.
    pub(super) fn pause(&self, pause: BoxFuture<'static, ()>) -> Routed {
        self.brake(vec![Slow::Elsewhere(pause)])
    }
}
