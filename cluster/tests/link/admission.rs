//! Who is let in, and who is not.

use althing_cluster::link::frame::Lane;
use althing_cluster::link::hello::{ClusterId, Refusal};
use althing_cluster::link::{ConnectError, Peer};
use althing_cluster::node_id::NodeId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Ca, Node, Setup, note};

/// Dials `b`, and returns why there is no connection. Nothing may have been run.
async fn refusal(a: &Node, b: &Node, peer: &Peer) -> ConnectError {
    a.links.add_peer(peer);
    a.links.run_on(peer.node, note("x")).unwrap();
    let give_up = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        let lane = a.links.status(peer.node).into_iter().find(|lane| lane.lane == Lane::Tasks).unwrap();
        assert_eq!(lane.version, None);
        if let Some(error) = lane.error {
            assert!(b.recorder.texts().is_empty());
            return error;
        }
        assert!(std::time::Instant::now() < give_up);
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_clusters_certificates_are_refused_by_both_sides() {
    let (ours, theirs) = (Ca::new(), Ca::new());
    let b = Node::start(2, &ours).await;
    let a = Node::start(1, &theirs).await;
    let error = refusal(&a, &b, &b.at(b.address)).await;
    assert!(
        matches!(&error, ConnectError::Tls(why) if why.contains("invalid peer certificate")),
        "{error:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_without_a_certificate_of_the_cluster_is_refused_by_the_server() {
    let (ours, theirs) = (Ca::new(), Ca::new());
    let b = Node::start(2, &ours).await;
    // It trusts the cluster's CA, but its own certificate is another's.
    let mut setup = Setup::new(1, &ours);
    setup.tls = theirs.tls_trusting("node-1", &ours);
    let a = setup.start().await;
    let error = refusal(&a, &b, &b.at(b.address)).await;
    assert!(matches!(&error, ConnectError::Tls(_) | ConnectError::Io { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_the_certificate_does_not_bear_is_refused() {
    let ca = Ca::new();
    let b = Node::start(2, &ca).await;

    // The dialing side checks the name that it calls.
    let a = Node::start(1, &ca).await;
    let called = Peer { name: "node-3".to_owned(), ..b.at(b.address) };
    let error = refusal(&a, &b, &called).await;
    assert!(matches!(&error, ConnectError::Tls(why) if why.contains("not valid for name")), "{error:?}");

    // The accepting side checks the name that the caller gives.
    let mut setup = Setup::new(1, &ca);
    setup.hello.name = "node-3".to_owned();
    let a = setup.start().await;
    assert_eq!(refusal(&a, &b, &b.at(b.address)).await, ConnectError::Refused(Refusal::WrongName));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_cluster_node_or_version_is_refused() {
    let ca = Ca::new();
    let b = Node::start(2, &ca).await;

    let mut setup = Setup::new(1, &ca);
    setup.hello.cluster = ClusterId(9);
    let a = setup.start().await;
    assert_eq!(refusal(&a, &b, &b.at(b.address)).await, ConnectError::Refused(Refusal::OtherCluster));

    let mut setup = Setup::new(1, &ca);
    (setup.hello.min, setup.hello.max) = (7, 8);
    let a = setup.start().await;
    let versions = Refusal::Version { min: 1, max: 1 };
    assert_eq!(refusal(&a, &b, &b.at(b.address)).await, ConnectError::Refused(versions));

    let a = Node::start(1, &ca).await;
    let other = Peer { node: NodeId::new(3), ..b.at(b.address) };
    assert_eq!(refusal(&a, &b, &other).await, ConnectError::NotAccepted(Refusal::WrongNode));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_is_closed_and_harms_nobody() {
    let ca = Ca::new();
    let (a, b) = (Node::start(1, &ca).await, Node::start(2, &ca).await);
    a.dial(&b);
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 4096], &[22, 3, 1, 255, 255]] {
        let mut stream = TcpStream::connect(b.address).await.unwrap();
        let _ = stream.write_all(garbage).await;
        let _ = stream.shutdown().await;
        let mut rest = Vec::new();
        // Closed or reset: either way it ends.
        let end = stream.read_to_end(&mut rest);
        let _ = tokio::time::timeout(std::time::Duration::from_secs(10), end).await.expect("still open");
    }
    a.links.run_on(b.id, note("x")).unwrap();
    b.recorder.count(1).await;
}
