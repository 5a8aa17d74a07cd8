//! How many accounts the domain has (§4.13).

use althing_proto::form::{Answers, Field};

use super::{Call, Step, failed, result};
use crate::modules::commands::command::{NextStep, Simple};

/// Accounts that are counted at a time.
const PAGE: usize = 1_000;

pub(super) const COMMAND: Simple = Simple {
    node: "http://jabber.org/protocol/admin#get-registered-users-num",
    name: "Get Number of Registered Users",
    form: None,
    act,
};

fn act(call: Call, _: Answers) -> NextStep {
    Box::pin(async move {
        let (accounts, domain) = (&call.node.storage.accounts, call.domain.as_str());
        let (mut count, mut last) = (0, None);
        loop {
            let page = accounts.list(domain, last.as_ref(), PAGE).await.map_err(|error| failed(&error))?;
            count += page.len();
            if page.len() < PAGE {
                break;
            }
            last = page.into_iter().next_back();
        }
        let field = Field::text("registeredusersnum").labelled("The number of registered users");
        Ok(Step::tell(result().with(field.value(count.to_string()))))
    })
}
