//! Messages for who is not there (XEP-0160): into the store, and to a session that came meanwhile.
//!
//! Nothing falls between "away" and "here". This side commits the message, then reads the routes, linearizably; a
//! session commits its priority, then looks what waits (`session/actor/drain.rs`). Each writes before it reads, so one
//! sees the other. A session that both have told takes a message once all the same: it is *pending* for it then.
//!
//! The sender sees nothing of all that: an account that is not there, one that does not exist, one that is disabled and
//! one that has blocked the sender are alike.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, join};
use tokio::sync::Semaphore;
use tracing::{debug, warn};

use althing_proto::jid::{BareJid, Jid};
use althing_proto::privacy::Kinds;
use althing_proto::stanza::Stanza;
use althing_proto::stanza_id::StanzaId;

use super::keeping::keeping;
use super::settles::Settles;
use super::{account, bounce, drive, local};
use crate::metrics::{Delivery, Dropped};
use crate::node::NodeContext;
use crate::pipeline::Effects;
use crate::pipeline::packet::is_of_account;
use crate::router::rules::{self, Presence, Rule};
use crate::session::effect::UserEvent;
use crate::session::inbound::Hold;
use crate::storage::messages::{KeepFor, KeepInInbox, KeepMessage, Kept, MAX_MESSAGE_BYTES};
use crate::storage::{Keeping, StorageError};

/// Most messages of one node that are being kept at the same time. With more, whoever sends them waits.
const MAX_KEEPS: usize = 1_024;

/// How often the routes are asked who came meanwhile, where the cluster does not answer.
const ATTEMPTS: u32 = 8;

/// What a node has to do with messages that wait.
#[derive(Debug)]
pub struct Waiting {
    /// One permit for each message that is being kept.
    keeps: Arc<Semaphore>,
    /// Messages that have arrived.
    pub settles: Settles,
}

impl Default for Waiting {
    fn default() -> Self {
        Waiting { keeps: Arc::new(Semaphore::new(MAX_KEEPS)), settles: Settles::default() }
    }
}

/// Whether a message is kept where nobody is there.
#[must_use]
pub fn is_kept(node: &NodeContext, stanza: &Stanza) -> bool {
    node.config().offline.enabled && keeping(stanza).waits
}

/// What becomes of a stanza for whom nobody of the account is there. `hold`: it is not safe before it is kept.
pub fn for_absent(
    node: &Arc<NodeContext>,
    stanza: Stanza,
    account: BareJid,
    hold: Option<Hold>,
) -> BoxFuture<'static, Effects> {
    if !is_kept(node, &stanza) {
        let effects = bounce::unavailable(node, &stanza);
        return Box::pin(std::future::ready(effects));
    }
    let node = Arc::clone(node);
    Box::pin(async move { keep(&node, stanza, account, hold).await })
}

/// What becomes of a stanza that no session has taken, whoever the table of routes still has: the same as if nobody were
/// there (RFC 6121 §8.5.2.2, §8.5.3.2).
pub fn taken_by_nobody(
    node: &Arc<NodeContext>,
    stanza: Stanza,
    account: BareJid,
    hold: Option<Hold>,
) -> BoxFuture<'static, Effects> {
    match nobody(&stanza) {
        Rule::Keep => for_absent(node, stanza, account, hold),
        Rule::Ignore => {
            node.metrics.dropped(Dropped::Rule);
            Box::pin(std::future::ready(Effects::new()))
        }
        _ => {
            let effects = bounce::unavailable(node, &stanza);
            Box::pin(std::future::ready(effects))
        }
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

/// Waits only for what decides whether it is kept; that it is kept in the order in which it came is certain then.
async fn keep(node: &Arc<NodeContext>, stanza: Stanza, account: BareJid, mut hold: Option<Hold>) -> Effects {
    // Nobody closes it.
    let permit = Arc::clone(&node.waiting.keeps).acquire_owned().await;
    let xml = Bytes::from(stanza.to_standalone());
    if xml.len() > MAX_MESSAGE_BYTES {
        return bounce::too_large(node, &stanza, MAX_MESSAGE_BYTES);
    }
    match is_wanted(node, &stanza, &account).await {
        Ok(true) => {}
        Ok(false) => {
            node.metrics.dropped(Dropped::Rule);
            return Effects::new();
        }
        Err(error) => return bounce::not_kept(node, &stanza, &error),
    }
    let id = hold
        .as_ref()
        .zip(node.stream_secret.get())
        .and_then(|(hold, secret)| hold.stanza_id(secret, &account));
    let message = message(node, &stanza, xml, &account, id);
    let keeping = node.storage.keep_and_handle(message, hold.as_mut().and_then(Hold::commits));
    let own = Arc::clone(node);
    node.remote.runtime().spawn(async move {
        finish(&own, keeping, &stanza, &account, hold).await;
        drop(permit);
    });
    Effects::new()
}

/// Whether the account is there, may be used and has not blocked the sender.
async fn is_wanted(node: &NodeContext, stanza: &Stanza, account: &BareJid) -> Result<bool, StorageError> {
    let judged = async {
        match stanza.from().filter(|from| !is_of_account(from, account) && from.node().is_some()) {
            Some(from) => {
                let judged = node.storage.privacy.judge(account, from).await?;
                Ok(!judged.denied.meets(Kinds::inbound(stanza.kind())))
            }
            None => Ok(true),
        }
    };
    let (allowed, standing) = join(judged, node.storage.accounts.standing(account)).await;
    Ok(allowed? && standing?.is_some_and(|standing| standing.disabled.is_none()))
}

/// `id`: where it follows from how the message came, so that it is kept once however often it comes.
fn message(
    node: &NodeContext,
    stanza: &Stanza,
    xml: Bytes,
    account: &BareJid,
    id: Option<StanzaId>,
) -> KeepMessage {
    let (now, config) = (node.now(), node.config());
    // Without randomness of the system what is unique all the same is good enough for an id.
    let parts =
        || [&node.node_id.get().to_be_bytes()[..], &now.as_millis().to_be_bytes(), &xml].map(<[u8]>::to_vec);
    let id = id.or_else(|| node.random().map(StanzaId::from_bytes)).unwrap_or_else(|| {
        let parts = parts();
        StanzaId::derived(&node.decoy_secret, &parts.each_ref().map(Vec::as_slice))
    });
    let inbox = KeepInInbox {
        takers: Vec::new(),
        expires: config.offline.expires(now),
        quota: config.offline.quota(),
        each_device: config.offline.per_device,
    };
    let peer = stanza.from().cloned().unwrap_or_else(|| Jid::from(account.clone()));
    let owner = KeepFor { owner: account.clone(), peer, outgoing: false, archive: None, inbox: Some(inbox) };
    KeepMessage { id, stamp: now, xml, owners: vec![owner] }
}

/// Waits until the message is kept, and sees to it that whoever came meanwhile gets it.
async fn finish(
    node: &Arc<NodeContext>,
    keeping: Keeping,
    stanza: &Stanza,
    account: &BareJid,
    hold: Option<Hold>,
) {
    match keeping.await {
        Ok(kept) => {
            drop(hold);
            if matches!(kept[..], [Kept::At(_)]) {
                debug!(stop = "delivery.keep", jid = %account, "kept until somebody is there");
                node.metrics.delivery(Delivery::Kept);
                tell_who_came(node, account).await;
            }
        }
        // The sender hears of it before its stanza counts as handled.
        Err(error) => drive(node, bounce::not_kept(node, stanza, &error)).await,
    }
}

/// Tells those of the account who are there that something waits.
async fn tell_who_came(node: &Arc<NodeContext>, account: &BareJid) {
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
