//! Everything that changes the embedded store, as values with a form on the wire that lasts (`tagged.rs`).

use althing_cluster::disk::Room as Level;
use althing_proto::jid::BareJid;
use althing_proto::privacy::PrivacyChange;
use althing_proto::roster::RosterChange;
use althing_proto::sasl::Credentials;
use althing_proto::time::Timestamp;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::super::messages::KeepMessage;
use super::super::profile::{Logout, Word, check_head, check_logouts};
use super::super::{Account, PrivacyLimits, RosterLimits, RowBound, StorageError, check_privacy, check_row};
use super::backup::{Restore, RestoreRows};
use super::messages::command::{
    DrainInbox, NoteDevice, OfflineMessage, PurgeInbox, ReleaseMessages, RetractMessage,
    SetArchivePreferences, SettleMessages, SweepMessages,
};
#[cfg(doc)]
use super::reply::Reply;
use super::streams::{ChangeStreams, KeepOfStream};
use super::tagged::tagged;

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

/// [`Command::SetDisabled`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetDisabled {
    /// Whose account.
    pub user: BareJid,
    /// Since when nobody may log in; `None`: the user may again.
    pub since: Option<Timestamp>,
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

/// [`Command::PutPrivateWithin`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutPrivateWithin {
    /// The row.
    pub row: PutPrivate,
    /// The bound of the proposing node: part of the command, so that every replica decides alike.
    pub bound: RowBound,
}

/// [`Command::PutPart`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutPart {
    /// Whose document.
    pub user: BareJid,
    /// Its name.
    pub document: String,
    /// Which upload, a number of its own.
    pub upload: u64,
    /// Which part, from 0.
    pub part: u32,
    /// The part.
    pub bytes: Bytes,
}

/// [`Command::SealDocument`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealDocument {
    /// Whose document.
    pub user: BareJid,
    /// Its name.
    pub document: String,
    /// Which upload.
    pub upload: u64,
    /// How many parts were put before.
    pub parts: u32,
    /// The last part.
    pub last: Bytes,
    /// The module's note.
    pub note: Bytes,
    /// By which words the directory finds the user.
    pub words: Vec<Word>,
    /// What the directory shows.
    pub shown: Bytes,
}

/// [`Command::NoteLogouts`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoteLogouts {
    /// Who left, and when.
    pub logouts: Vec<Logout>,
}

/// [`Command::ChangePrivacy`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangePrivacy {
    /// Whose lists.
    pub owner: BareJid,
    /// What happens to them.
    pub change: PrivacyChange,
    /// The limits of the proposing node: part of the command, so that every replica decides alike.
    pub limits: PrivacyLimits,
}

