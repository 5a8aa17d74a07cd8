//! What a change means for a user's privacy lists: versions, numbers, limits, who uses what. Pure; shared by all
//! places of storage, which say how rows are read ([`PrivacyRows`]) and write what comes of it.

use std::collections::HashSet;

use althing_proto::jid::Jid;
use althing_proto::privacy::{
    BlockDelta, Connected, Entry, Item, Kinds, List, ListHead, Lists, PrivacyChange, PrivacyChanged,
    PrivacyError, SessionKey, keys_of,
};
use althing_proto::roster::RosterItem;
use serde::{Deserialize, Serialize};

use super::{Judgement, PrivacyLimits, WhichList};

/// The name of the list that the first block makes, where no other list has it.
const BLOCK_LIST: &str = "blocked";

/// Most sessions with a list of their own that are remembered. An account has fewer sessions; what is left of
/// those that ended goes with each change.
const MAX_ACTIVE: usize = 1_000;

/// What is kept of a user's lists beside their rules.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct PrivacyHead {
    version: u64,
    default: Option<u32>,
    /// The number of the last list that was made.
    last: u32,
    heads: Vec<ListHead>,
    /// Which list applies to a session instead of the default.
    active: Vec<(SessionKey, u32)>,
}

impl PrivacyHead {
    /// The same, with no session that has a list of its own.
    pub(super) fn without_sessions(mut self) -> Self {
        self.active.clear();
        self
    }
}

/// Reads the rows of one user.
pub(super) trait PrivacyRows {
    /// Why a row could not be read.
    type Error;

    fn head(&self) -> Result<Option<PrivacyHead>, Self::Error>;

    fn items(&self, list: u32) -> Result<Vec<Item>, Self::Error>;

    fn has_entry(&self, list: u32, jid: &Jid) -> Result<bool, Self::Error>;

    /// Ordered by address, bytewise.
    fn entries(&self, list: u32) -> Result<Vec<Entry>, Self::Error>;
}

/// A row to write, or to take away.
#[derive(Debug)]
pub(super) enum PrivacyWrite {
    Head(PrivacyHead),
    /// The items of a list; the row goes where there are none.
    Items(u32, Vec<Item>),
    Entry(u32, Entry),
    NoEntry(u32, Jid),
}

type Written = (PrivacyChanged, Vec<PrivacyWrite>);

/// What a user has, with the list that is asked for.
pub(super) fn load<R: PrivacyRows>(rows: &R, which: &WhichList) -> Result<Lists, R::Error> {
    let Some(head) = rows.head()? else { return Ok(Lists::default()) };
    let wanted = match which {
        WhichList::None => None,
        WhichList::Default => head.default,
        WhichList::Applied(number) => head.numbered(*number).map(|head| head.number).or(head.default),
        WhichList::Named(name) => head.named(name).map(|head| head.number),
    };
    let list = wanted
        .map(|number| Ok(List { number, entries: rows.entries(number)?, items: rows.items(number)? }))
        .transpose()?;
    Ok(Lists { version: head.version, default: head.default, heads: head.heads, list })
}

/// What the default list says of `peer`, whose roster item is `item`.
pub(super) fn judge<R: PrivacyRows>(
    rows: &R,
    peer: &Jid,
    item: Option<RosterItem>,
) -> Result<Judgement, R::Error> {
    let head = rows.head()?;
    let Some(list) = head.as_ref().and_then(|head| head.numbered(head.default?)) else {
        return Ok(Judgement { item, denied: Kinds::NONE });
    };
    if list.entries > 0 {
        for key in keys_of(peer) {
            if rows.has_entry(list.number, &key)? {
                return Ok(Judgement { item, denied: Kinds::ALL });
            }
        }
    }
    let subscription = item.as_ref().map(|item| item.subscription).unwrap_or_default();
    let groups = item.as_ref().map(|item| item.groups.as_slice()).unwrap_or_default();
    let (mut open, mut denied) = (Kinds::ALL, Kinds::NONE);
    for rule in rows.items(list.number)? {
        let decided = Kinds::EACH.into_iter().filter(|kind| rule.kinds.meets(*kind) && open.meets(*kind));
        let decided = decided.fold(Kinds::NONE, Kinds::or);
        if decided.is_empty() || !rule.is_about(peer, subscription, groups) {
            continue;
        }
        open = open.without(decided);
        if !rule.allow {
            denied = denied.or(decided);
        }
    }
    Ok(Judgement { item, denied })
}

