//! One Raft group of this node, from its parts: log, state machine, network, proposer, barrier.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::metrics::RaftMetrics;
use openraft::storage::RaftStateMachine;
use openraft::{Config, Instant as _, Raft, ReadPolicy, SnapshotPolicy};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::answers::{OwnAnswers, TellsAnswers};
use super::barrier::Barrier;
use super::leader::Leader;
use super::log_store::LogStore;
use super::network::{Network, Snapshots, dial};
use super::proposer::{OnBatch, Proposer};
use super::service::{Serve, Service};
use super::spool::{Spool, remove_left_over};
use super::types::Group;
use crate::disk::{Gate, Room};
use crate::executor::LaneService;
use crate::link::Links;
use crate::link::frame::Lane;
use crate::node_id::{Incarnation, NodeId};

/// Entries after which the log is cut off.
const SNAPSHOT_AFTER: u64 = 20_000;
/// Entries that stay before the cut, for nodes that are a little behind.
const KEPT: u64 = 2_000;
/// Most entries sent to a follower at once; bytes are bounded by the log.
const MAX_PAYLOAD: u64 = 1_024;
/// Longest time to send and take in a snapshot, in milliseconds.
const SNAPSHOT_MS: u64 = 600_000;

/// Times of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupTimes {
    /// The leader says that it is there this often.
    pub heartbeat: Duration,
    /// An election begins 1.5 to 2 times this after the leader was heard last.
    pub election: Duration,
}

impl Default for GroupTimes {
    fn default() -> Self {
        GroupTimes { heartbeat: Duration::from_millis(250), election: Duration::from_millis(800) }
    }
}

/// What a group is made of.
pub(crate) struct GroupParts<C: Group, M, S> {
    pub(crate) links: Arc<Links>,
    /// This start of the process.
    pub(crate) start: Incarnation,
    /// Where snapshots lie while they come and go.
    pub(crate) dir: PathBuf,
    pub(crate) times: GroupTimes,
    pub(crate) log: LogStore<C>,
    pub(crate) machine: M,
    pub(crate) applied: watch::Receiver<u64>,
    pub(crate) spool: S,
    /// Who answers what members say to each other beside Raft.
    pub(crate) members: Arc<dyn LaneService>,
    pub(crate) on_batch: OnBatch,
    /// Closed while the disk has no room for this group: then it stands still on this node.
    pub(crate) gate: Gate,
}

/// One group, as this node uses it.
pub struct GroupHandle<C: Group, M: RaftStateMachine<C>> {
    /// openraft's own handle.
    pub raft: Raft<C, M>,
    /// Changes.
    pub proposer: Proposer<C>,
    /// Linearizable reads.
    pub barrier: Barrier,
    /// How far this node has applied the log.
    pub applied: watch::Receiver<u64>,
    gate: Gate,
    leader_changes: Arc<AtomicU64>,
    /// Snapshots that were not brought to a member.
    failures: Arc<AtomicU64>,
}

impl<C: Group, M: RaftStateMachine<C>> Clone for GroupHandle<C, M> {
    fn clone(&self) -> Self {
        let (raft, proposer) = (self.raft.clone(), self.proposer.clone());
        let leader_changes = self.leader_changes.clone();
        GroupHandle {
            raft,
            proposer,
            barrier: self.barrier.clone(),
            applied: self.applied.clone(),
            gate: self.gate.clone(),
            leader_changes,
            failures: self.failures.clone(),
        }
    }
}

/// That this node leads a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leadership {
    /// In which term.
    pub term: u64,
    /// How long ago a quorum acknowledged it last; `None` before the first time.
    pub acked: Option<Duration>,
}

/// A group in numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupNumbers {
    /// `routes` or `store`.
    pub name: &'static str,
    /// Who leads, as far as this node knows.
    pub leader: Option<NodeId>,
    /// The term.
    pub term: u64,
    /// The index of the last entry in this node's log.
    pub last_log: u64,
    /// The index of the last entry that this node has applied.
    pub applied: u64,
    /// Who votes.
    pub voters: Vec<NodeId>,
    /// Who only follows.
    pub learners: Vec<NodeId>,
    /// Whether this node leads.
    pub is_leader: bool,
    /// How often this node has seen another leader than before.
    pub leader_changes: u64,
    /// How many linearizable reads wait for their question to the leader.
    pub reads_waiting: u64,
    /// How often this node, as the leader, could not bring a snapshot to a member that was there.
    pub snapshot_failures: u64,
}

