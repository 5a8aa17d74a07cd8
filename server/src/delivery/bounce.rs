//! Answers for stanzas that could not be delivered.

use althing_proto::stanza::{Stanza, StanzaCondition, StanzaError};

use crate::node::NodeContext;
use crate::pipeline::Effects;
use crate::session::effect::Effect;

/// Nobody there (RFC 6121 §8.5).
pub fn unavailable(node: &NodeContext, stanza: &Stanza) -> Effects {
    answer(node, stanza, StanzaCondition::ServiceUnavailable.into())
}

/// The receiver's mailbox is full. The policy: the sender is told to wait and try again (RFC 6120
/// §8.3.3.18); nothing is kept.
pub fn congested(node: &NodeContext, stanza: &Stanza) -> Effects {
    let text = "the recipient receives faster than it can handle";
    answer(node, stanza, StanzaError::new(StanzaCondition::ResourceConstraint, text))
}

fn answer(node: &NodeContext, stanza: &Stanza, error: StanzaError) -> Effects {
    let condition = error.condition;
    match stanza.error(error) {
        Some(answer) => {
            node.metrics.stanza_error(condition);
            vec![Effect::Route(answer)]
        }
        None => {
            node.metrics.dropped("undeliverable");
            Vec::new()
        }
    }
}
