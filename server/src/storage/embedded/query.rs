//! Everything that can be read from the embedded store, and what is answered, as values with a form on the wire
//! that lasts (`tagged.rs`): what a node without a replica asks one that has it.

use althing_proto::jid::{BareJid, Jid};
use althing_proto::privacy::Lists;
use althing_proto::roster::RosterItem;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::super::messages::{
    ArchiveEnds, ArchivePage, ArchivePreferences, Due, InboxEntry, InboxMessage, InboxSummary,
    UnknownStanzaId,
};
use super::super::profile::{Document, LoginData, Logout, Word};
use super::super::streams::StreamRecord;
use super::super::{Account, Judgement, Roster, RosterNews, Standing, WhichList};
use super::fault::Fault;
use super::messages;
use super::messages::command::{FindDue, GetInboxMessage, ListInbox, OfUser, ReadArchive, ReadInbox};
use super::rows::Rows;
use super::streams::{GetStream, ListStreams};
use super::tagged::tagged;

/// Most users of one [`Answer::Users`].
const USERS_PER_PAGE: usize = 10_000;

/// Most rows of one [`Answer::PrivateRows`]: with the largest keys and values they stay far below what one
/// frame between nodes carries.
const ROWS_PER_PAGE: usize = 64;

/// Most entries of one [`Answer::Found`]: with the largest ones they fit into a frame between nodes.
const FOUND: usize = 1_000;

/// [`Query::GetAccount`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetAccount {
    /// Whose account.
    pub user: BareJid,
}

/// [`Query::ListAccounts`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListAccounts {
    /// Of which domain.
    pub domain: String,
    /// The user before the first one that is wanted.
    pub after: Option<BareJid>,
    /// Most users wanted.
    pub limit: u64,
}

/// [`Query::LoadRoster`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadRoster {
    /// Whose roster.
    pub owner: BareJid,
}

/// [`Query::GetRosterItem`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetRosterItem {
    /// Whose roster.
    pub owner: BareJid,
    /// Which item.
    pub contact: BareJid,
}

/// [`Query::GetPrivate`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetPrivate {
    /// Whose row.
    pub user: BareJid,
    /// The module's namespace.
    pub namespace: String,
    /// The row's key.
    pub key: String,
}

/// [`Query::ListPrivate`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListPrivate {
    /// Whose rows.
    pub user: BareJid,
    /// The module's namespace.
    pub namespace: String,
    /// The key before the first one that is wanted.
    pub after: Option<String>,
    /// Most rows wanted.
    pub limit: u64,
}

/// [`Query::GetRosterNews`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetRosterNews {
    /// Whose roster.
    pub owner: BareJid,
    /// The version that is known.
    pub version: u64,
    /// Most changed contacts; above it the whole roster is wanted.
    pub most: u32,
}

/// [`Query::LoadDocument`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadDocument {
    /// Whose document.
    pub user: BareJid,
    /// Its name.
    pub document: String,
}

/// [`Query::Find`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Find {
    /// Users of which domain.
    pub domain: String,
    /// The word.
    pub word: Word,
    /// Whether longer words that begin with it are wanted too.
    pub begins: bool,
    /// Most entries wanted.
    pub limit: u64,
}

/// [`Query::GetLogout`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetLogout {
    /// Whose.
    pub user: BareJid,
}

/// [`Query::Login`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    /// Whose session begins.
    pub user: BareJid,
    /// The documents whose heads are wanted.
    pub documents: Vec<String>,
}

/// [`Query::LoadPrivacy`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadPrivacy {
    /// Whose lists.
    pub owner: BareJid,
    /// With which list.
    pub which: WhichList,
}

/// [`Query::GetStanding`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetStanding {
    /// Whose account.
    pub user: BareJid,
}

/// [`Query::ListDisabled`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListDisabled {
    /// Which of the disabled users.
    pub list: ListAccounts,
}

