//! What the commands on kept messages do to the rows.

use super::super::super::messages::rules::{
    ArchiveRow, ArchiveWish, Arrived, InboxRow, MAX_LOOKED, MailboxHead, PageFill, Take,
};
use super::super::super::messages::{ArchiveDefault, ArchivePreferences, KeepFor, KeepMessage, Kept};
use super::super::apply::{View, Writes};
use super::super::command::Command;
use super::super::fault::Fault;
use super::super::keys;
use super::super::reply::Reply;
use super::body::{BodyHead, MAX_OWNERS};
use super::command::{
    DrainInbox, DrainedRows, NoteDevice, OfflineMessage, ReleaseMessages, RetractMessage,
    SetArchivePreferences, SettleMessages,
};
use super::scope::{Scope, decode};

use althing_proto::roster::RosterItem;

impl View<'_> {
    /// Applies a command on messages; nothing is written when it is refused.
    pub(in super::super) fn apply_to_messages(
        &self,
        command: Command,
        writes: &mut Writes,
    ) -> Result<Reply, Fault> {
        let mut scope = Scope::new(self);
        let reply = match command {
            Command::KeepMessage(command) => scope.keep(&command)?,
            Command::RetractMessage(command) => scope.retract(&command)?,
            Command::DrainInbox(command) => scope.drain(&command)?,
            Command::ReleaseMessages(command) => scope.release(&command)?,
            Command::SettleMessages(command) => scope.settle_all(&command)?,
            Command::ArrivedMessages(command) => scope.arrived_all(&command)?,
            Command::OfflineMessage(command) => scope.offline(&command)?,
            Command::PurgeInbox(command) => scope.purge(&command)?,
            Command::NoteDevice(command) => scope.note_device(command)?,
            Command::SetArchivePreferences(command) => scope.set_preferences(command)?,
            Command::SweepMessages(command) => scope.sweep(&command)?,
            Command::KeepOfStream(command) => scope.keep_of_stream(command)?,
            Command::ChangeStreams(command) => scope.change_streams(&command)?,
            Command::MakeStreamSecret(candidate) => scope.make_stream_secret(candidate)?,
            _ => Reply::Lost(()),
        };
        if !matches!(reply, Reply::Full(_) | Reply::UnknownUser(_)) {
            writes.extend(scope.into_writes()?);
        }
        Ok(reply)
    }
}

impl Scope<'_, '_> {
    pub(in super::super) fn keep(&mut self, message: &KeepMessage) -> Result<Reply, Fault> {
        let KeepMessage { id, stamp, xml, owners, name } = message;
        let size = u32::try_from(xml.len()).unwrap_or(u32::MAX);
        let key = keys::message(*id);
        let before = self.get(&key)?;
        let (mut body, text) = match &before {
            Some(row) => BodyHead::split(&key, row)?,
            None => (BodyHead::default(), xml.as_ref()),
        };
        let known = body.owners.len();
        let mut kept = Vec::with_capacity(owners.len());
        for owner in owners {
            let user = &owner.owner;
            if let Some(seq) = body.seq(user) {
                kept.push(Kept::At(seq));
                continue;
            }
            if self.head(user)?.is_none() {
                kept.push(Kept::UnknownUser);
                continue;
            }
            if !owner.outgoing && self.refuses(owner)? {
                kept.push(Kept::Refused);
                continue;
            }
            let Some(head) = self.head(user)? else { continue };
            if let Some(inbox) = &owner.inbox
                && let Err(full) = head.takes(inbox, xml.len())
            {
                return Ok(Reply::of(&full).unwrap_or(Reply::Lost(())));
            }
            let wish = head.wish;
            let archives = self.archives(owner, wish)?;
            if (!archives && owner.inbox.is_none()) || body.owners.len() >= MAX_OWNERS {
                kept.push(Kept::Not);
                continue;
            }
            let Some(head) = self.head(user)? else { continue };
            let seq = head.take_number();
            let stamped = archives.then(|| head.archive(*stamp, size));
            let waiting = owner.inbox.as_ref().map(|inbox| {
                let row = InboxRow::new(*id, *stamp, size, owner, inbox, head);
                head.wait(&row);
                row
            });
            if let Some(stamp) = stamped {
                let (with, outgoing) = (owner.peer.clone(), owner.outgoing);
                self.put_raw(keys::archive_with_row(user, &with, seq), Default::default());
                let name = name.filter(|_| owner.is_sender());
                if let Some(name) = name {
                    self.put_raw(keys::archive_name_row(user, name, seq), Default::default());
                }
                let row = ArchiveRow { id: *id, stamp, with, outgoing, size, name };
                self.put(keys::archive_row(user, seq), &row)?;
            }
            if let Some(row) = waiting {
                self.put(keys::inbox_row(user, seq), &row)?;
            }
            body.owners.push((user.clone(), seq));
            kept.push(Kept::At(seq));
        }
        if body.owners.len() > known {
            let row = body.join(&key, text)?;
            self.put_raw(key, row);
        }
        Ok(Reply::Kept(kept))
    }

