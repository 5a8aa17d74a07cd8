//! PURE: commands on the wire: requests, answers, the errors of XEP-0050 §4.4.

use minidom::Element;

use althing_proto::form::Form;
use althing_proto::ns;
use althing_proto::stanza::{ErrorType, StanzaCondition, StanzaError};
use althing_proto::xml::build::{BuilderExt, ElementExt};
use althing_proto::xml::name;

use super::command::{NoteKind, Step};

/// What a requester wants done (§4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Cancel,
    Complete,
    Execute,
    Next,
    Prev,
}

impl Action {
    fn parse(name: Option<&str>) -> Option<Self> {
        Some(match name {
            None | Some("execute") => Action::Execute,
            Some("cancel") => Action::Cancel,
            Some("complete") => Action::Complete,
            Some("next") => Action::Next,
            Some("prev") => Action::Prev,
            Some(_) => return None,
        })
    }
}

/// A request.
pub(super) struct Request<'a> {
    pub(super) node: &'a str,
    pub(super) session: Option<&'a str>,
    pub(super) action: Action,
    pub(super) element: &'a Element,
}

impl<'a> Request<'a> {
    pub(super) fn parse(element: &'a Element) -> Result<Self, StanzaError> {
        let node = element.attr("node").filter(|_| element.is("command", ns::COMMANDS));
        let node =
            node.ok_or_else(|| StanzaError::new(StanzaCondition::BadRequest, "a command has a node"))?;
        let action = Action::parse(element.attr("action"));
        let action = action.ok_or_else(|| refused(Specific::MalformedAction, "no such action"))?;
        Ok(Request { node, session: element.attr("sessionid"), action, element })
    }

    /// The form that was sent along.
    pub(super) fn form(&self) -> Result<Form, StanzaError> {
        match Form::find(self.element) {
            Ok(Some(form)) => Ok(form),
            Ok(None) => Err(refused(Specific::BadPayload, "a form of type submit is needed")),
            Err(error) => Err(refused(Specific::BadPayload, error.to_string())),
        }
    }
}

/// The specific conditions of §4.4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Specific {
    MalformedAction,
    BadAction,
    BadPayload,
    BadSessionId,
    SessionExpired,
}

/// An error of §4.4.
pub(super) fn refused(specific: Specific, text: impl Into<String>) -> StanzaError {
    let (condition, name) = match specific {
        Specific::MalformedAction => (StanzaCondition::BadRequest, "malformed-action"),
        Specific::BadAction => (StanzaCondition::BadRequest, "bad-action"),
        Specific::BadPayload => (StanzaCondition::BadRequest, "bad-payload"),
        Specific::BadSessionId => (StanzaCondition::BadRequest, "bad-sessionid"),
        Specific::SessionExpired => (StanzaCondition::NotAllowed, "session-expired"),
    };
    StanzaError {
        application: Some(Box::new(Element::bare(name, ns::COMMANDS))),
        ..StanzaError::new(condition, text)
    }
}

/// Whoever asks may not run the command: of type `cancel`, as §4.4 has it.
pub(super) fn forbidden() -> StanzaError {
    StanzaError { error_type: ErrorType::Cancel, ..StanzaCondition::Forbidden.into() }
}

/// The answer with a stage of the command. `stage` counts the forms that are answered.
pub(super) fn answer(node: &str, session: &str, stage: usize, step: &Step) -> Element {
    let mut command = builder(node, session);
    match step {
        Step::Ask { form, last } => {
            let action = if *last { "complete" } else { "next" };
            let mut actions = Element::builder("actions", ns::COMMANDS).set(name!("execute"), action);
            if stage > 0 {
                actions = actions.append(Element::bare("prev", ns::COMMANDS));
            }
            let actions = actions.append(Element::bare(action, ns::COMMANDS));
            command = command.set(name!("status"), "executing").append(actions).append(form.to_element());
        }
        Step::Done { payload, notes } => {
            let note = |(kind, text): &(NoteKind, String)| {
                let note = Element::builder("note", ns::COMMANDS).set(name!("type"), kind.name());
                note.append(text.as_str()).build()
            };
            command = command.set(name!("status"), "completed");
            command = command.append_all(notes.iter().map(note)).append_all(payload.iter().cloned());
        }
    }
    in_english(command.build())
}

/// The answer to a request to cancel.
pub(super) fn canceled(node: &str, session: &str) -> Element {
    builder(node, session).set(name!("status"), "canceled").build()
}

fn builder(node: &str, session: &str) -> minidom::ElementBuilder {
    Element::builder("command", ns::COMMANDS).set(name!("node"), node).set(name!("sessionid"), session)
}

/// §4.2: the language in use.
fn in_english(mut element: Element) -> Element {
    element.set_lang("en");
    element
}
