//! Promises 1, 3 and 4 on a network that fails: each node cut off in turn, cuts of one direction and of one link,
//! frames that get lost, while clients talk. Needs root, `ip` and `nft`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "the whole file is a test")]
#![allow(clippy::print_stderr, reason = "a long test says where it is")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use althing_tests::admin;
use althing_tests::cluster::{CLOSE, DOWN, SHORT_TIMES, TestCluster};
use althing_tests::deadline::{number, within_time};
use althing_tests::history::History;
use althing_tests::lab::Lab;
use althing_tests::login::Account;
use althing_tests::setup::DOMAIN;
use althing_tests::talker::{Crowd, RESOURCE, Talker};
use althing_tests::witness::Witness;
use anyhow::{Result, bail, ensure};

const TEST: &str = "no_partition_breaks_a_promise_and_all_heal_by_themselves";
const NODES: usize = 3;
/// Talkers whose home is the same node.
const EACH: usize = 2;
/// How long the cluster may take until every client reaches every other one again.
const HEAL: Duration = Duration::from_secs(20);
/// What is added to the times of the configuration: an election, a crowded machine.
const LATE: Duration = Duration::from_secs(5);
/// Between two looks at a condition.
const LOOK: Duration = Duration::from_millis(20);

struct Scene {
    lab: Lab,
    cluster: TestCluster,
    history: Arc<History>,
    talkers: Vec<Talker>,
}

impl Scene {
    async fn open(lab: Lab) -> Result<(Scene, Witness)> {
        let mut cluster = TestCluster::on_hosts(&lab.hosts(), SHORT_TIMES).await?;
        cluster.start_all().await?;
        let accounts: Vec<Account> = (0..NODES * EACH).map(|_| Account::fresh("talker")).collect();
        for account in &accounts {
            let (data, jid) = (cluster.node(0).setup().data(), account.bare(DOMAIN));
            admin::add_user(&data, &jid, &account.password).await?;
        }
        let jids: Vec<String> =
            accounts.iter().map(|account| format!("{}/{RESOURCE}", account.bare(DOMAIN))).collect();
        let data = (0..NODES).map(|node| cluster.node(node).setup().data()).collect();
        let witness = Witness::begin(data, jids.clone());
        let history = Arc::new(History::default());
        let crowd = Crowd { endpoints: cluster.endpoints(), jids, history: Arc::clone(&history) };
        let talkers =
            accounts.into_iter().enumerate().map(|(index, one)| crowd.talker(one, index % NODES)).collect();
        let scene = Scene { lab, cluster, history, talkers };
        within_time(HEAL, "all talkers online", async {
            while scene.history.generations().len() < NODES * EACH {
                tokio::time::sleep(LOOK).await;
            }
            Ok(())
        })
        .await?;
        scene.until_all_heard().await?;
        Ok((scene, witness))
    }

    /// Each talker has got something from each other one that was sent after now.
    async fn until_all_heard(&self) -> Result<()> {
        let since = self.history.now();
        let heard = within_time(HEAL, "all hearing all", async {
            while !self.history.silent_pairs(since).is_empty() {
                tokio::time::sleep(LOOK).await;
            }
            Ok(())
        });
        match heard.await {
            Ok(()) => Ok(()),
            Err(error) => bail!("{error:#}; silent are {}", self.history.silent(since)),
        }
    }

    /// The network heals, and everything works with no operator. Whoever was not touched has lost nothing.
    async fn heal(&mut self, began: u64, before: &BTreeMap<String, usize>) -> Result<()> {
        self.lab.heal()?;
        let healed = self.history.now();
        self.cluster.until_settled().await?;
        self.until_all_heard().await?;
        let lost = self.history.lost(began..healed, before);
        ensure!(lost.is_empty(), "{} messages were lost between streams that lasted: {lost:?}", lost.len());
        let refused = self.history.refused(began..healed, before);
        ensure!(refused.is_empty(), "{} messages came back between them: {refused:?}", refused.len());
        self.history.check()?;
        for talker in &self.talkers {
            talker.move_to(talker.home());
        }
        self.until_all_heard().await?;
        eprintln!("  healed: {:?}", self.history.summary());
        Ok(())
    }

