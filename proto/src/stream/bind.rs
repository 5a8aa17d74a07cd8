//! Resource binding (RFC 6120 §7).

use minidom::Element;

use super::action::{Action, Output};
use super::error::{StreamCondition, StreamError};
use super::header::LANG;
use super::input::BindError;
use super::machine::StreamMachine;
use super::negotiate::premature;
use super::state::State;
use crate::jid::{self, FullJid, Jid, ResourcePart};
use crate::ns;
use crate::stanza::{StanzaCondition, StanzaError};
use crate::xml::build::{BuilderExt as _, ElementExt as _};
use crate::xml::name;

/// Requests that may fail, those before login counted in, until the stream ends (§7.7.2.2 leaves the
/// number to the server).
const MAX_REQUESTS: u32 = 20;

/// Octets of randomness in a resource that the server makes (§7.6: unguessable).
const RESOURCE_BYTES: usize = 12;

impl StreamMachine {
    /// An element of a client that has logged in: only a bind is allowed (§7.1).
    pub(super) fn bind(&mut self, element: &Element, out: &mut Output<'_>) {
        let State::Bind { user } = &self.state else { return };
        let to_us = element.attr("to").is_none_or(|to| {
            Jid::new(to).is_ok_and(|to| to.as_str() == user.as_str() || to.as_str() == user.domain().as_str())
        });
        let Some(request) = bind_request(element).filter(|_| to_us) else {
            return self.fail(premature(element), out);
        };
        let Some(id) = element.attr("id").filter(|_| element.attr("type") == Some("set")) else {
            return self.bind_failed(element.attr("id"), BindError::BadRequest, out);
        };
        let mut wanted = request.children().filter(|child| child.is("resource", ns::BIND));
        let resource = match (wanted.next().map(Element::text), wanted.next()) {
            (_, Some(_)) => return self.bind_failed(Some(id), BindError::BadRequest, out),
            (Some(text), None) if !text.is_empty() => Some(text),
            _ => None,
        };
        let requested = resource.is_some();
        let resource = resource.unwrap_or_else(|| self.entropy.token(RESOURCE_BYTES));
        let prepared = ResourcePart::new(&resource).map(std::borrow::Cow::into_owned);
        let stable = |part: &ResourcePart| jid::parse(user.with_resource(part).as_str()).is_ok();
        let Some(resource) = prepared.ok().filter(stable) else {
            return self.bind_failed(Some(id), BindError::BadRequest, out);
        };
        let user = user.clone();
        out.push(Action::Bind { user: user.clone(), resource, requested });
        self.state = State::Binding { user, id: id.to_owned() };
    }

    pub(super) fn bound(&mut self, result: Result<FullJid, BindError>, out: &mut Output<'_>) {
        let (user, id) = match std::mem::replace(&mut self.state, State::Ended) {
            State::Binding { user, id } => (user, id),
            other => return self.state = other,
        };
        match result {
            Ok(jid) => {
                let text = Element::builder("jid", ns::BIND).append(jid.as_str());
                let bind = Element::builder("bind", ns::BIND).append(text);
                let result = Element::builder("iq", ns::CLIENT)
                    .set(name!("type"), "result")
                    .set(name!("id"), &id)
                    .append(bind);
                out.send(&result.build());
                self.state = State::Established { jid };
            }
            Err(error) => {
                self.state = State::Bind { user };
                self.bind_failed(Some(&id), error, out);
            }
        }
    }

    fn bind_failed(&mut self, id: Option<&str>, error: BindError, out: &mut Output<'_>) {
        out.send(&error_iq(id, error.into()));
        self.requests += 1;
        if self.requests >= MAX_REQUESTS {
            let text = "too many failed binds";
            self.fail(StreamError::new(StreamCondition::PolicyViolation, text), out);
        }
    }

    /// An element of a bound client: it is the session's, whatever it is, for stanzas are counted there (XEP-0198).
    pub(super) fn bound_element(&mut self, mut element: Element, out: &mut Output<'_>) {
        self.name_language(&mut element);
        out.push(Action::Element(element));
    }

    /// §8.1.5: a stanza without a language is in that of its stream (§4.7.4), which nobody else knows. What says
    /// nothing of itself and comes on a stream in our own default is left as it is: the receiver's stream has the
    /// same default.
    fn name_language(&self, element: &mut Element) {
        if let Some(lang) = self.lang().filter(|lang| !lang.eq_ignore_ascii_case(LANG))
            && element.lang().is_none()
            && element.is_ns(ns::CLIENT)
        {
            element.set_lang(lang);
        }
    }
}

/// Why a client that has a resource gets no other on its stream (§7.1), where that is what it asks for.
#[must_use]
pub fn second_bind(element: &Element) -> Option<StanzaError> {
    let is_bind = element.attr("type") == Some("set") && bind_request(element).is_some();
    is_bind.then(|| StanzaError::new(StanzaCondition::NotAllowed, "a resource is bound already"))
}

/// The `<bind/>` of an iq.
fn bind_request(element: &Element) -> Option<&Element> {
    if element.is("iq", ns::CLIENT) { element.get_child("bind", ns::BIND) } else { None }
}

fn error_iq(id: Option<&str>, error: StanzaError) -> Element {
    let mut iq = Element::builder("iq", ns::CLIENT).set(name!("type"), "error");
    if let Some(id) = id {
        iq = iq.set(name!("id"), id);
    }
    iq.append(error.to_element()).build()
}
