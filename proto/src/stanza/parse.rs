//! From element to stanza: the rules that every stanza must obey (RFC 6120 §8).

use std::sync::{Arc, OnceLock};

use minidom::Element;

use super::{
    Inner, IqType, Kind, MessageType, PresenceType, Stanza, StanzaCondition, StanzaError, error_for,
};
use crate::jid::{self, FullJid, Jid};
use crate::ns;
use crate::stream::error::{StreamCondition, StreamError};
use crate::xml::build::ElementExt;

/// Why an element is not taken as a stanza.
#[derive(Debug, Clone)]
pub enum ParseError {
    /// No stanza at all: the stream decides (RFC 6120 §4.9.3.24).
    NotAStanza(Box<Element>),
    /// The stream must end, for example for a forged `from`.
    Stream(StreamError),
    /// A stanza that breaks a rule. Answer with this error stanza.
    Answer(Box<Stanza>, StanzaCondition),
    /// A broken stanza that must not be answered: the answer of an IQ, or an error.
    Ignore(&'static str),
}

impl Stanza {
    /// Takes an element, in the namespace `jabber:client`, as a stanza.
    ///
    /// # Errors
    /// See [`ParseError`]. The rules checked here hold for every sender: addresses are JIDs, types are
    /// known (RFC 6120 §8.2.3, RFC 6121 §4.7.1), an IQ has `id`, `type` and the right number of
    /// children (§8.2.3 rules 1, 2, 5 and 6).
    pub fn parse(element: Element) -> Result<Stanza, ParseError> {
        let kind = match kind_of(&element) {
            Ok(Some(kind)) => kind,
            Ok(None) => return Err(ParseError::NotAStanza(Box::new(element))),
            Err(error) => return Err(refuse(element, error)),
        };
        let from = match address(&element, "from") {
            Ok(from) => from,
            // Not the recipient's fault and not answerable: nobody knows where to.
            Err(()) => {
                return Err(ParseError::Stream(StreamError::new(
                    StreamCondition::InvalidFrom,
                    "the 'from' attribute is not a JID",
                )));
            }
        };
        let Ok(to) = address(&element, "to") else {
            let error = StanzaError::new(StanzaCondition::JidMalformed, "the 'to' attribute is not a JID");
            return Err(refuse(element, error));
        };
        if let Kind::Iq(iq_type) = kind
            && let Err(error) = check_iq(&element, iq_type)
        {
            return Err(refuse(element, error));
        }
        let id = element.attr("id").map(Box::from);
        Ok(Stanza {
            inner: Arc::new(Inner { kind, from, to, id, element: Arc::new(element), wire: OnceLock::new() }),
        })
    }

