//! PURE: what happens to the rows of kept messages, the same in every place of storage.

use althing_cluster::routes::BindIndex;
use althing_proto::jid::{BareJid, Jid};
use althing_proto::stanza_id::StanzaId;
use althing_proto::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::super::StorageError;
use super::inbox::is_pending;
use super::{
    ArchiveDefault, ArchivePreferences, ArchiveQuery, DeviceId, Drain, InboxEntry, InboxQuota, InboxSummary,
    KeepFor, KeepInInbox, MAX_DEVICES, MAX_PAGE, MAX_PAGE_BYTES, MessageName, SweepRules, Taker,
};

/// Most rows that one page of a drain looks at: those that are left alone are passed over.
pub(in super::super) const MAX_LOOKED: usize = 2_000;

/// The figures of one account's messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) struct MailboxHead {
    /// The number of the next message.
    pub(in super::super) next: u64,
    /// The stamp of the last archived message.
    pub(in super::super) stamp: Timestamp,
    pub(in super::super) archived: u64,
    pub(in super::super) archived_bytes: u64,
    pub(in super::super) waiting: u32,
    pub(in super::super) waiting_bytes: u64,
    /// Nothing that waits expires before.
    pub(in super::super) expires: Timestamp,
    /// What the account has set, as far as it says all.
    pub(in super::super) wish: ArchiveWish,
    pub(in super::super) devices: Vec<(DeviceId, Timestamp)>,
}

/// What an account has set for its archive, in short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) enum ArchiveWish {
    /// Nothing.
    Unset,
    /// A default without lists.
    Plain(ArchiveDefault),
    /// Lists: they have to be looked at.
    Lists,
}

impl Default for MailboxHead {
    fn default() -> Self {
        MailboxHead {
            next: 1,
            stamp: Timestamp::from_millis(0),
            archived: 0,
            archived_bytes: 0,
            waiting: 0,
            waiting_bytes: 0,
            expires: Timestamp::from_millis(u64::MAX),
            wish: ArchiveWish::Unset,
            devices: Vec::new(),
        }
    }
}

impl MailboxHead {
    /// Whether there is room for one more message of `size` bytes.
    fn admits(&self, quota: InboxQuota, size: usize) -> Result<(), StorageError> {
        let bytes = self.waiting_bytes.saturating_add(u64::try_from(size).unwrap_or(u64::MAX));
        if self.waiting >= quota.messages {
            return Err(StorageError::Full { what: "messages", limit: u64::from(quota.messages) });
        }
        if bytes > quota.bytes {
            return Err(StorageError::Full { what: "bytes", limit: quota.bytes });
        }
        Ok(())
    }

    /// Whether one more message of `size` bytes may wait so. One that somebody gets now always may: how much that is has
    /// bounds of its own.
    pub(in super::super) fn takes(&self, inbox: &KeepInInbox, size: usize) -> Result<(), StorageError> {
        self.admits(inbox.quota, size)
            .or_else(|full| if inbox.takers.is_empty() { Err(full) } else { Ok(()) })
    }

    /// The number of the next message.
    pub(in super::super) fn take_number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    /// One more is archived; its stamp there.
    pub(in super::super) fn archive(&mut self, stamp: Timestamp, size: u32) -> Timestamp {
        self.stamp = self.stamp.max(stamp);
        self.archived += 1;
        self.archived_bytes += u64::from(size);
        self.stamp
    }

    /// One archived message goes.
    pub(in super::super) fn unarchive(&mut self, size: u32) {
        self.archived = self.archived.saturating_sub(1);
        self.archived_bytes = self.archived_bytes.saturating_sub(u64::from(size));
    }

    /// One more waits.
    pub(in super::super) fn wait(&mut self, row: &InboxRow) {
        self.waiting += 1;
        self.waiting_bytes += u64::from(row.size);
        self.expires = self.expires.min(row.expires);
    }

    /// One waits no longer.
    pub(in super::super) fn arrive(&mut self, size: u32) {
        self.waiting = self.waiting.saturating_sub(1);
        self.waiting_bytes = self.waiting_bytes.saturating_sub(u64::from(size));
        if self.waiting == 0 {
            self.expires = Timestamp::from_millis(u64::MAX);
        }
    }

