//! Addresses, resources and roster of a user (§4.10).

use althing_proto::form::{Answers, Field, FieldKind, Form};

use super::{Call, Step, account, account_field, failed, form, known, result, sessions};
use crate::modules::commands::command::{NextStep, NoteKind, Simple};

pub(super) const COMMAND: Simple = Simple {
    node: "http://jabber.org/protocol/admin#user-stats",
    name: "Get User Statistics",
    form: Some(ask),
    act,
};

fn ask() -> Form {
    form("Get User Statistics", "Fill out this form to gather user statistics.")
        .with(account_field("The Jabber ID for statistics"))
}

fn act(call: Call, answers: Answers) -> NextStep {
    Box::pin(async move {
        let user = account(&call, &answers, "accountjid")?;
        known(&call.node, &user).await?;
        let roster = call.node.storage.rosters.load(&user).await.map_err(|error| failed(&error))?;
        let size = roster.items.iter().filter(|item| item.listed).count();
        let sessions = sessions(&call.node, &user).await;
        let addresses = sessions.iter().filter_map(|(_, info)| info.as_ref()?.address.clone());
        let resources = sessions.iter().map(|(jid, _)| jid.resource().to_string());
        let several = |var: &str| Field::new(FieldKind::TextMulti, var);
        let form = result()
            .with(several("ipaddresses").labelled("IP addresses").all(addresses))
            .with(Field::text("rostersize").labelled("Roster size").value(size.to_string()))
            .with(several("onlineresources").labelled("Online resources").all(resources));
        let silent = sessions.iter().filter(|(_, info)| info.is_none()).count();
        let step = Step::tell(form);
        Ok(match silent {
            0 => step,
            _ => step.note(NoteKind::Warn, format!("{silent} sessions did not answer")),
        })
    })
}
