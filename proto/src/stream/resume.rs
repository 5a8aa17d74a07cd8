//! Stream management before a resource is bound (XEP-0198 §3, §5): a stream is resumed here, or nothing is.

use minidom::Element;

use super::action::{Action, Output};
use super::error::{StreamCondition, StreamError};
use super::input::{ResumeError, Resumption};
use super::machine::StreamMachine;
use super::management::{self, Count, Request};
use super::negotiate::premature;
use super::state::State;
use crate::stanza::StanzaCondition;

/// Requests that may fail, those before login and binds counted in, until the stream ends.
const MAX_REQUESTS: u32 = 20;

impl StreamMachine {
    /// An element of stream management from a client that has no resource yet.
    pub(super) fn manage(&mut self, element: &Element, out: &mut Output<'_>) {
        match (Request::read(element), &self.state) {
            (Some(Ok(Request::Resume { previd, handled })), State::Bind { user }) => {
                let user = user.clone();
                out.push(Action::Resume { user: user.clone(), previd: previd.clone(), handled });
                self.state = State::Resuming { user, previd };
            }
            // §3: the order is enforced, and nothing is lost by trying.
            (Some(Ok(Request::Resume { .. } | Request::Enable { .. })), _) => {
                self.management_failed(StanzaCondition::UnexpectedRequest, None, out);
            }
            (Some(Err(_)), _) if matches!(element.name(), "enable" | "resume") => {
                self.management_failed(StanzaCondition::BadRequest, None, out);
            }
            // There is nothing to be acknowledged.
            _ => self.fail(premature(element), out),
        }
    }

    pub(super) fn resumed(&mut self, result: Result<Resumption, ResumeError>, out: &mut Output<'_>) {
        let (user, previd) = match std::mem::replace(&mut self.state, State::Ended) {
            State::Resuming { user, previd } => (user, previd),
            other => return self.state = other,
        };
        match result {
            Ok(Resumption { jid, handled }) => {
                out.send(&management::resumed(&previd, handled));
                self.state = State::Established { jid };
            }
            Err(error) => {
                self.state = State::Bind { user };
                match error {
                    ResumeError::Unknown { handled } => {
                        self.management_failed(StanzaCondition::ItemNotFound, handled, out);
                    }
                    ResumeError::Unsupported => {
                        self.management_failed(StanzaCondition::FeatureNotImplemented, None, out);
                    }
                    // `<failed/>` would be the end of its stream, and without the number of what is handled.
                    ResumeError::Unavailable => {
                        let text = "the stream cannot be resumed now: try again";
                        self.fail(StreamError::new(StreamCondition::ResourceConstraint, text), out);
                    }
                    ResumeError::TooHigh(too_high) => self.fail(too_high.into(), out),
                }
            }
        }
    }

    /// §6: these errors can be recovered from; too many of them cannot.
    fn management_failed(
        &mut self,
        condition: StanzaCondition,
        handled: Option<Count>,
        out: &mut Output<'_>,
    ) {
        out.send(&management::failed(condition, handled));
        self.requests += 1;
        if self.requests >= MAX_REQUESTS {
            let text = "too many failed requests";
            self.fail(StreamError::new(StreamCondition::PolicyViolation, text), out);
        }
    }
}
