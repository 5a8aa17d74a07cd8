//! What has been kept for long enough.

use althing_proto::jid::BareJid;
use althing_proto::time::Timestamp;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::super::StorageError;

/// What goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SweepRules {
    /// The time: waiting messages that expire until then go.
    pub now: Timestamp,
    /// Archived messages from before that time go.
    pub archive_before: Option<Timestamp>,
    /// The oldest archived messages go until the bytes of their XML are no more than that.
    pub archive_bytes: Option<u64>,
}

/// Users of whom something has to go.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Due {
    /// Who.
    pub users: Vec<BareJid>,
    /// The last user that was looked at, who comes before those of the next page; `None`: there are no more.
    pub next: Option<BareJid>,
}

/// How much has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Swept {
    /// Waiting messages.
    pub inbox: u32,
    /// Archived messages.
    pub archive: u32,
    /// Whether more of this user has to go.
    pub more: bool,
}

/// Takes away what has been kept for long enough, a little at a time.
#[async_trait]
pub trait Retention: Send + Sync {
    /// Looks at `look` users of `domain` who come after `after`.
    async fn due(
        &self,
        domain: &str,
        after: Option<&BareJid>,
        rules: SweepRules,
        look: usize,
    ) -> Result<Due, StorageError>;

    /// Takes up to `limit` messages of `user` away.
    async fn sweep(&self, user: &BareJid, rules: SweepRules, limit: u32) -> Result<Swept, StorageError>;
}
