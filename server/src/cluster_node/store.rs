//! The store of a clustered node, towards other nodes: it asks theirs by task, and answers for its own.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use althing_cluster::executor::TaskRefusal;
use althing_cluster::link::{LinkError, Links};
use althing_cluster::node_id::NodeId;
use althing_cluster::task::{ClusterTask, ReadStore, TaskReply, WriteStore};

use crate::storage::replicated::{RemoteError, RemoteStore, Replicated};
use crate::task_executor::StoreServer;

/// Longest wait for another node: above what it allows itself.
const DEADLINE: Duration = Duration::from_secs(10);

/// The stores of other nodes, over the links.
pub(super) struct LinkStore(pub(super) Arc<Links>);

impl LinkStore {
    async fn ask(&self, node: NodeId, task: ClusterTask) -> Result<Bytes, RemoteError> {
        match self.0.ask(node, task, DEADLINE).await {
            Ok(TaskReply::ReadStore(answer) | TaskReply::WriteStore(answer)) => Ok(answer),
            Ok(other) => Err(RemoteError::Unknown(format!("answered as {}", other.kind().label()))),
            Err(error) => Err(match &error {
                LinkError::NotMember(_)
                | LinkError::NotConnected
                | LinkError::Full
                | LinkError::TooLarge(_)
                | LinkError::TooOld { .. }
                | LinkError::Refused(
                    TaskRefusal::Suspended
                    | TaskRefusal::StaleSender
                    | TaskRefusal::Unknown(_)
                    | TaskRefusal::Malformed(_)
                    | TaskRefusal::Failed(_),
                ) => RemoteError::Refused(error.to_string()),
                LinkError::Refused(TaskRefusal::ReplyLost)
                | LinkError::Disconnected
                | LinkError::Deadline
                | LinkError::PeerDown
                | LinkError::Wire(_) => RemoteError::Unknown(error.to_string()),
            }),
        }
    }
}

#[async_trait]
impl RemoteStore for LinkStore {
    async fn read(&self, node: NodeId, query: Bytes) -> Result<Bytes, RemoteError> {
        self.ask(node, ReadStore { query }.into()).await
    }

    async fn write(&self, node: NodeId, command: Bytes) -> Result<Bytes, RemoteError> {
        self.ask(node, WriteStore { command }.into()).await
    }
}

/// Answers other nodes, once the store is there: it needs the cluster, which needs who answers.
#[derive(Default)]
pub(super) struct LateStore(OnceLock<Arc<Replicated>>);

impl LateStore {
    pub(super) fn set(&self, store: Arc<Replicated>) {
        // A second one would never be asked.
        let _ = self.0.set(store);
    }

    fn get(&self) -> Result<&Arc<Replicated>, String> {
        self.0.get().ok_or_else(|| "the node is starting".to_owned())
    }
}

#[async_trait]
impl StoreServer for LateStore {
    async fn read(&self, query: Bytes) -> Result<Bytes, String> {
        self.get()?.answer_read(query).await
    }

    async fn write(&self, command: Bytes) -> Result<Bytes, String> {
        self.get()?.answer_write(command).await
    }
}
