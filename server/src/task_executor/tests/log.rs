//! One log of routes for the nodes of one process, and what each of them has applied of it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, watch};

use althing_cluster::link::Links;
use althing_cluster::node_id::{Incarnation, NodeId};
use althing_cluster::routes::command::{Bind, Move, Priority, Unbind};
use althing_cluster::routes::{
    BindIndex, Bound, Ended, NodeState, Route, RouteCommand, RouteError, RouteReply, RouteTable, Routes,
};
use althing_proto::jid::{BareJid, FullJid};

/// The log that all nodes apply.
#[derive(Default)]
pub(super) struct Log {
    entries: Mutex<Vec<RouteCommand>>,
    views: Mutex<Vec<Arc<View>>>,
}

impl Log {
    /// Appends a command; every node applies it at once unless it lags. The reply as `at` has it.
    pub(super) fn append(&self, at: Option<&View>, command: impl Into<RouteCommand>) -> RouteReply {
        let mut entries = self.entries.lock();
        entries.push(command.into());
        let mut reply = RouteReply::Stale;
        for view in self.views.lock().iter() {
            if !*view.lags.lock() {
                let last = view.catch_up(&entries);
                if at.is_none_or(|at| at.node == view.node) {
                    reply = last.unwrap_or(reply);
                }
            }
        }
        reply
    }
}

/// The log as one node has applied it.
pub(super) struct View {
    node: NodeId,
    log: Arc<Log>,
    table: Mutex<RouteTable>,
    applied: watch::Sender<u64>,
    lags: Mutex<bool>,
    /// A move takes one of them.
    moves: Semaphore,
    pub(super) links: OnceLock<Arc<Links>>,
    ended: mpsc::Sender<Ended>,
    /// Losses that are counted and not told yet.
    untold: Mutex<Option<Vec<Ended>>>,
    losses: AtomicU64,
}

impl View {
    /// What `node` has applied of the log: nothing yet. Its losses go to `ended`.
    pub(super) fn new(node: NodeId, log: &Arc<Log>, ended: mpsc::Sender<Ended>) -> Arc<Self> {
        let view = Arc::new(View {
            node,
            log: Arc::clone(log),
            table: Mutex::default(),
            applied: watch::Sender::new(0),
            lags: Mutex::new(false),
            moves: Semaphore::new(Semaphore::MAX_PERMITS),
            links: OnceLock::new(),
            ended,
            untold: Mutex::default(),
            losses: AtomicU64::new(0),
        });
        log.views.lock().push(Arc::clone(&view));
        view
    }

    fn catch_up(&self, entries: &[RouteCommand]) -> Option<RouteReply> {
        let mut last = None;
        let from = *self.applied.borrow();
        for (index, command) in (1..).zip(entries).skip(usize::try_from(from).unwrap()) {
            let node = match command {
                RouteCommand::NodeDown(down) => down.node,
                _ => self.node,
            };
            let reply = self.table.lock().apply(BindIndex::at(index, 0), command.clone());
            if let Some(links) = self.links.get() {
                links.set_applied(index);
            }
            if let RouteReply::Ended(_) = &reply {
                self.losses.fetch_add(1, Ordering::SeqCst);
            }
            self.applied.send_replace(index);
            if let RouteReply::Ended(sessions) = &reply {
                let ended = Ended { index, node, sessions: sessions.clone() };
                match &mut *self.untold.lock() {
                    Some(untold) => untold.push(ended),
                    None => self.ended.try_send(ended).unwrap(),
                }
            }
            last = Some(reply);
        }
        last
    }

    /// From now on this node applies nothing, or all that it has missed and what follows.
    pub(super) fn lag(&self, lags: bool) {
        let entries = self.log.entries.lock();
        *self.lags.lock() = lags;
        if !lags {
            self.catch_up(&entries);
        }
    }

    /// From now on moves that this node proposes wait, or go on.
    pub(super) fn hold_moves(&self, held: bool) {
        if held {
            self.moves.forget_permits(Semaphore::MAX_PERMITS);
        } else {
            self.moves.add_permits(Semaphore::MAX_PERMITS);
        }
    }

    /// From now on the sessions of this node are told of no loss, or of all.
    pub(super) fn hold_losses(&self, held: bool) {
        let untold = std::mem::replace(&mut *self.untold.lock(), held.then(Vec::new));
        untold.into_iter().flatten().for_each(|ended| self.ended.try_send(ended).unwrap());
    }

    fn changed(&self, index: BindIndex, command: impl Into<RouteCommand>) -> Result<(), RouteError> {
        match self.log.append(Some(self), command) {
            RouteReply::Changed => Ok(()),
            _ => Err(RouteError::Stale(index)),
        }
    }
}

#[async_trait]
impl Routes for View {
    async fn bind(&self, jid: &FullJid) -> Result<Bound, RouteError> {
        let bind = Bind { jid: jid.clone(), node: self.node, incarnation: Incarnation(1) };
        match self.log.append(Some(self), bind) {
            RouteReply::Bound { index, displaced } => Ok(Bound { index, displaced }),
            other => Err(RouteError::Unavailable(format!("{other:?}"))),
        }
    }

    async fn unbind(&self, jid: &FullJid, index: BindIndex) -> Result<(), RouteError> {
        self.changed(index, Unbind { jid: jid.clone(), index })
    }

    async fn set_priority(
        &self,
        jid: &FullJid,
        index: BindIndex,
        priority: Option<i8>,
    ) -> Result<(), RouteError> {
        self.changed(index, Priority { jid: jid.clone(), index, priority })
    }

    async fn move_to(
        &self,
        jid: &FullJid,
        index: BindIndex,
        (node, incarnation): (NodeId, Incarnation),
    ) -> Result<BindIndex, RouteError> {
        let _turn = self.moves.acquire().await;
        match self.log.append(Some(self), Move { jid: jid.clone(), index, node, incarnation }) {
            RouteReply::Moved { index, .. } => Ok(index),
            _ => Err(RouteError::Stale(index)),
        }
    }

    fn losses(&self) -> u64 {
        self.losses.load(Ordering::SeqCst)
    }

    async fn barrier(&self) -> Result<(), RouteError> {
        let committed = self.log.entries.lock().len() as u64;
        self.wait_for(committed).await;
        Ok(())
    }

    fn locate(&self, jid: &FullJid) -> Option<Route> {
        self.table.lock().locate(jid)
    }

    fn locate_account(&self, jid: &BareJid) -> Vec<Route> {
        self.table.lock().locate_account(jid).iter().map(|(_, route)| *route).collect()
    }

    fn visit_account(&self, jid: &BareJid, see: &mut dyn FnMut(&FullJid, &Route)) {
        self.table.lock().locate_account(jid).iter().for_each(|(full, route)| see(full, route));
    }

    fn sessions(&self) -> usize {
        self.table.lock().sessions()
    }

    fn table(&self) -> RouteTable {
        self.table.lock().clone()
    }

    fn applied(&self) -> u64 {
        *self.applied.borrow()
    }

    async fn wait_for(&self, index: u64) -> bool {
        self.applied.subscribe().wait_for(|applied| *applied >= index).await.is_ok()
    }

    fn first_up(&self) -> Option<NodeId> {
        self.table.lock().first_up()
    }

    fn node_state(&self, node: NodeId) -> Option<NodeState> {
        self.table.lock().node(node)
    }
}
