//! XEP-0215: External Service Discovery. Users are told of the services of `[services]`, with credentials where these ask
//! for some. Credentials from a secret are made for each answer, by the scheme that TURN servers know: the username is
//! "expiry:account", the password HMAC-SHA1 of it. Nobody is told of changes (§3.2 leaves it open): clients ask before a
//! call.

use std::fmt;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use minidom::Element;
use ring::hmac;

use althing_proto::jid::Jid;
use althing_proto::ns;
use althing_proto::stanza::{StanzaCondition, StanzaError};
use althing_proto::time::Timestamp;
use althing_proto::xml::build::{BuilderExt, ElementExt};
use althing_proto::xml::name;

use super::{Feature, Module, Spec, cut};
use crate::config::{Config, ExternalService, Hidden};
use crate::pipeline::{At, Interest, Outcome, Packet, View};

/// The module.
pub(super) const MODULE: Services = Services;

const SPEC: Spec =
    Spec { name: "services", document: "XEP-0215", version: "1.0.0", title: "External Service Discovery" };

/// Longest account in a username, in bytes: TURN has room for 512 (RFC 5389 §15.3). The rest of a longer one is left out.
const MAX_ACCOUNT: usize = 480;

pub(super) struct Services;

impl Module for Services {
    fn spec(&self) -> Spec {
        SPEC
    }

    fn interests(&self) -> &'static [Interest] {
        const { &[Interest::iq_get(ns::EXTERNAL_SERVICES, At::SERVER)] }
    }

    fn features(&self, view: &View<'_>) -> Vec<Feature> {
        let feature = Feature { var: ns::EXTERNAL_SERVICES, at: At::SERVER };
        let none = view.node.external_services.0.load().services.is_empty();
        (!none).then_some(feature).into_iter().collect()
    }

    fn process(&self, packet: &Packet, view: &View<'_>) -> Outcome {
        let known = view.node.external_services.0.load();
        let (Some(from), Some(asked)) = (packet.stanza.from(), packet.stanza.payload()) else {
            return Outcome::Pass;
        };
        if known.services.is_empty() {
            return Outcome::Pass;
        }
        let domain = from.domain().as_str();
        if !view.node.serves(domain) && !view.node.components.is_attached(&*view.node.routes, domain) {
            return Outcome::refuse(packet, StanzaCondition::Forbidden);
        }
        let answer = match asked.name() {
            "services" => Ok(known.listed(asked.attr("type"), from, view.now)),
            "credentials" => known.credentials(asked, from, view.now),
            _ => Err(StanzaCondition::BadRequest.into()),
        };
        match answer {
            Ok(answer) => Outcome::reply(packet.stanza.result(Some(answer))),
            Err(error) => Outcome::refuse(packet, error),
        }
    }
}

/// The services of a node, ready to be told. They follow the configuration.
pub struct ExternalServices(ArcSwap<Known>);

impl ExternalServices {
    /// What the configuration names, with the secrets in its files.
    ///
    /// # Errors
    /// A file that cannot be read or is empty.
    pub fn read(config: &Config) -> anyhow::Result<Self> {
        let services = config.services.external.iter().map(Service::read).collect::<Result<_, _>>()?;
        let valid = Duration::from_secs(config.services.credentials_s);
        Ok(ExternalServices(ArcSwap::from_pointee(Known { services, valid })))
    }

    /// Others, from now on.
    pub fn set(&self, others: ExternalServices) {
        self.0.store(others.0.into_inner());
    }
}

struct Known {
    services: Vec<Service>,
    /// How long credentials are valid that are made.
    valid: Duration,
}

struct Service {
    config: ExternalService,
    access: Access,
}

