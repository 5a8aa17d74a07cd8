//! Logins: each mechanism over each kind of TLS, with and without channel binding, and what must be refused.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "the whole file is a test")]

use althing_proto::ns;
use althing_proto::sasl::{ChannelBinding, Mechanism};
use althing_tests::admin;
use althing_tests::endpoint::Endpoint;
use althing_tests::login::{Account, Binding, Verdict, authenticate, bind, connect, offered, register_at};
use althing_tests::node::TestNode;
use althing_tests::script::parser::Security;
use althing_tests::stream::Stream;
use althing_tests::tls::Versions;

const BOTH: [Security; 2] = [Security::StartTls, Security::DirectTls];
const REFUSED: &str = "not-authorized";

struct Attempt<'a> {
    endpoint: &'a Endpoint,
    security: Security,
    versions: Versions,
}

impl Attempt<'_> {
    async fn login(&self, account: &Account, mechanism: Mechanism, binding: Binding) -> Verdict {
        let (mut stream, _) = Stream::open(self.endpoint, self.security, self.versions).await.unwrap();
        let verdict = authenticate(&mut stream, account, mechanism, binding).await.unwrap();
        if verdict == Verdict::Accepted {
            stream.header().await.unwrap();
            let jid = bind(&mut stream, Some("r")).await.unwrap();
            assert_eq!(jid, format!("{}/r", account.bare(&self.endpoint.domain)));
        }
        verdict
    }
}

async fn node_with_account() -> (TestNode, Endpoint, Account) {
    let node = TestNode::start("").await.unwrap();
    let endpoint = node.endpoint();
    let account = Account::fresh("alice");
    register_at(&endpoint, &account).await.unwrap();
    (node, endpoint, account)
}

fn refused(condition: &str) -> Verdict {
    Verdict::Refused(condition.to_owned())
}

#[tokio::test]
async fn every_mechanism_logs_in_over_every_kind_of_tls() {
    let (_node, endpoint, account) = node_with_account().await;
    for security in BOTH {
        let attempt = Attempt { endpoint: &endpoint, security, versions: Versions::Any };
        for mechanism in Mechanism::ALL {
            let bindings: &[Binding] = if mechanism.is_plus() {
                &[Binding::Use(ChannelBinding::TlsExporter), Binding::Use(ChannelBinding::TlsServerEndPoint)]
            } else {
                &[Binding::Unsupported]
            };
            for binding in bindings {
                let verdict = attempt.login(&account, mechanism, *binding).await;
                assert_eq!(verdict, Verdict::Accepted, "{} {binding:?} {security:?}", mechanism.name());
            }
        }
    }
}

#[tokio::test]
async fn under_tls_12_the_certificate_still_binds() {
    let (_node, endpoint, account) = node_with_account().await;
    let attempt = Attempt { endpoint: &endpoint, security: Security::StartTls, versions: Versions::Only12 };
    let binding = Binding::Use(ChannelBinding::TlsServerEndPoint);
    assert_eq!(attempt.login(&account, Mechanism::ScramSha256Plus, binding).await, Verdict::Accepted);
}

