//! How many users of the domain have sessions, on all nodes (§4.15).

use althing_proto::form::{Answers, Field};

use super::{Call, Step, online, result};
use crate::modules::commands::command::{NextStep, Simple};

pub(super) const COMMAND: Simple = Simple {
    node: "http://jabber.org/protocol/admin#get-online-users-num",
    name: "Get Number of Online Users",
    form: None,
    act,
};

fn act(call: Call, _: Answers) -> NextStep {
    Box::pin(async move {
        let count = online(&call).await?.len();
        let field = Field::text("onlineusersnum").labelled("The number of online users");
        Ok(Step::tell(result().with(field.value(count.to_string()))))
    })
}
