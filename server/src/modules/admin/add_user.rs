//! Adds an account (§4.1). Of the form's fields only address and password are kept: names are the user's vCard.

use althing_proto::form::{Answers, Field, Form};
use althing_proto::sasl::Secret;
use althing_proto::stanza::{StanzaCondition, StanzaError};

use super::{Call, Step, account, account_field, form, not_acceptable};
use crate::auth::{CreateError, create_account};
use crate::modules::commands::command::{NextStep, Simple};

pub(super) const COMMAND: Simple =
    Simple { node: "http://jabber.org/protocol/admin#add-user", name: "Add User", form: Some(ask), act };

fn ask() -> Form {
    form("Adding a User", "Fill out this form to add a user.")
        .with(account_field("The Jabber ID for the account to be added"))
        .with(Field::secret("password").labelled("The password for this account").required())
        .with(Field::secret("password-verify").labelled("Retype password").required())
}

fn act(call: Call, answers: Answers) -> NextStep {
    Box::pin(async move {
        let user = account(&call, &answers, "accountjid")?;
        let password = answers.get("password").unwrap_or_default();
        if answers.get("password-verify") != Some(password) {
            return Err(not_acceptable("the two passwords differ"));
        }
        match create_account(&call.node, &user, Secret::new(password)).await {
            Ok(()) => {
                tracing::info!(jid = %user, "account made by an administrator");
                Ok(Step::done())
            }
            Err(CreateError::Exists) => {
                Err(StanzaError::new(StanzaCondition::Conflict, format!("{user} has an account")))
            }
            Err(error @ CreateError::Password(_)) => Err(not_acceptable(error.to_string())),
            Err(error @ (CreateError::Storage(_) | CreateError::Unavailable)) => {
                tracing::warn!(%error, "an account could not be made");
                Err(StanzaError::new(StanzaCondition::InternalServerError, "try again later"))
            }
        }
    })
}
