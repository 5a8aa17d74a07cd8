//! Everything that changes the embedded store, as values with a form on the wire that lasts.
//!
//! A kind's tag is never given to another kind; a kind's fields never change. What must change becomes
//! a new kind with the version of the store protocol that knows it, so that nodes of two releases can
//! work side by side.

use althing_proto::jid::BareJid;
use althing_proto::roster::{RosterChange, RosterError};
use althing_proto::sasl::Credentials;
use serde::{Deserialize, Serialize};

use super::super::{Account, Changed, RosterLimits};
use althing_cluster::wire::{self, WireError};

/// [`Command::CreateAccount`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateAccount {
    /// Whose account.
    pub user: BareJid,
    /// The account.
    pub account: Account,
}

/// [`Command::SetCredentials`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetCredentials {
    /// Whose account.
    pub user: BareJid,
    /// The new credentials.
    pub credentials: Credentials,
}

/// [`Command::DeleteAccount`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteAccount {
    /// Whose account.
    pub user: BareJid,
}

/// [`Command::ChangeRoster`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeRoster {
    /// Whose roster.
    pub owner: BareJid,
    /// Which item.
    pub contact: BareJid,
    /// What happens to it.
    pub change: RosterChange,
    /// The limits of the proposing node: part of the command, so that every replica decides alike.
    pub limits: RosterLimits,
}

/// [`Command::PutPrivate`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutPrivate {
    /// Whose row.
    pub user: BareJid,
    /// The module's namespace.
    pub namespace: String,
    /// The row's key.
    pub key: String,
    /// The row's value.
    pub value: Vec<u8>,
}

/// [`Command::DeletePrivate`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletePrivate {
    /// Whose row.
    pub user: BareJid,
    /// The module's namespace.
    pub namespace: String,
    /// The row's key.
    pub key: String,
}

/// Makes the enum, its tags and its codec from one table.
macro_rules! commands {
    ($($(#[$doc:meta])* $tag:literal $name:ident, since $since:literal;)*) => {
        /// A change of the store.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum Command {
            $($(#[$doc])* $name($name),)*
        }

        impl Command {
            /// The number that names the kind in encoded commands.
            #[must_use]
            pub const fn tag(&self) -> u16 {
                match self { $(Command::$name(_) => $tag,)* }
            }

            /// The first version of the store protocol that knows the kind.
            #[must_use]
            pub const fn since(&self) -> u16 {
                match self { $(Command::$name(_) => $since,)* }
            }

            /// The name of the kind, for logs and metrics.
            #[must_use]
            pub const fn name(&self) -> &'static str {
                match self { $(Command::$name(_) => stringify!($name),)* }
            }

            /// The command as bytes: the tag as a big-endian u16, then the fields.
            ///
            /// # Errors
            /// As [`wire::encode`].
            pub fn encode(&self) -> Result<Vec<u8>, WireError> {
                let body = match self { $(Command::$name(body) => wire::encode(body)?,)* };
                Ok([&self.tag().to_be_bytes()[..], &body].concat())
            }

            /// Reads a command that takes all of `bytes`.
            ///
            /// # Errors
            /// [`WireError`] for a tag that this release does not know and for damaged fields.
            pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
                let (tag, body) = bytes
                    .split_first_chunk::<2>()
                    .ok_or_else(|| WireError::Malformed("no tag".to_owned()))?;
                match u16::from_be_bytes(*tag) {
                    $($tag => wire::decode(body).map(Command::$name),)*
                    other => Err(WireError::Malformed(format!("unknown command {other}"))),
                }
            }
        }
    };
}

commands! {
    /// Makes an account. Reply: [`Reply::Done`] with whether there was none.
    1 CreateAccount, since 1;
    /// Replaces an account's credentials. Reply: [`Reply::Done`] with whether there is one.
    2 SetCredentials, since 1;
    /// Deletes an account with all its rows. Reply: [`Reply::Done`] with whether there was one.
    3 DeleteAccount, since 1;
    /// Changes one roster item. Reply: [`Reply::Roster`].
    4 ChangeRoster, since 1;
    /// Writes a module's row. Reply: [`Reply::Done`] with `true`.
    5 PutPrivate, since 1;
    /// Deletes a module's row. Reply: [`Reply::Done`] with whether there was one.
    6 DeletePrivate, since 1;
}

/// What a command came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Whether the command found what it was for.
    Done(bool),
    /// The outcome of a roster change, or why it is not allowed.
    Roster(Result<Box<Changed>, RosterError>),
    /// The user has no account.
    UnknownUser,
}

