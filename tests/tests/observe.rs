//! What an operator sees of a node tells the truth: metrics, the way of a stanza in the log, probes; and the log
//! keeps secrets.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "the whole file is a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use althing_proto::ns;
use althing_proto::sasl::{ChannelBinding, Mechanism};
use althing_tests::client::{Client, stanza_error};
use althing_tests::deadline::within;
use althing_tests::endpoint::Endpoint;
use althing_tests::friends::subscribe;
use althing_tests::login::{
    Account, Binding, Verdict, authenticate, bind, connect, logged_in, newcomer, register_at,
};
use althing_tests::node::TestNode;
use althing_tests::script::parser::Security;
use althing_tests::stream::Stream;
use althing_tests::tls::Versions;
use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Series of a scrape: name with labels, as Prometheus writes them, and value.
type Scrape = BTreeMap<String, f64>;

async fn scrape(node: &TestNode) -> Scrape {
    node.metrics().await.unwrap()
}

/// Waits until `series` is at least `value`: what ends a connection is counted a moment after its client
/// has seen it.
async fn until(node: &TestNode, series: &str, value: f64) {
    let reached = within(series, async {
        loop {
            if scrape(node).await.get(series).is_some_and(|seen| *seen >= value) {
                return Ok(());
            }
            tokio::task::yield_now().await;
        }
    });
    let reached = reached.await.is_ok();
    assert!(reached, "{series} is {:?}, expected at least {value}", scrape(node).await.get(series));
}

async fn login(endpoint: &Endpoint, account: &Account, mechanism: Mechanism) -> Verdict {
    let (mut stream, _) = Stream::open(endpoint, Security::DirectTls, Versions::Any).await.unwrap();
    let binding = match mechanism.is_plus() {
        true => Binding::Use(ChannelBinding::TlsExporter),
        false => Binding::Unsupported,
    };
    let verdict = authenticate(&mut stream, account, mechanism, binding).await.unwrap();
    if verdict == Verdict::Accepted {
        stream.header().await.unwrap();
        bind(&mut stream, None).await.unwrap();
    }
    verdict
}

#[tokio::test]
async fn every_metric_of_the_reference_is_shown_and_none_besides() {
    let node = TestNode::start("").await.unwrap();
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/reference/metrics.md");
    let page = std::fs::read_to_string(page).unwrap();
    // A node by itself: what a cluster has beside is looked for there.
    let (before, after) = page.split_once("Of a node in a cluster").unwrap();
    let (_, after) = after.split_once("Values of labels").unwrap();
    let rows = before.lines().chain(after.lines()).filter(|line| line.starts_with('|'));
    let names = rows.filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let documented: BTreeSet<&str> = names.collect();
    let (_, body) = node.http("/metrics").await.unwrap();
    let types = body.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let shown: BTreeSet<&str> = types.collect();
    assert!(documented.len() > 20, "the page cannot be read");
    assert_eq!(shown, documented);
}

/// Small bounds, so that a short script reaches them; one worker, so that a receiver cannot run while its
/// sender's batch is routed.
const TIGHT: &str = "[runtime]\nworkers = 1\n\
                     [limits]\nconnections = 12\nmailbox_stanzas = 16\nstanza_bytes = 65536\noutbox_bytes = 65536\nblock_bytes = 16384\nblock_entries = 1000\n";

