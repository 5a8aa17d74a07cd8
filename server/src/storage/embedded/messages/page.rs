//! Pages of an archive. A page goes through rows in the order of their numbers, one way or the other, and reads one
//! more than it shows.

use std::collections::BTreeSet;

use althing_proto::jid::BareJid;
use althing_proto::stanza_id::StanzaId;
use althing_proto::time::Timestamp;
use sled::Tree;

use super::super::super::messages::rules::{ArchiveRow, MailboxHead, PageFill};
use super::super::super::messages::{
    ArchivePage, ArchiveQuery, ArchivedMessage, MAX_PAGE, MessageName, UnknownStanzaId,
};
use super::super::fault::Fault;
use super::super::keys;
use super::super::rows::Rows;
use super::body::{self, BodyHead};
use super::read::{get, seq};
use super::scope::decode;

/// Most rows that are looked at before writers have their turn.
const STEP: usize = 1_000;

/// Steps of one page: others ask too, and the next page goes on where this one ends.
const STEPS: usize = 5;

/// What a page goes through.
struct Plan {
    /// First and last number.
    low: u64,
    high: u64,
    /// Only these numbers.
    only: Option<BTreeSet<u64>>,
    /// How many match, where that is known.
    count: Option<u64>,
}

/// A page that is being filled.
#[derive(Default)]
struct Filling {
    page: ArchivePage,
    fill: PageFill,
    /// Nothing more belongs on the page.
    full: bool,
    /// The last message that was looked at.
    looked: Option<StanzaId>,
}

/// Reads a page.
pub(super) fn read(
    rows: &Rows,
    user: &BareJid,
    query: &ArchiveQuery,
) -> Result<Result<ArchivePage, UnknownStanzaId>, Fault> {
    let plan = rows.between_batches(|tree| plan(tree, user, query))?;
    let mut plan = match plan {
        Ok(plan) => plan,
        Err(unknown) => return Ok(Err(unknown)),
    };
    let mut filling = Filling::default();
    let mut steps = 0;
    while !filling.full && plan.low <= plan.high && (steps < STEPS || filling.looked.is_none()) {
        rows.between_batches(|tree| step(tree, user, query, &mut plan, &mut filling))?;
        steps += 1;
    }
    let Filling { mut page, full, looked, .. } = filling;
    let more = !full && plan.low <= plan.high;
    if query.backwards {
        page.messages.reverse();
    }
    let looked = looked.filter(|_| more);
    Ok(Ok(ArchivePage { complete: !full && !more, count: plan.count, looked, ..page }))
}

/// The number of an archived message.
fn archived(tree: &Tree, user: &BareJid, id: StanzaId) -> Result<Result<u64, UnknownStanzaId>, Fault> {
    if let Some(seq) = seq(tree, user, id)?
        && let Some(row) = get::<ArchiveRow>(tree, &keys::archive_row(user, seq))?
        && row.id == id
    {
        return Ok(Ok(seq));
    }
    Ok(Err(UnknownStanzaId(id)))
}

fn plan(tree: &Tree, user: &BareJid, query: &ArchiveQuery) -> Result<Result<Plan, UnknownStanzaId>, Fault> {
    let head: MailboxHead = get(tree, &keys::mailbox(user))?.unwrap_or_default();
    let (mut low, mut high) = (1, head.next - 1);
    for id in &query.after {
        match archived(tree, user, *id)? {
            Ok(seq) => low = low.max(seq + 1),
            Err(unknown) => return Ok(Err(unknown)),
        }
    }
    for id in &query.before {
        match archived(tree, user, *id)? {
            Ok(seq) => high = high.min(seq - 1),
            Err(unknown) => return Ok(Err(unknown)),
        }
    }
    let mut only = BTreeSet::new();
    for id in &query.ids {
        match archived(tree, user, *id)? {
            Ok(seq) => drop(only.insert(seq)),
            Err(unknown) => return Ok(Err(unknown)),
        }
    }
    if let Some(start) = query.start {
        low = first(tree, user, low, high, |stamp| stamp >= start)?;
    }
    if let Some(end) = query.end {
        high = first(tree, user, low, high, |stamp| stamp > end)? - 1;
    }
    let mut only = (!query.ids.is_empty()).then_some(only);
    if let Some(name) = query.name {
        let named = named(tree, user, name, (low, high))?;
        only = Some(match only {
            Some(only) => &only & &named,
            None => named,
        });
    }
    Ok(Ok(Plan { low, high, only, count: query.is_of_all().then_some(head.archived) }))
}

