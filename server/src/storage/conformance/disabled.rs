//! The suite's part on accounts that are disabled.

use althing_proto::time::Timestamp;

use super::super::{Standing, Storage};
use super::{account, jid, with_users};

pub(super) async fn who_is_disabled_keeps_everything(storage: Storage) {
    let (accounts, juliet) = (&storage.accounts, jid("juliet@example.com"));
    assert_eq!(accounts.standing(&juliet).await, Ok(None));
    assert_eq!(accounts.set_disabled(&juliet, Some(Timestamp::from_millis(5))).await, Ok(false));
    with_users(&storage).await;
    storage.private.put(&juliet, "urn:a", "k", b"v".to_vec()).await.unwrap();
    let standing = |disabled: Option<u64>| {
        Ok(Some(Standing { account: account(0), disabled: disabled.map(Timestamp::from_millis) }))
    };
    assert_eq!(accounts.standing(&juliet).await, standing(None));

    assert_eq!(accounts.set_disabled(&juliet, Some(Timestamp::from_millis(5))).await, Ok(true));
    assert_eq!(accounts.standing(&juliet).await, standing(Some(5)));
    assert_eq!(accounts.get(&juliet).await, Ok(Some(account(0))));
    assert!(!storage.logins.login(&juliet, &[]).await.unwrap().account, "no session begins");
    assert_eq!(storage.private.get(&juliet, "urn:a", "k").await, Ok(Some(b"v".to_vec())));
    let romeo = jid("romeo@example.com");
    assert_eq!(accounts.standing(&romeo).await.unwrap().unwrap().disabled, None);
    assert_eq!(accounts.set_credentials(&juliet, account(7).credentials).await, Ok(true));
    assert_eq!(accounts.standing(&juliet).await.unwrap().unwrap().disabled, Some(Timestamp::from_millis(5)));

    for _ in 0..2 {
        assert_eq!(accounts.set_disabled(&juliet, None).await, Ok(true));
        assert_eq!(accounts.standing(&juliet).await.unwrap().unwrap().disabled, None);
    }
    assert!(storage.logins.login(&juliet, &[]).await.unwrap().account);

    // Whoever takes the name next is free.
    accounts.set_disabled(&juliet, Some(Timestamp::from_millis(6))).await.unwrap();
    assert_eq!(accounts.delete(&juliet).await, Ok(true));
    assert_eq!(accounts.list_disabled("example.com", None, 9).await, Ok(vec![]));
    assert_eq!(accounts.create(&juliet, account(0)).await, Ok(true));
    assert_eq!(accounts.standing(&juliet).await, standing(None));
}

pub(super) async fn disabled_users_are_listed_in_pages(storage: Storage) {
    let names: Vec<_> = (0..12).map(|number| jid(&format!("user{number:02}@example.com"))).collect();
    for (number, name) in names.iter().enumerate() {
        storage.accounts.create(name, account(0)).await.unwrap();
        if number % 2 == 0 {
            storage.accounts.set_disabled(name, Some(Timestamp::from_millis(1))).await.unwrap();
        }
    }
    let other = jid("a@example.community");
    storage.accounts.create(&other, account(0)).await.unwrap();
    storage.accounts.set_disabled(&other, Some(Timestamp::from_millis(1))).await.unwrap();
    let mut found = Vec::new();
    loop {
        let page = storage.accounts.list_disabled("example.com", found.last(), 4).await.unwrap();
        if page.is_empty() {
            break;
        }
        assert!(page.len() <= 4);
        found.extend(page);
    }
    assert_eq!(found, names.iter().step_by(2).cloned().collect::<Vec<_>>());
    assert_eq!(storage.accounts.list("example.com", None, 99).await.unwrap().len(), 12);
}