tagged! {
    /// A change of the store.
    enum Command {
        /// Makes an account. Reply: [`Reply::Done`] with whether there was none.
        1 CreateAccount(CreateAccount), since 1;
        /// Replaces an account's credentials. Reply: [`Reply::Done`] with whether there is one.
        2 SetCredentials(SetCredentials), since 1;
        /// Deletes an account with all its rows. Reply: [`Reply::Done`] with whether there was one.
        3 DeleteAccount(DeleteAccount), since 1;
        /// Changes one roster item. Reply: [`Reply::Roster`] or [`Reply::UnknownUser`].
        4 ChangeRoster(ChangeRoster), since 1;
        /// Writes a module's row. Reply: [`Reply::Done`] with `true`, or [`Reply::UnknownUser`].
        5 PutPrivate(PutPrivate), since 1;
        /// Deletes a module's row. Reply: [`Reply::Done`] with whether there was one.
        6 DeletePrivate(DeletePrivate), since 1;
        /// Writes a module's row within a bound. Reply: as [`Command::PutPrivate`], or [`Reply::Full`].
        20 PutPrivateWithin(PutPrivateWithin), since 1;
        /// Writes a part of a document that is not in force yet. Reply: [`Reply::Done`] with whether the upload still
        /// goes on, or [`Reply::UnknownUser`].
        21 PutPart(PutPart), since 1;
        /// Puts an upload in the place of the document. Reply: [`Reply::Revision`], [`Reply::Done`] with `false` when
        /// another upload has ended it, or [`Reply::UnknownUser`].
        22 SealDocument(SealDocument), since 1;
        /// Notes who left. Reply: [`Reply::Done`] with `true`.
        23 NoteLogouts(NoteLogouts), since 1;
        /// Changes privacy lists. Reply: [`Reply::Privacy`] or [`Reply::UnknownUser`].
        30 ChangePrivacy(ChangePrivacy), since 1;
        /// Disables an account, or lets it be used again. Reply: [`Reply::Done`] with whether there is one.
        40 SetDisabled(SetDisabled), since 1;
        /// Keeps a message. Reply: [`Reply::Kept`] or [`Reply::Full`].
        50 KeepMessage(KeepMessage), since 1;
        /// Puts a tombstone in the place of a message. Reply: [`Reply::Done`] with whether it was there.
        51 RetractMessage(RetractMessage), since 1;
        /// Takes what waits. Reply: [`Reply::Drained`].
        52 DrainInbox(DrainInbox), since 1;
        /// Makes messages wait for whoever comes. Reply: [`Reply::Done`] with `true`.
        53 ReleaseMessages(ReleaseMessages), since 1;
        /// Notes what has arrived. Reply: [`Reply::Count`].
        54 SettleMessages(SettleMessages), since 1;
        /// Settles all that waits, a step. Reply: [`Reply::Purged`].
        55 PurgeInbox(PurgeInbox), since 1;
        /// Notes a device. Reply: [`Reply::Done`] with `true`, or [`Reply::UnknownUser`].
        56 NoteDevice(NoteDevice), since 1;
        /// Sets what is archived. Reply: [`Reply::Done`] with `true`, or [`Reply::UnknownUser`].
        57 SetArchivePreferences(SetArchivePreferences), since 1;
        /// Takes away what has been kept for long enough. Reply: [`Reply::Swept`].
        58 SweepMessages(SweepMessages), since 1;
        /// Keeps a message, and advances its sender's stream. Reply: as [`Command::KeepMessage`].
        80 KeepOfStream(KeepOfStream), since 1;
        /// Changes records of streams. Reply: [`Reply::Done`] with `true`.
        81 ChangeStreams(ChangeStreams), since 1;
        /// Makes the secret of ids of streams, if there is none. Reply: [`Reply::Secret`].
        82 MakeStreamSecret([u8; 32]), since 1;
        /// Notes what has arrived, perhaps before it is kept. Reply: [`Reply::Places`] of those not known.
        90 ArrivedMessages(SettleMessages), since 1;
        /// Makes a message wait that is archived only. Reply: [`Reply::Done`] with whether it is there, or
        /// [`Reply::Full`].
        91 OfflineMessage(OfflineMessage), since 1;
        /// Begins to restore a backup, a step. Reply: [`Reply::Done`] with whether no row is left, or
        /// [`Reply::NotRestored`].
        130 BeginRestore(Restore), since 1;
        /// Takes rows of a backup in. Reply: [`Reply::Done`] with `true`, or [`Reply::NotRestored`].
        131 RestoreRows(RestoreRows), since 1;
        /// Ends a restore. Reply: [`Reply::Done`] with `true`, or [`Reply::NotRestored`].
        132 FinishRestore(Restore), since 1;
    }
}

impl Command {
    /// Whether it is a step of restoring a backup; nothing else is done meanwhile.
    pub(super) fn is_restore(&self) -> bool {
        matches!(self, Command::BeginRestore(_) | Command::RestoreRows(_) | Command::FinishRestore(_))
    }

