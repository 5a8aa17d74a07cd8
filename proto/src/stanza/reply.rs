//! Answers: results, errors, the swap of addresses. The one place that forbids answering an error.

use minidom::Element;

use super::{IqType, Kind, Stanza, StanzaCondition, StanzaError};
use crate::jid::Jid;
use crate::ns;
use crate::xml::build::{BuilderExt, ElementExt};
use crate::xml::name;

impl Stanza {
    /// The result of this IQ (RFC 6120 §8.2.3), from its recipient to its sender. Without a recipient
    /// the answer has no `from`: the server answers for the account (§8.1.2.1).
    #[must_use]
    pub fn result(&self, payload: Option<Element>) -> Stanza {
        let mut element = Element::bare("iq", ns::CLIENT);
        element.set(name!("type"), IqType::Result.name());
        if let Some(id) = self.id() {
            element.set(name!("id"), id);
        }
        if let Some(payload) = payload {
            element.append_child(payload);
        }
        self.answer(Kind::Iq(IqType::Result), element)
    }

    /// This stanza as an error to its sender (RFC 6120 §8.3.1), or `None` where an answer is forbidden:
    /// to an error, and to the answer of an IQ. Carries the condition, not the original children.
    #[must_use]
    pub fn error(&self, error: impl Into<StanzaError>) -> Option<Stanza> {
        if !self.kind().may_be_answered() {
            return None;
        }
        let kind = error_kind(self.kind());
        let mut element = error_element(self.element(), &error.into());
        if let Some(id) = self.id() {
            element.set(name!("id"), id);
        }
        Some(self.answer(kind, element))
    }

    fn answer(&self, kind: Kind, element: Element) -> Stanza {
        Stanza::from_parts(kind, self.to().cloned(), self.from().cloned(), element)
    }

    /// A stanza made here: the element's name, type and id must be those of `kind`.
    #[must_use]
    pub fn from_parts(kind: Kind, from: Option<Jid>, to: Option<Jid>, element: Element) -> Stanza {
        debug_assert_eq!(element.name(), kind.element_name());
        let id = element.attr("id").map(Box::from);
        Stanza {
            inner: std::sync::Arc::new(super::Inner {
                kind,
                from,
                to,
                id,
                element: std::sync::Arc::new(element),
                wire: std::sync::OnceLock::new(),
            }),
        }
    }

    /// The condition of an error stanza, if it names a defined one.
    #[must_use]
    pub fn error_condition(&self) -> Option<StanzaCondition> {
        let error = self.element().get_child("error", ns::CLIENT)?;
        let child = error.children().find(|child| child.is_ns(ns::STANZA_ERRORS))?;
        StanzaCondition::ALL.iter().copied().find(|condition| condition.name() == child.name())
    }
}

/// The error stanza that answers a raw `element` which is not good enough for a [`Stanza`], or `None`
/// where an answer is forbidden. It goes to `from`, if that is an address; who knows whose stream it was knows better.
#[must_use]
pub fn error_for(element: &Element, error: &StanzaError) -> Option<Stanza> {
    let kind = match (element.name(), element.attr("type")) {
        (_, Some("error")) | ("iq", Some("result")) => return None,
        ("iq", _) => Kind::Iq(IqType::Error),
        ("message", _) => Kind::Message(super::MessageType::Error),
        ("presence", _) => Kind::Presence(super::PresenceType::Error),
        _ => return None,
    };
    let mut answer = error_element(element, error);
    if let Some(id) = element.attr("id") {
        answer.set(name!("id"), id);
    }
    let address = |name| element.attr(name).and_then(|text| crate::jid::parse(text).ok());
    Some(Stanza::from_parts(kind, address("to"), address("from"), answer))
}

fn error_kind(kind: Kind) -> Kind {
    match kind {
        Kind::Iq(_) => Kind::Iq(IqType::Error),
        Kind::Message(_) => Kind::Message(super::MessageType::Error),
        Kind::Presence(_) => Kind::Presence(super::PresenceType::Error),
    }
}

fn error_element(original: &Element, error: &StanzaError) -> Element {
    Element::builder(original.name(), ns::CLIENT)
        .set(name!("type"), "error")
        .append(error.to_element())
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stanza(xml: &str) -> Stanza {
        Stanza::parse(xml.parse().unwrap()).unwrap()
    }

    #[test]
    fn a_result_swaps_addresses_and_keeps_the_id() {
        let get =
            stanza("<iq xmlns='jabber:client' type='get' id='7' from='a@b/c' to='b'><q xmlns='x'/></iq>");
        let result = get.result(None);
        assert_eq!(result.to_bytes(), "<iq to='a@b/c' from='b' id='7' type='result'/>");
    }

    /// I7: an error carries its condition, id and swapped addresses.
    #[test]
    fn an_error_has_its_shape() {
        let get =
            stanza("<iq xmlns='jabber:client' type='get' id='7' from='a@b/c' to='b'><q xmlns='x'/></iq>");
        let error = get.error(StanzaCondition::ServiceUnavailable).unwrap();
        assert_eq!(error.error_condition(), Some(StanzaCondition::ServiceUnavailable));
        let text = String::from_utf8(error.to_bytes().to_vec()).unwrap();
        assert_eq!(
            text,
            "<iq to='a@b/c' from='b' id='7' type='error'><error type='cancel'>\
             <service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
        );
    }

    /// I4: errors and answers are never answered.
    #[test]
    fn errors_are_never_answered() {
        for xml in [
            "<iq xmlns='jabber:client' type='result' id='1'/>",
            "<iq xmlns='jabber:client' type='error' id='1'/>",
            "<message xmlns='jabber:client' type='error'/>",
            "<presence xmlns='jabber:client' type='error'/>",
        ] {
            assert!(stanza(xml).error(StanzaCondition::BadRequest).is_none(), "{xml}");
        }
    }
}
