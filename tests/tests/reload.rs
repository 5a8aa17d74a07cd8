//! T15: the configuration changes while the node runs, and no connection notices but by what changed.

#![allow(clippy::unwrap_used, clippy::panic, reason = "the whole file is a test")]

use althing_proto::ns;
use althing_proto::sasl::Mechanism;
use althing_tests::client::{Client, condition_of, stanza_error};
use althing_tests::component::Component;
use althing_tests::deadline::within;
use althing_tests::endpoint::Endpoint;
use althing_tests::login::{Account, Binding, Verdict, authenticate, bind, connect, newcomer, register_at};
use althing_tests::node::TestNode;
use althing_tests::script::parser::Security;
use althing_tests::setup::client_certificates;
use althing_tests::socket::Socket;
use althing_tests::stream::Stream;
use althing_tests::tls::Versions;
use althing_tests::websocket;
use anyhow::{Context, Result};
use minidom::Element;

/// A message of so many bytes to oneself, and whether it came back.
async fn fits(client: &mut Client, bytes: usize) -> Result<()> {
    let (id, to) = (client.fresh_id(), client.jid().to_owned());
    let body = "x".repeat(bytes);
    client.send(&format!("<message to='{to}' id='{id}'><body>{body}</body></message>")).await?;
    client.recv_until(|stanza| stanza.attr("id") == Some(&id)).await.map(drop)
}

async fn metric(node: &TestNode, line: &str) -> bool {
    node.http("/metrics").await.is_ok_and(|(_, text)| text.contains(&format!("\n{line}\n")))
}

async fn until_metric(node: &TestNode, line: &str) {
    let wait = async {
        while !metric(node, line).await {}
        Ok(())
    };
    within(line, Box::pin(wait)).await.unwrap();
}

/// The serial number of the certificate that a new connection sees.
async fn serial(endpoint: &Endpoint) -> Result<Vec<u8>> {
    let Socket::Tls(stream) = websocket::connect(endpoint, true).await? else { anyhow::bail!("no TLS") };
    let chain = stream.get_ref().1.peer_certificates().context("no certificate")?;
    let (_, leaf) = x509_parser::parse_x509_certificate(chain.first().context("no certificate")?)?;
    Ok(leaf.raw_serial().to_vec())
}

const SMALL: &str = "[limits]\nstanza_bytes = 20000\n";
const LARGE: &str = "[limits]\nstanza_bytes = 200000\nsessions_per_account = 1\n";

#[tokio::test]
async fn t15_limits_change_for_clients_that_stay() {
    let mut node = TestNode::start(SMALL).await.unwrap();
    let endpoint = node.endpoint();
    let account = Account::fresh("alice");
    register_at(&endpoint, &account).await.unwrap();
    let mut alice = connect(&endpoint, &account, "one").await.unwrap();
    let mut bob = newcomer(&endpoint, "bob").await.unwrap();
    fits(&mut alice, 10_000).await.unwrap();
    connect(&endpoint, &account, "two").await.unwrap();

    node.rewrite(LARGE).unwrap();
    node.hang_up().unwrap();
    until_metric(&node, "althing_config_reloads_total{result=\"success\"} 1").await;
    fits(&mut alice, 100_000).await.unwrap();
    assert!(connect(&endpoint, &account, "three").await.is_err());

    node.rewrite(SMALL).unwrap();
    let (code, said) = node.reload().await.unwrap();
    assert_eq!(code, 0, "{said}");
    assert!(said.starts_with("in force now: limits.stanza_bytes, limits.sessions_per_account\n"), "{said}");
    fits(&mut bob, 10_000).await.unwrap();
    bob.send(&format!("<message><body>{}</body></message>", "x".repeat(100_000))).await.unwrap();
    assert_eq!(bob.expect_stream_error().await.unwrap(), "policy-violation");
    alice.ping().await.unwrap();
}

/// What a stream announces to a client that has logged in (XEP-0478 §2).
async fn announced(stream: &mut Stream, account: &Account) -> (String, Option<String>) {
    let verdict = authenticate(stream, account, Mechanism::ScramSha256, Binding::Unsupported).await.unwrap();
    assert_eq!(verdict, Verdict::Accepted);
    let features = stream.header().await.unwrap();
    let limits = features.get_child("limits", ns::STREAM_LIMITS).unwrap();
    let text = |name: &str| limits.get_child(name, ns::STREAM_LIMITS).map(Element::text);
    (text("max-bytes").unwrap(), text("idle-seconds"))
}