    /// How much waits.
    pub(in super::super) fn summary(&self) -> InboxSummary {
        InboxSummary { messages: self.waiting, bytes: self.waiting_bytes }
    }

    /// Notes that a device was here; whether that changes anything.
    pub(in super::super) fn note_device(
        &mut self,
        device: DeviceId,
        seen: Timestamp,
        forget: Timestamp,
    ) -> bool {
        let before = self.devices.clone();
        self.devices.retain(|(known, at)| *known != device && *at >= forget);
        self.devices.push((device, seen));
        if self.devices.len() > MAX_DEVICES {
            self.devices.sort_by_key(|(device, at)| (*at, *device));
            self.devices.remove(0);
        }
        self.devices.sort_unstable();
        self.devices != before
    }

    /// Whether something has to go; `oldest` is the stamp of the first archived message.
    pub(in super::super) fn is_due(&self, rules: &SweepRules, oldest: Option<Timestamp>) -> bool {
        (self.waiting > 0 && self.expires <= rules.now)
            || oldest.is_some_and(|oldest| self.is_archived_too_long(rules, oldest))
    }

    /// Whether the oldest archived message has to go.
    pub(in super::super) fn is_archived_too_long(&self, rules: &SweepRules, oldest: Timestamp) -> bool {
        rules.archive_before.is_some_and(|before| oldest < before)
            || rules.archive_bytes.is_some_and(|most| self.archived_bytes > most)
    }
}

/// A message that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) struct InboxRow {
    pub(in super::super) id: StanzaId,
    pub(in super::super) from: Jid,
    pub(in super::super) stamp: Timestamp,
    pub(in super::super) expires: Timestamp,
    pub(in super::super) size: u32,
    /// For whom it is pending, each with the pass of the drain; 0: from the beginning.
    pub(in super::super) takers: Vec<(Taker, u32)>,
    /// Which devices have not had it; none: it is for whichever comes.
    pub(in super::super) devices: Vec<DeviceId>,
}

impl KeepFor {
    /// Whether the owner may have blocked the other side: not itself, nor a service.
    pub(in super::super) fn may_be_blocked(&self) -> bool {
        !self.outgoing && self.peer.node().is_some() && self.peer.to_bare() != self.owner
    }
}

/// What a drain does with a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Take {
    /// It is somebody else's.
    Left,
    /// It is the taker's now.
    Taken,
    /// The same pass has taken it before.
    Again,
}

/// What becomes of a row that has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Arrived {
    /// It goes.
    Gone,
    /// It stays for other devices.
    Stays,
    /// It was not waiting for that device.
    Before,
}

impl InboxRow {
    /// The row of a new message. What somebody gets now waits for other devices too only where there is room.
    pub(in super::super) fn new(
        id: StanzaId,
        stamp: Timestamp,
        size: u32,
        owner: &KeepFor,
        inbox: &KeepInInbox,
        head: &MailboxHead,
    ) -> Self {
        let bytes = usize::try_from(size).unwrap_or(usize::MAX);
        let each = inbox.each_device && head.admits(inbox.quota, bytes).is_ok();
        let devices = head.devices.iter().filter(|_| each).map(|(device, _)| *device);
        InboxRow {
            id,
            from: if owner.outgoing { owner.owner.clone().into() } else { owner.peer.clone() },
            stamp,
            expires: inbox.expires,
            size,
            takers: inbox.takers.iter().map(|taker| (*taker, 0)).collect(),
            devices: devices.collect(),
        }
    }

    /// Whether it waits for that device, or for whichever comes.
    pub(in super::super) fn is_for(&self, device: Option<DeviceId>) -> bool {
        self.devices.is_empty() || device.is_none_or(|device| self.devices.contains(&device))
    }

    /// Whether it is being delivered to one of `live` that counts for `device`.
    pub(in super::super) fn is_pending(&self, device: Option<DeviceId>, live: &[BindIndex]) -> bool {
        is_pending(self.takers.iter().map(|(taker, _)| taker), &self.devices, device, live)
    }

    /// Makes it the taker's, if it is free.
    pub(in super::super) fn take(&mut self, drain: &Drain) -> Take {
        let device = drain.taker.device;
        if !self.is_for(device) {
            return Take::Left;
        }
        if self.takers.contains(&(drain.taker, drain.pass)) {
            return Take::Again;
        }
        if self.is_pending(device, &drain.live) {
            return Take::Left;
        }
        self.takers.retain(|(taker, _)| drain.live.contains(&taker.bind));
        self.takers.push((drain.taker, drain.pass));
        Take::Taken
    }