    /// Takes an element that came over the stream of `sender` and stamps its `from` (RFC 6120 §8.1.2.1).
    ///
    /// # Errors
    /// As [`Stanza::parse`]; a `from` other than the sender's full or bare JID ends the stream with
    /// `invalid-from`. Error stanzas to answer with are addressed to the sender.
    pub fn received(element: Element, sender: &FullJid) -> Result<Stanza, ParseError> {
        let mut stanza = match Stanza::parse(element) {
            Ok(stanza) => stanza,
            Err(ParseError::Answer(error, condition)) => {
                return Err(ParseError::Answer(Box::new(error.with_to(sender.clone())), condition));
            }
            Err(other) => return Err(other),
        };
        match stanza.from() {
            None => {}
            Some(from) if from.as_str() == sender.as_str() => return Ok(stanza),
            Some(from) if from.is_bare() && from.as_str() == sender.to_bare().as_str() => {}
            Some(_) => {
                return Err(ParseError::Stream(StreamError::new(
                    StreamCondition::InvalidFrom,
                    "the 'from' attribute is not the address of this stream's client",
                )));
            }
        }
        // Nobody else has it yet: stamped in place.
        match Arc::get_mut(&mut stanza.inner) {
            Some(inner) => inner.from = Some(sender.clone().into()),
            None => stanza = stanza.with_from(sender.clone()),
        }
        Ok(stanza)
    }
}

fn kind_of(element: &Element) -> Result<Option<Kind>, StanzaError> {
    if !element.is_ns(ns::CLIENT) {
        return Ok(None);
    }
    let type_name = element.attr("type");
    let bad_type = |text: &str| StanzaError::new(StanzaCondition::BadRequest, text);
    Ok(Some(match element.name() {
        "iq" => Kind::Iq(
            type_name
                .and_then(IqType::from_name)
                .ok_or_else(|| bad_type("the 'type' of an iq is get, set, result or error"))?,
        ),
        // RFC 6121 §5.2.2: an unknown type is taken as normal.
        "message" => Kind::Message(type_name.and_then(MessageType::from_name).unwrap_or(MessageType::Normal)),
        // RFC 6121 §4.7.1: other values are an error; the empty string is no spelling of "available".
        "presence" => Kind::Presence(match type_name {
            None => PresenceType::Available,
            Some(name) => PresenceType::from_name(name)
                .filter(|_| !name.is_empty())
                .ok_or_else(|| bad_type("the 'type' of the presence is not defined"))?,
        }),
        _ => return Ok(None),
    }))
}

fn address(element: &Element, attribute: &str) -> Result<Option<Jid>, ()> {
    element.attr(attribute).map(jid::parse).transpose().map_err(|_| ())
}

/// RFC 6120 §8.2.3, rules 1, 5 and 6 (rule 2 is [`kind_of`]'s).
fn check_iq(element: &Element, iq_type: IqType) -> Result<(), StanzaError> {
    let bad = |text: &str| Err(StanzaError::new(StanzaCondition::BadRequest, text));
    if element.attr("id").is_none_or(str::is_empty) {
        return bad("an iq needs an 'id'");
    }
    match (iq_type, element.children().take(2).count()) {
        (IqType::Get | IqType::Set, 1) | (IqType::Result, 0 | 1) | (IqType::Error, _) => Ok(()),
        (IqType::Get | IqType::Set, _) => bad("an iq of type get or set has exactly one child element"),
        (IqType::Result, _) => bad("an iq of type result has at most one child element"),
    }
}

fn refuse(element: Element, error: StanzaError) -> ParseError {
    let condition = error.condition;
    match error_for(&element, &error) {
        Some(answer) => ParseError::Answer(Box::new(answer), condition),
        None => ParseError::Ignore("a broken stanza that may not be answered"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(xml: &str) -> Result<Stanza, ParseError> {
        Stanza::parse(xml.parse().unwrap())
    }

    fn condition(xml: &str) -> StanzaCondition {
        match parse(xml) {
            Err(ParseError::Answer(stanza, condition)) => {
                assert!(!stanza.kind().may_be_answered(), "{stanza:?}");
                condition
            }
            other => panic!("{xml}: {other:?}"),
        }
    }

    /// I1, I2 and I5: RFC 6120 §8.2.3 rules 1, 2 and 5.
    #[test]
    fn iq_rules_1_2_5_bad_request() {
        for iq in [
            "<iq xmlns='jabber:client' type='get'><q xmlns='x'/></iq>",
            "<iq xmlns='jabber:client' type='get' id=''><q xmlns='x'/></iq>",
            "<iq xmlns='jabber:client' id='1'><q xmlns='x'/></iq>",
            "<iq xmlns='jabber:client' id='1' type='crs'><q xmlns='x'/></iq>",
            "<iq xmlns='jabber:client' id='1' type='get'/>",
            "<iq xmlns='jabber:client' id='1' type='set'><q xmlns='x'/><q xmlns='x'/></iq>",
        ] {
            assert_eq!(condition(iq), StanzaCondition::BadRequest, "{iq}");
        }
    }

    /// I4 and I6: the answer of an IQ is never answered, however broken.
    #[test]
    fn iq_rules_4_6_broken_answers_are_dropped() {
        for iq in [
            "<iq xmlns='jabber:client' id='1' type='result'><q xmlns='x'/><q xmlns='x'/></iq>",
            "<iq xmlns='jabber:client' type='result'/>",
            "<iq xmlns='jabber:client' type='error' id='1' to='@'/>",
            "<message xmlns='jabber:client' type='error' to='@'/>",
        ] {
            assert!(matches!(parse(iq), Err(ParseError::Ignore(_))), "{iq}");
        }
    }

    #[test]
    fn unknown_types_follow_rfc_6121() {
        let message = parse("<message xmlns='jabber:client' type='sms'/>").unwrap();
        assert_eq!(message.kind(), Kind::Message(MessageType::Normal));
        assert_eq!(
            condition("<presence xmlns='jabber:client' type='available'/>"),
            StanzaCondition::BadRequest
        );
        assert_eq!(condition("<presence xmlns='jabber:client' type=''/>"), StanzaCondition::BadRequest);
    }

    #[test]
    fn addresses_must_be_jids() {
        assert_eq!(condition("<message xmlns='jabber:client' to='a@b@c//'/>"), StanzaCondition::JidMalformed);
        assert!(matches!(
            parse("<message xmlns='jabber:client' from='@x'/>"),
            Err(ParseError::Stream(e)) if e.condition == StreamCondition::InvalidFrom
        ));
    }

    #[test]
    fn other_elements_are_no_stanzas() {
        for xml in ["<message xmlns='jabber:server'/>", "<enable xmlns='urn:xmpp:sm:3'/>"] {
            assert!(matches!(parse(xml), Err(ParseError::NotAStanza(_))), "{xml}");
        }
    }

    /// P3: a missing or bare `from` is stamped, a forged one ends the stream.
    #[test]
    fn from_is_stamped() {
        let sender = FullJid::new("romeo@example.net/orchard").unwrap();
        let received = |xml: &str| Stanza::received(xml.parse().unwrap(), &sender);
        for xml in [
            "<message xmlns='jabber:client'/>",
            "<message xmlns='jabber:client' from='romeo@example.net'/>",
            "<message xmlns='jabber:client' from='Romeo@example.net/orchard'/>",
        ] {
            let stanza = received(xml).unwrap();
            assert_eq!(stanza.from().map(Jid::as_str), Some("romeo@example.net/orchard"));
            assert!(
                String::from_utf8_lossy(&stanza.to_bytes()).contains("from='romeo@example.net/orchard'"),
                "{stanza:?}"
            );
        }
        for xml in [
            "<message xmlns='jabber:client' from='romeo@example.net/garden'/>",
            "<message xmlns='jabber:client' from='juliet@example.net'/>",
            "<message xmlns='jabber:client' from='example.net'/>",
        ] {
            assert!(
                matches!(received(xml), Err(ParseError::Stream(e)) if e.condition == StreamCondition::InvalidFrom),
                "{xml}"
            );
        }
    }
}
