//! XEP-0050: Ad-Hoc Commands. Commands of the server: which there are, who may run them, their stages. A module brings its
//! own by [`Module::commands`]; `command.rs` says what one is.

pub mod command;
mod request;
mod sessions;

use std::sync::Arc;

use minidom::Element;

use althing_proto::disco::{Identity, Info, Item};
use althing_proto::form::{Answers, Form, FormKind};
use althing_proto::jid::Jid;
use althing_proto::ns;
use althing_proto::stanza::{Stanza, StanzaCondition, StanzaError};

use self::command::{Call, Command, Step};
use self::request::{Action, Request, Specific, answer, canceled, forbidden, refused};
use self::sessions::{NoSession, Waiting};
use super::{Discovered, Feature, Module, Spec, is_info};
use crate::node::NodeContext;
use crate::pipeline::{At, Effects, Interest, Outcome, Packet, Pass, View, refusal};
use crate::session::effect::Effect;

pub use sessions::CommandSessions;

/// The module.
pub(super) const MODULE: Commands = Commands;

const SPEC: Spec =
    Spec { name: "commands", document: "XEP-0050", version: "1.3.0", title: "Ad-Hoc Commands" };

pub(super) struct Commands;

impl Module for Commands {
    fn spec(&self) -> Spec {
        SPEC
    }

    fn interests(&self) -> &'static [Interest] {
        const { &[Interest::iq_set(ns::COMMANDS, At::SERVER)] }
    }

    fn features(&self, _: &View<'_>) -> Vec<Feature> {
        [ns::COMMANDS, ns::DATA_FORMS].map(|var| Feature { var, at: At::SERVER }).into()
    }

    /// §2.2: the list of those that the asker may run, and one of them.
    fn discover(&self, packet: &Packet, node: &str, view: &View<'_>) -> Option<Discovered> {
        let (Pass::Server, Some(asker), Some(server)) =
            (&packet.pass, packet.stanza.from(), packet.stanza.to())
        else {
            return None;
        };
        if node == ns::COMMANDS {
            if is_info(packet) {
                let identity = Identity::new("automation", "command-list").named("Commands");
                return Some(Discovered::Info(Info { identities: vec![identity], ..Info::default() }));
            }
            let may = all(view.node).filter(|command| command.may(view.node, asker));
            let item =
                |command: &dyn Command| Item::node(server.clone(), command.node(), Some(command.name()));
            return Some(Discovered::Items(may.map(item).collect()));
        }
        let command = find(view.node, node)?;
        if !command.may(view.node, asker) {
            return Some(Discovered::Refused(forbidden()));
        }
        let info = Info {
            identities: vec![Identity::new("automation", "command-node").named(command.name())],
            features: [ns::COMMANDS, ns::DATA_FORMS].map(str::to_owned).into(),
            forms: Vec::new(),
        };
        Some(Discovered::leaf(packet, info))
    }

    /// Aside, and all of it: of one asker one request after the other, so that each finds the session as the one before
    /// it has left it.
    fn process(&self, packet: &Packet, view: &View<'_>) -> Outcome {
        let (node, packet) = (Arc::clone(view.node), packet.clone());
        Outcome::aside(async move {
            match begin(&node, &packet.stanza) {
                Ok(Next::Run(stage)) => run(&packet.stanza, stage).await,
                Ok(Next::Tell(element)) => vec![Effect::Route(packet.stanza.result(Some(element)))],
                Err(error) => refusal(&packet, error),
            }
        })
    }
}

fn all(node: &NodeContext) -> impl Iterator<Item = &'static dyn Command> + '_ {
    node.modules.modules().flat_map(|module| module.commands().iter().copied())
}

fn find(node: &NodeContext, name: &str) -> Option<&'static dyn Command> {
    all(node).find(|command| command.node() == name)
}

/// A stage on its way: what is to be called, and where the session goes back to if that fails.
struct Stage {
    command: &'static dyn Command,
    session: String,
    call: Call,
    before: Option<Waiting>,
}

/// What a request comes to.
enum Next {
    Run(Stage),
    Tell(Element),
}

