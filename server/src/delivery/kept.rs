//! One message that is to be kept: for whom, and how it gets into the store.
//!
//! Delivery runs ahead of the commit; the sender's acknowledgement does not (XEP-0198): its [`Hold`] goes when the message
//! is in the store, or its sender was told that it is not.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep};
use tracing::debug;

use althing_proto::jid::{BareJid, Jid};
use althing_proto::ns;
use althing_proto::stanza::{Kind, MessageType, Stanza};
use althing_proto::stanza_id::StanzaId;
use althing_proto::time::Timestamp;
use althing_proto::xml::Element;
use althing_proto::xml::build::BuilderExt;
use althing_proto::xml::name;

use super::keep::{self, AbsentGuard};
use super::keeping::{self, keeping};
use super::places::Place;
use super::receivers::Receiver;
use super::{bounce, drive};
use crate::config::Durability;
use crate::faults::{self, Fault};
use crate::metrics::{Delivery, Dropped, Keep};
use crate::modules::push;
use crate::node::NodeContext;
use crate::session::inbound::Hold;
use crate::storage::messages::{
    DeviceId, KeepFor, KeepInInbox, KeepMessage, Kept, MAX_MESSAGE_BYTES, MessageName, Taker,
};
use crate::storage::{self, StorageError};

/// How often a message is kept again of which nobody knows whether it is: under one id it is kept once.
const REPEATS: u32 = 2;

/// For so long a message is tried to be kept that somebody has got: its sender is not told that it failed before.
const PATIENCE: Duration = Duration::from_secs(20);

/// The first pause before it is tried again, and the longest: each is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(3);

/// The id under which `account` has a message in the store (XEP-0359 §3). Only this server may give it one.
#[must_use]
pub fn id_of(stanza: &Stanza, account: &BareJid) -> Option<StanzaId> {
    if !matches!(stanza.kind(), Kind::Message(_)) {
        return None;
    }
    stanza.element().children().find(|child| is_id_of(child, account))?.attr("id")?.parse().ok()
}

/// The child that says under which id `account` has a message.
#[must_use]
pub fn stanza_id(account: &BareJid, id: StanzaId) -> Element {
    Element::builder("stanza-id", ns::STANZA_ID)
        .set(name!("by"), account.as_str())
        .set(name!("id"), id.to_string())
        .build()
}

/// The message without the id under which `account` has it.
#[must_use]
pub fn unmarked(stanza: &Stanza, account: &BareJid) -> Stanza {
    let mut element = stanza.element().clone();
    for node in element.take_nodes() {
        if !node.as_element().is_some_and(|child| is_id_of(child, account)) {
            element.append_node(node);
        }
    }
    Stanza::from_parts(stanza.kind(), stanza.from().cloned(), stanza.to().cloned(), element)
}

/// Whether that child says under which id `account` has a message.
#[must_use]
pub fn is_id_of(child: &Element, account: &BareJid) -> bool {
    child.is("stanza-id", ns::STANZA_ID) && child.attr("by") == Some(account.as_str())
}

/// Whether what goes to a session is in its account's inbox until it has arrived: only there, and not in the archive
/// alone, nobody has to see to it that it is not lost with the session.
#[must_use]
pub fn is_pending(node: &NodeContext, account: &BareJid) -> bool {
    let config = node.config();
    config.offline.enabled && config.messages.durability_for(account) == Durability::Commit
}

/// Whether the sender of `stanza` is told that it is handled only when it is in the store: one of those it is kept for is
/// of a host that promises that. The sender is one of them where it is archived.
#[must_use]
pub fn is_promised(node: &NodeContext, stanza: &Stanza, account: Option<&BareJid>, archived: bool) -> bool {
    let config = node.config();
    let commits = |owner: &BareJid| config.messages.durability_for(owner) == Durability::Commit;
    if account.is_some_and(commits) {
        return true;
    }
    let sender = stanza.from().filter(|_| archived && config.archive.enabled);
    sender.is_some_and(|from| is_ours(node, from) && commits(&from.to_bare()))
}

