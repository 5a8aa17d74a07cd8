//! XEP-0133: Service Administration. Accounts, sessions and announcements, by ad-hoc commands of administrators. All act on
//! the whole cluster.
//!
//! Not here: lists of servers (there are no other servers), messages
//! of the day and of welcome, the list of administrators (it is the configuration's), restart and shutdown (the operator's).

mod accounts_num;
mod active_users;
mod add_user;
mod announce;
mod change_user_password;
mod delete_user;
mod disable_user;
mod disabled_users_list;
mod end_user_session;
mod online_users_list;
mod online_users_num;
mod reenable_user;
mod registered_users_list;
mod user_lastlogin;
mod user_roster;
mod user_stats;

use std::collections::BTreeSet;
use std::time::Duration;

use althing_cluster::task::{DescribeSession, SessionInfo, TaskReply};
use althing_proto::form::{Answers, Field, Form};
use althing_proto::jid::{BareJid, FullJid};
use althing_proto::ns;
use althing_proto::stanza::{StanzaCondition, StanzaError};
use althing_proto::xml::Element;
use althing_proto::xml::writer::write_element;

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
    &accounts_num::REGISTERED,
    &accounts_num::DISABLED,
    &registered_users_list::COMMAND,
    &disabled_users_list::COMMAND,
    &online_users_num::COMMAND,
    &online_users_list::COMMAND,
    &active_users::ACTIVE_NUM,
    &active_users::IDLE_NUM,
    &active_users::ACTIVE,
    &active_users::IDLE,
    &announce::COMMAND,
];

/// Most addresses in one form.
const MOST_ADDRESSES: usize = 100;

/// Most users in one list, whatever was asked for.
const MOST_LISTED: usize = 5_000;

/// What a value of a field takes beside its text: `<value></value>`.
const VALUE_BYTES: usize = 15;

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

/// How many bytes an answer may have, so that it does not end the asker's own stream: others wait there too.
fn room(node: &NodeContext) -> usize {
    node.config().limits.outbox_bytes / 2
}

/// The bytes of an element as it is written.
fn size_of(element: &Element) -> usize {
    let mut bytes = Vec::new();
    write_element(element, ns::CLIENT, &mut bytes);
    bytes.len()
}

/// A list of users, cut where it is longer than was asked for, or than a stanza may be.
fn listed(node: &NodeContext, answers: &Answers, var: &str, label: &str, users: BTreeSet<String>) -> Step {
    let (mut left, mut most) = (room(node), 0);
    for user in users.iter().take(most_listed(answers)) {
        match left.checked_sub(user.len() + VALUE_BYTES) {
            Some(rest) => (left, most) = (rest, most + 1),
            None => break,
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A long list is cut before it ends the stream of whoever asked.
    #[tokio::test]
    async fn a_list_is_cut_where_the_asker_could_not_be_sent_it() {
        let node = NodeContext::for_tests();
        let all = || (0..100).map(|number| format!("{number:02}{}@localhost", "x".repeat(989))).collect();
        let answers = Answers::default();
        for (bytes, expected) in [(1 << 20, 100), (65_536, 32)] {
            node.configure(|config| config.limits.outbox_bytes = bytes);
            let Step::Done { payload, notes } = listed(&node, &answers, "users", "All", all()) else {
                panic!("more is asked")
            };
            let shown: usize = payload
                .iter()
                .flat_map(Element::children)
                .map(|field| {
                    field
                        .children()
                        .filter(|value| value.name() == "value" && value.text().len() > 100)
                        .count()
                })
                .sum();
            assert_eq!((shown, notes.is_empty()), (expected, expected == 100));
            assert!(payload.iter().map(size_of).sum::<usize>() < bytes);
        }
    }
}
