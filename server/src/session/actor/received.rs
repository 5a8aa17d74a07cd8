//! What a session's own client sends.

use minidom::Element;
use tracing::debug;

use althing_proto::stanza::{Kind, ParseError, Stanza};
use althing_proto::stream::error::{StreamCondition, StreamError};
use althing_proto::stream::second_bind;

use super::Session;
use crate::metrics::{Direction, Dropped};
use crate::pipeline::{self, Effects, Packet, Pass};
use crate::session::effect::{Effect, SessionChange, stanza_span};

impl Session {
    /// The sender's pass of an element that the client sent.
    pub(super) fn on_client(&mut self, element: Element) -> Effects {
        let Some(element) = self.counted(element) else { return Effects::new() };
        let Some(element) = self.legacy_receipt(element) else { return Effects::new() };
        let stanza = match Stanza::received(element, self.state.jid()) {
            Ok(stanza) => stanza,
            Err(error) => return self.refuse(error).into_iter().collect(),
        };
        if let Some(error) = second_bind(stanza.element()) {
            return stanza.error(error).map(Effect::Deliver).into_iter().collect();
        }
        let stanza = stanza.without_forgeries(|domain| self.node.serves(domain));
        self.node.metrics.stanza(stanza.kind(), Direction::In);
        if !matches!(stanza.kind(), Kind::Iq(_)) {
            self.shown.spoke(self.node.now());
        }
        let span = stanza_span(&stanza, Some(self.state.jid()));
        let _in_span = span.enter();
        debug!(stop = "session.actor", pass = "outbound", to = stanza.to().map(tracing::field::display));
        let packet = Packet::new(stanza, Pass::Outbound);
        pipeline::run(&self.node.modules, &packet, &self.view())
    }

    /// The answer to something that is no good stanza.
    fn refuse(&self, error: ParseError) -> Option<Effect> {
        let close = |error| Some(Effect::Session(SessionChange::Close(error)));
        match error {
            ParseError::Answer(answer, condition) => {
                self.node.metrics.stanza_error(condition);
                Some(Effect::Deliver(*answer))
            }
            ParseError::Stream(error) => close(error),
            ParseError::Ignore(why) => {
                debug!(stop = "session.actor", pass = "outbound", reason = why, "stanza dropped");
                self.node.metrics.dropped(Dropped::Malformed);
                None
            }
            // RFC 6120 §4.9.3.24.
            ParseError::NotAStanza(element) => close(StreamError::new(
                StreamCondition::UnsupportedStanzaType,
                format!("<{}/> is no stanza and was not negotiated", element.name()),
            )),
        }
    }
}