/// [`Query::JudgePeer`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JudgePeer {
    /// Whose lists.
    pub owner: BareJid,
    /// Who writes.
    pub peer: Jid,
}

/// Rows in order, perhaps fewer than were asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// Whether the page is full before the asker's limit is: the rest is to be asked for after its last row.
    pub more: bool,
}

tagged! {
    /// A read of the store.
    enum Query {
        /// One account. Answer: [`Answer::Account`].
        1 GetAccount(GetAccount), since 1;
        /// Users of a domain. Answer: [`Answer::Users`].
        2 ListAccounts(ListAccounts), since 1;
        /// A whole roster. Answer: [`Answer::Roster`].
        3 LoadRoster(LoadRoster), since 1;
        /// One item of a roster. Answer: [`Answer::RosterItem`].
        4 GetRosterItem(GetRosterItem), since 1;
        /// One row of a module. Answer: [`Answer::PrivateRow`].
        5 GetPrivate(GetPrivate), since 1;
        /// Rows of a module. Answer: [`Answer::PrivateRows`].
        6 ListPrivate(ListPrivate), since 1;
        /// What is new in a roster. Answer: [`Answer::RosterNews`].
        7 GetRosterNews(GetRosterNews), since 1;
        /// A document. Answer: [`Answer::Document`].
        20 LoadDocument(LoadDocument), since 1;
        /// Users by a word. Answer: [`Answer::Found`].
        21 Find(Find), since 1;
        /// The last logout of a user. Answer: [`Answer::Logout`].
        22 GetLogout(GetLogout), since 1;
        /// All that a session begins with. Answer: [`Answer::Login`].
        23 Login(Login), since 1;
        /// Privacy lists. Answer: [`Answer::Privacy`].
        30 LoadPrivacy(LoadPrivacy), since 1;
        /// What the default list says of one peer. Answer: [`Answer::Judgement`].
        31 JudgePeer(JudgePeer), since 1;
        /// One account and how it stands. Answer: [`Answer::Standing`].
        40 GetStanding(GetStanding), since 1;
        /// Disabled users of a domain. Answer: [`Answer::Disabled`].
        41 ListDisabled(ListDisabled), since 1;
        /// Waiting messages by their numbers. Answer: [`Answer::InboxMessages`].
        50 ReadInbox(ReadInbox), since 1;
        /// Entries of an inbox. Answer: [`Answer::InboxEntries`].
        51 ListInbox(ListInbox), since 1;
        /// A waiting message by its id. Answer: [`Answer::InboxMessage`].
        52 GetInboxMessage(GetInboxMessage), since 1;
        /// How much waits. Answer: [`Answer::InboxSummary`].
        53 GetInboxSummary(OfUser), since 1;
        /// A page of an archive. Answer: [`Answer::ArchivePage`].
        54 ReadArchive(ReadArchive), since 1;
        /// First and last message of an archive. Answer: [`Answer::ArchiveEnds`].
        55 GetArchiveEnds(OfUser), since 1;
        /// What a user has set for the archive. Answer: [`Answer::ArchivePreferences`].
        56 GetArchivePreferences(OfUser), since 1;
        /// Users of whom something has to go. Answer: [`Answer::Due`].
        57 FindDue(FindDue), since 1;
        /// The record of a stream. Answer: [`Answer::Stream`].
        80 GetStream(GetStream), since 1;
        /// Records of streams. Answer: [`Answer::Streams`].
        81 ListStreams(ListStreams), since 1;
    }
}

