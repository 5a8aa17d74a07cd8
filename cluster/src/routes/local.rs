//! The strategy of a single node: it orders the commands itself.

use async_trait::async_trait;
use parking_lot::RwLock;

use althing_proto::jid::{BareJid, FullJid};

use super::command::{RouteCommand, RouteReply};
use super::table::{BindIndex, Route, RouteTable};
use super::{Bound, RouteError, Routes};
use crate::node_id::{Incarnation, NodeId};

/// A table for one node, in memory: it ends with the process, as the sessions do.
#[derive(Debug)]
pub struct LocalRoutes {
    node: NodeId,
    incarnation: Incarnation,
    state: RwLock<(u64, RouteTable)>,
}

impl LocalRoutes {
    /// An empty table of this start of `node`.
    #[must_use]
    pub fn new(node: NodeId, incarnation: Incarnation) -> Self {
        LocalRoutes { node, incarnation, state: RwLock::new((0, RouteTable::default())) }
    }

    /// Applies a command at the next index.
    fn apply(&self, command: RouteCommand) -> (u64, RouteReply) {
        let (index, table) = &mut *self.state.write();
        *index += 1;
        (*index, table.apply(*index, command))
    }
}

#[async_trait]
impl Routes for LocalRoutes {
    async fn bind(&self, jid: &FullJid) -> Result<Bound, RouteError> {
        let command = RouteCommand::Bind { jid: jid.clone(), node: self.node, incarnation: self.incarnation };
        let (index, reply) = self.apply(command);
        let index = BindIndex(index);
        match reply {
            RouteReply::Bound { displaced } => Ok(Bound { index, displaced }),
            RouteReply::Changed | RouteReply::Stale => Err(RouteError::Stale(index)),
        }
    }

    async fn unbind(&self, jid: &FullJid, index: BindIndex) -> Result<(), RouteError> {
        match self.apply(RouteCommand::Unbind { jid: jid.clone(), index }).1 {
            RouteReply::Stale => Err(RouteError::Stale(index)),
            RouteReply::Bound { .. } | RouteReply::Changed => Ok(()),
        }
    }

    async fn set_priority(
        &self,
        jid: &FullJid,
        index: BindIndex,
        priority: Option<i8>,
    ) -> Result<(), RouteError> {
        match self.apply(RouteCommand::Priority { jid: jid.clone(), index, priority }).1 {
            RouteReply::Stale => Err(RouteError::Stale(index)),
            RouteReply::Bound { .. } | RouteReply::Changed => Ok(()),
        }
    }

    fn locate(&self, jid: &FullJid) -> Option<Route> {
        self.state.read().1.locate(jid)
    }

    fn locate_account(&self, jid: &BareJid) -> Vec<Route> {
        self.state.read().1.locate_account(jid).iter().map(|(_, route)| *route).collect()
    }

    fn sessions(&self) -> usize {
        self.state.read().1.sessions()
    }
}
