//! A backup of a cluster that goes on writing, restored into a new one: who logs in there has what was acknowledged
//! before it began.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "the whole file is a test")]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use althing_tests::away::{Writer, take};
use althing_tests::cluster::TestCluster;
use althing_tests::friends::{add_contact, roster};
use althing_tests::login::{Account, connect, newcomer, register_at};
use althing_tests::node::TestNode;
use althing_tests::setup::binary;
use anyhow::{Context, Result, ensure};

/// Longest wait for an answer.
const LATE: Duration = Duration::from_secs(60);

/// Messages that are acknowledged before the backup begins.
const BEFORE: usize = 60;

async fn althing(node: &TestNode, command: &str, more: &[&str]) -> Result<Output> {
    let mut run = tokio::process::Command::new(binary()?);
    run.arg(command).arg("--config").arg(node.setup().file()).args(more);
    Ok(run.output().await?)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// How many messages the archive of the account has with the other one.
async fn archived(node: &TestNode, account: &Account) -> Result<usize> {
    let mut owner = connect(&node.endpoint(), account, "archive").await?;
    let ask = "<query xmlns='urn:xmpp:mam:2'><set xmlns='http://jabber.org/protocol/rsm'><max>0</max></set></query>";
    let answer = owner.iq("set", None, ask).await?;
    let text = String::from(&answer);
    let count = text.split("<count>").nth(1).and_then(|rest| rest.split('<').next()).context("no count")?;
    Ok(count.parse()?)
}

async fn refused(node: &TestNode, file: &Path, why: &str) -> Result<()> {
    let output = althing(node, "restore", &[file.to_str().context("no text")?]).await?;
    let text = said(&output);
    ensure!(output.status.code() == Some(1) && text.contains(why), "{text}");
    Ok(())
}

#[tokio::test]
async fn a_backup_of_a_cluster_that_writes_is_restored_into_a_new_one() {
    let keep = tempfile::tempdir().unwrap();
    let file = keep.path().join("backup");
    let name = file.to_str().unwrap();
    let (alice, bob) = (Account::fresh("alice"), Account::fresh("bob"));
    let mut written = BEFORE;
    let (before, contacts) = {
        let cluster = TestCluster::start(3, "").await.unwrap();
        register_at(&cluster.endpoint(0), &bob).await.unwrap();
        register_at(&cluster.endpoint(0), &alice).await.unwrap();
        let mut writer = connect(&cluster.endpoint(1), &alice, "phone").await.unwrap();
        add_contact(&mut writer, "romeo@example.net", "name='Romeo'/>").await.unwrap();
        let contacts = roster(&mut writer).await.unwrap();
        let mut writer = Writer::with(writer).await.unwrap();
        let to = bob.bare(writer.client.domain());
        writer.write(&to, 0..BEFORE).await.unwrap();
        // One that finds no room is given up, and is in nobody's way.
        let mut full = tokio::process::Command::new(binary().unwrap());
        full.args(["backup", "-", "--config"]).arg(cluster.node(2).setup().file());
        full.stdout(std::fs::File::create("/dev/full").unwrap()).stderr(std::process::Stdio::piped());
        let full = full.spawn().unwrap().wait_with_output().await.unwrap();
        assert!(!full.status.success() && said(&full).contains("cannot be written"), "{}", said(&full));
        // It goes on being written to while the backup is made.
        let arguments = [name];
        let mut backup = std::pin::pin!(althing(cluster.node(2), "backup", &arguments));
        let made = loop {
            let from = written;
            written += 5;
            let wrote = writer.write(&to, from..written);
            tokio::select! {
                biased;
                made = &mut backup => break made.unwrap(),
                wrote = wrote => wrote.unwrap(),
            }
        };
        let text = said(&made);
        assert!(made.status.success() && text.contains("of the store group"), "{text}");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let again = althing(cluster.node(2), "backup", &[name]).await.unwrap();
        assert!(!again.status.success() && said(&again).contains("is there already"), "{}", said(&again));
        refused(cluster.node(0), &file, "the server has accounts").await.unwrap();
        (archived(cluster.node(0), &alice).await.unwrap(), contacts)
    };

    let mut cluster = TestCluster::start(3, "").await.unwrap();
    // Whatever is wrong with a file is found before anything changes.
    let bytes = std::fs::read(&file).unwrap();
    let damaged = keep.path().join("damaged");
    for (what, why) in [
        (bytes[..bytes.len() / 2].to_vec(), "before its end"),
        (b"something else".to_vec(), "no backup of Althing"),
        ([&bytes[..bytes.len() - 200], &[0], &bytes[bytes.len() - 199..]].concat(), "damaged"),
        ([&bytes[..18], &[9], &bytes[19..]].concat(), "and this release"),
    ] {
        std::fs::write(&damaged, what).unwrap();
        refused(cluster.node(1), &damaged, why).await.unwrap();
    }
    newcomer_is_refused_nothing(&cluster).await;
    drop(cluster);

    cluster = TestCluster::start(3, "").await.unwrap();
    // As in a container, which has no files but its volume's.
    let mut restore = tokio::process::Command::new(binary().unwrap());
    restore.args(["restore", "-", "--config"]).arg(cluster.node(1).setup().file());
    let restored = restore.stdin(std::fs::File::open(&file).unwrap()).output().await.unwrap();
    assert!(restored.status.success(), "{}", said(&restored));
    // The nodes say that they are ready again within a look of theirs.
    for index in 0..3 {
        cluster.node_mut(index).until_ready().await.unwrap();
    }
    let wrong = Account { password: "wrong".to_owned(), ..alice.clone() };
    assert!(connect(&cluster.endpoint(0), &wrong, "phone").await.is_err());
    let mut owner = connect(&cluster.endpoint(0), &alice, "phone").await.unwrap();
    assert_eq!(roster(&mut owner).await.unwrap(), contacts);
    let kept = archived(cluster.node(2), &alice).await.unwrap();
    assert!((BEFORE..=before).contains(&kept), "{kept} of {before}");
    // Of one moment: both have as many, in order.
    assert_eq!(archived(cluster.node(0), &bob).await.unwrap(), kept);
    take(&cluster.node(0).endpoint(), &bob, kept, LATE).await.unwrap();
    newcomer(&cluster.endpoint(1), "carol").await.unwrap();
}

/// What was refused has left nothing behind: accounts are made as before.
async fn newcomer_is_refused_nothing(cluster: &TestCluster) {
    newcomer(&cluster.endpoint(2), "carol").await.unwrap();
}