/// Why a group cannot be started.
#[derive(Debug, thiserror::Error)]
#[error("the {group} group cannot be started: {why}")]
pub struct GroupError {
    /// Which one.
    pub group: &'static str,
    /// What is wrong.
    pub why: String,
}

impl<C: Group, M: RaftStateMachine<C>> GroupHandle<C, M> {
    /// Starts a group, on the runtime that it shall run on.
    pub(crate) async fn start<S>(parts: GroupParts<C, M, S>) -> Result<(Self, Arc<dyn Serve>), GroupError>
    where
        S: Spool<C>,
        M: RaftStateMachine<C, SnapshotData = S::Data> + TellsAnswers<C::R>,
    {
        let GroupParts {
            links,
            start,
            dir,
            times,
            log,
            mut machine,
            applied,
            spool,
            members,
            on_batch,
            gate,
        } = parts;
        let failed = |why: String| GroupError { group: C::NAME, why };
        let config = config::<C>(times).validate().map_err(|error| failed(error.to_string()))?;
        let left = dir.clone();
        let removed = tokio::task::spawn_blocking(move || remove_left_over(&left)).await;
        removed.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))?;
        let is_store = C::LANE == Lane::Store;
        // A copy of the store takes no room that anything else may need.
        let room = if is_store { gate.for_more(Room::Enough) } else { gate.clone() };
        let failures = Arc::new(AtomicU64::new(0));
        let snapshots = Snapshots {
            spool: spool.clone(),
            dir: dir.clone(),
            room,
            paces: Arc::default(),
            failures: failures.clone(),
        };
        let network = Network { links: links.clone(), snapshots };
        let answers = OwnAnswers::new(links.node(), start);
        machine.tell_answers(answers.clone());
        let raft = Raft::new(links.node(), Arc::new(config), network, log, machine);
        let raft = raft.await.map_err(|error| failed(error.to_string()))?;
        let leader_changes = Arc::new(AtomicU64::new(0));
        tokio::spawn(follow(raft.clone(), links.clone(), leader_changes.clone()));
        let leader = Leader { raft: raft.clone(), links: links.clone(), gate: gate.clone() };
        // Whoever holds a route needs it in this node's table.
        let elsewhere = if is_store { gate.clone() } else { Gate::default() };
        let proposer = Proposer::start(leader.clone(), answers, applied.clone(), (on_batch, elsewhere));
        let barrier = Barrier::start(leader, applied.clone());
        let incoming = Mutex::new(HashMap::new());
        let service = Service {
            raft: raft.clone(),
            spool,
            dir,
            members,
            incoming,
            gate: gate.clone(),
            hears: Arc::default(),
            takes_in: Arc::default(),
        };
        let handle = GroupHandle { raft, proposer, barrier, applied, gate, leader_changes, failures };
        Ok((handle, Arc::new(service)))
    }

    /// Who leads, as far as this node knows.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        self.raft.metrics().borrow_watched().current_leader
    }

    /// Lets the others elect one of them while this node has no room to lead, and takes no part itself.
    pub(crate) fn stand_aside_when_full(&self) {
        let own = self.raft.metrics().borrow_watched().id;
        let is_full =
            !self.gate.is_open() && self.metrics().membership_config.voter_ids().any(|id| id != own);
        self.raft.runtime_config().heartbeat(!is_full);
        self.raft.runtime_config().elect(!is_full);
    }

    /// Hands leadership to another voter, if this node leads and there is one that is not far behind. Returns when
    /// another leads.
    pub async fn hand_on(&self) {
        self.hand_on_to(|_, _, _| true).await;
    }

    /// The same, to one for which `may_lead` holds: which it is, for how long it was not heard, how many entries it lacks.
    pub async fn hand_on_to(&self, may_lead: impl Fn(NodeId, Duration, u64) -> bool) {
        let metrics = self.metrics();
        if metrics.current_leader != Some(metrics.id) {
            return;
        }
        let progress = metrics.replication.iter().flatten();
        let others = progress.filter(|(node, _)| **node != metrics.id);
        let voters: Vec<NodeId> = metrics.membership_config.voter_ids().collect();
        // Of those that have as much the one that was heard last: an heir that is gone itself takes nothing over.
        let silence = |node: &NodeId| {
            let heard = metrics.heartbeat.as_ref().and_then(|heartbeats| heartbeats.get(node)?.as_ref());
            heard.map_or(Duration::MAX, |heard| heard.elapsed())
        };
        let last = metrics.last_log_index.unwrap_or(0);
        let best = others
            .filter(|(node, matched)| {
                let lacks = last.saturating_sub(matched.as_ref().map_or(0, |id| id.index));
                voters.contains(node) && may_lead(**node, silence(node), lacks)
            })
            .max_by_key(|(node, matched)| ((*matched).clone(), Reverse(silence(node))));
        let Some((heir, _)) = best else { return };
        if self.raft.trigger().transfer_leader(*heir).await.is_err() {
            return;
        }
        let mut changes = self.raft.metrics();
        while self.leader().is_none_or(|leader| leader == metrics.id) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// How often this node has seen another leader than before.
    #[must_use]
    pub fn leader_changes(&self) -> u64 {
        self.leader_changes.load(Ordering::Relaxed)
    }

    /// Whether this node leads, and since when nobody has said so.
    #[must_use]
    pub fn leadership(&self) -> Option<Leadership> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let leads = metrics.state.is_leader() && metrics.current_leader == Some(metrics.id);
        let acked = metrics.last_quorum_acked.as_ref().map(|instant| instant.elapsed());
        leads.then_some(Leadership { term: metrics.current_term, acked })
    }

    /// The index that a linearizable read must have applied; only on the leader, while its lease holds. All entries
    /// of earlier leaders are at or below it.
    ///
    /// # Errors
    /// Why not.
    pub async fn read_index(&self) -> Result<u64, String> {
        let index = self.raft.get_read_log_id(ReadPolicy::LeaseRead).await;
        index.map(|(index, _)| index.log_id().index).map_err(|error| error.to_string())
    }

    /// Writes an entry as the leader that this node is now, or not at all; it is not tried again.
    ///
    /// # Errors
    /// Why it may not have been written.
    pub async fn write_once(&self, batch: C::D) -> Result<(), String> {
        self.raft.client_write(batch).await.map(|_| ()).map_err(|error| error.to_string())
    }

    /// The numbers that operators see.
    #[must_use]
    pub fn numbers(&self) -> GroupNumbers {
        let metrics = self.metrics();
        GroupNumbers {
            name: C::NAME,
            leader: metrics.current_leader,
            term: metrics.current_term,
            last_log: metrics.last_log_index.unwrap_or(0),
            applied: *self.applied.borrow(),
            voters: metrics.membership_config.voter_ids().collect(),
            learners: metrics.membership_config.membership().learner_ids().collect(),
            is_leader: metrics.current_leader == Some(metrics.id),
            leader_changes: self.leader_changes(),
            reads_waiting: self.barrier.waiting() as u64,
            snapshot_failures: self.failures.load(Ordering::Relaxed),
        }
    }

    /// What openraft says of the group now.
    #[must_use]
    pub fn metrics(&self) -> RaftMetrics<C> {
        self.raft.metrics().borrow_watched().clone()
    }
}

