//! What waits for the account goes to a session that takes it: XEP-0160 §2 step 5, in the order in which it came.
//!
//! The session's mailbox stands still meanwhile, so that what comes later comes later. What was handed to the client
//! goes from the store when it has arrived: when it is acknowledged (XEP-0198), else when it is written to the socket.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use actix::{ActorFutureExt, AsyncContext, Context, WrapFuture};
use minidom::Element;
use tracing::{debug, warn};

use althing_proto::jid::{BareJid, FullJid};
use althing_proto::ns;
use althing_proto::stanza::{Kind, Stanza};
use althing_proto::stanza_id::StanzaId;
use althing_proto::xml::build::BuilderExt;
use althing_proto::xml::name;

use super::Session;
use crate::delivery::{keep, local};
use crate::faults::{self, Fault};
use crate::node::NodeContext;
use crate::session::effect::{Effect, UserEvent};
use crate::session::outbox::Settler;
use crate::storage::StorageError;
use crate::storage::messages::{DeviceId, Drain, Drained, InboxMessage, Settle, Taker};

/// Most messages of one page.
const PAGE: u32 = 50;

/// After how long a page is asked for once more that the store did not give.
const AGAIN: Duration = Duration::from_secs(2);

/// What a session does about messages that wait.
#[derive(Debug, Default)]
pub(super) struct Draining {
    /// How often it has begun.
    pass: u32,
    /// Whether a page is under way, which may be this session's in the store already.
    under_way: bool,
}

/// Where a drain stands: its pass, and the last number of the page before.
#[derive(Clone, Copy)]
struct At {
    pass: u32,
    after: Option<u64>,
}

impl Session {
    /// Takes what waits, if the session is one that takes it (RFC 6121 §8.5.2.1.1: no negative priority).
    pub(super) fn drain(&mut self, ctx: &mut Context<Self>) {
        let takes = self.state.presence().and_then(Stanza::priority) >= Some(0);
        if !takes || self.draining.under_way || !self.outbox.is_open() {
            return;
        }
        self.draining.pass += 1;
        self.page(At { pass: self.draining.pass, after: None }, ctx);
    }

    fn page(&mut self, at: At, ctx: &mut Context<Self>) {
        self.draining.under_way = true;
        let (node, account) = (Arc::clone(&self.node), self.state.account().clone());
        let taker = Taker { bind: self.state.index(), device: self.device() };
        let page = async move { page(&node, &account, taker, at).await };
        ctx.wait(page.into_actor(self).map(move |drained, session, ctx| match drained {
            Ok(Drained { messages, next }) => {
                let next = next.map(|after| At { after: Some(after), ..at });
                session.when_serving(ctx, move |session, ctx| session.hand_out(messages.into(), next, ctx));
            }
            Err(error) => {
                warn!(jid = %session.state.jid(), %error, "messages that wait are late");
                ctx.run_later(AGAIN, move |session, ctx| {
                    if session.over().is_none() {
                        session.page(at, ctx);
                    }
                });
            }
        }));
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
                ctx.wait(room.into_actor(self).map(move |(), session, ctx| {
                    session.when_serving(ctx, move |session, ctx| session.hand_out(messages, next, ctx));
                }));
                return;
            }
            let id = message.id;
            if self.outbox.is_unsettled(id) {
                // The stream that this one goes on with has it.
                continue;
            }
            let stanza = (!message.retracted).then(|| waited(&message, self.state.account())).flatten();
            self.alone = false;
            let effects = stanza.map(|stanza| self.pass(stanza)).unwrap_or_default();
            let goes_on = |effect: &Effect| {
                matches!(effect, Effect::Deliver(_) | Effect::Later(_) | Effect::Aside(_) | Effect::Resume(_))
            };
            if !effects.iter().any(goes_on) {
                // Retracted, or from somebody who was blocked since.
                debug!(jid = %self.state.jid(), "a message that waited is not delivered");
                self.settler().settle(id);
            }
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
            None => self.draining.under_way = false,
        }
    }

    /// The id of a message that waited in the store until it came here.
    pub(super) fn waited_as(&self, stanza: &Stanza) -> Option<StanzaId> {
        if !matches!(stanza.kind(), Kind::Message(_)) {
            return None;
        }
        let own = |child: &&Element| {
            child.is("stanza-id", ns::STANZA_ID) && child.attr("by") == Some(self.state.account().as_str())
        };
        stanza.element().children().find(own)?.attr("id")?.parse().ok()
    }

    /// What becomes of messages that have arrived.
    pub(super) fn settler(&self) -> Settler {
        let (node, user, device) = (Arc::clone(&self.node), self.state.account().clone(), self.device());
        Settler { node, user, device }
    }

    /// Which device of the account it is, where messages wait for each: that of its resource.
    fn device(&self) -> Option<DeviceId> {
        self.node.config().offline.per_device.then(|| {
            let hash = StanzaId::derived(b"device", &[self.state.jid().resource().as_str().as_bytes()]);
            let [a, b, c, d, e, f, g, h, ..] = *hash.as_bytes();
            // 0 is no device.
            DeviceId(u64::from_be_bytes([a, b, c, d, e, f, g, h]).max(1))
        })
    }

    /// Lets the mailbox bring the word that something may wait: what comes for the session from here on waits behind it.
    pub(super) fn look_what_waits(&self) {
        local::notify(&self.node, self.state.index(), &UserEvent::Drain);
    }

    /// The session ends: what its client has not got is for others, and the next one gets nothing twice.
    pub(super) fn leave_waited(&self) -> Leaving {
        let left = self.draining.under_way || self.outbox.has_unsettled();
        self.outbox.leave_waited();
        Leaving { drained: self.draining.pass > 0, left }
    }
}

