//! The part of the suite on rows that modules keep.

use super::super::{MAX_KEY_BYTES, MAX_VALUE_BYTES, RowBound, Storage, StorageError};
use super::{jid, with_users};

pub(super) async fn private_rows_are_apart(storage: Storage) {
    with_users(&storage).await;
    let (juliet, romeo) = (jid("juliet@example.com"), jid("romeo@example.com"));
    let rows = &storage.private;
    for (user, namespace, key) in
        [(&juliet, "urn:a", "k"), (&juliet, "urn:a", "l"), (&juliet, "urn:ab", "k"), (&romeo, "urn:a", "k")]
    {
        assert_eq!(rows.get(user, namespace, key).await, Ok(None));
        rows.put(user, namespace, key, format!("{user} {namespace} {key}").into_bytes()).await.unwrap();
    }
    let value = rows.get(&juliet, "urn:a", "k").await.unwrap();
    assert_eq!(value.as_deref(), Some(&b"juliet@example.com urn:a k"[..]));
    rows.put(&juliet, "urn:a", "k", Vec::new()).await.unwrap();
    assert_eq!(rows.get(&juliet, "urn:a", "k").await, Ok(Some(Vec::new())), "an empty value is a value");

    assert_eq!(rows.delete(&juliet, "urn:a", "k").await, Ok(true));
    assert_eq!(rows.delete(&juliet, "urn:a", "k").await, Ok(false));
    let keys = |rows: Vec<(String, Vec<u8>)>| rows.into_iter().map(|(key, _)| key).collect::<Vec<_>>();
    assert_eq!(keys(rows.list(&juliet, "urn:a", None, 10).await.unwrap()), ["l"]);
    assert_eq!(keys(rows.list(&juliet, "urn:ab", None, 10).await.unwrap()), ["k"]);
    assert_eq!(keys(rows.list(&romeo, "urn:a", None, 10).await.unwrap()), ["k"]);
}

pub(super) async fn private_rows_are_listed_in_pages(storage: Storage) {
    with_users(&storage).await;
    let juliet = jid("juliet@example.com");
    let expected: Vec<_> = (0..7_u8).map(|number| (format!("key{number}"), vec![number])).collect();
    for (key, value) in expected.iter().rev() {
        storage.private.put(&juliet, "urn:a", key, value.clone()).await.unwrap();
    }
    let mut found: Vec<(String, Vec<u8>)> = Vec::new();
    loop {
        let after = found.last().map(|(key, _)| key.clone());
        let page = storage.private.list(&juliet, "urn:a", after.as_deref(), 3).await.unwrap();
        if page.is_empty() {
            break;
        }
        found.extend(page);
    }
    assert_eq!(found, expected);
}

pub(super) async fn private_rows_are_bounded(storage: Storage) {
    with_users(&storage).await;
    let juliet = jid("juliet@example.com");
    storage.private.put(&juliet, "urn:a", "k", vec![1; MAX_VALUE_BYTES]).await.unwrap();
    let refused = storage.private.put(&juliet, "urn:a", "k", vec![2; MAX_VALUE_BYTES + 1]).await;
    assert!(matches!(refused, Err(StorageError::TooLarge { what: "value", .. })), "{refused:?}");
    let long = "k".repeat(MAX_KEY_BYTES + 1);
    for (namespace, key) in [(long.as_str(), "k"), ("urn:a", long.as_str())] {
        let refused = storage.private.put(&juliet, namespace, key, Vec::new()).await;
        assert!(matches!(refused, Err(StorageError::TooLarge { .. })), "{refused:?}");
    }
    let kept = storage.private.get(&juliet, "urn:a", "k").await.unwrap().unwrap();
    assert!(kept.len() == MAX_VALUE_BYTES && kept[0] == 1);
}

pub(super) async fn private_rows_stay_within_a_bound(storage: Storage) {
    with_users(&storage).await;
    let juliet = jid("juliet@example.com");
    let bound = RowBound { rows: 2, bytes: 20 };
    let put =
        async |key: &str, size| storage.private.put_within(&juliet, "urn:a", key, vec![7; size], bound).await;
    storage.private.put(&juliet, "urn:ab", "another", vec![1; 90]).await.unwrap();
    assert_eq!(put("k1", 8).await, Ok(()));
    assert_eq!(put("k2", 9).await, Err(StorageError::Full { what: "bytes", limit: 20 }));
    assert_eq!(put("k2", 8).await, Ok(()));
    assert_eq!(put("k3", 0).await, Err(StorageError::Full { what: "rows", limit: 2 }));
    assert_eq!(put("k1", 9).await, Err(StorageError::Full { what: "bytes", limit: 20 }));
    assert_eq!(put("k1", 7).await, Ok(()), "what shrinks is always allowed");
    let kept = storage.private.list(&juliet, "urn:a", None, 10).await.unwrap();
    assert_eq!(kept, [("k1".to_owned(), vec![7; 7]), ("k2".to_owned(), vec![7; 8])]);
    // Many at once: no two pass the bound together.
    storage.private.delete(&juliet, "urn:a", "k1").await.unwrap();
    let puts = (0..9).map(|number| {
        let (storage, juliet) = (storage.clone(), juliet.clone());
        tokio::spawn(async move {
            storage.private.put_within(&juliet, "urn:a", &format!("n{number}"), vec![], bound).await.is_ok()
        })
    });
    let mut done = 0;
    for put in puts.collect::<Vec<_>>() {
        done += u32::from(put.await.unwrap());
    }
    assert_eq!(done, 1);
}
