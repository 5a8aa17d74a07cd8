//! The part of the suite on documents, logouts, the directory, and what sessions begin with.

use althing_proto::jid::BareJid;
use althing_proto::privacy::PrivacyChange;
use althing_proto::time::Timestamp;
use bytes::Bytes;

use super::super::messages::{ArchiveDefault, ArchivePreferences};
use super::super::profile::{
    DocumentHead, LoginData, Logout, MAX_DOCUMENT_BYTES, MAX_LOGOUT_BYTES, MAX_NOTE_BYTES, NewDocument, Word,
};
use super::super::{PrivacyLimits, Storage, StorageError, WhichList};
use super::{account, change, jid, named, with_users};

fn document(byte: u8, size: usize) -> NewDocument {
    let content = (0..size).map(|at| byte.wrapping_add((at / 1_000) as u8)).collect::<Vec<_>>();
    NewDocument { content: content.into(), note: vec![byte].into(), ..NewDocument::default() }
}

fn word(field: u8, text: &str) -> Word {
    Word { field, text: text.to_owned() }
}

async fn found(storage: &Storage, word: &Word, begins: bool) -> Vec<(String, Bytes)> {
    let found = storage.directory.find("example.com", word, begins, 10).await.unwrap();
    found.into_iter().map(|(user, shown)| (user.to_string(), shown)).collect()
}

pub(super) async fn documents_are_replaced_as_a_whole(storage: Storage) {
    with_users(&storage).await;
    let juliet = jid("juliet@example.com");
    assert_eq!(storage.documents.load(&juliet, "a").await, Ok(None));
    // Several parts, one part, an empty one, several again.
    for (revision, size) in [(1, 300_000), (2, 100), (3, 0), (4, 48 << 10), (5, (48 << 10) + 1)] {
        let new = document(revision, size);
        assert_eq!(storage.documents.store(&juliet, "a", new.clone()).await, Ok(u64::from(revision)));
        let stored = storage.documents.load(&juliet, "a").await.unwrap().unwrap();
        assert_eq!(stored.head, DocumentHead { revision: u64::from(revision), note: new.note });
        assert!(stored.content == new.content, "{size}");
    }
    assert_eq!(storage.documents.store(&juliet, "ab", document(9, 9)).await, Ok(1), "another document");
    assert_eq!(storage.documents.load(&jid("romeo@example.com"), "a").await, Ok(None));
    assert_eq!(storage.documents.load(&juliet, "a").await.unwrap().unwrap().head.revision, 5);
}

pub(super) async fn documents_are_bounded(storage: Storage) {
    with_users(&storage).await;
    let juliet = jid("juliet@example.com");
    let large = document(1, MAX_DOCUMENT_BYTES);
    storage.documents.store(&juliet, "a", large.clone()).await.unwrap();
    let words = |count| (0..count).map(|number| word(number, "w")).collect::<Vec<_>>();
    for refused in [
        document(2, MAX_DOCUMENT_BYTES + 1),
        NewDocument { note: vec![0; MAX_NOTE_BYTES + 1].into(), ..NewDocument::default() },
        NewDocument { words: vec![word(1, &"w".repeat(MAX_NOTE_BYTES + 1))], ..NewDocument::default() },
        NewDocument { words: words(17), ..NewDocument::default() },
        NewDocument { shown: vec![0; 3_000].into(), ..NewDocument::default() },
    ] {
        let refused = storage.documents.store(&juliet, "a", refused).await;
        assert!(matches!(refused, Err(StorageError::TooLarge { .. })), "{refused:?}");
    }
    assert!(storage.documents.load(&juliet, "a").await.unwrap().unwrap().content == large.content);
    let nobody = jid("nobody@example.com");
    let refused = storage.documents.store(&nobody, "a", document(1, 100_000)).await;
    assert_eq!(refused, Err(StorageError::UnknownUser { user: nobody }));
}

/// Whoever reads while several store sees one of their documents, whole.
pub(super) async fn no_reader_sees_a_mixture_of_documents(storage: Storage) {
    with_users(&storage).await;
    let juliet = jid("juliet@example.com");
    storage.documents.store(&juliet, "a", document(1, 200_000)).await.unwrap();
    let writers: Vec<_> = (2..6_u8)
        .map(|byte| {
            let (storage, juliet) = (storage.clone(), juliet.clone());
            tokio::spawn(async move { storage.documents.store(&juliet, "a", document(byte, 200_000)).await })
        })
        .collect();
    loop {
        let done = writers.iter().all(tokio::task::JoinHandle::is_finished);
        let stored = storage.documents.load(&juliet, "a").await.unwrap().unwrap();
        assert!(stored.content == document(stored.head.note[0], 200_000).content, "{:?}", stored.head);
        if done {
            break;
        }
        tokio::task::yield_now().await;
    }
    let mut revisions = Vec::new();
    for writer in writers {
        match writer.await.unwrap() {
            Ok(revision) => revisions.push(revision),
            Err(error) => assert_eq!(error, StorageError::Busy),
        }
    }
    revisions.sort_unstable();
    let last = storage.documents.load(&juliet, "a").await.unwrap().unwrap().head.revision;
    assert_eq!(revisions, (2..=last).collect::<Vec<_>>(), "each that was stored has a revision of its own");
}

