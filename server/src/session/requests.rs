//! IQs that the server itself sends, and who waits for their answers (RFC 6120 §8.2.3 rule 3): each is answered
//! once, or its time runs out once.
//!
//! How to ask a client something, in a module or elsewhere:
//!
//! ```ignore
//! let asker: Jid = domain.into();                    // the server, or an account's bare JID
//! let (iq, answer) = node.requests.begin((asker, client_jid), IqType::Get, ping, Duration::from_secs(20))?;
//! answer.then(node, move |outcome| match outcome {   // runs beside everything, once
//!     Ok(result) => Vec::new(),
//!     Err(NoAnswer::Error(error)) => Vec::new(),     // the client lives: it does not know the request
//!     Err(NoAnswer::TimedOut) => Vec::new(),         // effects that touch no session
//! });
//! vec![Effect::Route(iq)]                            // whoever begins it sends it, by an effect
//! ```
//!
//! Never await [`Answer::wait`] where the answer has to pass: an `Outcome::Later` of that client would keep its
//! lane until the time is over, and the answer waits in that lane. `then` does not wait.
//!
//! - The answer counts only from the address that was asked, to the address that asked. Others, late ones and second
//!   ones are ignored: nobody can answer for somebody else.
//! - It counts on the node that asked. Where it comes to another one, from a component there, it is handed on ([`Requests::asked_elsewhere`]).
//! - Dropping the [`Answer`] forgets the request.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use althing_cluster::node_id::NodeId;
use althing_proto::jid::{BareJid, Jid};
use althing_proto::ns;
use althing_proto::stanza::{IqType, Kind, Stanza};
use althing_proto::time::Timestamp;
use althing_proto::xml::build::BuilderExt;
use althing_proto::xml::{Element, name};

use crate::delivery;
use crate::metrics::{NodeMetrics, OwnRequest};
use crate::node::NodeContext;
use crate::pipeline::Effects;

/// Most requests that wait for an answer at a time. When full: [`TooMany`], and nothing is sent.
const MAX_PENDING: usize = 100_000;

/// Begins the ids of requests of all nodes.
const PREFIX: &str = "althing-";

/// PURE: who waits for which answer. `W` is woken by whoever takes it out.
struct Table<W> {
    next: u64,
    pending: HashMap<u64, Pending<W>>,
    most: usize,
}

struct Pending<W> {
    asker: Jid,
    asked: Jid,
    waiter: W,
}

impl<W> Table<W> {
    fn new(most: usize) -> Self {
        Table { next: 0, pending: HashMap::new(), most }
    }

    fn begin(&mut self, asker: Jid, asked: Jid, waiter: W) -> Option<u64> {
        if self.pending.len() >= self.most {
            return None;
        }
        let number = self.next;
        self.next += 1;
        self.pending.insert(number, Pending { asker, asked, waiter });
        Some(number)
    }

    /// Who waits for the answer `number`, if it goes between those two addresses. Given once.
    fn answered(&mut self, number: u64, from: &Jid, to: &str) -> Option<W> {
        let fits = |pending: &Pending<W>| pending.asked == *from && pending.asker.as_str() == to;
        self.pending.get(&number).is_some_and(fits).then(|| self.forget(number))?
    }

    fn forget(&mut self, number: u64) -> Option<W> {
        self.pending.remove(&number).map(|pending| pending.waiter)
    }
}

/// The requests of a node that wait for their answers. Clones share them.
#[derive(Clone)]
pub struct Requests {
    shared: Arc<Shared>,
}

struct Shared {
    table: Mutex<Table<oneshot::Sender<Stanza>>>,
    node: NodeId,
    /// Begins each id: of this start of this node, so that another node's answers are none of its own.
    prefix: String,
    metrics: NodeMetrics,
}

/// Too many requests wait already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{MAX_PENDING} requests of the server wait for an answer")]
pub struct TooMany;

/// Why there is no result.
#[derive(Debug)]
pub enum NoAnswer {
    /// The answer is an error: this one.
    Error(Stanza),
    /// There is none in time.
    TimedOut,
}

impl Requests {
    /// No requests yet, of the node `node` that was started at `started`.
    #[must_use]
    pub fn new(node: NodeId, started: Timestamp, metrics: NodeMetrics) -> Self {
        let prefix = format!("{PREFIX}{:x}-{:x}-", node.get(), started.as_millis());
        let table = Mutex::new(Table::new(MAX_PENDING));
        Requests { shared: Arc::new(Shared { table, node, prefix, metrics }) }
    }

