//! What a command is: one file a command, one line in the list of the module that it belongs to.
//!
//! A command is a function of what was answered so far: with no answers it asks its first form, or acts at once; with
//! one it asks the second, or acts. Sessions, actions and errors are not its business.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use minidom::Element;

use althing_proto::form::{Answers, Form};
use althing_proto::jid::{DomainPart, Jid};
use althing_proto::stanza::StanzaError;

use crate::node::NodeContext;

/// A command (XEP-0050).
pub trait Command: Send + Sync {
    /// Its node: unique on this server.
    fn node(&self) -> &'static str;

    /// Its name, for people.
    fn name(&self) -> &'static str;

    /// Who may run it: administrators, unless the command says otherwise.
    fn may(&self, node: &NodeContext, asker: &Jid) -> bool {
        node.is_admin(asker)
    }

    /// Goes on: asks a form, or acts. An error leaves the session where it was: the asker may submit again.
    fn next(&self, call: Call) -> NextStep;
}

/// What a command came to, once it is there.
pub type NextStep = BoxFuture<'static, Result<Step, StanzaError>>;

/// A command at work.
#[derive(Clone)]
pub struct Call {
    /// The node that it runs on: that of the asker's session.
    pub node: Arc<NodeContext>,
    /// Who runs it.
    pub asker: Jid,
    /// The domain that was asked.
    pub domain: DomainPart,
    /// The answers to the forms so far.
    pub answers: Vec<Answers>,
}

/// A stage of a command.
pub enum Step {
    /// Asks for more.
    Ask {
        /// The form to fill out.
        form: Form,
        /// Whether its answer ends the command: `complete`, not `next`.
        last: bool,
    },
    /// The command has ended.
    Done {
        /// Results: forms, as elements.
        payload: Vec<Element>,
        /// Words for the asker.
        notes: Vec<(NoteKind, String)>,
    },
}

/// How grave a note is (XEP-0050 §4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoteKind {
    /// Nothing special.
    Info,
    /// Something is odd.
    Warn,
    /// Something failed.
    Error,
}

impl NoteKind {
    /// The value of `type`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            NoteKind::Info => "info",
            NoteKind::Warn => "warn",
            NoteKind::Error => "error",
        }
    }
}

impl Step {
    /// Asks the last form.
    #[must_use]
    pub fn ask(form: Form) -> Step {
        Step::Ask { form, last: true }
    }

    /// Ended, with nothing to tell.
    #[must_use]
    pub fn done() -> Step {
        Step::Done { payload: Vec::new(), notes: Vec::new() }
    }

    /// Ended, with results.
    #[must_use]
    pub fn tell(form: Form) -> Step {
        Step::Done { payload: vec![form.to_element()], notes: Vec::new() }
    }

    /// With a further note, where it has ended.
    #[must_use]
    pub fn note(mut self, kind: NoteKind, text: impl Into<String>) -> Step {
        if let Step::Done { notes, .. } = &mut self {
            notes.push((kind, text.into()));
        }
        self
    }

    /// As what a command returns.
    #[must_use]
    pub fn ready(self) -> NextStep {
        Box::pin(std::future::ready(Ok(self)))
    }
}

/// A command of one form, or none.
pub struct Simple {
    /// See [`Command::node`].
    pub node: &'static str,
    /// See [`Command::name`].
    pub name: &'static str,
    /// The form to fill out; without one it acts at once.
    pub form: Option<fn() -> Form>,
    /// Acts.
    pub act: fn(Call, Answers) -> NextStep,
}

impl Command for Simple {
    fn node(&self) -> &'static str {
        self.node
    }

    fn name(&self) -> &'static str {
        self.name
    }

    fn next(&self, mut call: Call) -> NextStep {
        match (self.form, call.answers.pop()) {
            (Some(form), None) => Step::ask(form()).ready(),
            (_, answers) => (self.act)(call, answers.unwrap_or_default()),
        }
    }
}