    /// Where those that have a message have it; nothing is kept.
    pub(in super::super) fn kept_before(&self, message: &KeepMessage) -> Result<Reply, Fault> {
        let key = keys::message(message.id);
        let body = match self.get(&key)? {
            Some(row) => BodyHead::split(&key, &row)?.0,
            None => BodyHead::default(),
        };
        let kept = |owner: &KeepFor| body.seq(&owner.owner).map_or(Kept::Not, Kept::At);
        Ok(Reply::Kept(message.owners.iter().map(kept).collect()))
    }

    /// Whether the owner does not want what comes from that peer: an account that is disabled and has nobody there, or
    /// one that has blocked the sender.
    fn refuses(&self, owner: &KeepFor) -> Result<bool, Fault> {
        let absent = owner.inbox.as_ref().is_none_or(|inbox| inbox.takers.is_empty());
        if absent && self.get(&keys::disabled(&owner.owner))?.is_some() {
            return Ok(true);
        }
        Ok(owner.may_be_blocked() && self.denies_messages(&owner.owner, &owner.peer)?)
    }

    /// Whether the message goes into the owner's archive.
    fn archives(&self, owner: &KeepFor, wish: ArchiveWish) -> Result<bool, Fault> {
        let Some(default) = owner.archive else { return Ok(false) };
        let wish = match wish {
            ArchiveWish::Unset => default,
            ArchiveWish::Plain(wish) => wish,
            ArchiveWish::Lists => {
                let lists: Option<ArchivePreferences> =
                    self.read(&keys::archive_preferences(&owner.owner))?;
                lists.map_or(default, |lists| lists.of(&owner.peer))
            }
        };
        Ok(match wish {
            ArchiveDefault::Always => true,
            ArchiveDefault::Never => false,
            ArchiveDefault::Roster => {
                let item: Option<RosterItem> =
                    self.read(&keys::roster_item(&owner.owner, &owner.peer.to_bare()))?;
                item.is_some_and(|item| item.listed)
            }
        })
    }

    fn retract(&mut self, retract: &RetractMessage) -> Result<Reply, Fault> {
        let key = keys::message(retract.id);
        let Some(row) = self.get(&key)? else { return Ok(Reply::Done(false)) };
        let (mut body, _) = BodyHead::split(&key, &row)?;
        if body.retracted || !self.is_of(&body, retract)? {
            return Ok(Reply::Done(false));
        }
        body.retracted = true;
        let row = body.join(&key, &retract.tombstone)?;
        self.put_raw(key, row);
        // What retracts it waits for itself.
        for (owner, seq) in &body.owners {
            let waiting: Option<InboxRow> = self.read(&keys::inbox_row(owner, *seq))?;
            if let Some(row) = waiting.filter(|row| row.id == retract.id) {
                self.take_waiting(owner, *seq, &row)?;
            }
        }
        Ok(Reply::Done(true))
    }

