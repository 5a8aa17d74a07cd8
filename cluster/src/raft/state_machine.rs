//! The shell round the pure route table: applies what the group has committed, and keeps its snapshots.
//!
//! The table lives in memory. A restarted node begins with its last snapshot and applies the log after it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use althing_proto::jid::{BareJid, FullJid};
use async_trait::async_trait;
use futures_util::{Stream, TryStreamExt};
use openraft::alias::{LogIdOf, SnapshotOf, StoredMembershipOf};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{mpsc, watch};

use super::answers::{OwnAnswers, TellsAnswers};
use super::snapshot::{self, RouteSnapshotMeta};
use super::spool::{Spool, SpoolFile};
use super::types::RouteGroup;
use crate::disk::Gate;
use crate::node_id::NodeId;
use crate::routes::{AppliedBatch, Ended, NodeState, Route, RouteEvent, RouteReplies, RouteTable};

/// The file of the last snapshot, and the one that is being written.
const FILE: &str = "routes.snapshot";
const UNFINISHED_FILE: &str = "routes.snapshot.new";

/// The route table of this node, as far as it has applied the log. Cheap to clone.
#[derive(Clone)]
pub struct AppliedRoutes {
    state: Arc<RwLock<Applied>>,
    index: watch::Receiver<u64>,
    losses: Arc<AtomicU64>,
}

#[derive(Clone, Default)]
struct Applied {
    last: Option<LogIdOf<RouteGroup>>,
    membership: StoredMembershipOf<RouteGroup>,
    table: RouteTable,
}

impl AppliedRoutes {
    /// The owner of a full JID.
    #[must_use]
    pub fn locate(&self, jid: &FullJid) -> Option<Route> {
        self.state.read().table.locate(jid)
    }

    /// Where all sessions of an account are, in the order of their binds.
    #[must_use]
    pub fn locate_account(&self, jid: &BareJid) -> Vec<Route> {
        self.state.read().table.locate_account(jid).iter().map(|(_, route)| *route).collect()
    }

    /// Shows all sessions of an account, in the order of their binds.
    pub fn visit_account(&self, jid: &BareJid, see: &mut dyn FnMut(&FullJid, &Route)) {
        self.state.read().table.locate_account(jid).iter().for_each(|(full, route)| see(full, route));
    }

    /// How many losses were told as events.
    #[must_use]
    pub fn losses(&self) -> u64 {
        self.losses.load(Ordering::Acquire)
    }

    /// What the table knows of a node; `None` if it was never up.
    #[must_use]
    pub fn node(&self, node: NodeId) -> Option<NodeState> {
        self.state.read().table.node(node)
    }

    /// The node with the lowest number among those that are up.
    #[must_use]
    pub fn first_up(&self) -> Option<NodeId> {
        self.state.read().table.first_up()
    }

    /// How many sessions the table holds.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.state.read().table.sessions()
    }

    /// A frozen copy of the table.
    #[must_use]
    pub fn table(&self) -> RouteTable {
        self.state.read().table.clone()
    }

    /// The index of the last entry applied; 0 before the first.
    #[must_use]
    pub fn index(&self) -> u64 {
        *self.index.borrow()
    }

    /// The index of the last entry that the table shows; it is [`AppliedRoutes::index`] as soon as its losses are told.
    #[must_use]
    pub fn shown(&self) -> u64 {
        self.state.read().last.as_ref().map_or(0, |id| id.index)
    }

    /// Follows [`AppliedRoutes::index`].
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.index.clone()
    }

    /// Waits until the entry at `index` is applied. `false` if the group was shut down before that. The
    /// caller sets the deadline.
    pub async fn wait_for(&self, index: u64) -> bool {
        self.index.clone().wait_for(|applied| *applied >= index).await.is_ok()
    }
}

/// What applying entries brings about, and how much of it nobody has taken yet.
#[derive(Debug)]
pub struct RouteEvents {
    events: mpsc::UnboundedReceiver<RouteEvent>,
    waiting: Arc<AtomicUsize>,
}

impl RouteEvents {
    /// The next one; `None` when there will be none.
    pub async fn next(&mut self) -> Option<RouteEvent> {
        let event = self.events.recv().await?;
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        Some(event)
    }

    /// The number of those that wait.
    #[must_use]
    pub fn waiting(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.waiting)
    }
}

