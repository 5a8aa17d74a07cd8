//! Kept messages in memory.

use std::collections::BTreeMap;

use althing_cluster::routes::BindIndex;
use althing_proto::jid::BareJid;
use althing_proto::privacy::Kinds;
use althing_proto::stanza_id::StanzaId;
use althing_proto::time::Timestamp;
use async_trait::async_trait;
use bytes::Bytes;

use super::super::messages::rules::{
    ArchiveRow, ArchiveWish, Arrived, InboxRow, MAX_LOOKED, MailboxHead, PageFill, Take,
};
use super::super::messages::{
    Archive, ArchiveDefault, ArchiveEnds, ArchivePage, ArchivePreferences, ArchiveQuery, ArchivedMessage,
    DeviceId, Drain, Drained, Due, Inbox, InboxEntry, InboxMessage, InboxSummary, KeepFor, KeepInInbox,
    KeepMessage, Kept, MAX_MESSAGE_BYTES, MAX_PAGE, Messages, Retention, Settle, SweepRules, Swept,
    UnknownStanzaId, check_ids, check_keep, check_preferences, check_query, within,
};
use super::super::{StorageError, privacy_rules};
use super::{Memory, Name, State, User, name};

/// The messages of one user.
#[derive(Default)]
pub(super) struct Mailbox {
    head: MailboxHead,
    archive: BTreeMap<u64, ArchiveRow>,
    inbox: BTreeMap<u64, InboxRow>,
    pub(super) preferences: Option<ArchivePreferences>,
}

/// The text of a message, and where each owner has it.
pub(super) struct Body {
    xml: Bytes,
    retracted: bool,
    owners: BTreeMap<Name, u64>,
}

impl Mailbox {
    fn has(&self, seq: u64, id: StanzaId) -> bool {
        self.archive.get(&seq).is_some_and(|row| row.id == id)
            || self.inbox.get(&seq).is_some_and(|row| row.id == id)
    }

    fn archives(&self, owner: &KeepFor, user: &User) -> bool {
        let Some(default) = owner.archive else { return false };
        let wish = match (self.head.wish, &self.preferences) {
            (ArchiveWish::Unset, _) | (ArchiveWish::Lists, None) => default,
            (ArchiveWish::Plain(wish), _) => wish,
            (ArchiveWish::Lists, Some(preferences)) => preferences.of(&owner.peer),
        };
        match wish {
            ArchiveDefault::Always => true,
            ArchiveDefault::Never => false,
            ArchiveDefault::Roster => {
                user.items.get(&name(&owner.peer.to_bare())).is_some_and(|item| item.listed)
            }
        }
    }
}

/// Whether the owner does not want what comes from that peer.
fn refuses(owner: &KeepFor, user: &User) -> Result<bool, StorageError> {
    let absent = owner.inbox.as_ref().is_none_or(|inbox| inbox.takers.is_empty());
    if absent && user.disabled.is_some() {
        return Ok(true);
    }
    let item = user.items.get(&name(&owner.peer.to_bare())).cloned();
    Ok(owner.may_be_blocked()
        && privacy_rules::judge(&user.privacy, &owner.peer, item)?.denied.meets(Kinds::MESSAGE))
}

impl State {
    /// Lets go of texts that no user has any more.
    pub(super) fn drop_bodies(&mut self) {
        let users = &self.users;
        let kept = |id: &StanzaId, owner: &Name, seq: u64| {
            users.get(owner).is_some_and(|user| user.mailbox.has(seq, *id))
        };
        self.bodies.retain(|id, body| body.owners.iter().any(|(owner, seq)| kept(id, owner, *seq)));
    }

    /// Where those that have a message have it; nothing is kept.
    pub(super) fn kept_before(&self, message: &KeepMessage) -> Vec<Kept> {
        let body = self.bodies.get(&message.id);
        let seq = |owner: &KeepFor| body.and_then(|body| body.owners.get(&name(&owner.owner)));
        message.owners.iter().map(|owner| seq(owner).map_or(Kept::Not, |seq| Kept::At(*seq))).collect()
    }

