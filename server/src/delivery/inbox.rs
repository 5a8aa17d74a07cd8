//! What waits for an account, as a client sees it that fetches it by itself: not what is on its way to a session, and
//! nothing of whom the user blocks. Nothing goes because somebody has looked at it.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use minidom::Element;

use althing_cluster::node_id::NodeId;
use althing_cluster::routes::{BindIndex, RouteError};
use althing_cluster::task::{CountFetching, TaskReply};
use althing_proto::jid::BareJid;
use althing_proto::ns;
use althing_proto::stanza::Stanza;
use althing_proto::stanza_id::StanzaId;
use althing_proto::xml::build::BuilderExt;
use althing_proto::xml::name;

use super::kept;
use crate::node::NodeContext;
use crate::session::core::{Judge, SessionState};
use crate::session::effect::Effect;
use crate::storage::StorageError;
use crate::storage::messages::{DeviceId, InboxEntry, InboxMessage, MAX_PAGE, Settle};

/// So many messages are looked at, at most, to know whether one waits.
const MOST_LOOKED_AT: usize = 10 * MAX_PAGE;

/// How many texts are read at the same time.
const AT_ONCE: usize = 8;

/// How long another node may take to say whether somebody fetches there.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where a message is in the inbox: its number, then its id. As texts they are in the order of the inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Its number.
    pub seq: u64,
    /// Its id.
    pub id: StanzaId,
}

/// A text is no place of an inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no place of an inbox")]
pub struct NoPlace;

impl From<&InboxEntry> for Place {
    fn from(entry: &InboxEntry) -> Self {
        Place { seq: entry.seq, id: entry.id }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{}", self.seq, self.id)
    }
}

impl FromStr for Place {
    type Err = NoPlace;

    /// Reads the text form, nothing else.
    fn from_str(text: &str) -> Result<Self, NoPlace> {
        let (seq, id) = text.split_at_checked(16).ok_or(NoPlace)?;
        let seq = u64::from_str_radix(seq, 16).map_err(|_| NoPlace)?;
        let place = Place { seq, id: id.parse().map_err(|_| NoPlace)? };
        if place.to_string() == text { Ok(place) } else { Err(NoPlace) }
    }
}

/// The inbox of a session's account, as its client sees it.
#[derive(Clone)]
pub struct Reader {
    node: Arc<NodeContext>,
    account: BareJid,
    bind: BindIndex,
    device: Option<DeviceId>,
    judge: Judge,
}

/// A part of an inbox.
pub struct Page {
    /// What of it waits, oldest first.
    pub entries: Vec<InboxEntry>,
    /// Behind which number the next part begins; `None`: there is no more.
    pub next: Option<u64>,
}

impl Reader {
    /// For that session.
    #[must_use]
    pub fn new(node: &Arc<NodeContext>, session: &SessionState) -> Self {
        Reader {
            node: Arc::clone(node),
            account: session.account().clone(),
            bind: session.index(),
            device: kept::device(node, session.jid().resource().as_str()),
            judge: session.judge(),
        }
    }

    /// Whose inbox it is.
    #[must_use]
    pub fn account(&self) -> &BareJid {
        &self.account
    }

    /// The binds of the account that live.
    ///
    /// # Errors
    /// As [`live`].
    pub async fn live(&self) -> Result<Vec<BindIndex>, StorageError> {
        live(&self.node, &self.account).await
    }

