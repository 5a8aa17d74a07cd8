//! XEP-0077: In-Band Registration. Making accounts is off by default, and rate limited by network address.
//!
//! | file         | what                                                       |
//! |--------------|------------------------------------------------------------|
//! | `mod.rs`     | who has no account yet makes one, before login (§3.1)      |
//! | `owner.rs`   | who has one looks at it, changes the password, removes it  |
//! | `removal.rs` | what a removal brings about, by whomever                   |

mod owner;
mod removal;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use althing_proto::form::{Form, FormKind};
use althing_proto::jid::{self, BareJid, DomainPart, DomainRef, NodePart, escaping};
use althing_proto::ns;
use althing_proto::sasl::Secret;
use althing_proto::stanza::{IqType, Kind, ParseError, Stanza, StanzaCondition, StanzaError};
use althing_proto::xml::Element;

pub use removal::remove_account;

use super::{Feature, Module, Spec};
use crate::auth::rate::RateLimit;
use crate::auth::{CreateError, create_account};
use crate::config::Registration as Settings;
use crate::metrics::Registration;
use crate::node::NodeContext;
use crate::pipeline::{At, Interest, Outcome, Packet, View};

/// The module.
pub(super) const MODULE: Register = Register;

const SPEC: Spec =
    Spec { name: "register", document: "XEP-0077", version: "2.4", title: "In-Band Registration" };

pub(super) struct Register;

impl Module for Register {
    fn spec(&self) -> Spec {
        SPEC
    }

    fn interests(&self) -> &'static [Interest] {
        const {
            let at = At::SERVER.or(At::OWN_ACCOUNT);
            &[Interest::iq_get(ns::REGISTER, at), Interest::iq_set(ns::REGISTER, at)]
        }
    }

    fn features(&self, view: &View<'_>) -> Vec<Feature> {
        let features = [ns::REGISTER, ns::JID_ESCAPING].map(|var| Feature { var, at: At::SERVER });
        if is_offered(&view.node.config().registration) { features.to_vec() } else { Vec::new() }
    }

    fn process(&self, packet: &Packet, view: &View<'_>) -> Outcome {
        match view.session.filter(|_| is_offered(&view.node.config().registration)) {
            Some(session) => owner::process(packet, session.account(), view.node),
            None => Outcome::Pass,
        }
    }
}

/// Whether a client has anything to ask for.
fn is_offered(settings: &Settings) -> bool {
    settings.enabled || settings.password_change || settings.removal
}

/// How often one account may change its password at once, and in an hour: the keys cost milliseconds of a core.
const PASSWORDS: (u32, u32) = (5, 20);

/// Who may register how often, and change a password.
pub struct Limiter {
    limit: Mutex<RateLimit>,
    passwords: Mutex<RateLimit<BareJid>>,
    unlimited_on_loopback: AtomicBool,
}

impl Limiter {
    /// By the settings of `[registration]`.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        Limiter {
            limit: Mutex::new(RateLimit::new(settings.per_ip_burst, settings.per_ip_per_hour)),
            passwords: Mutex::new(RateLimit::new(PASSWORDS.0, PASSWORDS.1)),
            unlimited_on_loopback: AtomicBool::new(settings.unlimited_on_loopback),
        }
    }

    /// Other settings, for the addresses that are known too.
    pub fn set(&self, settings: &Settings) {
        self.limit.lock().set(settings.per_ip_burst, settings.per_ip_per_hour);
        self.unlimited_on_loopback.store(settings.unlimited_on_loopback, Ordering::Relaxed);
    }

    fn admit_password(&self, node: &NodeContext, account: &BareJid) -> bool {
        self.passwords.lock().admit_as(account.clone(), node.now())
    }

    fn admit(&self, node: &NodeContext, peer: IpAddr) -> bool {
        (self.unlimited_on_loopback.load(Ordering::Relaxed) && peer.to_canonical().is_loopback())
            || self.limit.lock().admit(peer, node.now())
    }
}

/// Answers an IQ that a client sent before it logged in, to `domain` (§3.1). The machine lets only requests
/// through, and only while registration is on; the answer bears no addresses, for the client has none yet.
pub async fn before_login(
    node: &Arc<NodeContext>,
    element: Element,
    domain: Option<DomainPart>,
    peer: IpAddr,
) -> Element {
    let answer = match Stanza::parse(element) {
        Ok(stanza) => {
            let answer = answer(node, &stanza, domain, peer).await;
            answer.unwrap_or_else(|| stanza.result(None))
        }
        Err(ParseError::Answer(answer, _)) => *answer,
        Err(_) => return Element::bare("iq", ns::CLIENT),
    };
    answer.element().clone()
}

