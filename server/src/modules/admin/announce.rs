//! Sends a message to every session of the domain on every node, each once (§4.23; C10).

use bytes::Bytes;

use althing_cluster::task::{BroadcastLocal, TaskReply};
use althing_proto::form::{Answers, Field, Form};
use althing_proto::jid::Jid;
use althing_proto::ns;
use althing_proto::stanza::{Kind, MessageType, Stanza, StanzaCondition, StanzaError};
use althing_proto::xml::build::BuilderExt;
use althing_proto::xml::{Element, name};

use super::{Call, PATIENCE, Step, form};
use crate::modules::commands::command::{NextStep, NoteKind, Simple};

pub(super) const COMMAND: Simple = Simple {
    node: "http://jabber.org/protocol/admin#announce",
    name: "Send Announcement to Online Users",
    form: Some(ask),
    act,
};

fn ask() -> Form {
    form(
        "Making an Announcement",
        "Fill out this form to make an announcement to all active users of this service.",
    )
    .with(Field::lines("announcement").labelled("Announcement").required())
}

fn act(call: Call, answers: Answers) -> NextStep {
    Box::pin(async move {
        let Call { node, domain, .. } = call;
        let message = Element::builder("message", ns::CLIENT)
            .set(name!("type"), MessageType::Headline.name())
            .append(Element::builder("subject", ns::CLIENT).append("Announcement"))
            .append(Element::builder("body", ns::CLIENT).append(answers.text("announcement")))
            .build();
        let from = Jid::from_parts(None, &domain, None);
        let stanza = Stanza::from_parts(Kind::Message(MessageType::Headline), Some(from), None, message);
        // A task acts on the sessions of its own node and is never passed on: no loop.
        let task = BroadcastLocal { xml: Bytes::from(stanza.to_standalone()) }.into();
        let replies = node.links.ask_all(&task, PATIENCE).await;
        let (mut sessions, mut silent) = (0, 0);
        for (member, reply) in replies {
            match reply {
                Ok(TaskReply::BroadcastLocal(count)) => sessions += count,
                Ok(_) => silent += 1,
                Err(error) => {
                    tracing::warn!(%member, %error, "an announcement may not have reached a node");
                    silent += 1;
                }
            }
        }
        if sessions == 0 && silent > 0 {
            return Err(StanzaError::new(StanzaCondition::InternalServerError, "no node has answered"));
        }
        let step = Step::done().note(NoteKind::Info, format!("sent to {sessions} sessions"));
        Ok(match silent {
            0 => step,
            _ => step.note(NoteKind::Warn, format!("{silent} nodes have not answered")),
        })
    })
}
