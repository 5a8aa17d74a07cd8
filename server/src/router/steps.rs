//! The chain that a stanza walks to its receivers: local domain, then component, then remote. Each step leaves its
//! name in the trace. Sessions on this node and on others are alike here. Other servers become a step of their own.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tracing::debug;

use althing_cluster::routes::{BindIndex, Route};
use althing_cluster::task::AnswerIq;
use althing_proto::jid::{BareJid, FullJid};
use althing_proto::stanza::{IqType, Kind, Stanza};

use super::address::{Target, classify};
use super::component::{self, Given, Place};
use super::letter::Letter;
use super::rules::{self, Presence, Rule};
use crate::delivery::carbons::Way;
use crate::delivery::keep::Planned;
use crate::delivery::receivers::{self, Delivered, Receiver};
use crate::delivery::remote::pending::Behind;
use crate::delivery::{Next, bounce, carbons, keep};
use crate::metrics::{Delivery, Dropped};
use crate::node::NodeContext;
use crate::pipeline::{self, Effects, Packet, Pass, View};
use crate::session::core::SessionState;

/// Where the chain has led.
pub enum Routed {
    /// Delivered, answered or dropped by rule; these effects follow.
    Done(Effects),
    /// Handled once something answers.
    Later(BoxFuture<'static, Effects>),
}

impl Routed {
    /// The same, and then these effects.
    fn and(self, more: Effects) -> Routed {
        match self {
            routed if more.is_empty() => routed,
            Routed::Done(mut effects) => {
                effects.extend(more);
                Routed::Done(effects)
            }
            Routed::Later(future) => Routed::Later(Box::pin(async move {
                let mut effects = future.await;
                effects.extend(more);
                effects
            })),
        }
    }
}

/// Whose a stanza is.
#[derive(Debug, Clone, Copy)]
pub enum Origin<'a> {
    /// It follows from what this session's own client has sent: the client goes on no faster than receivers read.
    Client(&'a SessionState),
    /// Something else that this session does: it waits for nobody, for all that comes to it would wait too.
    Session(&'a SessionState),
    /// It comes from no session.
    Elsewhere,
}

/// Walks the chain.
pub fn route(node: &Arc<NodeContext>, stanza: Stanza, origin: Origin<'_>) -> Routed {
    Walk { node, origin, tries: 0 }.route(stanza.into())
}

/// The one session on another node that `stanza` would go to now, if there is just one and it is not here; or the
/// connection of a component there, with the address of the lane.
#[must_use]
pub fn only_remote(node: &NodeContext, stanza: &Stanza) -> Option<(FullJid, Route)> {
    let receivers = match classify(stanza.to(), stanza.from(), &node.config().xmpp.domains) {
        Target::Resource(full) => vec![Receiver::new(node, &full, &node.routes.locate(&full)?)],
        Target::Account(account) => {
            let sessions = Receiver::of_account(node, &account);
            let there = Presence::Account { reachable: reachable(&sessions) };
            chosen(rules::rule(stanza.kind(), there), sessions)?
        }
        Target::Remote => {
            let place = component::find(node, stanza)?;
            let is_remote = place.route.node != node.node_id;
            return is_remote.then(|| (place.address().clone(), place.route));
        }
        Target::Server => return None,
    };
    match <[Receiver; 1]>::try_from(receivers) {
        Ok([Receiver { route, remote: Some(jid) }]) => Some((jid, route)),
        _ => None,
    }
}

/// Walks the chain for a stanza that `tries` attempts have not delivered: after the first as if it had just come,
/// after more as if the resource it is for were absent, whatever the table says.
pub fn once_more(node: &Arc<NodeContext>, stanza: Stanza, tries: u8) -> BoxFuture<'static, Effects> {
    let walk = Walk { node, origin: Origin::Elsewhere, tries: tries.max(1) };
    let target = classify(stanza.to(), stanza.from(), &node.config().xmpp.domains);
    let routed = match target {
        Target::Resource(full) if tries > 1 => walk.absent(stanza.into(), &full),
        _ => walk.route(stanza.into()),
    };
    routed.into()
}

impl From<Routed> for BoxFuture<'static, Effects> {
    fn from(routed: Routed) -> Self {
        match routed {
            Routed::Done(effects) => Box::pin(std::future::ready(effects)),
            Routed::Later(future) => future,
        }
    }
}

