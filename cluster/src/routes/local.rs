//! The strategy of a single node: it orders the commands itself.

use async_trait::async_trait;
use parking_lot::RwLock;

use althing_proto::jid::{BareJid, FullJid};

use super::command::{Bind, Move, NodeUp, Priority, RouteCommand, RouteReply, Unbind};
use super::table::{BindIndex, NodeState, Route, RouteTable};
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
        Self::beginning_at(node, incarnation, 0)
    }

    /// An empty table whose binds have indices above `index`, a log index: higher ones than those of earlier starts, where
    /// something that outlasts the process names binds. At most 52 bits.
    #[must_use]
    pub fn beginning_at(node: NodeId, incarnation: Incarnation, index: u64) -> Self {
        let routes = LocalRoutes { node, incarnation, state: RwLock::new((index, RouteTable::default())) };
        routes.apply(NodeUp { node, incarnation });
        routes
    }

    /// Applies a command at the next index.
    fn apply(&self, command: impl Into<RouteCommand>) -> RouteReply {
        let (index, table) = &mut *self.state.write();
        *index += 1;
        table.apply(BindIndex::at(*index, 0), command.into())
    }
}

/// The result of a change that names a bind.
fn changed(index: BindIndex, reply: &RouteReply) -> Result<(), RouteError> {
    match reply {
        RouteReply::Changed => Ok(()),
        _ => Err(RouteError::Stale(index)),
    }
}

#[async_trait]
impl Routes for LocalRoutes {
    async fn bind(&self, jid: &FullJid) -> Result<Bound, RouteError> {
        match self.apply(Bind { jid: jid.clone(), node: self.node, incarnation: self.incarnation }) {
            RouteReply::Bound { index, displaced } => Ok(Bound { index, displaced }),
            _ => Err(RouteError::Unavailable("this start of the node is over".to_owned())),
        }
    }

    async fn unbind(&self, jid: &FullJid, index: BindIndex) -> Result<(), RouteError> {
        changed(index, &self.apply(Unbind { jid: jid.clone(), index }))
    }

    async fn set_priority(
        &self,
        jid: &FullJid,
        index: BindIndex,
        priority: Option<i8>,
    ) -> Result<(), RouteError> {
        changed(index, &self.apply(Priority { jid: jid.clone(), index, priority }))
    }

    async fn move_to(
        &self,
        jid: &FullJid,
        index: BindIndex,
        (node, incarnation): (NodeId, Incarnation),
    ) -> Result<BindIndex, RouteError> {
        match self.apply(Move { jid: jid.clone(), index, node, incarnation }) {
            RouteReply::Moved { index, .. } => Ok(index),
            RouteReply::Fenced => Err(RouteError::Unavailable("that start of the node is over".to_owned())),
            _ => Err(RouteError::Stale(index)),
        }
    }

    async fn barrier(&self) -> Result<(), RouteError> {
        Ok(())
    }

    fn locate(&self, jid: &FullJid) -> Option<Route> {
        self.state.read().1.locate(jid)
    }

    fn locate_account(&self, jid: &BareJid) -> Vec<Route> {
        self.state.read().1.locate_account(jid).iter().map(|(_, route)| *route).collect()
    }

    fn visit_account(&self, jid: &BareJid, see: &mut dyn FnMut(&FullJid, &Route)) {
        self.state.read().1.locate_account(jid).iter().for_each(|(full, route)| see(full, route));
    }

    fn sessions(&self) -> usize {
        self.state.read().1.sessions()
    }

    fn table(&self) -> RouteTable {
        self.state.read().1.clone()
    }

    fn applied(&self) -> u64 {
        self.state.read().0
    }

    async fn wait_for(&self, index: u64) -> bool {
        self.applied() >= index
    }

    fn first_up(&self) -> Option<NodeId> {
        self.state.read().1.first_up()
    }

    fn node_state(&self, node: NodeId) -> Option<NodeState> {
        self.state.read().1.node(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn binds_of_a_later_start_come_after_those_of_an_earlier_one() {
        let jid = FullJid::new("juliet@example.com/balcony").unwrap();
        let bind = async |first| {
            let routes = LocalRoutes::beginning_at(NodeId::new(1), Incarnation(1), first);
            routes.bind(&jid).await.unwrap().index
        };
        // Microseconds since 1970, in the year 2026.
        let (earlier, later) = (bind(1_795_000_000_000_000).await, bind(1_795_000_001_000_000).await);
        assert!(earlier < later);
        assert!(later.log_index() > 1_795_000_001_000_000, "nothing is cut off");
    }
}
