//! The start of a node: asks every name, and does what the plan says, until the node belongs to a cluster.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::Instant;

use super::group::{Change, Group, GroupError, GroupName};
use super::identity::ClusterIdentity;
use super::message::{Answer, Join, Place, Question};
use super::plan::{self, Own, Plan, PlanError, Said};
use crate::link::Links;
use crate::link::hello::ClusterId;
use crate::node_id::{Incarnation, NodeId};
use crate::raft::Member;
use crate::wire;

/// Longest wait for one answer: above what a change of members may take to be committed.
const ANSWER: Duration = Duration::from_secs(8);
/// First and longest pause between two rounds.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// At most so often the log says what the node waits for.
const LOG: Duration = Duration::from_secs(5);

/// A name, and where to ask for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seed {
    /// The node's name, which its certificate bears.
    pub name: String,
    /// `host:port` of its links.
    pub address: String,
}

/// Asks other nodes. [`Links`] do it on the discovery lane.
#[async_trait]
pub trait Asker: Send + Sync {
    /// The answer of the node of that name.
    ///
    /// # Errors
    /// Why there is none, for an operator.
    async fn ask(&self, seed: &Seed, question: &Question) -> Result<Answer, String>;

    /// The node belongs to that cluster now.
    fn set_cluster(&self, cluster: ClusterId);
}

#[async_trait]
impl Asker for Links {
    async fn ask(&self, seed: &Seed, question: &Question) -> Result<Answer, String> {
        let question = wire::encode(question).map_err(|error| error.to_string())?;
        let (_, answer) = self
            .discover(&seed.name, &seed.address, question.into(), ANSWER)
            .await
            .map_err(|error| error.to_string())?;
        wire::decode(&answer).map_err(|error| error.to_string())
    }

    fn set_cluster(&self, cluster: ClusterId) {
        Links::set_cluster(self, cluster);
    }
}

/// How a node came to belong to its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// It has data of it. [`Settle::announce`] is to be run beside what follows.
    Started(ClusterId),
    /// It is a member of all its groups.
    Joined(ClusterId),
    /// It has begun it.
    Founded(ClusterId),
}