tagged! {
    /// What a read found. Its numbers are those of the queries.
    enum Answer {
        /// The account, if there is one.
        1 Account(Option<Account>), since 1;
        /// Users.
        2 Users(Page<BareJid>), since 1;
        /// The roster.
        3 Roster(Roster), since 1;
        /// The item, if there is one.
        4 RosterItem(Option<RosterItem>), since 1;
        /// The value, if there is one.
        5 PrivateRow(Option<Vec<u8>>), since 1;
        /// Keys and values.
        6 PrivateRows(Page<(String, Vec<u8>)>), since 1;
        /// What is new.
        7 RosterNews(RosterNews), since 1;
        /// The document, if there is one.
        20 Document(Option<Document>), since 1;
        /// Users and what the directory shows of them.
        21 Found(Vec<(BareJid, Bytes)>), since 1;
        /// The logout, if one was noted.
        22 Logout(Option<Logout>), since 1;
        /// All that a session begins with.
        23 Login(LoginData), since 1;
        /// The lists.
        30 Privacy(Lists), since 1;
        /// What the list says.
        31 Judgement(Judgement), since 1;
        /// The account and how it stands, if there is one.
        40 Standing(Option<Standing>), since 1;
        /// Disabled users.
        41 Disabled(Page<BareJid>), since 1;
        /// The messages that are there, in the order of the question.
        50 InboxMessages(Vec<InboxMessage>), since 1;
        /// The entries.
        51 InboxEntries(Vec<InboxEntry>), since 1;
        /// The message, if it waits.
        52 InboxMessage(Option<InboxMessage>), since 1;
        /// How much waits.
        53 InboxSummary(InboxSummary), since 1;
        /// The page, or which message of the question is not there.
        54 ArchivePage(Result<ArchivePage, UnknownStanzaId>), since 1;
        /// First and last message; none of an empty archive.
        55 ArchiveEnds(Option<ArchiveEnds>), since 1;
        /// The preferences, if there are any.
        56 ArchivePreferences(Option<ArchivePreferences>), since 1;
        /// Some of the users.
        57 Due(Due), since 1;
        /// The record, if there is one.
        80 Stream(Option<StreamRecord>), since 1;
        /// Records.
        81 Streams(Vec<StreamRecord>), since 1;
    }
}

/// Answers `query` from `rows`.
pub(super) fn answer(rows: &Rows, query: Query) -> Result<Answer, Fault> {
    Ok(match query {
        Query::GetAccount(get) => Answer::Account(rows.account(&get.user)?),
        Query::ListAccounts(list) => Answer::Users(page(list.limit, USERS_PER_PAGE, |limit| {
            rows.accounts(&list.domain, list.after.as_ref(), limit)
        })?),
        Query::LoadRoster(load) => Answer::Roster(rows.roster(&load.owner)?),
        Query::GetRosterItem(get) => Answer::RosterItem(rows.roster_item(&get.owner, &get.contact)?),
        Query::GetRosterNews(get) => {
            Answer::RosterNews(rows.roster_since(&get.owner, get.version, get.most)?)
        }
        Query::GetPrivate(get) => Answer::PrivateRow(rows.private(&get.user, &get.namespace, &get.key)?),
        Query::ListPrivate(list) => Answer::PrivateRows(page(list.limit, ROWS_PER_PAGE, |limit| {
            rows.private_rows(&list.user, &list.namespace, list.after.as_deref(), limit)
        })?),
        Query::LoadDocument(load) => Answer::Document(rows.document(&load.user, &load.document)?),
        Query::Find(find) => {
            let limit = usize::try_from(find.limit).unwrap_or(usize::MAX).min(FOUND);
            Answer::Found(rows.find(&find.domain, &find.word, find.begins, limit)?)
        }
        Query::GetLogout(get) => Answer::Logout(rows.logout(&get.user)?),
        Query::Login(login) => {
            Answer::Login(rows.login(&login.user, login.documents.iter().map(String::as_str))?)
        }
        Query::LoadPrivacy(load) => Answer::Privacy(rows.privacy(&load.owner, &load.which)?),
        Query::JudgePeer(judge) => Answer::Judgement(rows.judge(&judge.owner, &judge.peer)?),
        Query::GetStanding(get) => Answer::Standing(rows.standing(&get.user)?),
        Query::ListDisabled(ListDisabled { list }) => {
            Answer::Disabled(page(list.limit, USERS_PER_PAGE, |limit| {
                rows.disabled(&list.domain, list.after.as_ref(), limit)
            })?)
        }
        query @ (Query::ReadInbox(_)
        | Query::ListInbox(_)
        | Query::GetInboxMessage(_)
        | Query::GetInboxSummary(_)
        | Query::ReadArchive(_)
        | Query::GetArchiveEnds(_)
        | Query::GetArchivePreferences(_)
        | Query::FindDue(_)) => return messages::answer(rows, query),
        Query::GetStream(get) => Answer::Stream(rows.stream(&get.jid)?),
        Query::ListStreams(list) => Answer::Streams(rows.streams(list.after.as_ref(), list.limit)?),
    })
}

