//! What the deletion of an account does to the rows: its own go, and its subscriptions end in the rosters of others.

use althing_proto::jid::BareJid;
use althing_proto::roster::RosterItem;
use sled::{IVec, Tree};

use super::super::super::roster_rules::{UNBOUNDED, ended_with};
use super::super::command::DeleteAccount;
use super::super::fault::Fault;
use super::super::keys;
use super::super::messages::take_messages;
use super::super::reply::Reply;
use super::{Batch, View, Writes};

/// Most rows that one batch deletes: a larger one would hold up all readers.
pub(in super::super) const DELETIONS_PER_BATCH: usize = 1_000;

/// Most contacts whose rosters one batch changes: each costs some rows more.
const CONTACTS_PER_BATCH: usize = 200;

impl View<'_> {
    /// Deletes in one batch what fits into one. What does not is marked in the same batch and deleted
    /// by further batches ([`finish_deletion`]), also after a crash between them.
    pub(super) fn delete_account(
        &mut self,
        command: DeleteAccount,
        writes: &mut Writes,
    ) -> Result<Reply, Fault> {
        let user = command.user;
        if !self.has_account(&user)? {
            return Ok(Reply::Done(false));
        }
        // Few rows, however much the user keeps; those of the directory are not below the user.
        let words = self.words_of(&user)?;
        let small = self.rows(&keys::documents_of(&user), usize::MAX)?;
        let mut gone = vec![keys::account(&user)];
        for key in [
            keys::logout(&user),
            keys::disabled(&user),
            keys::mailbox(&user),
            keys::archive_preferences(&user),
        ] {
            if self.get(&key)?.is_some() {
                gone.push(key);
            }
        }
        let gone = gone.into_iter().chain(words).chain(small);
        writes.extend(gone.map(|key| (key, None)));
        if !self.clear(&user, writes)? {
            writes.push((keys::deletion(&user), Some(IVec::default())));
            self.unfinished = Some(user);
        }
        Ok(Reply::Done(true))
    }

    /// Takes away as much as fits into a batch of the rows that go with an account; whether that was all. The item for
    /// a contact goes together with what the contact's roster has of it, so that no step is done twice or never.
    fn clear(&self, user: &BareJid, writes: &mut Writes) -> Result<bool, Fault> {
        let (head, mut contacts) = (keys::roster(user), 0);
        // One more than may go, to know whether any is left.
        let rows = self.belongings(user, DELETIONS_PER_BATCH + 1)?;
        let whole = rows.len() <= DELETIONS_PER_BATCH;
        for key in rows.into_iter().take(DELETIONS_PER_BATCH) {
            if key.starts_with(&head)
                && key != head
                && let Some(item) = self.read::<RosterItem>(&key)?
            {
                if contacts == CONTACTS_PER_BATCH {
                    return Ok(false);
                }
                contacts += 1;
                self.end_with(user, &item, writes)?;
            }
            writes.push((key, None));
        }
        if !whole {
            return Ok(false);
        }
        let (taken, more) = take_messages(self, user)?;
        writes.extend(taken);
        Ok(!more)
    }

    /// Ends the subscriptions that `user` has by `item` in the roster of the contact, if that is of this server: whoever
    /// takes the name next is a stranger to it.
    fn end_with(&self, user: &BareJid, item: &RosterItem, writes: &mut Writes) -> Result<(), Fault> {
        let contact = &item.jid;
        let Some(old_head) = self.roster_head(contact)?.filter(|_| contact != user) else { return Ok(()) };
        let old: Option<RosterItem> = self.read(&keys::roster_item(contact, user))?;
        let (mut head, mut now) = (old_head, old.clone());
        for change in ended_with(item) {
            // What adds nothing is never refused.
            if let Ok((next, outcome)) = head.change(now.clone(), user, change, UNBOUNDED) {
                (head, now) = (next, outcome.item);
            }
        }
        self.put_item(contact, user, (old_head, old.as_ref()), (head, now.as_ref()), writes)
    }

    /// Up to `limit` keys of rows that go with an account; those of its roster first.
    fn belongings(&self, user: &BareJid, limit: usize) -> Result<Vec<Vec<u8>>, Fault> {
        let mut rows = Vec::new();
        for prefix in keys::belongings(user) {
            rows.extend(self.rows(&prefix, limit - rows.len())?);
        }
        Ok(rows)
    }
}

/// The next batch of an unfinished deletion; `true`: it is the last one, and takes the mark away.
pub(in super::super) fn finish_deletion(tree: &Tree, user: &BareJid) -> Result<(Batch, bool), Fault> {
    let mut writes = Writes::new();
    let last = View::new(tree).clear(user, &mut writes)?;
    if last {
        writes.push((keys::deletion(user), None));
    }
    Ok((writes.into_iter().collect(), last))
}