/// Counts leaders, and dials whoever is a member, also where this node only follows: it proposes to others and may have to win their
/// votes. Ends with the group.
async fn follow<C: Group, M: RaftStateMachine<C>>(
    raft: Raft<C, M>,
    links: Arc<Links>,
    changes: Arc<AtomicU64>,
) {
    let mut metrics = raft.metrics();
    let mut known = None;
    loop {
        let (membership, leader) = {
            let metrics = metrics.borrow_watched();
            (metrics.membership_config.clone(), metrics.current_leader)
        };
        if leader.is_some() && leader != known {
            changes.fetch_add(1, Ordering::Relaxed);
            known = leader;
        }
        for (node, member) in membership.nodes() {
            dial(&links, *node, member);
        }
        if metrics.changed().await.is_err() {
            return;
        }
    }
}

fn config<C: Group>(times: GroupTimes) -> Config {
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    Config {
        cluster_name: C::NAME.to_owned(),
        heartbeat_interval: millis(times.heartbeat),
        // A follower first waits until its leader's lease is over, which is the longest timeout, and then for a
        // timeout: 1.5 to 2 elections in all.
        election_timeout_min: millis(times.election / 2),
        election_timeout_max: millis(times.election),
        install_snapshot_timeout: SNAPSHOT_MS,
        max_payload_entries: MAX_PAYLOAD,
        replication_lag_threshold: SNAPSHOT_AFTER + KEPT,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_AFTER),
        max_in_snapshot_log_to_keep: KEPT,
        // A node that was cut off must not end the others' leader when it is back.
        enable_pre_vote: Some(true),
        // A disk that has lost the end of its log must not end the leader: it is sent that end once more.
        allow_log_reversion: Some(true),
        ..Config::default()
    }
}