    /// Begins a request `from` an address of this server `to` whoever is asked: the IQ to be sent, with an id of its
    /// own, and its answer. The time runs from here on.
    ///
    /// # Errors
    /// [`TooMany`]: nothing is to be sent.
    pub fn begin(
        &self,
        (from, to): (Jid, Jid),
        kind: IqType,
        payload: Element,
        patience: Duration,
    ) -> Result<(Stanza, Answer), TooMany> {
        let (waiter, answer) = oneshot::channel();
        let begun = self.shared.table.lock().begin(from.clone(), to.clone(), waiter);
        let Some(number) = begun else {
            self.shared.metrics.own_request(OwnRequest::Refused);
            return Err(TooMany);
        };
        let iq = Element::builder("iq", ns::CLIENT)
            .set(name!("type"), kind.name())
            .set(name!("id"), format!("{}{number:x}", self.shared.prefix))
            .append(payload)
            .build();
        let iq = Stanza::from_parts(Kind::Iq(kind), Some(from), Some(to), iq);
        let pending = Forget { number, shared: Arc::clone(&self.shared) };
        Ok((iq, Answer { answer, pending, deadline: Instant::now() + patience }))
    }

    /// An IQ of type result or error has come for the server or an account: wakes who waits for it. R11: one that
    /// nobody waits for, a late or second one, is ignored.
    pub fn answered(&self, stanza: &Stanza) {
        let Some(number) = stanza.id().and_then(|id| id.strip_prefix(&self.shared.prefix)) else { return };
        let (Ok(number), Some(from)) = (u64::from_str_radix(number, 16), stanza.from()) else { return };
        // Without `to` it is for the sender's own account (RFC 6120 §10.3.3).
        let own: BareJid;
        let to = match stanza.to() {
            Some(to) => to.as_str(),
            None => {
                own = from.to_bare();
                own.as_str()
            }
        };
        let waiter = self.shared.table.lock().answered(number, from, to);
        let outcome = match (waiter.map(|waiter| waiter.send(stanza.clone())), stanza.kind()) {
            (Some(Ok(())), Kind::Iq(IqType::Result)) => OwnRequest::Result,
            (Some(Ok(())), _) => OwnRequest::Error,
            _ => OwnRequest::Ignored,
        };
        self.shared.metrics.own_request(outcome);
    }

    /// The other node whose request it answers, by its id, if it is one's.
    #[must_use]
    pub fn asked_elsewhere(&self, stanza: &Stanza) -> Option<NodeId> {
        let id = stanza.id()?.strip_prefix(PREFIX)?;
        if id.starts_with(self.shared.prefix.strip_prefix(PREFIX)?) {
            return None;
        }
        let node = u64::from_str_radix(id.split_once('-')?.0, 16).ok().map(NodeId::new)?;
        (node != self.shared.node).then_some(node)
    }

    /// How many wait for an answer.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.shared.table.lock().pending.len()
    }
}

/// The answer of one request, still to come. Dropped, it waits no more.
pub struct Answer {
    answer: oneshot::Receiver<Stanza>,
    pending: Forget,
    deadline: Instant,
}

/// Takes the request out of the table when nobody waits any more.
struct Forget {
    number: u64,
    shared: Arc<Shared>,
}

impl Drop for Forget {
    fn drop(&mut self) {
        self.shared.table.lock().forget(self.number);
    }
}

impl Answer {
    /// The result.
    ///
    /// # Errors
    /// [`NoAnswer`].
    pub async fn wait(self) -> Result<Stanza, NoAnswer> {
        match tokio::time::timeout_at(self.deadline, self.answer).await {
            Ok(Ok(answer)) if answer.kind() == Kind::Iq(IqType::Result) => Ok(answer),
            Ok(Ok(error)) => Err(NoAnswer::Error(error)),
            // The sender is never dropped while this waits: its row goes with `pending`.
            Ok(Err(_)) | Err(_) => {
                self.pending.shared.metrics.own_request(OwnRequest::TimedOut);
                Err(NoAnswer::TimedOut)
            }
        }
    }

