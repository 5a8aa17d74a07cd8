//! The disk of one node of three is full: as a follower, as the leader of the store, and, as the leader of the routes, wholly,
//! so that not a byte is left. The others go on, its own clients are served by them, nothing that was acknowledged is lost, and it catches up
//! without a restart. Where two of three are nearly full nothing new is taken. Needs root and `mount`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "the whole file is a test")]
#![allow(clippy::print_stderr, reason = "a long test says where it is")]

use std::time::Duration;

use althing_tests::away::{Writer, take};
use althing_tests::client::stanza_error;
use althing_tests::cluster::{CLOSE, DOWN, SHORT_TIMES, TestCluster};
use althing_tests::deadline::within_time;
use althing_tests::disk::SmallDisk;
use althing_tests::login::{Account, newcomer, register_at};
use anyhow::Result;

/// A disk of that many mebibytes, in memory; its last mebibytes are the reserve.
const DISK_MIB: u64 = 256;
const RESERVE_MIB: u64 = 64;
/// Below the reserve; all go on.
const LOW_MIB: u64 = RESERVE_MIB * 3 / 4;
/// Too little for the store.
const STORE_STOPS_MIB: u64 = RESERVE_MIB / 4;
const MESSAGES: usize = 40;
const LATE: Duration = Duration::from_secs(60);
/// Between two looks.
const POLL: Duration = Duration::from_millis(50);

struct Scene {
    disks: Vec<SmallDisk>,
    cluster: TestCluster,
    /// Is away, and gets all that is written.
    owner: Account,
    written: usize,
}

impl Scene {
    /// `None` where nothing may be mounted.
    async fn start() -> Result<Option<Scene>> {
        let overlay = format!("{SHORT_TIMES}[storage]\ncache_mib = 8\nreserve_mib = {RESERVE_MIB}\n");
        let mut cluster = TestCluster::prepare(3, &overlay).await?;
        let mut disks = Vec::new();
        for index in 0..3 {
            let data = cluster.node(index).setup().data();
            std::fs::create_dir_all(&data)?;
            match SmallDisk::mount(&data, DISK_MIB)? {
                Some(disk) => disks.push(disk),
                None => return Ok(None),
            }
        }
        cluster.start_all().await?;
        let owner = Account::fresh("owner");
        register_at(&cluster.endpoint(0), &owner).await?;
        Ok(Some(Scene { disks, cluster, owner, written: 0 }))
    }

    /// Writes to who is away, at that node, until all is acknowledged: then it is kept (XEP-0160, XEP-0198).
    async fn write_at(&mut self, writer: &mut Writer) -> Result<()> {
        let to = self.owner.bare(writer.client.domain());
        let from = self.written;
        self.written += MESSAGES;
        writer.write(&to, from..self.written).await
    }

    async fn newcomer(&self, node: usize) -> Result<Writer> {
        Writer::come(&self.cluster.endpoint(node), LATE).await
    }

    /// Who was away takes all that was kept, at that node.
    async fn take(&self, node: usize) -> Result<()> {
        take(&self.cluster.endpoint(node), &self.owner, self.written, LATE).await
    }

    async fn until(&self, node: usize, what: &str, is_so: impl Fn(f64) -> bool) -> Result<()> {
        let wait = async {
            while !is_so(self.cluster.metric(node, what).await?) {
                tokio::time::sleep(POLL).await;
            }
            Ok(())
        };
        within_time(LATE, what, wait).await
    }

    async fn until_full(&self, node: usize, full: bool) -> Result<()> {
        self.until(node, "althing_storage_full", |value| (value > 0.5) == full).await
    }

    /// What that node has applied of the store's log.
    async fn applied(&self, node: usize) -> Result<f64> {
        self.cluster.metric(node, "althing_raft_applied_index{group=\"store\"}").await
    }

    async fn until_caught_up(&self, node: usize) -> Result<()> {
        let wanted = self.applied((node + 1) % 3).await?;
        self.until(node, "althing_raft_applied_index{group=\"store\"}", |value| value >= wanted).await
    }

    /// Who has no room leads nothing: so the others say.
    async fn until_not_leading(&mut self, full: usize) -> Result<()> {
        let (name, others) = (format!("node-{full}"), self.cluster.others(full));
        let wait = self.cluster.wait_until(LATE, "other leaders", |view| {
            let led = |index: &usize| {
                let status = view[*index].as_ref();
                status
                    .is_some_and(|s| s.settled() && s.groups.iter().all(|g| g.leader.as_ref() != Some(&name)))
            };
            others.iter().all(led)
        });
        wait.await.map(drop)
    }

