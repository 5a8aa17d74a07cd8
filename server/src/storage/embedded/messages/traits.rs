//! The traits of kept messages, for every place that is given commands and queries.

use althing_cluster::routes::BindIndex;
use althing_proto::jid::BareJid;
use althing_proto::stanza_id::StanzaId;
use althing_proto::time::Timestamp;
use async_trait::async_trait;
use bytes::Bytes;

use super::super::super::StorageError;
use super::super::super::messages::{
    Archive, ArchiveEnds, ArchivePage, ArchivePreferences, ArchiveQuery, DeviceId, Drain, Drained, Due,
    Inbox, InboxEntry, InboxMessage, InboxSummary, KeepInInbox, KeepMessage, Kept, Messages, Retention,
    Settle, SweepRules, Swept, UnknownStanzaId, check_query,
};
use super::super::command::Command;
use super::super::query::{Answer, Query};
use super::super::reply::Reply;
use super::command::{
    DrainInbox, FindDue, GetInboxMessage, ListInbox, NoteDevice, OfUser, OfflineMessage, PurgeInbox,
    ReadArchive, ReadInbox, ReleaseMessages, RetractMessage, SetArchivePreferences, SettleMessages,
    SweepMessages,
};

/// Messages that one step of a purge looks at: each may be some rows of a batch.
const PURGED_AT_ONCE: u32 = 200;

/// A place that does what commands say, and answers queries.
#[async_trait]
pub trait Commanded: Send + Sync {
    /// Does what `command` says. Commands are done in the order in which the futures are first polled.
    async fn command(&self, command: Command) -> Result<Reply, StorageError>;

    /// Answers `query`.
    async fn ask(&self, query: Query) -> Result<Answer, StorageError>;
}

/// What a command of one kind is answered by; another reply says why it was not done.
macro_rules! replied {
    ($kind:ident, $reply:expr) => {
        match $reply {
            Reply::$kind(found) => Ok(found),
            other => Err(other.refusal()),
        }
    };
}

/// What a query of one kind is answered by; an answer of another kind is a replica's mistake.
macro_rules! answered {
    ($kind:ident, $answer:expr) => {
        match $answer {
            Answer::$kind(found) => Ok(found),
            other => Err(StorageError::Unavailable {
                why: format!("a replica answered by {} where {} was asked", other.name(), stringify!($kind)),
            }),
        }
    };
}

#[async_trait]
impl<S: Commanded> Messages for S {
    async fn keep(&self, message: KeepMessage) -> Result<Vec<Kept>, StorageError> {
        replied!(Kept, self.command(Command::KeepMessage(message)).await?)
    }

    async fn retract(&self, sender: &BareJid, id: StanzaId, tombstone: Bytes) -> Result<bool, StorageError> {
        let command = RetractMessage { sender: sender.clone(), id, tombstone };
        replied!(Done, self.command(Command::RetractMessage(command)).await?)
    }
}

#[async_trait]
impl<S: Commanded> Inbox for S {
    /// A command that takes, and a query for the texts: what the store group remembers as a reply must be small.
    async fn drain(&self, user: &BareJid, drain: Drain) -> Result<Drained, StorageError> {
        let command = DrainInbox { user: user.clone(), drain };
        let rows = replied!(Drained, self.command(Command::DrainInbox(command)).await?)?;
        if rows.seqs.is_empty() {
            return Ok(Drained { messages: Vec::new(), next: rows.next });
        }
        let query = Query::ReadInbox(ReadInbox { user: user.clone(), seqs: rows.seqs });
        let messages = answered!(InboxMessages, self.ask(query).await?)?;
        Ok(Drained { messages, next: rows.next })
    }

    async fn release(&self, messages: Vec<(BareJid, StanzaId)>) -> Result<(), StorageError> {
        let command = Command::ReleaseMessages(ReleaseMessages { messages });
        replied!(Done, self.command(command).await?).map(|_done| ())
    }

    async fn settle(&self, messages: Vec<Settle>) -> Result<u32, StorageError> {
        replied!(Count, self.command(Command::SettleMessages(SettleMessages { messages })).await?)
    }

