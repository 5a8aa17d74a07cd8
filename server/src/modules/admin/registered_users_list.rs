//! The accounts of the domain (§4.18), in the order of their names.

use althing_proto::form::{Answers, Form};

use super::{Call, failed, form, listed, max_items, most_listed};
use crate::modules::commands::command::{NextStep, Simple};

pub(super) const COMMAND: Simple = Simple {
    node: "http://jabber.org/protocol/admin#get-registered-users-list",
    name: "Get List of Registered Users",
    form: Some(ask),
    act,
};

fn ask() -> Form {
    form(
        "Requesting List of Registered Users",
        "Fill out this form to request the registered users of this service.",
    )
    .with(max_items())
}

fn act(call: Call, answers: Answers) -> NextStep {
    Box::pin(async move {
        // One more than is shown, to know whether there are more.
        let most = most_listed(&answers) + 1;
        let users = call.node.storage.accounts.list(call.domain.as_str(), None, most).await;
        let users = users.map_err(|error| failed(&error))?.iter().map(ToString::to_string).collect();
        Ok(listed(&call.node, &answers, "registereduserjids", "The list of all users", users))
    })
}
