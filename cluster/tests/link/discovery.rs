//! Questions to nodes that need not be members, and links of nodes that get to know their cluster late.

use std::io::ErrorKind;
use std::time::Duration;

use althing_cluster::executor::TaskRefusal;
use althing_cluster::link::discovery::{MAX_QUESTION, refuses};
use althing_cluster::link::frame::Lane;
use althing_cluster::link::hello::{ClusterId, Refusal};
use althing_cluster::link::{ConnectError, DiscoveryError, LinkError};
use bytes::Bytes;
use tokio::net::TcpListener;

use crate::support::{Ca, Node, Setup, note};

const PATIENCE: Duration = Duration::from_secs(20);

async fn ask(from: &Node, to: &Node, question: &'static [u8]) -> Result<Bytes, DiscoveryError> {
    let address = to.address.to_string();
    let answered = from.links.discover(&to.name, &address, Bytes::from_static(question), PATIENCE).await;
    answered.map(|(hello, answer)| {
        assert_eq!((hello.node, &hello.name), (to.id, &to.name));
        answer
    })
}

fn without_a_cluster(number: u64, ca: &Ca) -> Setup {
    let mut setup = Setup::new(number, ca);
    setup.hello.cluster = ClusterId::NONE;
    setup
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_a_cluster_asks_members_and_is_asked() {
    let ca = Ca::new();
    let (a, b) = (without_a_cluster(1, &ca).start().await, Node::start(2, &ca).await);
    let answer = a.links.discover(&b.name, &b.address.to_string(), "who".into(), PATIENCE).await;
    let (hello, answer) = answer.unwrap();
    assert_eq!((hello.cluster, hello.node), (ClusterId(1), b.id));
    assert_eq!(&answer[..], b"discovery who");
    assert_eq!(&ask(&b, &a, b"and you").await.unwrap()[..], b"discovery and you");
    // It is no member for that.
    assert!(a.links.peers().is_empty() && b.links.peers().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_come_up_once_the_cluster_is_known_to_both() {
    let ca = Ca::new();
    let (a, b) = (without_a_cluster(1, &ca).start().await, without_a_cluster(2, &ca).start().await);
    a.dial(&b);
    a.links.run_on(b.id, note("x")).unwrap();
    let no_cluster = Some(ConnectError::NotAccepted(Refusal::NoCluster));
    a.until(&b, |lane| lane.error == no_cluster).await;
    a.links.set_cluster(ClusterId(7));
    a.until(&b, |lane| lane.error == Some(ConnectError::Refused(Refusal::NoCluster))).await;
    b.links.set_cluster(ClusterId(8));
    a.until(&b, |lane| lane.error == Some(ConnectError::Refused(Refusal::OtherCluster))).await;
    assert!(b.recorder.texts().is_empty());
    b.links.set_cluster(ClusterId(7));
    b.recorder.count(1).await;
    a.until_lane(&b, Lane::Routes, |lane| lane.version == Some(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_and_versions_are_checked_as_on_every_lane() {
    let (ca, other) = (Ca::new(), Ca::new());
    let b = Node::start(2, &ca).await;
    let a = Node::start(1, &ca).await;
    let called = a.links.discover("node-3", &b.address.to_string(), Bytes::new(), PATIENCE).await;
    assert!(matches!(called, Err(DiscoveryError::Connect(ConnectError::Tls(_)))), "{called:?}");

    let mut setup = Setup::new(1, &ca);
    setup.hello.name = "node-3".to_owned();
    let liar = setup.start().await;
    let refused = |refusal| Err(DiscoveryError::Connect(ConnectError::Refused(refusal)));
    assert_eq!(ask(&liar, &b, b"").await, refused(Refusal::WrongName));

    let mut setup = Setup::new(1, &ca);
    (setup.hello.min, setup.hello.max) = (7, 8);
    let newer = setup.start().await;
    assert_eq!(ask(&newer, &b, b"").await, refused(Refusal::Version { min: 1, max: 1 }));

    let stranger = Node::start(1, &other).await;
    let called = ask(&stranger, &b, b"").await;
    assert!(matches!(called, Err(DiscoveryError::Connect(ConnectError::Tls(_)))), "{called:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_are_bounded_in_length_and_in_time() {
    let ca = Ca::new();
    let (a, b) = (Node::start(1, &ca).await, Node::start(2, &ca).await);
    static LONG: [u8; MAX_QUESTION + 1] = [b'x'; MAX_QUESTION + 1];
    assert_eq!(ask(&a, &b, &LONG[..MAX_QUESTION]).await.unwrap().len(), "discovery ".len() + MAX_QUESTION);
    let too_long = Err(DiscoveryError::Link(LinkError::TooLarge(MAX_QUESTION + 1)));
    assert_eq!(ask(&a, &b, &LONG).await, too_long);
    let refused = Err(DiscoveryError::Link(LinkError::Refused(TaskRefusal::Suspended)));
    assert_eq!(ask(&a, &b, b"refuse").await, refused);
    let address = b.address.to_string();
    let never = a.links.discover(&b.name, &address, "wait".into(), Duration::from_millis(100)).await;
    assert_eq!(never, Err(DiscoveryError::Link(LinkError::Deadline)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_where_nobody_listens_refuses() {
    let ca = Ca::new();
    let a = Node::start(1, &ca).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    assert!(!refuses(&address, PATIENCE).await);
    drop(listener);
    assert!(refuses(&address, PATIENCE).await);
    let error = a.links.discover("node-2", &address, Bytes::new(), PATIENCE).await.unwrap_err();
    let refused =
        matches!(error, DiscoveryError::Connect(ConnectError::Io { kind: ErrorKind::ConnectionRefused, .. }));
    assert!(refused, "{error:?}");
}