/// T12, T17: among them the connections that are open.
#[tokio::test]
async fn each_metric_moves_with_what_it_counts() {
    let node = TestNode::start(TIGHT).await.unwrap();
    let endpoint = node.endpoint();
    let before = scrape(&node).await;

    let (alice, bob) = (Account::fresh("alice"), Account::fresh("bob"));
    register_at(&endpoint, &alice).await.unwrap();
    register_at(&endpoint, &bob).await.unwrap();
    register_at(&endpoint, &bob).await.unwrap_err();
    let wrong = Account { password: "wrong".to_owned(), ..alice.clone() };
    assert!(matches!(login(&endpoint, &wrong, Mechanism::ScramSha256).await, Verdict::Refused(_)));
    assert_eq!(login(&endpoint, &alice, Mechanism::Plain).await, Verdict::Accepted);
    unknown_mechanism(&endpoint).await;
    garbage_for_tls(&endpoint).await;
    let mut alice = connect(&endpoint, &alice, "a").await.unwrap();
    let mut bob = connect(&endpoint, &bob, "b").await.unwrap();
    bob.come_online().await.unwrap();
    until(&node, "althing_sessions", 2.0).await;
    assert_eq!(scrape(&node).await["althing_connections{listener=\"c2s\"}"], 2.0);

    let (to_bob, of_bob) = (bob.jid().to_owned(), bob.bare().to_owned());
    alice.send(&format!("<message to='{to_bob}'><body>hello</body></message>")).await.unwrap();
    bob.recv_until(|stanza| stanza.name() == "message").await.unwrap();
    for (to, condition) in
        [("nobody@localhost", "service-unavailable"), ("a@example.net", "remote-server-not-found")]
    {
        alice.send(&format!("<message type='groupchat' to='{to}'/>")).await.unwrap();
        assert_eq!(stanza_error(&alice.recv().await.unwrap()).unwrap(), condition);
    }
    alice.send("<message type='headline' to='nobody@localhost'/>").await.unwrap();
    alice.send("<iq type='result' to='nobody@localhost'/>").await.unwrap();
    alice.send("<iq type='no-such' id='m' to='nobody@localhost'/>").await.unwrap();
    assert_eq!(stanza_error(&alice.recv().await.unwrap()).unwrap(), "bad-request");
    let item = format!("<query xmlns='{}'><item jid='{of_bob}'/></query>", ns::ROSTER);
    assert_eq!(alice.iq("set", None, &item).await.unwrap().attr("type"), Some("result"));
    full_mailbox(&mut alice, &to_bob).await;
    alice.send("<message></presence>").await.unwrap();
    assert_eq!(alice.expect_stream_error().await.unwrap(), "not-well-formed");
    slow_reader(&node).await;
    let _held = one_connection_too_many(&node, &endpoint).await;

    let growth: &[(&str, f64)] = &[
        ("althing_connections_accepted_total{listener=\"c2s\"}", 5.0),
        ("althing_connections_accepted_total{listener=\"c2s_tls\"}", 4.0),
        ("althing_connections_rejected_total{reason=\"limit\"}", 1.0),
        ("althing_tls_handshakes_total{result=\"1.3\"}", 8.0),
        ("althing_tls_handshakes_total{result=\"failed\"}", 1.0),
        ("althing_tls_handshake_duration_seconds_count", 8.0),
        ("althing_logins_total{mechanism=\"SCRAM-SHA-256\",result=\"failure\"}", 1.0),
        ("althing_logins_total{mechanism=\"PLAIN\",result=\"success\"}", 1.0),
        ("althing_logins_total{mechanism=\"SCRAM-SHA-512\",result=\"success\"}", 2.0),
        ("althing_logins_total{mechanism=\"other\",result=\"failure\"}", 1.0),
        ("althing_session_setup_duration_seconds_count", 3.0),
        ("althing_registrations_total{result=\"created\"}", 2.0),
        ("althing_registrations_total{result=\"conflict\"}", 1.0),
        ("althing_stanzas_total{direction=\"in\",kind=\"message\"}", 4.0),
        ("althing_stanzas_total{direction=\"in\",kind=\"presence\"}", 1.0),
        ("althing_stanzas_total{direction=\"in\",kind=\"iq\"}", 1.0),
        ("althing_stanzas_total{direction=\"out\",kind=\"message\"}", 3.0),
        ("althing_stanzas_total{direction=\"out\",kind=\"presence\"}", 1.0),
        ("althing_stanzas_total{direction=\"out\",kind=\"iq\"}", 1.0),
        ("althing_delivery_total{outcome=\"delivered\"}", 1.0),
        ("althing_delivery_total{outcome=\"handled\"}", 1.0),
        ("althing_delivery_total{outcome=\"bounced\"}", 2.0),
        ("althing_stanzas_dropped_total{reason=\"rule\"}", 1.0),
        ("althing_stanzas_dropped_total{reason=\"malformed\"}", 1.0),
        ("althing_stanza_errors_total{condition=\"service-unavailable\"}", 1.0),
        ("althing_stanza_errors_total{condition=\"remote-server-not-found\"}", 1.0),
        ("althing_stanza_errors_total{condition=\"conflict\"}", 1.0),
        ("althing_stanza_errors_total{condition=\"bad-request\"}", 1.0),
        ("althing_stanza_errors_total{condition=\"resource-constraint\"}", 1.0),
        ("althing_stream_errors_total{condition=\"not-well-formed\"}", 1.0),
        ("althing_stream_errors_total{condition=\"policy-violation\"}", 1.0),
        ("althing_mailbox_full_total", 1.0),
        ("althing_slow_consumers_total", 1.0),
        ("althing_storage_duration_seconds_count{op=\"read\"}", 1.0),
        ("althing_storage_duration_seconds_count{op=\"write\"}", 3.0),
    ];
    for (series, least) in growth {
        let start = before.get(*series).unwrap_or_else(|| panic!("{series} has no zero at the start"));
        until(&node, series, start + least).await;
    }
    let after = scrape(&node).await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!(after["althing_tls_certificate_expiry_timestamp_seconds"] > now);
    assert!(after["althing_storage_size_bytes"] > 0.0);
    assert_eq!(after["althing_storage_errors_total"], 0.0);
    assert_eq!(after["althing_node_info{node=\"node-0\"}"], 1.0);
}