    /// Whether it takes room on the disk for longer. What makes room is taken to the last, as is what a session needs to
    /// come to its end, and what keeps somebody out.
    #[must_use]
    pub fn takes_room(&self) -> bool {
        match self {
            Command::CreateAccount(_)
            | Command::PutPrivate(_)
            | Command::PutPrivateWithin(_)
            | Command::PutPart(_)
            | Command::SealDocument(_)
            | Command::KeepOfStream(_)
            | Command::SetArchivePreferences(_)
            | Command::BeginRestore(_)
            | Command::RestoreRows(_) => true,
            // Without an owner that has it anywhere it only asks for what is kept so far.
            Command::KeepMessage(message) => {
                message.owners.iter().any(|owner| owner.archive.is_some() || owner.inbox.is_some())
            }
            Command::ChangeRoster(change) => !matches!(change.change, RosterChange::Remove),
            Command::SetCredentials(_)
            | Command::DeleteAccount(_)
            | Command::SetDisabled(_)
            | Command::DeletePrivate(_)
            | Command::ChangePrivacy(_)
            | Command::NoteLogouts(_)
            | Command::RetractMessage(_)
            | Command::DrainInbox(_)
            | Command::ReleaseMessages(_)
            | Command::SettleMessages(_)
            | Command::ArrivedMessages(_)
            | Command::OfflineMessage(_)
            | Command::PurgeInbox(_)
            | Command::NoteDevice(_)
            | Command::SweepMessages(_)
            | Command::ChangeStreams(_)
            | Command::MakeStreamSecret(_)
            | Command::FinishRestore(_) => false,
        }
    }

    /// How much room there must be for it on the disk of a store that nobody else has a copy of.
    #[must_use]
    pub fn least_room(&self) -> Level {
        match self {
            command if command.takes_room() => Level::Enough,
            Command::DeleteAccount(_)
            | Command::DeletePrivate(_)
            | Command::RetractMessage(_)
            | Command::SettleMessages(_)
            | Command::ArrivedMessages(_)
            | Command::PurgeInbox(_)
            | Command::SweepMessages(_) => Level::Nothing,
            // The last of the reserve is for what makes room.
            _ => Level::Routes,
        }
    }

