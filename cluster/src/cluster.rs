//! One node's part in the cluster, assembled: links, both groups, lease, members, on a runtime of their own, so that
//! a login storm cannot starve heartbeats.

mod store;
mod view;

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};

use crate::executor::TaskExecutor;
use crate::lease::{Lease, LeaseTimes};
use crate::link::hello::{ClusterId, Hello, VERSION_MAX, VERSION_MIN};
use crate::link::{LinkLimits, LinkTimes, LinkTls, Links};
use crate::members::{ClusterIdentity, FileIdentity, Founder, Members, Settled};
use crate::node_id::{Incarnation, NodeId};
use crate::raft::group::GroupParts;
use crate::raft::service::{Groups, Late};
use crate::raft::state_machine::RouteSpool;
use crate::raft::{
    AppliedRoutes, GroupHandle, GroupTimes, LogOptions, LogStore, RaftRoutes, RouteGroup, RouteStateMachine,
    StoreGroup, StoreMachine, StoreSpool,
};
use crate::routes::command::NodeDown;
use crate::routes::{RouteEvent, Routes};
use crate::store_log::{Replica, StoreLog};
use crate::upkeep::granting::Granting;
use crate::upkeep::holder::Holder;

pub use view::{ClusterView, GroupView, MemberView};

/// Threads of the cluster's runtime. What they do is short; the disk has threads of its own.
const WORKERS: usize = 2;
/// Longest wait for each step of an orderly end.
const FAREWELL: Duration = Duration::from_secs(3);
/// sled's page cache for each log, in bytes.
const LOG_CACHE: u64 = 16 << 20;

/// How a node takes part.
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// The node's id.
    pub node: NodeId,
    /// Its stable name, which its certificate bears.
    pub name: String,
    /// Under which `host:port` others reach it.
    pub address: String,
    /// The fixed initial set: names and addresses.
    pub initial: Vec<(String, String)>,
    /// The directory of the logs; made when missing.
    pub dir: PathBuf,
    /// What links prove themselves with.
    pub tls: LinkTls,
    /// Times of the groups.
    pub groups: GroupTimes,
    /// Times of the lease.
    pub lease: LeaseTimes,
}

/// What the cluster tells while it runs.
pub struct Hooks {
    /// A batch of that group was answered: so many commands, in that time.
    pub on_batch: Arc<dyn Fn(&'static str, usize, Duration) + Send + Sync>,
    /// This node, as the leader, has declared a node down.
    pub on_down: Box<dyn Fn(NodeId) + Send + Sync>,
}

/// Why a node cannot take part.
#[derive(Debug, thiserror::Error)]
#[error("the cluster cannot be joined: {0}")]
pub struct ClusterError(String);

impl ClusterError {
    fn of(error: impl std::fmt::Display) -> Self {
        ClusterError(error.to_string())
    }
}

/// One node's part in the cluster. Dropping it ends it at once, as a crash would; [`Cluster::stop`] is orderly.
pub struct Cluster {
    runtime: Option<Runtime>,
    parts: Parts,
    routes: Arc<RaftRoutes>,
    events: Mutex<Option<mpsc::UnboundedReceiver<RouteEvent>>>,
    waiting: watch::Receiver<Option<String>>,
    failure: watch::Receiver<Option<String>>,
}

#[derive(Clone)]
struct Parts {
    links: Arc<Links>,
    table: AppliedRoutes,
    route_group: GroupHandle<RouteGroup, RouteStateMachine>,
    store_group: GroupHandle<StoreGroup, StoreMachine>,
    lease: Lease,
}
