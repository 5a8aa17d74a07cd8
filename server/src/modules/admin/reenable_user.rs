//! Lets the users of disabled accounts log in again (§4.4).

use althing_proto::form::{Answers, Form};

use super::{Call, Step, accounts, accounts_field, failed, form};
use crate::auth::enable_account;
use crate::modules::commands::command::{NextStep, NoteKind, Simple};

pub(super) const COMMAND: Simple = Simple {
    node: "http://jabber.org/protocol/admin#reenable-user",
    name: "Re-Enable User",
    form: Some(ask),
    act,
};

fn ask() -> Form {
    form("Re-Enable a User", "Fill out this form to re-enable a user.")
        .with(accounts_field("The Jabber ID(s) to re-enable"))
}

fn act(call: Call, answers: Answers) -> NextStep {
    Box::pin(async move {
        let mut step = Step::done();
        for user in accounts(&call, &answers, "accountjids")? {
            match enable_account(&call.node, &user).await.map_err(|error| failed(&error))? {
                true => tracing::info!(jid = %user, "account enabled by an administrator"),
                false => step = step.note(NoteKind::Warn, format!("{user} has no account")),
            }
        }
        Ok(step)
    })
}
