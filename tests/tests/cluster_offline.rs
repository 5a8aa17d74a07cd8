//! Messages for who is not there, on three nodes: what is sent while somebody comes gets there, once.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "the whole file is a test")]

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use althing_tests::client::Client;
use althing_tests::cluster::TestCluster;
use althing_tests::deadline::number;
use althing_tests::login::{Account, connect, newcomer, register_at};
use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;

/// How many messages are sent while bob comes.
const MESSAGES: usize = 3;
/// How many pairs do so at the same time.
const PAIRS: usize = 8;

/// One round: alice writes to bob, who comes on another node, sooner or later than her messages.
async fn race(round: usize, cluster: &TestCluster, alice: &mut Client, account: &Account) -> Result<()> {
    let to = account.bare(alice.domain());
    let mut bob = connect(&cluster.endpoint(round % 2), account, "desk").await?;
    let pause = |steps: usize| tokio::time::sleep(Duration::from_micros(400 * steps as u64));
    let sent = async {
        for message in 0..MESSAGES {
            pause((round * 5 + message * 3) % 7).await;
            let id = format!("{round}-{message}");
            alice.send(&format!("<message to='{to}' type='chat' id='{id}'><body>x</body></message>")).await?;
        }
        // All of it is in the server's hands.
        alice.ping().await
    };
    let comes = async {
        pause(round % 11).await;
        bob.send("<presence/>").await
    };
    let (sent, comes) = tokio::join!(sent, comes);
    sent?;
    comes?;
    let mut got = BTreeSet::new();
    while got.len() < MESSAGES {
        let stanza = bob.recv_until(|stanza| stanza.name() == "message").await?;
        let id = stanza.attr("id").unwrap_or_default().to_owned();
        ensure!(id.starts_with(&format!("{round}-")), "{id} came in round {round}: once more");
        ensure!(got.insert(id.clone()), "{id} came twice");
    }
    bob.send("<iq type='get' id='last'><ping xmlns='urn:xmpp:ping'/></iq>").await?;
    loop {
        let stanza = bob.recv().await?;
        ensure!(stanza.name() != "message", "{:?} came twice", stanza.attr("id"));
        if stanza.attr("id") == Some("last") {
            return bob.close().await;
        }
    }
}

/// The rounds of one pair, which has these numbers.
async fn races(rounds: Range<usize>, cluster: &TestCluster) -> Result<()> {
    let account = Account::fresh("bob");
    register_at(&cluster.endpoint(0), &account).await?;
    let mut alice = newcomer(&cluster.endpoint(2), "alice").await?;
    for round in rounds {
        let raced = Box::pin(race(round, cluster, &mut alice, &account)).await;
        raced.with_context(|| format!("round {round}"))?;
    }
    alice.close().await
}

/// S14, R19, R21: no message is lost between "away" and "here", none comes twice, whichever of the two is first: a
/// thousand times, by several pairs at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s14_r19_r21_what_is_sent_while_somebody_comes_gets_there_once() {
    let cluster = TestCluster::start(3, "[auth]\nscram_iterations = 4096\n").await.unwrap();
    let rounds = number("ALTHING_TEST_RACES", 1_000);
    let part = |pair: usize| pair * rounds / PAIRS..(pair + 1) * rounds / PAIRS;
    let all = (0..PAIRS).map(|pair| Box::pin(races(part(pair), &cluster)));
    try_join_all(all).await.unwrap();
}
