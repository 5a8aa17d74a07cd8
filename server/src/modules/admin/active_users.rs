//! Which users of the domain with sessions are active, and which idle, on all nodes: how many (§4.16, §4.17), and who
//! (§4.21, §4.22). Active is who has logged in or sent a message or presence in the last ten minutes, by a client that
//! does not say that nobody looks at it (XEP-0352).

use std::collections::BTreeSet;

use althing_proto::form::{Answers, Field, Form};
use althing_proto::stanza::{StanzaCondition, StanzaError};

use super::{Call, Step, form, listed, max_items, result};
use crate::delivery::usage::usage;
use crate::modules::commands::command::{NextStep, NoteKind, Simple};

pub(super) const ACTIVE_NUM: Simple = Simple {
    node: "http://jabber.org/protocol/admin#get-active-users-num",
    name: "Get Number of Active Users",
    form: None,
    act: |call, _| count(call, true, "activeusersnum", "The number of active users"),
};

pub(super) const IDLE_NUM: Simple = Simple {
    node: "http://jabber.org/protocol/admin#get-idle-users-num",
    name: "Get Number of Idle Users",
    form: None,
    act: |call, _| count(call, false, "idleusersnum", "The number of idle users"),
};

pub(super) const ACTIVE: Simple = Simple {
    node: "http://jabber.org/protocol/admin#get-active-users",
    name: "Get List of Active Users",
    form: Some(|| ask("Requesting List of Active Users", "active")),
    act: |call, answers| list(call, answers, true, "The list of active users"),
};

// The field has the same name in both: so the registry of XEP-0133 has it, and the examples.
pub(super) const IDLE: Simple = Simple {
    node: "http://jabber.org/protocol/admin#get-idle-users",
    name: "Get List of Idle Users",
    form: Some(|| ask("Requesting List of Idle Users", "idle")),
    act: |call, answers| list(call, answers, false, "The list of idle users"),
};

fn ask(title: &str, which: &str) -> Form {
    form(title, &format!("Fill out this form to request the {which} users of this service."))
        .with(max_items())
}

fn count(call: Call, active: bool, var: &'static str, label: &'static str) -> NextStep {
    Box::pin(async move {
        let (users, silent) = users(&call, active).await?;
        let field = Field::text(var).labelled(label).value(users.len().to_string());
        Ok(told(Step::tell(result().with(field)), silent))
    })
}

fn list(call: Call, answers: Answers, active: bool, label: &'static str) -> NextStep {
    Box::pin(async move {
        let (users, silent) = users(&call, active).await?;
        Ok(told(listed(&call.node, &answers, "activeuserjids", label, users), silent))
    })
}

/// Those who are active, or those who are not; with how many nodes have not answered.
async fn users(call: &Call, active: bool) -> Result<(BTreeSet<String>, usize), StanzaError> {
    let usage = usage(&call.node, call.domain.as_str()).await;
    let usage = usage.map_err(|_| StanzaError::from(StanzaCondition::InternalServerError))?;
    let of_those = usage.users.into_iter().filter(|(_, used)| *used == active);
    Ok((of_those.map(|(user, _)| user).collect(), usage.silent))
}

fn told(step: Step, silent: usize) -> Step {
    match silent {
        0 => step,
        nodes => {
            step.note(NoteKind::Warn, format!("{nodes} nodes did not answer; their users count as idle"))
        }
    }
}