/// Decides a change: what came of it, and the rows that are to be written.
pub(super) fn change<R: PrivacyRows>(
    rows: &R,
    change: PrivacyChange,
    limits: PrivacyLimits,
) -> Result<Result<Written, PrivacyError>, R::Error> {
    let head = rows.head()?.unwrap_or_default();
    match change {
        PrivacyChange::Block(jids) => block(rows, head, jids, limits),
        PrivacyChange::Unblock(jids) => unblock(rows, head, jids),
        PrivacyChange::SetList { name, rules } => set_list(rows, head, name, rules, limits),
        PrivacyChange::RemoveList { name, sessions } => remove_list(rows, head, &name, &sessions),
        PrivacyChange::SetDefault { name, sessions } => Ok(set_default(head, name.as_deref(), &sessions)),
        PrivacyChange::SetActive { name, sessions } => Ok(set_active(head, name.as_deref(), &sessions)),
    }
}

fn block<R: PrivacyRows>(
    rows: &R,
    mut head: PrivacyHead,
    jids: Vec<Jid>,
    limits: PrivacyLimits,
) -> Result<Result<Written, PrivacyError>, R::Error> {
    let number = head.default_or_new();
    let mut writes = Vec::new();
    let mut added = Vec::new();
    let mut met = HashSet::new();
    for jid in jids {
        if met.insert(jid.clone()) && !rows.has_entry(number, &jid)? {
            added.push(jid.clone());
            writes.push(PrivacyWrite::Entry(number, Entry { jid, order: None }));
        }
    }
    if added.is_empty() {
        return Ok(Ok((head.unchanged(), Vec::new())));
    }
    let (entries, bytes) = size(&added);
    if let Some(list) = head.list(number) {
        list.entries = list.entries.saturating_add(entries);
        list.bytes = list.bytes.saturating_add(bytes);
        if list.entries > limits.entries || list.bytes > limits.entry_bytes {
            return Ok(Err(PrivacyError::TooManyEntries));
        }
    }
    Ok(Ok(head.changed(number, None, BlockDelta::Blocked(added), false, writes)))
}

fn unblock<R: PrivacyRows>(
    rows: &R,
    mut head: PrivacyHead,
    jids: Vec<Jid>,
) -> Result<Result<Written, PrivacyError>, R::Error> {
    let Some(number) = head.default else { return Ok(Ok((head.unchanged(), Vec::new()))) };
    let all = jids.is_empty();
    let wanted: HashSet<Jid> = jids.into_iter().collect();
    let mut gone = Vec::new();
    if all {
        gone.extend(rows.entries(number)?.into_iter().map(|entry| entry.jid));
    } else {
        for jid in &wanted {
            if rows.has_entry(number, jid)? {
                gone.push(jid.clone());
            }
        }
        // In one order, whichever way the set has it.
        gone.sort();
    }
    let before = rows.items(number)?;
    let taken = |item: &Item| item.blocked().is_some_and(|jid| all || wanted.contains(jid));
    let (out, items): (Vec<Item>, Vec<Item>) = before.into_iter().partition(taken);
    if gone.is_empty() && out.is_empty() {
        return Ok(Ok((head.unchanged(), Vec::new())));
    }
    let (entries, bytes) = size(&gone);
    if let Some(list) = head.list(number) {
        list.entries = list.entries.saturating_sub(entries);
        list.bytes = list.bytes.saturating_sub(bytes);
    }
    let mut named: Vec<Jid> = gone.clone();
    named.extend(out.iter().filter_map(|item| item.blocked().cloned()));
    named.sort();
    named.dedup();
    let mut writes: Vec<PrivacyWrite> =
        gone.into_iter().map(|jid| PrivacyWrite::NoEntry(number, jid)).collect();
    let reload = !out.is_empty();
    if reload {
        writes.push(PrivacyWrite::Items(number, items));
    }
    let delta = BlockDelta::Unblocked(if all { Vec::new() } else { named });
    Ok(Ok(head.changed(number, None, delta, reload, writes)))
}

