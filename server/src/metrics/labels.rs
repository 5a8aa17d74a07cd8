//! Labels with a closed set of values, and counters that are found by index instead of by hash.

use std::marker::PhantomData;

use althing_proto::stanza::{Kind, StanzaCondition};
use althing_proto::stream::error::StreamCondition;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

/// A label whose values are all known beforehand.
pub(super) trait Label: Copy + 'static {
    /// All values, in the order of their indices.
    const ALL: &'static [Self];
    /// The value's place in [`Label::ALL`].
    fn index(self) -> usize;
    /// The value as Prometheus shows it.
    fn word(self) -> &'static str;
}

macro_rules! labels {
    ($( $(#[doc = $about:literal])+ $vis:vis $name:ident { $( $(#[doc = $text:literal])+ $variant:ident = $word:literal, )+ } )+) => {
        $(
            $(#[doc = $about])+
            #[derive(Debug, Clone, Copy, PartialEq, Eq)]
            $vis enum $name { $( $(#[doc = $text])+ $variant, )+ }

            impl $name {
                /// Each value as Prometheus shows it, and what it means.
                pub(super) const VALUES: &'static [(&'static str, &'static str)] =
                    &[$(($word, concat!($($text),+))),+];
            }

            impl Label for $name {
                const ALL: &'static [Self] = &[$($name::$variant),+];
                fn index(self) -> usize { self as usize }
                fn word(self) -> &'static str { match self { $($name::$variant => $word),+ } }
            }
        )+
    };
}

labels! {
    /// A listener for streams.
    pub Listener {
        /// `listen.c2s`: STARTTLS.
        C2s = "c2s",
        /// `listen.c2s_tls`: direct TLS.
        C2sTls = "c2s_tls",
        /// `listen.web`: HTTP, of which WebSockets come.
        Web = "web",
        /// `listen.web_tls`: the same under TLS.
        WebTls = "web_tls",
        /// `components.listen`: external components (XEP-0114).
        Component = "component",
        /// `components.listen_tls`: the same over direct TLS.
        ComponentTls = "component_tls",
    }
    /// Why a connection was closed right after it was accepted.
    pub Rejection {
        /// `limits.connections` is reached; for components `components.connections`.
        Limit = "limit",
        /// `limits.connections_per_ip` is reached.
        PerIpLimit = "per_ip_limit",
    }
    /// What became of a message that was to be kept.
    pub Keep {
        /// It is in the store, for its owners as they want it.
        Kept = "kept",
        /// The store did not take it: there is no room for it, or the store could not be used. Its sender is told, but with
        /// `messages.durability = "memory"`, where its receiver has it.
        Refused = "refused",
        /// Its stream was closed before: its sender writes it once more.
        Closed = "closed",
    }
    /// Why a resource was not bound.
    pub BindRefused {
        /// `limits.sessions_per_account` is reached.
        Sessions = "sessions_per_account",
        /// `limits.binds_waiting` is reached.
        Waiting = "binds_waiting",
        /// The node was suspended, or the route table did not answer.
        Unavailable = "unavailable",
    }
    /// How an HTTP request of a client was answered.
    pub WebAnswer {
        /// A WebSocket was opened.
        WebSocket = "websocket",
        /// With host-meta (XEP-0156).
        HostMeta = "host_meta",
        /// Refused: the page is of an origin that may open none, see `web.allowed_origins`.
        Origin = "origin",
        /// Refused: nothing is there, or not in this way.
        Refused = "refused",
    }
    /// How an attempt to resume a stream has ended.
    pub Resumed {
        /// On the node that had it.
        Here = "here",
        /// From another node.
        Elsewhere = "elsewhere",
        /// Nothing was resumed.
        Failed = "failed",
    }
    /// How reading the configuration again has ended.
    pub Reload {
        /// What can change has changed.
        Success = "success",
        /// It was refused, and everything is as before.
        Failure = "failure",
    }
    /// How a TLS handshake ended.
    pub Handshake {
        /// With TLS 1.2.
        Tls12 = "1.2",
        /// With TLS 1.3.
        Tls13 = "1.3",
        /// It failed or took too long.
        Failed = "failed",
    }
    /// How a login ended.
    pub Login {
        /// The client is who it says it is.
        Success = "success",
        /// Wrong password, unknown user, or a broken exchange.
        Failure = "failure",
        /// The server could not check.
        Unavailable = "unavailable",
    }
    /// How an attempt to make an account ended (XEP-0077).
    pub Registration {
        /// The account was made.
        Created = "created",
        /// The name is taken.
        Conflict = "conflict",
        /// The address made too many.
        RateLimited = "rate_limited",
        /// The request was malformed or not allowed.
        Refused = "refused",
    }
    /// What became of a push notification (XEP-0357).
    pub Pushed {
        /// It was sent to its service.
        Sent = "sent",
        /// Too much waits, or the store did not answer: nobody was told.
        Dropped = "dropped",
        /// The service did not answer, or by an error that may pass.
        Failed = "failed",
        /// The service has refused it, and gets no more.
        Disabled = "disabled",
    }
    /// What became of a report of abuse (XEP-0377).
    pub Report {
        /// Taken: unwanted messages.
        Spam = "spam",
        /// Taken: any other abuse.
        Abuse = "abuse",
        /// Taken: for a reason that this server does not know.
        Other = "other",
        /// Not taken: it has no reason, or is of the reporter's own account.
        Malformed = "malformed",
        /// Not taken: the account reports too often.
        RateLimited = "rate_limited",
        /// Beside one of the above: for somebody who is to get it there was no room to keep it.
        NotKept = "not_kept",
    }
    /// Names of stanzas (RFC 6120 §8.2).
    pub(super) Name {
        /// `<message/>`.
        Message = "message",
        /// `<presence/>`.
        Presence = "presence",
        /// `<iq/>`.
        Iq = "iq",
    }
    /// Which way a stanza went, seen from the server.
    pub Direction {
        /// From a client.
        In = "in",
        /// To a client.
        Out = "out",
    }
    /// What became of a stanza that was routed.
    pub Delivery {
        /// Put into the mailbox of a session; counted once a session.
        Delivered = "delivered",
        /// Handled by the server, for itself or on behalf of an account.
        Handled = "handled",
        /// Kept until its receiver is there.
        Kept = "kept",
        /// Sent back as an error, for nobody could take it.
        Bounced = "bounced",
    }
    /// Why a stanza was dropped.
    pub Dropped {
        /// The rules for local delivery ask for silence (RFC 6121 §8.5).
        Rule = "rule",
        /// The receiver or the sender has blocked the other, and it may not be answered.
        Blocked = "blocked",
        /// A filter of a module refused it.
        Filter = "filter",
        /// It broke a rule of RFC 6120 §8 and, being an answer itself, may not be answered.
        Malformed = "malformed",
        /// It could not be delivered and may not be answered.
        Undeliverable = "undeliverable",
        /// A presence, for a session whose mailbox is full; that session is closed.
        MailboxFull = "mailbox_full",
        /// A message that its session had already, for it came by another way too.
        Twice = "twice",
        /// Not a stanza: the word that a kept message has arrived. It will be delivered once more.
        SettlesFull = "settles_full",
        /// A presence, for a component whose inbox is full.
        InboxFull = "inbox_full",
        /// A presence or roster event, for a node that takes nothing.
        LinkFull = "link_full",
        /// It was neither a request nor a message, and the queue of a module that wanted it was full.
        ModuleFull = "module_full",
        /// Its session ended before it could be handled.
        SessionGone = "session_gone",
        /// The end of a session, which was not noted: too many wait for the store.
        LogoutsFull = "logouts_full",
        /// It waited for its receiver for longer than `offline.expiry_days`.
        Expired = "expired",
        /// Effects followed from one another without end: a bug of this server.
        Loop = "loop",
    }
    /// How a request of the server itself ended.
    pub OwnRequest {
        /// Answered with a result.
        Result = "result",
        /// Answered with an error.
        Error = "error",
        /// Not answered in time.
        TimedOut = "timed_out",
        /// An answer that came too late, a second time, or from somebody else.
        Ignored = "ignored",
        /// Not sent: too many wait for an answer.
        Refused = "refused",
    }
    /// How the handshake of an external component ended (XEP-0114 §3).
    pub Attachment {
        /// It is attached.
        Attached = "attached",
        /// Its secret is wrong.
        NotAuthorized = "not_authorized",
        /// Its domain is not configured, or it came second and is exclusive, or the stream was broken.
        Refused = "refused",
    }
    /// What the store did.
    pub StoreOp {
        /// A read.
        Read = "read",
        /// A write, from the queue to the answer: the flush to the disk is in it.
        Write = "write",
    }
}

impl Listener {
    /// The word for log and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.word()
    }
}

impl WebAnswer {
    /// As the metrics say it.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.word()
    }
}

impl From<Kind> for Name {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Message(_) => Name::Message,
            Kind::Presence(_) => Name::Presence,
            Kind::Iq(_) => Name::Iq,
        }
    }
}

impl Label for StanzaCondition {
    const ALL: &'static [Self] = StanzaCondition::ALL;
    fn index(self) -> usize {
        self as usize
    }
    fn word(self) -> &'static str {
        self.name()
    }
}

impl Label for StreamCondition {
    const ALL: &'static [Self] = StreamCondition::ALL;
    fn index(self) -> usize {
        self as usize
    }
    fn word(self) -> &'static str {
        self.name()
    }
}

