//! A client as people have it: it writes to its friends all the time, and comes back when its stream ends.

use std::sync::Arc;
use std::time::Duration;

use althing_proto::ns;
use anyhow::Result;
use minidom::Element;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::client::Client;
use crate::endpoint::Endpoint;
use crate::history::{Bound, History};
use crate::login::{Account, connect};
use crate::setup::DOMAIN;
use crate::stream::Event;

/// The resource of all talkers.
pub const RESOURCE: &str = "talker";
/// Between two messages of one client.
const PACE: Duration = Duration::from_millis(15);
/// Between two tries to come back.
const AGAIN: Duration = Duration::from_millis(200);

/// What a talker is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// Be at this node.
    At(usize),
    /// Say nothing more and leave.
    Leave,
}

/// A talker that is on its way. Dropping it ends it.
pub struct Talker {
    jid: String,
    home: usize,
    orders: watch::Sender<Order>,
    task: JoinHandle<()>,
}

/// What all talkers of a test share.
#[derive(Debug, Clone)]
pub struct Crowd {
    /// Where the nodes are reached.
    pub endpoints: Vec<Endpoint>,
    /// The full JIDs of all talkers.
    pub jids: Vec<String>,
    /// What they do is written here.
    pub history: Arc<History>,
}

impl Crowd {
    /// Sends a talker on its way, whose home is the node `home`.
    #[must_use]
    pub fn talker(&self, account: Account, home: usize) -> Talker {
        let (orders, receiver) = watch::channel(Order::At(home));
        let domain = self.endpoints.first().map_or(DOMAIN, |endpoint| endpoint.domain.as_str());
        let jid = format!("{}/{RESOURCE}", account.bare(domain));
        let task = tokio::spawn(live(self.clone(), account, receiver));
        Talker { jid, home, orders, task }
    }
}

impl Talker {
    /// Its full JID.
    #[must_use]
    pub fn jid(&self) -> &str {
        &self.jid
    }

    /// Where it belongs.
    #[must_use]
    pub fn home(&self) -> usize {
        self.home
    }

    /// It logs in at this node now, whether it has a stream elsewhere or not, and leaves that one alone.
    pub fn move_to(&self, node: usize) {
        self.orders.send_replace(Order::At(node));
    }

    /// It leaves; ends when it has left.
    ///
    /// # Errors
    /// A panic of the talker.
    pub async fn leave(mut self) -> Result<()> {
        self.orders.send_replace(Order::Leave);
        Ok((&mut self.task).await?)
    }
}

impl Drop for Talker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One connection after another; where one fails, the next node is tried.
async fn live(crowd: Crowd, account: Account, mut orders: watch::Receiver<Order>) {
    // Those of old streams go on beside the new one, as long as the server lets them.
    let mut streams = tokio::task::JoinSet::new();
    loop {
        let Order::At(mut node) = *orders.borrow_and_update() else { break };
        let client = loop {
            match connect(&crowd.endpoints[node], &account, RESOURCE).await {
                Ok(client) => break client,
                Err(_) => node = (node + 1) % crowd.endpoints.len(),
            }
            if *orders.borrow() == Order::Leave {
                return;
            }
            tokio::time::sleep(AGAIN).await;
        };
        let bound = crowd.history.bound(client.jid(), node);
        let (ended, mut end) = watch::channel(());
        let talk = talk(crowd.clone(), client, bound);
        streams.spawn(async move {
            talk.await;
            drop(ended);
        });
        tokio::select! {
            _ = orders.changed() => {}
            _ = end.changed() => {}
        }
    }
}

/// Until the stream ends.
async fn talk(crowd: Crowd, mut client: Client, bound: Bound) {
    let own = crowd.jids.iter().position(|jid| *jid == bound.jid).unwrap_or_default();
    let mut targets = (1..crowd.jids.len()).map(|step| (own + step) % crowd.jids.len()).cycle();
    let mut pace = tokio::time::interval(PACE);
    // A stream that says nothing is not dead.
    client.set_patience(Duration::from_secs(600));
    loop {
        tokio::select! {
            event = client.event() => match event {
                Ok(Event::Element(stanza)) if !stanza.is("error", ns::STREAM) => take(&crowd.history, &bound, &stanza),
                _ => return,
            },
            _ = pace.tick() => {
                let Some(target) = targets.next() else { return };
                let to = &crowd.jids[target];
                let number = crowd.history.sending(&bound, to);
                if client.send(&format!("<message to='{to}' id='{number}' type='chat'/>")).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn take(history: &History, bound: &Bound, stanza: &Element) {
    let Some(number) = stanza.attr("id").and_then(|id| id.parse().ok()) else { return };
    match stanza.attr("type") {
        Some("error") => history.bounced(number),
        _ => history.received(bound, number),
    }
}