fn set_list<R: PrivacyRows>(
    rows: &R,
    mut head: PrivacyHead,
    name: String,
    rules: Vec<Item>,
    limits: PrivacyLimits,
) -> Result<Result<Written, PrivacyError>, R::Error> {
    let (number, known) = match head.named(&name) {
        Some(list) => (list.number, true),
        None if head.heads.len() >= usize::try_from(limits.lists).unwrap_or(usize::MAX) => {
            return Ok(Err(PrivacyError::TooManyLists));
        }
        None => (head.new_list(name.clone()), false),
    };
    let list = List::divided(number, rules);
    if list.items.len() > usize::try_from(limits.items).unwrap_or(usize::MAX) {
        return Ok(Err(PrivacyError::TooManyItems));
    }
    let jids: Vec<Jid> = list.entries.iter().map(|entry| entry.jid.clone()).collect();
    let (entries, bytes) = size(&jids);
    if entries > limits.entries || bytes > limits.entry_bytes {
        return Ok(Err(PrivacyError::TooManyEntries));
    }
    let mut writes = Vec::new();
    if known {
        let kept: HashSet<&Jid> = jids.iter().collect();
        let before = rows.entries(number)?.into_iter().map(|entry| entry.jid);
        let gone = before.filter(|jid| !kept.contains(jid));
        writes.extend(gone.map(|jid| PrivacyWrite::NoEntry(number, jid)));
    }
    if let Some(list) = head.list(number) {
        (list.entries, list.bytes) = (entries, bytes);
    }
    writes.extend(list.entries.into_iter().map(|entry| PrivacyWrite::Entry(number, entry)));
    writes.push(PrivacyWrite::Items(number, list.items));
    Ok(Ok(head.changed(number, Some(name), BlockDelta::None, true, writes)))
}

fn remove_list<R: PrivacyRows>(
    rows: &R,
    mut head: PrivacyHead,
    name: &str,
    sessions: &Connected,
) -> Result<Result<Written, PrivacyError>, R::Error> {
    let Some(number) = head.named(name).map(|list| list.number) else {
        return Ok(Err(PrivacyError::UnknownList));
    };
    if head.others_use(number, sessions) {
        return Ok(Err(PrivacyError::InUse));
    }
    head.forget_ended(sessions);
    head.active.retain(|(_, list)| *list != number);
    head.heads.retain(|list| list.number != number);
    head.default = head.default.filter(|default| *default != number);
    let mut writes: Vec<PrivacyWrite> =
        rows.entries(number)?.into_iter().map(|entry| PrivacyWrite::NoEntry(number, entry.jid)).collect();
    writes.push(PrivacyWrite::Items(number, Vec::new()));
    Ok(Ok(head.changed(number, Some(name.to_owned()), BlockDelta::None, true, writes)))
}

fn set_default(
    mut head: PrivacyHead,
    name: Option<&str>,
    sessions: &Connected,
) -> Result<Written, PrivacyError> {
    let wanted = head.numbered_or_none(name)?;
    if wanted == head.default {
        return Ok((head.unchanged(), Vec::new()));
    }
    if head.default.is_some_and(|default| head.others_use(default, sessions)) {
        return Err(PrivacyError::InUse);
    }
    head.forget_ended(sessions);
    head.default = wanted;
    Ok(head.changed(wanted.unwrap_or(0), None, BlockDelta::None, true, Vec::new()))
}