/// How users get in.
enum Access {
    /// Nobody is asked who comes.
    Open,
    /// All by the same password.
    Shared(String, Hidden),
    /// Each by credentials made for the occasion.
    Made(hmac::Key),
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Service {
    fn read(config: &ExternalService) -> anyhow::Result<Self> {
        let place = || format!("services.external: {} at {}", config.kind, config.host);
        let read = |given: &Option<Hidden>, file: &Option<std::path::PathBuf>| {
            let hidden = Hidden::read(given.as_ref(), file.as_deref()).with_context(place)?;
            let empty = hidden.as_ref().is_some_and(|hidden| hidden.expose().is_empty());
            anyhow::ensure!(!empty, "{}: its secret or password is empty", place());
            Ok(hidden)
        };
        let secret = read(&config.secret, &config.secret_file)?;
        let password = read(&config.password, &config.password_file)?;
        let access = match (secret, config.username.clone(), password) {
            (Some(secret), ..) => {
                Access::Made(hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.expose().as_bytes()))
            }
            (None, Some(username), Some(password)) => Access::Shared(username, password),
            _ => Access::Open,
        };
        Ok(Service { config: config.clone(), access })
    }

    fn is_open(&self) -> bool {
        matches!(self.access, Access::Open)
    }

    /// As it is told to `asker`.
    fn element(&self, asker: &Jid, now: Timestamp, valid: Duration) -> Element {
        let config = &self.config;
        let mut element = Element::builder("service", ns::EXTERNAL_SERVICES)
            .set(name!("type"), &config.kind)
            .set(name!("host"), &config.host)
            .build();
        let port = config.port.map(|port| port.to_string());
        for (attribute, value) in
            [(name!("port"), &port), (name!("transport"), &config.transport), (name!("name"), &config.name)]
        {
            if let Some(value) = value {
                element.set(attribute, value);
            }
        }
        let (username, password) = match &self.access {
            Access::Open => return element,
            Access::Shared(username, password) => (username.clone(), password.expose().to_owned()),
            Access::Made(key) => {
                let expires = now.after(valid);
                element.set(name!("expires"), expires.to_xep0082());
                credentials(key, asker, expires)
            }
        };
        element.set(name!("restricted"), "true");
        element.set(name!("username"), username);
        element.set(name!("password"), password);
        element
    }
}

/// Username and password that `key` opens the service with until `expires`.
fn credentials(key: &hmac::Key, asker: &Jid, expires: Timestamp) -> (String, String) {
    let account = asker.to_bare();
    let account = cut(account.as_str(), MAX_ACCOUNT);
    let username = format!("{}:{account}", expires.as_millis() / 1_000);
    let password = STANDARD.encode(hmac::sign(key, username.as_bytes()));
    (username, password)
}

impl Known {
    /// §3.1, §3.2: all, or those of one type.
    fn listed(&self, kind: Option<&str>, asker: &Jid, now: Timestamp) -> Element {
        let wanted =
            self.services.iter().filter(|service| kind.is_none_or(|kind| service.config.kind == kind));
        let mut list = Element::builder("services", ns::EXTERNAL_SERVICES)
            .append_all(wanted.map(|service| service.element(asker, now, self.valid)))
            .build();
        if let Some(kind) = kind {
            list.set(name!("type"), kind);
        }
        list
    }

    /// §3.3: credentials of the services that are named, by host and type, and by port where there is one.
    fn credentials(&self, asked: &Element, asker: &Jid, now: Timestamp) -> Result<Element, StanzaError> {
        let bad = |text: &str| StanzaError::new(StanzaCondition::BadRequest, text);
        let mut named = Vec::new();
        for service in asked.children().filter(|child| child.is("service", ns::EXTERNAL_SERVICES)) {
            let (Some(host), Some(kind)) = (service.attr("host"), service.attr("type")) else {
                return Err(bad("a service has host and type"));
            };
            let port = service.attr("port").map(str::parse::<u16>).transpose();
            named.push((host, kind, port.map_err(|_| bad("a port is a number"))?));
        }
        if named.is_empty() {
            return Err(bad("no service is named"));
        }
        let is_named = |service: &&Service| {
            let config = &service.config;
            named.iter().any(|(host, kind, port)| {
                config.host == *host
                    && config.kind == *kind
                    && port.is_none_or(|port| config.port == Some(port))
            })
        };
        let mut found = self.services.iter().filter(is_named).filter(|service| !service.is_open()).peekable();
        if found.peek().is_none() {
            return Err(StanzaError::new(StanzaCondition::ItemNotFound, "no credentials are known of it"));
        }
        let found = found.map(|service| service.element(asker, now, self.valid));
        Ok(Element::builder("credentials", ns::EXTERNAL_SERVICES).append_all(found).build())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_500);

