//! Promise 1 across nodes: of two clients that bind the same full JID on two nodes at once, one stays.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "the whole file is a test")]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use althing_proto::ns;
use althing_tests::client::{Client, condition_of, stanza_error};
use althing_tests::cluster::TestCluster;
use althing_tests::deadline::{number, within};
use althing_tests::login::{Account, authenticated, bind_request, newcomer, register_at};
use althing_tests::script::parser::Security;
use althing_tests::stream::{Event, Stream};
use anyhow::{Result, bail, ensure};
use minidom::Element;
use tokio::sync::Barrier;

const RESOURCE: &str = "phone";
/// The last message of a round, which only the one who stays may get.
const LAST: &str = "last";

/// What one of the two clients has seen.
#[derive(Debug, Default)]
struct Seen {
    /// The number of the next message when its bind was answered: it and all later ones are sent after that.
    answered_at: Option<usize>,
    /// The numbers of the messages that it got.
    numbers: Vec<usize>,
    /// Whether it is the one who stays.
    stays: bool,
}

/// How far the two are, and which message is the next.
#[derive(Debug)]
struct Course {
    start: Barrier,
    next: AtomicUsize,
    answered: [AtomicBool; 2],
    heard: [AtomicBool; 2],
    ended: [AtomicBool; 2],
}

impl Course {
    /// One has lost, and the other hears what is sent after its bind was answered; or none is left.
    fn is_decided(&self) -> bool {
        let set = |flags: &[AtomicBool; 2], index: usize| flags[index].load(Ordering::SeqCst);
        let stays = |index: usize| set(&self.heard, index) && set(&self.ended, 1 - index);
        stays(0) || stays(1) || set(&self.ended, 0) && set(&self.ended, 1)
    }
}

/// Binds and looks at all that comes until the end of the stream, a refusal, or the last message.
async fn contend(mut stream: Stream, course: &Course, index: usize, head: Duration) -> Result<Seen> {
    let mut seen = Seen::default();
    course.start.wait().await;
    // Who is first is part of the case, and no condition.
    tokio::time::sleep(head).await;
    stream.send(&bind_request(Some(RESOURCE))).await?;
    loop {
        let stanza = match stream.event().await? {
            Event::Element(stanza) => stanza,
            other => bail!("expected <conflict/> before the end, got {other:?}; before: {seen:?}"),
        };
        if stanza.is("error", ns::STREAM) || stanza.attr("id") == Some("bind") && is_error(&stanza) {
            let condition =
                if stanza.name() == "iq" { stanza_error(&stanza)? } else { condition_of(&stanza) };
            match condition.as_str() {
                "conflict" => return Ok(seen),
                other => bail!("expected <conflict/>, got <{other}/>"),
            }
        }
        match (stanza.name(), stanza.attr("id")) {
            ("iq", Some("bind")) => {
                seen.answered_at = Some(course.next.load(Ordering::SeqCst));
                course.answered[index].store(true, Ordering::SeqCst);
            }
            ("message", Some(LAST)) => {
                seen.stays = true;
                return Ok(seen);
            }
            ("message", Some(id)) => {
                seen.numbers.push(id.parse()?);
                if seen.answered_at.is_some_and(|at| seen.numbers.last() >= Some(&at)) {
                    course.heard[index].store(true, Ordering::SeqCst);
                }
            }
            _ => bail!("unexpected: {stanza:?}"),
        }
    }
}

fn is_error(stanza: &Element) -> bool {
    stanza.attr("type") == Some("error")
}

/// Carol writes numbered messages to the contended JID until the race is decided; then the last one.
async fn write(carol: &mut Client, to: &str, course: &Course) -> Result<()> {
    // As fast as one who types very fast: what is held for an address goes on one by one, and has a bound.
    let mut pace = tokio::time::interval(Duration::from_millis(3));
    while !course.is_decided() {
        pace.tick().await;
        let number = course.next.fetch_add(1, Ordering::SeqCst);
        carol.send(&format!("<message to='{to}' id='{number}'/>")).await?;
    }
    carol.send(&format!("<message to='{to}' id='{LAST}'/>")).await
}

/// The numbers that came back to her so far.
async fn bounces(carol: &mut Client) -> Result<BTreeSet<usize>> {
    carol.send("<iq type='get' id='so far'><ping xmlns='urn:xmpp:ping'/></iq>").await?;
    let mut found = BTreeSet::new();
    loop {
        let stanza = carol.recv().await?;
        let id = stanza.attr("id").unwrap_or_default();
        if id == "so far" {
            return Ok(found);
        }
        let condition = stanza_error(&stanza)?;
        ensure!(condition == "service-unavailable", "{id} came back with {condition}");
        found.insert(id.parse()?);
    }
}

