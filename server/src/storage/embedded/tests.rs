//! What only a store on disk can get wrong: restarts, kills, damage, other formats, other processes.

use std::path::Path;

use althing_proto::time::Timestamp;

use super::super::conformance::{account, change, jid, named};
use super::super::{Accounts as _, Engine as _, Roster, Storage, StorageError};
use super::apply::DELETIONS_PER_BATCH;
use super::{Embedded, EmbeddedOptions, keys};

const OPTIONS: EmbeddedOptions =
    EmbeddedOptions { cache_bytes: 8 << 20, readers: 1, queue: 1_024, reserve_bytes: 0 };

fn open(dir: &Path) -> Result<Storage, StorageError> {
    Storage::open_embedded(dir, OPTIONS)
}

fn failure(dir: &Path) -> StorageError {
    open(dir).err().expect("the store must not open")
}

/// Opens the files of a closed store by sled itself.
pub(super) fn with_sled(dir: &Path, change: impl FnOnce(&sled::Db, &sled::Tree)) {
    althing_cluster::durable::await_release(&dir.join(keys::DIRECTORY).join(keys::DATABASE_FILE)).unwrap();
    let db = sled::Config::new().path(dir.join(keys::DIRECTORY)).flush_every_ms(None).open().unwrap();
    let tree = db.open_tree(keys::TREE).unwrap();
    change(&db, &tree);
    db.flush().unwrap();
}

/// Fills a store: an account, two items of its roster, a private row.
async fn fill(storage: &Storage) -> Roster {
    let juliet = jid("juliet@example.com");
    storage.accounts.create(&juliet, account(1)).await.unwrap();
    change(storage, "juliet@example.com", "nurse@example.com", named("Nurse")).await.unwrap();
    change(storage, "juliet@example.com", "romeo@example.net", named("Romeo")).await.unwrap();
    storage.private.put(&juliet, "urn:a", "k", vec![7]).await.unwrap();
    storage.rosters.load(&juliet).await.unwrap()
}

async fn assert_filled(storage: &Storage, roster: &Roster) {
    let juliet = jid("juliet@example.com");
    assert_eq!(storage.accounts.get(&juliet).await, Ok(Some(account(1))));
    assert_eq!(storage.rosters.load(&juliet).await.as_ref(), Ok(roster));
    assert_eq!(storage.private.get(&juliet, "urn:a", "k").await, Ok(Some(vec![7])));
}

#[tokio::test]
async fn a_restart_finds_everything() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path()).unwrap();
    let roster = fill(&storage).await;
    storage.close().await.unwrap();

    let storage = open(dir.path()).unwrap();
    assert_filled(&storage, &roster).await;
    let next = change(&storage, "juliet@example.com", "tybalt@example.com", named("T")).await.unwrap();
    assert_eq!(next.version, roster.version + 1);
    assert!(storage.engine.size_on_disk().await.unwrap() > 0);
}

/// The files as they are at the moment of the answer are what a killed process leaves behind.
#[tokio::test]
async fn what_was_answered_survives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path()).unwrap();
    let roster = fill(&storage).await;

    let left = tempfile::tempdir().unwrap();
    std::fs::create_dir(left.path().join(keys::DIRECTORY)).unwrap();
    for entry in std::fs::read_dir(dir.path().join(keys::DIRECTORY)).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), left.path().join(keys::DIRECTORY).join(entry.file_name())).unwrap();
        }
    }
    std::fs::copy(dir.path().join(keys::LOCK_FILE), left.path().join(keys::LOCK_FILE)).unwrap();
    drop(storage);
    assert_filled(&open(left.path()).unwrap(), &roster).await;
}

#[tokio::test]
async fn only_the_owner_may_look_into_the_store() {
    use std::os::unix::fs::PermissionsExt;

    let dir = tempfile::tempdir().unwrap();
    let _storage = open(dir.path()).unwrap();
    let mode = std::fs::metadata(dir.path().join(keys::DIRECTORY)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[tokio::test]
async fn a_second_process_is_kept_out() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path()).unwrap();
    let path = dir.path().join(keys::DIRECTORY);
    assert_eq!(failure(dir.path()), StorageError::Locked { path });
    storage.close().await.unwrap();
    assert!(open(dir.path()).is_ok(), "a closed store lets go of its directory");
}

#[tokio::test]
async fn another_format_is_refused_untouched() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).unwrap().close().await.unwrap();
    with_sled(dir.path(), |db, _| drop(db.insert(keys::FORMAT, &7_u32.to_be_bytes()).unwrap()));
    let path = dir.path().join(keys::DIRECTORY);
    let refused = StorageError::WrongVersion { path, found: 7, expected: keys::FORMAT_VERSION };
    assert_eq!(failure(dir.path()), refused);
    assert_eq!(failure(dir.path()), refused);
}

