//! What goes from a session to its client.

use std::hash::BuildHasher;

use futures_util::future::{BoxFuture, FutureExt};
use tracing::debug;

use althing_proto::stanza::{IqType, Kind, MessageType, PresenceType, Stanza};
use althing_proto::stream::error::{StreamCondition, StreamError};
use althing_proto::time::Timestamp;

use super::{Farewell, Session, client_state};
use crate::delivery::kept;
use crate::metrics::Direction;
use crate::session::messages::EndReason;
use crate::session::outbox::{Entry, Full};

impl Session {
    /// Writes a stanza, which has passed the receiver's pass.
    pub(super) fn write(&mut self, stanza: &Stanza) {
        self.push_if_away(stanza);
        let archive = &self.node.config().archive;
        let default = archive.enabled.then(|| archive.default.into());
        // Who gives receipts names messages by these ids, wherever they are.
        let promised = match self.state.gives_receipts() {
            true => None,
            false => self.state.promised(stanza, default),
        };
        let bytes = promised.as_ref().unwrap_or(stanza).to_bytes();
        debug!(stop = "stream.connection", direction = "out", bytes = bytes.len());
        let entry = match self.outbox.is_inactive() {
            true => client_state::entry(stanza).unwrap_or_else(|| entry(stanza)),
            false => entry(stanza),
        };
        let pushed = match self.waited_as(stanza) {
            Some(id) if self.state.gives_receipts() => self.push_owed(entry, stanza, bytes, id),
            Some(id) => self.outbox.push_waited(entry, bytes, id, || self.settler()),
            None => {
                let known = promised.and_then(|_| kept::id_of(stanza, self.state.account()));
                self.outbox.push_stanza(entry, bytes, (self.goes_elsewhere(stanza), known))
            }
        };
        match pushed {
            Ok(superseded) => {
                if superseded {
                    self.node.metrics.presence_superseded();
                }
                self.node.metrics.stanza(stanza.kind(), Direction::Out);
                self.see(stanza);
            }
            Err(Full) => self.too_slow(),
        }
    }

    /// Writes a copy of what stays in the store.
    pub(super) fn write_copy(&mut self, stanza: &Stanza) {
        match self.outbox.push(Entry::Stanza(None), stanza.to_bytes()) {
            Ok(_) => self.node.metrics.stanza(stanza.kind(), Direction::Out),
            Err(Full) => self.too_slow(),
        }
    }

    /// The outbox is full: its policy.
    pub(super) fn too_slow(&mut self) {
        self.node.metrics.slow_consumer();
        let error = StreamError::new(
            StreamCondition::PolicyViolation,
            "the client reads too slowly: limits.outbox_bytes are waiting",
        );
        self.unsent = self.outbox.take_left();
        self.outbox.abort(self.outbox.last_words(Some(&error)));
        drop(self.end(&EndReason::Error(error)));
    }

    /// Lets others see what has changed, before anybody is told.
    pub(super) fn show(&self) {
        self.shown.set(self.state.visible());
        self.shown.set_fetches(self.state.fetches());
    }

    /// Ends the session of a node that may not act: only its stream.
    pub(super) fn cut_off(&mut self) -> Farewell {
        let error = StreamError::new(
            StreamCondition::SystemShutdown,
            "this server has lost the other servers of its cluster: connect again",
        );
        self.node.metrics.stream_error(error.condition);
        debug!(jid = %self.state.jid(), "session ends: the lease is lost");
        // What waits was not to be written without a lease.
        self.outbox.abort(self.outbox.last_words(Some(&error)));
        self.shown.set(None);
        self.node.sessions.remove(self.state.index());
        let farewell: BoxFuture<'static, ()> = Box::pin(std::future::ready(()));
        self.farewell.insert(farewell.shared()).clone()
    }

    /// Remembers whose presence the client has seen: by whatever way it came.
    fn see(&mut self, stanza: &Stanza) {
        let Kind::Presence(kind @ (PresenceType::Available | PresenceType::Unavailable)) = stanza.kind()
        else {
            return;
        };
        let Some(from) = stanza.from().filter(|from| from.resource().is_some()) else { return };
        if from.as_str() == self.state.jid().as_str() {
            return;
        }
        let hash = self.node.seen_keys.hash_one(from.as_str());
        if kind == PresenceType::Unavailable {
            self.state.seen_mut().unavailable(hash);
        } else if !self.state.seen_mut().available(hash) {
            debug!(jid = %self.state.jid(), "more contacts are available than a session remembers");
        }
    }

    /// When a stanza was delivered that must not be lost with its client: it goes elsewhere if the client does not
    /// acknowledge it.
    fn goes_elsewhere(&self, stanza: &Stanza) -> Option<Timestamp> {
        let matters = match stanza.kind() {
            Kind::Message(kind) => kind != MessageType::Error,
            Kind::Iq(kind) => matches!(kind, IqType::Get | IqType::Set),
            Kind::Presence(_) => false,
        };
        // What the account itself says to a resource is of use to no other: copies, and pages of the archive.
        let own = stanza.from().is_some_and(|from| from.as_str() == self.state.account().as_str());
        (matters && !own && self.alone && self.inbound.is_some()).then(|| self.node.now())
    }
}

/// How a stanza waits for its client. Presence that was broadcast is addressed to the account (RFC 6121 §4.2.2); that to a
/// resource may be one of several that are all needed.
fn entry(stanza: &Stanza) -> Entry<'_> {
    let from = stanza.from();
    let broadcast =
        matches!(stanza.kind(), Kind::Presence(PresenceType::Available | PresenceType::Unavailable))
            && stanza.to().is_some_and(|to| to.resource().is_none());
    match from {
        Some(from) if broadcast && from.resource().is_some() => Entry::Presence(from.as_str()),
        _ => Entry::Stanza(from.map(|from| from.as_str())),
    }
}
