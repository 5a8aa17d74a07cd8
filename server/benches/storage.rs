//! How fast the embedded store answers: account reads, roster loads, roster changes.
//!
//! `cargo bench -p althing-server --bench storage`

// A benchmark's result is what it prints, and a failure of its own set-up ends it.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::time::Instant;

use althing_proto::jid::BareJid;
use althing_proto::roster::RosterChange;
use althing_proto::sasl::Credentials;
use althing_proto::time::Timestamp;
use althing_server::storage::{Account, EmbeddedOptions, RosterLimits, Storage};

const USERS: usize = 2_000;
const CONTACTS: usize = 20;

fn user(number: usize) -> BareJid {
    BareJid::new(&format!("user{}@example.com", number % USERS)).unwrap()
}

/// Runs `operation` for the numbers up to `count`, `tasks` at a time, and prints how fast that was.
async fn measure<F, R>(what: &str, tasks: usize, count: usize, operation: F)
where
    F: Fn(usize) -> R + Clone + Send + 'static,
    R: Future<Output = ()> + Send,
{
    let start = Instant::now();
    let running: Vec<_> = (0..tasks)
        .map(|task| {
            let operation = operation.clone();
            tokio::spawn(async move {
                let mut slowest = std::time::Duration::ZERO;
                for number in (task..count).step_by(tasks) {
                    let begin = Instant::now();
                    operation(number).await;
                    slowest = slowest.max(begin.elapsed());
                }
                slowest
            })
        })
        .collect();
    let mut slowest = std::time::Duration::ZERO;
    for task in running {
        slowest = slowest.max(task.await.unwrap());
    }
    let seconds = start.elapsed().as_secs_f64();
    let rate = count as f64 / seconds;
    let mean = seconds / count as f64 * tasks as f64 * 1e6;
    println!("{what:<34} {tasks:>5} at a time {rate:>10.0}/s  mean {mean:>8.1} us  max {slowest:>10.1?}");
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    // In the target directory: a temporary directory may be in memory, where a flush costs nothing.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let storage = Storage::open_embedded(dir.path(), EmbeddedOptions::default()).unwrap();
    let credentials = Credentials::derive("secret", 4096, [7; 16]).unwrap();
    let account = Account { credentials, created: Timestamp::from_millis(0) };

    let (store, made) = (storage.clone(), account.clone());
    measure("create account", 1_024, USERS, move |number| {
        let (store, made) = (store.clone(), made.clone());
        async move {
            store.accounts.create(&user(number), made).await.unwrap();
        }
    })
    .await;

    let change = |groups: usize| {
        let store = storage.clone();
        move |number: usize| {
            let store = store.clone();
            async move {
                let (owner, contact) = (user(number), user(number / USERS + number + 1));
                let name = format!("Contact {number}");
                let change = RosterChange::Set { name: Some(name), groups: vec!["G".to_owned(); groups] };
                let changed = store.rosters.change(&owner, &contact, change, RosterLimits::default());
                changed.await.unwrap().unwrap();
            }
        }
    };
    measure("roster change (fill)", 1_024, USERS * CONTACTS, change(1)).await;
    measure("roster change", 1, 500, change(1)).await;
    measure("roster change", 64, 20_000, change(1)).await;

    for tasks in [1, 64, 1_024] {
        let store = storage.clone();
        measure("account get", tasks, 100_000, move |number| {
            let store = store.clone();
            async move {
                assert!(store.accounts.get(&user(number * 7)).await.unwrap().is_some());
            }
        })
        .await;
        let store = storage.clone();
        measure("roster load of 20 items", tasks, 20_000, move |number| {
            let store = store.clone();
            async move {
                assert!(store.rosters.load(&user(number * 7)).await.unwrap().items.len() >= CONTACTS);
            }
        })
        .await;
    }
    println!("{} bytes on disk", storage.engine.size_on_disk().await.unwrap());
    storage.close().await.unwrap();
}
