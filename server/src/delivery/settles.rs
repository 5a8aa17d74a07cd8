//! Messages that have arrived: they go from the store, all that have gathered in one change.
//!
//! A message may arrive before it is kept, for delivery runs ahead of the commit, perhaps on another node. Then the store
//! does not know it yet, and is told once more a little later.
//!
//! What is not noted, or lost with the node, stays pending for a session that has ended, and is delivered once more.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;
use tracing::{debug, warn};

use althing_proto::jid::BareJid;
use althing_proto::stanza_id::StanzaId;

use crate::metrics::Dropped;
use crate::node::NodeContext;
use crate::storage::StorageError;
use crate::storage::messages::{DeviceId, MAX_PAGE, Settle};

/// Most messages whose arrival waits. While the store does not answer, later ones are not noted.
const MAX_WAITING: usize = 65_536;

/// How long a change gathers, unless somebody waits for it.
const GATHER: Duration = Duration::from_millis(50);

/// How often a change is tried while the store does not answer, and how long it rests in between.
const ATTEMPTS: u32 = 5;
const REST: Duration = Duration::from_secs(1);

/// When the store is told once more of a message that it does not know: for as long as a node may try to keep one. Then it
/// was never kept.
const AGAIN: [Duration; 12] = {
    let mut again = [Duration::from_secs(4); 12];
    again[0] = Duration::from_millis(100);
    again[1] = Duration::from_millis(500);
    again[2] = Duration::from_secs(1);
    again[3] = Duration::from_secs(2);
    again
};

/// How long the end of a session waits for what has arrived at it.
const PATIENCE: Duration = Duration::from_secs(2);

/// The arrivals of one node on their way into the store.
#[derive(Debug, Default)]
pub struct Settles {
    state: Mutex<State>,
    /// Somebody waits, or a change is full.
    hurry: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Noted>,
    /// Whether somebody is writing, and will look here once more.
    writing: bool,
    /// How many of an account's are not done with. One that the store does not know is, when it was told twice.
    open: HashMap<BareJid, usize>,
    /// Who wants to know when all of an account's are.
    watchers: Vec<(BareJid, oneshot::Sender<()>)>,
    /// How many rest before they are told once more.
    resting: usize,
    /// Those that may be in the store yet, or come there, by account.
    arrived: HashMap<BareJid, HashSet<(StanzaId, Option<DeviceId>)>>,
}

#[derive(Debug, Clone)]
struct Noted {
    settle: Settle,
    /// How often the store was told.
    told: usize,
}

impl Settles {
    /// Notes that a message has arrived.
    pub fn note(node: &Arc<NodeContext>, settle: Settle) {
        Self::add(node, Noted { settle, told: 0 });
    }

    fn add(node: &Arc<NodeContext>, noted: Noted) {
        let settles = &node.waiting.settles;
        let (begin, is_full) = {
            let mut state = settles.state.lock();
            if state.waiting.len() + state.resting >= MAX_WAITING {
                node.metrics.dropped(Dropped::SettlesFull);
                state.is_gone(&noted.settle);
                if noted.told == 1 {
                    state.done(&noted.settle.user);
                }
                return;
            }
            if noted.told == 0 {
                let Settle { user, id, device } = &noted.settle;
                state.arrived.entry(user.clone()).or_default().insert((*id, *device));
                *state.open.entry(noted.settle.user.clone()).or_default() += 1;
            }
            state.waiting.push_back(noted);
            (!std::mem::replace(&mut state.writing, true), state.waiting.len() == MAX_PAGE)
        };
        if begin {
            node.remote.runtime().spawn(write(Arc::clone(node)));
        } else if is_full {
            settles.hurry.notify_one();
        }
    }

    /// Waits until what was noted for an account is in the store, or a while.
    pub async fn flush(&self, user: &BareJid) {
        let done = {
            let mut state = self.state.lock();
            if !state.open.contains_key(user) {
                return;
            }
            let (watcher, done) = oneshot::channel();
            state.watchers.push((user.clone(), watcher));
            done
        };
        self.hurry.notify_one();
        // Time is up, or nobody writes any more: it is delivered once more then.
        let _ = timeout(PATIENCE, done).await;
    }