/// One counter a label value; each series exists from the start, with zero.
#[derive(Debug, Clone)]
pub(super) struct Counters<L> {
    counters: Vec<IntCounter>,
    label: PhantomData<L>,
}

impl<L: Label> Counters<L> {
    pub(super) fn new(vec: &IntCounterVec, before: &[&str]) -> Self {
        let counter = |value: &L| vec.with_label_values(&with(before, value.word()));
        Counters { counters: L::ALL.iter().map(counter).collect(), label: PhantomData }
    }

    /// Counts one.
    pub(super) fn inc(&self, value: L) {
        self.add(value, 1);
    }

    /// Counts `number`.
    pub(super) fn add(&self, value: L, number: u64) {
        if let Some(counter) = self.counters.get(value.index()) {
            counter.inc_by(number);
        }
    }

    /// What has been counted.
    pub(super) fn get(&self, value: L) -> u64 {
        self.counters.get(value.index()).map_or(0, IntCounter::get)
    }
}

/// One counter a pair of label values.
#[derive(Debug, Clone)]
pub(super) struct Counters2<A, B> {
    rows: Vec<Counters<B>>,
    label: PhantomData<A>,
}

impl<A: Label, B: Label> Counters2<A, B> {
    pub(super) fn new(vec: &IntCounterVec) -> Self {
        let row = |value: &A| Counters::new(vec, &[value.word()]);
        Counters2 { rows: A::ALL.iter().map(row).collect(), label: PhantomData }
    }