impl From<Next> for Routed {
    fn from(next: Next) -> Self {
        match next {
            Next::Effects(effects) => Routed::Done(effects),
            Next::Wait(future) => Routed::Later(future),
        }
    }
}

/// One walk along the chain.
pub(super) struct Walk<'a> {
    pub(super) node: &'a Arc<NodeContext>,
    pub(super) origin: Origin<'a>,
    /// Attempts on other nodes that have failed for this stanza. With any, it waits behind nobody: those that do
    /// wait behind it.
    pub(super) tries: u8,
}

impl Walk<'_> {
    pub(super) fn route(&self, letter: Letter) -> Routed {
        let stanza = &letter.stanza;
        let target = classify(stanza.to(), stanza.from(), &self.node.config().xmpp.domains);
        debug!(stop = "router", to = stanza.to().map(tracing::field::display));
        match target {
            Target::Server => self.for_receiver(letter.stanza, Pass::Server),
            Target::Account(account) => self.to_account(letter, account),
            Target::Resource(full) => self.to_resource(letter, &full),
            Target::Remote => match component::find(self.node, stanza) {
                Some(place) => self.to_component(letter, &place),
                None => remote(self.node, stanza),
            },
        }
    }

    fn to_component(&self, mut letter: Letter, place: &Place) -> Routed {
        let address = place.address();
        if self.tries == 0 {
            if let Some(wait) = self.plan(&mut letter, None) {
                return wait;
            }
            match self.node.remote.wait_behind(
                address,
                Some(place.route.index),
                (&letter.stanza, self.node.lease.losses()),
            ) {
                Behind::Nothing => {}
                Behind::Queued => {
                    let hold = self.hold(&mut letter);
                    letter.keep_live(self.node, &[], hold);
                    return self.until_found(address);
                }
                Behind::Full => return Routed::Done(bounce::congested(self.node, &letter.stanza)),
            }
        }
        let stanza = letter.stanza.clone();
        match component::give(self.node, &stanza, place, self.tries) {
            Given::Taken => {
                let hold = self.hold(&mut letter);
                letter.keep_live(self.node, &[], hold);
                Routed::Done(Vec::new())
            }
            Given::Braked(pause) => {
                let hold = self.hold(&mut letter);
                letter.keep_live(self.node, &[], hold);
                self.pause(pause)
            }
            Given::Congested => Routed::Done(bounce::congested(self.node, &stanza)),
            Given::Impossible => Routed::Done(bounce::unavailable(self.node, &stanza)),
            Given::Ending(gone) => {
                let (node, tries) = (Arc::clone(self.node), self.tries);
                Routed::Later(Box::pin(async move {
                    gone.await;
                    once_more(&node, stanza, tries).await
                }))
            }
        }
    }

    /// The pass for a receiver that is no session: the server, or an account.
    fn for_receiver(&self, stanza: Stanza, pass: Pass) -> Routed {
        let node = self.node;
        node.metrics.delivery(Delivery::Handled);
        if matches!(stanza.kind(), Kind::Iq(IqType::Result | IqType::Error)) {
            // R11, RFC 6120 §8.2.3 rule 4: somebody here waits for it, or nobody does.
            match node.requests.asked_elsewhere(&stanza) {
                // Who asked waits no longer than its time, should the link be full.
                Some(asker) => {
                    drop(node.links.post(asker, &AnswerIq { xml: stanza.to_standalone().into() }.into()))
                }
                None => node.requests.answered(&stanza),
            }
            return Routed::Done(Vec::new());
        }
        let packet = Packet::new(stanza, pass);
        let session = match self.origin {
            Origin::Client(session) | Origin::Session(session) => Some(session),
            Origin::Elsewhere => None,
        };
        let view = View { node, session, now: node.now() };
        Routed::Done(pipeline::run(&node.modules, &packet, &view))
    }

    fn to_account(&self, letter: Letter, account: BareJid) -> Routed {
        // An IQ never asks who is available.
        if matches!(letter.stanza.kind(), Kind::Iq(_)) {
            return self.for_receiver(letter.stanza, Pass::Account(account));
        }
        let sessions = Receiver::of_account(self.node, &account);
        let there = Presence::Account { reachable: reachable(&sessions) };
        self.obey(letter, sessions, there, account)
    }

    fn to_resource(&self, mut letter: Letter, full: &FullJid) -> Routed {
        if matches!(letter.stanza.kind(), Kind::Presence(presence) if presence.is_subscription()) {
            return self.absent(letter, full);
        }
        let (node, account) = (self.node, full.to_bare());
        let route = node.routes.locate(full);
        if matches!(letter.stanza.kind(), Kind::Message(_)) {
            let mut wait = || route.and_then(|_| self.behind(&mut letter, &account));
            if let Some(wait) = wait() {
                return wait;
            }
            if let Some(wait) = self.plan(&mut letter, Some(&account)) {
                return wait;
            }
        }
        let receiver = route.map(|route| Receiver::new(node, full, &route));
        let marked = letter.marked(node);
        if self.tries == 0 {
            match node.remote.wait_behind(
                full,
                route.map(|route| route.index),
                (&marked, node.lease.losses()),
            ) {
                Behind::Nothing => {}
                Behind::Queued => {
                    let hold = self.hold(&mut letter);
                    letter.keep_live(node, receiver.as_slice(), hold);
                    let copies = self.copies(&marked, &account, |jid, _| jid == full);
                    return self.until_found(full).and(copies);
                }
                Behind::Full => return Routed::Done(bounce::congested(node, &letter.stanza)),
            }
        }
        let Some(receiver) = receiver else { return self.absent(letter, full) };
        match self.hand(&mut letter, &marked, &[receiver], &account) {
            Ok(routed) => routed,
            Err(Untaken::Nobody) => self.absent(letter, full),
            Err(Untaken::Congested) => Routed::Done(bounce::congested(node, &letter.stanza)),
        }
    }

    fn absent(&self, letter: Letter, full: &FullJid) -> Routed {
        if carbons::copied(&letter.stanza).is_some() {
            self.node.metrics.dropped(Dropped::Rule);
            return Routed::Done(Vec::new());
        }
        let account = full.to_bare();
        let sessions = Receiver::of_account(self.node, &account);
        let there = Presence::ResourceAbsent { reachable: reachable(&sessions) };
        self.obey(letter, sessions, there, account)
    }

    /// Does what the table says.
    fn obey(&self, mut letter: Letter, sessions: Vec<Receiver>, there: Presence, account: BareJid) -> Routed {
        let node = self.node;
        let rule = rules::rule(letter.stanza.kind(), there);
        debug!(stop = "router.rules", ?rule);
        if matches!(rule, Rule::ToMostAvailable | Rule::ToNonNegative)
            && let Some(wait) = self.behind(&mut letter, &account)
        {
            return wait;
        }
        if let Some(wait) = self.plan(&mut letter, Some(&account)) {
            return wait;
        }
        let is_in_store = matches!(letter.planned, Some(Planned::Already(_)));
        match rule {
            Rule::ToAccount => return self.for_receiver(letter.stanza, Pass::Account(account)),
            Rule::Bounce | Rule::Ignore if is_in_store => return self.keep(letter, &account),
            Rule::Keep => {
                let copies = self.copies(&letter.marked(node), &account, |_, _| false);
                return self.keep(letter, &account).and(copies);
            }
            Rule::Bounce => return Routed::Done(bounce::unavailable(node, &letter.stanza)),
            Rule::Ignore => {
                node.metrics.dropped(Dropped::Rule);
                return Routed::Done(Vec::new());
            }
            _ => {}
        }
        let receivers = chosen(rule, sessions).unwrap_or_default();
        let presence = matches!(letter.stanza.kind(), Kind::Presence(_));
        let marked = letter.marked(node);
        match self.hand(&mut letter, &marked, &receivers, &account) {
            Ok(routed) => routed,
            // A receiver without room has been dealt with. Nobody to see a presence is no failure; a message must
            // not vanish (RFC 6121 §8.5.2.2.1).
            Err(Untaken::Congested) if presence => Routed::Done(Vec::new()),
            Err(Untaken::Congested) => Routed::Done(bounce::congested(node, &letter.stanza)),
            Err(Untaken::Nobody) if presence => {
                node.metrics.dropped(Dropped::Rule);
                Routed::Done(Vec::new())
            }
            Err(Untaken::Nobody) => {
                let copies = self.copies_but_for(&marked, &account, &receivers);
                let planned = letter.planned.take().unwrap_or(Planned::Not);
                let hold = self.hold(&mut letter);
                let nobody = keep::taken_by_nobody(node, &letter.stanza, &account, planned, hold);
                Routed::from(nobody).and(copies)
            }
        }
    }

    /// Hands a letter to those sessions, as it is `marked`; it is kept, if it is to be, and copied to the account's other
    /// ones. What the letter has stays where nobody took it.
    fn hand(
        &self,
        letter: &mut Letter,
        marked: &Stanza,
        receivers: &[Receiver],
        account: &BareJid,
    ) -> Result<Routed, Untaken> {
        let routed = match receivers::deliver(self.node, marked, receivers, self.tries) {
            Delivered::Some => Routed::Done(Vec::new()),
            Delivered::Slowly(slow) => self.brake(slow),
            Delivered::Ending(receiver) => self.after(receiver, marked.clone()),
            Delivered::None => return Err(Untaken::Nobody),
            Delivered::Congested => return Err(Untaken::Congested),
        };
        let hold = self.hold(letter);
        letter.keep_live(self.node, receivers, hold);
        Ok(routed.and(self.copies_but_for(marked, account, receivers)))
    }

    /// The copies for the account's sessions but for those that get the message.
    fn copies_but_for(&self, stanza: &Stanza, account: &BareJid, receivers: &[Receiver]) -> Effects {
        self.copies(stanza, account, |_, index| {
            receivers.iter().any(|receiver| receiver.route.index == index)
        })
    }

    /// The copies for those of the account who do not get the message (XEP-0280 §7): made at the first attempt.
    fn copies(
        &self,
        stanza: &Stanza,
        account: &BareJid,
        gets_it: impl Fn(&FullJid, BindIndex) -> bool,
    ) -> Effects {
        if self.tries > 0 || !carbons::is_eligible(stanza, Way::Received) {
            return Effects::new();
        }
        carbons::copies(&*self.node.routes, stanza, Way::Received, account, gets_it)
    }

    /// Nobody of the account is there: what is to wait waits, and is not safe before.
    fn keep(&self, mut letter: Letter, account: &BareJid) -> Routed {
        let (hold, planned) = (self.hold(&mut letter), letter.planned.take().unwrap_or(Planned::Not));
        keep::for_absent(self.node, &letter.stanza, account, planned, hold).into()
    }
}

/// Why nobody took a stanza.
enum Untaken {
    /// Nobody was there.
    Nobody,
    /// Who was there has too much to do.
    Congested,
}

/// The sessions of an account that a rule is for; `None` for a rule that is for no session.
fn chosen(rule: Rule, mut sessions: Vec<Receiver>) -> Option<Vec<Receiver>> {
    let least = rules::least_priority(rule, priorities(&sessions))?;
    sessions.retain(|receiver| receiver.route.priority >= Some(least));
    Some(sessions)
}

fn priorities(sessions: &[Receiver]) -> impl Iterator<Item = i8> {
    sessions.iter().filter_map(|receiver| receiver.route.priority)
}

fn reachable(sessions: &[Receiver]) -> bool {
    rules::top_priority(priorities(sessions)).is_some()
}

fn remote(node: &Arc<NodeContext>, stanza: &Stanza) -> Routed {
    debug!(stop = "router.remote");
    let domain = stanza.to().map(|to| to.domain().as_str());
    let config = node.config();
    let mut components = config.components.external.iter();
    Routed::Done(if components.any(|component| Some(component.domain.as_str()) == domain) {
        bounce::detached(node, stanza)
    } else {
        bounce::remote(node, stanza)
    })
}