/// Why a node cannot belong to a cluster without an operator.
#[derive(Debug, thiserror::Error)]
pub enum SettleError {
    /// The answers do not fit.
    #[error("{0}")]
    Plan(#[from] PlanError),
    /// Another node has refused this one for good.
    #[error("refused by {by}: {why}")]
    Refused {
        /// Who.
        by: String,
        /// Why.
        why: String,
    },
    /// The cluster's id cannot be kept.
    #[error("{0}")]
    Identity(#[from] io::Error),
    /// A group has stopped.
    #[error("{0}")]
    Group(#[from] GroupError),
}

/// What a starting node needs to settle.
pub struct Settle {
    /// This node, as others are to call it.
    pub own: Place,
    /// Which start of it this is.
    pub incarnation: Incarnation,
    /// The initial set of the configuration; this node's own entry is not asked.
    pub initial: Vec<Seed>,
    /// Members known from the disk.
    pub known: Vec<Seed>,
    /// The groups that this node shall be a member of; the group of routes is the first.
    pub groups: Vec<Arc<dyn Group>>,
    /// Where the cluster's id is kept.
    pub identity: Arc<dyn ClusterIdentity>,
    /// Who asks.
    pub asker: Arc<dyn Asker>,
    /// A random number that names the cluster if this node begins it.
    pub fresh: ClusterId,
    /// For the readiness probe: what the node waits for, empty when for nothing.
    pub status: watch::Sender<String>,
}

impl Settle {
    /// Asks until the node belongs to a cluster. Dropping the future is safe at any time.
    ///
    /// # Errors
    /// [`SettleError`]: only an operator can help.
    pub async fn run(&self) -> Result<Settled, SettleError> {
        let mut waiting = Waiting::new(&self.status);
        loop {
            let heard = self.hear().await;
            let own = Own {
                name: self.own.name.clone(),
                node: self.own.node,
                cluster: self.identity.cluster(),
                initialized: self.is_initialized().await?,
            };
            let initial: Vec<String> = self.initial.iter().map(|seed| seed.name.clone()).collect();
            let settled = match plan::decide(&own, &initial, &heard)? {
                Plan::Wait(reasons) => {
                    let texts: Vec<String> =
                        reasons.iter().map(|(name, why)| format!("{name}: {why}")).collect();
                    waiting.pause(&texts.join("; ")).await;
                    continue;
                }
                Plan::Start(cluster) => {
                    self.asker.set_cluster(cluster);
                    Settled::Started(cluster)
                }
                Plan::Join { cluster, via } => {
                    self.adopt(cluster).await?;
                    tracing::info!(cluster = %cluster, via, "joining the cluster");
                    self.join_all(cluster, &mut waiting).await?;
                    Settled::Joined(cluster)
                }
                Plan::Initialize(voters) => self.found(self.members(&voters)).await?,
                Plan::FinishFounding => {
                    let voters = self.groups.first().map(|routes| routes.view().members);
                    self.found(voters.unwrap_or_default()).await?
                }
            };
            waiting.over();
            return Ok(settled);
        }
    }

    /// Tells the leaders where this node is, which may be elsewhere than at its last start, until they know.
    ///
    /// # Errors
    /// [`SettleError::Refused`], when the node is no longer wanted.
    pub async fn announce(&self, cluster: ClusterId) -> Result<(), SettleError> {
        // Readiness does not hang on it: the node serves, or not, by its lease.
        let mut waiting = Waiting::new(&watch::Sender::default());
        self.join_all(cluster, &mut waiting).await
    }

    /// Groups first, the id after them: nobody joins what has not begun. Stopped in between, the node goes on at
    /// its next start.
    async fn found(&self, voters: BTreeMap<NodeId, Member>) -> Result<Settled, SettleError> {
        for group in &self.groups {
            group.initialize(voters.clone()).await?;
        }
        self.adopt(self.fresh).await?;
        tracing::info!(cluster = %self.fresh, voters = voters.len(), "cluster begun");
        Ok(Settled::Founded(self.fresh))
    }

    /// On the disk before anybody is told.
    async fn adopt(&self, cluster: ClusterId) -> Result<(), SettleError> {
        let identity = self.identity.clone();
        tokio::task::spawn_blocking(move || identity.keep(cluster)).await.map_err(io::Error::other)??;
        self.asker.set_cluster(cluster);
        Ok(())
    }

    async fn is_initialized(&self) -> Result<bool, SettleError> {
        match self.groups.first() {
            Some(routes) => Ok(routes.is_initialized().await?),
            None => Ok(false),
        }
    }

    /// The initial voters, at the addresses of the configuration.
    fn members(&self, voters: &BTreeMap<NodeId, String>) -> BTreeMap<NodeId, Member> {
        let address = |name: &str| {
            let configured = self.initial.iter().find(|seed| seed.name == name);
            configured.filter(|_| name != self.own.name).map_or(&self.own.address, |seed| &seed.address)
        };
        let member = |name: &String| Member { name: name.clone(), address: address(name).clone() };
        voters.iter().map(|(node, name)| (*node, member(name))).collect()
    }

    /// All that can be asked, each name once.
    fn seeds(&self) -> Vec<&Seed> {
        let mut seeds: BTreeMap<&str, &Seed> = BTreeMap::new();
        // The configuration knows better than an old disk.
        for seed in self.initial.iter().chain(&self.known).filter(|seed| seed.name != self.own.name) {
            seeds.entry(&seed.name).or_insert(seed);
        }
        seeds.into_values().collect()
    }

    async fn hear(&self) -> BTreeMap<String, Said> {
        let asked = self.seeds().into_iter().map(async |seed| {
            let said = match self.asker.ask(seed, &Question::Whoami).await {
                Ok(Answer::Iam(iam)) => match iam.cluster {
                    Some(cluster) => {
                        let mut leaders = iam.leaders.into_iter();
                        let leader = leaders.find(|(group, _)| *group == GroupName::Routes);
                        let leader = leader.map(|(_, place)| place);
                        Said::Member { node: iam.node, cluster, leader }
                    }
                    None if iam.initialized => Said::Founding(iam.node),
                    None => Said::Empty(iam.node),
                },
                Ok(other) => Said::Unreachable(format!("it answers {other:?}")),
                Err(why) => Said::Unreachable(why),
            };
            (seed.name.clone(), said)
        });
        join_all(asked).await.into_iter().collect()
    }

    async fn join_all(&self, cluster: ClusterId, waiting: &mut Waiting) -> Result<(), SettleError> {
        for group in &self.groups {
            let (group, address) = (group.as_ref(), self.own.address.clone());
            let join = Join { cluster, group: group.name(), address, incarnation: self.incarnation };
            self.join(group, &Question::Join(join), waiting).await?;
        }
        Ok(())
    }

    /// Asks one after another until the leader has answered.
    async fn join(
        &self,
        group: &dyn Group,
        join: &Question,
        waiting: &mut Waiting,
    ) -> Result<(), SettleError> {
        let seeds = self.seeds();
        let mut turn = 0;
        let mut hint: Option<Seed> = None;
        loop {
            if group.view().leads {
                match self.put_self(group).await {
                    Ok(()) => return Ok(()),
                    Err(error) => waiting.pause(&error.to_string()).await,
                }
                continue;
            }
            let by_turn = seeds.get(turn % seeds.len().max(1)).map(|seed| (*seed).clone());
            turn += 1;
            let Some(seed) = hint.take().or(by_turn) else {
                waiting.pause("there is nobody to ask").await;
                continue;
            };
            let why = match self.asker.ask(&seed, join).await {
                Ok(Answer::Joined) => return Ok(()),
                Ok(Answer::Never(why)) => return Err(SettleError::Refused { by: seed.name, why }),
                Ok(Answer::Elsewhere(place)) if place.node != self.own.node => {
                    // At once, but for two that name each other.
                    let repeated = place.name == seed.name;
                    let why = format!("{place} leads the group of {}", group.name().label());
                    hint = Some(Seed { name: place.name, address: place.address });
                    if !repeated && turn % 4 != 0 {
                        continue;
                    }
                    why
                }
                Ok(Answer::Elsewhere(_)) => "this node is about to lead".to_owned(),
                Ok(Answer::Later(why)) => why,
                Ok(Answer::Iam(_)) => "it answers another question".to_owned(),
                Err(why) => why,
            };
            waiting.pause(&format!("{}: {why}", seed.name)).await;
        }
    }

    async fn put_self(&self, group: &dyn Group) -> Result<(), GroupError> {
        let member = Member { name: self.own.name.clone(), address: self.own.address.clone() };
        if group.view().members.get(&self.own.node) == Some(&member) {
            return Ok(());
        }
        group.change(Change::Put(self.own.node, member)).await
    }
}

/// Says what the node waits for, and waits longer and longer.
struct Waiting {
    status: watch::Sender<String>,
    pause: Duration,
    logged: Option<Instant>,
}

impl Waiting {
    fn new(status: &watch::Sender<String>) -> Self {
        Waiting { status: status.clone(), pause: PAUSES.0, logged: None }
    }

    async fn pause(&mut self, reasons: &str) {
        self.status.send_replace(format!("waits for {reasons}"));
        if self.logged.is_none_or(|logged| logged.elapsed() >= LOG) {
            self.logged = Some(Instant::now());
            tracing::info!(reason = reasons, "waiting for other nodes");
        }
        tokio::time::sleep(self.pause).await;
        self.pause = self.pause.saturating_mul(2).min(PAUSES.1);
    }

    fn over(&mut self) {
        self.status.send_replace(String::new());
    }
}
