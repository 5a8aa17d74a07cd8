//! Receipts in the session (`server/src/modules/receipts.rs`): what is sent again, and when it is too late.
//!
//! A message is sent again from the store. One that is not there any more has got its receipt from another session.

use std::hash::BuildHasher;
use std::time::Duration;

use actix::{Context, Handler};
use bytes::Bytes;
use minidom::Element;

use althing_proto::ns;
use althing_proto::stanza::Stanza;
use althing_proto::stanza_id::StanzaId;
use althing_proto::stream::error::{StreamCondition, StreamError};

use super::Session;
use crate::delivery::inbox::Reader;
use crate::session::effect::{Effect, Receipt, SessionChange};
use crate::session::messages::CheckReceipts;
use crate::session::outbox::{Entry, Full};
use crate::session::receipts::{Due, TooMany};

/// How often it is looked whether receipts are late.
const LOOK: Duration = Duration::from_secs(1);

impl Session {
    /// Writes a message that stays in the store until the client gives a receipt for it.
    pub(super) fn push_owed(
        &mut self,
        entry: Entry<'_>,
        stanza: &Stanza,
        bytes: Bytes,
        id: StanzaId,
    ) -> Result<bool, Full> {
        let name = stanza.id().map(|name| self.node.seen_keys.hash_one(name));
        if self.owed.sent(id, name, self.node.now()) == Err(TooMany) {
            self.give_up("more receipts are owed than may be");
            return Ok(false);
        }
        self.outbox.push(entry, bytes)
    }

    /// The client gives receipts from now on: somebody looks whether they come.
    pub(super) fn look_for_receipts(&self) {
        let Some(own) = self.node.sessions.get(self.state.index()) else { return };
        actix_rt::spawn(async move {
            while own.check_receipts().await {
                tokio::time::sleep(LOOK).await;
            }
        });
    }

    /// A receipt has come: the message has arrived. One for a message that is not there does nothing.
    pub(super) fn take_receipt(&mut self, receipt: &Receipt) {
        let id = match receipt {
            Receipt::Id(id) => Some(*id),
            Receipt::Name(name) => {
                name.parse().ok().or_else(|| self.owed.named(self.node.seen_keys.hash_one(name.as_str())))
            }
        };
        if let Some(id) = id {
            self.owed.received(id);
            self.settler().settle(id);
        }
    }

    /// R8: an IQ of type `crs`, which RFC 6120 does not know, as clients of old send it. Gives back what is none.
    pub(super) fn legacy_receipt(&mut self, element: Element) -> Option<Element> {
        let is_one = element.is("iq", ns::CLIENT)
            && element.attr("type") == Some("crs")
            && element.children().next().is_none();
        if !is_one || !self.node.config().receipts.legacy_crs {
            return Some(element);
        }
        // Without an id it says nothing, and is not answered either.
        if let Some(name) = element.attr("id").filter(|name| !name.is_empty()) {
            self.take_receipt(&Receipt::Name(name.to_owned()));
        }
        None
    }

    fn give_up(&mut self, text: &str) {
        self.close_stream(StreamError::new(StreamCondition::ConnectionTimeout, text));
    }
}

impl Handler<CheckReceipts> for Session {
    type Result = bool;

    fn handle(&mut self, _: CheckReceipts, _: &mut Context<Self>) -> bool {
        if self.over().is_some() {
            return false;
        }
        if !self.node.lease.holds() || self.owed.is_empty() {
            return true;
        }
        if !self.outbox.is_open() {
            self.owed.away(self.node.now());
            return true;
        }
        let config = self.node.config();
        let (repeat, validity) = (config.receipts.repeat(), config.receipts.validity());
        match self.owed.due(self.node.now(), repeat, validity) {
            Due::TooOld => {
                self.give_up("a receipt is owed for too long");
                return false;
            }
            Due::Again(ids) if !ids.is_empty() => {
                let reader = Reader::new(&self.node, &self.state);
                actix_rt::spawn(async move {
                    // What the store does not say now is asked for the next time.
                    let Ok((messages, gone)) = reader.again(&ids).await else { return };
                    reader.show(messages).await;
                    let gone = gone.into_iter().map(|id| SessionChange::Receipt(Receipt::Id(id)));
                    reader.tell(gone.map(Effect::Session).collect()).await;
                });
            }
            Due::Again(_) => {}
        }
        true
    }
}
