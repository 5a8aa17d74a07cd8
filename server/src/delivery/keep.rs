//! Messages for who is not there (XEP-0160): into the store, and to a session that came meanwhile.
//!
//! Nothing falls between "away" and "here". This side commits the message, then reads the routes, linearizably; a
//! session commits its priority, then looks what waits (`session/actor/drain.rs`). Each writes before it reads, so one
//! sees the other. A session that both have told takes a message once all the same: it is *pending* for it then.
//!
//! The sender sees nothing of all that: an account that is not there, one that does not exist, one that is disabled and
//! one that has blocked the sender are alike.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

use althing_cluster::link::LinkError;
use althing_cluster::task::{ClusterTask, DrainInbox};
use althing_proto::jid::{BareJid, FullJid, Jid};
use althing_proto::stanza::Stanza;
use althing_proto::stanza_id::StanzaId;

use super::keeping::keeping;
use super::kept::{self, Plan};
use super::places::{self, Place, Places};
use super::settles::Settles;
use super::{Next, account, bounce, local};
use crate::config::{Config, Durability};
use crate::metrics::Dropped;
use crate::modules::push;
use crate::node::NodeContext;
use crate::pipeline::Effects;
use crate::router::rules::{self, Presence, Rule};
use crate::session::effect::UserEvent;
use crate::session::inbound::Hold;
use crate::storage::StorageError;
use crate::storage::messages::{KeepFor, KeepInInbox, KeepMessage, MAX_MESSAGE_BYTES};

/// How long a node may take to tell its sessions that something waits.
const TOLD: Duration = Duration::from_secs(5);

/// How often the routes are asked who came meanwhile, where the cluster does not answer.
const ATTEMPTS: u32 = 8;

/// How long a message may be on its way to a session, beside the time for which that waits to be resumed.
const ON_ITS_WAY: Duration = Duration::from_secs(300);

/// What a node has to do with messages that wait.
#[derive(Debug, Default)]
pub struct Waiting {
    pub(super) keeps: Places,
    /// For whom messages are being kept because nobody was there.
    pub absent: Arc<Absent>,
    /// Messages that have arrived.
    pub settles: Settles,
    /// Domains whose durability was another one before, and until when what was on its way then may be in no store.
    in_memory: Mutex<HashMap<String, Instant>>,
}

impl Waiting {
    /// The configuration has been the first one until `now`, and is the second one from then on.
    pub fn changes(&self, before: &Config, after: &Config, now: Instant) {
        let lasts = Duration::from_secs(before.limits.resume_s) + ON_ITS_WAY;
        let of = |config: &Config, domain: &String| config.messages.durability_of(domain);
        for domain in &before.xmpp.domains {
            if of(before, domain) == Durability::Memory && of(after, domain) == Durability::Commit {
                self.in_memory.lock().insert(domain.clone(), now + lasts);
            }
        }
    }

    /// Whether a message for that account that is on its way may be in no store, though its host commits now.
    fn may_be_in_memory(&self, account: &BareJid, now: Instant) -> bool {
        let until = self.in_memory.lock().get(account.domain().as_str()).copied();
        until.is_some_and(|until| now < until)
    }
}

/// Accounts for whom messages are being kept because nobody was there. Who has come meanwhile hears of them first: what
/// goes to its sessions waits until it was told, so that no message overtakes an earlier one.
#[derive(Debug, Default)]
pub struct Absent {
    /// Without any nobody takes the lock.
    count: AtomicUsize,
    accounts: Mutex<HashMap<BareJid, Senders>>,
    told: Notify,
}

/// Who has sent what is being kept for an account, one entry a message.
type Senders = Vec<Option<Jid>>;

/// How long a message waits for earlier ones to be kept.
const BEHIND: Duration = Duration::from_secs(20);

