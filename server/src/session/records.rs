//! What the store knows of the node's streams (XEP-0198 §5), for the time when the node is lost.
//!
//! That a stream begins is in the order of the store before any message of it. What is handled goes with the messages
//! (`Hold::commits`); what is no message, and that a stream has ended, is written behind, all that has gathered in one change:
//! at once where a client waits for it, for it is told no more than is written.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::task::unconstrained;
use tokio::time::timeout;
use tracing::{debug, warn};

use althing_proto::jid::FullJid;
use althing_proto::stream::management::Count;
use althing_proto::time::Timestamp;

use super::inbound::Inbound;
use crate::node::NodeContext;
use crate::storage::StorageError;
use crate::storage::streams::{MAX_CHANGES, StreamChange, StreamKey, StreamRecord};

/// How far the store may be behind, where nothing else is written for a stream.
const EVERY: Duration = Duration::from_secs(5);

/// After how long it is tried once more to note that a stream has begun.
const AGAIN: Duration = Duration::from_millis(250);

/// Most ends that wait to be noted: of later ones the records stay until the sweep.
const MAX_WAITING: usize = 65_536;

/// How long the end of a session waits for the note.
const NOTED: Duration = Duration::from_millis(250);

/// How long the node's stop waits for what is not written.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long it rests where the store fails, at a stop and otherwise.
const REST: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(500));

/// How long a client waits for what is known of its stream: as long as the store may take, for without it it writes too much.
const CLOSES: Duration = Duration::from_secs(10);

/// What one node has not written.
#[derive(Debug, Default)]
pub struct Records {
    state: Mutex<State>,
    /// Somebody waits for what is to be written.
    hurry: Arc<Notify>,
}

/// What is written at a time.
struct Batch {
    changes: Vec<StreamChange>,
    /// The streams of those behind the first `others`, and what is noted of each.
    notes: Vec<(Weak<Inbound>, Count)>,
    others: usize,
}

#[derive(Debug, Default)]
struct State {
    /// In the order in which it happened.
    changes: Vec<StreamChange>,
    /// Streams of which more is handled than is noted.
    behind: VecDeque<Weak<Inbound>>,
    /// Whether somebody will look here.
    looking: bool,
}

impl Records {
    /// A stream begins here, or goes on here. Its record is before all that is kept from now on.
    pub fn began(node: &Arc<NodeContext>, inbound: &Arc<Inbound>, record: StreamRecord) {
        let (node, inbound) = (Arc::downgrade(node), Arc::downgrade(inbound));
        let Some(own) = node.upgrade() else { return };
        let mut writing = begin(&own, record.clone());
        // As a rule it is on its way, before whatever is kept of the stream: that is not safe before.
        let first = (&mut writing).now_or_never();
        match first {
            Some(Ok(())) => known(&inbound, None),
            Some(Err(error)) => {
                let again = until_written(node, inbound, record, Box::pin(std::future::ready(Err(error))));
                own.remote.runtime().spawn(again);
            }
            None => drop(own.remote.runtime().spawn(until_written(node, inbound, record, writing))),
        }
    }