    /// What waits behind the number `after`, of at most `limit` messages looked at.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn page(
        &self,
        live: &[BindIndex],
        after: Option<u64>,
        limit: usize,
    ) -> Result<Page, StorageError> {
        let limit = limit.min(MAX_PAGE);
        let mut entries = self.node.storage.inbox.list(&self.account, self.device, after, limit).await?;
        let next = entries.last().filter(|_| entries.len() == limit).map(|entry| entry.seq);
        entries.retain(|entry| self.shows(entry, live));
        Ok(Page { entries, next })
    }

    /// Whether something waits, and is not on its way to a session that lives; of the first [`MOST_LOOKED_AT`].
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn has_some(&self) -> Result<bool, StorageError> {
        if self.node.storage.inbox.summary(&self.account).await?.messages == 0 {
            return Ok(false);
        }
        let (live, mut after) = (self.live().await?, None);
        for _ in 0..MOST_LOOKED_AT / MAX_PAGE {
            let page = self.page(&live, after, MAX_PAGE).await?;
            if !page.entries.is_empty() {
                return Ok(true);
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        Ok(false)
    }

    /// What waits at that place.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn at(&self, live: &[BindIndex], place: Place) -> Result<Option<InboxEntry>, StorageError> {
        let Some(before) = place.seq.checked_sub(1) else { return Ok(None) };
        let found = self.node.storage.inbox.list(&self.account, self.device, Some(before), 1).await?;
        Ok(found.into_iter().find(|entry| Place::from(entry) == place && self.shows(entry, live)))
    }

    fn shows(&self, entry: &InboxEntry, live: &[BindIndex]) -> bool {
        !entry.is_pending(self.device, live) && self.judge.admits(&entry.from)
    }

    /// How many messages wait.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn count(&self) -> Result<usize, StorageError> {
        if self.node.storage.inbox.summary(&self.account).await?.messages == 0 {
            return Ok(0);
        }
        let live = self.live().await?;
        let (mut count, mut after) = (0, None);
        loop {
            let page = self.page(&live, after, MAX_PAGE).await?;
            count += page.entries.len();
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(count),
            }
        }
    }

    /// The messages of those entries as they are sent, each with its place, in order. Those that have gone meanwhile, and
    /// those that were retracted, are left out.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn texts(&self, entries: &[InboxEntry]) -> Result<Vec<(Place, Stanza)>, StorageError> {
        let mut texts = Vec::with_capacity(entries.len());
        for some in entries.chunks(AT_ONCE) {
            let read = some.iter().map(|entry| self.node.storage.inbox.get(&self.account, entry.id));
            for (message, entry) in join_all(read).await.into_iter().zip(some) {
                let message = message?.filter(|message| !message.retracted);
                let stanza = message.and_then(|message| waited(&message, &self.account));
                texts.extend(stanza.map(|stanza| (Place::from(entry), stanza)));
            }
        }
        Ok(texts)
    }

    /// The messages with those ids as they are sent once more, in order, and the ids of those that are not there any more.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn again(&self, ids: &[StanzaId]) -> Result<(Vec<Stanza>, Vec<StanzaId>), StorageError> {
        let (mut messages, mut gone) = (Vec::new(), Vec::new());
        for some in ids.chunks(AT_ONCE) {
            let read = some.iter().map(|id| self.node.storage.inbox.get(&self.account, *id));
            for (message, id) in join_all(read).await.into_iter().zip(some) {
                let message = message?.filter(|message| !message.retracted);
                match message.and_then(|message| waited(&message, &self.account)) {
                    Some(stanza) => messages.push(stanza),
                    None => gone.push(*id),
                }
            }
        }
        Ok((messages, gone))
    }

    /// Those have arrived: they go, at least for this device.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn settle(&self, ids: impl IntoIterator<Item = StanzaId>) -> Result<u32, StorageError> {
        let settle = |id| Settle { user: self.account.clone(), id, device: self.device };
        self.node.storage.inbox.settle(ids.into_iter().map(settle).collect()).await
    }

    /// All that waits goes, at least for this device; what is on its way to a session stays.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn purge(&self) -> Result<u32, StorageError> {
        let live = self.live().await?;
        self.node.storage.inbox.purge(&self.account, self.device, live).await
    }

    /// Whether the client keeps up, after a moment: one that asks for more and more gets it no faster than it reads.
    pub async fn keeps_up(&self) -> bool {
        let Some(own) = self.node.sessions.get(self.bind) else { return false };
        own.pressure().brake().await;
        !own.pressure().is_congested()
    }

    /// Writes copies to the client when it has read what it was sent before; `false`: the session is over.
    pub async fn show(&self, copies: Vec<Stanza>) -> bool {
        if copies.is_empty() {
            return true;
        }
        let Some(own) = self.node.sessions.get(self.bind) else { return false };
        own.pressure().relieved().await;
        !own.pressure().is_ending()
            && own.take_back(vec![Effect::Copies(copies)], None, None).await.is_empty()
    }

    /// Lets the session perform something of its own.
    pub async fn tell(&self, effects: Vec<Effect>) {
        if let (Some(own), false) = (self.node.sessions.get(self.bind), effects.is_empty()) {
            // A session that has gone has nothing to perform.
            drop(own.take_back(effects, None, None).await);
        }
    }

    /// Most bytes of what is written at once.
    #[must_use]
    pub fn most_bytes(&self) -> usize {
        self.node.config().limits.outbox_bytes / 8
    }
}