impl Absent {
    /// A message is being kept for `account`, until the guard goes.
    #[must_use]
    pub fn begin(self: &Arc<Self>, account: &BareJid, sender: Option<&Jid>) -> AbsentGuard {
        let mut accounts = self.accounts.lock();
        accounts.entry(account.clone()).or_default().push(sender.cloned());
        self.count.store(accounts.len(), Ordering::Release);
        AbsentGuard { absent: Arc::clone(self), account: account.clone(), sender: sender.cloned() }
    }

    fn holds_of(&self, sender: &FullJid) -> bool {
        let is_of = |of: &Option<Jid>| of.as_ref().is_some_and(|of| of.as_str() == sender.as_str());
        self.count.load(Ordering::Acquire) > 0
            && self.accounts.lock().values().any(|senders| senders.iter().any(is_of))
    }

    /// Whether there is one for `account`.
    #[must_use]
    pub fn holds(&self, account: &BareJid) -> bool {
        self.count.load(Ordering::Acquire) > 0 && self.accounts.lock().contains_key(account)
    }

    /// Waits until there is none for `account`, or a while.
    pub async fn told(&self, account: &BareJid) {
        // Time is up: the store does not answer.
        let _ = timeout(BEHIND, self.until(|| !self.holds(account))).await;
    }

    async fn until(&self, is_so: impl Fn() -> bool) {
        loop {
            let told = self.told.notified();
            tokio::pin!(told);
            // Enabled before the look: it does not miss what comes in between.
            told.as_mut().enable();
            if is_so() {
                return;
            }
            told.await;
        }
    }
}

/// Waits until all that a session of this node has sent is with its receivers, or is kept and whoever came was told,
/// `patience` at most. Who goes on with its stream, or has its address next, may be on another node: what it sends from
/// there overtakes nothing then.
pub async fn brought(node: &NodeContext, sender: &FullJid, patience: Duration) {
    let all = async {
        node.waiting.absent.until(|| !node.waiting.absent.holds_of(sender)).await;
        node.remote.brought(sender).await;
    };
    if timeout(patience, all).await.is_err() {
        debug!(jid = %sender, "not all that a session has sent is with its receivers");
    }
}

/// A message is being kept.
#[derive(Debug)]
pub struct AbsentGuard {
    absent: Arc<Absent>,
    account: BareJid,
    sender: Option<Jid>,
}

impl Drop for AbsentGuard {
    fn drop(&mut self) {
        {
            let mut accounts = self.absent.accounts.lock();
            if let Some(senders) = accounts.get_mut(&self.account) {
                if let Some(place) = senders.iter().position(|of| *of == self.sender) {
                    senders.swap_remove(place);
                }
                if senders.is_empty() {
                    accounts.remove(&self.account);
                }
            }
            self.absent.count.store(accounts.len(), Ordering::Release);
        }
        self.absent.told.notify_waiters();
    }
}

/// Whether a message is kept where nobody is there.
#[must_use]
pub fn is_kept(node: &NodeContext, stanza: &Stanza) -> bool {
    node.config().offline.enabled && keeping(stanza).waits
}

/// What a stanza for an account is to the store.
#[derive(Debug)]
pub enum Planned {
    /// It is not to be kept.
    Not,
    /// The account has it already.
    Already(StanzaId),
    /// It is to be kept.
    New(Plan),
    /// It is, but too many are being kept now.
    Crowded,
    /// It is, but the disk is nearly full: what cannot be kept goes to nobody either.
    NoRoom,
}

