//! Deletes accounts with all that they own, and ends their sessions (§4.2).

use althing_proto::form::{Answers, Form};

use super::{Call, Step, accounts, accounts_field, failed, form};
use crate::modules::commands::command::{NextStep, NoteKind, Simple};
use crate::modules::remove_account;

pub(super) const COMMAND: Simple = Simple {
    node: "http://jabber.org/protocol/admin#delete-user",
    name: "Delete User",
    form: Some(ask),
    act,
};

fn ask() -> Form {
    form("Deleting a User", "Fill out this form to delete a user.")
        .with(accounts_field("The Jabber ID(s) to delete"))
}

fn act(call: Call, answers: Answers) -> NextStep {
    Box::pin(async move {
        let mut step = Step::done();
        for user in accounts(&call, &answers, "accountjids")? {
            if remove_account(&call.node, &user).await.map_err(|error| failed(&error))? {
                tracing::info!(jid = %user, "account deleted by an administrator");
            } else {
                step = step.note(NoteKind::Warn, format!("{user} had no account"));
            }
        }
        Ok(step)
    })
}