    /// A stream has ended in order, or so much of it was handled when its session ended. The future ends when the store
    /// knows it, or a moment later; nobody has to wait for it.
    pub fn ended(node: &Arc<NodeContext>, change: StreamChange) -> BoxFuture<'static, ()> {
        if !*node.stopping.borrow() {
            let written = now(node, change);
            return Box::pin(async move {
                // In time or not.
                let _ = timeout(NOTED, written).await;
            });
        }
        // All of the node's at once.
        let mut state = node.records.state.lock();
        if state.changes.len() < MAX_WAITING {
            state.changes.push(change);
        }
        state.look(node);
        Box::pin(std::future::ready(()))
    }

    /// More of a stream is handled. Called once until it is written.
    pub(super) fn behind(node: &Arc<NodeContext>, inbound: &Arc<Inbound>) {
        let mut state = node.records.state.lock();
        state.behind.push_back(Arc::downgrade(inbound));
        state.look(node);
    }

    /// A client waits for what is to be written.
    pub(super) fn hurry(&self) {
        self.hurry.notify_one();
    }

    fn take(&self) -> Batch {
        let mut state = self.state.lock();
        let others = state.changes.len().min(MAX_CHANGES);
        let mut changes: Vec<_> = state.changes.drain(..others).collect();
        let mut notes = Vec::new();
        while changes.len() < MAX_CHANGES
            && let Some(weak) = state.behind.pop_front()
        {
            if let Some(handled) = weak.upgrade().and_then(|inbound| inbound.to_note()) {
                notes.push((weak, handled.number));
                changes.push(StreamChange::Handled(handled));
            }
        }
        Batch { changes, notes, others }
    }

    /// Writes what is not written.
    ///
    /// # Errors
    /// Of the store; what was to be written is written with the next ones. Done twice it is as if it were done once.
    pub async fn flush(&self, node: &NodeContext) -> Result<(), StorageError> {
        loop {
            let Batch { changes, notes, others } = self.take();
            if changes.is_empty() {
                return Ok(());
            }
            let others: Vec<_> = changes.iter().take(others).cloned().collect();
            let result = node.storage.streams.change(changes).await;
            if result.is_err() {
                let mut state = self.state.lock();
                let room = MAX_WAITING.saturating_sub(state.changes.len());
                state.changes.splice(..0, others.into_iter().take(room));
            }
            for (inbound, number) in notes {
                if let Some(inbound) = inbound.upgrade() {
                    inbound.noted(number, result.is_ok());
                }
            }
            result?;
        }
    }

    /// The node stops: what is handled is written, as far as that is quick.
    pub async fn close(&self, node: &NodeContext) {
        let flushed = async {
            while self.flush(node).await.is_err() {
                tokio::time::sleep(REST.0).await;
            }
        };
        if timeout(PATIENCE, flushed).await.is_err() {
            warn!("not all that is handled of streams is noted: their clients may send more again");
        }
    }
}

type Change = BoxFuture<'static, Result<(), StorageError>>;

fn begin(node: &NodeContext, record: StreamRecord) -> Change {
    let streams = Arc::clone(&node.storage.streams);
    Box::pin(unconstrained(async move { streams.change(vec![StreamChange::Began(record)]).await }))
}

/// Without a record nobody would know what is handled, if the node were lost: it is tried until it is there, while the stream
/// is, and after the first failure what is handled is not told before.
async fn until_written(
    node: Weak<NodeContext>,
    inbound: Weak<Inbound>,
    mut record: StreamRecord,
    mut writing: Change,
) {
    // Where it did not get its place at once, messages may have come before it.
    let mut late = Some(record.handled);
    while let Err(error) = writing.await {
        warn!(jid = %record.key.jid, %error, "the record of a stream could not be made");
        let unknown = || inbound.upgrade().into_iter().for_each(|inbound| inbound.is_unknown());
        if !error.is_passing() {
            return unknown();
        }
        tokio::time::sleep(AGAIN).await;
        let (Some(node), Some(inbound)) = (node.upgrade(), inbound.upgrade()) else { return };
        let is_here = node.routes.locate(&record.key.jid).is_some_and(|route| route.index == record.bind);
        if !is_here || !node.lease.serving().await {
            // It is over.
            return;
        }
        record.handled = inbound.safe();
        late = Some(record.handled);
        writing = begin(&node, record.clone());
    }
    known(&inbound, late);
}

fn known(inbound: &Weak<Inbound>, late: Option<Count>) {
    if let Some(inbound) = inbound.upgrade() {
        inbound.is_known(late);
    }
}

/// Changes a record, which has its place in the order of the store when this returns.
fn now(node: &Arc<NodeContext>, change: StreamChange) -> oneshot::Receiver<()> {
    let (streams, jid) = (Arc::clone(&node.storage.streams), change.key().jid.clone());
    let (written, done) = oneshot::channel();
    let mut writing = Box::pin(unconstrained(async move { streams.change(vec![change]).await }));
    let report = move |result: Result<(), StorageError>| {
        if let Err(error) = result {
            warn!(%jid, %error, "the record of a stream could not be changed");
        }
        // Nobody needs to wait.
        let _ = written.send(());
    };
    match (&mut writing).now_or_never() {
        Some(result) => report(result),
        None => drop(node.remote.runtime().spawn(async move { report(writing.await) })),
    }
    done
}