/// The binds of the account that live, this moment.
///
/// # Errors
/// [`StorageError::Unavailable`] where nobody can say.
pub async fn live(node: &NodeContext, account: &BareJid) -> Result<Vec<BindIndex>, StorageError> {
    let why = |error: RouteError| StorageError::Unavailable { why: error.to_string() };
    node.routes.barrier().await.map_err(why)?;
    let mut live = Vec::new();
    node.routes.visit_account(account, &mut |_, route| live.push(route.index));
    Ok(live)
}

/// Whether another session of the account has a client that fetches what waits: then no other is sent it (XEP-0013 §2.2).
/// A node that does not say has none.
pub async fn somebody_fetches(node: &NodeContext, account: &BareJid, own: BindIndex) -> bool {
    let mut here = Vec::new();
    let mut elsewhere: BTreeMap<NodeId, Vec<BindIndex>> = BTreeMap::new();
    node.routes.visit_account(account, &mut |_, route| {
        if route.index == own {
        } else if route.node == node.node_id {
            here.push(route.index);
        } else {
            elsewhere.entry(route.node).or_default().push(route.index);
        }
    });
    if count_fetching(node, &here) > 0 {
        return true;
    }
    for (target, sessions) in elsewhere {
        let reply = node.links.ask(target, CountFetching { sessions }.into(), PATIENCE).await;
        if matches!(reply, Ok(TaskReply::CountFetching(count)) if count > 0) {
            return true;
        }
    }
    false
}

/// How many of those sessions of this node have such a client.
#[must_use]
pub fn count_fetching(node: &NodeContext, sessions: &[BindIndex]) -> u64 {
    let fetches = |index: &&BindIndex| node.sessions.get(**index).is_some_and(|own| own.shown().fetches());
    sessions.iter().filter(fetches).count() as u64
}

/// The message as its receiver gets it: with its id (XEP-0359) and the time when it came (XEP-0203 §2), unless it says
/// already that this server has delayed it.
#[must_use]
pub fn waited(message: &InboxMessage, account: &BareJid) -> Option<Stanza> {
    let stanza = Stanza::from_standalone(&message.xml)?;
    let mut element = stanza.to_element();
    let domain = account.domain().as_str();
    let is_delayed =
        element.children().any(|child| child.is("delay", ns::DELAY) && child.attr("from") == Some(domain));
    if !is_delayed {
        let delay = Element::builder("delay", ns::DELAY)
            .set(name!("from"), domain)
            .set(name!("stamp"), message.stamp.to_xep0082())
            .build();
        element.append_child(delay);
    }
    element.append_child(kept::stanza_id(account, message.id));
    Stanza::parse(element).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// XEP-0013 §2.3: opaque, but in dictionary order.
    #[test]
    fn places_are_in_the_order_of_the_inbox_and_have_one_text() {
        let place = |seq| Place { seq, id: StanzaId::from_bytes([9; 16]) };
        let texts = [1, 9, 10, 255, 1 << 40].map(|seq| place(seq).to_string());
        assert!(texts.is_sorted());
        assert_eq!(texts[3].parse(), Ok(place(255)));
        let upper = texts[3].to_uppercase();
        for none in
            ["", "x", &texts[3][..47], &format!("{}0", texts[3]), &upper, &format!("+{}", &texts[3][1..])]
        {
            assert_eq!(none.parse::<Place>(), Err(NoPlace), "{none}");
        }
        assert_eq!("\u{e6}".repeat(24).parse::<Place>(), Err(NoPlace));
    }
}