    pub(super) fn keep(&mut self, message: KeepMessage) -> Result<Vec<Kept>, StorageError> {
        let KeepMessage { id, stamp, xml, owners, name: called } = message;
        let size = u32::try_from(xml.len()).unwrap_or(u32::MAX);
        for owner in &owners {
            let known =
                self.bodies.get(&id).is_some_and(|body| body.owners.contains_key(&name(&owner.owner)));
            if let (false, Some(inbox), Some(user)) =
                (known, &owner.inbox, self.users.get(&name(&owner.owner)))
            {
                user.mailbox.head.takes(inbox, xml.len())?;
            }
        }
        let mut kept = Vec::new();
        for owner in &owners {
            let of = name(&owner.owner);
            if let Some(seq) = self.bodies.get(&id).and_then(|body| body.owners.get(&of)) {
                kept.push(Kept::At(*seq));
                continue;
            }
            let Some(user) = self.users.get_mut(&of) else {
                kept.push(Kept::UnknownUser);
                continue;
            };
            if !owner.outgoing && refuses(owner, user)? {
                kept.push(Kept::Refused);
                continue;
            }
            let archives = user.mailbox.archives(owner, user);
            if !archives && owner.inbox.is_none() {
                kept.push(Kept::Not);
                continue;
            }
            let mailbox = &mut user.mailbox;
            let seq = mailbox.head.take_number();
            if archives {
                let stamp = mailbox.head.archive(stamp, size);
                let (with, outgoing) = (owner.peer.clone(), owner.outgoing);
                let name = called.filter(|_| owner.is_sender());
                mailbox.archive.insert(seq, ArchiveRow { id, stamp, with, outgoing, size, name });
            }
            if let Some(inbox) = &owner.inbox {
                let row = InboxRow::new(id, stamp, size, owner, inbox, &mailbox.head);
                mailbox.head.wait(&row);
                mailbox.inbox.insert(seq, row);
            }
            let new = || Body { xml: xml.clone(), retracted: false, owners: BTreeMap::new() };
            self.bodies.entry(id).or_insert_with(new).owners.insert(of, seq);
            kept.push(Kept::At(seq));
        }
        Ok(kept)
    }

    /// Where `user` has a message, if it does.
    fn seq(&self, user: &BareJid, id: StanzaId) -> Option<u64> {
        let seq = *self.bodies.get(&id)?.owners.get(&name(user))?;
        self.users.get(&name(user))?.mailbox.has(seq, id).then_some(seq)
    }

    fn message(&self, seq: u64, row: &InboxRow) -> Option<InboxMessage> {
        let body = self.bodies.get(&row.id)?;
        let (xml, retracted) = (body.xml.clone(), body.retracted);
        Some(InboxMessage { id: row.id, seq, stamp: row.stamp, xml, retracted })
    }

    fn settle(&mut self, settle: &Settle) -> bool {
        let Some(seq) = self.seq(&settle.user, settle.id) else { return false };
        let Some(user) = self.users.get_mut(&name(&settle.user)) else { return false };
        let Some(row) = user.mailbox.inbox.get_mut(&seq) else { return false };
        match row.arrive(settle.device) {
            Arrived::Before => false,
            Arrived::Stays => true,
            Arrived::Gone => {
                user.mailbox.head.arrive(row.size);
                user.mailbox.inbox.remove(&seq);
                true
            }
        }
    }

