//! A node of a cluster whose data another release has written: it refuses to start and says what to do, the others go on,
//! and with the release that it had it goes on too. Nothing is lost.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "the whole file is a test")]
#![allow(clippy::print_stderr, reason = "a long test says where it is")]

use std::path::Path;
use std::time::Duration;

use althing_proto::ns;
use althing_tests::cluster::{SHORT_TIMES, TestCluster};
use althing_tests::deadline::within_time;
use althing_tests::login::{Account, connect, newcomer, register_at};
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

/// Writes to an account that is away, until all is acknowledged: then it is kept (XEP-0160, XEP-0198).
async fn write_to(cluster: &TestCluster, account: &Account, first: usize) -> Result<()> {
    let mut writer = newcomer(&cluster.endpoint(0), "writer").await?;
    writer.set_patience(LATE);
    let to = account.bare(writer.domain());
    let mut text = format!("<enable xmlns='{}'/>", ns::STREAM_MANAGEMENT);
    for number in first..first + MESSAGES {
        text += &format!("<message to='{to}' type='chat' id='m{number}'><body>{number}</body></message>");
    }
    writer.send(&text).await?;
    writer.send(&format!("<r xmlns='{}'/>", ns::STREAM_MANAGEMENT)).await?;
    let all = MESSAGES.to_string();
    writer.recv_until(|word| word.is("a", ns::STREAM_MANAGEMENT) && word.attr("h") == Some(&all)).await?;
    Ok(())
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
        write_to(&cluster, &account, written).await.unwrap();
        written += MESSAGES;

        set_format(&database, key, &own).unwrap();
        // It has ended already.
        let _ended = cluster.node_mut(REFUSES).kill();
        cluster.node_mut(REFUSES).restart().await.unwrap();
        cluster.until_settled().await.unwrap();
    }
    let mut owner = connect(&cluster.endpoint(REFUSES), &account, "phone").await.unwrap();
    owner.set_patience(LATE);
    owner.send("<presence/>").await.unwrap();
    for number in 0..written {
        let message = owner.recv_until(|stanza| stanza.name() == "message").await.unwrap();
        assert_eq!(message.attr("id"), Some(format!("m{number}").as_str()));
    }
}