/// The last numbers between those two of what `user` has sent under that name.
fn named(
    tree: &Tree,
    user: &BareJid,
    name: MessageName,
    (low, high): (u64, u64),
) -> Result<BTreeSet<u64>, Fault> {
    if low > high {
        return Ok(BTreeSet::new());
    }
    let key = |seq| keys::archive_name_row(user, name, seq);
    let keys = tree.range(key(low)..=key(high)).keys().rev().take(MAX_PAGE);
    keys.map(|key| keys::seq(&key?)).collect()
}

/// The first number from `low` on from which all stamps are `late`, for they never go back; one more than `high` if
/// none is.
fn first(
    tree: &Tree,
    user: &BareJid,
    low: u64,
    high: u64,
    late: impl Fn(Timestamp) -> bool,
) -> Result<u64, Fault> {
    let (mut low, mut end) = (low, high.saturating_add(1).max(low));
    while low < end {
        let middle = low + (end - low) / 2;
        let found = tree.range(keys::archive_row(user, middle)..keys::archive_row(user, end)).next();
        match found.transpose()? {
            Some((key, value)) => {
                let row: ArchiveRow = decode(&key, &value)?;
                if late(row.stamp) {
                    end = middle;
                } else {
                    low = keys::seq(&key)? + 1;
                }
            }
            None => end = middle,
        }
    }
    Ok(low)
}

/// Fills the page from the next rows; takes them off the plan.
fn step(
    tree: &Tree,
    user: &BareJid,
    query: &ArchiveQuery,
    plan: &mut Plan,
    filling: &mut Filling,
) -> Result<(), Fault> {
    // One more than fits says whether the page is complete. With a resource most rows may be others'.
    let with_resource = query.with.as_ref().is_some_and(|with| with.resource().is_some());
    let limit = usize::try_from(query.limit).unwrap_or(usize::MAX).saturating_add(1);
    let most = if with_resource { STEP } else { limit.min(STEP) };
    let numbers = numbers(tree, user, query, plan, most)?;
    let all = numbers.len() < most;
    for seq in numbers {
        if query.backwards {
            plan.high = seq - 1
        } else {
            plan.low = seq + 1
        }
        let Some(row) = get::<ArchiveRow>(tree, &keys::archive_row(user, seq))? else { continue };
        if query.with.as_ref().is_some_and(|with| !row.is_with(with)) {
            filling.looked = Some(row.id);
            continue;
        }
        let key = keys::message(row.id);
        let Some(stored) = tree.get(&key)? else { continue };
        let (head, text) = BodyHead::split(&key, &stored)?;
        if !filling.fill.takes(query.limit, text.len()) {
            filling.full = true;
            return Ok(());
        }
        filling.looked = Some(row.id);
        let (xml, retracted) = (body::text(text), head.retracted);
        filling.page.messages.push(ArchivedMessage { id: row.id, stamp: row.stamp, xml, retracted });
    }
    if all {
        (plan.low, plan.high) = (1, 0);
    }
    Ok(())
}

/// The next numbers to look at, `most` of them.
fn numbers(
    tree: &Tree,
    user: &BareJid,
    query: &ArchiveQuery,
    plan: &Plan,
    most: usize,
) -> Result<Vec<u64>, Fault> {
    let backwards = query.backwards;
    fn taken<T>(items: impl DoubleEndedIterator<Item = T>, backwards: bool, most: usize) -> Vec<T> {
        if backwards { items.rev().take(most).collect() } else { items.take(most).collect() }
    }
    if let Some(only) = &plan.only {
        return Ok(taken(only.range(plan.low..=plan.high).copied(), backwards, most));
    }
    let key = |seq| match &query.with {
        Some(with) => keys::archive_with_row(user, with, seq),
        None => keys::archive_row(user, seq),
    };
    let keys = tree.range(key(plan.low)..=key(plan.high)).keys();
    taken(keys, backwards, most).into_iter().map(|key| keys::seq(&key?)).collect()
}