async fn unknown_mechanism(endpoint: &Endpoint) {
    let (mut stream, _) = Stream::open(endpoint, Security::DirectTls, Versions::Any).await.unwrap();
    stream.send(&format!("<auth xmlns='{}' mechanism='X-MINE'/>", ns::SASL)).await.unwrap();
    assert_eq!(stream.element().await.unwrap().name(), "failure");
}

async fn garbage_for_tls(endpoint: &Endpoint) {
    let mut socket = TcpStream::connect(endpoint.c2s_tls).await.unwrap();
    socket.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    // However it is closed: the handshake is over.
    let _ = within("the end", async { Ok(socket.read_to_end(&mut Vec::new()).await) }).await.unwrap();
}

/// More messages in one write than the receiver's mailbox holds.
async fn full_mailbox(alice: &mut Client, to: &str) {
    let flood: String = (0..100).map(|number| format!("<message to='{to}' id='{number}'/>")).collect();
    alice.send(&flood).await.unwrap();
    let refused = alice.recv_until(|stanza| stanza.attr("type") == Some("error")).await.unwrap();
    assert_eq!(stanza_error(&refused).unwrap(), "resource-constraint");
    alice.ping().await.unwrap();
}

/// A client that does not read while another writes to it, until the node closes it.
async fn slow_reader(node: &TestNode) {
    let endpoint = node.endpoint();
    let account = Account::fresh("sleeper");
    register_at(&endpoint, &account).await.unwrap();
    let (_asleep, jid) = logged_in(&endpoint, &account, None, Security::StartTls).await.unwrap();
    let mut writer = newcomer(&endpoint, "writer").await.unwrap();
    let body = "x".repeat(32 * 1024);
    within("closing the slow reader", async {
        while scrape(node).await["althing_slow_consumers_total"] < 1.0 {
            for _ in 0..8 {
                writer.send(&format!("<message to='{jid}'><body>{body}</body></message>")).await?;
            }
            writer.ping().await?;
        }
        Ok(())
    })
    .await
    .unwrap();
}

async fn one_connection_too_many(node: &TestNode, endpoint: &Endpoint) -> Vec<TcpStream> {
    let mut held = Vec::new();
    for _ in 0..=12 {
        held.push(TcpStream::connect(endpoint.c2s).await.unwrap());
    }
    until(node, "althing_connections_rejected_total{reason=\"limit\"}", 1.0).await;
    held
}

/// One event of a stanza's way: the session it happened in, the stop, and where it is said, the pass or the
/// direction.
fn way(log: &str, id: &str) -> Vec<(String, String)> {
    let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let field = |event: &Value, name: &str| -> Option<String> {
        let found = event.get(name).or_else(|| event.get("span")?.get(name))?;
        found.as_str().map(str::to_owned)
    };
    events
        .filter(|event| field(event, "id").as_deref() == Some(id))
        .filter_map(|event| {
            let detail = ["pass", "direction", "module"].iter().find_map(|name| field(&event, name));
            let stop = field(&event, "stop")?;
            let stop = detail.map_or(stop.clone(), |detail| format!("{stop} {detail}"));
            Some((field(&event, "jid").unwrap_or_default(), stop))
        })
        .collect()
}