async fn answer(
    node: &Arc<NodeContext>,
    stanza: &Stanza,
    domain: Option<DomainPart>,
    peer: IpAddr,
) -> Option<Stanza> {
    let query = stanza.payload().filter(|query| query.is("query", ns::REGISTER));
    let (Some(query), Some(domain)) = (query, domain) else {
        return stanza.error(StanzaCondition::NotAuthorized);
    };
    if stanza.kind() == Kind::Iq(IqType::Get) {
        return Some(stanza.result(Some(form())));
    }
    let (answer, counted) = match register(node, query, &domain, peer).await {
        Ok(user) => {
            tracing::info!(jid = %user, %peer, "account registered in band");
            (Some(stanza.result(None)), Registration::Created)
        }
        Err((error, counted)) => {
            node.metrics.stanza_error(error.condition);
            (stanza.error(error), counted)
        }
    };
    node.metrics.registration(counted);
    answer
}

/// §3.1.1: the fields that are needed.
fn form() -> Element {
    Element::builder("query", ns::REGISTER)
        .append(Element::builder("instructions", ns::REGISTER).append("Choose a user name and a password."))
        .append(Element::bare("username", ns::REGISTER))
        .append(Element::bare("password", ns::REGISTER))
        .build()
}

async fn register(
    node: &Arc<NodeContext>,
    query: &Element,
    domain: &DomainRef,
    peer: IpAddr,
) -> Result<BareJid, (StanzaError, Registration)> {
    let refused = |condition, text: &str| (StanzaError::new(condition, text), Registration::Refused);
    // §4: a form comes before the plain fields.
    let form = Form::find(query)
        .map_err(|error| refused(StanzaCondition::BadRequest, &error.to_string()))?
        .filter(|form| form.kind == FormKind::Submit);
    let field = |name| {
        let text = match &form {
            Some(form) => form.value(name).map(str::to_owned),
            None => query.get_child(name, ns::REGISTER).map(Element::text),
        };
        text.filter(|text| !text.is_empty())
    };
    if query.has_child("remove", ns::REGISTER) {
        // §3.2: an account is cancelled by its owner, after login.
        return Err(refused(StanzaCondition::UnexpectedRequest, "log in first"));
    }
    let (Some(username), Some(password)) = (field("username"), field("password")) else {
        return Err(refused(StanzaCondition::NotAcceptable, "username and password are needed"));
    };
    let local = NodePart::new(&username)
        .map_err(|_| refused(StanzaCondition::JidMalformed, "no user can have that name"))?;
    if !escaping::may_be_registered(local.as_str()) {
        return Err(refused(StanzaCondition::JidMalformed, "no name begins or ends with a space"));
    }
    if !node.registration.admit(node, peer) {
        let text = "too many registrations from this address: wait";
        let error = StanzaError::new(StanzaCondition::ResourceConstraint, text);
        return Err((error, Registration::RateLimited));
    }
    let user = BareJid::from_parts(Some(&local), domain);
    if jid::parse(user.as_str()).is_err() {
        return Err(refused(StanzaCondition::JidMalformed, "no user can have that name"));
    }
    if node.is_admin(&user) {
        // Whoever has the name has the rights. Behind the limit, and told like any name that is taken, so that the names of
        // administrators cannot be tried out.
        return Err((StanzaCondition::Conflict.into(), Registration::Conflict));
    }
    match create_account(node, &user, Secret::new(password)).await {
        Ok(()) => Ok(user),
        Err(CreateError::Exists) => Err((StanzaCondition::Conflict.into(), Registration::Conflict)),
        Err(error @ CreateError::Password(_)) => {
            Err(refused(StanzaCondition::NotAcceptable, &error.to_string()))
        }
        Err(error @ (CreateError::Storage(_) | CreateError::Unavailable)) => {
            tracing::warn!(%error, "an account could not be made");
            Err(refused(StanzaCondition::InternalServerError, "try again later"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    async fn asked(node: &Arc<NodeContext>, username: &str) -> Option<StanzaCondition> {
        let xml = format!(
            "<iq xmlns='jabber:client' type='set' id='r'><query xmlns='jabber:iq:register'>\
             <username>{username}</username><password>secret</password></query></iq>"
        );
        let domain = DomainPart::new("localhost").unwrap().into_owned();
        let peer = Ipv4Addr::LOCALHOST.into();
        let answer = before_login(node, xml.parse().unwrap(), Some(domain), peer).await;
        Stanza::parse(answer).unwrap().error_condition()
    }

    /// Also where the account is not there yet, or no more: its name is worth every other account.
    #[tokio::test]
    async fn nobody_registers_as_an_administrator() {
        let node = NodeContext::for_tests();
        node.configure(|config| {
            config.registration.enabled = true;
            config.registration.unlimited_on_loopback = true;
            config.auth.scram_iterations = 4096;
            config.xmpp.admins = vec!["root@localhost".to_owned()];
        });
        node.registration.set(&node.config().registration);
        let node = Arc::new(node);
        for name in ["root", "Root", "ROOT"] {
            assert_eq!(asked(&node, name).await, Some(StanzaCondition::Conflict), "{name}");
        }
        let root = BareJid::new("root@localhost").unwrap();
        assert_eq!(node.storage.accounts.get(&root).await.unwrap(), None);
        assert_eq!(asked(&node, "rooty").await, None);
    }
}
