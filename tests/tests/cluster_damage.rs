//! One node of three loses its data, or part of it: it serves again, or says clearly why it does not and serves when
//! what is left of its data is taken away. What the other nodes have is never lost.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "the whole file is a test")]
#![allow(clippy::print_stderr, reason = "a long test says where it is")]

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use althing_tests::away::{Writer, take};
use althing_tests::cluster::{DOWN, SHORT_TIMES, TestCluster};
use althing_tests::login::{Account, register_at};
use anyhow::{Context, Result, bail, ensure};

const DAMAGED: usize = 2;
/// Messages before each damage.
const MESSAGES: usize = 40;
/// Bytes of a page of the file system.
const PAGE: usize = 4_096;
const LATE: Duration = Duration::from_secs(8);

/// The databases below a data directory.
fn databases(data: &Path) -> Result<Vec<PathBuf>> {
    let (mut found, mut folders) = (BTreeSet::new(), vec![data.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.ends_with("db") {
                found.insert(path);
            }
        }
    }
    Ok(found.into_iter().collect())
}

/// What stands at the end of a file that was being written when the power went: as many bytes as `keep` says.
fn tear(file: &Path, keep: impl FnOnce(u64) -> u64) -> Result<()> {
    let file = File::options().write(true).open(file)?;
    let length = file.metadata()?.len();
    Ok(file.set_len(keep(length))?)
}

/// The same where the file has its length already, and a page of it never got to the disk.
fn blank(file: &Path) -> Result<()> {
    let file = File::options().write(true).open(file)?;
    let from = file.metadata()?.len().saturating_sub(PAGE as u64);
    Ok(file.write_all_at(&[0; PAGE], from)?)
}

/// Starts the node; where it refuses, it has named what is wrong, and starts without its data.
async fn serve_again(cluster: &mut TestCluster, what: &str) -> Result<()> {
    let before = cluster.node(DAMAGED).log().len();
    let (data, node) = (cluster.node(DAMAGED).setup().data(), cluster.node_mut(DAMAGED));
    let served = node.restart().await;
    if let Err(error) = served {
        ensure!(!node.is_alive(), "{what}: it neither serves nor refuses: {error:#}");
        let said = node.log().get(before..).unwrap_or_default().to_owned();
        let named = said.lines().any(|line| line.contains(data.to_str().unwrap_or_default()));
        ensure!(named, "{what}: it refuses and does not say which file: {said}");
        ensure!(!said.contains("panicked"), "{what}: it panicked: {said}");
        eprintln!("  refused: {}", said.lines().last().unwrap_or_default());
        // It has ended already.
        let _ended = node.kill();
        std::fs::remove_dir_all(&data)?;
        node.restart().await.context("without its data")?;
    }
    cluster.until_settled().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_lost_its_data_or_a_part_of_it_serves_again_and_nothing_is_lost() {
    let mut cluster = TestCluster::start(3, SHORT_TIMES).await.unwrap();
    let data = cluster.node(DAMAGED).setup().data();
    let files = databases(&data).unwrap();
    assert!(files.len() >= 3, "the store and two logs: {files:?}");
    let mut damages: Vec<(String, Option<PathBuf>, u64)> = vec![("all of it is gone".to_owned(), None, 0)];
    for file in files {
        let name = file.strip_prefix(&data).unwrap().display().to_string();
        damages.push((format!("the last bytes of {name}"), Some(file.clone()), 100));
        damages.push((format!("a piece of the end of {name}"), Some(file.clone()), 300_000));
        damages.push((format!("the last page of {name}"), Some(file), 0));
    }
    let account = Account::fresh("owner");
    register_at(&cluster.endpoint(0), &account).await.unwrap();
    let mut written = 0;
    for (what, file, bytes) in damages {
        eprintln!("{what}");
        let mut writer = Writer::come(&cluster.endpoint(DAMAGED), LATE).await.unwrap();
        let to = account.bare(writer.client.domain());
        writer.write(&to, written..written + MESSAGES).await.unwrap();
        written += MESSAGES;
        cluster.node_mut(DAMAGED).kill().unwrap();
        match &file {
            None => std::fs::remove_dir_all(&data).unwrap(),
            Some(file) if bytes == 0 => blank(file).unwrap(),
            Some(file) => tear(file, |length| length.saturating_sub(bytes)).unwrap(),
        }
        // Who is gone for good is replaced when it has been silent for long enough.
        let name = format!("node-{DAMAGED}");
        let down = cluster.wait_until(DOWN + LATE, "the others giving its addresses away", |view| {
            view[0].as_ref().is_some_and(|status| status.state_of(&name) == "down")
        });
        down.await.unwrap();
        if let Err(error) = Box::pin(serve_again(&mut cluster, &what)).await {
            panic!("{what}: {error:#}");
        }
    }
    // It has all that the others have: with one of them gone it serves on.
    until_voter(&mut cluster).await.unwrap();
    cluster.node_mut(0).kill().unwrap();
    cluster
        .wait_until(DOWN + LATE, "service without node-0", |view| {
            let serves = |index: usize| view[index].as_ref().is_some_and(|s| s.settled() && s.up() == 2);
            serves(1) && serves(DAMAGED)
        })
        .await
        .unwrap();
    take(&cluster.endpoint(DAMAGED), &account, written, LATE).await.unwrap();
}

/// The node votes again in both groups.
async fn until_voter(cluster: &mut TestCluster) -> Result<()> {
    let name = format!("node-{DAMAGED}");
    let votes = cluster.wait_until(Duration::from_secs(60), "a vote for the node", |view| {
        let status = view[0].as_ref();
        status.is_some_and(|status| status.groups.iter().all(|group| group.voters.contains(&name)))
    });
    match votes.await {
        Ok(_) => Ok(()),
        Err(error) => bail!("{error:#}"),
    }
}