/// One race; `heads` are the head starts of the two.
async fn race(
    cluster: &TestCluster,
    carol: &mut Client,
    account: &Account,
    heads: [Duration; 2],
) -> Result<()> {
    let to = format!("{}/{RESOURCE}", account.bare(carol.domain()));
    let course = Course {
        start: Barrier::new(2),
        next: AtomicUsize::new(0),
        answered: Default::default(),
        heard: Default::default(),
        ended: Default::default(),
    };
    let mut streams = Vec::new();
    for index in 0..2 {
        streams.push(authenticated(&cluster.endpoint(index), account, Security::DirectTls).await?);
    }
    let one = async |index: usize, stream: Stream| {
        let seen = contend(stream, &course, index, heads[index]).await;
        course.ended[index].store(true, Ordering::SeqCst);
        seen
    };
    let (Some(right), Some(left)) = (streams.pop(), streams.pop()) else { bail!("no streams") };
    let racing = within("the race", async {
        let (left, right, written) = tokio::join!(one(0, left), one(1, right), write(carol, &to, &course));
        written?;
        Ok([left?, right?])
    });
    let seen = match Box::pin(racing).await {
        Ok(seen) => seen,
        Err(error) => {
            let (sessions, bounced) = (cluster.route(2, &to).await?.sessions, bounces(carol).await);
            bail!("{error:#}: {course:?}; it is at {sessions:?}; bounced: {bounced:?}")
        }
    };
    let bounced = bounces(carol).await?;
    let (owner, other) = match (&seen[0], &seen[1]) {
        (owner, other) | (other, owner) if owner.stays && !other.stays => (owner, other),
        _ => bail!("not exactly one stays: {seen:?}"),
    };
    let Some(from) = owner.answered_at else { bail!("who stays was never answered: {seen:?}") };
    if other.numbers.iter().any(|number| *number >= from) {
        bail!("the loser got what was sent after the winner's answer: {seen:?}");
    }
    // Carol's node may know of the bind a moment later than the client itself: until then messages come back.
    let got = owner.numbers.iter().copied().filter(|number| *number >= from);
    let back = bounced.iter().copied().filter(|number| *number >= from);
    let accounted: Vec<usize> = back.chain(got).collect();
    let sent: Vec<usize> = (from..course.next.load(Ordering::SeqCst)).collect();
    ensure!(
        accounted == sent,
        "of {sent:?} came back {bounced:?}, the rest did not arrive in order: {seen:?}"
    );
    Ok(())
}

/// `ALTHING_TEST_RACES` for more of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_that_bind_one_address_at_once_exactly_one_stays() {
    let cluster = TestCluster::start(3, "[auth]\nscram_iterations = 4096\n").await.unwrap();
    let account = Account::fresh("alice");
    register_at(&cluster.endpoint(0), &account).await.unwrap();
    let mut carol = newcomer(&cluster.endpoint(2), "carol").await.unwrap();
    for number in 0..number("ALTHING_TEST_RACES", 200) {
        let head = Duration::from_micros(100 * (number as u64 % 10));
        let heads = if number % 2 == 0 { [Duration::ZERO, head] } else { [head, Duration::ZERO] };
        let raced = Box::pin(race(&cluster, &mut carol, &account, heads)).await;
        raced.unwrap_or_else(|error| panic!("race {number}: {error:#}"));
    }
}

/// After a conflict across nodes the tables of all nodes name the same owner, and only one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_nodes_agree_who_owns_an_address_that_was_taken_over() {
    let mut cluster = TestCluster::start(3, "").await.unwrap();
    let account = Account::fresh("alice");
    register_at(&cluster.endpoint(0), &account).await.unwrap();
    let mut former: Option<Client> = None;
    for node in [0, 1, 2, 0, 2, 1] {
        let client =
            althing_tests::login::connect(&cluster.endpoint(node), &account, RESOURCE).await.unwrap();
        if let Some(mut former) = former.take() {
            assert_eq!(former.expect_stream_error().await.unwrap(), "conflict");
        }
        let name = format!("node-{node}");
        let agreed = within("agreement", async {
            loop {
                let mut owners = Vec::new();
                for asked in 0..3 {
                    owners.push(cluster.route(asked, client.jid()).await?.sessions);
                }
                let right = |sessions: &Vec<_>| sessions.len() == 1 && *sessions == owners[0];
                if owners.iter().all(right) && owners[0][0].node.as_deref() == Some(name.as_str()) {
                    return Ok(());
                }
                tokio::task::yield_now().await;
            }
        });
        agreed.await.unwrap();
        former = Some(client);
    }
    cluster.kill_all().unwrap();
}