#[tokio::test]
async fn damaged_files_are_reported() {
    for name in ["db", "conf"] {
        let dir = tempfile::tempdir().unwrap();
        let storage = open(dir.path()).unwrap();
        fill(&storage).await;
        storage.close().await.unwrap();
        let file = dir.path().join(keys::DIRECTORY).join(name);
        let size = std::fs::metadata(&file).unwrap().len();
        std::fs::write(&file, vec![0xa5; usize::try_from(size).unwrap()]).unwrap();
        let error = failure(dir.path());
        assert!(matches!(error, StorageError::Corrupt { .. }), "{name}: {error}");
        assert!(error.to_string().contains(dir.path().to_str().unwrap()), "{error}");
    }
}

#[tokio::test]
async fn an_emptied_store_is_not_taken_for_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path()).unwrap();
    fill(&storage).await;
    storage.close().await.unwrap();
    std::fs::remove_dir_all(dir.path().join(keys::DIRECTORY)).unwrap();
    assert!(matches!(failure(dir.path()), StorageError::Corrupt { .. }));
}

#[tokio::test]
async fn a_damaged_row_hurts_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path()).unwrap();
    let romeo = jid("romeo@example.net");
    fill(&storage).await;
    storage.accounts.create(&romeo, account(2)).await.unwrap();
    storage.close().await.unwrap();
    with_sled(dir.path(), |_, tree| drop(tree.insert(keys::account(&romeo), b"\xff\xff").unwrap()));

    let storage = open(dir.path()).unwrap();
    let error = storage.accounts.get(&romeo).await.unwrap_err();
    assert!(matches!(&error, StorageError::Corrupt { what, .. } if what.contains("romeo")), "{error}");
    let error = storage.accounts.set_credentials(&romeo, account(3).credentials).await.unwrap_err();
    assert!(matches!(error, StorageError::Corrupt { .. }), "{error}");
    assert_eq!(storage.accounts.get(&jid("juliet@example.com")).await, Ok(Some(account(1))));
    assert_eq!(storage.accounts.create(&jid("new@example.com"), account(4)).await, Ok(true));
    assert_eq!(storage.engine.failure(), None);
}

#[tokio::test]
async fn an_interrupted_deletion_ends_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path()).unwrap();
    let roster = fill(&storage).await;
    storage.close().await.unwrap();
    let romeo = jid("romeo@example.net");
    with_sled(dir.path(), |_, tree| {
        for number in 0..DELETIONS_PER_BATCH + 1 {
            tree.insert(keys::private(&romeo, "urn:a", &number.to_string()), b"old").unwrap();
        }
        tree.insert(keys::deletion(&romeo), b"").unwrap();
    });

    let storage = open(dir.path()).unwrap();
    storage.accounts.create(&romeo, account(2)).await.unwrap();
    assert_eq!(storage.private.list(&romeo, "urn:a", None, 10).await, Ok(vec![]));
    assert_filled(&storage, &roster).await;
}

#[tokio::test]
async fn a_full_queue_refuses_and_what_it_took_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let options = EmbeddedOptions { queue: 1, ..OPTIONS };
    let store = Embedded::open(dir.path(), options).unwrap();
    let users: Vec<_> = (0..1_000).map(|number| jid(&format!("u{number}@example.com"))).collect();
    let results =
        futures_util::future::join_all(users.iter().map(|user| store.create(user, account(1)))).await;
    let mut taken = Vec::new();
    for (user, result) in users.iter().zip(results) {
        match result {
            Ok(true) => taken.push(user.clone()),
            other => assert_eq!(other, Err(StorageError::Busy)),
        }
    }
    assert!(!taken.is_empty() && taken.len() < users.len());
    // As they are listed: `u7` before `u760`, though `u7@` comes after `u760@`.
    taken.sort_by(|one, other| one.node().cmp(&other.node()));
    assert_eq!(store.list("example.com", None, usize::MAX).await, Ok(taken));
    assert_eq!(store.failure(), None);
}

/// The last of the reserve is for what makes room: a write that the system refuses would be the end of the store.
#[tokio::test]
async fn on_a_full_disk_only_what_makes_room_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let juliet = jid("juliet@example.com");
    let storage = open(dir.path()).unwrap();
    let roster = fill(&storage).await;
    storage.close().await.unwrap();
    // More than any disk has.
    let options = EmbeddedOptions { reserve_bytes: u64::MAX, ..OPTIONS };
    let storage = Storage::open_embedded(dir.path(), options).unwrap();
    let since = Some(Timestamp::from_millis(5));
    assert_eq!(storage.accounts.set_disabled(&juliet, since).await, Ok(true), "nobody has looked");
    assert!(storage.engine.room().await.unwrap().unwrap().is_low);
    let refused = storage.accounts.set_disabled(&juliet, None).await;
    assert!(matches!(refused, Err(StorageError::NoRoom { .. })), "{refused:?}");
    assert_eq!(storage.private.delete(&juliet, "urn:a", "k").await, Ok(true));
    storage.close().await.unwrap();
    // Nothing is to be mended when there is room again.
    let storage = open(dir.path()).unwrap();
    assert_eq!(storage.rosters.load(&juliet).await, Ok(roster));
    assert_eq!(storage.accounts.set_disabled(&juliet, None).await, Ok(true));
}