/// Reads at most `most` rows of the `wanted` ones.
fn page<T>(
    wanted: u64,
    most: usize,
    read: impl FnOnce(usize) -> Result<Vec<T>, Fault>,
) -> Result<Page<T>, Fault> {
    let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
    let rows = read(wanted.min(most))?;
    Ok(Page { more: rows.len() == most && wanted > most, rows })
}

#[cfg(test)]
mod tests {
    use althing_proto::privacy::{Entry, Item, Kinds, List, ListHead, Subject};
    use althing_proto::sasl::{Credentials, ScramKeys};
    use althing_proto::time::Timestamp;

    use super::super::super::ItemChange;
    use super::super::super::profile::DocumentHead;

    use super::super::tagged::assert_golden;
    use super::*;

    fn jid() -> BareJid {
        BareJid::new("j@d").unwrap()
    }

    #[test]
    fn golden_bytes_of_queries() {
        let (namespace, key) = (|| "n".to_owned(), || "k".to_owned());
        let list = ListAccounts { domain: "d".to_owned(), after: Some(jid()), limit: 3 };
        let rows = ListPrivate { user: jid(), namespace: namespace(), after: Some(key()), limit: 300 };
        let row = GetPrivate { user: jid(), namespace: namespace(), key: key() };
        let privacy = |which| Query::LoadPrivacy(LoadPrivacy { owner: jid(), which });
        let samples = [
            ("0001036a4064", Query::GetAccount(GetAccount { user: jid() })),
            ("0028036a4064", Query::GetStanding(GetStanding { user: jid() })),
            ("0029016401036a406403", Query::ListDisabled(ListDisabled { list: list.clone() })),
            ("0002016401036a406403", Query::ListAccounts(list)),
            ("0003036a4064", Query::LoadRoster(LoadRoster { owner: jid() })),
            ("0004036a4064036a4064", Query::GetRosterItem(GetRosterItem { owner: jid(), contact: jid() })),
            ("0005036a4064016e016b", Query::GetPrivate(row)),
            ("0006036a4064016e01016bfb2c01", Query::ListPrivate(rows)),
            ("0007036a40640907", Query::GetRosterNews(GetRosterNews { owner: jid(), version: 9, most: 7 })),
            ("0014036a4064016e", Query::LoadDocument(LoadDocument { user: jid(), document: namespace() })),
            ("0015016402016b0109", {
                let word = Word { field: 2, text: key() };
                Query::Find(Find { domain: "d".to_owned(), word, begins: true, limit: 9 })
            }),
            ("0016036a4064", Query::GetLogout(GetLogout { user: jid() })),
            ("0017036a406401016e", Query::Login(Login { user: jid(), documents: vec![namespace()] })),
            ("001e036a406400", privacy(WhichList::None)),
            ("001e036a406401", privacy(WhichList::Default)),
            ("001e036a406402fb2c01", privacy(WhichList::Applied(300))),
            ("001e036a406403016e", privacy(WhichList::Named(namespace()))),
            ("001f036a4064036a4064", Query::JudgePeer(JudgePeer { owner: jid(), peer: jid().into() })),
        ];
        assert_golden!(Query, samples);
    }

