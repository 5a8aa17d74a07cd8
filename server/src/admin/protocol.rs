//! The requests of the admin socket: one JSON object a line in, one out.
//!
//! A kind bears the version of its fields in its name. What must change becomes a new kind, so that a command line
//! of one release gets along with a node of the next.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use althing_proto::sasl::Secret;

use super::status::ClusterStatus;
use crate::backup::file::Head;

/// Name of the socket's file in `node.data_dir`.
pub const SOCKET: &str = "admin.sock";
/// Longest request, in bytes, its end of line counted.
pub const REQUEST_BYTES: usize = 192 * 1024;
/// Longest answer, in bytes, its end of line counted. What may be long is cut by [`USERS`] and [`SESSIONS`].
pub const ANSWER_BYTES: usize = 4 * 1024 * 1024;
/// Most accounts in one answer.
pub const USERS: usize = 200;
/// Most sessions in one answer.
pub const SESSIONS: usize = 100;

/// What can be asked of a running node.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "request")]
pub enum Request {
    /// The node's view of its cluster: [`Answer::ClusterStatus`].
    #[serde(rename = "cluster_status.1")]
    ClusterStatus,
    /// Where the sessions of a full or bare JID are: [`Answer::Route`].
    #[serde(rename = "route.1")]
    Route {
        /// The address.
        jid: String,
    },
    /// Makes an account: [`Answer::Done`], unchanged where it exists.
    #[serde(rename = "user_add.1")]
    UserAdd {
        /// `user@domain`.
        jid: String,
        /// The password.
        #[serde(with = "secret")]
        password: Secret,
    },
    /// Sets a password: [`Answer::Done`], unchanged where there is no such account.
    #[serde(rename = "user_set_password.1")]
    UserSetPassword {
        /// `user@domain`.
        jid: String,
        /// The new password.
        #[serde(with = "secret")]
        password: Secret,
    },
    /// Deletes an account and ends its sessions on the node: [`Answer::Done`], unchanged where there is none.
    #[serde(rename = "user_delete.1")]
    UserDelete {
        /// `user@domain`.
        jid: String,
    },
    /// Disables an account and ends its sessions, or lets its user log in again: [`Answer::Done`], unchanged where there
    /// is none.
    #[serde(rename = "user_set_disabled.1")]
    UserSetDisabled {
        /// `user@domain`.
        jid: String,
        /// Whether it is to be disabled.
        disabled: bool,
    },
    /// Reads the configuration again: [`Answer::Reloaded`].
    #[serde(rename = "reload.1")]
    Reload,
    /// Begins a backup: [`Answer::BackupBegun`].
    #[serde(rename = "backup_begin.1")]
    BackupBegin {
        /// A number that the asker makes up.
        id: u64,
    },
    /// The next rows of it: [`Answer::BackupRows`].
    #[serde(rename = "backup_rows.1")]
    BackupRows {
        /// Which backup.
        id: u64,
    },
    /// Begins to restore a backup, a step: [`Answer::Done`], unchanged where the store is not empty yet and it is to be asked
    /// once more.
    #[serde(rename = "restore_begin.1")]
    RestoreBegin {
        /// A number that the asker makes up.
        id: u64,
        /// What the backup says of itself.
        head: Head,
    },
    /// Takes rows in: [`Answer::Done`].
    #[serde(rename = "restore_rows.1")]
    RestoreRows {
        /// Which restore.
        id: u64,
        /// The rows.
        #[serde(with = "base64")]
        rows: Bytes,
    },
    /// All rows are there: [`Answer::Done`].
    #[serde(rename = "restore_finish.1")]
    RestoreFinish {
        /// Which restore.
        id: u64,
    },
    /// The accounts of all domains, at most [`USERS`] of them: [`Answer::Users`].
    #[serde(rename = "user_list.1")]
    UserList {
        /// The last account of the page before.
        after: Option<String>,
        /// Whether only those are wanted that are disabled.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        disabled: bool,
    },
}

