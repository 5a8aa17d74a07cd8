//! A client machine and a server machine wired together, driven until neither has more to say.

// A test that cannot go on should say so; the lint lets only the test functions themselves do it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use althing_proto::ns;
use althing_proto::sasl::client::{ClientBinding, ScramClient, ScramVerify};
use althing_proto::sasl::{ChannelBinding, Mechanism, TlsInfo, plain};
use althing_proto::stream::{StreamConfig, Transport};
use althing_proto::xml::Element;
use althing_proto::xml::limits::Limits;
use althing_proto::xml::reader::{StreamReader, XmlEvent};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::{HEADER, PASSWORD, Shell, config, tls};

enum Step {
    Features,
    Tls,
    Scram(Box<ScramClient>),
    Verify(Box<ScramVerify>),
    Plain,
    Bind,
    Done,
}

/// A client that logs in with one mechanism and binds; what is not as it should be panics.
struct Client {
    step: Step,
    reader: StreamReader,
    mechanism: Mechanism,
    binding: ChannelBinding,
    tls: Option<TlsInfo>,
    logged_in: bool,
    jid: Option<String>,
    failure: Option<String>,
}

impl Client {
    fn new(mechanism: Mechanism, tls: Option<TlsInfo>) -> Self {
        Client {
            step: Step::Features,
            reader: StreamReader::new(Limits::AFTER_LOGIN),
            mechanism,
            binding: ChannelBinding::TlsExporter,
            tls,
            logged_in: false,
            jid: None,
            failure: None,
        }
    }

    fn restart(&mut self) -> String {
        self.reader = StreamReader::new(Limits::AFTER_LOGIN);
        self.step = Step::Features;
        HEADER.to_owned()
    }

    /// Answers what the server sent.
    fn handle(&mut self, bytes: &str) -> String {
        let mut input = bytes.as_bytes();
        let mut answer = String::new();
        while let Some(event) = self.reader.next(&mut input).unwrap() {
            if let XmlEvent::Element(element) = event {
                answer += &self.element(&element);
            }
        }
        answer
    }

    fn element(&mut self, element: &Element) -> String {
        let data = || STANDARD.decode(element.text()).unwrap();
        match (std::mem::replace(&mut self.step, Step::Done), element.name()) {
            (_, "failure" | "error") => {
                self.failure = element.children().next().map(|child| child.name().to_owned());
                String::new()
            }
            (Step::Features, "features") if self.logged_in => {
                assert!(element.has_child("bind", ns::BIND));
                self.step = Step::Bind;
                "<iq type='set' id='1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>".to_owned()
            }
            (Step::Features, "features") if element.has_child("starttls", ns::TLS) => {
                assert!(!element.has_child("mechanisms", ns::SASL));
                self.step = Step::Tls;
                "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>".to_owned()
            }
            (Step::Tls, "proceed") => {
                self.tls = Some(tls());
                self.restart()
            }
            (Step::Features, "features") => self.login(element),
            (Step::Scram(client), "challenge") => {
                let (verify, proof) = client.respond(&data()).unwrap();
                self.step = Step::Verify(Box::new(verify));
                sasl("response", &proof)
            }
            (Step::Verify(verify), "success") => {
                verify.finish(&data()).unwrap();
                self.logged_in = true;
                self.restart()
            }
            (Step::Plain, "success") => {
                self.logged_in = true;
                self.restart()
            }
            (Step::Bind, "iq") => {
                let bind = element.get_child("bind", ns::BIND).unwrap();
                self.jid = bind.get_child("jid", ns::BIND).map(Element::text);
                String::new()
            }
            (_, name) => panic!("unexpected <{name}/>"),
        }
    }

    fn login(&mut self, features: &Element) -> String {
        let offered: Vec<String> =
            features.get_child("mechanisms", ns::SASL).unwrap().children().map(Element::text).collect();
        assert!(offered.iter().any(|name| name == self.mechanism.name()), "{offered:?}");
        if self.mechanism == Mechanism::Plain {
            self.step = Step::Plain;
            return auth(Mechanism::Plain, &plain::write("juliet", PASSWORD));
        }
        let binding = match &self.tls {
            Some(tls) if self.mechanism.is_plus() => ClientBinding::Use(self.binding, tls),
            _ => ClientBinding::Unsupported,
        };
        let me = Some("juliet@example.com");
        let client = ScramClient::new(self.mechanism, "Juliet", PASSWORD, me, binding, "cnonce").unwrap();
        let first = client.first();
        self.step = Step::Scram(Box::new(client));
        auth(self.mechanism, &first)
    }
}

fn auth(mechanism: Mechanism, data: &[u8]) -> String {
    let (name, data) = (mechanism.name(), STANDARD.encode(data));
    format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='{name}'>{data}</auth>")
}

fn sasl(name: &str, data: &[u8]) -> String {
    format!("<{name} xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{}</{name}>", STANDARD.encode(data))
}

