//! Messages for who is not there (XEP-0160): into the store, and to a session that came meanwhile.
//!
//! Nothing falls between "away" and "here". This side commits the message, then reads the routes, linearizably; a
//! session commits its priority, then looks what waits (`session/actor/drain.rs`). Each writes before it reads, so one
//! sees the other. A session that both have told takes a message once all the same: it is *pending* for it then.
//!
//! The sender sees nothing of all that: an account that is not there, one that does not exist, one that is disabled and
//! one that has blocked the sender are alike.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use tokio::time::timeout;
use tracing::warn;

use althing_proto::jid::BareJid;
use althing_proto::stanza::Stanza;
use althing_proto::stanza_id::StanzaId;

use super::keeping::keeping;
use super::kept::{self, Plan};
use super::settles::Settles;
use super::{Next, account, bounce, local};
use crate::metrics::Dropped;
use crate::node::NodeContext;
use crate::pipeline::Effects;
use crate::router::rules::{self, Presence, Rule};
use crate::session::effect::UserEvent;
use crate::session::inbound::Hold;
use crate::storage::messages::{KeepInInbox, MAX_MESSAGE_BYTES};

/// Most messages of one node that are being kept at the same time. With more, whoever sends them waits.
const MAX_KEEPS: usize = 1_024;

/// How often the routes are asked who came meanwhile, where the cluster does not answer.
const ATTEMPTS: u32 = 8;

/// What a node has to do with messages that wait.
#[derive(Debug)]
pub struct Waiting {
    /// One permit for each message that is being kept.
    keeps: Arc<Semaphore>,
    /// For whom messages are being kept because nobody was there.
    pub absent: Arc<Absent>,
    /// Messages that have arrived.
    pub settles: Settles,
}

impl Default for Waiting {
    fn default() -> Self {
        let keeps = Arc::new(Semaphore::new(MAX_KEEPS));
        Waiting { keeps, absent: Arc::default(), settles: Settles::default() }
    }
}

/// Accounts for whom messages are being kept because nobody was there. Who has come meanwhile hears of them first: what
/// goes to its sessions waits until it was told, so that no message overtakes an earlier one.
#[derive(Debug, Default)]
pub struct Absent {
    /// Without any nobody takes the lock.
    count: AtomicUsize,
    accounts: Mutex<HashMap<BareJid, usize>>,
    told: Notify,
}

/// How long a message waits for earlier ones to be kept.
const BEHIND: Duration = Duration::from_secs(20);

impl Absent {
    /// A message is being kept for `account`, until the guard goes.
    #[must_use]
    pub fn begin(self: &Arc<Self>, account: &BareJid) -> AbsentGuard {
        let mut accounts = self.accounts.lock();
        *accounts.entry(account.clone()).or_default() += 1;
        self.count.store(accounts.len(), Ordering::Release);
        AbsentGuard { absent: Arc::clone(self), account: account.clone() }
    }

    /// Whether there is one for `account`.
    #[must_use]
    pub fn holds(&self, account: &BareJid) -> bool {
        self.count.load(Ordering::Acquire) > 0 && self.accounts.lock().contains_key(account)
    }

    /// Waits until there is none for `account`, or a while.
    pub async fn told(&self, account: &BareJid) {
        let none = async {
            loop {
                let told = self.told.notified();
                tokio::pin!(told);
                // Enabled before the look: it does not miss what comes in between.
                told.as_mut().enable();
                if !self.holds(account) {
                    return;
                }
                told.await;
            }
        };
        // Time is up: the store does not answer.
        let _ = timeout(BEHIND, none).await;
    }
}

/// A message is being kept.
#[derive(Debug)]
pub struct AbsentGuard {
    absent: Arc<Absent>,
    account: BareJid,
}

impl Drop for AbsentGuard {
    fn drop(&mut self) {
        {
            let mut accounts = self.absent.accounts.lock();
            if let Some(count) = accounts.get_mut(&self.account) {
                *count -= 1;
                if *count == 0 {
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
}

/// What a stanza is to the store. `account`: its receiver, if that is one of this server's; `hold`: as what it came, if it
/// came over a stream with XEP-0198.
#[must_use]
pub fn plan(node: &NodeContext, stanza: &Stanza, account: Option<&BareJid>, hold: Option<&Hold>) -> Planned {
    if let Some(id) = account.and_then(|account| kept::id_of(stanza, account)) {
        return Planned::Already(id);
    }
    let wanted = kept::wanted(node, stanza);
    let waits = wanted.waits && account.is_some();
    if !waits && !wanted.archive {
        return Planned::Not;
    }
    let Ok(permit) = Arc::clone(&node.waiting.keeps).try_acquire_owned() else { return Planned::Crowded };
    Plan::new(node, stanza, wanted, account.cloned(), (hold, permit)).map_or(Planned::Not, Planned::New)
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
        Planned::Already(id) if node.config().offline.enabled => free(node, account, id),
        Planned::Crowded if is_kept(node, stanza) => {
            let (node, stanza, account) = (Arc::clone(node), stanza.clone(), account.clone());
            Next::Wait(Box::pin(async move {
                room(&node).await;
                let planned = plan(&node, &stanza, Some(&account), hold.as_ref());
                for_absent(&node, &stanza, &account, planned, hold).into()
            }))
        }
        Planned::Not if is_kept(node, stanza) => {
            Next::Effects(bounce::too_large(node, stanza, MAX_MESSAGE_BYTES))
        }
        Planned::Already(_) | Planned::New(_) | Planned::Crowded | Planned::Not => {
            Next::Effects(bounce::unavailable(node, stanza))
        }
    }
}

/// Waits until one more message may be kept.
pub async fn room(node: &NodeContext) {
    // Nobody closes it.
    drop(node.waiting.keeps.acquire().await);
}

/// A message that is in the store, and that no session has taken: it waits for whoever comes.
fn free(node: &Arc<NodeContext>, account: &BareJid, id: StanzaId) -> Next {
    let (node, account) = (Arc::clone(node), account.clone());
    let guard = node.waiting.absent.begin(&account);
    Next::Wait(Box::pin(async move {
        let (now, config) = (node.now(), node.config());
        let freed = match kept::is_pending(&node) {
            // What is not there any more has arrived.
            true => node.storage.inbox.release(vec![(account.clone(), id)]).await,
            false => {
                let inbox = KeepInInbox {
                    takers: Vec::new(),
                    expires: config.offline.expires(now),
                    quota: config.offline.quota(),
                    each_device: config.offline.per_device,
                };
                node.storage.inbox.offline(&account, id, inbox).await.map(|_known| ())
            }
        };
        if let Err(error) = freed {
            warn!(jid = %account, %error, "a message waits until the session that it was for has ended");
        }
        tell_who_came(&node, &account).await;
        drop(guard);
        Effects::new()
    }))
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
            Ok(()) => {
                tell_those_there(node, account);
                return;
            }
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
