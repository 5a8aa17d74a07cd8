//! What runs a task on the node that it was sent to: one trait, implemented by the server in one `match`.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::link::frame::Lane;
use crate::link::hello::Hello;
use crate::node_id::{Incarnation, NodeId};
use crate::task::{ClusterTask, TaskReply};

/// Who sent a task, and what it knew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskSource {
    /// The node.
    pub node: NodeId,
    /// Which start of it sent the task. The executor refuses one that its route table has declared down.
    pub incarnation: Incarnation,
    /// The index up to which the sender had applied the route log. The executor waits until its own table has
    /// it, so that it does not miss a session that the sender knows of.
    pub applied: u64,
}

/// Why a task was not run. New cases are added at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum TaskRefusal {
    /// The node does not know the kind.
    #[error("task kind {0} is unknown there")]
    Unknown(u16),
    /// The bytes are no task.
    #[error("the task is malformed: {0}")]
    Malformed(String),
    /// The node holds no lease: it acts on nothing until it has one again.
    #[error("the node is suspended")]
    Suspended,
    /// The sender has been declared down.
    #[error("the sender is declared down")]
    StaleSender,
    /// It was run, but its reply was lost and is no longer kept.
    #[error("the reply is lost")]
    ReplyLost,
    /// It began, and something failed.
    #[error("failed: {0}")]
    Failed(String),
}

/// How far a task has come when its turn is over.
pub enum Begun {
    /// It is done.
    Done(TaskReply),
    /// It waits for something that those behind it need not wait for, and goes on by itself.
    Later(BoxFuture<'static, Result<TaskReply, TaskRefusal>>),
}

/// Runs tasks. Tasks of one node that are in order are given one after another, each when the one before has
/// returned; the rest, and those of other nodes, at the same time.
#[async_trait]
pub trait TaskExecutor: Send + Sync + 'static {
    /// Runs `task` on this node and on no other.
    ///
    /// # Errors
    /// [`TaskRefusal`], which the sender gets if it asked for a reply. A refused task that wants no reply is
    /// logged and lost: wait where waiting helps, within the time that links allow a task.
    async fn execute(&self, source: TaskSource, task: ClusterTask) -> Result<TaskReply, TaskRefusal>;

    /// As [`execute`](Self::execute), for a task that is in order: it may say that its turn is over before it is done.
    ///
    /// # Errors
    /// As there.
    async fn begin(&self, source: TaskSource, task: ClusterTask) -> Result<Begun, TaskRefusal> {
        self.execute(source, task).await.map(Begun::Done)
    }
}

/// Answers requests of the lanes that carry no tasks.
#[async_trait]
pub trait LaneService: Send + Sync + 'static {
    /// Answers one request of node `from`. Requests run at the same time.
    ///
    /// # Errors
    /// [`TaskRefusal`], which the other node gets.
    async fn answer(&self, from: NodeId, lane: Lane, request: Bytes) -> Result<Bytes, TaskRefusal>;

    /// Answers a question on the discovery lane. `from` is what the asker says of itself: its certificate bears
    /// the name; cluster and node id are its word.
    ///
    /// # Errors
    /// [`TaskRefusal`], which the other node gets.
    async fn discover(&self, from: &Hello, request: Bytes) -> Result<Bytes, TaskRefusal> {
        self.answer(from.node, Lane::Discovery, request).await
    }
}

#[async_trait]
impl<T: LaneService> LaneService for Arc<T> {
    async fn answer(&self, from: NodeId, lane: Lane, request: Bytes) -> Result<Bytes, TaskRefusal> {
        (**self).answer(from, lane, request).await
    }

    async fn discover(&self, from: &Hello, request: Bytes) -> Result<Bytes, TaskRefusal> {
        (**self).discover(from, request).await
    }
}