/// What a stanza is to the store. `account`: its receiver, if that is one of this server's; `hold`: as what it came, if it
/// came over a stream with XEP-0198; `place`: what it has waited for, if it has.
#[must_use]
pub fn plan(
    node: &NodeContext,
    stanza: &Stanza,
    account: Option<&BareJid>,
    (hold, place): (Option<&Hold>, Option<Place>),
) -> Planned {
    if let Some(id) = account.and_then(|account| kept::id_of(stanza, account)) {
        return Planned::Already(id);
    }
    let wanted = kept::wanted(node, stanza);
    let waits = wanted.waits && account.is_some();
    if !waits && !wanted.archive {
        return Planned::Not;
    }
    if node.storage.engine.is_full() && kept::is_promised(node, stanza, account, wanted.archive) {
        return Planned::NoRoom;
    }
    let free = || node.waiting.keeps.free(stanza.from());
    let Some(place) = place.or_else(free) else { return Planned::Crowded };
    Plan::new(node, stanza, wanted, account.cloned(), (hold, place)).map_or(Planned::Not, Planned::New)
}

/// What becomes of a stanza for whom nobody of the account is there. `hold`: it is not safe before it is kept.
pub fn for_absent(
    node: &Arc<NodeContext>,
    stanza: &Stanza,
    account: &BareJid,
    planned: Planned,
    hold: Option<Hold>,
) -> Next {
    match planned {
        Planned::New(plan) if plan.waits() => {
            plan.keep_absent(node, hold);
            Next::NOTHING
        }
        Planned::Already(id) if node.config().offline.enabled => waits_on(node, stanza, account, id),
        Planned::Crowded if is_kept(node, stanza) => {
            let (node, stanza, account) = (Arc::clone(node), stanza.clone(), account.clone());
            Next::Wait(Box::pin(async move {
                let place = places::room(&node, stanza.from()).await;
                let planned = plan(&node, &stanza, Some(&account), (hold.as_ref(), place));
                for_absent(&node, &stanza, &account, planned, hold).into()
            }))
        }
        Planned::NoRoom => Next::Effects(bounce::no_room(node, stanza)),
        Planned::Not if is_kept(node, stanza) => {
            Next::Effects(bounce::too_large(node, stanza, MAX_MESSAGE_BYTES))
        }
        Planned::Already(_) | Planned::New(_) | Planned::Crowded | Planned::Not => {
            Next::Effects(bounce::unavailable(node, stanza))
        }
    }
}

/// A message that has an id, and that no session has taken: it waits for whoever comes.
fn waits_on(node: &Arc<NodeContext>, stanza: &Stanza, account: &BareJid, id: StanzaId) -> Next {
    let (node, stanza, account) = (Arc::clone(node), stanza.clone(), account.clone());
    let guard = node.waiting.absent.begin(&account, stanza.from());
    Next::Wait(Box::pin(async move {
        let mut effects = Effects::new();
        if kept::is_pending(&node, &account) && !node.waiting.may_be_in_memory(&account, Instant::now()) {
            release(&node, &account, id).await;
        } else if let Err(error) = wait_from_now_on(&node, &stanza, &account, id).await {
            effects = bounce::not_kept(&node, &stanza, &error);
        }
        tell_who_came(&node, &account).await;
        drop(guard);
        if effects.is_empty() {
            // As it was on its way to somebody nobody was told of it (XEP-0357).
            push(&node, &account, None, Some(&stanza));
        }
        effects
    }))
}

async fn release(node: &NodeContext, account: &BareJid, id: StanzaId) {
    // What is not there any more has arrived.
    if let Err(error) = node.storage.inbox.release(vec![(account.clone(), id)]).await {
        warn!(jid = %account, %error, "a message waits until the session that it was for has ended");
    }
}

/// Has a message that may be in the store wait there for whoever comes, and tells whoever is there.
pub(super) async fn free(node: &Arc<NodeContext>, account: &BareJid, id: StanzaId) {
    release(node, account, id).await;
    tell_who_came(node, account).await;
}