    /// Waits beside everything else, on this runtime, and performs what `then` makes of the outcome. There is no
    /// session then: effects on one are dropped.
    pub fn then(
        self,
        node: &Arc<NodeContext>,
        then: impl FnOnce(Result<Stanza, NoAnswer>) -> Effects + Send + 'static,
    ) {
        let node = Arc::clone(node);
        tokio::spawn(async move {
            let effects = then(self.wait().await);
            delivery::drive(&node, effects).await;
        });
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;

    use super::*;
    use crate::router::steps::Origin;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn jid(text: &str) -> Jid {
        Jid::new(text).unwrap()
    }

    fn requests() -> Requests {
        let metrics = NodeMetrics::register(&Registry::new(), "test").unwrap();
        Requests::new(NodeId::new(7), Timestamp::from_millis(1), metrics)
    }

    fn ask(requests: &Requests) -> (Stanza, Answer) {
        let ping = Element::bare("ping", ns::PING);
        requests.begin((jid("d"), jid("a@d/r")), IqType::Get, ping, PATIENCE).unwrap()
    }

    /// R11: an answer wakes who waits for it, once; a second one is ignored.
    #[tokio::test]
    async fn r11_a_request_is_answered_once() {
        let requests = requests();
        let (iq, answer) = ask(&requests);
        assert_eq!(requests.pending(), 1);
        requests.answered(&iq.result(None));
        requests.answered(&iq.result(None));
        assert_eq!(answer.wait().await.unwrap().id(), iq.id());
        assert_eq!(requests.pending(), 0);
        requests.answered(&iq.result(None));
    }

    /// R11: an error is an answer too.
    #[tokio::test]
    async fn r11_an_error_is_an_answer() {
        let requests = requests();
        let (iq, answer) = ask(&requests);
        requests.answered(&iq.error(althing_proto::stanza::StanzaCondition::ServiceUnavailable).unwrap());
        assert!(matches!(answer.wait().await, Err(NoAnswer::Error(_))));
    }

    /// R11: the time runs out once, after it an answer is ignored.
    #[tokio::test]
    async fn r11_the_time_runs_out_once_and_a_late_answer_is_ignored() {
        let requests = requests();
        let ping = Element::bare("ping", ns::PING);
        let soon = Duration::from_millis(20);
        let (iq, answer) = requests.begin((jid("d"), jid("a@d/r")), IqType::Get, ping, soon).unwrap();
        assert!(matches!(answer.wait().await, Err(NoAnswer::TimedOut)));
        assert_eq!(requests.pending(), 0);
        requests.answered(&iq.result(None));
        assert_eq!(requests.pending(), 0);
    }

    /// R11: only the one who was asked can answer, and only the one who asked.
    #[tokio::test]
    async fn r11_nobody_answers_for_somebody_else() {
        let requests = requests();
        let (iq, answer) = ask(&requests);
        let good = iq.result(None);
        for (from, to) in [("a@d/other", "d"), ("a@d", "d"), ("mallory@d/r", "d"), ("a@d/r", "a@d")] {
            requests.answered(&good.with_from(jid(from)).with_to(jid(to)));
        }
        assert_eq!(requests.pending(), 1);
        requests.answered(&good);
        assert!(answer.wait().await.is_ok());
    }

    /// What the account asks is answered without `to` (RFC 6120 §8.1.2.1).
    #[tokio::test]
    async fn an_answer_without_a_recipient_is_for_the_account() {
        let requests = requests();
        let ping = Element::bare("ping", ns::PING);
        let (iq, answer) = requests.begin((jid("a@d"), jid("a@d/r")), IqType::Get, ping, PATIENCE).unwrap();
        let element = iq.result(None).element().clone();
        requests.answered(&Stanza::from_parts(Kind::Iq(IqType::Result), Some(jid("a@d/r")), None, element));
        assert!(answer.wait().await.is_ok());
    }

    #[tokio::test]
    async fn who_waits_no_more_leaves_nothing_behind() {
        let requests = requests();
        let (_, answer) = ask(&requests);
        drop(answer);
        assert_eq!(requests.pending(), 0);
    }

    /// R11: from the router to the one who waits, once; nobody is answered (RFC 6120 §8.2.3 rule 4).
    #[actix_rt::test]
    async fn r11_the_router_brings_the_answer() {
        let node = Arc::new(NodeContext::for_tests());
        let ping = Element::bare("ping", ns::PING);
        let addresses = (jid("localhost"), jid("a@localhost/r"));
        let (iq, answer) = node.requests.begin(addresses, IqType::Get, ping, PATIENCE).unwrap();
        let (told, outcome) = oneshot::channel();
        answer.then(&node, move |outcome| {
            let _ = told.send(outcome.is_ok());
            Vec::new()
        });
        for _ in 0..2 {
            assert!(Effects::from(delivery::route(&node, iq.result(None), Origin::Elsewhere)).is_empty());
        }
        assert_eq!(outcome.await, Ok(true));
        assert_eq!(node.requests.pending(), 0);
    }

    #[test]
    fn the_table_is_bounded() {
        let mut table = Table::new(2);
        let mut begin = |waiter| table.begin(jid("d"), jid("a@d/r"), waiter);
        assert_eq!((begin("a"), begin("b"), begin("c")), (Some(0), Some(1), None));
        assert_eq!(table.forget(0), Some("a"));
        assert_eq!(table.begin(jid("d"), jid("a@d/r"), "d"), Some(2));
    }
}
