//! One suite for every place of storage.

mod archive;
mod deletion;
mod disabled;
pub(super) mod messages;
mod privacy;
mod private;
mod profile;
mod rosters;
pub(super) mod streams;

use std::collections::BTreeSet;
use std::sync::Arc;

use althing_proto::jid::BareJid;
use althing_proto::roster::{Direction, RosterChange, RosterError, SubscriptionEvent, SubscriptionKind};
use althing_proto::sasl::{Credentials, ScramKeys};
use althing_proto::time::Timestamp;

use archive::{
    a_retraction_leaves_a_tombstone, an_archive_finds_what_its_owner_has_named,
    an_archive_is_asked_by_peer_time_and_id, an_archive_is_paged_both_ways,
    archives_keep_what_their_owners_want, large_pages_end_early, what_is_not_archived_is_not_found_there,
};
use deletion::deletion_ends_the_subscriptions_with_others;
use disabled::{disabled_users_are_listed_in_pages, who_is_disabled_keeps_everything};
use messages::{
    a_long_inbox_is_taken_by_pages, an_inbox_is_purged, messages_are_bounded, messages_go_with_the_account,
    r2_r6_what_waits_is_taken_in_order_and_goes_when_it_has_arrived,
    r5_a_message_is_kept_once_for_all_its_owners, r18_r23_a_full_inbox_has_room_for_who_is_there,
    r19_a_full_inbox_takes_nothing, r22_what_is_kept_for_too_long_goes, r23_each_device_gets_what_waits,
    the_sweep_looks_at_some_users_at_a_time, what_arrives_early_is_told_apart,
    what_is_not_wanted_is_not_kept, what_is_pending_for_the_living_is_left_alone,
};
use privacy::{
    a_list_that_others_use_stays, blocks_at_the_same_time_lose_nothing, blocks_come_and_go,
    privacy_lists_are_bounded, privacy_lists_go_with_the_account, rules_may_ask_for_the_roster,
    the_block_list_is_a_part_of_the_default_list,
};

use private::{
    private_rows_are_apart, private_rows_are_bounded, private_rows_are_listed_in_pages,
    private_rows_stay_within_a_bound,
};

use rosters::{
    a_client_learns_what_it_has_missed, an_account_made_again_repeats_no_version, rosters_are_bounded,
    rosters_keep_what_is_set, the_version_grows_with_what_clients_see,
};

use streams::{
    a_record_is_not_taken_for_gone_by_an_old_bind, a_record_is_of_the_last_stream_and_its_number_only_grows,
    r1_a_message_advances_the_stream_that_it_came_by, r1_no_number_covers_what_was_refused,
    r1_nothing_more_of_a_closed_stream_is_kept, r1_what_was_settled_is_not_kept_anew_in_its_place,
    records_are_listed_in_pages_and_go_with_the_account, records_go_when_nobody_comes_for_them,
    the_secret_of_streams_is_made_once,
};

use super::replicated::fake;
use super::{Account, Changed, Roster, RosterLimits, RosterNews, Storage, StorageError};

const LIMITS: RosterLimits = RosterLimits { items: 200, requests: 5 };

pub(super) fn jid(text: &str) -> BareJid {
    BareJid::new(text).unwrap()
}

/// An account that differs from those of other seeds.
pub(super) fn account(seed: u8) -> Account {
    let keys = |byte: u8| ScramKeys {
        iterations: 4096,
        salt: vec![byte; 16],
        stored_key: vec![byte; 32],
        server_key: vec![!byte; 32],
    };
    let credentials = Credentials { sha1: keys(seed), sha256: keys(seed ^ 0x55), sha512: keys(seed ^ 0xaa) };
    Account { credentials, created: Timestamp::from_millis(u64::from(seed)) }
}

pub(super) fn named(name: &str) -> RosterChange {
    RosterChange::Set { name: Some(name.to_owned()), groups: vec!["Friends".to_owned()] }
}

pub(super) fn stanza(direction: Direction, kind: SubscriptionKind) -> RosterChange {
    RosterChange::Subscription(SubscriptionEvent { direction, kind, request: None })
}