    #[test]
    fn golden_bytes_of_answers() {
        let keys =
            |byte| ScramKeys { iterations: 1, salt: vec![byte], stored_key: vec![2], server_key: vec![3] };
        let credentials = Credentials { sha1: keys(1), sha256: keys(4), sha512: keys(7) };
        let account = Account { credentials, created: Timestamp::from_millis(5) };
        let item = RosterItem::new(jid());
        let roster = Roster { version: 9, items: vec![item.clone()] };
        let gone = ItemChange { version: 9, contact: jid(), item: None };
        let news = RosterNews::Changes { version: 10, changes: vec![gone] };
        let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
        let head = DocumentHead { revision: 7, note: bytes("n") };
        let document = Document { head: head.clone(), content: bytes("c") };
        let logout = Logout { user: jid(), at: Timestamp::from_millis(5), presence: bytes("p") };
        let list = List {
            number: 2,
            entries: vec![Entry { jid: jid().into(), order: Some(7) }],
            items: vec![Item { order: 9, subject: Subject::Any, allow: false, kinds: Kinds::ALL }],
        };
        let list_head = ListHead { number: 2, name: "n".to_owned(), changed: 8, entries: 5, bytes: 3 };
        let lists = Lists { version: 9, default: Some(2), heads: vec![list_head], list: Some(list) };
        let login = LoginData {
            account: true,
            roster: roster.clone(),
            documents: vec![None, Some(head)],
            privacy: lists.clone(),
            archive: None,
        };
        let judged = Judgement { item: None, denied: Kinds::MESSAGE.or(Kinds::PRESENCE_OUT) };
        let standing = Standing { account: account.clone(), disabled: Some(Timestamp::from_millis(9)) };
        let samples = [
            ("00140107016e0163", Answer::Document(Some(document))),
            ("001501036a40640173", Answer::Found(vec![(jid(), bytes("s"))])),
            ("001601036a4064050170", Answer::Logout(Some(logout))),
            (
                "0017010901036a40640000000000000102000107016e0901020102016e080503010201036a40640107010900001f00",
                Answer::Login(login),
            ),
            ("000100", Answer::Account(None)),
            ("00010101010101020103010104010201030101070102010305", Answer::Account(Some(account))),
            ("002801010101010201030101040102010301010701020103050109", Answer::Standing(Some(standing))),
            ("002901036a406401", Answer::Disabled(Page { rows: vec![jid()], more: true })),
            ("000201036a406401", Answer::Users(Page { rows: vec![jid()], more: true })),
            ("00030901036a406400000000000001", Answer::Roster(roster)),
            ("000401036a406400000000000001", Answer::RosterItem(Some(item))),
            ("0005010176", Answer::PrivateRow(Some(b"v".to_vec()))),
            ("000601016b017600", {
                Answer::PrivateRows(Page { rows: vec![("k".to_owned(), b"v".to_vec())], more: false })
            }),
            ("0007000a0109036a406400", Answer::RosterNews(news)),
            ("001e0901020102016e080503010201036a40640107010900001f", Answer::Privacy(lists)),
            ("001f0009", Answer::Judgement(judged)),
        ];
        assert_golden!(Answer, samples);
    }

    #[test]
    fn a_page_says_whether_the_rest_is_to_be_asked_for() {
        let read = |wanted, stored: usize| page(wanted, 3, |limit| Ok(vec![(); stored.min(limit)])).unwrap();
        assert_eq!((read(2, 9).rows.len(), read(2, 9).more), (2, false));
        assert_eq!((read(3, 9).rows.len(), read(3, 9).more), (3, false));
        assert_eq!((read(u64::MAX, 9).rows.len(), read(u64::MAX, 9).more), (3, true));
        assert_eq!((read(9, 2).rows.len(), read(9, 2).more), (2, false));
    }
}