/// What a session that has ended leaves of messages that have waited.
pub(super) struct Leaving {
    drained: bool,
    left: bool,
}

impl Leaving {
    /// Waits until what has arrived is in the store: who comes next is not to get it once more.
    pub(super) async fn settled(&self, node: &NodeContext) {
        if self.drained {
            node.waiting.settles.flush().await;
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
    At { pass, after }: At,
) -> Result<Drained, StorageError> {
    let inbox = &node.storage.inbox;
    if let (Some(device), None) = (taker.device, after) {
        let now = node.now();
        inbox.note_device(account, device, now, node.config().offline.forget(now)).await?;
    }
    // As a rule nothing waits: that costs no change.
    if after.is_none() && inbox.summary(account).await?.messages == 0 {
        return Ok(Drained::default());
    }
    let why =
        |error: althing_cluster::routes::RouteError| StorageError::Unavailable { why: error.to_string() };
    node.routes.barrier().await.map_err(why)?;
    let mut live = Vec::new();
    node.routes.visit_account(account, &mut |_, route| live.push(route.index));
    let drained = inbox.drain(account, Drain { taker, pass, live, after, limit: PAGE }).await?;
    if faults::makes(Fault::DrainDeletes) {
        let arrived =
            |message: &InboxMessage| Settle { user: account.clone(), id: message.id, device: taker.device };
        inbox.settle(drained.messages.iter().map(arrived).collect()).await?;
    }
    Ok(drained)
}

/// The message as its receiver gets it: with its id (XEP-0359) and the time when it came (XEP-0203 §2), unless it says
/// already that this server has delayed it.
fn waited(message: &InboxMessage, account: &BareJid) -> Option<Stanza> {
    let stanza = Stanza::from_standalone(&message.xml)?;
    let mut element = stanza.to_element();
    let domain = account.domain().as_str();
    let is_delayed =
        element.children().any(|child| child.is("delay", ns::DELAY) && child.attr("from") == Some(domain));
    if !is_delayed {
        let delay = Element::builder("delay", ns::DELAY)
            .set(name!("from"), domain)
            .set(name!("stamp"), message.stamp.to_xep0082())
            .build();
        element.append_child(delay);
    }
    let id = Element::builder("stanza-id", ns::STANZA_ID)
        .set(name!("by"), account.as_str())
        .set(name!("id"), message.id.to_string())
        .build();
    element.append_child(id);
    Stanza::parse(element).ok()
}
