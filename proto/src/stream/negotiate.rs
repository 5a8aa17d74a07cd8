//! First-level elements of a client that has not logged in: STARTTLS (RFC 6120 §5), SASL (§6), registration
//! (XEP-0077); all others are refused.

use minidom::Element;

use super::action::{Action, Output};
use super::error::{StreamCondition, StreamError};
use super::features::{may_log_in, may_start_tls};
use super::machine::StreamMachine;
use super::state::State;
use crate::jid::BareJid;
use crate::ns;
use crate::xml::build::ElementExt as _;

/// Iqs that a client may send before login: enough to register with a few corrections.
const MAX_PRE_LOGIN_IQS: u32 = 10;

impl StreamMachine {
    pub(super) fn negotiate(&mut self, element: Element, rest: &[u8], out: &mut Output<'_>) {
        let idle = matches!(self.state, State::Login);
        if element.is_ns(ns::SASL) {
            self.sasl(&element, out);
        } else if idle && element.is("starttls", ns::TLS) {
            self.starttls(rest, out);
        } else if idle && element.is_ns(ns::STREAM_MANAGEMENT) {
            self.manage(&element, out);
        } else if idle && self.is_registration(&element) {
            self.requests += 1;
            if self.requests > MAX_PRE_LOGIN_IQS {
                let text = "too many requests before login";
                return self.fail(StreamError::new(StreamCondition::PolicyViolation, text), out);
            }
            self.state = State::PreLogin;
            out.push(Action::PreLogin(element));
        } else {
            self.fail(premature(&element), out);
        }
    }

    fn starttls(&mut self, rest: &[u8], out: &mut Output<'_>) {
        if !may_start_tls(&self.config, self.tls.as_ref(), out.framing()) {
            // §5.4.2.2: the failure case ends stream and connection.
            out.send(&Element::bare("failure", ns::TLS));
            self.send_end(out);
            return self.close(out);
        }
        if !rest.is_empty() {
            // §5.3.3 allows not even whitespace here. Bytes that came in plaintext must never count as sent
            // inside TLS; §4.9.3.12 names data that is sent before its stage is authorized.
            let text = "data after <starttls/> and before the TLS handshake";
            return self.fail(StreamError::new(StreamCondition::NotAuthorized, text), out);
        }
        out.send(&Element::bare("proceed", ns::TLS));
        out.push(Action::StartTls);
        self.state = State::TlsHandshake;
    }

    /// Whether an element is an iq of XEP-0077 that is for us and may be answered now.
    fn is_registration(&self, element: &Element) -> bool {
        let for_us = |to: &str| {
            BareJid::new(to)
                .is_ok_and(|to| self.domain.as_ref().is_some_and(|domain| to.as_str() == domain.as_str()))
        };
        self.config.registration
            && may_log_in(&self.config, self.tls.as_ref())
            && element.is("iq", ns::CLIENT)
            && matches!(element.attr("type"), Some("get" | "set"))
            && element.has_child("query", ns::REGISTER)
            && element.attr("to").is_none_or(for_us)
    }

    pub(super) fn pre_login_reply(&mut self, reply: &Element, out: &mut Output<'_>) {
        if let State::PreLogin = self.state {
            out.send(reply);
            self.state = State::Login;
        }
    }
}

/// The error for an element that comes too early or not at all: a stanza is `not-authorized` (§4.9.3.12), whatever
/// else `unsupported-stanza-type` (§4.9.3.24).
pub(super) fn premature(element: &Element) -> StreamError {
    let stanza = element.is_ns(ns::CLIENT) && matches!(element.name(), "iq" | "message" | "presence");
    if stanza {
        StreamError::new(StreamCondition::NotAuthorized, "stanzas may be sent when a resource is bound")
    } else {
        StreamError::new(StreamCondition::UnsupportedStanzaType, "this element is not expected here")
    }
}
