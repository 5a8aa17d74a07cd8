//! PURE: what a user can ask for, what came of it, and why it may be refused.

use serde::{Deserialize, Serialize};

use super::item::{Item, Subject};
use crate::jid::Jid;

/// Names one session of a user among all that ever were: the start of the node that keeps count, and the bind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionKey {
    /// Tells starts apart, where binds are counted anew with each; else 0.
    pub start: u64,
    /// The bind.
    pub bind: u64,
}

/// The sessions of a user as the asking node knows them: which lists apply to whom is decided with the change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connected {
    /// The session that asks.
    pub own: SessionKey,
    /// The others.
    pub others: Vec<SessionKey>,
    /// The latest bind that the node can know of.
    pub latest: u64,
}

/// A change of a user's lists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PrivacyChange {
    /// Blocks addresses wholly: entries of the default list, which is made where there is none (XEP-0191 §3.3).
    Block(Vec<Jid>),
    /// Takes them back; all, where none is named (XEP-0191 §3.4, §3.5).
    Unblock(Vec<Jid>),
    /// Makes a list, or replaces it (XEP-0016 §2.6, §2.7).
    SetList {
        /// Its name.
        name: String,
        /// All its rules; their places are distinct.
        rules: Vec<Item>,
    },
    /// Removes a list (XEP-0016 §2.8).
    RemoveList {
        /// Its name.
        name: String,
        /// Who is there: a list that applies to another session is not removed.
        sessions: Connected,
    },
    /// Makes a list the default, or has none (XEP-0016 §2.5).
    SetDefault {
        /// Its name.
        name: Option<String>,
        /// Who is there: a default that applies to another session stays.
        sessions: Connected,
    },
    /// Makes a list apply to one session, or the default again (XEP-0016 §2.4).
    SetActive {
        /// Its name.
        name: Option<String>,
        /// Who is there.
        sessions: Connected,
    },
}

impl PrivacyChange {
    /// Largest [`PrivacyChange::size`] that the store takes: more is asked for in several requests.
    pub const MAX_BYTES: usize = 64 * 1024;

    /// The bytes of its addresses, names and values, with a few for each of them: no less than what is kept.
    #[must_use]
    pub fn size(&self) -> usize {
        let text = |text: &str| text.len() + 8;
        match self {
            PrivacyChange::Block(jids) | PrivacyChange::Unblock(jids) => {
                jids.iter().map(|jid| text(jid.as_str())).sum()
            }
            PrivacyChange::SetList { name, rules } => {
                let rules = rules.iter().map(|rule| match &rule.subject {
                    Subject::Jid(jid) => text(jid.as_str()),
                    Subject::Group(group) => text(group),
                    Subject::Any | Subject::Subscription(_) => text(""),
                });
                text(name) + rules.sum::<usize>()
            }
            PrivacyChange::RemoveList { name, .. } => text(name),
            PrivacyChange::SetDefault { name, .. } | PrivacyChange::SetActive { name, .. } => {
                name.as_deref().map_or(0, text)
            }
        }
    }
}

/// What a change means for the block list.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum BlockDelta {
    /// Nothing, or more than can be said here: whoever wants to know compares.
    #[default]
    None,
    /// These were added.
    Blocked(Vec<Jid>),
    /// These were taken away; all, where none is named.
    Unblocked(Vec<Jid>),
}

/// What a change came to. Its form on the wire lasts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrivacyChanged {
    /// The version of the lists afterwards: that of before where nothing changed.
    pub version: u64,
    /// Whether anything changed.
    pub changed: bool,
    /// The list that it was about; 0 for none.
    pub list: u32,
    /// The default list afterwards.
    pub default: Option<u32>,
    /// The name of the list whose rules changed.
    pub edited: Option<String>,
    /// What of it the block list shows.
    pub blocks: BlockDelta,
    /// Whether the rules must be read anew: `blocks` does not say all.
    pub reload: bool,
}

/// Why a change is refused. Nothing was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum PrivacyError {
    /// More would be blocked than is allowed.
    #[error("too many addresses are blocked")]
    TooManyEntries,
    /// There would be more lists than are allowed.
    #[error("there are too many lists")]
    TooManyLists,
    /// The list would have more rules than are allowed.
    #[error("the list has too many rules")]
    TooManyItems,
    /// There is no such list.
    #[error("there is no list of that name")]
    UnknownList,
    /// The list applies to another session.
    #[error("the list applies to another resource")]
    InUse,
}
