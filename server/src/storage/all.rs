//! All stores of a node as one value, wherever they are.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use althing_proto::jid::BareJid;
use althing_proto::stanza_id::StanzaId;
use althing_proto::time::Timestamp;
use bytes::Bytes;
use tokio::task::unconstrained;

use super::messages::{KeepFor, KeepMessage, Kept};
use super::streams::Handled;
use super::{
    Accounts, Archive, Backups, Directory, Documents, EmbeddedOptions, Engine, Inbox, Logins, Logouts,
    Messages, Privacy, PrivateData, Retention, Rosters, StorageError, Streams, embedded, memory, metered,
    replicated,
};
use crate::metrics::NodeMetrics;

/// A place that has all of it.
trait Place:
    Accounts
    + Rosters
    + Privacy
    + PrivateData
    + Documents
    + Directory
    + Logouts
    + Logins
    + Messages
    + Inbox
    + Archive
    + Retention
    + Streams
    + Backups
    + Engine
{
}

impl<S> Place for S where
    S: Accounts
        + Rosters
        + Privacy
        + PrivateData
        + Documents
        + Directory
        + Logouts
        + Logins
        + Messages
        + Inbox
        + Archive
        + Retention
        + Streams
        + Backups
        + Engine
{
}

/// What becomes of a message that is being kept.
pub type Keeping = Pin<Box<dyn Future<Output = Result<Vec<Kept>, StorageError>> + Send>>;

/// All stores of a node, wherever they are.
#[derive(Clone)]
pub struct Storage {
    /// Who may log in.
    pub accounts: Arc<dyn Accounts>,
    /// Who is in whose roster.
    pub rosters: Arc<dyn Rosters>,
    /// Whom users block.
    pub privacy: Arc<dyn Privacy>,
    /// What modules keep for users.
    pub private: Arc<dyn PrivateData>,
    /// Things of users that are too large for a row.
    pub documents: Arc<dyn Documents>,
    /// Who is found by which word.
    pub directory: Arc<dyn Directory>,
    /// When users were here last.
    pub logouts: Arc<dyn Logouts>,
    /// What sessions begin with.
    pub logins: Arc<dyn Logins>,
    /// Messages that are kept.
    pub messages: Arc<dyn Messages>,
    /// Messages that wait for their owners.
    pub inbox: Arc<dyn Inbox>,
    /// Messages that their owners look up.
    pub archive: Arc<dyn Archive>,
    /// What has been kept for long enough.
    pub retention: Arc<dyn Retention>,
    /// What is known of streams whose node is lost.
    pub streams: Arc<dyn Streams>,
    /// All of it at once.
    pub backups: Arc<dyn Backups>,
    /// The place itself.
    pub engine: Arc<dyn Engine>,
}

impl Storage {
    /// Stores that live as long as this value.
    #[must_use]
    pub fn memory() -> Self {
        Self::of(Arc::new(memory::Memory::default()))
    }

    /// Opens the embedded store below `dir`, or makes it. Blocks for as long as recovery takes.
    ///
    /// # Errors
    /// [`StorageError::Locked`] if another process has it, [`StorageError::WrongVersion`] if another
    /// release made it, [`StorageError::Corrupt`] and [`StorageError::Io`] as they say.
    pub fn open_embedded(dir: &Path, options: EmbeddedOptions) -> Result<Self, StorageError> {
        Ok(Self::of(Arc::new(embedded::Embedded::open(dir, options)?)))
    }

    /// The stores of a clustered node.
    #[must_use]
    pub fn replicated(store: Arc<replicated::Replicated>) -> Self {
        Self::of(store)
    }

