//! What the queries on kept messages find.

use althing_proto::jid::BareJid;
use althing_proto::stanza_id::StanzaId;
use serde::de::DeserializeOwned;
use sled::Tree;

use super::super::super::messages::rules::{ArchiveRow, InboxRow, MailboxHead};
use super::super::super::messages::{ArchiveEnds, Due, InboxEntry, InboxMessage, InboxSummary, MAX_PAGE};
use super::super::fault::Fault;
use super::super::keys;
use super::super::query::{Answer, Query};
use super::super::rows::Rows;
use super::body::{self, BodyHead};
use super::command::{FindDue, ListInbox, ReadInbox};
use super::page;
use super::scope::decode;

/// Most users that one query looks at.
const MAX_LOOK: u32 = 1_000;

/// Answers a query on messages.
pub(in super::super) fn answer(rows: &Rows, query: Query) -> Result<Answer, Fault> {
    match query {
        Query::ReadArchive(read) => Ok(Answer::ArchivePage(page::read(rows, &read.user, &read.query)?)),
        other => rows.between_batches(|tree| answer_at_once(tree, other)),
    }
}

fn answer_at_once(tree: &Tree, query: Query) -> Result<Answer, Fault> {
    Ok(match query {
        Query::ReadInbox(read) => Answer::InboxMessages(messages(tree, &read)?),
        Query::ListInbox(list) => Answer::InboxEntries(entries(tree, &list)?),
        Query::GetInboxMessage(get) => Answer::InboxMessage(match seq(tree, &get.user, get.id)? {
            Some(seq) => message(tree, &get.user, seq)?.filter(|message| message.id == get.id),
            None => None,
        }),
        Query::GetInboxSummary(of) => {
            let head: Option<MailboxHead> = get(tree, &keys::mailbox(&of.user))?;
            Answer::InboxSummary(head.map_or_else(InboxSummary::default, |head| head.summary()))
        }
        Query::GetArchiveEnds(of) => Answer::ArchiveEnds(ends(tree, &of.user)?),
        Query::GetArchivePreferences(of) => {
            Answer::ArchivePreferences(get(tree, &keys::archive_preferences(&of.user))?)
        }
        Query::FindDue(find) => Answer::Due(due(tree, &find)?),
        other => return Err(Fault::Row(format!("{} is no question about messages", other.name()))),
    })
}

pub(in super::super) fn get<T: DeserializeOwned>(tree: &Tree, key: &[u8]) -> Result<Option<T>, Fault> {
    tree.get(key)?.map(|value| decode(key, &value)).transpose()
}

/// Under which number `user` has a message, or had it.
pub(super) fn seq(tree: &Tree, user: &BareJid, id: StanzaId) -> Result<Option<u64>, Fault> {
    let key = keys::message(id);
    let Some(row) = tree.get(&key)? else { return Ok(None) };
    Ok(BodyHead::split(&key, &row)?.0.seq(user))
}

fn message(tree: &Tree, user: &BareJid, seq: u64) -> Result<Option<InboxMessage>, Fault> {
    let Some(row) = get::<InboxRow>(tree, &keys::inbox_row(user, seq))? else { return Ok(None) };
    let key = keys::message(row.id);
    let Some(stored) = tree.get(&key)? else { return Ok(None) };
    let (head, text) = BodyHead::split(&key, &stored)?;
    let (xml, retracted) = (body::text(text), head.retracted);
    Ok(Some(InboxMessage { id: row.id, seq, stamp: row.stamp, xml, retracted }))
}

fn messages(tree: &Tree, read: &ReadInbox) -> Result<Vec<InboxMessage>, Fault> {
    let found = read.seqs.iter().take(MAX_PAGE).map(|seq| message(tree, &read.user, *seq));
    found.filter_map(Result::transpose).collect()
}

fn entries(tree: &Tree, list: &ListInbox) -> Result<Vec<InboxEntry>, Fault> {
    let limit = usize::try_from(list.limit).unwrap_or(usize::MAX).min(MAX_PAGE);
    let first = keys::inbox_row(&list.user, list.after.unwrap_or(0).saturating_add(1));
    let mut found = Vec::new();
    for entry in tree.range(first..=keys::inbox_row(&list.user, u64::MAX)) {
        if found.len() >= limit {
            break;
        }
        let (key, value) = entry?;
        let row: InboxRow = decode(&key, &value)?;
        if row.is_for(list.device) {
            found.push(row.entry(keys::seq(&key)?));
        }
    }
    Ok(found)
}

fn ends(tree: &Tree, user: &BareJid) -> Result<Option<ArchiveEnds>, Fault> {
    let mut rows = tree.scan_prefix(keys::archive(user));
    let Some(first) = rows.next().transpose()? else { return Ok(None) };
    let last = rows.next_back().transpose()?.unwrap_or_else(|| first.clone());
    let first: ArchiveRow = decode(&first.0, &first.1)?;
    let last: ArchiveRow = decode(&last.0, &last.1)?;
    Ok(Some(ArchiveEnds { first: (first.id, first.stamp), last: (last.id, last.stamp) }))
}

fn due(tree: &Tree, find: &FindDue) -> Result<Due, Fault> {
    use std::ops::Bound::{Excluded, Included, Unbounded};
    let prefix = keys::mailboxes_of(&find.domain);
    let start = match &find.after {
        Some(after) if after.domain().as_str() == find.domain => Excluded(keys::mailbox(after)),
        _ => Included(prefix.clone()),
    };
    let look = find.look.min(MAX_LOOK);
    let (mut due, mut looked) = (Due::default(), 0);
    for entry in tree.range((start, Unbounded)) {
        let (key, value) = entry?;
        if !key.starts_with(&prefix) || looked == look {
            return Ok(Due { next: due.next.filter(|_| looked == look), ..due });
        }
        looked += 1;
        let user = keys::user(&key)
            .ok_or_else(|| Fault::Row(format!("the row {:?} names nobody", String::from_utf8_lossy(&key))))?;
        let head: MailboxHead = decode(&key, &value)?;
        let oldest = match tree.scan_prefix(keys::archive(&user)).next().transpose()? {
            Some((key, value)) if head.archived > 0 => Some(decode::<ArchiveRow>(&key, &value)?.stamp),
            _ => None,
        };
        if head.is_due(&find.rules, oldest) {
            due.users.push(user.clone());
        }
        due.next = Some(user);
    }
    Ok(Due { next: due.next.filter(|_| looked == look), ..due })
}