/// T15: new limits are announced to whoever logs in from now on, also on a stream that was open before.
#[tokio::test]
async fn t15_limits_are_announced_as_they_are_now() {
    let open = async |node: &TestNode| {
        Stream::open(&node.endpoint(), Security::StartTls, Versions::Any).await.unwrap().0
    };
    let mut node = TestNode::start("[limits]\nstanza_bytes = 20000\nclient_ping_s = 100\n").await.unwrap();
    let account = Account::fresh("alice");
    register_at(&node.endpoint(), &account).await.unwrap();
    let (mut before, mut early) = (open(&node).await, open(&node).await);
    assert_eq!(announced(&mut before, &account).await, ("20000".to_owned(), Some("100".to_owned())));

    node.rewrite("[limits]\nstanza_bytes = 200000\nclient_ping_s = 50\n").unwrap();
    assert_eq!(node.reload().await.unwrap().0, 0);
    let now = ("200000".to_owned(), Some("50".to_owned()));
    assert_eq!(announced(&mut early, &account).await, now);
    assert_eq!(announced(&mut open(&node).await, &account).await, now);
    // What was announced holds.
    let jid = bind(&mut early, Some("early")).await.unwrap();
    let mut early = Client::new(early, jid);
    fits(&mut early, 100_000).await.unwrap();
}

/// T15: the services of XEP-0215 are those of now, and no secret is told to anybody but as a password made of it.
#[tokio::test]
async fn t15_external_services_follow_the_configuration() {
    const ASK: &str = "<services xmlns='urn:xmpp:extdisco:2'/>";
    const SECRET: &str = "known to the relay alone";
    let service = |secret: &str| {
        format!(
            "[[services.external]]\ntype = \"turn\"\nhost = \"turn.localhost\"\n{secret}\n[log]\nfilter = \"trace\"\n"
        )
    };
    let mut node = TestNode::start("").await.unwrap();
    let mut alice = newcomer(&node.endpoint(), "alice").await.unwrap();
    let domain = alice.domain().to_owned();
    let none = alice.iq("get", Some(&domain), ASK).await.unwrap();
    assert_eq!(stanza_error(&none).unwrap(), "service-unavailable");

    node.rewrite(&service(&format!("secret = \"{SECRET}\""))).unwrap();
    let (code, said) = node.reload().await.unwrap();
    assert_eq!((code, said.contains("services.external"), said.contains(SECRET)), (0, true, false), "{said}");
    let told = alice.iq("get", Some(&domain), ASK).await.unwrap();
    let services = told.get_child("services", ns::EXTERNAL_SERVICES).unwrap();
    let password = services.children().next().and_then(|service| service.attr("password")).unwrap();

    // A file that is not there: all stays as it is.
    node.rewrite(&service("secret_file = \"nowhere\"")).unwrap();
    let (code, said) = node.reload().await.unwrap();
    assert_eq!((code, said.contains("turn.localhost")), (1, true), "{said}");
    assert!(alice.iq("get", Some(&domain), ASK).await.unwrap().has_child("services", ns::EXTERNAL_SERVICES));
    let log = node.log();
    assert!(!log.contains(SECRET) && !log.contains(password), "a secret is in the log");
}

/// T15: limits hold for components that stay attached.
#[tokio::test]
async fn t15_limits_change_for_components_that_stay() {
    let mut node = TestNode::start(LARGE).await.unwrap();
    let mut gateway = Component::attach(&node.endpoint(), "gateway.localhost").await.unwrap();
    let padding = " ".repeat(100_000);
    let padded = format!(
        "<iq type='get' id='p' from='gateway.localhost' to='localhost'><ping xmlns='urn:xmpp:ping'/>{padding}</iq>"
    );
    gateway.send(&padded).await.unwrap();
    assert_eq!(gateway.element().await.unwrap().attr("type"), Some("result"));
    node.rewrite(SMALL).unwrap();
    assert_eq!(node.reload().await.unwrap().0, 0);
    gateway.send(&padded).await.unwrap();
    let error = gateway.element().await.unwrap();
    assert!(error.is("error", ns::STREAM), "{error:?}");
    assert_eq!(condition_of(&error), "policy-violation");
}

#[tokio::test]
async fn t15_a_new_certificate_is_for_new_connections() {
    let node = TestNode::start("").await.unwrap();
    let mut alice = newcomer(&node.endpoint(), "alice").await.unwrap();
    let before = serial(&node.endpoint()).await.unwrap();
    let renewed = tempfile::tempdir().unwrap();
    client_certificates(renewed.path()).unwrap();
    for file in ["ca.pem", "server.pem", "server.key"] {
        std::fs::copy(renewed.path().join(file), node.setup().certificates.join(file)).unwrap();
    }
    let (code, said) = node.reload().await.unwrap();
    assert_eq!(code, 0, "{said}");
    assert!(said.starts_with("no key has changed\ncertificate read: valid until "), "{said}");
    assert_ne!(serial(&node.endpoint()).await.unwrap(), before);
    // By the new authority, with STARTTLS; and the old stream goes on.
    newcomer(&node.endpoint(), "bob").await.unwrap();
    alice.ping().await.unwrap();
}