    async fn arrived(&self, messages: Vec<Settle>) -> Result<Vec<u32>, StorageError> {
        replied!(Places, self.command(Command::ArrivedMessages(SettleMessages { messages })).await?)
    }

    async fn offline(&self, user: &BareJid, id: StanzaId, inbox: KeepInInbox) -> Result<bool, StorageError> {
        let command = OfflineMessage { user: user.clone(), id, inbox };
        replied!(Done, self.command(Command::OfflineMessage(command)).await?)
    }

    async fn summary(&self, user: &BareJid) -> Result<InboxSummary, StorageError> {
        let query = Query::GetInboxSummary(OfUser { user: user.clone() });
        answered!(InboxSummary, self.ask(query).await?)
    }

    async fn list(
        &self,
        user: &BareJid,
        device: Option<DeviceId>,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<InboxEntry>, StorageError> {
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        let query = ListInbox { user: user.clone(), device, after, limit };
        answered!(InboxEntries, self.ask(Query::ListInbox(query)).await?)
    }

    async fn get(&self, user: &BareJid, id: StanzaId) -> Result<Option<InboxMessage>, StorageError> {
        let query = Query::GetInboxMessage(GetInboxMessage { user: user.clone(), id });
        answered!(InboxMessage, self.ask(query).await?)
    }

    async fn purge(
        &self,
        user: &BareJid,
        device: Option<DeviceId>,
        live: Vec<BindIndex>,
    ) -> Result<u32, StorageError> {
        let (mut after, mut count) = (0, 0_u32);
        loop {
            let (user, live) = (user.clone(), live.clone());
            let command = PurgeInbox { user, device, live, after, limit: PURGED_AT_ONCE };
            let purged = replied!(Purged, self.command(Command::PurgeInbox(command)).await?)?;
            count = count.saturating_add(purged.count);
            match purged.next {
                Some(next) => after = next,
                None => return Ok(count),
            }
        }
    }

    async fn note_device(
        &self,
        user: &BareJid,
        device: DeviceId,
        seen: Timestamp,
        forget: Timestamp,
    ) -> Result<(), StorageError> {
        let command = Command::NoteDevice(NoteDevice { user: user.clone(), device, seen, forget });
        replied!(Done, self.command(command).await?).map(|_done| ())
    }
}

#[async_trait]
impl<S: Commanded> Archive for S {
    async fn page(
        &self,
        user: &BareJid,
        query: ArchiveQuery,
    ) -> Result<Result<ArchivePage, UnknownStanzaId>, StorageError> {
        check_query(&query)?;
        let query = Query::ReadArchive(ReadArchive { user: user.clone(), query });
        answered!(ArchivePage, self.ask(query).await?)
    }

    async fn ends(&self, user: &BareJid) -> Result<Option<ArchiveEnds>, StorageError> {
        answered!(ArchiveEnds, self.ask(Query::GetArchiveEnds(OfUser { user: user.clone() })).await?)
    }

    async fn preferences(&self, user: &BareJid) -> Result<Option<ArchivePreferences>, StorageError> {
        let query = Query::GetArchivePreferences(OfUser { user: user.clone() });
        answered!(ArchivePreferences, self.ask(query).await?)
    }

    async fn set_preferences(
        &self,
        user: &BareJid,
        preferences: ArchivePreferences,
    ) -> Result<(), StorageError> {
        let command = SetArchivePreferences { user: user.clone(), preferences };
        replied!(Done, self.command(Command::SetArchivePreferences(command)).await?).map(|_done| ())
    }
}

#[async_trait]
impl<S: Commanded> Retention for S {
    async fn due(
        &self,
        domain: &str,
        after: Option<&BareJid>,
        rules: SweepRules,
        look: usize,
    ) -> Result<Due, StorageError> {
        let look = u32::try_from(look).unwrap_or(u32::MAX);
        let query = FindDue { domain: domain.to_owned(), after: after.cloned(), rules, look };
        answered!(Due, self.ask(Query::FindDue(query)).await?)
    }

    async fn sweep(&self, user: &BareJid, rules: SweepRules, limit: u32) -> Result<Swept, StorageError> {
        let command = SweepMessages { user: user.clone(), rules, limit };
        replied!(Swept, self.command(Command::SweepMessages(command)).await?)
    }
}