    /// Those of an account that have arrived at that device and may be in the store all the same, now or later.
    #[must_use]
    pub fn arrived(&self, user: &BareJid, device: Option<DeviceId>) -> Vec<StanzaId> {
        let state = self.state.lock();
        let of_device = |(id, at): &(StanzaId, Option<DeviceId>)| is_at(*at, device).then_some(*id);
        state.arrived.get(user).into_iter().flatten().filter_map(of_device).collect()
    }

    /// Whether that one is among them.
    #[must_use]
    pub fn has_arrived(&self, user: &BareJid, id: StanzaId, device: Option<DeviceId>) -> bool {
        let state = self.state.lock();
        state.arrived.get(user).is_some_and(|ids| ids.contains(&(id, device)) || ids.contains(&(id, None)))
    }

    /// Waits until what gathers is to be written.
    async fn gathered(&self) {
        let is_due = {
            let state = self.state.lock();
            state.waiting.len() >= MAX_PAGE || !state.watchers.is_empty()
        };
        if !is_due {
            // Time is up: what there is.
            let _ = timeout(GATHER, self.hurry.notified()).await;
        }
    }

    /// What is written next.
    fn take(&self) -> Option<Vec<Noted>> {
        let mut state = self.state.lock();
        let count = state.waiting.len().min(MAX_PAGE);
        state.writing = count > 0;
        (count > 0).then(|| state.waiting.drain(..count).collect())
    }
}

/// Whether what has arrived at that device has for this one: what is settled for none in particular is for all.
fn is_at(at: Option<DeviceId>, device: Option<DeviceId>) -> bool {
    at.is_none() || at == device
}

impl State {
    /// A message is not in the store any more, or nobody will try to take it from there.
    fn is_gone(&mut self, Settle { user, id, device }: &Settle) {
        if let Some(ids) = self.arrived.get_mut(user) {
            ids.remove(&(*id, *device));
            if ids.is_empty() {
                self.arrived.remove(user);
            }
        }
    }

    fn done(&mut self, user: &BareJid) {
        let Some(count) = self.open.get_mut(user) else { return };
        *count -= 1;
        if *count > 0 {
            return;
        }
        self.open.remove(user);
        for (_, watcher) in self.watchers.extract_if(.., |(wanted, _)| wanted == user) {
            // It may have gone.
            let _ = watcher.send(());
        }
    }
}

/// Writes until nothing waits. While one change is on its way the next gathers.
async fn write(node: Arc<NodeContext>) {
    loop {
        node.waiting.settles.gathered().await;
        let Some(mut noted) = node.waiting.settles.take() else { return };
        let unknown = tell(&node, &noted).await;
        let mut again = Vec::new();
        for place in unknown.into_iter().rev() {
            if let Some(place) = usize::try_from(place).ok().filter(|place| *place < noted.len()) {
                again.push(noted.swap_remove(place));
            }
        }
        node.metrics.keeping.settled(noted.len() as u64);
        {
            let mut state = node.waiting.settles.state.lock();
            for noted in noted.iter().chain(again.iter().filter(|noted| noted.told >= AGAIN.len())) {
                state.is_gone(&noted.settle);
            }
            let known = noted.iter().filter(|noted| noted.told < 2);
            // Told twice, it is done with for who waits, and only told once more.
            for noted in known.chain(again.iter().filter(|noted| noted.told == 1)) {
                state.done(&noted.settle.user);
            }
        }
        tell_again(&node, again);
    }
}

/// Tells the store; which of them, by their places, it does not know.
async fn tell(node: &NodeContext, noted: &[Noted]) -> Vec<u32> {
    let settles: Vec<Settle> = noted.iter().map(|noted| noted.settle.clone()).collect();
    for attempt in 1..=ATTEMPTS {
        // Done twice it is as if it were done once.
        match node.storage.inbox.arrived(settles.clone()).await {
            Ok(unknown) => return unknown,
            Err(StorageError::Busy | StorageError::Unavailable { .. } | StorageError::Unknown)
                if attempt < ATTEMPTS =>
            {
                tokio::time::sleep(REST).await;
            }
            Err(error) => {
                warn!(%error, messages = noted.len(), "messages that have arrived will be delivered once more");
                break;
            }
        }
    }
    Vec::new()
}