    /// It has arrived.
    pub(in super::super) fn arrive(&mut self, device: Option<DeviceId>) -> Arrived {
        if !self.is_for(device) {
            return Arrived::Before;
        }
        self.devices.retain(|other| Some(*other) != device);
        if device.is_none() || self.devices.is_empty() {
            return Arrived::Gone;
        }
        self.takers.retain(|(taker, _)| taker.device != device);
        Arrived::Stays
    }

    /// What is told of it.
    pub(in super::super) fn entry(&self, seq: u64) -> InboxEntry {
        InboxEntry {
            id: self.id,
            seq,
            from: self.from.clone(),
            stamp: self.stamp,
            expires: self.expires,
            size: self.size,
            takers: self.takers.iter().map(|(taker, _)| *taker).collect(),
            devices: self.devices.clone(),
        }
    }
}

/// An archived message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) struct ArchiveRow {
    pub(in super::super) id: StanzaId,
    pub(in super::super) stamp: Timestamp,
    pub(in super::super) with: Jid,
    pub(in super::super) outgoing: bool,
    pub(in super::super) size: u32,
    /// By which its owner, who has sent it, finds it.
    pub(in super::super) name: Option<MessageName>,
}

impl ArchiveRow {
    /// Whether the message is with `with`.
    pub(in super::super) fn is_with(&self, with: &Jid) -> bool {
        if with.resource().is_some() { self.with == *with } else { self.with.to_bare() == with.to_bare() }
    }

    /// The row of the same message where it is to wait for `owner`.
    pub(in super::super) fn waits(
        &self,
        owner: &BareJid,
        inbox: &KeepInInbox,
        head: &MailboxHead,
    ) -> InboxRow {
        let (peer, outgoing) = (self.with.clone(), self.outgoing);
        let of = KeepFor { owner: owner.clone(), peer, outgoing, archive: None, inbox: None };
        InboxRow::new(self.id, self.stamp, self.size, &of, inbox, head)
    }

    /// Whether `sender` has sent it, where `owner` has it.
    pub(in super::super) fn is_of(&self, owner: &BareJid, sender: &BareJid) -> bool {
        if self.outgoing { owner == sender } else { self.with.to_bare() == *sender }
    }
}

impl ArchivePreferences {
    /// What they say of a message with `peer`; `Roster`: the roster decides.
    #[must_use]
    pub fn of(&self, peer: &Jid) -> ArchiveDefault {
        let bare: Jid = peer.to_bare().into();
        for jid in [peer, &bare] {
            if self.always.contains(jid) {
                return ArchiveDefault::Always;
            }
            if self.never.contains(jid) {
                return ArchiveDefault::Never;
            }
        }
        self.default
    }

    /// What they are in short.
    pub(in super::super) fn wish(&self) -> ArchiveWish {
        match self.always.is_empty() && self.never.is_empty() {
            true => ArchiveWish::Plain(self.default),
            false => ArchiveWish::Lists,
        }
    }
}

impl ArchiveQuery {
    /// Whether it asks for a page of all there is.
    pub(in super::super) fn is_of_all(&self) -> bool {
        self.with.is_none()
            && self.start.is_none()
            && self.end.is_none()
            && self.ids.is_empty()
            && self.name.is_none()
    }
}

/// How far a page of messages has got.
#[derive(Debug, Default)]
pub(in super::super) struct PageFill {
    messages: usize,
    bytes: usize,
}