    /// Counts one.
    pub(super) fn inc(&self, first: A, second: B) {
        if let Some(row) = self.rows.get(first.index()) {
            row.inc(second);
        }
    }

    /// What has been counted.
    pub(super) fn get(&self, first: A, second: B) -> u64 {
        self.rows.get(first.index()).map_or(0, |row| row.get(second))
    }
}

/// One gauge a label value.
#[derive(Debug, Clone)]
pub(super) struct Gauges<L> {
    gauges: Vec<IntGauge>,
    label: PhantomData<L>,
}

impl<L: Label> Gauges<L> {
    pub(super) fn new(vec: &IntGaugeVec) -> Self {
        let gauge = |value: &L| vec.with_label_values(&[value.word()]);
        Gauges { gauges: L::ALL.iter().map(gauge).collect(), label: PhantomData }
    }

    /// Adds `number`, which may be negative.
    pub(super) fn add(&self, value: L, number: i64) {
        if let Some(gauge) = self.gauges.get(value.index()) {
            gauge.add(number);
        }
    }
}

fn with<'a>(before: &[&'a str], last: &'a str) -> Vec<&'a str> {
    before.iter().copied().chain([last]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_at_its_own_index() {
        fn check<L: Label>() {
            for (place, value) in L::ALL.iter().enumerate() {
                assert_eq!(value.index(), place, "{}", value.word());
            }
        }
        check::<StreamCondition>();
        check::<Name>();
        check::<StanzaCondition>();
        check::<Delivery>();
        check::<Dropped>();
        check::<Resumed>();
    }
}
