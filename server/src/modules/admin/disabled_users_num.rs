//! How many accounts of the domain are disabled (§4.14).

use althing_proto::form::{Answers, Field};

use super::{Call, Step, failed, result};
use crate::modules::commands::command::{NextStep, Simple};

/// Accounts that are counted at a time.
const PAGE: usize = 1_000;

pub(super) const COMMAND: Simple = Simple {
    node: "http://jabber.org/protocol/admin#get-disabled-users-num",
    name: "Get Number of Disabled Users",
    form: None,
    act,
};

fn act(call: Call, _: Answers) -> NextStep {
    Box::pin(async move {
        let (accounts, domain) = (&call.node.storage.accounts, call.domain.as_str());
        let (mut count, mut last) = (0, None);
        loop {
            let page = accounts.list_disabled(domain, last.as_ref(), PAGE).await;
            let page = page.map_err(|error| failed(&error))?;
            count += page.len();
            if page.len() < PAGE {
                break;
            }
            last = page.into_iter().next_back();
        }
        let field = Field::text("disabledusersnum").labelled("The number of disabled users");
        Ok(Step::tell(result().with(field.value(count.to_string()))))
    })
}
