//! Who leaves is noted in the store: all that have gathered, in one change. A node that loses thousands of clients
//! at once makes a few writes of it.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::timeout;

use althing_cluster::routes::BindIndex;
use althing_proto::jid::{BareJid, FullJid};
use althing_proto::stanza::Stanza;
use althing_proto::time::Timestamp;

use crate::metrics::Dropped;
use crate::node::NodeContext;
use crate::storage::profile::{Logout, MAX_LOGOUT_BYTES};

/// Most accounts whose logout waits. While the store does not answer, later ones are not noted.
const MAX_WAITING: usize = 65_536;

/// How many sessions that were lost with their node are noted at a time.
const LOST: usize = 4_096;

/// Longest presence that is kept; of a longer one only that it was.
const MAX_PRESENCE_BYTES: usize = 2_048;

/// How long a farewell waits for the note. Contacts that hear of the end can ask when it was.
const PATIENCE: Duration = Duration::from_millis(250);

/// The logouts of one node on their way into the store.
#[derive(Debug, Default)]
pub struct Logouts {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    waiting: HashMap<BareJid, Waiting>,
    /// Whether somebody is writing, and will look here once more.
    writing: bool,
}

#[derive(Debug)]
struct Waiting {
    at: Timestamp,
    presence: Bytes,
    /// Who wants to know when it is noted.
    done: Vec<oneshot::Sender<()>>,
}

/// The end of the session `jid` with its last unavailable presence.
#[must_use]
pub fn logout(jid: &FullJid, at: Timestamp, last: &Stanza) -> Logout {
    let mut presence = last.to_standalone();
    if presence.len() > MAX_PRESENCE_BYTES {
        presence = super::losses::unavailable(jid, jid.to_bare()).to_standalone();
    }
    Logout { user: jid.to_bare(), at, presence: presence.into() }
}

impl Logouts {
    /// Notes `logout`; of several of an account the latest counts. The future ends when the store has it, or will not
    /// have it; nobody needs to wait for it.
    pub fn note(node: &Arc<NodeContext>, logout: Logout) -> impl Future<Output = ()> + Send + use<> {
        let (done, noted) = oneshot::channel();
        let begin = {
            let mut state = node.logouts.state.lock();
            let full = state.waiting.len() >= MAX_WAITING && !state.waiting.contains_key(&logout.user);
            if full {
                node.metrics.dropped(Dropped::LogoutsFull);
                false
            } else {
                let Logout { user, at, presence } = logout;
                let new = || Waiting { at, presence: presence.clone(), done: Vec::new() };
                let waiting = state.waiting.entry(user).or_insert_with(new);
                if at >= waiting.at {
                    (waiting.at, waiting.presence) = (at, presence);
                }
                waiting.done.push(done);
                !std::mem::replace(&mut state.writing, true)
            }
        };
        if begin {
            tokio::spawn(write(Arc::clone(node)));
        }
        async move {
            // An error says that it was dropped.
            let _ = noted.await;
        }
    }

    /// What is written next.
    fn take(&self) -> Option<(Vec<Logout>, Vec<oneshot::Sender<()>>)> {
        let mut state = self.state.lock();
        let (mut logouts, mut done, mut bytes) = (Vec::new(), Vec::new(), 0);
        let fitting = |(user, waiting): (&BareJid, &Waiting)| {
            bytes += Logout { user: user.clone(), at: waiting.at, presence: waiting.presence.clone() }.size();
            (bytes <= MAX_LOGOUT_BYTES).then(|| user.clone())
        };
        let users: Vec<BareJid> = state.waiting.iter().map_while(fitting).collect();
        for user in users {
            if let Some(waiting) = state.waiting.remove(&user) {
                logouts.push(Logout { user, at: waiting.at, presence: waiting.presence });
                done.extend(waiting.done);
            }
        }
        if logouts.is_empty() {
            state.writing = false;
            return None;
        }
        Some((logouts, done))
    }
}

/// Writes until nothing waits. While one change is on its way the next gathers.
async fn write(node: Arc<NodeContext>) {
    while let Some((logouts, done)) = node.logouts.take() {
        let sessions = logouts.len();
        if let Err(error) = node.storage.logouts.note(logouts).await {
            tracing::warn!(%error, sessions, "who left could not be noted");
        }
        for done in done {
            let _gone = done.send(());
        }
    }
}

/// Notes the end of a session, where it was the last one of its account, and gives its route up. The note comes first: a
/// successor that binds meanwhile is told of this session, and waits for its farewell.
/// Nothing is noted of a session whose end is nobody's to know.
pub async fn unbind(node: &Arc<NodeContext>, jid: &FullJid, index: BindIndex, logout: Option<Logout>) {
    let alone = |logout: &Logout| {
        let mut alone = true;
        node.routes.visit_account(&logout.user, &mut |_, route| alone &= route.index == index);
        alone
    };
    let mut unnoted = logout;
    if let Some(logout) = unnoted.take_if(|logout| alone(logout)) {
        // Late or not, its contacts are to hear of it.
        let _ = timeout(PATIENCE, Logouts::note(node, logout)).await;
    }
    if let Err(error) = node.routes.unbind(jid, index).await {
        tracing::debug!(%jid, %error, "the route had gone before its session");
    }
    // The others may have ended meanwhile. Of two that end at once the later one in the table sees nobody.
    if let Some(logout) = unnoted.take_if(|logout| alone(logout)) {
        drop(Logouts::note(node, logout));
    }
}