    fn page(&self, user: &BareJid, query: &ArchiveQuery) -> Result<ArchivePage, UnknownStanzaId> {
        let none = Mailbox::default();
        let mailbox = self.users.get(&name(user)).map_or(&none, |user| &user.mailbox);
        let numbers = |ids: &[StanzaId]| {
            ids.iter()
                .map(|id| {
                    self.seq(user, *id)
                        .filter(|seq| mailbox.archive.contains_key(seq))
                        .ok_or(UnknownStanzaId(*id))
                })
                .collect::<Result<Vec<u64>, _>>()
        };
        let (after, before, ids) = (numbers(&query.after)?, numbers(&query.before)?, numbers(&query.ids)?);
        let mut matching: Vec<_> = mailbox
            .archive
            .iter()
            .filter(|(seq, row)| {
                query.with.as_ref().is_none_or(|with| row.is_with(with))
                    && query.start.is_none_or(|start| row.stamp >= start)
                    && query.end.is_none_or(|end| row.stamp <= end)
                    && after.iter().all(|after| *seq > after)
                    && before.iter().all(|before| *seq < before)
                    && (ids.is_empty() || ids.contains(seq))
                    && query.name.is_none_or(|name| row.name == Some(name))
            })
            .collect();
        if query.backwards {
            matching.reverse();
        }
        let (mut fill, mut messages) = (PageFill::default(), Vec::new());
        for (_, row) in &matching {
            let Some(body) = self.bodies.get(&row.id) else { continue };
            if !fill.takes(query.limit, body.xml.len()) {
                break;
            }
            let (xml, retracted) = (body.xml.clone(), body.retracted);
            messages.push(ArchivedMessage { id: row.id, stamp: row.stamp, xml, retracted });
        }
        let complete = messages.len() == matching.len();
        if query.backwards {
            messages.reverse();
        }
        let count = query.is_of_all().then_some(mailbox.head.archived);
        Ok(ArchivePage { messages, complete, count, looked: None })
    }

    fn sweep(&mut self, user: &BareJid, rules: &SweepRules, limit: u32) -> Swept {
        let mut swept = Swept::default();
        let Some(user) = self.users.get_mut(&name(user)) else { return swept };
        let Mailbox { head, archive, inbox, .. } = &mut user.mailbox;
        let expired: Vec<u64> =
            inbox.iter().filter(|(_, row)| row.expires <= rules.now).map(|(seq, _)| *seq).collect();
        for seq in expired {
            if swept.inbox == limit {
                swept.more = true;
                break;
            }
            if let Some(row) = inbox.remove(&seq) {
                head.arrive(row.size);
                swept.inbox += 1;
            }
        }
        head.expires =
            inbox.values().map(|row| row.expires).min().unwrap_or(Timestamp::from_millis(u64::MAX));
        while let Some(oldest) =
            archive.first_entry().filter(|oldest| head.is_archived_too_long(rules, oldest.get().stamp))
        {
            if swept.inbox + swept.archive >= limit {
                swept.more = true;
                break;
            }
            head.unarchive(oldest.remove().size);
            swept.archive += 1;
        }
        self.drop_bodies();
        swept
    }
}

#[async_trait]
impl Messages for Memory {
    async fn keep(&self, message: KeepMessage) -> Result<Vec<Kept>, StorageError> {
        check_keep(&message)?;
        self.write(|state| state.keep(message))?
    }

    async fn retract(&self, sender: &BareJid, id: StanzaId, tombstone: Bytes) -> Result<bool, StorageError> {
        within("message", tombstone.len(), MAX_MESSAGE_BYTES)?;
        self.write(|state| {
            let State { users, bodies, .. } = state;
            let Some(body) = bodies.get_mut(&id).filter(|body| !body.retracted) else { return false };
            let sent = body.owners.iter().any(|(owner, seq)| {
                users.get(owner).is_some_and(|user| {
                    let archived = user.mailbox.archive.get(seq).filter(|row| row.id == id);
                    let waiting = user.mailbox.inbox.get(seq).filter(|row| row.id == id);
                    archived.is_some_and(|row| row.is_of(&user.jid, sender))
                        || waiting.is_some_and(|row| row.from.to_bare() == *sender)
                })
            });
            if sent {
                (body.xml, body.retracted) = (tombstone, true);
                // What retracts it waits for itself.
                for (owner, seq) in &body.owners {
                    let Some(user) = users.get_mut(owner) else { continue };
                    // The account may have been made again, and have another message of that number.
                    if user.mailbox.inbox.get(seq).is_some_and(|row| row.id == id)
                        && let Some(row) = user.mailbox.inbox.remove(seq)
                    {
                        user.mailbox.head.arrive(row.size);
                    }
                }
                state.drop_bodies();
            }
            sent
        })
    }
}