/// Tells the store a little later of those that it does not know.
fn tell_again(node: &Arc<NodeContext>, mut noted: Vec<Noted>) {
    while let Some(told) = noted.first().map(|noted| noted.told) {
        let those: Vec<_> = noted.extract_if(.., |noted| noted.told == told).collect();
        let Some(rest) = AGAIN.get(told).copied() else {
            debug!(messages = those.len(), "messages that have arrived are not in the store");
            continue;
        };
        node.waiting.settles.state.lock().resting += those.len();
        let node = Arc::clone(node);
        node.remote.runtime().clone().spawn(async move {
            tokio::time::sleep(rest).await;
            node.waiting.settles.state.lock().resting -= those.len();
            for noted in those.into_iter().rev() {
                Settles::add(&node, Noted { told: told + 1, ..noted });
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::messages::{ArchiveDefault, InboxQuota, KeepFor, KeepInInbox, KeepMessage, Taker};

    /// R23: what has arrived at one device before it is kept has not at another one of the account.
    #[tokio::test]
    async fn r23_what_arrives_early_at_one_device_still_comes_to_another() {
        let node = Arc::new(NodeContext::for_tests());
        let user = BareJid::new("b@localhost").unwrap();
        node.has_account(&user).await;
        let [phone, desk] = [1, 2].map(|device| Some(DeviceId(device)));
        let [early, refused] = [7, 8].map(|byte| StanzaId::from_bytes([byte; 16]));
        Settles::note(&node, Settle { user: user.clone(), id: early, device: phone });
        Settles::note(&node, Settle { user: user.clone(), id: refused, device: None });
        let settles = &node.waiting.settles;
        assert_eq!(settles.arrived(&user, phone).len(), 2);
        assert_eq!(settles.arrived(&user, desk), [refused], "that one is for nobody");
        let known = [(early, phone), (early, desk), (refused, desk)];
        assert_eq!(known.map(|(id, at)| settles.has_arrived(&user, id, at)), [true, false, true]);
        Settles::note(&node, Settle { user: user.clone(), id: early, device: desk });
        assert_eq!(settles.arrived(&user, desk).len(), 2);
    }

    /// Delivery runs ahead of the commit: a message may be acknowledged before it is kept.
    #[tokio::test]
    async fn what_arrives_before_it_is_kept_is_settled_all_the_same() {
        let node = Arc::new(NodeContext::for_tests());
        let user = BareJid::new("b@localhost").unwrap();
        node.has_account(&user).await;
        let id = StanzaId::from_bytes([7; 16]);
        Settles::note(&node, Settle { user: user.clone(), id, device: None });
        // Whoever goes on with its stream elsewhere is told so, though the store was not.
        assert_eq!(node.waiting.settles.arrived(&user, None), [id]);
        let flushed = node.waiting.settles.flush(&user);
        let kept = async {
            // The store was told once, and did not know it.
            while !node.waiting.settles.state.lock().waiting.is_empty() {
                tokio::task::yield_now().await;
            }
            let inbox = KeepInInbox {
                takers: vec![Taker { bind: althing_cluster::routes::BindIndex(1), device: None }],
                expires: node.now().after(REST),
                quota: InboxQuota { messages: 9, bytes: 99 },
                each_device: false,
            };
            let owner = KeepFor {
                owner: user.clone(),
                peer: user.clone().into(),
                outgoing: false,
                archive: Some(ArchiveDefault::Never),
                inbox: Some(inbox),
            };
            let xml = bytes::Bytes::from_static(b"<message/>");
            node.storage
                .keep(KeepMessage { name: None, id, stamp: node.now(), xml, owners: vec![owner] })
                .await
                .unwrap();
            assert_eq!(node.storage.inbox.summary(&user).await.unwrap().messages, 1);
        };
        tokio::join!(flushed, kept);
        assert!(!node.waiting.settles.has_arrived(&user, id, None), "nobody has to know it any more");
        assert_eq!(node.storage.inbox.summary(&user).await.unwrap().messages, 0);
    }
}
