//! The accounts of the domain that are disabled (§4.19), in the order of their names.

use althing_proto::form::{Answers, Form};

use super::{Call, failed, form, listed, max_items, most_listed};
use crate::modules::commands::command::{NextStep, Simple};

pub(super) const COMMAND: Simple = Simple {
    node: "http://jabber.org/protocol/admin#get-disabled-users-list",
    name: "Get List of Disabled Users",
    form: Some(ask),
    act,
};

fn ask() -> Form {
    form(
        "Requesting List of Disabled Users",
        "Fill out this form to request the disabled users of this service.",
    )
    .with(max_items())
}

fn act(call: Call, answers: Answers) -> NextStep {
    Box::pin(async move {
        // One more than is shown, to know whether there are more.
        let most = most_listed(&answers) + 1;
        let users = call.node.storage.accounts.list_disabled(call.domain.as_str(), None, most).await;
        let users = users.map_err(|error| failed(&error))?.iter().map(ToString::to_string).collect();
        Ok(listed(&call.node, &answers, "disableduserjids", "The list of all disabled users", users))
    })
}
