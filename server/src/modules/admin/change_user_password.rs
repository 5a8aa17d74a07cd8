//! Changes the password of an account (§4.7).

use althing_proto::form::{Answers, Field, Form};
use althing_proto::sasl::Secret;
use althing_proto::stanza::{StanzaCondition, StanzaError};

use super::{Call, Step, account, account_field, form, not_acceptable};
use crate::auth::{CreateError, set_password};
use crate::modules::commands::command::{NextStep, Simple};

pub(super) const COMMAND: Simple = Simple {
    node: "http://jabber.org/protocol/admin#change-user-password",
    name: "Change User Password",
    form: Some(ask),
    act,
};

fn ask() -> Form {
    form("Changing a User Password", "Fill out this form to change a user's password.")
        .with(account_field("The Jabber ID for this account"))
        .with(Field::secret("password").labelled("The new password for this account").required())
}

fn act(call: Call, answers: Answers) -> NextStep {
    Box::pin(async move {
        let user = account(&call, &answers, "accountjid")?;
        let password = Secret::new(answers.get("password").unwrap_or_default());
        match set_password(&call.node, &user, password).await {
            Ok(true) => {
                tracing::info!(jid = %user, "password changed by an administrator");
                Ok(Step::done())
            }
            Ok(false) => {
                Err(StanzaError::new(StanzaCondition::ItemNotFound, format!("{user} has no account")))
            }
            Err(error @ CreateError::Password(_)) => Err(not_acceptable(error.to_string())),
            Err(error) => {
                tracing::warn!(%error, "a password could not be changed");
                Err(StanzaError::new(StanzaCondition::InternalServerError, "try again later"))
            }
        }
    })
}