impl PageFill {
    /// Whether one more of `size` bytes belongs on a page of at most `limit`; then it is counted.
    pub(in super::super) fn takes(&mut self, limit: u32, size: usize) -> bool {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX).min(MAX_PAGE);
        let room = self.messages == 0 || self.bytes + size <= MAX_PAGE_BYTES;
        let taken = self.messages < limit && room;
        if taken {
            self.messages += 1;
            self.bytes += size;
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHONE: Option<DeviceId> = Some(DeviceId(1));
    const DESK: Option<DeviceId> = Some(DeviceId(2));

    fn row(devices: &[DeviceId]) -> InboxRow {
        InboxRow {
            id: StanzaId::from_bytes([1; 16]),
            from: Jid::new("romeo@example.net/orchard").unwrap(),
            stamp: Timestamp::from_millis(5),
            expires: Timestamp::from_millis(9),
            size: 7,
            takers: Vec::new(),
            devices: devices.to_vec(),
        }
    }

    fn drain(bind: u64, device: Option<DeviceId>, pass: u32, live: &[u64]) -> Drain {
        let taker = Taker { bind: BindIndex(bind), device };
        let live = live.iter().map(|bind| BindIndex(*bind)).collect();
        Drain { taker, pass, live, after: None, limit: 9 }
    }

    #[test]
    fn a_row_is_taken_once_among_the_living() {
        let mut row = row(&[]);
        assert_eq!(row.take(&drain(1, None, 1, &[1, 2])), Take::Taken);
        assert_eq!(row.take(&drain(1, None, 1, &[1, 2])), Take::Again, "the answer was lost");
        assert_eq!(row.take(&drain(1, None, 2, &[1, 2])), Take::Left, "it is on its way");
        assert_eq!(row.take(&drain(2, None, 1, &[1, 2])), Take::Left);
        assert_eq!(row.take(&drain(2, None, 1, &[2])), Take::Taken, "the first one is dead");
        assert_eq!(row.takers.len(), 1);
        assert_eq!(row.arrive(None), Arrived::Gone);
    }

    /// R9, R23: what the phone has had is still there for the desktop.
    #[test]
    fn r9_r23_each_device_has_its_own() {
        let mut row = row(&[DeviceId(1), DeviceId(2)]);
        assert_eq!(row.take(&drain(1, PHONE, 1, &[1, 2])), Take::Taken);
        assert_eq!(row.take(&drain(2, DESK, 1, &[1, 2])), Take::Taken);
        assert_eq!(row.take(&drain(3, PHONE, 1, &[1, 2, 3])), Take::Left, "another session of the phone");
        assert_eq!(row.take(&drain(4, Some(DeviceId(4)), 1, &[4])), Take::Left, "it came later");
        assert_eq!(row.arrive(PHONE), Arrived::Stays);
        assert_eq!(row.arrive(PHONE), Arrived::Before);
        assert_eq!(row.take(&drain(3, PHONE, 1, &[3])), Take::Left);
        assert_eq!(row.take(&drain(5, DESK, 1, &[5])), Take::Taken, "the desktop's session is dead");
        assert_eq!(row.arrive(DESK), Arrived::Gone);
    }

    #[test]
    fn devices_are_forgotten_and_bounded() {
        let (at, mut head) = (Timestamp::from_millis, MailboxHead::default());
        assert!(head.note_device(DeviceId(1), at(5), at(0)));
        assert!(!head.note_device(DeviceId(1), at(5), at(0)));
        assert!(head.note_device(DeviceId(2), at(20), at(10)));
        assert_eq!(head.devices, [(DeviceId(2), at(20))], "the first one was not seen since");
        for device in 3..=18 {
            head.note_device(DeviceId(device), at(device + 20), at(10));
        }
        assert_eq!((head.devices.len(), head.devices[0].0), (MAX_DEVICES, DeviceId(3)));
    }

    #[test]
    fn lists_go_before_the_default_and_resources_before_all() {
        let jid = |text: &str| Jid::new(text).unwrap();
        let preferences = ArchivePreferences {
            default: ArchiveDefault::Roster,
            always: vec![jid("a@b"), jid("c@d/one")],
            never: vec![jid("a@b/loud"), jid("c@d")],
        };
        assert_eq!(preferences.of(&jid("a@b/any")), ArchiveDefault::Always);
        assert_eq!(preferences.of(&jid("a@b/loud")), ArchiveDefault::Never);
        assert_eq!(preferences.of(&jid("c@d/one")), ArchiveDefault::Always);
        assert_eq!(preferences.of(&jid("c@d")), ArchiveDefault::Never);
        assert_eq!(preferences.of(&jid("e@f")), ArchiveDefault::Roster);
    }

    #[test]
    fn a_page_takes_one_message_of_any_size_and_no_more_than_its_bytes() {
        let mut fill = PageFill::default();
        assert!(fill.takes(9, 2 * MAX_PAGE_BYTES) && !fill.takes(9, 1));
        assert!(!PageFill::default().takes(0, 1));
    }
}