/// Whether that is the address of an account here, or of one of its sessions.
fn is_ours(node: &NodeContext, jid: &Jid) -> bool {
    jid.node().is_some() && node.serves(jid.domain().as_str())
}

/// The device of a resource, where messages wait for each.
#[must_use]
pub fn device(node: &NodeContext, resource: &str) -> Option<DeviceId> {
    node.config().offline.per_device.then(|| {
        let hash = StanzaId::derived(b"device", &[resource.as_bytes()]);
        let [a, b, c, d, e, f, g, h, ..] = *hash.as_bytes();
        // 0 is no device.
        DeviceId(u64::from_be_bytes([a, b, c, d, e, f, g, h]).max(1))
    })
}

/// Those sessions as takers of a message.
#[must_use]
pub fn takers(node: &NodeContext, receivers: &[Receiver]) -> Vec<Taker> {
    let per_device = node.config().offline.per_device;
    let taker = |Receiver { route, remote }: &Receiver| {
        let bind = route.index;
        if !per_device {
            return Taker { bind, device: None };
        }
        let resource = match remote {
            Some(jid) => Some(jid.resource().as_str().to_owned()),
            None => node.sessions.get(bind).map(|session| session.jid.resource().as_str().to_owned()),
        };
        Taker { bind, device: resource.and_then(|resource| device(node, &resource)) }
    };
    receivers.iter().map(taker).collect()
}

/// A message that is to be kept, and has its place among those that are.
#[derive(Debug)]
pub struct Plan {
    id: StanzaId,
    stamp: Timestamp,
    since: Instant,
    xml: Bytes,
    /// As it came.
    stanza: Stanza,
    keeping: keeping::Keeping,
    /// Who gets it, if that is an account of this server's.
    account: Option<BareJid>,
    place: Place,
}

impl Plan {
    /// How `stanza` is to be kept. `None` for what is kept nowhere, and for what is too large. Its receiver is there, or
    /// will be known not to be.
    #[must_use]
    pub fn new(
        node: &NodeContext,
        stanza: &Stanza,
        keeping: keeping::Keeping,
        account: Option<BareJid>,
        (hold, place): (Option<&Hold>, Place),
    ) -> Option<Plan> {
        let xml = Bytes::from(stanza.to_standalone());
        if xml.len() > MAX_MESSAGE_BYTES {
            return None;
        }
        let stamp = node.now();
        // Without randomness of the system what is unique all the same is good enough for an id.
        let derived = || {
            let parts = [&node.node_id.get().to_be_bytes()[..], &stamp.as_millis().to_be_bytes(), &xml];
            StanzaId::derived(&node.decoy_secret, &parts)
        };
        // Where it follows from how the message came it is kept once, however often it comes.
        let known = hold.zip(node.stream_secret.get());
        let id = known.and_then(|(hold, secret)| hold.stanza_id(secret, stanza, &xml));
        let random = || node.random().map(StanzaId::from_bytes);
        let id = id.or_else(random).unwrap_or_else(derived);
        Some(Plan { id, stamp, since: Instant::now(), xml, stanza: stanza.clone(), keeping, account, place })
    }

    /// As its receiver gets it.
    #[must_use]
    pub fn marked(&self, node: &NodeContext) -> Stanza {
        let is_marked = |account: &&BareJid| self.keeping.archive || is_pending(node, account);
        match self.account.as_ref().filter(is_marked) {
            Some(account) => self.stanza.with_child(stanza_id(account, self.id)),
            None => self.stanza.clone(),
        }
    }