/// The state machine of the group of routes.
pub struct RouteStateMachine {
    state: Arc<RwLock<Applied>>,
    index: watch::Sender<u64>,
    losses: Arc<AtomicU64>,
    snapshots: Arc<Snapshots>,
    /// Where events go. It has no bound: an entry that cannot be told would leave the sessions of this node out of
    /// step with the table. What it holds is bounded by the table.
    events: Option<(mpsc::UnboundedSender<RouteEvent>, Arc<AtomicUsize>)>,
    answers: Option<OwnAnswers<RouteReplies>>,
}

impl RouteStateMachine {
    /// The state machine with its snapshots in `dir`, which exists. Blocks.
    ///
    /// # Errors
    /// What the file system reports; [`io::ErrorKind::InvalidData`] for a damaged snapshot.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let snapshots = Arc::new(Snapshots::open(dir)?);
        Ok(RouteStateMachine {
            state: Arc::default(),
            index: watch::Sender::new(0),
            losses: Arc::default(),
            snapshots,
            events: None,
            answers: None,
        })
    }

    /// Snapshots wait while `gate` is closed. To be called before the group is started.
    pub(crate) fn set_gate(&mut self, gate: Gate) {
        self.snapshots.gate.lock().clone_from(&gate);
    }

    /// What applying entries brings about from now on, in the order of the log.
    #[must_use]
    pub fn events(&mut self) -> RouteEvents {
        let (sender, events) = mpsc::unbounded_channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        self.events = Some((sender, Arc::clone(&waiting)));
        RouteEvents { events, waiting }
    }

    fn tell(&self, events: impl IntoIterator<Item = RouteEvent>) {
        if let Some((sender, waiting)) = &self.events {
            for event in events {
                if matches!(event, RouteEvent::Ended(_)) {
                    self.losses.fetch_add(1, Ordering::Release);
                }
                waiting.fetch_add(1, Ordering::Relaxed);
                // Nobody listens any more: the node stops.
                let _ = sender.send(event);
            }
        }
    }

    /// The table, for readers.
    #[must_use]
    pub fn routes(&self) -> AppliedRoutes {
        AppliedRoutes {
            state: self.state.clone(),
            index: self.index.subscribe(),
            losses: Arc::clone(&self.losses),
        }
    }
}

impl RouteStateMachine {
    /// What happened in the entries that a snapshot stands for, as far as the two tables tell: sessions that are no
    /// longer there have ended, one way or the other.
    fn skipped(&self, before: &RouteTable, index: u64) -> Vec<RouteEvent> {
        let state = self.state.read();
        let mut ended: BTreeMap<NodeId, Vec<(FullJid, Route)>> = BTreeMap::new();
        let mut events = Vec::new();
        for (jid, route) in before.routes() {
            match state.table.locate(jid) {
                Some(now) if now.index == route.index => {}
                Some(_) => events.push(RouteEvent::Displaced { jid: jid.clone(), route: *route }),
                None => ended.entry(route.node).or_default().push((jid.clone(), *route)),
            }
        }
        let ended = ended.into_iter().map(|(node, sessions)| Ended { index, node, sessions });
        events.extend(ended.map(RouteEvent::Ended));
        events
    }
}

impl TellsAnswers<RouteReplies> for RouteStateMachine {
    fn tell_answers(&mut self, answers: OwnAnswers<RouteReplies>) {
        self.answers = Some(answers);
    }
}

impl RaftStateMachine<RouteGroup> for RouteStateMachine {
    type SnapshotData = RouteTable;
    type SnapshotBuilder = RouteSnapshotBuilder;