impl State {
    fn look(&mut self, node: &Arc<NodeContext>) {
        if !std::mem::replace(&mut self.looking, true) {
            node.remote.runtime().spawn(keep_up(Arc::downgrade(node), Arc::clone(&node.records.hurry)));
        }
    }
}

/// Writes from time to time, and when somebody waits, until nothing is left to be written.
async fn keep_up(node: Weak<NodeContext>, hurry: Arc<Notify>) {
    loop {
        // In time or not.
        let _ = timeout(EVERY, hurry.notified()).await;
        let mut is_known = false;
        loop {
            let Some(node) = node.upgrade() else { return };
            let Err(error) = node.records.flush(&node).await else { break };
            if !std::mem::replace(&mut is_known, true) {
                warn!(%error, "what is handled of streams could not be noted: it is tried until it is");
            }
            drop(node);
            tokio::time::sleep(REST.1).await;
        }
        let Some(node) = node.upgrade() else { return };
        let mut state = node.records.state.lock();
        if state.changes.is_empty() && state.behind.is_empty() {
            state.looking = false;
            return;
        }
    }
}

/// How much is handled of a stream whose session is not there any more, where that is known. Its client is told, and writes the
/// rest on another stream: nothing more of this one is kept from now on, by whichever node. An error: nobody can tell.
pub async fn close(
    node: &NodeContext,
    jid: &FullJid,
    hash: &[u8; 32],
) -> Result<Option<Count>, StorageError> {
    let streams = &node.storage.streams;
    let closed = async {
        streams.change(vec![StreamChange::Closed(key(jid, *hash))]).await?;
        streams.get(jid).await
    };
    match timeout(CLOSES, closed).await {
        Ok(Ok(record)) => {
            let record = record.filter(|record| record.key.hash == *hash);
            Ok(record.map(|record| record.handled))
        }
        Ok(Err(error)) => {
            debug!(%jid, %error, "what is handled of a stream is not known");
            Err(error)
        }
        Err(_) => Err(StorageError::Unavailable { why: "it does not answer".to_owned() }),
    }
}

/// Marks the records of streams whose sessions are gone, and takes away those that have been for long enough. `mine`:
/// whether this node is the one to do it.
///
/// # Errors
/// Of the store.
pub async fn sweep(node: &NodeContext, now: Timestamp, mine: impl Fn() -> bool) -> Result<(), StorageError> {
    let mut after: Option<FullJid> = None;
    while mine() {
        let page = node.storage.streams.list(after.as_ref(), MAX_CHANGES).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.key.jid.clone());
        // A record may be of a bind that this node has not heard of.
        if let Err(error) = node.routes.barrier().await {
            return Err(StorageError::Unavailable { why: error.to_string() });
        }
        let is_gone = |record: &StreamRecord| {
            node.routes.locate(&record.key.jid).is_none_or(|route| route.index != record.bind)
        };
        let gone = page.iter().filter(|record| is_gone(record));
        let gone: Vec<_> =
            gone.map(|record| StreamChange::GoneOf(record.key.clone(), record.bind, now)).collect();
        if !gone.is_empty() {
            node.storage.streams.change(gone).await?;
        }
    }
    Ok(())
}

/// Learns the secret by which messages of streams get their ids; the first node of a cluster makes it. Until it is known
/// ids are random.
pub async fn learn_secret(node: Arc<NodeContext>) {
    loop {
        if let Some(candidate) = node.random()
            && let Ok(secret) = node.storage.streams.secret(candidate).await
        {
            node.stream_secret.get_or_init(|| secret);
            return;
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Names the stream of `jid`.
#[must_use]
pub fn key(jid: &FullJid, hash: [u8; 32]) -> StreamKey {
    StreamKey { jid: jid.clone(), hash }
}