/// P1: a support question is answered by a search for the stanza's id.
#[tokio::test]
async fn p1_one_presence_leaves_every_stop_of_its_way_in_order() {
    let node = TestNode::start("[log]\nfilter = \"debug\"\nformat = \"json\"\n").await.unwrap();
    let endpoint = node.endpoint();
    let mut alice = newcomer(&endpoint, "alice").await.unwrap();
    let mut bob = newcomer(&endpoint, "bob").await.unwrap();
    alice.come_online().await.unwrap();
    bob.come_online().await.unwrap();
    subscribe(&mut bob, &mut alice).await.unwrap();
    alice.send("<presence id='the-way'><status>here</status></presence>").await.unwrap();
    bob.recv_until(|stanza| stanza.attr("id") == Some("the-way")).await.unwrap();
    alice.recv_until(|stanza| stanza.attr("id") == Some("the-way")).await.unwrap();
    let way = way(&node.log(), "the-way");
    let of = |jid: &str| -> Vec<&str> {
        way.iter().filter(|(session, _)| session == jid).map(|(_, stop)| stop.as_str()).collect()
    };
    let received = ["session.actor inbound", "pipeline inbound", "stream.connection out"];
    let sent = [
        "stream.connection in",
        "session.actor outbound",
        "pipeline outbound",
        "pipeline.process presence",
        "delivery.fan_out",
        // Bob's session, and her own (RFC 6121 §4.2.2).
        "delivery.local",
        "delivery.local",
    ];
    assert_eq!(of(bob.jid()), received);
    assert_eq!(of(alice.jid()), [&sent[..], &received[..]].concat());
    // A mailbox is filled before its session wakes.
    let place =
        |wanted: &str, jid: &str| way.iter().position(|(session, stop)| session == jid && stop == wanted);
    assert!(place("delivery.local", alice.jid()) < place("session.actor inbound", bob.jid()), "{way:?}");
}

#[tokio::test]
async fn the_log_keeps_secrets_even_at_its_loudest() {
    let node = TestNode::start("[log]\nfilter = \"trace\"\nformat = \"json\"\n").await.unwrap();
    let endpoint = node.endpoint();
    let account = Account::fresh("alice");
    let mistyped = Account { password: format!("not-{}", Account::fresh("x").password), ..account.clone() };
    // The password in the field of the name, as it happens to people.
    let swapped = Account { user: account.password.clone(), password: account.user.clone() };
    register_at(&endpoint, &account).await.unwrap();
    for mechanism in Mechanism::ALL {
        assert_eq!(login(&endpoint, &account, mechanism).await, Verdict::Accepted);
        assert!(matches!(login(&endpoint, &mistyped, mechanism).await, Verdict::Refused(_)));
        assert!(matches!(login(&endpoint, &swapped, mechanism).await, Verdict::Refused(_)));
    }
    let log = node.log();
    assert!(log.contains("\"TRACE\"") && log.contains("login failed"), "the log is not at its loudest");
    assert!(log.contains("account registered in band"));
    for one in [&account, &mistyped, &swapped] {
        let plain = BASE64.encode(format!("\0{}\0{}", one.user, one.password));
        assert!(!log.contains(&plain), "the message of PLAIN is in the log");
    }
    for secret in [&account.password, &mistyped.password] {
        for form in [secret.clone(), BASE64.encode(secret), format!("{:?}", secret.as_bytes())] {
            let line = log.lines().find(|line| line.contains(&form));
            assert!(line.is_none(), "a password is in the log: {line:?}");
        }
    }
}

#[tokio::test]
async fn a_draining_node_is_alive_but_not_ready() {
    let mut node = TestNode::start("").await.unwrap();
    for probe in ["/startupz", "/livez", "/readyz"] {
        assert_eq!(node.http(probe).await.unwrap().0, 200, "{probe}");
    }
    let endpoint = node.endpoint();
    // Its last words are waited for, for it never closes: long enough to be asked.
    let mut held = newcomer(&endpoint, "alice").await.unwrap();
    let http = std::net::SocketAddr::new(endpoint.c2s.ip(), 5280);
    let draining = within("being unready", async {
        loop {
            let ready = ask(http, "/readyz").await?;
            if ready.contains(" 503 ") {
                return Ok((ready, ask(http, "/livez").await?));
            }
            tokio::task::yield_now().await;
        }
    });
    let (ended, seen) = tokio::join!(node.terminate(), draining);
    let (ready, alive) = seen.unwrap();
    assert!(ready.contains("not_draining"), "{ready}");
    assert!(alive.contains(" 200 "), "{alive}");
    assert!(ended.unwrap());
    assert_eq!(held.expect_stream_error().await.unwrap(), "system-shutdown");
}

async fn ask(http: std::net::SocketAddr, path: &str) -> Result<String> {
    let mut socket = TcpStream::connect(http).await?;
    socket.write_all(format!("GET {path} HTTP/1.0\r\nConnection: close\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await?;
    Ok(answer)
}
