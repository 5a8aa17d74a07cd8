//! XEP-0198 in the session: what the client says of it, what is counted, and what becomes of what was not acknowledged.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use minidom::Element;

use althing_proto::jid::{BareJid, FullJid};
use althing_proto::ns;
use althing_proto::stanza::{Kind, Stanza, StanzaCondition};
use althing_proto::stream::error::{StreamCondition, StreamError};
use althing_proto::stream::management::{self, Count, Request};
use althing_proto::time::Timestamp;
use althing_proto::xml::build::{BuilderExt, ElementExt};
use althing_proto::xml::name;

use super::{Farewell, Session};
use crate::delivery::{self, kept};
use crate::pipeline::Effects;
use crate::session::copies::Share;
use crate::session::effect::Effect;
use crate::session::handed_over::{self, Ticket};
use crate::session::held::Parcel;
use crate::session::messages::{EndReason, Work};
use crate::session::outbox::{Full, Left};

impl Session {
    /// The stanza in hand is handled: the next one may come. Where that has to wait, until when.
    pub(super) fn next_stanza(&mut self, work: &Work) -> Option<BoxFuture<'static, Effects>> {
        let inbound = self.inbound.as_ref()?;
        self.state.set_in_hand(None);
        if work.elements.is_empty() || inbound.has_room() {
            return None;
        }
        let inbound = inbound.clone();
        Some(Box::pin(async move {
            inbound.room().await;
            Effects::new()
        }))
    }

    /// An effect of the stanza in hand is about to be performed: whether it is the last one of which something may be kept, a
    /// stanza that goes to somebody.
    pub(super) fn is_last(&self, effect: &Effect, alone: bool) {
        if let Some(hold) = self.state.in_hand() {
            hold.is_last(alone && matches!(effect, Effect::Route(_)));
        }
    }

    /// Counts a stanza of the client. Other elements are not counted (§4), and those about the counting end here.
    pub(super) fn counted(&mut self, element: Element) -> Option<Element> {
        if element.is_ns(ns::STREAM_MANAGEMENT) {
            self.manage(&element);
            return None;
        }
        let element = self.client_state(element)?;
        let is_stanza = element.is_ns(ns::CLIENT) && matches!(element.name(), "message" | "presence" | "iq");
        if let Some(inbound) = self.inbound.as_ref().filter(|_| is_stanza) {
            let hold = inbound.begin();
            self.state.set_in_hand(Some(hold));
        }
        Some(element)
    }

    fn manage(&mut self, element: &Element) {
        let said = match (Request::read(element), &self.inbound) {
            (Some(Ok(Request::Enable { resume, max })), None) => self.enable(resume, max),
            // §3: at most one attempt. §6: such errors can be recovered from.
            (Some(Ok(Request::Enable { .. } | Request::Resume { .. })), _) => {
                self.say(management::failed_bytes(StanzaCondition::UnexpectedRequest))
            }
            (Some(Ok(Request::Ask)), Some(_)) => self.outbox.push_answer(),
            (Some(Ok(Request::Answer { handled })), Some(_)) => {
                self.acknowledged(handled);
                Ok(())
            }
            (Some(Err(_)), _) if matches!(element.name(), "enable" | "resume") => {
                self.say(management::failed_bytes(StanzaCondition::BadRequest))
            }
            (Some(Err(_)), Some(_)) => {
                let text = format!("<{}/> breaks the schema of XEP-0198", element.name());
                self.close_stream(StreamError::new(StreamCondition::InvalidXml, text));
                Ok(())
            }
            (_, None) | (None, _) => {
                let text = format!("<{}/> comes before <enable/>", element.name());
                self.close_stream(StreamError::new(StreamCondition::UnsupportedStanzaType, text));
                Ok(())
            }
        };
        if said == Err(Full) {
            self.too_slow();
        }
    }

    fn enable(&mut self, resume: bool, max: Option<u64>) -> Result<(), Full> {
        let most_seconds = self.node.config().limits.resume_s;
        let random = self.node.random().filter(|_| resume && most_seconds > 0);
        let id = random.map(|random| handed_over::sm_id(random, self.state.jid()));
        let seconds = max.unwrap_or(most_seconds).min(most_seconds);
        let enabled = management::enabled(id.as_deref().map(|id| (id, seconds)));
        self.resumption.ticket =
            id.map(|id| Ticket { hash: handed_over::hash(&id, self.state.jid()), seconds });
        let bounds = &self.node.bounds;
        let most = (bounds.unacked_stanzas.clone(), bounds.unacked_bytes.clone());
        let kept = self.node.metrics.streams.unacknowledged();
        self.inbound = Some(self.outbox.manage(Bytes::from(enabled), most, kept)?);
        self.record();
        Ok(())
    }

    fn say(&self, element: Vec<u8>) -> Result<(), Full> {
        self.outbox.push_element(Bytes::from(element))
    }

    fn acknowledged(&mut self, handled: Count) {
        if let Err(too_high) = self.outbox.acknowledged(handled) {
            self.close_stream(too_high.into());
        }
    }

    pub(super) fn close_stream(&mut self, error: StreamError) {
        drop(self.end(&EndReason::Error(error)));
    }

    /// The session ends: what its client has not acknowledged is treated as what is sent to an absent resource (§4).
    pub(super) fn give_up_unacknowledged(&mut self, left: Vec<Left>, farewell: &Farewell) {
        let (messages, answers) = elsewhere(left, self.state.jid());
        for stanza in messages {
            self.left(Parcel { stanza, share: Share::Alone }, farewell.clone());
        }
        if self.node.lease.losses() == self.losses {
            delivery::drive_aside(&self.node, answers);
        }
    }
}

/// What becomes of stanzas that the client `jid` has not acknowledged: messages that are to be routed anew, and answers to
/// requests.
pub(super) fn elsewhere(left: Vec<Left>, jid: &FullJid) -> (Vec<Stanza>, Effects) {
    let (mut messages, mut answers) = (Vec::new(), Effects::new());
    for Left { bytes, elsewhere, known, .. } in left {
        let (Some(stanza), Some(at)) = (Stanza::from_bytes(&bytes), elsewhere) else { continue };
        let stanza = match known {
            Some(id) => stanza.with_child(kept::stanza_id(&jid.to_bare(), id)),
            None => stanza,
        };
        match stanza.kind() {
            Kind::Iq(_) => answers.extend(unanswered(&stanza, &jid.to_bare())),
            _ => messages.push(delayed(&stanza, jid, at)),
        }
    }
    (messages, answers)
}

/// The answer to a request of others that the client has not acknowledged.
fn unanswered(stanza: &Stanza, account: &BareJid) -> Option<Effect> {
    let asker = stanza.from().filter(|from| from.as_str() != account.as_str() && from.node().is_some())?;
    let answer = stanza.error(StanzaCondition::RecipientUnavailable)?;
    Some(Effect::Route(answer.with_to(asker.clone())))
}

/// XEP-0203 §2: when it was delivered in vain.
fn delayed(stanza: &Stanza, jid: &FullJid, at: Timestamp) -> Stanza {
    let delay = Element::builder("delay", ns::DELAY)
        .set(name!("from"), jid.domain().as_str())
        .set(name!("stamp"), at.to_xep0082())
        .build();
    let mut element = stanza.to_element();
    element.append_child(delay);
    Stanza::parse(element).unwrap_or_else(|_| stanza.clone())
}