pub(super) async fn change(
    storage: &Storage,
    owner: &str,
    contact: &str,
    change: RosterChange,
) -> Result<Changed, RosterError> {
    storage.rosters.change(&jid(owner), &jid(contact), change, LIMITS).await.unwrap()
}

/// A storage in which juliet and romeo have accounts.
pub(super) async fn with_users(storage: &Storage) {
    for (seed, user) in ["juliet@example.com", "romeo@example.com"].into_iter().enumerate() {
        let account = account(u8::try_from(seed).unwrap());
        assert!(storage.accounts.create(&jid(user), account).await.unwrap());
    }
}

async fn accounts_come_and_go(storage: Storage) {
    let (accounts, juliet) = (&storage.accounts, jid("juliet@example.com"));
    assert_eq!(accounts.get(&juliet).await, Ok(None));
    assert_eq!(accounts.set_credentials(&juliet, account(9).credentials).await, Ok(false));
    assert_eq!(accounts.delete(&juliet).await, Ok(false));

    assert_eq!(accounts.create(&juliet, account(1)).await, Ok(true));
    assert_eq!(accounts.create(&juliet, account(2)).await, Ok(false));
    assert_eq!(accounts.get(&juliet).await, Ok(Some(account(1))), "the first account stays");
    assert_eq!(accounts.get(&jid("julie@example.com")).await, Ok(None));

    assert_eq!(accounts.set_credentials(&juliet, account(3).credentials).await, Ok(true));
    let expected = Account { created: account(1).created, ..account(3) };
    assert_eq!(accounts.get(&juliet).await, Ok(Some(expected)));

    assert_eq!(accounts.delete(&juliet).await, Ok(true));
    assert_eq!(accounts.get(&juliet).await, Ok(None));
    assert_eq!(accounts.create(&juliet, account(4)).await, Ok(true));
    assert_eq!(accounts.get(&juliet).await, Ok(Some(account(4))));
}

async fn accounts_are_listed_by_domain_in_pages(storage: Storage) {
    let mut names: Vec<String> = (0..25).map(|number| format!("user{number:02}@example.com")).collect();
    for name in
        names.iter().rev().map(String::as_str).chain(["a@example.community", "z@example", "x@a.example.com"])
    {
        storage.accounts.create(&jid(name), account(0)).await.unwrap();
    }
    storage.accounts.delete(&jid(&names.remove(7))).await.unwrap();

    let mut found = Vec::new();
    loop {
        let page = storage.accounts.list("example.com", found.last(), 10).await.unwrap();
        if page.is_empty() {
            break;
        }
        assert!(page.len() <= 10);
        found.extend(page);
    }
    assert_eq!(found, names.iter().map(|name| jid(name)).collect::<Vec<_>>());
    assert_eq!(storage.accounts.list("example", None, 10).await, Ok(vec![jid("z@example")]));
    assert_eq!(storage.accounts.list("example.org", None, 10).await, Ok(vec![]));
}

/// RFC 6121 §2.6: each contact once, by its last change, in order; the whole roster where that is better.
async fn concurrent_changes_lose_nothing(storage: Storage) {
    with_users(&storage).await;
    let tasks: Vec<_> = (0..100)
        .map(|number| {
            let storage = storage.clone();
            tokio::spawn(async move {
                let contact = format!("c{number}@example.net");
                change(&storage, "juliet@example.com", &contact, named("C")).await.unwrap().version
            })
        })
        .collect();
    let mut versions = BTreeSet::new();
    for task in tasks {
        versions.insert(task.await.unwrap());
    }
    assert_eq!(versions, (1..=100).collect(), "each change has a version of its own, without gaps");
    let roster = storage.rosters.load(&jid("juliet@example.com")).await.unwrap();
    assert_eq!((roster.version, roster.items.len()), (100, 100));
}

/// Whoever loads a roster while it changes sees a version with exactly its items.
async fn loads_never_see_half_a_change(storage: Storage) {
    with_users(&storage).await;
    let writer = {
        let storage = storage.clone();
        tokio::spawn(async move {
            for number in 0..100 {
                let contact = format!("c{number}@example.net");
                change(&storage, "juliet@example.com", &contact, named("C")).await.unwrap();
            }
        })
    };
    loop {
        let done = writer.is_finished();
        let roster = storage.rosters.load(&jid("juliet@example.com")).await.unwrap();
        assert_eq!(u64::try_from(roster.items.len()).unwrap(), roster.version);
        if done {
            assert_eq!(roster.version, 100);
            break;
        }
        tokio::task::yield_now().await;
    }
    writer.await.unwrap();
}

