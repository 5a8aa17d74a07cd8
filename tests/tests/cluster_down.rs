//! Promise 5: of each session that a node takes with it, each contact hears exactly once.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "the whole file is a test")]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use althing_tests::client::Client;
use althing_tests::cluster::TestCluster;
use althing_tests::deadline::{number, within_time};
use althing_tests::endpoint::Endpoint;
use althing_tests::friends::{is_presence, subscribe};
use althing_tests::login::{Account, connect, newcomer, register_at};
use anyhow::{Result, ensure};
use futures_util::future::try_join_all;

/// Contacts, each of whom watches as many sessions.
const WATCHERS: usize = 20;
/// T3 of the default configuration.
const DOWN: Duration = Duration::from_secs(12);
/// Entries that the log may grow by when a node dies, however many sessions it had: one for the node, those of an
/// election, and those of the members.
const ENTRIES: u64 = 10;

/// A contact on a node that lives, and the sessions that it watches on one that dies.
struct Watch {
    watcher: Client,
    accounts: Vec<Account>,
    sessions: Vec<Client>,
}

impl Watch {
    async fn begin(here: Endpoint, there: Endpoint, count: usize) -> Result<Watch> {
        let mut watcher = newcomer(&here, "watcher").await?;
        watcher.come_online().await?;
        watcher.set_patience(2 * DOWN);
        let mut watch = Watch { watcher, accounts: Vec::new(), sessions: Vec::new() };
        for _ in 0..count {
            let account = Account::fresh("lost");
            register_at(&there, &account).await?;
            let mut session = connect(&there, &account, "phone").await?;
            session.come_online().await?;
            subscribe(&mut watch.watcher, &mut session).await?;
            watch.accounts.push(account);
            watch.sessions.push(session);
        }
        Ok(watch)
    }

    /// The sessions log in again on the node `there`, and the contact sees each of them.
    async fn return_to(&mut self, there: Endpoint) -> Result<()> {
        self.sessions.clear();
        for account in &self.accounts {
            let mut session = connect(&there, account, "phone").await?;
            session.come_online().await?;
            let jid = session.jid().to_owned();
            self.watcher.recv_until(|stanza| is_presence(stanza, &jid, None)).await?;
            self.sessions.push(session);
        }
        Ok(())
    }

    /// Waits until the contact has heard of the end of each session, once.
    async fn until_gone(&mut self) -> Result<()> {
        let mut left: BTreeSet<String> = self.sessions.iter().map(|s| s.jid().to_owned()).collect();
        while !left.is_empty() {
            let stanza = self.watcher.recv().await?;
            let from = stanza.attr("from").unwrap_or_default();
            ensure!(is_presence(&stanza, from, Some("unavailable")), "not a goodbye: {stanza:?}");
            ensure!(left.remove(from), "a second goodbye of {from}");
        }
        Ok(())
    }

    /// Nothing more has come.
    async fn nothing_more(&mut self) -> Result<()> {
        self.watcher.send("<iq type='get' id='more'><ping xmlns='urn:xmpp:ping'/></iq>").await?;
        let stanza = self.watcher.recv().await?;
        ensure!(stanza.attr("id") == Some("more"), "after the goodbyes came {stanza:?}");
        Ok(())
    }
}

/// Waits until all contacts have heard of all, and the survivors have applied the same.
async fn all_gone(cluster: &mut TestCluster, watches: &mut [Watch], survivors: &[usize]) -> Result<()> {
    try_join_all(watches.iter_mut().map(Watch::until_gone)).await?;
    let equal = cluster.wait_until(Duration::from_secs(10), "equal tables", |view| {
        let applied = |index: &usize| view[*index].as_ref()?.group("routes")?.applied;
        survivors.iter().all(|index| applied(index).is_some() && applied(index) == applied(&survivors[0]))
    });
    equal.await?;
    try_join_all(watches.iter_mut().map(Watch::nothing_more)).await.map(drop)
}

async fn applied(cluster: &TestCluster, node: usize) -> u64 {
    cluster.status(node).await.unwrap().group("routes").unwrap().applied.unwrap()
}

/// P12, C13: of sessions that are lost with their node. `ALTHING_TEST_SESSIONS=5000` for a node with more of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_each_session_of_a_lost_node_each_contact_hears_once_and_soon() {
    let count = number("ALTHING_TEST_SESSIONS", 200) / WATCHERS;
    let mut cluster = TestCluster::start(3, "[auth]\nscram_iterations = 4096\n").await.unwrap();
    let victim = cluster.leader().await.unwrap();
    let survivors = cluster.others(victim);
    let begin = (0..WATCHERS).map(|index| {
        let here = cluster.endpoint(survivors[index % survivors.len()]);
        Watch::begin(here, cluster.endpoint(victim), count)
    });
    let mut watches = try_join_all(begin).await.unwrap();
    let before = applied(&cluster, survivors[0]).await;

    cluster.node_mut(victim).kill().unwrap();
    let began = Instant::now();
    let gone = all_gone(&mut cluster, &mut watches, &survivors);
    within_time(Duration::from_secs(5), "all goodbyes of a killed node", gone).await.unwrap();
    let entries = applied(&cluster, survivors[0]).await - before;
    eprintln!("{} goodbyes in {:?}, {entries} log entries", count * WATCHERS, began.elapsed());
    assert!(entries <= ENTRIES, "{entries} log entries for one dead node");

    // Its return is no reason for another goodbye.
    cluster.start_all().await.unwrap();
    try_join_all(watches.iter_mut().map(Watch::nothing_more)).await.unwrap();
    let there = cluster.endpoint(victim);
    try_join_all(watches.iter_mut().map(|watch| watch.return_to(there.clone()))).await.unwrap();

    cluster.node(victim).pause().unwrap();
    let began = Instant::now();
    let gone = all_gone(&mut cluster, &mut watches, &survivors);
    within_time(DOWN + Duration::from_secs(2), "all goodbyes of a silent node", gone).await.unwrap();
    eprintln!("{} goodbyes of a silent node in {:?}", count * WATCHERS, began.elapsed());
    cluster.node(victim).resume().unwrap();
    cluster.until_settled().await.unwrap();
    try_join_all(watches.iter_mut().map(Watch::nothing_more)).await.unwrap();
}