#[async_trait]
impl Inbox for Memory {
    async fn drain(&self, user: &BareJid, drain: Drain) -> Result<Drained, StorageError> {
        self.write(|state| {
            let mut taken = Vec::new();
            let mut next = None;
            let Some(owner) = state.users.get_mut(&name(user)) else { return Drained::default() };
            let (mut fill, mut last) = (PageFill::default(), drain.after.unwrap_or(0));
            for (looked, (seq, row)) in owner.mailbox.inbox.range_mut(last.saturating_add(1)..).enumerate() {
                let mut changed = row.clone();
                let take = changed.take(&drain);
                let fits = take == Take::Left
                    || fill.takes(drain.limit, usize::try_from(row.size).unwrap_or(usize::MAX));
                if looked == MAX_LOOKED || !fits {
                    next = Some(last);
                    break;
                }
                last = *seq;
                if take != Take::Left {
                    *row = changed;
                    taken.push((*seq, row.clone()));
                }
            }
            let messages = taken.iter().filter_map(|(seq, row)| state.message(*seq, row)).collect();
            Drained { messages, next }
        })
    }

    async fn release(&self, messages: Vec<(BareJid, StanzaId)>) -> Result<(), StorageError> {
        check_ids(messages.len())?;
        self.write(|state| {
            for (user, id) in messages {
                if let Some(seq) = state.seq(&user, id)
                    && let Some(user) = state.users.get_mut(&name(&user))
                    && let Some(row) = user.mailbox.inbox.get_mut(&seq)
                {
                    row.takers.clear();
                }
            }
        })
    }

    async fn settle(&self, messages: Vec<Settle>) -> Result<u32, StorageError> {
        check_ids(messages.len())?;
        self.write(|state| {
            let settled = messages.iter().filter(|settle| state.settle(settle)).count();
            state.drop_bodies();
            u32::try_from(settled).unwrap_or(u32::MAX)
        })
    }

    async fn arrived(&self, messages: Vec<Settle>) -> Result<Vec<u32>, StorageError> {
        check_ids(messages.len())?;
        self.write(|state| {
            let mut unknown = Vec::new();
            for (place, settle) in (0..).zip(&messages) {
                let owners = state.bodies.get(&settle.id).map(|body| &body.owners);
                if owners.is_none_or(|owners| !owners.contains_key(&name(&settle.user))) {
                    unknown.push(place);
                }
                state.settle(settle);
            }
            state.drop_bodies();
            unknown
        })
    }

    async fn offline(&self, user: &BareJid, id: StanzaId, inbox: KeepInInbox) -> Result<bool, StorageError> {
        self.write(|state| {
            let Some(seq) = state.seq(user, id) else { return Ok(false) };
            let Some(owner) = state.users.get_mut(&name(user)) else { return Ok(false) };
            let mailbox = &mut owner.mailbox;
            if let Some(row) = mailbox.inbox.get_mut(&seq) {
                row.takers.clear();
                return Ok(true);
            }
            let Some(archived) = mailbox.archive.get(&seq) else { return Ok(false) };
            mailbox.head.takes(&inbox, usize::try_from(archived.size).unwrap_or(usize::MAX))?;
            let row = archived.waits(user, &inbox, &mailbox.head);
            mailbox.head.wait(&row);
            mailbox.inbox.insert(seq, row);
            Ok(true)
        })?
    }

    async fn summary(&self, user: &BareJid) -> Result<InboxSummary, StorageError> {
        self.read(|state| {
            state
                .users
                .get(&name(user))
                .map_or_else(InboxSummary::default, |user| user.mailbox.head.summary())
        })
    }