    /// Whether one of the owners has the message as the sender's.
    fn is_of(&self, body: &BodyHead, retract: &RetractMessage) -> Result<bool, Fault> {
        for (owner, seq) in &body.owners {
            let archived: Option<ArchiveRow> = self.read(&keys::archive_row(owner, *seq))?;
            let waiting: Option<InboxRow> = self.read(&keys::inbox_row(owner, *seq))?;
            if archived.is_some_and(|row| row.id == retract.id && row.is_of(owner, &retract.sender))
                || waiting.is_some_and(|row| row.id == retract.id && row.from.to_bare() == retract.sender)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn drain(&mut self, command: &DrainInbox) -> Result<Reply, Fault> {
        let DrainInbox { user, drain } = command;
        let prefix = keys::inbox(user);
        let mut last = drain.after.unwrap_or(0);
        let (mut fill, mut drained) = (PageFill::default(), DrainedRows { seqs: Vec::new(), next: None });
        let mut looked = 0;
        while let Some((key, value)) = self.next(&prefix, &keys::inbox_row(user, last))? {
            let (mut row, seq): (InboxRow, u64) = (decode(&key, &value)?, keys::seq(&key)?);
            let take = row.take(drain);
            let fits = take == Take::Left
                || fill.takes(drain.limit, usize::try_from(row.size).unwrap_or(usize::MAX));
            if looked == MAX_LOOKED || !fits {
                drained.next = Some(last);
                break;
            }
            (last, looked) = (seq, looked + 1);
            if take != Take::Left {
                drained.seqs.push(seq);
            }
            if take == Take::Taken {
                self.put(key, &row)?;
            }
        }
        Ok(Reply::Drained(drained))
    }

    fn release(&mut self, command: &ReleaseMessages) -> Result<Reply, Fault> {
        for (user, id) in &command.messages {
            if let Some((seq, mut row)) = self.waiting(user, *id)?
                && !row.takers.is_empty()
            {
                row.takers.clear();
                self.put(keys::inbox_row(user, seq), &row)?;
            }
        }
        Ok(Reply::Done(true))
    }

    fn settle_all(&mut self, command: &SettleMessages) -> Result<Reply, Fault> {
        let mut count = 0;
        for settle in &command.messages {
            if let Some((seq, mut row)) = self.waiting(&settle.user, settle.id)? {
                let arrived = row.arrive(settle.device);
                count += u32::from(arrived != Arrived::Before);
                self.arrived(&settle.user, seq, &row, arrived)?;
            }
        }
        Ok(Reply::Count(count))
    }

    fn arrived_all(&mut self, command: &SettleMessages) -> Result<Reply, Fault> {
        let mut unknown = Vec::new();
        for (place, settle) in (0_u32..).zip(&command.messages) {
            match self.seq(&settle.user, settle.id)? {
                None => unknown.push(place),
                Some(seq) => {
                    let row: Option<InboxRow> = self.read(&keys::inbox_row(&settle.user, seq))?;
                    if let Some(mut row) = row.filter(|row| row.id == settle.id) {
                        let arrived = row.arrive(settle.device);
                        self.arrived(&settle.user, seq, &row, arrived)?;
                    }
                }
            }
        }
        Ok(Reply::Places(unknown))
    }

    fn offline(&mut self, command: &OfflineMessage) -> Result<Reply, Fault> {
        let OfflineMessage { user, id, inbox } = command;
        if let Some((seq, mut row)) = self.waiting(user, *id)? {
            row.takers.clear();
            self.put(keys::inbox_row(user, seq), &row)?;
            return Ok(Reply::Done(true));
        }
        let Some(seq) = self.seq(user, *id)? else { return Ok(Reply::Done(false)) };
        let archived: Option<ArchiveRow> = self.read(&keys::archive_row(user, seq))?;
        let (Some(archived), Some(head)) = (archived.filter(|row| row.id == *id), self.head(user)?) else {
            return Ok(Reply::Done(false));
        };
        if let Err(full) = head.takes(inbox, usize::try_from(archived.size).unwrap_or(usize::MAX)) {
            return Ok(Reply::of(&full).unwrap_or(Reply::Lost(())));
        }
        let row = archived.waits(user, inbox, head);
        head.wait(&row);
        self.put(keys::inbox_row(user, seq), &row)?;
        Ok(Reply::Done(true))
    }

    /// Writes what became of a row that has arrived.
    pub(super) fn arrived(
        &mut self,
        user: &althing_proto::jid::BareJid,
        seq: u64,
        row: &InboxRow,
        arrived: Arrived,
    ) -> Result<(), Fault> {
        match arrived {
            Arrived::Before => Ok(()),
            Arrived::Stays => self.put(keys::inbox_row(user, seq), row),
            Arrived::Gone => self.take_waiting(user, seq, row),
        }
    }

    fn note_device(&mut self, command: NoteDevice) -> Result<Reply, Fault> {
        let NoteDevice { user, device, seen, forget } = command;
        self.with_head(user, |head| {
            head.note_device(device, seen, forget);
        })
    }

    fn set_preferences(&mut self, command: SetArchivePreferences) -> Result<Reply, Fault> {
        let SetArchivePreferences { user, preferences } = command;
        self.put(keys::archive_preferences(&user), &preferences)?;
        self.with_head(user, |head| head.wish = preferences.wish())
    }

    fn with_head(
        &mut self,
        user: althing_proto::jid::BareJid,
        change: impl FnOnce(&mut MailboxHead),
    ) -> Result<Reply, Fault> {
        Ok(match self.head(&user)? {
            Some(head) => {
                change(head);
                Reply::Done(true)
            }
            None => Reply::UnknownUser(user),
        })
    }
}
