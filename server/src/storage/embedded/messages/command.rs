//! The fields of the commands, replies and queries on kept messages. Fields never change.

use althing_cluster::routes::BindIndex;
use althing_proto::jid::BareJid;
use althing_proto::stanza_id::StanzaId;
use althing_proto::time::Timestamp;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::super::super::StorageError;
use super::super::super::messages::{
    ArchivePreferences, ArchiveQuery, DeviceId, Drain, KeepInInbox, MAX_MESSAGE_BYTES, Settle, SweepRules,
    check_ids, check_keep, check_preferences, within,
};
use super::super::super::streams::check_changes;
use super::super::command::Command;
#[cfg(doc)]
use super::super::query::Query;
#[cfg(doc)]
use super::super::reply::Reply;
use super::super::streams::{ChangeStreams, KeepOfStream};

/// [`Command::RetractMessage`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetractMessage {
    /// Whose message it has to be.
    pub sender: BareJid,
    /// Which.
    pub id: StanzaId,
    /// What takes its place.
    pub tombstone: Bytes,
}

/// [`Command::DrainInbox`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainInbox {
    /// Whose inbox.
    pub user: BareJid,
    /// Who takes, and what.
    pub drain: Drain,
}

/// [`Command::ReleaseMessages`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseMessages {
    /// Which, of whom.
    pub messages: Vec<(BareJid, StanzaId)>,
}

/// [`Command::SettleMessages`] and [`Command::ArrivedMessages`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettleMessages {
    /// Which.
    pub messages: Vec<Settle>,
}

/// [`Command::OfflineMessage`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfflineMessage {
    /// Whose message.
    pub user: BareJid,
    /// Which.
    pub id: StanzaId,
    /// How it waits.
    pub inbox: KeepInInbox,
}

/// [`Command::PurgeInbox`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PurgeInbox {
    /// Whose inbox.
    pub user: BareJid,
    /// For which device; `None`: for all.
    pub device: Option<DeviceId>,
    /// What is pending for one of these binds stays.
    pub live: Vec<BindIndex>,
    /// The last number that an earlier step has looked at.
    pub after: u64,
    /// Most messages to look at.
    pub limit: u32,
}

/// [`Command::NoteDevice`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoteDevice {
    /// Whose device.
    pub user: BareJid,
    /// Which.
    pub device: DeviceId,
    /// When it was here.
    pub seen: Timestamp,
    /// Devices not seen since are forgotten.
    pub forget: Timestamp,
}

/// [`Command::SetArchivePreferences`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetArchivePreferences {
    /// Whose.
    pub user: BareJid,
    /// The preferences.
    pub preferences: ArchivePreferences,
}

/// [`Command::SweepMessages`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SweepMessages {
    /// Whose messages.
    pub user: BareJid,
    /// What goes.
    pub rules: SweepRules,
    /// Most messages that go.
    pub limit: u32,
}

/// [`Reply::Drained`]: numbers only, for replies are remembered by the store group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainedRows {
    /// The messages that are the taker's now.
    pub seqs: Vec<u64>,
    /// Where the next page begins, if there is one.
    pub next: Option<u64>,
}

/// [`Reply::Purged`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purged {
    /// How many messages were settled.
    pub count: u32,
    /// Where the next step begins, if there is one.
    pub next: Option<u64>,
}

/// [`Query::ReadInbox`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadInbox {
    /// Whose inbox.
    pub user: BareJid,
    /// Which messages; those that are there are answered.
    pub seqs: Vec<u64>,
}

/// [`Query::ListInbox`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListInbox {
    /// Whose inbox.
    pub user: BareJid,
    /// For which device; `None`: for all.
    pub device: Option<DeviceId>,
    /// The number before the first that is wanted.
    pub after: Option<u64>,
    /// Most entries wanted.
    pub limit: u32,
}

/// [`Query::GetInboxMessage`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetInboxMessage {
    /// Whose inbox.
    pub user: BareJid,
    /// Which message.
    pub id: StanzaId,
}

/// [`Query::ReadArchive`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadArchive {
    /// Whose archive.
    pub user: BareJid,
    /// What is wanted.
    pub query: ArchiveQuery,
}

/// A question about one user's messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfUser {
    /// Who.
    pub user: BareJid,
}

/// [`Query::FindDue`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindDue {
    /// Users of which domain.
    pub domain: String,
    /// The user before the first to look at.
    pub after: Option<BareJid>,
    /// What goes.
    pub rules: SweepRules,
    /// How many users to look at.
    pub look: u32,
}

impl Command {
    /// [`Command::check`] of the commands on messages.
    pub(in super::super) fn check_messages(&self) -> Result<(), StorageError> {
        match self {
            Command::KeepMessage(message) | Command::KeepOfStream(KeepOfStream { message, .. }) => {
                check_keep(message)
            }
            Command::ChangeStreams(ChangeStreams { changes }) => check_changes(changes),
            Command::RetractMessage(retract) => within("message", retract.tombstone.len(), MAX_MESSAGE_BYTES),
            Command::DrainInbox(DrainInbox { drain, .. }) => check_ids(drain.live.len()),
            Command::ReleaseMessages(ReleaseMessages { messages }) => check_ids(messages.len()),
            Command::SettleMessages(SettleMessages { messages })
            | Command::ArrivedMessages(SettleMessages { messages }) => check_ids(messages.len()),
            Command::OfflineMessage(offline) => check_ids(offline.inbox.takers.len()),
            Command::PurgeInbox(PurgeInbox { live, .. }) => check_ids(live.len()),
            Command::SetArchivePreferences(set) => check_preferences(&set.preferences),
            _ => Ok(()),
        }
    }
}
