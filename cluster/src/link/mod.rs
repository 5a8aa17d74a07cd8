//! Connections between nodes: frames, lanes, sending and resending.
//!
//! Each node dials each other: what it sends goes over connections that it has opened, one a lane; what comes back
//! on them are answers. Tasks are sent in order, acknowledged when they have been run, sent again on a new
//! connection and dropped by the receiver when they have been there: while both processes live each task is run
//! once, in order. When the receiver's process dies, its successor may get tasks that were run before, but no request
//! that was sent: who waits gets `ReplyLost`, for nobody knows whether it was run.
//!
//! | queue                         | bound                 | when full                              |
//! |-------------------------------|-----------------------|----------------------------------------|
//! | tasks and requests to a peer  | [`LinkLimits`]        | refused: [`LinkError::Full`]           |
//! | tasks of a peer, in order     | 1,024                 | its connection is not read on          |
//! | requests of a peer, aside     | 256                   | its connection is not read on          |
//! | replies kept for repeating    | 8,192 and 16 MiB      | the oldest goes: `ReplyLost`           |
//! | own tasks, in order           | 1,024                 | refused: [`LinkError::Full`]           |
//! | connections accepted          | 4,096                 | the next waits in the kernel           |
//! | nodes whose tasks are known   | 1,024                 | those not connected are forgotten, else refused: [`hello::Refusal::Busy`] |

mod counts;
mod dial;
pub mod discovery;
mod envelope;
pub mod error;
pub mod frame;
pub mod hello;
mod inbox;
mod io;
mod links;
mod outbox;
mod peer;
mod server;
pub mod tls;
mod worker;

use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};

pub use counts::TaskCount;
pub use error::{ConnectError, DiscoveryError, LinkError};
pub use links::Links;
pub use outbox::OutboxLimits;
pub use peer::LaneStatus;
pub use tls::LinkTls;

use crate::node_id::NodeId;
use hello::{ClusterId, Hello};

/// Times of links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkTimes {
    /// A side that has nothing to say says so this often.
    pub heartbeat: Duration,
    /// A connection on which nothing comes, or nothing can be sent, for this long is broken. Several heartbeats.
    pub silence: Duration,
    /// Longest time to connect: address, TCP, TLS and hello.
    pub connect: Duration,
    /// Pause before the first attempt to connect again; each further attempt doubles it.
    pub backoff_min: Duration,
    /// Longest pause between attempts.
    pub backoff_max: Duration,
    /// Longest time that one task of another node may run.
    pub run: Duration,
}

impl Default for LinkTimes {
    fn default() -> Self {
        LinkTimes {
            heartbeat: Duration::from_millis(500),
            silence: Duration::from_secs(2),
            connect: Duration::from_secs(2),
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(2),
            run: Duration::from_secs(30),
        }
    }
}

/// How much may wait for one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkLimits {
    /// On the task lane.
    pub tasks: OutboxLimits,
    /// On each of the others.
    pub requests: OutboxLimits,
}

impl Default for LinkLimits {
    fn default() -> Self {
        LinkLimits {
            tasks: OutboxLimits { entries: 8192, bytes: 16 << 20 },
            requests: OutboxLimits { entries: 256, bytes: 64 << 20 },
        }
    }
}

/// Another node, as this one calls it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its id; a node that answers with another is not talked to.
    pub node: NodeId,
    /// Its name, which its certificate must bear.
    pub name: String,
    /// `host:port`; the host is looked up at each connect.
    pub address: String,
}

/// What all connections of one node share.
pub(crate) struct Context {
    /// All but the cluster, which may be known later.
    hello: Hello,
    cluster: watch::Sender<ClusterId>,
    pub(crate) tls: LinkTls,
    pub(crate) times: LinkTimes,
}

impl Context {
    pub(crate) fn new(hello: Hello, tls: LinkTls, times: LinkTimes) -> Self {
        let cluster = watch::Sender::new(hello.cluster);
        Context { hello, cluster, tls, times }
    }

    /// What this node says of itself now.
    pub(crate) fn hello(&self) -> Hello {
        Hello { cluster: *self.cluster.borrow(), ..self.hello.clone() }
    }

    /// Notes the cluster that the node belongs to.
    pub(crate) fn set_cluster(&self, cluster: ClusterId) {
        self.cluster.send_replace(cluster);
    }

    /// Returns when the cluster is another than at the call; never if it stays.
    pub(crate) async fn cluster_changes(&self) {
        // The sender is in `self`: it cannot go first.
        let _ = self.cluster.subscribe().changed().await;
    }
}

/// Returns when there is something to write, and at `until` at the latest.
pub(crate) async fn wake(notify: &Notify, until: Instant) {
    // Either way there is something to do.
    let _ = timeout_at(until, notify.notified()).await;
}