    /// One node is cut off, or cannot hear, or cannot be heard; its clients go elsewhere while their streams to it
    /// are still there.
    async fn cut_off(&mut self, node: usize, hears: bool, is_heard: bool) -> Result<()> {
        eprintln!("node-{node} is cut off; it hears: {hears}, it is heard: {is_heard}");
        let (began, before) = (self.history.now(), self.history.generations());
        let others = self.cluster.others(node);
        for other in &others {
            if !is_heard {
                self.lab.cut(node, *other)?;
            }
            if !hears {
                self.lab.cut(*other, node)?;
            }
        }
        for talker in self.talkers.iter().filter(|talker| talker.home() == node) {
            talker.move_to(others[0]);
        }
        let closed = self.cluster.wait_until(CLOSE + LATE, "the node closing its streams", |view| {
            view[node].as_ref().is_some_and(|status| status.node.standing == "lost")
        });
        let closed = closed.await?;
        let name = format!("node-{node}");
        let given_away = self.cluster.wait_until(DOWN + LATE, "its addresses given away", |view| {
            others.iter().all(|other| view[*other].as_ref().is_some_and(|s| s.state_of(&name) == "down"))
        });
        let given_away = closed + given_away.await?;
        let moved = before.iter().filter(|(jid, _)| self.is_of(jid, node));
        within_time(HEAL, "its clients online elsewhere", async {
            for (jid, generation) in moved {
                while self.history.generations().get(jid) <= Some(generation) {
                    tokio::time::sleep(LOOK).await;
                }
            }
            Ok(())
        })
        .await?;
        eprintln!("  closed after {closed:?}, given away after {given_away:?}");
        self.heal(began, &before).await
    }

    /// Whether the talker with this JID has its home at `node`.
    fn is_of(&self, jid: &str, node: usize) -> bool {
        self.talkers.iter().any(|talker| talker.home() == node && talker.jid() == jid)
    }

    /// The talkers go on while the network is as it is now.
    async fn talk(&self, messages: u64) -> Result<()> {
        let until = self.history.now() + messages;
        within_time(Duration::from_secs(60), "talking", async {
            while self.history.now() < until {
                tokio::time::sleep(LOOK).await;
            }
            Ok(())
        })
        .await
    }
}

async fn play(lab: Lab) -> Result<()> {
    let (mut scene, witness) = Box::pin(Scene::open(lab)).await?;
    let rounds = number("ALTHING_TEST_ROUNDS", 1);
    for _ in 0..rounds {
        for node in 0..NODES {
            Box::pin(scene.cut_off(node, false, false)).await?;
        }
        for node in 0..NODES {
            Box::pin(scene.cut_off(node, node % 2 == 0, node % 2 == 1)).await?;
        }
        eprintln!("node-0 and node-2 do not see each other");
        let (began, before) = (scene.history.now(), scene.history.generations());
        scene.lab.cut(0, 2)?;
        scene.lab.cut(2, 0)?;
        scene.talk(2_000).await?;
        Box::pin(scene.heal(began, &before)).await?;
        eprintln!("of a hundred frames five are lost");
        let (began, before) = (scene.history.now(), scene.history.generations());
        scene.lab.lose(5)?;
        scene.talk(3_000).await?;
        Box::pin(scene.heal(began, &before)).await?;
    }
    for talker in scene.talkers.drain(..) {
        talker.leave().await?;
    }
    scene.history.check()?;
    eprintln!("{} statements about routes agree; {:?}", witness.end().await?, scene.history.summary());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_partition_breaks_a_promise_and_all_heal_by_themselves() {
    if let Some(lab) = Lab::inside() {
        Box::pin(play(lab)).await.unwrap();
    } else if let Some(reason) = Lab::missing() {
        eprintln!("SKIPPED: {TEST} {reason}");
    } else {
        Lab::run(NODES, TEST).unwrap();
    }
}
