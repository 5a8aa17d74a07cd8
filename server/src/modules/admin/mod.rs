//! XEP-0133: Service Administration. Accounts, sessions and announcements, by ad-hoc commands of administrators. All act on
//! the whole cluster.
//!
//! Not here: lists of servers (there are no other servers), messages
//! of the day and of welcome, the list of administrators (it is the configuration's), idle and active users (nobody notes
//! them), restart and shutdown (the operator's).

mod add_user;
mod announce;
mod change_user_password;
mod delete_user;
mod disable_user;
mod disabled_users_list;
mod disabled_users_num;
mod end_user_session;
mod online_users_list;
mod online_users_num;
mod reenable_user;
mod registered_users_list;
mod registered_users_num;
mod user_lastlogin;
mod user_roster;
mod user_stats;

use std::collections::BTreeSet;
use std::time::Duration;

use althing_cluster::task::{DescribeSession, SessionInfo, TaskReply};
use althing_proto::form::{Answers, Field, Form};
use althing_proto::jid::{BareJid, FullJid};
use althing_proto::stanza::{StanzaCondition, StanzaError};

use super::commands::command::{Call, Command, NoteKind, Step};
use super::commands::is_account;
use super::{Module, Spec};
use crate::node::NodeContext;
use crate::storage::{Account, StorageError};

/// The module.
pub(super) const MODULE: Admin = Admin;

const SPEC: Spec =
    Spec { name: "admin", document: "XEP-0133", version: "1.3.1", title: "Service Administration" };

/// The FORM_TYPE of all forms here.
const FORM_TYPE: &str = "http://jabber.org/protocol/admin";

/// Its commands, as they are listed.
const COMMANDS: &[&dyn Command] = &[
    &add_user::COMMAND,
    &delete_user::COMMAND,
    &disable_user::COMMAND,
    &reenable_user::COMMAND,
    &change_user_password::COMMAND,
    &end_user_session::COMMAND,
    &user_roster::COMMAND,
    &user_lastlogin::COMMAND,
    &user_stats::COMMAND,
    &registered_users_num::COMMAND,
    &disabled_users_num::COMMAND,
    &registered_users_list::COMMAND,
    &disabled_users_list::COMMAND,
    &online_users_num::COMMAND,
    &online_users_list::COMMAND,
    &announce::COMMAND,
];

/// Most addresses in one form.
const MOST_ADDRESSES: usize = 100;

/// Most users in one list, whatever was asked for.
const MOST_LISTED: usize = 5_000;

/// How long another node may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct Admin;

impl Module for Admin {
    fn spec(&self) -> Spec {
        SPEC
    }

    fn commands(&self) -> &'static [&'static dyn Command] {
        COMMANDS
    }
}

/// A form of these commands.
fn form(title: &str, instructions: &str) -> Form {
    Form::ask(title).instruct(instructions).typed(FORM_TYPE)
}

/// A result of these commands.
fn result() -> Form {
    Form::result().typed(FORM_TYPE)
}

fn account_field(label: &str) -> Field {
    Field::jid("accountjid").labelled(label).required()
}

fn accounts_field(label: &str) -> Field {
    Field::jids("accountjids").labelled(label).required()
}

fn not_acceptable(text: impl Into<String>) -> StanzaError {
    StanzaError::new(StanzaCondition::NotAcceptable, text)
}

/// The accounts in a field; all must be of this server.
fn accounts(call: &Call, answers: &Answers, var: &str) -> Result<Vec<BareJid>, StanzaError> {
    let jids = answers.jids(var);
    if jids.len() > MOST_ADDRESSES {
        return Err(not_acceptable(format!("at most {MOST_ADDRESSES} addresses at a time")));
    }
    let account = |jid: althing_proto::jid::Jid| match is_account(&call.node, &jid) {
        true => Ok(jid.into_bare()),
        false => Err(not_acceptable(format!("{jid} is no account of this server"))),
    };
    jids.into_iter().map(account).collect()
}

/// The one account in a field.
fn account(call: &Call, answers: &Answers, var: &str) -> Result<BareJid, StanzaError> {
    accounts(call, answers, var)?.pop().ok_or_else(|| not_acceptable("an account is needed"))
}

pub(super) fn failed(error: &StorageError) -> StanzaError {
    tracing::warn!(%error, "an administrator's command met the store");
    StanzaError::new(StanzaCondition::InternalServerError, "the store did not answer: try again")
}

/// The account's rows, or that there is no such account.
async fn known(node: &NodeContext, user: &BareJid) -> Result<Account, StanzaError> {
    let account = node.storage.accounts.get(user).await.map_err(|error| failed(&error))?;
    account.ok_or_else(|| StanzaError::new(StanzaCondition::ItemNotFound, format!("{user} has no account")))
}

/// The sessions of an account on all nodes, each with what its node says of it; `None` where that does not answer.
async fn sessions(node: &NodeContext, user: &BareJid) -> Vec<(FullJid, Option<SessionInfo>)> {
    let mut routes = Vec::new();
    node.routes.visit_account(user, &mut |jid, route| routes.push((jid.clone(), route.node)));
    let asked = routes.into_iter().map(async |(jid, owner)| {
        let task = DescribeSession { jid: jid.clone() };
        match node.links.ask(owner, task.into(), PATIENCE).await {
            Ok(TaskReply::DescribeSession(info)) => (jid, info),
            _ => (jid, None),
        }
    });
    futures_util::future::join_all(asked).await
}

/// The field of XEP-0133 for how many are to be listed.
fn max_items() -> Field {
    let field = Field::list("max_items").labelled("Maximum number of items to show").value("25");
    let numbers = ["25", "50", "75", "100", "150", "200"];
    let field = numbers.into_iter().fold(field, |field, number| field.option(Some(number), number));
    field.option(Some("None"), "none")
}

/// A list of users, cut where it is longer than was asked for, or than a stanza should be.
fn listed(answers: &Answers, var: &str, label: &str, users: BTreeSet<String>) -> Step {
    let most = most_listed(answers);
    let cut = users.len() > most;
    let field = Field::jids(var).labelled(label).all(users.into_iter().take(most));
    let step = Step::tell(result().with(field));
    if cut { step.note(NoteKind::Info, format!("there are more; these are the first {most}")) } else { step }
}

fn most_listed(answers: &Answers) -> usize {
    let asked = answers.get("max_items").and_then(|number| number.parse().ok());
    asked.unwrap_or(MOST_LISTED).min(MOST_LISTED)
}

/// The bare addresses of the domain's users with a session, on all nodes. The table is copied by its shards and walked
/// aside, so that neither binds nor other sessions wait.
async fn online(call: &Call) -> Result<BTreeSet<String>, StanzaError> {
    let (table, domain) = (call.node.routes.table(), call.domain.clone());
    let walk = move || {
        let here = table.routes().filter(|(jid, _)| jid.domain() == &*domain);
        here.map(|(jid, _)| jid.to_bare().to_string()).collect()
    };
    let walked = tokio::task::spawn_blocking(walk).await;
    walked.map_err(|_| StanzaCondition::InternalServerError.into())
}