    fn known() -> Arc<Known> {
        let text = "
            [[services.external]]
            type = \"stun\"
            host = \"stun.example.org\"
            [[services.external]]
            type = \"turn\"
            host = \"turn.example.org\"
            port = 3478
            transport = \"udp\"
            secret = \"north\"
            [[services.external]]
            type = \"turn\"
            host = \"turn.example.org\"
            port = 3479
            transport = \"tcp\"
            secret = \"north\"
            [[services.external]]
            type = \"ftp\"
            host = \"ftp.example.org\"
            name = \"Files\"
            username = \"guest\"
            password = \"guest\"
        ";
        ExternalServices::read(&toml::from_str(&whole(text)).unwrap()).unwrap().0.into_inner()
    }

    /// A configuration is written with all its sections.
    fn whole(text: &str) -> String {
        let mut table = toml::Table::try_from(Config::default()).unwrap();
        let over: toml::Table = text.parse().unwrap();
        let services = table["services"].as_table_mut().unwrap();
        services.extend(over["services"].as_table().unwrap().clone());
        table.to_string()
    }

    fn asker() -> Jid {
        Jid::new("alice@example.org/phone").unwrap()
    }

    fn attributes(element: &Element) -> Vec<String> {
        let told = |service: &Element| {
            ["type", "host", "port", "username", "password", "expires", "restricted"]
                .map(|key| service.attr(key).unwrap_or("-").to_owned())
                .join(" ")
        };
        element.children().map(told).collect()
    }

    #[test]
    fn services_are_told_with_credentials_that_end() {
        let known = known();
        let all = known.listed(None, &asker(), NOW);
        // The password by another tool: `openssl dgst -sha1 -hmac north -binary | base64` over the username.
        let turn = "1700086400:alice@example.org plPZYuF9WYw8ProirmfsL1geV6s= 2023-11-15T22:13:20.500Z true";
        assert_eq!(
            attributes(&all),
            [
                "stun stun.example.org - - - - -".to_owned(),
                format!("turn turn.example.org 3478 {turn}"),
                format!("turn turn.example.org 3479 {turn}"),
                "ftp ftp.example.org - guest guest - true".to_owned(),
            ]
        );
        let one = known.listed(Some("ftp"), &asker(), NOW);
        assert_eq!((one.attr("type"), one.children().count()), (Some("ftp"), 1));
        assert_eq!(known.listed(Some("x"), &asker(), NOW).children().count(), 0);
    }

    #[test]
    fn credentials_are_asked_for_by_name() {
        let known = known();
        let ask = |services: &str| {
            let xml = format!("<credentials xmlns='urn:xmpp:extdisco:2'>{services}</credentials>");
            known.credentials(&xml.parse().unwrap(), &asker(), NOW).map_err(|error| error.condition)
        };
        let both = ask("<service host='turn.example.org' type='turn'/>").unwrap();
        assert_eq!(both.children().count(), 2);
        let one = ask("<service host='turn.example.org' type='turn' port='3479'/>").unwrap();
        assert_eq!(one.children().next().unwrap().attr("port"), Some("3479"));
        for (services, condition) in [
            ("", StanzaCondition::BadRequest),
            ("<service host='turn.example.org'/>", StanzaCondition::BadRequest),
            ("<service host='turn.example.org' type='turn' port='x'/>", StanzaCondition::BadRequest),
            ("<service host='turn.example.org' type='turn' port='1'/>", StanzaCondition::ItemNotFound),
            ("<service host='stun.example.org' type='stun'/>", StanzaCondition::ItemNotFound),
        ] {
            assert_eq!(ask(services).unwrap_err(), condition, "{services}");
        }
    }

    #[test]
    fn a_username_has_room_in_turn_and_no_secret_is_shown() {
        let long = Jid::new(&format!("{}@example.org", "ü".repeat(400))).unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, b"north");
        let (username, _) = credentials(&key, &long, NOW);
        assert_eq!(username.len(), "1700000000:".len() + MAX_ACCOUNT);
        let shown = format!("{:?}", known().services);
        assert!(!shown.contains("north") && shown.contains("guest"), "{shown}");
    }
}