#[tokio::test]
async fn a_configuration_that_cannot_be_used_changes_nothing() {
    let mut node = TestNode::start(SMALL).await.unwrap();
    let mut alice = newcomer(&node.endpoint(), "alice").await.unwrap();
    let key = node.setup().certificates.join("server.key");
    let good_key = std::fs::read(&key).unwrap();

    for (overlay, why) in [
        ("[limits]\nstanza_bytes = 200000\ndepth = 1\n", "limits.depth: 1 is out of range"),
        ("[limits]\nstanza_bytes = 200000\n[log]\nfilter = \"a=b=c\"\n", "log.filter: is no filter"),
        (
            "[limits]\nstanza_bytes = 200000\n[listen]\nweb = []\n[web]\nwebsocket_url = \"x\"\n",
            "web.websocket_url",
        ),
    ] {
        node.rewrite(overlay).unwrap();
        let (code, said) = node.reload().await.unwrap();
        assert_eq!(code, 1, "{said}");
        assert!(said.contains(why), "{said}");
    }
    // A file in order, a key that is not: the file waits for the key.
    node.rewrite("[limits]\nstanza_bytes = 200000\n").unwrap();
    std::fs::write(&key, "no key").unwrap();
    let (code, said) = node.reload().await.unwrap();
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("server.key: holds no private key"), "{said}");
    assert!(metric(&node, "althing_config_reloads_total{result=\"failure\"} 4").await);
    assert!(metric(&node, "althing_config_last_reload_successful 0").await);
    assert!(node.log().contains("configuration not reloaded"));
    serial(&node.endpoint()).await.unwrap();
    fits(&mut alice, 10_000).await.unwrap();
    alice.send(&format!("<message><body>{}</body></message>", "x".repeat(100_000))).await.unwrap();
    assert_eq!(alice.expect_stream_error().await.unwrap(), "policy-violation");

    std::fs::write(&key, good_key).unwrap();
    assert_eq!(node.reload().await.unwrap().0, 0);
    assert!(metric(&node, "althing_config_last_reload_successful 1").await);
}

/// T15: a host keeps what is on its way in the store, or does no more, from a reload on; one that is not served is refused, also
/// where the file alone would be right. Receipts show which: they are for accounts whose messages are kept until they have
/// arrived.
#[tokio::test]
async fn t15_a_hosts_durability_is_that_of_now() {
    const ENABLE: &str = "<enable xmlns='urn:althing:receipts:0'/>";
    let overlay = |domains: &str, hosts: &str| {
        format!("[xmpp]\ndomains = [\"localhost\"{domains}]\n[messages]\nhosts = [{hosts}]\n")
    };
    let host = |domain: &str, durability: &str| {
        format!("{{ domain = \"{domain}\", durability = \"{durability}\" }}")
    };
    let both = ", \"quick.localhost\"";
    let mut node = TestNode::start(&overlay(both, &host("quick.localhost", "memory"))).await.unwrap();
    let endpoint = Endpoint { domain: "quick.localhost".to_owned(), ..node.endpoint() };
    let mut quick = newcomer(&endpoint, "quick").await.unwrap();
    let mut alice = newcomer(&node.endpoint(), "alice").await.unwrap();
    let error = quick.iq("set", None, ENABLE).await.unwrap();
    assert_eq!(stanza_error(&error).unwrap(), "service-unavailable");
    assert!(alice.iq("set", None, ENABLE).await.unwrap().has_child("enabled", "urn:althing:receipts:0"));

    for (domains, hosts, why) in [
        (both, host("other.localhost", "memory"), "\"other.localhost\" is not in xmpp.domains"),
        (both, host("quick.localhost", "memory").repeat(2).replace("}{", "}, {"), "stands there twice"),
        (
            ", \"quick.localhost\", \"new.localhost\"",
            host("new.localhost", "memory"),
            "\"new.localhost\" is not in xmpp.domains",
        ),
    ] {
        node.rewrite(&overlay(domains, &hosts)).unwrap();
        let (code, said) = node.reload().await.unwrap();
        assert_eq!((code, said.contains(why)), (1, true), "{said}");
    }
    let error = quick.iq("set", None, ENABLE).await.unwrap();
    assert_eq!(stanza_error(&error).unwrap(), "service-unavailable", "nothing has changed");

    node.rewrite(&overlay(both, &host("localhost", "memory"))).unwrap();
    let (code, said) = node.reload().await.unwrap();
    assert_eq!((code, said.starts_with("in force now: messages.hosts\n")), (0, true), "{said}");
    assert!(quick.iq("set", None, ENABLE).await.unwrap().has_child("enabled", "urn:althing:receipts:0"));
    let error = alice.iq("set", None, ENABLE).await.unwrap();
    assert_eq!(stanza_error(&error).unwrap(), "service-unavailable");
}