async fn one_of_many_creations_wins(storage: Storage) {
    let juliet = jid("juliet@example.com");
    let tasks: Vec<_> = (0..20_u8)
        .map(|seed| {
            let (storage, juliet) = (storage.clone(), juliet.clone());
            tokio::spawn(
                async move { (seed, storage.accounts.create(&juliet, account(seed)).await.unwrap()) },
            )
        })
        .collect();
    let mut winners = Vec::new();
    for task in tasks {
        let (seed, won) = task.await.unwrap();
        winners.extend(won.then_some(seed));
    }
    assert_eq!(winners.len(), 1);
    assert_eq!(storage.accounts.get(&juliet).await, Ok(Some(account(winners[0]))));
}

async fn deletion_takes_all_that_a_user_owns(storage: Storage) {
    with_users(&storage).await;
    let (juliet, romeo) = (jid("juliet@example.com"), jid("romeo@example.com"));
    for owner in ["juliet@example.com", "romeo@example.com"] {
        for number in 0..150 {
            change(&storage, owner, &format!("c{number}@example.net"), named("C")).await.unwrap();
        }
    }
    // More rows than one batch of the embedded store deletes.
    let puts: Vec<_> = (0..2_500)
        .map(|number| {
            let (storage, juliet) = (storage.clone(), juliet.clone());
            tokio::spawn(async move {
                storage.private.put(&juliet, "urn:a", &format!("k{number}"), vec![1]).await.unwrap();
            })
        })
        .collect();
    for put in puts {
        put.await.unwrap();
    }
    storage.private.put(&romeo, "urn:a", "k", vec![2]).await.unwrap();

    // The name is taken again at once: what follows a deletion must find it done.
    let (deleted, created) =
        tokio::join!(storage.accounts.delete(&juliet), storage.accounts.create(&juliet, account(7)));
    assert_eq!((deleted, created), (Ok(true), Ok(true)));
    assert_eq!(storage.accounts.get(&juliet).await, Ok(Some(account(7))));
    assert_eq!(storage.rosters.load(&juliet).await, Ok(Roster { version: 7, items: vec![] }));
    assert!(matches!(storage.rosters.since(&juliet, 6, 10).await, Ok(RosterNews::Whole(_))));
    assert_eq!(storage.private.list(&juliet, "urn:a", None, 10).await, Ok(vec![]));

    assert_eq!(storage.rosters.load(&romeo).await.unwrap().items.len(), 150);
    assert_eq!(storage.private.get(&romeo, "urn:a", "k").await, Ok(Some(vec![2])));
}

async fn who_has_no_account_owns_nothing(storage: Storage) {
    with_users(&storage).await;
    let nobody = jid("nobody@example.com");
    let refused = storage.rosters.change(&nobody, &jid("romeo@example.com"), named("R"), LIMITS).await;
    assert_eq!(refused, Err(StorageError::UnknownUser { user: nobody.clone() }));
    let refused = storage.private.put(&nobody, "urn:a", "k", vec![1]).await;
    assert_eq!(refused, Err(StorageError::UnknownUser { user: nobody.clone() }));
    assert_eq!(storage.rosters.load(&nobody).await, Ok(Roster::default()));
    assert_eq!(storage.private.delete(&nobody, "urn:a", "k").await, Ok(false));
}

async fn a_closed_store_says_so(storage: Storage) {
    with_users(&storage).await;
    storage.flush().await.unwrap();
    storage.close().await.unwrap();
    storage.close().await.unwrap();
    let juliet = jid("juliet@example.com");
    assert_eq!(storage.accounts.get(&juliet).await, Err(StorageError::Closed));
    assert_eq!(storage.accounts.delete(&juliet).await, Err(StorageError::Closed));
    assert_eq!(storage.flush().await, Err(StorageError::Closed));
}

