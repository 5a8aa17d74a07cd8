//! Shows the rosters of accounts (§4.8): a form an account, with its roster inside. What would not go into one answer is
//! named instead.

use althing_proto::form::{Answers, Field, Form};
use althing_proto::ns;
use althing_proto::xml::Element;

use super::{
    Call, Step, accounts, accounts_field, failed, form, known, not_acceptable, result, room, size_of,
};
use crate::modules::commands::command::{NextStep, NoteKind, Simple};
use crate::modules::roster::item_element;

/// Most rosters in one answer: each may be large.
const MOST: usize = 10;

pub(super) const COMMAND: Simple = Simple {
    node: "http://jabber.org/protocol/admin#get-user-roster",
    name: "Get User Roster",
    form: Some(ask),
    act,
};

fn ask() -> Form {
    form("Getting a User's Roster", "Fill out this form to get a user's roster.")
        .with(accounts_field("The Jabber ID(s) for which to retrieve the roster"))
}

fn act(call: Call, answers: Answers) -> NextStep {
    Box::pin(async move {
        let users = accounts(&call, &answers, "accountjids")?;
        if users.len() > MOST {
            return Err(not_acceptable(format!("at most {MOST} rosters at a time")));
        }
        let (mut payload, mut notes) = (Vec::new(), Vec::new());
        let mut room = room(&call.node);
        for user in users {
            known(&call.node, &user).await?;
            let roster = call.node.storage.rosters.load(&user).await.map_err(|error| failed(&error))?;
            let items = roster.items.iter().filter(|item| item.listed).map(item_element);
            let mut form = result().with(Field::jids("accountjids").value(user.as_str())).to_element();
            form.append_child(Element::builder("query", ns::ROSTER).append_all(items).build());
            let size = size_of(&form);
            if size > room {
                let text =
                    format!("the roster of {user} is not shown: with it the answer would be too large");
                notes.push((NoteKind::Warn, text));
                continue;
            }
            room -= size;
            payload.push(form);
        }
        Ok(Step::Done { payload, notes })
    })
}
