//! What takes messages away many at a time: the sweep, the purge of an inbox, the deletion of an account.

use althing_proto::jid::BareJid;
use althing_proto::time::Timestamp;

use super::super::super::messages::Swept;
use super::super::super::messages::rules::{ArchiveRow, Arrived, InboxRow};
use super::super::apply::{View, Writes};
use super::super::fault::Fault;
use super::super::keys;
use super::super::reply::Reply;
use super::command::{PurgeInbox, Purged, SweepMessages};
use super::scope::{Scope, decode};

/// Most messages that one batch takes with an account: each is some rows.
const MESSAGES_PER_BATCH: usize = 200;

impl Scope<'_, '_> {
    /// The first archived message of `user`.
    fn oldest(&self, user: &BareJid) -> Result<Option<(u64, ArchiveRow)>, Fault> {
        let prefix = keys::archive(user);
        let Some((key, value)) = self.next(&prefix, &prefix)? else { return Ok(None) };
        Ok(Some((keys::seq(&key)?, decode(&key, &value)?)))
    }

    /// The first waiting message of `user` after the number `after`.
    fn waiting_after(&self, user: &BareJid, after: u64) -> Result<Option<(u64, InboxRow)>, Fault> {
        let Some((key, value)) = self.next(&keys::inbox(user), &keys::inbox_row(user, after))? else {
            return Ok(None);
        };
        Ok(Some((keys::seq(&key)?, decode(&key, &value)?)))
    }

    pub(super) fn purge(&mut self, command: &PurgeInbox) -> Result<Reply, Fault> {
        let PurgeInbox { user, device, live, after, limit } = command;
        let mut purged = Purged { count: 0, next: None };
        let (mut last, mut looked) = (*after, 0);
        while let Some((seq, mut row)) = self.waiting_after(user, last)? {
            if looked == *limit {
                purged.next = Some(last);
                break;
            }
            (last, looked) = (seq, looked + 1);
            if !row.is_pending(*device, live) {
                let arrived = row.arrive(*device);
                purged.count += u32::from(arrived != Arrived::Before);
                self.arrived(user, seq, &row, arrived)?;
            }
        }
        Ok(Reply::Purged(purged))
    }

    pub(super) fn sweep(&mut self, command: &SweepMessages) -> Result<Reply, Fault> {
        let SweepMessages { user, rules, limit } = command;
        let mut swept = Swept::default();
        if self.head(user)?.is_some_and(|head| head.waiting > 0 && head.expires <= rules.now) {
            self.sweep_inbox(user, rules.now, *limit, &mut swept)?;
        }
        while let Some((seq, row)) = self.oldest(user)? {
            if !self.head(user)?.is_some_and(|head| head.is_archived_too_long(rules, row.stamp)) {
                break;
            }
            if swept.inbox + swept.archive >= *limit {
                swept.more = true;
                break;
            }
            self.take_archived(user, seq, &row)?;
            swept.archive += 1;
        }
        Ok(Reply::Swept(swept))
    }

    /// An inbox is bounded: all of it is looked at.
    fn sweep_inbox(
        &mut self,
        user: &BareJid,
        now: Timestamp,
        limit: u32,
        swept: &mut Swept,
    ) -> Result<(), Fault> {
        let (mut last, mut earliest) = (0, Timestamp::from_millis(u64::MAX));
        while let Some((seq, row)) = self.waiting_after(user, last)? {
            last = seq;
            if row.expires > now {
                earliest = earliest.min(row.expires);
            } else if swept.inbox < limit {
                self.take_waiting(user, seq, &row)?;
                swept.inbox += 1;
            } else {
                swept.more = true;
                return Ok(());
            }
        }
        if let Some(head) = self.head(user)? {
            head.expires = earliest;
        }
        Ok(())
    }
}

/// What a deleted account leaves of its messages: some go, with the texts that nobody else has; whether there are
/// more. Its figures and preferences are not among them.
pub(in super::super) fn take_messages(view: &View<'_>, user: &BareJid) -> Result<(Writes, bool), Fault> {
    let mut scope = Scope::new(view);
    scope.forget_head(user);
    for _ in 0..MESSAGES_PER_BATCH {
        if let Some((seq, row)) = scope.oldest(user)? {
            let waiting: Option<InboxRow> = scope.read(&keys::inbox_row(user, seq))?;
            scope.take_archived(user, seq, &row)?;
            if let Some(row) = waiting {
                scope.take_waiting(user, seq, &row)?;
            }
        } else if let Some((seq, row)) = scope.waiting_after(user, 0)? {
            scope.take_waiting(user, seq, &row)?;
        } else {
            return Ok((scope.into_writes()?, false));
        }
    }
    Ok((scope.into_writes()?, true))
}