use profile::{
    a_login_reads_all_at_once, deletion_takes_documents_and_logouts, documents_are_bounded,
    documents_are_replaced_as_a_whole, logouts_only_become_later, no_reader_sees_a_mixture_of_documents,
    the_directory_follows_the_documents,
};

/// A module with one test for each part of the suite; `$make` gives a storage and what must outlive it.
macro_rules! suite {
    ($place:ident, $make:expr, [$($part:ident),* $(,)?]) => {
        mod $place {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $part() {
                    let (storage, _directory) = $make;
                    super::$part(storage).await;
                }
            )*
        }
    };
}

macro_rules! suites {
    ($($part:tt)*) => {
        suite!(memory, (super::Storage::memory(), ()), [$($part)*]);
        suite!(embedded, super::fresh_embedded(), [$($part)*]);
        suite!(replicated, super::fake::one_replica(), [$($part)*]);
        suite!(replicated_elsewhere, super::fake::without_a_replica(), [$($part)*]);
    };
}

fn fresh_embedded() -> (Storage, Arc<tempfile::TempDir>) {
    let directory = tempfile::tempdir().unwrap();
    let options = super::EmbeddedOptions { cache_bytes: 8 << 20, ..super::EmbeddedOptions::default() };
    (Storage::open_embedded(directory.path(), options).unwrap(), Arc::new(directory))
}

suites!(
    accounts_come_and_go,
    accounts_are_listed_by_domain_in_pages,
    who_is_disabled_keeps_everything,
    disabled_users_are_listed_in_pages,
    rosters_keep_what_is_set,
    the_version_grows_with_what_clients_see,
    rosters_are_bounded,
    a_client_learns_what_it_has_missed,
    an_account_made_again_repeats_no_version,
    concurrent_changes_lose_nothing,
    loads_never_see_half_a_change,
    one_of_many_creations_wins,
    blocks_come_and_go,
    the_block_list_is_a_part_of_the_default_list,
    rules_may_ask_for_the_roster,
    a_list_that_others_use_stays,
    privacy_lists_are_bounded,
    blocks_at_the_same_time_lose_nothing,
    privacy_lists_go_with_the_account,
    private_rows_are_apart,
    private_rows_are_listed_in_pages,
    private_rows_are_bounded,
    private_rows_stay_within_a_bound,
    deletion_takes_all_that_a_user_owns,
    deletion_ends_the_subscriptions_with_others,
    who_has_no_account_owns_nothing,
    documents_are_replaced_as_a_whole,
    documents_are_bounded,
    no_reader_sees_a_mixture_of_documents,
    the_directory_follows_the_documents,
    logouts_only_become_later,
    a_login_reads_all_at_once,
    deletion_takes_documents_and_logouts,
    r5_a_message_is_kept_once_for_all_its_owners,
    r19_a_full_inbox_takes_nothing,
    r2_r6_what_waits_is_taken_in_order_and_goes_when_it_has_arrived,
    what_is_pending_for_the_living_is_left_alone,
    what_arrives_early_is_told_apart,
    what_is_not_wanted_is_not_kept,
    a_long_inbox_is_taken_by_pages,
    r23_each_device_gets_what_waits,
    r18_r23_a_full_inbox_has_room_for_who_is_there,
    an_inbox_is_purged,
    r22_what_is_kept_for_too_long_goes,
    the_sweep_looks_at_some_users_at_a_time,
    messages_go_with_the_account,
    messages_are_bounded,
    an_archive_finds_what_its_owner_has_named,
    an_archive_is_paged_both_ways,
    an_archive_is_asked_by_peer_time_and_id,
    what_is_not_archived_is_not_found_there,
    large_pages_end_early,
    archives_keep_what_their_owners_want,
    a_retraction_leaves_a_tombstone,
    a_record_is_of_the_last_stream_and_its_number_only_grows,
    r1_a_message_advances_the_stream_that_it_came_by,
    r1_no_number_covers_what_was_refused,
    r1_what_was_settled_is_not_kept_anew_in_its_place,
    records_go_when_nobody_comes_for_them,
    a_record_is_not_taken_for_gone_by_an_old_bind,
    r1_nothing_more_of_a_closed_stream_is_kept,
    records_are_listed_in_pages_and_go_with_the_account,
    the_secret_of_streams_is_made_once,
    a_closed_store_says_so,
);