#[tokio::test]
async fn what_takes_a_restart_is_told() {
    let mut node = TestNode::start("").await.unwrap();
    node.rewrite("[listen]\nweb = []\n[log]\nfilter = \"debug\"\n[storage]\ncache_mib = 64\n").unwrap();
    let (code, said) = node.reload().await.unwrap();
    assert_eq!(code, 0, "{said}");
    assert!(said.starts_with("in force now: log.filter\n"), "{said}");
    assert!(said.ends_with("only a restart brings it: listen.web, storage.cache_mib\n"), "{said}");
    // The log says more from now on, and the port is open as before.
    let mut alice = newcomer(&node.endpoint(), "alice").await.unwrap();
    alice.ping().await.unwrap();
    assert!(node.log().contains("connection accepted"));
    assert_eq!(websocket::ask(&node.endpoint(), false, "/", "").await.unwrap().0, 404);
}

/// What a scrape says of one series.
async fn value(node: &TestNode, series: &str) -> Option<String> {
    let (_, text) = node.http("/metrics").await.unwrap();
    text.lines().find_map(|line| line.strip_prefix(series)).map(|value| value.trim().to_owned())
}

/// T15: what has changed is felt, that it has changed is not. By command and by SIGHUP, with a new certificate, and with a
/// file of which nothing may be taken, for a part of it is wrong: no session ends, and no message is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t15_nothing_is_lost_while_it_is_read_again_and_again() {
    const MESSAGES: usize = 3_000;
    const BROKEN: &str = "[limits]\nstanza_bytes = 300000\nsessions_per_account = 2\ndepth = 1\n";
    const READ: &str = "althing_config_reloads_total{result=\"success\"}";
    let mut node = TestNode::start(SMALL).await.unwrap();
    let mut alice = newcomer(&node.endpoint(), "alice").await.unwrap();
    let mut bob = newcomer(&node.endpoint(), "bob").await.unwrap();
    let mut others = Vec::new();
    for _ in 0..4 {
        others.push(newcomer(&node.endpoint(), "other").await.unwrap());
    }
    let renewed = tempfile::tempdir().unwrap();
    client_certificates(renewed.path()).unwrap();
    let before = serial(&node.endpoint()).await.unwrap();
    let to = bob.jid().to_owned();
    let sending = tokio::spawn(async move {
        for number in 0..MESSAGES {
            alice.send(&format!("<message to='{to}'><body>{number}</body></message>")).await.unwrap();
        }
        alice
    });
    let (mut reloads, mut refused) = (0, 0);
    for number in 0..MESSAGES {
        let message = bob.recv().await.unwrap();
        let body = message.get_child("body", ns::CLIENT).map(Element::text);
        assert_eq!(body, Some(number.to_string()));
        if number % 200 != 0 {
            continue;
        }
        match number / 200 % 4 {
            0 => {
                node.rewrite(LARGE).unwrap();
                assert_eq!(node.reload().await.unwrap().0, 0);
                reloads += 1;
            }
            1 => {
                let in_force = value(&node, "althing_config_hash").await;
                node.rewrite(BROKEN).unwrap();
                let (code, said) = node.reload().await.unwrap();
                assert_eq!((code, said.contains("limits.depth")), (1, true), "{said}");
                assert!(in_force.is_some() && value(&node, "althing_config_hash").await == in_force);
                refused += 1;
            }
            2 => {
                for file in ["ca.pem", "server.pem", "server.key"] {
                    std::fs::copy(renewed.path().join(file), node.setup().certificates.join(file)).unwrap();
                }
                node.rewrite(LARGE).unwrap();
                assert_eq!(node.reload().await.unwrap().0, 0);
                reloads += 1;
            }
            _ => {
                node.rewrite(SMALL).unwrap();
                node.hang_up().unwrap();
                reloads += 1;
                until_metric(&node, &format!("{READ} {reloads}")).await;
            }
        }
    }
    sending.await.unwrap().ping().await.unwrap();
    for other in &mut others {
        other.ping().await.unwrap();
    }
    assert_ne!(serial(&node.endpoint()).await.unwrap(), before);
    assert!(metric(&node, &format!("{READ} {reloads}")).await);
    assert!(metric(&node, &format!("althing_config_reloads_total{{result=\"failure\"}} {refused}")).await);
    assert_eq!(value(&node, "althing_sessions").await.as_deref(), Some("6"), "nobody has gone");
}