#[cfg(test)]
mod tests {
    use super::*;
    use althing_proto::roster::{Direction, SubscriptionEvent, SubscriptionKind};
    use althing_proto::sasl::ScramKeys;
    use althing_proto::time::Timestamp;

    fn samples() -> Vec<(&'static str, Command)> {
        let user = BareJid::new("j@d").unwrap();
        let keys = |byte: u8| ScramKeys {
            iterations: 4096,
            salt: vec![byte],
            stored_key: vec![byte + 1],
            server_key: vec![byte + 2],
        };
        let credentials = Credentials { sha1: keys(1), sha256: keys(4), sha512: keys(7) };
        let account = Account { credentials: credentials.clone(), created: Timestamp::from_millis(5) };
        let limits = RosterLimits { items: 9, requests: 8 };
        let roster = |change| ChangeRoster { owner: user.clone(), contact: user.clone(), change, limits };
        let event = SubscriptionEvent {
            direction: Direction::Inbound,
            kind: SubscriptionKind::Subscribed,
            request: Some(b"x".to_vec()),
        };
        let (namespace, key) = ("n".to_owned(), "k".to_owned());
        vec![
            (
                "0001036a4064fb0010010101020103fb0010010401050106fb001001070108010905",
                Command::CreateAccount(CreateAccount { user: user.clone(), account }),
            ),
            (
                "0002036a4064fb0010010101020103fb0010010401050106fb0010010701080109",
                Command::SetCredentials(SetCredentials { user: user.clone(), credentials }),
            ),
            ("0003036a4064", Command::DeleteAccount(DeleteAccount { user: user.clone() })),
            (
                "0004036a4064036a40640001017202016101620908",
                Command::ChangeRoster(roster(RosterChange::Set {
                    name: Some("r".to_owned()),
                    groups: vec!["a".to_owned(), "b".to_owned()],
                })),
            ),
            ("0004036a4064036a4064010908", Command::ChangeRoster(roster(RosterChange::Remove))),
            (
                "0004036a4064036a40640201010101780908",
                Command::ChangeRoster(roster(RosterChange::Subscription(event))),
            ),
            (
                "0005036a4064016e016b0176",
                Command::PutPrivate(PutPrivate {
                    user: user.clone(),
                    namespace: namespace.clone(),
                    key: key.clone(),
                    value: b"v".to_vec(),
                }),
            ),
            ("0006036a4064016e016b", Command::DeletePrivate(DeletePrivate { user, namespace, key })),
        ]
    }

    /// Nodes of two releases, and a log written by an older one, must read each other's commands.
    #[test]
    fn golden_bytes() {
        for (golden, command) in samples() {
            let bytes = command.encode().unwrap();
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, golden, "{}", command.name());
            assert_eq!(Command::decode(&bytes), Ok(command));
        }
    }

    #[test]
    fn unknown_and_damaged_commands_are_refused() {
        assert!(Command::decode(b"").is_err());
        assert!(Command::decode(&[0xff, 0xff, 0]).is_err());
        for (_, command) in samples() {
            let bytes = command.encode().unwrap();
            assert!(Command::decode(&bytes[..bytes.len() - 1]).is_err());
            assert!(Command::decode(&[bytes.as_slice(), &[0]].concat()).is_err());
        }
    }
}