/// What a request asks for. Errors leave the session as it was.
fn begin(node: &Arc<NodeContext>, asked: &Stanza) -> Result<Next, StanzaError> {
    let payload = asked.payload().ok_or(StanzaCondition::BadRequest)?;
    let request = Request::parse(payload)?;
    let (Some(asker), Some(domain)) = (asked.from(), asked.to().map(|to| to.domain().to_owned())) else {
        return Err(StanzaCondition::BadRequest.into());
    };
    let command = find(node, request.node).ok_or(StanzaCondition::ItemNotFound)?;
    if !command.may(node, asker) {
        return Err(forbidden());
    }
    let call =
        |answers| Call { node: Arc::clone(node), asker: asker.clone(), domain: domain.clone(), answers };
    let Some(session) = request.session else {
        if request.action != Action::Execute {
            return Err(refused(Specific::BadAction, "there is no session yet"));
        }
        let session = node.commands.id(asker).ok_or(StanzaCondition::InternalServerError)?;
        tracing::info!(jid = %asker, command = command.node(), "command begun");
        return Ok(Next::Run(Stage { command, session, call: call(Vec::new()), before: None }));
    };
    let now = node.now();
    let waiting = node.commands.take(session, asker, now).map_err(|error| match error {
        NoSession::Expired => refused(Specific::SessionExpired, "the session has ended"),
        NoSession::Unknown => refused(Specific::BadSessionId, "there is no such session"),
    })?;
    match go_on(&request, &waiting) {
        Ok(None) => Ok(Next::Tell(canceled(request.node, session))),
        Ok(Some(answers)) => {
            let (session, call) = (session.to_owned(), call(answers));
            Ok(Next::Run(Stage { command, session, call, before: Some(waiting) }))
        }
        Err(error) => {
            node.commands.put(session.to_owned(), asker, waiting, now);
            Err(error)
        }
    }
}

/// PURE: the answers with which a command goes on; `None` where it is canceled.
fn go_on(request: &Request<'_>, waiting: &Waiting) -> Result<Option<Vec<Answers>>, StanzaError> {
    if waiting.command != request.node {
        return Err(refused(Specific::BadSessionId, "the session is of another command"));
    }
    let mut answers = waiting.answers.clone();
    let onward = match request.action {
        Action::Cancel => return Ok(None),
        Action::Execute => true,
        Action::Next => !waiting.last,
        Action::Complete => waiting.last,
        Action::Prev => {
            let back = answers.pop().map(|_| answers);
            let error = || refused(Specific::BadAction, "there is no stage before this one");
            return back.map(Some).ok_or_else(error);
        }
    };
    if !onward {
        return Err(refused(Specific::BadAction, "that action is not offered at this stage"));
    }
    let form = request.form()?;
    if form.kind == FormKind::Cancel {
        // XEP-0004 §3.1: the form is declined.
        return Ok(None);
    }
    answers.push(read(&waiting.asked, &form)?);
    Ok(Some(answers))
}

fn read(asked: &Form, given: &Form) -> Result<Answers, StanzaError> {
    asked.read(given).map_err(|error| refused(Specific::BadPayload, error.to_string()))
}

async fn run(asked: &Stanza, stage: Stage) -> Effects {
    let Stage { command, session, call, before } = stage;
    let (node, asker, answers) = (Arc::clone(&call.node), call.asker.clone(), call.answers.clone());
    let keep = |waiting| node.commands.put(session.clone(), &asker, waiting, node.now());
    let told = |step: &Step| asked.result(Some(answer(command.node(), &session, answers.len(), step)));
    let done = match command.next(call).await {
        Ok(step) => {
            if let Step::Ask { form, last } = &step {
                let (asked, answers) = (form.clone(), answers.clone());
                let waiting = Waiting { command: command.node(), answers, asked, last: *last };
                if keep(waiting) {
                    Ok(told(&step))
                } else {
                    let text = "too many commands are under way on this server";
                    Err(StanzaError::new(StanzaCondition::ResourceConstraint, text))
                }
            } else {
                tracing::info!(jid = %asker, command = command.node(), "command done");
                Ok(told(&step))
            }
        }
        Err(error) => {
            if let Some(before) = before {
                keep(before);
            }
            Err(error)
        }
    };
    let stanza = done.map_or_else(|error| asked.error(error), Some);
    stanza.map(Effect::Route).into_iter().collect()
}

/// Whether an address is an account of a domain that is served here.
pub(super) fn is_account(node: &NodeContext, jid: &Jid) -> bool {
    jid.node().is_some() && jid.resource().is_none() && node.serves(jid.domain().as_str())
}

#[cfg(test)]
mod tests;