    /// Who leads a group, by what itself says.
    async fn leader(&mut self, group: &str) -> Result<usize> {
        let name = format!("althing_raft_is_leader{{group=\"{group}\"}}");
        let wait = async {
            loop {
                for node in 0..3 {
                    if self.cluster.metric(node, &name).await.is_ok_and(|leads| leads > 0.5) {
                        return Ok(node);
                    }
                }
                tokio::time::sleep(POLL).await;
            }
        };
        within_time(LATE, &name, wait).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_full_disk_of_three_stops_nobody_and_costs_nothing() {
    let Some(mut scene) = Scene::start().await.unwrap() else {
        eprintln!("SKIPPED: it needs root, and `mount`");
        return;
    };
    let leader = scene.leader("store").await.unwrap();
    let follower = (leader + 1) % 3;
    for (what, full) in [("a follower", follower), ("the leader", leader)] {
        eprintln!("{what}, node-{full}, has no room for the store");
        let other = (full + 1) % 3;
        let mut here = scene.newcomer(full).await.unwrap();
        let mut there = scene.newcomer(other).await.unwrap();
        scene.write_at(&mut here).await.unwrap();
        scene.write_at(&mut there).await.unwrap();
        scene.until_caught_up(full).await.unwrap();
        scene.disks[full].fill(STORE_STOPS_MIB).unwrap();
        scene.until_full(full, true).await.unwrap();
        scene.write_at(&mut there).await.unwrap();
        let stands_at = scene.applied(full).await.unwrap();
        // Its own clients are served by the others: who is there, and who comes.
        scene.write_at(&mut here).await.unwrap();
        let mut late = scene.newcomer(full).await.unwrap();
        scene.write_at(&mut late).await.unwrap();
        let roster = "<query xmlns='jabber:iq:roster'><item jid='friend@localhost' name='F'/></query>";
        let added = late.client.iq("set", None, roster).await.unwrap();
        late.has_written(1);
        assert_eq!(added.attr("type"), Some("result"));
        assert_eq!(scene.applied(full).await.unwrap(), stands_at, "it has applied what it had no room for");
        scene.until_not_leading(full).await.unwrap();
        scene.write_at(&mut there).await.unwrap();
        scene.write_at(&mut late).await.unwrap();
        assert_eq!(scene.cluster.node(full).http("/readyz").await.unwrap().0, 200);
        scene.disks[full].clear().unwrap();
        scene.until_full(full, false).await.unwrap();
        scene.until_caught_up(full).await.unwrap();
        scene.write_at(&mut here).await.unwrap();
    }

    let full = scene.leader("routes").await.unwrap();
    eprintln!("the leader of the routes, node-{full}, has no byte left");
    let other = (full + 1) % 3;
    let mut there = scene.newcomer(other).await.unwrap();
    scene.disks[full].fill(0).unwrap();
    scene.write_at(&mut there).await.unwrap();
    // It does not learn who comes now, so it may not go on to serve.
    let mut here = scene.newcomer(other).await.unwrap();
    let name = format!("node-{full}");
    scene
        .cluster
        .wait_until(CLOSE + DOWN + LATE, "the others doing without it", |view| {
            view[other].as_ref().is_some_and(|status| status.state_of(&name) == "down")
        })
        .await
        .unwrap();
    scene.write_at(&mut there).await.unwrap();
    scene.write_at(&mut here).await.unwrap();
    assert!(scene.cluster.node_mut(full).is_alive(), "{}", scene.cluster.node(full).log_end());
    scene.disks[full].clear().unwrap();
    scene.cluster.until_settled().await.unwrap();
    scene.until_caught_up(full).await.unwrap();

    // It has all that the others have: with one of them gone it serves on.
    let gone = (full + 2) % 3;
    scene.cluster.node_mut(gone).kill().unwrap();
    scene
        .cluster
        .wait_until(DOWN + LATE, "service by two", |view| {
            let serves = |index: usize| view[index].as_ref().is_some_and(|s| s.settled() && s.up() == 2);
            serves(other) && serves(full)
        })
        .await
        .unwrap();
    scene.take(full).await.unwrap();
    for node in [other, full] {
        let log = scene.cluster.node(node).log();
        assert!(!log.contains("panicked") && !log.contains("writes no more"), "node-{node} has failed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nearly_full_disks_of_three_refuse_what_is_new_everywhere() {
    let Some(mut scene) = Scene::start().await.unwrap() else {
        eprintln!("SKIPPED: it needs root, and `mount`");
        return;
    };
    let mut writer = scene.newcomer(0).await.unwrap();
    scene.write_at(&mut writer).await.unwrap();
    let mut writer = newcomer(&scene.cluster.endpoint(0), "writer").await.unwrap();
    let to = scene.owner.bare(writer.domain());
    let message = |id: &str| format!("<message to='{to}' type='chat' id='{id}'><body>{id}</body></message>");
    let note = "<query xmlns='jabber:iq:private'><note xmlns='x:note'>n</note></query>";
    for full in [1, 2] {
        scene.disks[full].fill(LOW_MIB).unwrap();
        scene.until_full(full, true).await.unwrap();
    }
    // The node has room itself; that the others have none it hears with its lease.
    let refused = async {
        loop {
            let answer = writer.iq("set", None, note).await?;
            if answer.attr("type") == Some("error") {
                return Ok(answer);
            }
            tokio::time::sleep(POLL).await;
        }
    };
    let refused = within_time(LATE, "a refusal", refused).await.unwrap();
    assert_eq!(stanza_error(&refused).unwrap(), "resource-constraint");
    writer.send(&message("refused")).await.unwrap();
    let error = writer.recv_until(|stanza| stanza.attr("id") == Some("refused")).await.unwrap();
    assert_eq!(stanza_error(&error).unwrap(), "resource-constraint");
    let removed = "<query xmlns='jabber:iq:roster'><item jid='x@localhost' subscription='remove'/></query>";
    let answer = writer.iq("set", None, removed).await.unwrap();
    assert_eq!(stanza_error(&answer).unwrap(), "item-not-found", "what makes room is done, and looked for");

    scene.disks[1].clear().unwrap();
    scene.until_full(1, false).await.unwrap();
    let taken = async {
        while writer.iq("set", None, note).await?.attr("type") != Some("result") {
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    };
    within_time(LATE, "something new", taken).await.unwrap();
    // Another node may hear of it with its next lease only.
    let at_another = async {
        loop {
            match scene.newcomer(2).await {
                Ok(writer) => return Ok(writer),
                Err(_) => tokio::time::sleep(POLL).await,
            }
        }
    };
    let mut writer = within_time(LATE, "somebody new at another node", Box::pin(at_another)).await.unwrap();
    scene.write_at(&mut writer).await.unwrap();
    scene.take(2).await.unwrap();
}
