//! A node of a cluster whose data another release has written: it refuses to start and says what to do, the others go on,
//! and with the release that it had it goes on too. Nothing is lost.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "the whole file is a test")]
#![allow(clippy::print_stderr, reason = "a long test says where it is")]

use std::path::Path;
use std::time::Duration;

use althing_tests::away::{Writer, take};
use althing_tests::cluster::{SHORT_TIMES, TestCluster};
use althing_tests::deadline::within_time;
use althing_tests::login::{Account, register_at};
use anyhow::{Context, Result};

const REFUSES: usize = 2;
const MESSAGES: usize = 10;
const LATE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// The databases of a node, the key of the number of their format, and another number as it stands there.
const FORMATS: [(&str, &[u8], &[u8]); 3] = [
    ("store", b"format", &[0, 0, 0, 7]),
    ("cluster/store/log", b"\0format", &[7]),
    ("cluster/routes/log", b"\0format", &[7]),
];

/// Writes the number of a format; the one that was there.
fn set_format(database: &Path, key: &[u8], value: &[u8]) -> Result<Vec<u8>> {
    let db = sled::Config::new().path(database).flush_every_ms(None).open()?;
    let before = db.insert(key, value)?.context("no format")?;
    db.flush()?;
    Ok(before.to_vec())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_data_of_another_release_refuses_and_the_others_go_on() {
    let mut cluster = TestCluster::start(3, SHORT_TIMES).await.unwrap();
    let account = Account::fresh("owner");
    register_at(&cluster.endpoint(0), &account).await.unwrap();
    let data = cluster.node(REFUSES).setup().data();
    let mut written = 0;
    for (place, key, other) in FORMATS {
        eprintln!("{place} of another format");
        assert!(cluster.node_mut(REFUSES).terminate().await.unwrap());
        let database = data.join(place);
        let own = set_format(&database, key, other).unwrap();
        let before = cluster.node(REFUSES).log().len();
        cluster.node_mut(REFUSES).spawn().unwrap();
        let ended = async {
            while cluster.node_mut(REFUSES).is_alive() {
                tokio::time::sleep(POLL).await;
            }
            Ok(())
        };
        within_time(LATE, "its end", ended).await.unwrap();
        let log = cluster.node(REFUSES).log();
        let said = log.get(before..).unwrap_or_default();
        let named = ["format 7", "start the release that made it", data.to_str().unwrap()];
        assert!(said.lines().any(|line| named.iter().all(|word| line.contains(word))), "{place}: {said}");
        assert!(!said.contains("panicked"), "{place}: {said}");
        let mut writer = Writer::come(&cluster.endpoint(0), LATE).await.unwrap();
        let to = account.bare(writer.client.domain());
        writer.write(&to, written..written + MESSAGES).await.unwrap();
        written += MESSAGES;

        set_format(&database, key, &own).unwrap();
        // It has ended already.
        let _ended = cluster.node_mut(REFUSES).kill();
        cluster.node_mut(REFUSES).restart().await.unwrap();
        cluster.until_settled().await.unwrap();
    }
    take(&cluster.endpoint(REFUSES), &account, written, LATE).await.unwrap();
}