    /// Refuses what the store does not take. Asked before a command is ordered, never when it is applied:
    /// replicas of two releases may have other limits, and must still decide alike.
    ///
    /// # Errors
    /// [`StorageError::TooLarge`].
    pub fn check(&self) -> Result<(), StorageError> {
        match self {
            Command::PutPrivate(put) => check_row(&put.namespace, &put.key, &put.value),
            Command::PutPrivateWithin(PutPrivateWithin { row, .. }) => {
                check_row(&row.namespace, &row.key, &row.value)
            }
            Command::SealDocument(seal) => check_head(&seal.document, &seal.note, &seal.words, &seal.shown),
            Command::NoteLogouts(NoteLogouts { logouts }) => check_logouts(logouts),
            Command::ChangePrivacy(change) => check_privacy(&change.change),
            other => other.check_messages(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tagged::assert_golden;
    use super::*;
    use althing_proto::jid::Jid;
    use althing_proto::privacy::{Connected, Item, Kinds, SessionKey, Subject};
    use althing_proto::roster::Subscription;
    use althing_proto::roster::{Direction, SubscriptionEvent, SubscriptionKind};
    use althing_proto::sasl::ScramKeys;

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
        let mut samples = vec![
            (
                "0001036a4064fb0010010101020103fb0010010401050106fb001001070108010905",
                Command::CreateAccount(CreateAccount { user: user.clone(), account }),
            ),
            (
                "0002036a4064fb0010010101020103fb0010010401050106fb0010010701080109",
                Command::SetCredentials(SetCredentials { user: user.clone(), credentials }),
            ),
            (
                "0028036a40640105",
                Command::SetDisabled(SetDisabled {
                    user: user.clone(),
                    since: Some(Timestamp::from_millis(5)),
                }),
            ),
            ("0028036a406400", Command::SetDisabled(SetDisabled { user: user.clone(), since: None })),
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
            (
                "0014036a4064016e016b01760907",
                Command::PutPrivateWithin(PutPrivateWithin {
                    row: PutPrivate {
                        user: user.clone(),
                        namespace: namespace.clone(),
                        key: key.clone(),
                        value: b"v".to_vec(),
                    },
                    bound: RowBound { rows: 9, bytes: 7 },
                }),
            ),
            (
                "0015036a4064016e070302776f",
                Command::PutPart(PutPart {
                    user: user.clone(),
                    document: namespace.clone(),
                    upload: 7,
                    part: 3,
                    bytes: Bytes::from_static(b"wo"),
                }),
            ),
            (
                "0016036a4064016e0703017801790102017702737a",
                Command::SealDocument(SealDocument {
                    user: user.clone(),
                    document: namespace.clone(),
                    upload: 7,
                    parts: 3,
                    last: Bytes::from_static(b"x"),
                    note: Bytes::from_static(b"y"),
                    words: vec![Word { field: 2, text: "w".to_owned() }],
                    shown: Bytes::from_static(b"sz"),
                }),
            ),
            (
                "001701036a406405043c702f3e",
                Command::NoteLogouts(NoteLogouts {
                    logouts: vec![Logout {
                        user: user.clone(),
                        at: Timestamp::from_millis(5),
                        presence: Bytes::from_static(b"<p/>"),
                    }],
                }),
            ),
            (
                "0006036a4064016e016b",
                Command::DeletePrivate(DeletePrivate { user: user.clone(), namespace, key }),
            ),
        ];
        samples.extend(privacy_samples(&user));
        samples
    }

    fn privacy_samples(user: &BareJid) -> impl Iterator<Item = (&'static str, Command)> {
        let jid = || Jid::new("b@c/r").unwrap();
        let limits = PrivacyLimits { entries: 9, entry_bytes: 300, lists: 8, items: 7 };
        let key = |bind| SessionKey { start: 1, bind };
        let sessions = || Connected { own: key(2), others: vec![key(3)], latest: 300 };
        let rule = |order, subject, kinds| Item { order, subject, allow: order == 1, kinds };
        let rules = vec![
            rule(1, Subject::Any, Kinds::ALL),
            rule(300, Subject::Jid(jid()), Kinds::MESSAGE),
            rule(2, Subject::Group("g".to_owned()), Kinds::IQ.or(Kinds::PRESENCE_IN)),
            rule(3, Subject::Subscription(Subscription::Both), Kinds::PRESENCE_OUT),
        ];
        let name = || "n".to_owned();
        let user = user.clone();
        [
            ("001e036a40640001056240632f7209fb2c010807", PrivacyChange::Block(vec![jid()])),
            ("001e036a4064010009fb2c010807", PrivacyChange::Unblock(Vec::new())),
            (
                "001e036a406402016e040100011ffb2c0101056240632f720001020201670006030303000809fb2c010807",
                PrivacyChange::SetList { name: name(), rules },
            ),
            (
                "001e036a406403016e0102010103fb2c0109fb2c010807",
                PrivacyChange::RemoveList { name: name(), sessions: sessions() },
            ),
            (
                "001e036a40640401016e0102010103fb2c0109fb2c010807",
                PrivacyChange::SetDefault { name: Some(name()), sessions: sessions() },
            ),
            (
                "001e036a406405000102010103fb2c0109fb2c010807",
                PrivacyChange::SetActive { name: None, sessions: sessions() },
            ),
        ]
        .into_iter()
        .map(move |(golden, change)| {
            (golden, Command::ChangePrivacy(ChangePrivacy { owner: user.clone(), change, limits }))
        })
    }

    /// Nodes of two releases, and a log written by an older one, must read each other's commands.
    #[test]
    fn golden_bytes() {
        assert_golden!(Command, samples());
    }
}