    /// Whether it waits for who is not there.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.keeping.waits
    }

    fn is_promised(&self, node: &NodeContext) -> bool {
        is_promised(node, &self.stanza, self.account.as_ref(), self.keeping.archive)
    }

    /// As it came.
    #[must_use]
    pub fn stanza(&self) -> &Stanza {
        &self.stanza
    }

    /// Keeps it while it goes to those sessions.
    pub fn keep_live(self, node: &Arc<NodeContext>, takers: Vec<Taker>, hold: Option<Hold>) {
        let hold = hold.filter(|_| self.is_promised(node));
        self.keep(node, Some(takers), hold, None);
    }

    /// Keeps it for who is not there.
    pub fn keep_absent(self, node: &Arc<NodeContext>, hold: Option<Hold>) {
        let guard =
            { self.account.as_ref().map(|account| node.waiting.absent.begin(account, self.stanza.from())) };
        self.keep(node, None, hold, guard);
    }

    fn keep(
        self,
        node: &Arc<NodeContext>,
        takers: Option<Vec<Taker>>,
        mut hold: Option<Hold>,
        guard: Option<AbsentGuard>,
    ) {
        let message = self.message(node, takers.as_deref());
        if message.owners.is_empty() {
            return;
        }
        let handled = hold.as_mut().and_then(Hold::commits);
        let first = node.storage.keep_and_handle(message, handled);
        if faults::makes(Fault::AckBeforeCommit)
            && let Some(hold) = hold.take()
        {
            hold.kept();
        }
        let (own, losses) = (Arc::clone(node), node.lease.losses());
        node.remote.runtime().spawn(async move {
            let kept = self.committed(&own, takers.as_deref(), first, hold.as_mut()).await;
            if kept.is_err() && own.lease.losses() != losses {
                // Its sender's session has ended with the lease: it counts as not handled, and an error would be the word of
                // a node that did not act then.
                if let Some(hold) = hold {
                    hold.never();
                }
                return;
            }
            let is_over = own.lease.losses() != losses;
            self.finish(&own, kept, (takers.is_none(), is_over), hold).await;
            drop(guard);
        });
    }

    /// What becomes of it in the end. Of what may be kept already the store is asked again; what somebody has got is tried for
    /// a while, unless the node is over: what it has not kept then nobody expects any more.
    async fn committed(
        &self,
        node: &Arc<NodeContext>,
        takers: Option<&[Taker]>,
        mut keeping: storage::Keeping,
        mut hold: Option<&mut Hold>,
    ) -> Result<Vec<Kept>, StorageError> {
        let (since, losses) = (Instant::now(), node.lease.losses());
        let (mut attempt, mut pause) = (0, FIRST_PAUSE);
        loop {
            attempt += 1;
            let kept = keeping.await;
            let again = match &kept {
                Ok(_) if attempt > 1 && takers.is_some() => {
                    // Who was to get it may have ended meanwhile, and others have looked too early.
                    if let Some(account) = &self.account {
                        keep::tell_those_there(node, account);
                    }
                    false
                }
                // After so long later ones of its sender may be kept.
                Err(StorageError::Unknown) if attempt <= REPEATS && since.elapsed() < PATIENCE => true,
                Err(error) => takers.is_some() && error.is_passing() && since.elapsed() < PATIENCE,
                Ok(_) => false,
            };
            if !again {
                return kept;
            }
            if let Some(hold) = &mut hold {
                hold.is_behind();
            }
            sleep(pause).await;
            pause = (pause * 2).min(MAX_PAUSE);
            if !node.lease.serving().await || node.lease.losses() != losses {
                return kept;
            }
            let handled = hold.as_mut().and_then(|hold| hold.commits());
            keeping = node.storage.keep_and_handle(self.message(node, takers), handled);
        }
    }

    /// The message as the store gets it. Takers: those that it goes to; `None`: nobody is there.
    fn message(&self, node: &NodeContext, takers: Option<&[Taker]>) -> KeepMessage {
        let config = node.config();
        let archived = self.keeping.archive && config.archive.enabled;
        let archive = archived.then(|| config.archive.default.into());
        let mut owners = Vec::with_capacity(2);
        let accounts = self.stanza.from().zip(self.stanza.to());
        if let (Some((from, to)), Some(_)) = (accounts, archive) {
            let sender = from.to_bare();
            if is_ours(node, from) && self.account.as_ref() != Some(&sender) {
                owners.push(KeepFor {
                    owner: sender,
                    peer: to.clone(),
                    outgoing: true,
                    archive,
                    inbox: None,
                });
            }
        }
        if let Some(account) = &self.account {
            let waits = match takers {
                Some(_) => self.keeping.waits && is_pending(node, account),
                None => true,
            };
            let inbox = waits.then(|| KeepInInbox {
                takers: takers.unwrap_or_default().to_vec(),
                expires: config.offline.expires(self.stamp),
                quota: config.offline.quota(),
                each_device: config.offline.per_device,
            });
            let peer = self.stanza.from().cloned().unwrap_or_else(|| Jid::from(account.clone()));
            if archive.is_some() || inbox.is_some() {
                owners.push(KeepFor { owner: account.clone(), peer, outgoing: false, archive, inbox });
            }
        }
        // What its sender may take back (XEP-0424 §5).
        let name = match self.stanza.kind() {
            Kind::Message(MessageType::Chat | MessageType::Normal) if archived => {
                self.stanza.id().zip(self.stanza.to())
            }
            _ => None,
        };
        let name = name.map(|(id, to)| MessageName::of(&to.to_bare(), id));
        KeepMessage { id: self.id, stamp: self.stamp, xml: self.xml.clone(), owners, name }
    }

    /// It is kept, or not.
    async fn finish(
        self,
        node: &Arc<NodeContext>,
        kept: Result<Vec<Kept>, StorageError>,
        (absent, is_over): (bool, bool),
        mut hold: Option<Hold>,
    ) {
        let is_promised = self.is_promised(node);
        let Plan { id, stanza, account, place, since, .. } = self;
        let what = match &kept {
            Ok(kept) if kept.contains(&Kept::Closed) => Keep::Closed,
            Ok(_) => Keep::Kept,
            Err(_) => Keep::Refused,
        };
        node.metrics.keeping.kept(what, since.elapsed());
        match kept {
            // Its sender has been told elsewhere that it is not handled, and writes it once more.
            Ok(kept) if kept.contains(&Kept::Closed) => {
                debug!(stop = "delivery.keep", "the stream of a message is closed");
                if let Some(hold) = hold {
                    hold.never();
                }
            }
            Ok(kept) => {
                if let Some(hold) = hold {
                    hold.kept();
                }
                drop(place);
                if !absent
                    && is_over
                    && let Some(account) = &account
                    && is_pending(node, account)
                {
                    // What it was brought by may have been left, and others have looked too early.
                    return keep::free(node, account, id).await;
                }
                let Some(account) = account.filter(|_| absent) else { return };
                if matches!(kept.last(), Some(Kept::At(_))) {
                    debug!(stop = "delivery.keep", jid = %account, "kept until somebody is there");
                    node.metrics.delivery(Delivery::Kept);
                    push(node, &account, None, Some(&stanza));
                    keep::tell_who_came(node, &account).await;
                } else {
                    node.metrics.dropped(Dropped::Rule);
                }
            }
            // Nobody was promised that it is in the archive, and its receiver has it.
            Err(error) if !absent && !is_promised => {
                debug!(stop = "delivery.keep", %error, "a message is in no archive");
                if let Some(hold) = &mut hold {
                    hold.is_behind();
                }
            }
            // The sender hears of it before its stanza counts as handled.
            Err(error) => {
                if let Some(hold) = &mut hold {
                    hold.is_behind();
                }
                drive(node, bounce::not_kept(node, &stanza, &error)).await;
                drop(hold);
            }
        }
    }
}

/// Where a message is to be kept, by what it is and by the configuration; nowhere, as a rule, for what is no message.
#[must_use]
pub fn wanted(node: &NodeContext, stanza: &Stanza) -> keeping::Keeping {
    if !matches!(stanza.kind(), Kind::Message(_)) {
        return keeping::Keeping::default();
    }
    let config = node.config();
    let keeping = keeping(stanza);
    keeping::Keeping {
        waits: keeping.waits && config.offline.enabled,
        archive: keeping.archive && config.archive.enabled,
    }
}

#[cfg(test)]
mod tests;