/// What a node answers.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer")]
pub enum Answer {
    /// To [`Request::ClusterStatus`].
    #[serde(rename = "cluster_status.1")]
    ClusterStatus(Box<ClusterStatus>),
    /// To [`Request::Route`].
    #[serde(rename = "route.1")]
    Route(RouteReport),
    /// To [`Request::UserList`].
    #[serde(rename = "users.1")]
    Users {
        /// The accounts, by domain in the order of `xmpp.domains`, then by name.
        users: Vec<String>,
        /// Whether more may follow.
        more: bool,
    },
    /// To [`Request::Reload`].
    #[serde(rename = "reloaded.1")]
    Reloaded(ReloadReport),
    /// To [`Request::BackupBegin`].
    #[serde(rename = "backup_begun.1")]
    BackupBegun {
        /// What the backup says of itself.
        head: Head,
    },
    /// To [`Request::BackupRows`].
    #[serde(rename = "backup_rows.1")]
    BackupRows {
        /// Rows; none: there are no more.
        #[serde(with = "base64")]
        rows: Bytes,
    },
    /// The change is durable, or was none.
    #[serde(rename = "done.1")]
    Done {
        /// Whether anything changed.
        changed: bool,
    },
    /// It could not be done.
    #[serde(rename = "failed.1")]
    Failed {
        /// Why, in words for the operator.
        reason: String,
    },
}

/// What a reload of the configuration has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadReport {
    /// Keys whose value is another now, `section.key`.
    pub changed: Vec<String>,
    /// Keys whose new value takes a restart.
    pub restart: Vec<String>,
    /// Until when the certificate is valid that clients see from now on.
    pub certificate_until: Option<String>,
}

/// Where the sessions of an address are, by the route table of the node that was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteReport {
    /// The address, prepared.
    pub jid: String,
    /// Name of the node that answers.
    pub seen_by: String,
    /// Index of the last log entry that its table shows.
    pub applied: u64,
    /// The sessions in the order of their binds, at most [`SESSIONS`].
    pub sessions: Vec<SessionReport>,
    /// Sessions that are not shown.
    pub left_off: usize,
}

/// Where one session is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionReport {
    /// The full JID.
    pub jid: String,
    /// Id of the node that holds it: 16 hexadecimal digits.
    pub node_id: String,
    /// That node's name, where it is known.
    pub node: Option<String>,
    /// Which start of that node.
    pub incarnation: u64,
    /// The bind index: the session's epoch.
    pub bind: u64,
    /// Index of the log entry that bound it.
    pub log_index: u64,
    /// The presence priority; `None` while it is not available.
    pub priority: Option<i8>,
    /// Until when it can be resumed (XEP-0198), in milliseconds since 1970; `None` while it has a stream.
    pub resumable_until: Option<u64>,
}

/// Bytes on the way through the socket.
mod base64 {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use bytes::Bytes;
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Bytes::from).map_err(D::Error::custom)
    }
}

/// A password on the way through the socket; nothing else makes text of it.
mod secret {
    use althing_proto::sasl::Secret;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(secret: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(secret.expose())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
        String::deserialize(deserializer).map(Secret::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_bear_their_version_and_passwords_are_not_shown() {
        let request = Request::UserAdd { jid: "a@b".into(), password: Secret::new("hidden") };
        let text = serde_json::to_string(&request).unwrap();
        assert_eq!(text, r#"{"request":"user_add.1","jid":"a@b","password":"hidden"}"#);
        assert!(!format!("{request:?}").contains("hidden"));
        let again: Request = serde_json::from_str(&text).unwrap();
        assert!(matches!(again, Request::UserAdd { password, .. } if password.expose() == "hidden"));
        let status: Request = serde_json::from_str(r#"{"request":"cluster_status.1"}"#).unwrap();
        assert!(matches!(status, Request::ClusterStatus));
        assert!(serde_json::from_str::<Request>(r#"{"request":"cluster_status.2"}"#).is_err());
    }
}
