//! A stanza on its way along the chain, and what of it is to be kept.

use std::sync::Arc;

use althing_proto::stanza::Stanza;

use crate::delivery::keep::Planned;
use crate::delivery::kept;
use crate::delivery::places::Place;
use crate::delivery::receivers::Receiver;
use crate::node::NodeContext;
use crate::session::inbound::Hold;

/// A stanza, and what of it is to be kept, as far as that was asked.
pub(super) struct Letter {
    pub(super) stanza: Stanza,
    pub(super) planned: Option<Planned>,
    /// Its place among those that are being kept, where it has waited for one.
    pub(super) place: Option<Place>,
    /// What has kept the stanza from being safe while it has waited.
    pub(super) hold: Option<Hold>,
}

impl From<Stanza> for Letter {
    fn from(stanza: Stanza) -> Self {
        Letter { stanza, planned: None, place: None, hold: None }
    }
}

impl Letter {
    /// As it goes to sessions: with the id under which it is being kept.
    pub(super) fn marked(&self, node: &NodeContext) -> Stanza {
        match &self.planned {
            Some(Planned::New(plan)) => plan.marked(node),
            _ => self.stanza.clone(),
        }
    }

    /// It goes to those: it is kept, if it is to be.
    pub(super) fn keep_live(&mut self, node: &Arc<NodeContext>, receivers: &[Receiver], hold: Option<Hold>) {
        if let Some(Planned::New(plan)) = self.planned.take() {
            plan.keep_live(node, kept::takers(node, receivers), hold);
        }
    }
}
