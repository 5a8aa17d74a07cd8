//! Effects: what the pipeline and the session's core want done, as values.
//!
//! Only `session/actor.rs` performs those that touch a session, only `delivery/` the others.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use tracing::{Span, debug_span};

use althing_cluster::routes::BindIndex;
use althing_proto::jid::{BareJid, FullJid, Jid};
use althing_proto::privacy::{Kinds, Lists, PrivacyChanged};
use althing_proto::roster::Subscription;
use althing_proto::stanza::{Kind, Stanza};
use althing_proto::stanza_id::StanzaId;
use althing_proto::stream::error::StreamError;

use super::avatar::Avatar;
use super::core::LoadedPrivacy;
use super::rules::{Decision, Rules};
use crate::aside::Job;
use crate::delivery::carbons;
use crate::pipeline::Packet;

/// Something to be done. Effects of one packet are performed in order.
#[derive(Debug)]
pub enum Effect {
    /// Hand the stanza to the router, which finds its receivers.
    Route(Stanza),
    /// Write the stanza to this session's client: it has passed the receiver's pass.
    Deliver(Stanza),
    /// Write these to this session's client, which has asked for them: copies of what stays in the store, whatever
    /// becomes of them, and perhaps the answer behind them. All, or none where the session has moved meanwhile.
    Copies(Vec<Stanza>),
    /// Send a presence to the available sessions of many accounts. Serialized once.
    FanOut {
        /// The presence; each copy gets its receiver's bare JID as `to`.
        stanza: Stanza,
        /// The accounts, local or remote.
        to: Vec<BareJid>,
        /// Who of them must not have it, where that is said of single resources.
        hidden: Option<Box<Hidden>>,
    },
    /// Ask for the presence of the available sessions of many accounts (RFC 6121 §4.3.1).
    Probe {
        /// The session that asks.
        from: FullJid,
        /// The bind that began it.
        asker: BindIndex,
        /// The accounts, local or remote.
        targets: Vec<BareJid>,
        /// Sessions of this node that are still to be asked: not all at once, where they have much to show.
        here: Vec<BindIndex>,
    },
    /// Tell every session of an account, on whatever node.
    Notify {
        /// The account.
        account: BareJid,
        /// What happened.
        event: UserEvent,
    },
    /// Change the session in which the packet was handled.
    Session(SessionChange),
    /// Wait for that, then perform what it yields. What follows waits too: the client's later stanzas.
    Later(Later),
    /// Hand that to its module's own queue; what it yields is performed when it is there. What follows does not wait.
    Aside(Job),
    /// A packet goes on through the pipeline: a preprocessor that had to wait lets it pass.
    Resume(Box<Resumed>),
}

impl Effect {
    /// PURE: whether nothing of it is to be kept, nor of what follows from it: what is copied to another resource.
    #[must_use]
    pub fn keeps_nothing(&self) -> bool {
        match self {
            Effect::Route(stanza) => carbons::copied(stanza).is_some(),
            Effect::Session(SessionChange::Copied(_)) => true,
            _ => false,
        }
    }
}

/// Effects that something else has to yield first.
pub struct Later(pub BoxFuture<'static, Vec<Effect>>);

impl fmt::Debug for Later {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Later")
    }
}

/// A packet that was held up in the first stage.
#[derive(Debug, Clone)]
pub struct Resumed {
    /// The packet.
    pub packet: Packet,
    /// How many modules have been asked.
    pub asked: usize,
}

/// Those among the receivers of a broadcast from whom the sender hides.
#[derive(Debug, Clone)]
pub struct Hidden {
    /// The sender's rules.
    pub rules: Arc<Rules>,
    /// The subscription with each receiver, in their order; the accounts behind the last are hidden from in no way.
    pub subscriptions: Vec<Subscription>,
}

impl Hidden {
    /// Whether the sender hides from that session of the receiver at that place.
    #[must_use]
    pub fn is_from(&self, at: usize, jid: &FullJid) -> bool {
        let subscription = self.subscriptions.get(at);
        subscription.is_some_and(|subscription| {
            self.rules.decide(jid, || *subscription, Kinds::PRESENCE_OUT) != Decision::Allow
        })
    }
}

/// What of a session's effects must still happen when the session `jid` has ended before them: their cause
/// may be stored already, so that other sessions and accounts have to hear of it. Presence is not among them,
/// for the farewell has told what had to be told of it, and answers to the client are not.
#[must_use]
pub fn left_behind(effects: impl IntoIterator<Item = Effect>, jid: &FullJid) -> Vec<Effect> {
    let matters = |effect: Effect| match effect {
        Effect::Notify { .. } | Effect::Resume(_) => Some(effect),
        Effect::Route(ref stanza) => {
            let availability = matches!(stanza.kind(), Kind::Presence(kind) if !kind.is_subscription());
            let matters = !availability && stanza.to().is_none_or(|to| to.as_str() != jid.as_str());
            matters.then_some(effect)
        }
        Effect::Deliver(_)
        | Effect::Copies(_)
        | Effect::FanOut { .. }
        | Effect::Probe { .. }
        | Effect::Session(_) => None,
        Effect::Later(Later(future)) => {
            let jid = jid.clone();
            let left = future.map(move |effects| left_behind(effects, &jid));
            Some(Effect::Later(Later(left.boxed())))
        }
        Effect::Aside(job) => Some(Effect::Aside(job.left_behind(jid))),
    };
    effects.into_iter().filter_map(matters).collect()
}

