//! What waits for its owner: offline messages (XEP-0160, XEP-0013), and those on their way whose receipt is not
//! certain yet.

use althing_cluster::routes::BindIndex;
use althing_proto::jid::{BareJid, Jid};
use althing_proto::stanza_id::StanzaId;
use althing_proto::time::Timestamp;
use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::super::StorageError;
use super::{DeviceId, InboxQuota, KeepInInbox, MAX_PAGE, within};

/// A session that messages are being delivered to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taker {
    /// Its bind.
    pub bind: BindIndex,
    /// Its device, where messages wait for each.
    pub device: Option<DeviceId>,
}

/// A session takes what waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// Who.
    pub taker: Taker,
    /// A number that this bind has not drained under before: the same for all pages, and for the repetition of a page
    /// whose fate is unknown, which is then given again.
    pub pass: u32,
    /// The binds of the account that live, this one too. What is pending for one of them is left alone, but for other
    /// devices; what is pending for others only is taken.
    pub live: Vec<BindIndex>,
    /// The last number of the page before.
    pub after: Option<u64>,
    /// Most messages; at most [`MAX_PAGE`].
    pub limit: u32,
}

/// A page of what was taken.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Drained {
    /// The messages, oldest first. They are pending for the taker now.
    pub messages: Vec<InboxMessage>,
    /// Where the next page begins; `None` after the last.
    pub next: Option<u64>,
}

/// A waiting message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InboxMessage {
    /// Its id.
    pub id: StanzaId,
    /// Its number.
    pub seq: u64,
    /// When the server got it (XEP-0203).
    pub stamp: Timestamp,
    /// The stanza; a tombstone if it was retracted.
    pub xml: Bytes,
    /// Whether it was retracted: nobody needs it any more.
    pub retracted: bool,
}

/// What is known of a waiting message without its text (XEP-0013 §2.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InboxEntry {
    /// Its id.
    pub id: StanzaId,
    /// Its number.
    pub seq: u64,
    /// Who sent it.
    pub from: Jid,
    /// When the server got it.
    pub stamp: Timestamp,
    /// When it goes.
    pub expires: Timestamp,
    /// Bytes of its XML.
    pub size: u32,
    /// For whom it is pending, whether they live or not.
    pub takers: Vec<Taker>,
    /// Which devices have not had it. None: it waits for whichever comes.
    pub devices: Vec<DeviceId>,
}

impl InboxEntry {
    /// Whether it is being delivered to one of `live` that counts for `device`.
    #[must_use]
    pub fn is_pending(&self, device: Option<DeviceId>, live: &[BindIndex]) -> bool {
        is_pending(self.takers.iter(), &self.devices, device, live)
    }
}

/// Whether one of `takers` that lives and counts for `device` is about to get a message that waits for `devices`, or for
/// whichever comes.
pub(super) fn is_pending<'a>(
    mut takers: impl Iterator<Item = &'a Taker>,
    devices: &[DeviceId],
    device: Option<DeviceId>,
    live: &[BindIndex],
) -> bool {
    takers.any(|taker| {
        let same = devices.is_empty() || device.is_none() || taker.device.is_none();
        (same || taker.device == device) && live.contains(&taker.bind)
    })
}

/// How much waits, pending or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct InboxSummary {
    /// How many messages.
    pub messages: u32,
    /// Bytes of their XML.
    pub bytes: u64,
}

impl InboxSummary {
    /// Whether that is more than may wait for who is away.
    #[must_use]
    pub fn is_beyond(self, quota: InboxQuota) -> bool {
        self.messages > quota.messages || self.bytes > quota.bytes
    }
}

/// That a message has arrived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settle {
    /// Whose.
    pub user: BareJid,
    /// Which.
    pub id: StanzaId,
    /// At which device. A message that waits for each device goes with the last one; `None`: it goes at once.
    pub device: Option<DeviceId>,
}

/// What waits for whom. Each message goes when it was settled, or by the sweep when it expires.
#[async_trait]
pub trait Inbox: Send + Sync {
    /// Takes the next messages that wait, and makes them pending for the taker. A page ends early where it has
    /// [`MAX_PAGE_BYTES`](super::MAX_PAGE_BYTES).
    async fn drain(&self, user: &BareJid, drain: Drain) -> Result<Drained, StorageError>;

    /// These messages are pending for nobody any more. Others and unknown ones are left alone.
    ///
    /// # Errors
    /// [`StorageError::TooLarge`] for more than [`MAX_PAGE`].
    async fn release(&self, messages: Vec<(BareJid, StanzaId)>) -> Result<(), StorageError>;

    /// These messages have arrived, of many users in one change. How many of them were waiting, for the device that is
    /// named.
    ///
    /// # Errors
    /// [`StorageError::TooLarge`] for more than [`MAX_PAGE`].
    async fn settle(&self, messages: Vec<Settle>) -> Result<u32, StorageError>;

    /// As [`settle`](Self::settle), for messages that may have arrived before they are kept: which of them, by their
    /// places, are not known. Those are kept later, or were settled and nobody has them any more.
    ///
    /// # Errors
    /// As [`settle`](Self::settle).
    async fn arrived(&self, messages: Vec<Settle>) -> Result<Vec<u32>, StorageError>;

    /// A message of the archive that nobody has got waits for whoever comes. One that waits already is pending for
    /// nobody any more. `false`: the user has no such message.
    ///
    /// # Errors
    /// [`StorageError::Full`].
    async fn offline(&self, user: &BareJid, id: StanzaId, inbox: KeepInInbox) -> Result<bool, StorageError>;

    /// How much waits for `user`.
    async fn summary(&self, user: &BareJid) -> Result<InboxSummary, StorageError>;

    /// Up to `limit` entries (at most [`MAX_PAGE`]) after the number `after`, oldest first. With a device: those that it
    /// has not had.
    async fn list(
        &self,
        user: &BareJid,
        device: Option<DeviceId>,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<InboxEntry>, StorageError>;

    /// One waiting message; `None` if there is none of that id. It stays as it is.
    async fn get(&self, user: &BareJid, id: StanzaId) -> Result<Option<InboxMessage>, StorageError>;

    /// Settles all that waits, as for [`Settle`], but what is pending for one of `live`: how much there was. Not in
    /// one change.
    async fn purge(
        &self,
        user: &BareJid,
        device: Option<DeviceId>,
        live: Vec<BindIndex>,
    ) -> Result<u32, StorageError>;

    /// Notes that a device of `user` was here: from now on messages that wait for each device wait for it too. Devices
    /// not seen since `forget` are forgotten; what waits for them goes when it expires.
    async fn note_device(
        &self,
        user: &BareJid,
        device: DeviceId,
        seen: Timestamp,
        forget: Timestamp,
    ) -> Result<(), StorageError>;
}

/// Refuses too many messages in one change.
pub(in super::super) fn check_ids(count: usize) -> Result<(), StorageError> {
    within("list of ids", count, MAX_PAGE)
}
