//! Disables accounts: their sessions end on all nodes, and nobody logs in until they are enabled again (§4.3). All that
//! they own stays.

use althing_proto::form::{Answers, Form};

use super::{Call, Step, accounts, accounts_field, failed, form};
use crate::auth::disable_account;
use crate::modules::commands::command::{NextStep, NoteKind, Simple};

pub(super) const COMMAND: Simple = Simple {
    node: "http://jabber.org/protocol/admin#disable-user",
    name: "Disable User",
    form: Some(ask),
    act,
};

fn ask() -> Form {
    form("Disabling a User", "Fill out this form to disable a user.")
        .with(accounts_field("The Jabber ID(s) to disable"))
}

fn act(call: Call, answers: Answers) -> NextStep {
    Box::pin(async move {
        let mut step = Step::done();
        for user in accounts(&call, &answers, "accountjids")? {
            match disable_account(&call.node, &user).await.map_err(|error| failed(&error))? {
                Some(sessions) => {
                    tracing::info!(jid = %user, sessions, "account disabled by an administrator")
                }
                None => step = step.note(NoteKind::Warn, format!("{user} has no account")),
            }
        }
        Ok(step)
    })
}
