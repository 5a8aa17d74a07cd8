//! How many accounts the domain has (§4.13), and how many of them are disabled (§4.14).

use althing_proto::form::{Answers, Field};
use althing_proto::stanza::StanzaError;

use super::{Call, Step, failed, result};
use crate::modules::commands::command::{NextStep, Simple};

/// Accounts that are counted at a time.
const PAGE: usize = 1_000;

pub(super) const REGISTERED: Simple = Simple {
    node: "http://jabber.org/protocol/admin#get-registered-users-num",
    name: "Get Number of Registered Users",
    form: None,
    act: registered,
};

pub(super) const DISABLED: Simple = Simple {
    node: "http://jabber.org/protocol/admin#get-disabled-users-num",
    name: "Get Number of Disabled Users",
    form: None,
    act: disabled,
};

fn registered(call: Call, _: Answers) -> NextStep {
    let field = Field::text("registeredusersnum").labelled("The number of registered users");
    Box::pin(count(call, false, field))
}

fn disabled(call: Call, _: Answers) -> NextStep {
    let field = Field::text("disabledusersnum").labelled("The number of disabled users");
    Box::pin(count(call, true, field))
}

async fn count(call: Call, disabled: bool, field: Field) -> Result<Step, StanzaError> {
    let (accounts, domain) = (&call.node.storage.accounts, call.domain.as_str());
    let (mut count, mut last) = (0, None);
    loop {
        let page = if disabled {
            accounts.list_disabled(domain, last.as_ref(), PAGE).await
        } else {
            accounts.list(domain, last.as_ref(), PAGE).await
        };
        let page = page.map_err(|error| failed(&error))?;
        count += page.len();
        if page.len() < PAGE {
            return Ok(Step::tell(result().with(field.value(count.to_string()))));
        }
        last = page.into_iter().next_back();
    }
}