    async fn list(
        &self,
        user: &BareJid,
        device: Option<DeviceId>,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<InboxEntry>, StorageError> {
        self.read(|state| {
            let Some(user) = state.users.get(&name(user)) else { return Vec::new() };
            let rows = user.mailbox.inbox.range(after.unwrap_or(0).saturating_add(1)..);
            let wanted = rows.filter(|(_, row)| row.is_for(device)).take(limit.min(MAX_PAGE));
            wanted.map(|(seq, row)| row.entry(*seq)).collect()
        })
    }

    async fn get(&self, user: &BareJid, id: StanzaId) -> Result<Option<InboxMessage>, StorageError> {
        self.read(|state| {
            let seq = state.seq(user, id)?;
            state.message(seq, state.users.get(&name(user))?.mailbox.inbox.get(&seq)?)
        })
    }

    async fn purge(
        &self,
        user: &BareJid,
        device: Option<DeviceId>,
        live: Vec<BindIndex>,
    ) -> Result<u32, StorageError> {
        self.write(|state| {
            let Some(owner) = state.users.get(&name(user)) else { return 0 };
            let free = owner.mailbox.inbox.values().filter(|row| !row.is_pending(device, &live));
            let ids: Vec<StanzaId> = free.map(|row| row.id).collect();
            let settle = |id: &StanzaId| Settle { user: user.clone(), id: *id, device };
            let purged = ids.iter().filter(|id| state.settle(&settle(id))).count();
            state.drop_bodies();
            u32::try_from(purged).unwrap_or(u32::MAX)
        })
    }

    async fn note_device(
        &self,
        user: &BareJid,
        device: DeviceId,
        seen: Timestamp,
        forget: Timestamp,
    ) -> Result<(), StorageError> {
        self.write_user(user, |user| user.mailbox.head.note_device(device, seen, forget)).map(|_changed| ())
    }
}

#[async_trait]
impl Archive for Memory {
    async fn page(
        &self,
        user: &BareJid,
        query: ArchiveQuery,
    ) -> Result<Result<ArchivePage, UnknownStanzaId>, StorageError> {
        check_query(&query)?;
        self.read(|state| state.page(user, &query))
    }

    async fn ends(&self, user: &BareJid) -> Result<Option<ArchiveEnds>, StorageError> {
        self.read(|state| {
            let archive = &state.users.get(&name(user))?.mailbox.archive;
            let ((_, first), (_, last)) = (archive.first_key_value()?, archive.last_key_value()?);
            Some(ArchiveEnds { first: (first.id, first.stamp), last: (last.id, last.stamp) })
        })
    }

    async fn preferences(&self, user: &BareJid) -> Result<Option<ArchivePreferences>, StorageError> {
        self.read(|state| state.users.get(&name(user))?.mailbox.preferences.clone())
    }

    async fn set_preferences(
        &self,
        user: &BareJid,
        preferences: ArchivePreferences,
    ) -> Result<(), StorageError> {
        check_preferences(&preferences)?;
        self.write_user(user, |user| {
            user.mailbox.head.wish = preferences.wish();
            user.mailbox.preferences = Some(preferences);
        })
    }
}

#[async_trait]
impl Retention for Memory {
    async fn due(
        &self,
        domain: &str,
        after: Option<&BareJid>,
        rules: SweepRules,
        look: usize,
    ) -> Result<Due, StorageError> {
        let users = super::super::Accounts::list(self, domain, after, look).await?;
        let next = users.last().filter(|_| users.len() == look).cloned();
        self.read(|state| {
            let due = |user: &BareJid| {
                state.users.get(&name(user)).is_some_and(|user| {
                    let oldest = user.mailbox.archive.first_key_value().map(|(_, row)| row.stamp);
                    user.mailbox.head.is_due(&rules, oldest)
                })
            };
            Due { users: users.into_iter().filter(|user| due(user)).collect(), next }
        })
    }

    async fn sweep(&self, user: &BareJid, rules: SweepRules, limit: u32) -> Result<Swept, StorageError> {
        self.write(|state| state.sweep(user, &rules, limit))
    }
}
