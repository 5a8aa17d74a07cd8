//! Stanzas of other nodes for sessions that are about to be here: the table has a bind, or a session that moves, a moment
//! before its session is there. They wait, each session's in order, and nothing else of their node waits for them.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use althing_cluster::routes::BindIndex;
use althing_proto::jid::FullJid;

use crate::delivery::local;
use crate::node::NodeContext;
use crate::session::SessionHandle;

/// What is to be done with a session when it is here, or known not to come.
type Act = Box<dyn FnOnce(Option<&Arc<SessionHandle>>) + Send>;

/// What waits for each session. Bounded by what the links let their nodes have out.
#[derive(Default)]
pub struct Arrivals {
    queues: Mutex<HashMap<BindIndex, VecDeque<Act>>>,
    /// Without any nobody takes the lock.
    count: AtomicUsize,
}

impl Arrivals {
    /// For how many sessions something waits.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queues.lock().len()
    }

    /// Whether nothing waits for any.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }
}

/// What came of it.
pub enum Arrived<T> {
    /// The session is here, or does not come: it was done.
    Now(T),
    /// It is done when the session is here, behind all that waits for it.
    Soon(oneshot::Receiver<T>),
}

/// Does something with the session of this node that has `to` by the bind `owner`: now, if it is here and nothing waits for
/// it, or as soon as it is.
pub fn when_here<T: Send + 'static>(
    node: &Arc<NodeContext>,
    to: &FullJid,
    owner: BindIndex,
    act: impl FnOnce(Option<&Arc<SessionHandle>>) -> T + Send + 'static,
) -> Arrived<T> {
    let arrivals = node.remote.arrivals();
    let mut found = node.sessions.get(owner);
    if found.is_none() || arrivals.count.load(Ordering::Acquire) > 0 {
        let mut queues = arrivals.queues.lock();
        let queue = match queues.entry(owner) {
            Entry::Occupied(queue) => Some(queue.into_mut()),
            Entry::Vacant(free) => {
                found = node.sessions.get(owner);
                let is_own = || node.routes.locate(to).is_some_and(|route| route.index == owner);
                (found.is_none() && is_own()).then(|| {
                    node.remote.runtime().spawn(wait(Arc::clone(node), to.clone(), owner));
                    free.insert(VecDeque::new())
                })
            }
        };
        if let Some(queue) = queue {
            let (answer, answered) = oneshot::channel();
            queue.push_back(Box::new(move |session| {
                // Who has sent it may be gone.
                let _ = answer.send(act(session));
            }));
            arrivals.count.store(queues.len(), Ordering::Release);
            return Arrived::Soon(answered);
        }
    }
    Arrived::Now(act(found.as_ref()))
}

async fn wait(node: Arc<NodeContext>, to: FullJid, owner: BindIndex) {
    let found = local::session_soon(&node, &to, owner).await;
    let arrivals = node.remote.arrivals();
    loop {
        let act = {
            let mut queues = arrivals.queues.lock();
            let next = queues.get_mut(&owner).and_then(VecDeque::pop_front);
            if next.is_none() {
                // Under the lock: what comes from now on is behind all of it.
                queues.remove(&owner);
                arrivals.count.store(queues.len(), Ordering::Release);
            }
            next
        };
        let Some(act) = act else { return };
        act(found.as_ref());
    }
}