    async fn applied_state(
        &mut self,
    ) -> io::Result<(Option<LogIdOf<RouteGroup>>, StoredMembershipOf<RouteGroup>)> {
        let state = self.state.read();
        Ok((state.last, state.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<RouteGroup>>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let id = entry.log_id;
            let mut origin = None;
            let AppliedBatch { replies, events } = {
                let mut state = self.state.write();
                state.last = Some(id);
                match entry.payload {
                    EntryPayload::Blank => AppliedBatch::default(),
                    EntryPayload::Normal(batch) => {
                        origin = batch.origin();
                        state.table.apply_batch(id.index, batch)
                    }
                    EntryPayload::Membership(membership) => {
                        state.membership = StoredMembershipOf::<RouteGroup>::new(Some(id), membership);
                        AppliedBatch::default()
                    }
                }
            };
            // Who waits for the index knows of the losses.
            self.tell(events);
            self.index.send_replace(id.index);
            if let Some(answers) = &self.answers {
                answers.tell(origin, &replies);
            }
            if let Some(responder) = responder {
                responder.send(replies);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> RouteSnapshotBuilder {
        RouteSnapshotBuilder { frozen: self.state.read().clone(), snapshots: self.snapshots.clone() }
    }

    async fn install_snapshot(&mut self, meta: &RouteSnapshotMeta, table: RouteTable) -> io::Result<()> {
        self.snapshots.keep(meta.clone(), table.clone()).await?;
        let index = meta.last_log_id.map_or(0, |id| id.index);
        let now = Applied { last: meta.last_log_id, membership: meta.last_membership.clone(), table };
        let before = std::mem::replace(&mut *self.state.write(), now);
        let lost = self.skipped(&before.table, index);
        self.tell(lost);
        self.index.send_replace(index);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf<RouteGroup, RouteTable>>> {
        Ok(self.snapshots.current.lock().clone())
    }
}

/// Turns a frozen copy of the table into a snapshot, while the table goes on.
pub struct RouteSnapshotBuilder {
    frozen: Applied,
    snapshots: Arc<Snapshots>,
}

impl RaftSnapshotBuilder<RouteGroup> for RouteSnapshotBuilder {
    type SnapshotData = RouteTable;

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf<RouteGroup, RouteTable>> {
        let Applied { last, membership, table } = self.frozen.clone();
        let meta = RouteSnapshotMeta { last_log_id: last, last_membership: membership };
        self.snapshots.keep(meta.clone(), table.clone()).await?;
        Ok(SnapshotOf::<RouteGroup, RouteTable> { meta, snapshot: table })
    }
}

/// The last snapshot, in memory and in its file.
struct Snapshots {
    dir: PathBuf,
    current: Mutex<Option<SnapshotOf<RouteGroup, RouteTable>>>,
    /// Held while the file is written.
    writing: Mutex<()>,
    /// Closed while the disk has no room for one.
    gate: Mutex<Gate>,
}

impl Snapshots {
    fn open(dir: &Path) -> io::Result<Self> {
        let current = match File::open(dir.join(FILE)) {
            Ok(file) => {
                let (meta, snapshot) = snapshot::read(&mut BufReader::new(file))?;
                Some(SnapshotOf::<RouteGroup, RouteTable> { meta, snapshot })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(Snapshots {
            dir: dir.to_owned(),
            current: Mutex::new(current),
            writing: Mutex::new(()),
            gate: Mutex::default(),
        })
    }

    /// Makes that snapshot the current one, on disk first, unless there is a later one.
    async fn keep(self: &Arc<Self>, meta: RouteSnapshotMeta, table: RouteTable) -> io::Result<()> {
        let gate = self.gate.lock().clone();
        gate.opened().await;
        let own = self.clone();
        let kept = tokio::task::spawn_blocking(move || {
            let _writing = own.writing.lock();
            let covered = own.current.lock().as_ref().and_then(|current| current.meta.last_log_id);
            if covered.is_some() && covered >= meta.last_log_id {
                return Ok(());
            }
            own.write(&meta, &table)?;
            *own.current.lock() = Some(SnapshotOf::<RouteGroup, RouteTable> { meta, snapshot: table });
            Ok(())
        });
        kept.await.map_err(io::Error::other)?
    }

    /// A crash leaves the old file or the new one, whole.
    fn write(&self, meta: &RouteSnapshotMeta, table: &RouteTable) -> io::Result<()> {
        let unfinished = self.dir.join(UNFINISHED_FILE);
        let mut out = BufWriter::new(File::create(&unfinished)?);
        snapshot::write(&mut out, meta, table)?;
        out.flush()?;
        out.get_ref().sync_all()?;
        std::fs::rename(&unfinished, self.dir.join(FILE))?;
        File::open(&self.dir)?.sync_all()
    }
}

/// Writes tables to files and reads them.
#[derive(Debug, Clone, Copy)]
pub struct RouteSpool;

#[async_trait]
impl Spool<RouteGroup> for RouteSpool {
    type Data = RouteTable;

    async fn write(
        &self,
        snapshot: SnapshotOf<RouteGroup, RouteTable>,
        file: SpoolFile,
    ) -> io::Result<(RouteSnapshotMeta, SpoolFile)> {
        let written = tokio::task::spawn_blocking(move || {
            let mut out = BufWriter::new(file);
            snapshot::write(&mut out, &snapshot.meta, &snapshot.snapshot)?;
            Ok((snapshot.meta, out.into_inner()?))
        });
        written.await.map_err(io::Error::other)?
    }

    async fn read(&self, path: PathBuf) -> io::Result<RouteTable> {
        let read = tokio::task::spawn_blocking(move || {
            let (_, table) = snapshot::read(&mut BufReader::new(File::open(&path)?))?;
            std::fs::remove_file(path)?;
            Ok(table)
        });
        read.await.map_err(io::Error::other)?
    }
}
