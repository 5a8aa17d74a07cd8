//! Ends sessions: one by its full address, all of an account by its bare one, on whatever nodes (§4.5).

use althing_proto::form::{Answers, Form};

use super::{Call, MOST_ADDRESSES, Step, accounts_field, form, not_acceptable};
use crate::modules::commands::command::{NextStep, NoteKind, Simple};
use crate::session::ending::{self, Ending};

pub(super) const COMMAND: Simple = Simple {
    node: "http://jabber.org/protocol/admin#end-user-session",
    name: "End User Session",
    form: Some(ask),
    act,
};

fn ask() -> Form {
    form("Ending a User Session", "Fill out this form to end a user's session.")
        .with(accounts_field("The Jabber ID(s) for which to end sessions"))
}

fn act(call: Call, answers: Answers) -> NextStep {
    Box::pin(async move {
        let jids = answers.jids("accountjids");
        if jids.len() > MOST_ADDRESSES {
            return Err(not_acceptable(format!("at most {MOST_ADDRESSES} addresses at a time")));
        }
        let mut step = Step::done();
        for jid in jids {
            let ended = match jid.try_as_full() {
                Ok(full) => ending::end_session(&call.node, full, Ending::Administrator).await,
                Err(bare) => ending::end_account(&call.node, bare, Ending::Administrator).await,
            };
            tracing::info!(%jid, sessions = ended, "sessions ended by an administrator");
            if ended == 0 {
                step = step.note(NoteKind::Warn, format!("{jid} had no session"));
            }
        }
        Ok(step)
    })
}