/// Has a message wait that was to be in the archive only. Its owner may not want it there: then it is nowhere yet.
async fn wait_from_now_on(
    node: &NodeContext,
    stanza: &Stanza,
    account: &BareJid,
    id: StanzaId,
) -> Result<(), StorageError> {
    let (stamp, config) = (node.now(), node.config());
    let inbox = KeepInInbox {
        takers: Vec::new(),
        expires: config.offline.expires(stamp),
        quota: config.offline.quota(),
        each_device: config.offline.per_device,
    };
    if node.storage.inbox.offline(account, id, inbox.clone()).await? {
        return Ok(());
    }
    let peer = stanza.from().cloned().unwrap_or_else(|| account.clone().into());
    let owner = KeepFor { owner: account.clone(), peer, outgoing: false, archive: None, inbox: Some(inbox) };
    let xml = kept::unmarked(stanza, account).to_standalone().into();
    node.storage.keep(KeepMessage { name: None, id, stamp, xml, owners: vec![owner] }).await.map(|_kept| ())
}

/// What becomes of a stanza that no session has taken, whoever the table of routes still has: the same as if nobody were
/// there (RFC 6121 §8.5.2.2, §8.5.3.2). What is in the store is not sent back.
pub fn taken_by_nobody(
    node: &Arc<NodeContext>,
    stanza: &Stanza,
    account: &BareJid,
    planned: Planned,
    hold: Option<Hold>,
) -> Next {
    match (nobody(stanza), &planned) {
        (Rule::Keep, _) | (_, Planned::Already(_)) => for_absent(node, stanza, account, planned, hold),
        (Rule::Ignore, _) => {
            node.metrics.dropped(Dropped::Rule);
            Next::NOTHING
        }
        _ => Next::Effects(bounce::unavailable(node, stanza)),
    }
}

/// What the table says of a stanza where nobody is there.
#[must_use]
pub fn nobody(stanza: &Stanza) -> Rule {
    let there = match stanza.to().is_some_and(|to| to.resource().is_some()) {
        true => Presence::ResourceAbsent { reachable: false },
        false => Presence::Account { reachable: false },
    };
    rules::rule(stanza.kind(), there)
}

/// Tells those of the account who are there that something waits.
pub(super) async fn tell_who_came(node: &Arc<NodeContext>, account: &BareJid) {
    for _ in 0..ATTEMPTS {
        match node.routes.barrier().await {
            Ok(()) => return tell_those_there_now(node, account).await,
            Err(error) => warn!(jid = %account, %error, "who came meanwhile is not known yet"),
        }
        // A node that has lost the others ends all its sessions: theirs look anew.
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// Tells those of the account who are there, as this node's table has it, that something waits.
pub fn tell_those_there(node: &Arc<NodeContext>, account: &BareJid) {
    let mut there = false;
    node.routes.visit_account(account, &mut |_, route| there |= route.priority >= Some(0));
    if there {
        account::notify(node, account, &UserEvent::Drain);
    }
}

/// As [`tell_those_there`], and waits until they were told, or a while: what goes to them afterwards, from whichever node,
/// is behind that.
async fn tell_those_there_now(node: &Arc<NodeContext>, account: &BareJid) {
    let mut elsewhere = BTreeSet::new();
    node.routes.visit_account(account, &mut |_, route| {
        if route.node != node.node_id && route.priority >= Some(0) {
            elsewhere.insert(route.node);
        }
    });
    tell_those_here(node, account);
    let task = || ClusterTask::from(DrainInbox { account: account.clone() });
    let tell = async |target| match node.links.ask(target, task(), TOLD).await {
        Err(LinkError::Full) => node.remote.overflow().tell(node, target, task()),
        Err(error) => debug!(jid = %account, %error, "whoever came is not known to be told"),
        Ok(_) => {}
    };
    join_all(elsewhere.into_iter().map(tell)).await;
}

/// As [`tell_those_there`], those of this node only.
pub fn tell_those_here(node: &Arc<NodeContext>, account: &BareJid) {
    let mut here = Vec::new();
    node.routes.visit_account(account, &mut |_, route| {
        if route.node == node.node_id && route.priority >= Some(0) {
            here.push(route.index);
        }
    });
    for index in here {
        local::notify(node, index, &UserEvent::Drain);
    }
}

#[cfg(test)]
mod tests;