#[tokio::test]
async fn all_mechanisms_and_bindings_are_offered_under_tls() {
    let (_node, endpoint, _) = node_with_account().await;
    for security in BOTH {
        let (_, features) = Stream::open(&endpoint, security, Versions::Any).await.unwrap();
        let names = offered(&features);
        for mechanism in Mechanism::ALL {
            assert!(
                names.iter().any(|name| name == mechanism.name()),
                "{} is not in {names:?}",
                mechanism.name()
            );
        }
        // XEP-0440: a client learns which bindings it may choose.
        let types: Vec<String> = features
            .get_child("sasl-channel-binding", ns::SASL_CHANNEL_BINDING)
            .map(|list| list.children().filter_map(|kind| kind.attr("type").map(str::to_owned)).collect())
            .unwrap_or_default();
        assert_eq!(types, ["tls-exporter", "tls-server-end-point"]);
    }
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_user_look_the_same() {
    let (_node, endpoint, account) = node_with_account().await;
    let wrong = Account { password: "wrong".to_owned(), ..account.clone() };
    let unknown = Account::fresh("nobody");
    let attempt = Attempt { endpoint: &endpoint, security: Security::DirectTls, versions: Versions::Any };
    for mechanism in Mechanism::ALL {
        let binding = match mechanism.is_plus() {
            true => Binding::Use(ChannelBinding::TlsExporter),
            false => Binding::Unsupported,
        };
        for stranger in [&wrong, &unknown] {
            let verdict = attempt.login(stranger, mechanism, binding).await;
            assert_eq!(verdict, refused(REFUSED), "{} as {}", mechanism.name(), stranger.user);
        }
    }
}

/// RFC 6120 §6.5.1: told to who has shown the right password only, and after a restart as before.
#[tokio::test]
async fn a_disabled_account_is_refused_to_who_knows_its_password() {
    let (mut node, endpoint, account) = node_with_account().await;
    let mut client = connect(&endpoint, &account, "phone").await.unwrap();
    let jid = account.bare(&endpoint.domain);
    assert!(admin::set_disabled(&node.setup().data(), &jid, true).await.unwrap());
    assert_eq!(client.expect_stream_error().await.unwrap(), REFUSED);

    let attempt = Attempt { endpoint: &endpoint, security: Security::StartTls, versions: Versions::Any };
    let wrong = Account { password: "wrong".to_owned(), ..account.clone() };
    for mechanism in [Mechanism::Plain, Mechanism::ScramSha1, Mechanism::ScramSha256] {
        let right = attempt.login(&account, mechanism, Binding::Unsupported).await;
        assert_eq!(right, refused("account-disabled"), "{}", mechanism.name());
        assert_eq!(attempt.login(&wrong, mechanism, Binding::Unsupported).await, refused(REFUSED));
    }
    node.kill().unwrap();
    node.restart().await.unwrap();
    let again = attempt.login(&account, Mechanism::ScramSha256, Binding::Unsupported).await;
    assert_eq!(again, refused("account-disabled"));
    assert!(!admin::set_disabled(&node.setup().data(), "nobody@localhost", true).await.unwrap());

    assert!(admin::set_disabled(&node.setup().data(), &jid, false).await.unwrap());
    let free = attempt.login(&account, Mechanism::ScramSha256, Binding::Unsupported).await;
    assert_eq!(free, Verdict::Accepted);
}

#[tokio::test]
async fn a_refused_client_may_try_again_on_the_same_stream() {
    let (_node, endpoint, account) = node_with_account().await;
    let wrong = Account { password: "wrong".to_owned(), ..account.clone() };
    let (mut stream, _) = Stream::open(&endpoint, Security::StartTls, Versions::Any).await.unwrap();
    let first = authenticate(&mut stream, &wrong, Mechanism::ScramSha1, Binding::Unsupported).await.unwrap();
    assert_eq!(first, refused(REFUSED));
    let second = authenticate(&mut stream, &account, Mechanism::Plain, Binding::Unsupported).await.unwrap();
    assert_eq!(second, Verdict::Accepted);
}

#[tokio::test]
async fn nothing_is_offered_or_accepted_without_tls() {
    let (_node, endpoint, account) = node_with_account().await;
    let (mut stream, features) = Stream::open(&endpoint, Security::Plain, Versions::Any).await.unwrap();
    assert_eq!(offered(&features), Vec::<String>::new());
    let starttls = features.get_child("starttls", ns::TLS).expect("STARTTLS is offered");
    assert!(starttls.has_child("required", ns::TLS), "STARTTLS must be required");
    let verdict = authenticate(&mut stream, &account, Mechanism::Plain, Binding::Unsupported).await.unwrap();
    assert_eq!(verdict, refused("encryption-required"));
}

/// RFC 5802 §6: `y` says "I could bind, but you offer nothing to bind to". Somebody in the middle has
/// taken the -PLUS mechanisms out of the list.
#[tokio::test]
async fn a_downgrade_is_noticed() {
    let (_node, endpoint, account) = node_with_account().await;
    for security in BOTH {
        let attempt = Attempt { endpoint: &endpoint, security, versions: Versions::Any };
        let verdict = attempt.login(&account, Mechanism::ScramSha256, Binding::NotOffered).await;
        assert!(matches!(verdict, Verdict::Refused(_)), "{security:?}: the downgrade went through");
    }
}

/// The certificate is checked by the client, so this shows that the node serves the domain's own one.
#[tokio::test]
async fn the_certificate_is_not_valid_for_another_domain() {
    let (_node, mut endpoint, _) = node_with_account().await;
    endpoint.domain = "example.net".to_owned();
    assert!(Stream::connect(&endpoint, Security::DirectTls, Versions::Any).await.is_err());
}