/// Carries what each says to the other until both are silent.
fn drive(client: &mut Client, server: &mut Shell) {
    let mut to_server = HEADER.to_owned();
    while !to_server.is_empty() {
        let to_client = server.feed(&to_server);
        to_server = client.handle(&to_client);
    }
}

fn log_in(mut client: Client, config: StreamConfig, transport: Transport) -> (Client, Shell) {
    let mut server = Shell::new(config, transport);
    drive(&mut client, &mut server);
    (client, server)
}

fn assert_bound(client: &Client, server: &Shell) {
    assert_eq!(client.failure, None);
    let jid = client.jid.clone().unwrap();
    assert!(jid.starts_with("juliet@example.com/") && jid.len() > 30, "{jid}");
    assert_eq!(server.machine.jid().unwrap().as_str(), jid);
    assert_eq!(server.machine.deadline(), None);
}

#[test]
fn each_mechanism_logs_in_over_starttls_and_over_direct_tls() {
    for mechanism in Mechanism::ALL {
        let (client, server) = log_in(Client::new(mechanism, None), config(), Transport::Plain);
        assert_bound(&client, &server);
        assert_eq!(server.told, ["handshake", "bind made"]);
        assert!(server.machine.is_encrypted());

        let (client, server) =
            log_in(Client::new(mechanism, Some(tls())), config(), Transport::DirectTls(tls()));
        assert_bound(&client, &server);
        assert_eq!(server.told, ["bind made"]);
    }
}

#[test]
fn both_types_of_channel_binding_work() {
    for binding in [ChannelBinding::TlsExporter, ChannelBinding::TlsServerEndPoint] {
        let client = Client { binding, ..Client::new(Mechanism::ScramSha256Plus, Some(tls())) };
        let (client, server) = log_in(client, config(), Transport::DirectTls(tls()));
        assert_bound(&client, &server);
    }
}

#[test]
fn a_man_in_the_middle_is_found_out_by_channel_binding() {
    // The client's TLS ends at somebody else, who passes all of SASL on.
    let elsewhere = TlsInfo { exporter: Some(vec![9; 32]), server_end_point: Some(vec![9; 32]) };
    for binding in [ChannelBinding::TlsExporter, ChannelBinding::TlsServerEndPoint] {
        let client = Client { binding, ..Client::new(Mechanism::ScramSha1Plus, Some(elsewhere.clone())) };
        let (client, server) = log_in(client, config(), Transport::DirectTls(tls()));
        assert_eq!(client.failure.as_deref(), Some("not-authorized"));
        assert_eq!(server.machine.user(), None);
    }
}

#[test]
fn plaintext_logins_work_where_they_are_allowed() {
    for mechanism in Mechanism::ALL.into_iter().filter(|mechanism| !mechanism.is_plus()) {
        let config = StreamConfig { allow_plaintext: true, starttls: false, ..config() };
        let (client, server) = log_in(Client::new(mechanism, None), config, Transport::Plain);
        assert_bound(&client, &server);
        assert!(!server.machine.is_encrypted());
    }
}

/// Logs in with SCRAM as somebody; gives the last that the server sent.
fn scram_with(username: &str, password: &str) -> String {
    let mut server = common::secure();
    let client = ScramClient::new(
        Mechanism::ScramSha256,
        username,
        password,
        None,
        ClientBinding::Unsupported,
        "cnonce",
    )
    .unwrap();
    let challenge = server.feed(auth(Mechanism::ScramSha256, &client.first()));
    let Some((_, data)) = challenge.split_once("<challenge xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>") else {
        return challenge;
    };
    let data = STANDARD.decode(data.strip_suffix("</challenge>").unwrap()).unwrap();
    let (_, proof) = client.respond(&data).unwrap();
    server.feed(sasl("response", &proof))
}

#[test]
fn an_unknown_user_and_a_wrong_password_look_alike() {
    let wrong = scram_with("juliet", "wrong");
    assert!(wrong.contains("<not-authorized/>"), "{wrong}");
    assert_eq!(scram_with("nobody", "wrong"), wrong);
    // Whether an account is disabled is told only to who knows its password.
    assert_eq!(scram_with("tybalt", "wrong"), wrong);
    assert!(scram_with("tybalt", PASSWORD).contains("<account-disabled/>"));
    assert!(scram_with("broken", PASSWORD).contains("<temporary-auth-failure/>"));
}

#[test]
fn plain_tells_no_more_than_scram() {
    let try_plain =
        |user, password| common::secure().feed(auth(Mechanism::Plain, &plain::write(user, password)));
    let wrong = try_plain("juliet", "wrong");
    assert!(wrong.contains("<not-authorized/>"), "{wrong}");
    assert_eq!(try_plain("nobody", PASSWORD), wrong);
    assert_eq!(try_plain("tybalt", "wrong"), wrong);
    assert!(try_plain("tybalt", PASSWORD).contains("<account-disabled/>"));
    assert!(try_plain("broken", PASSWORD).contains("<temporary-auth-failure/>"));
}