impl Effect {
    /// The span of the stanza that the effect carries, for the log at debug level; `session` is the one that
    /// performs it. Costs nothing while that level is off.
    pub(crate) fn span(&self, session: Option<&FullJid>) -> Span {
        match self {
            Effect::Route(stanza) | Effect::Deliver(stanza) | Effect::FanOut { stanza, .. } => {
                stanza_span(stanza, session)
            }
            Effect::Resume(resumed) => stanza_span(&resumed.packet.stanza, session),
            Effect::Notify { .. }
            | Effect::Copies(_)
            | Effect::Probe { .. }
            | Effect::Session(_)
            | Effect::Later(_)
            | Effect::Aside(_) => Span::none(),
        }
    }
}

/// The span of one stanza in one session, or outside any: what a log is searched by.
pub(crate) fn stanza_span(stanza: &Stanza, session: Option<&FullJid>) -> Span {
    debug_span!(
        "stanza",
        kind = stanza.kind().element_name(),
        id = stanza.id(),
        jid = session.map(tracing::field::display)
    )
}

/// A change of a session's state.
#[derive(Debug, Clone)]
pub enum SessionChange {
    /// The session is available with that presence.
    Presence(Stanza),
    /// The session is no longer available. That is the word of it to all who hold it for available; they are told by
    /// [`SessionChange::Farewell`], or by the end of the session where that comes first.
    Left(Stanza),
    /// The session has become available: [`SessionChange::Broadcast`] and [`SessionChange::Probe`], when it is its turn.
    Arrive,
    /// Tell the presence that the session has now to all who may see it now: others may be in the way since it was sent.
    Broadcast,
    /// Ask for the presence of all whom the session may see now (RFC 6121 §4.3.1).
    Probe,
    /// Tell those who have not heard yet that the session is no longer available.
    Farewell,
    /// The client has broadcast that presence, as it is; what others get of it follows as `Presence`.
    Said(Stanza),
    /// The client asked for the roster, which is on its way: it wants pushes (RFC 6121 §2.2). Or it has been sent
    /// pushes that it lacked.
    Interested {
        /// The version that it has then: later changes are pushed, also those that came meanwhile.
        version: u64,
    },
    /// A push before another one is missing (RFC 6121 §2.6.3): what came after this version is read from the store.
    MissingPush {
        /// The version that the client has.
        since: u64,
    },
    /// Look what waits for the account: the session has become one that takes it (XEP-0160 §2 step 5).
    Drain,
    /// The client fetches what waits by itself: it is not to be sent what it has not asked for (XEP-0013 §2.2).
    Fetches,
    /// The client gives a receipt for each message from now on (`server/src/modules/receipts.rs`).
    GivesReceipts,
    /// It has given one.
    Receipt(Receipt),
    /// A directed presence was sent (RFC 6121 §4.6): its target learns of the session's end.
    Directed(Jid),
    /// A directed unavailable presence was sent.
    Undirected(Jid),
    /// The session took its address over from one that was lost with its node and could not say farewell. Until
    /// it is available, contacts may hold the old one for available: they learn of the end with this one's.
    TookOver,
    /// The session hides from all, or no longer (XEP-0186); whether it asks for the presence of others then.
    Invisible(Option<bool>),
    /// The client wants copies of what other resources of the account send and get, or no more (XEP-0280).
    Carbons(bool),
    /// The message with that hash was copied to the other resources.
    Copied(u64),
    /// The client has asked for the block list: it wants pushes (XEP-0191 §3.3).
    AskedForBlocks,
    /// The user's privacy lists have changed.
    Privacy(Arc<PrivacyChanged>),
    /// That privacy list applies to the session instead of the default, or the default again (XEP-0016 §2.4).
    ActiveList(Option<u32>),
    /// The privacy lists are to be read anew.
    ReloadPrivacy,
    /// The privacy lists were read anew.
    PrivacyLoaded(Box<LoadedPrivacy>),
    /// The block list is to be read: it is of a list that does not apply to the session.
    ReloadBlocks,
    /// The block list was read.
    BlocksLoaded(Box<Lists>),
    /// End the session and its stream with that error.
    Close(StreamError),
}

/// That a client has a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Receipt {
    /// By the server's id.
    Id(StanzaId),
    /// By the server's id, or by the one that its sender gave it.
    Name(String),
}

/// Something that concerns all sessions of an account.
#[derive(Debug, Clone)]
pub enum UserEvent {
    /// An item of the account's roster changed.
    Roster(RosterChanged),
    /// Somebody asks for the presence of the account's sessions (RFC 6121 §4.3).
    Probe {
        /// Who asks.
        from: Jid,
    },
    /// The vCard was stored: sessions show its avatar in their presence (XEP-0153).
    Avatar(Avatar),
    /// The account was removed: its sessions end (XEP-0077 §3.2).
    Removed,
    /// A stanza for a class of the account's sessions.
    Stanza {
        /// The stanza; its `to` is the account's bare JID.
        stanza: Stanza,
        /// Which sessions it is for.
        audience: Audience,
    },
    /// The account's privacy lists changed.
    Privacy(Arc<PrivacyChanged>),
    /// Messages wait for whoever takes them.
    Drain,
    /// What the account wants to be archived has changed: sessions read it anew (XEP-0441).
    Archive,
}

/// Which sessions of an account a stanza is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Those that are available.
    Available,
    /// Those that asked for the roster (RFC 6121 §2.2: "interested resources").
    Interested,
}

/// What a session must know of a changed roster item.
#[derive(Debug, Clone)]
pub struct RosterChanged {
    /// The roster's version after the change: a session that knows a later one ignores it.
    pub version: u64,
    /// The contact.
    pub contact: BareJid,
    /// The subscription after the change; `None` for an item that is gone.
    pub subscription: Subscription,
    /// The contact's subscription request that waits for an answer, as XML.
    pub pending: Option<Bytes>,
    /// The push for interested sessions (RFC 6121 §2.1.6), without `to`; absent where nothing visible changed.
    pub push: Option<Stanza>,
}