/// No list changes with it, nor any other session: the version stays.
fn set_active(
    mut head: PrivacyHead,
    name: Option<&str>,
    sessions: &Connected,
) -> Result<Written, PrivacyError> {
    let wanted = head.numbered_or_none(name)?;
    head.forget_ended(sessions);
    head.active.retain(|(session, _)| *session != sessions.own);
    head.active.extend(wanted.map(|number| (sessions.own, number)));
    let excess = head.active.len().saturating_sub(MAX_ACTIVE);
    head.active.drain(..excess);
    let changed = PrivacyChanged { list: wanted.unwrap_or(0), reload: true, ..head.unchanged() };
    Ok((changed, vec![PrivacyWrite::Head(head)]))
}

/// How many addresses, and the bytes of them.
fn size(jids: &[Jid]) -> (u32, u32) {
    let bytes: usize = jids.iter().map(|jid| jid.as_str().len()).sum();
    (u32::try_from(jids.len()).unwrap_or(u32::MAX), u32::try_from(bytes).unwrap_or(u32::MAX))
}

impl PrivacyHead {
    fn named(&self, name: &str) -> Option<&ListHead> {
        self.heads.iter().find(|list| list.name == name)
    }

    fn numbered(&self, number: u32) -> Option<&ListHead> {
        self.heads.iter().find(|list| list.number == number)
    }

    fn numbered_or_none(&self, name: Option<&str>) -> Result<Option<u32>, PrivacyError> {
        match name.map(|name| self.named(name)) {
            None => Ok(None),
            Some(Some(list)) => Ok(Some(list.number)),
            Some(None) => Err(PrivacyError::UnknownList),
        }
    }

    fn list(&mut self, number: u32) -> Option<&mut ListHead> {
        self.heads.iter_mut().find(|list| list.number == number)
    }

    fn new_list(&mut self, name: String) -> u32 {
        self.last += 1;
        self.heads.push(ListHead { number: self.last, name, changed: 0, entries: 0, bytes: 0 });
        self.last
    }

    /// The default list; made where there is none (XEP-0191 §5: a "virtual list").
    fn default_or_new(&mut self) -> u32 {
        if let Some(number) = self.default {
            return number;
        }
        let names = std::iter::once(BLOCK_LIST.to_owned())
            .chain((2..).map(|number: u32| format!("{BLOCK_LIST}-{number}")));
        let free = names.into_iter().find(|name| self.named(name).is_none());
        let number = self.new_list(free.unwrap_or_default());
        self.default = Some(number);
        number
    }

    /// Whether the list applies to a session other than the one that asks (XEP-0016 §2.2 rule 11).
    fn others_use(&self, number: u32, sessions: &Connected) -> bool {
        let applied = |session: &SessionKey| {
            let own = self.active.iter().find(|(of, _)| of == session).map(|(_, list)| *list);
            own.or(self.default)
        };
        sessions.others.iter().any(|session| applied(session) == Some(number))
    }

    /// Forgets the lists of sessions that have ended. One that began later than the asking node can know stays.
    fn forget_ended(&mut self, sessions: &Connected) {
        let Connected { own, others, latest } = sessions;
        self.active.retain(|(session, _)| {
            let later = session.start == own.start && session.bind > *latest;
            session == own || others.contains(session) || later
        });
    }

    fn unchanged(&self) -> PrivacyChanged {
        PrivacyChanged {
            version: self.version,
            changed: false,
            list: 0,
            default: self.default,
            edited: None,
            blocks: BlockDelta::None,
            reload: false,
        }
    }

    fn changed(
        mut self,
        number: u32,
        edited: Option<String>,
        blocks: BlockDelta,
        reload: bool,
        mut writes: Vec<PrivacyWrite>,
    ) -> Written {
        self.version += 1;
        let (version, default) = (self.version, self.default);
        if let Some(list) = self.list(number) {
            list.changed = version;
        }
        writes.push(PrivacyWrite::Head(self));
        (PrivacyChanged { version, changed: true, list: number, default, edited, blocks, reload }, writes)
    }
}
