//! The users of the domain that have sessions, on all nodes, in the order of their names (§4.20).

use althing_proto::form::{Answers, Form};

use super::{Call, form, listed, max_items, online};
use crate::modules::commands::command::{NextStep, Simple};

pub(super) const COMMAND: Simple = Simple {
    node: "http://jabber.org/protocol/admin#get-online-users-list",
    name: "Get List of Online Users",
    form: Some(ask),
    act,
};

fn ask() -> Form {
    form("Requesting List of Online Users", "Fill out this form to request the online users of this service.")
        .with(max_items())
}

fn act(call: Call, answers: Answers) -> NextStep {
    Box::pin(async move {
        let users = online(&call).await?;
        Ok(listed(&call.node, &answers, "onlineuserjids", "The list of all online users", users))
    })
}