/// Notes the sessions that were lost with their node: the first node that is up does it for all.
pub fn note_lost(node: &Arc<NodeContext>, lost: Vec<FullJid>) {
    if node.routes.first_up() != Some(node.node_id) {
        return;
    }
    let (node, now) = (Arc::clone(node), node.now());
    tokio::spawn(async move {
        for lost in lost.chunks(LOST) {
            let left = lost.iter().filter(|jid| node.routes.locate_account(&jid.to_bare()).is_empty());
            let last = |jid: &FullJid| super::losses::unavailable(jid, jid.to_bare());
            let noted = left.map(|jid| Logouts::note(&node, logout(jid, now, &last(jid))));
            futures_util::future::join_all(noted.collect::<Vec<_>>()).await;
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jid(number: usize) -> FullJid {
        FullJid::new(&format!("u{number}@localhost/r")).unwrap()
    }

    fn left(number: usize, at: u64) -> Logout {
        let last = super::super::losses::unavailable(&jid(number), jid(number).to_bare());
        logout(&jid(number), Timestamp::from_millis(at), &last)
    }

    /// P5: a node that loses five thousand clients notes all of them, in a few changes.
    #[actix_rt::test]
    async fn p5_a_mass_disconnect_is_a_few_changes() {
        const CLIENTS: usize = 5_000;
        let registry = prometheus::Registry::new();
        let metrics = crate::metrics::NodeMetrics::register(&registry, "node-0").unwrap();
        let mut node = NodeContext::for_tests();
        node.storage = node.storage.metered(&metrics);
        let node = Arc::new(node);
        for number in 0..CLIENTS {
            node.has_account(&jid(number).to_bare()).await;
        }
        let writes = |registry: &prometheus::Registry| {
            let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
            let count = "althing_storage_duration_seconds_count{op=\"write\"} ";
            text.lines().find_map(|line| line.strip_prefix(count)).unwrap().parse::<usize>().unwrap()
        };
        let before = writes(&registry);
        let noted: Vec<_> = (0..CLIENTS).map(|number| Logouts::note(&node, left(number, 7))).collect();
        futures_util::future::join_all(noted).await;
        let made = writes(&registry) - before;
        assert!(made <= 20, "{made} changes");
        for number in [0, CLIENTS / 2, CLIENTS - 1] {
            let last = node.storage.logouts.last(&jid(number).to_bare()).await.unwrap().unwrap();
            assert_eq!(last, left(number, 7));
        }
    }

    #[actix_rt::test]
    async fn of_several_of_an_account_the_latest_counts() {
        let node = Arc::new(NodeContext::for_tests());
        node.has_account(&jid(1).to_bare()).await;
        let noted = [Logouts::note(&node, left(1, 9)), Logouts::note(&node, left(1, 8))];
        futures_util::future::join_all(noted).await;
        let last = node.storage.logouts.last(&jid(1).to_bare()).await.unwrap().unwrap();
        assert_eq!(last.at, Timestamp::from_millis(9));
    }

    #[actix_rt::test]
    async fn what_waits_is_bounded() {
        let node = Arc::new(NodeContext::for_tests());
        let noted: Vec<_> =
            (0..MAX_WAITING + 9).map(|number| Logouts::note(&node, left(number, 7))).collect();
        assert_eq!(node.logouts.state.lock().waiting.len(), MAX_WAITING);
        futures_util::future::join_all(noted).await;
        assert!(node.logouts.state.lock().waiting.is_empty());
    }

    /// P5: who is lost with a node left then, unless another session of theirs is there.
    #[actix_rt::test]
    async fn p5_who_is_lost_with_a_node_has_left() {
        let node = Arc::new(NodeContext::for_tests());
        for number in 1..3 {
            node.has_account(&jid(number).to_bare()).await;
        }
        node.routes.bind(&FullJid::new("u2@localhost/elsewhere").unwrap()).await.unwrap();
        note_lost(&node, vec![jid(1), jid(2)]);
        let last = async |number| node.storage.logouts.last(&jid(number).to_bare()).await.unwrap();
        while last(1).await.is_none() {
            tokio::task::yield_now().await;
        }
        assert_eq!(last(2).await, None);
    }

    #[test]
    fn a_long_presence_is_not_kept() {
        let xml = format!(
            "<presence xmlns='jabber:client' type='unavailable'><status>{}</status></presence>",
            "x".repeat(MAX_PRESENCE_BYTES)
        );
        let long = Stanza::parse(xml.parse().unwrap()).unwrap();
        assert!(logout(&jid(1), Timestamp::from_millis(1), &long).presence.len() < 200);
    }
}