    fn of<S: Place + 'static>(store: Arc<S>) -> Self {
        Storage {
            accounts: store.clone(),
            rosters: store.clone(),
            privacy: store.clone(),
            private: store.clone(),
            documents: store.clone(),
            directory: store.clone(),
            logouts: store.clone(),
            logins: store.clone(),
            messages: store.clone(),
            inbox: store.clone(),
            archive: store.clone(),
            retention: store.clone(),
            streams: store.clone(),
            backups: store.clone(),
            engine: store,
        }
    }

    /// The same stores, whose reads and writes are timed and whose failures are counted.
    #[must_use]
    pub fn metered(self, metrics: &NodeMetrics) -> Self {
        Self::of(Arc::new(metered::Metered::new(self, metrics.clone())))
    }

    /// See [`Messages::keep`]. The message has its place in the order when this returns.
    pub fn keep(&self, message: KeepMessage) -> Keeping {
        self.keep_and_handle(message, None)
    }

    /// The same, with what is handled of the sender's stream when that is done: [`Streams::keep`].
    pub fn keep_and_handle(&self, message: KeepMessage, handled: Option<Handled>) -> Keeping {
        let (messages, streams) = (self.messages.clone(), self.streams.clone());
        // Without the budget of a task: a session handles many messages in one poll, and what is put off has no place.
        let mut keeping: Keeping = Box::pin(unconstrained(async move {
            match handled {
                Some(handled) => streams.keep(message, handled).await,
                None => messages.keep(message).await,
            }
        }));
        match keeping.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(kept) => Box::pin(std::future::ready(kept)),
            Poll::Pending => keeping,
        }
    }

    /// Ends when all of that sender that was to be kept before is kept, or is not.
    ///
    /// # Errors
    /// As every write.
    pub async fn kept_so_far(&self, sender: &BareJid) -> Result<(), StorageError> {
        // A message that nobody keeps, which has its place among those of its sender.
        let (id, stamp) = (StanzaId::from_bytes([0; StanzaId::BYTES]), Timestamp::from_millis(0));
        let (owner, peer) = (sender.clone(), sender.clone().into());
        let owners = vec![KeepFor { owner, peer, outgoing: true, archive: None, inbox: None }];
        let nothing = KeepMessage { name: None, id, stamp, xml: Bytes::new(), owners };
        self.keep(nothing).await.map(|_not| ())
    }

    /// See [`Engine::flush`].
    ///
    /// # Errors
    /// As every write.
    pub async fn flush(&self) -> Result<(), StorageError> {
        self.engine.flush().await
    }

    /// See [`Engine::close`].
    ///
    /// # Errors
    /// If the last flush failed.
    pub async fn close(&self) -> Result<(), StorageError> {
        self.engine.close().await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use althing_proto::jid::BareJid;
    use async_trait::async_trait;

    use super::*;

    /// Counts what has its place, as a queue with room gives it: for a unit of the budget of a task.
    #[derive(Default)]
    struct Queue(AtomicUsize);

    #[async_trait]
    impl Messages for Queue {
        async fn keep(&self, _: KeepMessage) -> Result<Vec<Kept>, StorageError> {
            tokio::task::consume_budget().await;
            self.0.fetch_add(1, Ordering::Relaxed);
            std::future::pending().await
        }

        async fn retract(&self, _: &BareJid, _: StanzaId, _: Bytes) -> Result<bool, StorageError> {
            Ok(false)
        }
    }

    /// R19: however many messages come at once.
    #[tokio::test]
    async fn r19_each_message_has_its_place_when_it_is_taken() {
        const MANY: usize = 1_000;
        let queue = Arc::new(Queue::default());
        let storage = Storage { messages: queue.clone(), ..Storage::memory() };
        let message = || KeepMessage {
            name: None,
            id: StanzaId::from_bytes([0; StanzaId::BYTES]),
            stamp: Timestamp::from_millis(0),
            xml: Bytes::new(),
            owners: Vec::new(),
        };
        let keepings: Vec<Keeping> = (0..MANY).map(|_| storage.keep(message())).collect();
        assert_eq!((queue.0.load(Ordering::Relaxed), keepings.len()), (MANY, MANY));
    }
}