pub(super) async fn the_directory_follows_the_documents(storage: Storage) {
    with_users(&storage).await;
    let (juliet, romeo) = (jid("juliet@example.com"), jid("romeo@example.com"));
    let store = async |user: &BareJid, words: &[Word], shown: &'static str| {
        let new = NewDocument { words: words.to_vec(), shown: shown.into(), ..document(1, 1) };
        storage.documents.store(user, "a", new).await.unwrap();
    };
    store(&juliet, &[word(1, "capulet"), word(2, "jule")], "J").await;
    store(&romeo, &[word(1, "montague"), word(2, "capulet")], "R").await;
    let entry = |user: &BareJid, shown: &'static str| (user.to_string(), Bytes::from(shown));
    assert_eq!(found(&storage, &word(1, "capulet"), false).await, [entry(&juliet, "J")]);
    assert_eq!(found(&storage, &word(1, "capu"), false).await, []);
    assert_eq!(found(&storage, &word(1, "capu"), true).await, [entry(&juliet, "J")]);
    assert_eq!(found(&storage, &word(1, ""), true).await, [entry(&juliet, "J"), entry(&romeo, "R")]);
    assert_eq!(storage.directory.find("example.com", &word(1, ""), true, 1).await.unwrap().len(), 1);
    assert_eq!(storage.directory.find("example", &word(1, ""), true, 9).await, Ok(vec![]));

    store(&juliet, &[word(1, "montague")], "J2").await;
    assert_eq!(found(&storage, &word(1, "capulet"), false).await, []);
    assert_eq!(found(&storage, &word(2, "jule"), false).await, []);
    let both = [entry(&juliet, "J2"), entry(&romeo, "R")];
    assert_eq!(found(&storage, &word(1, "montague"), false).await, both);
    store(&romeo, &[], "R2").await;
    assert_eq!(found(&storage, &word(1, "montague"), false).await, [entry(&juliet, "J2")]);
}

pub(super) async fn logouts_only_become_later(storage: Storage) {
    with_users(&storage).await;
    let logout = |user: &str, at, presence: &'static str| Logout {
        user: jid(user),
        at: Timestamp::from_millis(at),
        presence: presence.into(),
    };
    let juliet = jid("juliet@example.com");
    assert_eq!(storage.logouts.last(&juliet).await, Ok(None));
    let first = [logout("juliet@example.com", 5, "<a/>"), logout("nobody@example.com", 5, "<a/>")];
    storage.logouts.note(first.to_vec()).await.unwrap();
    assert_eq!(storage.logouts.last(&juliet).await, Ok(Some(first[0].clone())));
    assert_eq!(storage.logouts.last(&jid("nobody@example.com")).await, Ok(None));
    let later = [logout("juliet@example.com", 9, "<b/>"), logout("juliet@example.com", 7, "<c/>")];
    storage.logouts.note(later.to_vec()).await.unwrap();
    assert_eq!(storage.logouts.last(&juliet).await, Ok(Some(later[0].clone())));
    let large = Logout { presence: vec![0; MAX_LOGOUT_BYTES].into(), ..later[0].clone() };
    let refused = storage.logouts.note(vec![large]).await;
    assert!(matches!(refused, Err(StorageError::TooLarge { .. })), "{refused:?}");
}

pub(super) async fn a_login_reads_all_at_once(storage: Storage) {
    with_users(&storage).await;
    let juliet = jid("juliet@example.com");
    let nobody = storage.logins.login(&jid("nobody@example.com"), &["a"]).await;
    assert_eq!(nobody, Ok(LoginData { documents: vec![None], ..LoginData::default() }));
    change(&storage, "juliet@example.com", "nurse@example.com", named("Nurse")).await.unwrap();
    storage.documents.store(&juliet, "b", document(3, 70_000)).await.unwrap();
    let block = PrivacyChange::Block(vec![jid("paris@example.com").into()]);
    let limits = PrivacyLimits { entries: 9, entry_bytes: 900, lists: 1, items: 1 };
    storage.privacy.change(&juliet, block, limits).await.unwrap().unwrap();
    let preferences = ArchivePreferences {
        default: ArchiveDefault::Roster,
        always: vec![jid("nurse@example.com").into()],
        never: Vec::new(),
    };
    storage.archive.set_preferences(&juliet, preferences.clone()).await.unwrap();
    let expected = LoginData {
        account: true,
        roster: storage.rosters.load(&juliet).await.unwrap(),
        documents: vec![None, Some(DocumentHead { revision: 1, note: vec![3].into() })],
        privacy: storage.privacy.load(&juliet, WhichList::Default).await.unwrap(),
        archive: Some(preferences),
    };
    assert_eq!(expected.privacy.list.as_ref().unwrap().entries.len(), 1);
    assert_eq!(storage.logins.login(&juliet, &["a", "b"]).await, Ok(expected));
}

pub(super) async fn deletion_takes_documents_and_logouts(storage: Storage) {
    with_users(&storage).await;
    let juliet = jid("juliet@example.com");
    let new = NewDocument { words: vec![word(1, "capulet")], ..document(1, 100_000) };
    storage.documents.store(&juliet, "a", new).await.unwrap();
    storage.documents.store(&juliet, "b", document(1, 1)).await.unwrap();
    let logout = Logout { user: juliet.clone(), at: Timestamp::from_millis(5), presence: Bytes::new() };
    storage.logouts.note(vec![logout]).await.unwrap();
    assert_eq!(storage.accounts.delete(&juliet).await, Ok(true));
    assert_eq!(storage.accounts.create(&juliet, account(7)).await, Ok(true));
    assert_eq!(storage.documents.load(&juliet, "a").await, Ok(None));
    assert_eq!(found(&storage, &word(1, "capulet"), false).await, []);
    assert_eq!(storage.logouts.last(&juliet).await, Ok(None));
    let roster = storage.rosters.load(&juliet).await.unwrap();
    let fresh = LoginData { account: true, roster, documents: vec![None], ..LoginData::default() };
    assert_eq!(storage.logins.login(&juliet, &["b"]).await, Ok(fresh));
    assert_eq!(storage.documents.store(&juliet, "a", document(1, 1)).await, Ok(1), "the count begins anew");
}
