//! The strategy of a cluster: Raft orders the commands, and every node has the whole table.

use std::sync::Arc;
use std::time::Duration;

use althing_proto::jid::{BareJid, FullJid};
use async_trait::async_trait;

use super::barrier::Barrier;
use super::proposer::{ProposeError, Proposer};
use super::state_machine::AppliedRoutes;
use super::types::RouteGroup;
use crate::link::Links;
use crate::node_id::{Incarnation, NodeId};
use crate::routes::command::{Bind, Move, Priority, RouteCommand, Unbind};
use crate::routes::{BindIndex, Bound, NodeState, Route, RouteError, RouteReply, RouteTable, Routes};

/// How long a change may take. Above two elections, so that losing a leader costs nobody a login.
const DEADLINE: Duration = Duration::from_secs(15);

/// How long a linearizable read may take.
const READ: Duration = Duration::from_secs(8);

/// How often a change of a session is put forward: its client has gone or goes on, and nobody else would do it.
const ATTEMPTS: u32 = 4;

/// The route table of a cluster.
pub struct RaftRoutes {
    links: Arc<Links>,
    table: AppliedRoutes,
    proposer: Proposer<RouteGroup>,
    barrier: Barrier,
}

impl RaftRoutes {
    pub(crate) fn new(
        links: Arc<Links>,
        table: AppliedRoutes,
        proposer: Proposer<RouteGroup>,
        barrier: Barrier,
    ) -> Self {
        RaftRoutes { links, table, proposer, barrier }
    }

    /// Changes a session of this node, and is patient: given up, the table would go on saying what is not so. By
    /// the end of all attempts a node without a leader has long lost its lease, and its routes with it.
    async fn change(&self, index: BindIndex, command: impl Into<RouteCommand>) -> Result<(), RouteError> {
        let (command, incarnation) = (command.into(), self.links.incarnation());
        let mut left = ATTEMPTS;
        loop {
            left -= 1;
            match self.proposer.propose(command.clone(), DEADLINE).await {
                Ok(RouteReply::Changed) => return Ok(()),
                Ok(_) => return Err(RouteError::Stale(index)),
                // It was not taken: once more is not twice.
                Err(ProposeError::NotTaken(_)) if left > 0 && self.links.incarnation() == incarnation => {}
                Err(error) => return Err(RouteError::Unavailable(error.to_string())),
            }
        }
    }
}

#[async_trait]
impl Routes for RaftRoutes {
    async fn bind(&self, jid: &FullJid) -> Result<Bound, RouteError> {
        let (node, incarnation) = (self.links.node(), self.links.incarnation());
        let bind = Bind { jid: jid.clone(), node, incarnation };
        let reply = self.proposer.propose(bind.into(), DEADLINE).await;
        match reply.map_err(|error| RouteError::Unavailable(error.to_string()))? {
            RouteReply::Bound { index, displaced } => Ok(Bound { index, displaced }),
            _ => Err(RouteError::Unavailable("the cluster has declared this node down".to_owned())),
        }
    }

    async fn unbind(&self, jid: &FullJid, index: BindIndex) -> Result<(), RouteError> {
        self.change(index, Unbind { jid: jid.clone(), index }).await
    }

    async fn set_priority(
        &self,
        jid: &FullJid,
        index: BindIndex,
        priority: Option<i8>,
    ) -> Result<(), RouteError> {
        self.change(index, Priority { jid: jid.clone(), index, priority }).await
    }

    async fn move_to(
        &self,
        jid: &FullJid,
        index: BindIndex,
        (node, incarnation): (NodeId, Incarnation),
    ) -> Result<BindIndex, RouteError> {
        let command = Move { jid: jid.clone(), index, node, incarnation };
        let reply = self.proposer.propose(command.into(), DEADLINE).await;
        match reply.map_err(|error| RouteError::Unavailable(error.to_string()))? {
            RouteReply::Moved { index, .. } => Ok(index),
            RouteReply::Fenced => Err(RouteError::Unavailable("that node is down".to_owned())),
            _ => Err(RouteError::Stale(index)),
        }
    }

    async fn barrier(&self) -> Result<(), RouteError> {
        if self.barrier.pass(READ).await {
            return Ok(());
        }
        Err(RouteError::Unavailable("what was committed is not known".to_owned()))
    }

    fn locate(&self, jid: &FullJid) -> Option<Route> {
        self.table.locate(jid)
    }

    fn locate_account(&self, jid: &BareJid) -> Vec<Route> {
        self.table.locate_account(jid)
    }

    fn visit_account(&self, jid: &BareJid, see: &mut dyn FnMut(&FullJid, &Route)) {
        self.table.visit_account(jid, see);
    }

    fn sessions(&self) -> usize {
        self.table.sessions()
    }

    fn table(&self) -> RouteTable {
        self.table.table()
    }

    fn applied(&self) -> u64 {
        self.table.index()
    }

    fn shown(&self) -> u64 {
        self.table.shown()
    }

    fn losses(&self) -> u64 {
        self.table.losses()
    }

    async fn wait_for(&self, index: u64) -> bool {
        self.table.wait_for(index).await
    }

    fn first_up(&self) -> Option<NodeId> {
        self.table.first_up()
    }

    fn node_state(&self, node: NodeId) -> Option<NodeState> {
        self.table.node(node)
    }
}
