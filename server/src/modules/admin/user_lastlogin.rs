//! When users logged in last (§4.9), of those that are online: nothing is kept of others.

use althing_proto::form::{Answers, Field, Form};

use super::{Call, Step, accounts, accounts_field, form, known, result, sessions};
use crate::modules::commands::command::{NextStep, NoteKind, Simple};

pub(super) const COMMAND: Simple = Simple {
    node: "http://jabber.org/protocol/admin#get-user-lastlogin",
    name: "Get User Last Login Time",
    form: Some(ask),
    act,
};

fn ask() -> Form {
    form("Getting a User's Last Login Time", "Fill out this form to get a user's last login time.")
        .with(accounts_field("The Jabber ID(s) for which to retrieve the last login time"))
}

fn act(call: Call, answers: Answers) -> NextStep {
    Box::pin(async move {
        let (mut payload, mut away) = (Vec::new(), Vec::new());
        for user in accounts(&call, &answers, "accountjids")? {
            known(&call.node, &user).await?;
            let begun =
                sessions(&call.node, &user).await.into_iter().filter_map(|(_, info)| Some(info?.since));
            let Some(last) = begun.max() else {
                away.push(format!("{user} is not online"));
                continue;
            };
            let form = result()
                .with(Field::jids("accountjids").value(user.as_str()))
                .with(Field::text("lastlogin").value(last.to_xep0082()));
            payload.push(form.to_element());
        }
        let notes = away.into_iter().map(|text| (NoteKind::Info, text)).collect();
        Ok(Step::Done { payload, notes })
    })
}
