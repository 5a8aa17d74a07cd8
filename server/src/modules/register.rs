//! XEP-0077: In-Band Registration. Off by default; rate limited by network address.

use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use althing_proto::jid::{self, BareJid, DomainPart, DomainRef, NodePart};
use althing_proto::ns;
use althing_proto::sasl::Secret;
use althing_proto::stanza::{IqType, Kind, ParseError, Stanza, StanzaCondition, StanzaError};
use althing_proto::xml::Element;

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
        let feature = Feature { var: ns::REGISTER, at: At::SERVER };
        view.node.config.registration.enabled.then_some(feature).into_iter().collect()
    }

    /// After login an account is registered (§3.1.1); to change or cancel it is not offered in band yet.
    fn process(&self, packet: &Packet, view: &View<'_>) -> Outcome {
        let Some(session) = view.session.filter(|_| view.node.config.registration.enabled) else {
            return Outcome::Pass;
        };
        if packet.stanza.kind() != Kind::Iq(IqType::Get) {
            return Outcome::refuse(packet, StanzaCondition::NotAllowed);
        }
        let name = session.jid().node().map_or("", |node| node.as_str());
        let query = Element::builder("query", ns::REGISTER)
            .append(Element::bare("registered", ns::REGISTER))
            .append(Element::builder("username", ns::REGISTER).append(name))
            .build();
        Outcome::reply(packet.stanza.result(Some(query)))
    }
}

/// Who may register how often.
pub struct Limiter {
    limit: Mutex<RateLimit>,
    unlimited_on_loopback: bool,
}

impl Limiter {
    /// By the settings of `[registration]`.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        Limiter {
            limit: Mutex::new(RateLimit::new(settings.per_ip_burst, settings.per_ip_per_hour)),
            unlimited_on_loopback: settings.unlimited_on_loopback,
        }
    }

    fn admit(&self, node: &NodeContext, peer: IpAddr) -> bool {
        (self.unlimited_on_loopback && peer.to_canonical().is_loopback())
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
    let field = |name| query.get_child(name, ns::REGISTER).map(Element::text).filter(|text| !text.is_empty());
    if query.has_child("remove", ns::REGISTER) {
        // §3.2: an account is cancelled by its owner, after login.
        return Err(refused(StanzaCondition::UnexpectedRequest, "log in first"));
    }
    let (Some(username), Some(password)) = (field("username"), field("password")) else {
        return Err(refused(StanzaCondition::NotAcceptable, "username and password are needed"));
    };
    let local = NodePart::new(&username)
        .map_err(|_| refused(StanzaCondition::JidMalformed, "no user can have that name"))?;
    if !node.registration.admit(node, peer) {
        let text = "too many registrations from this address: wait";
        let error = StanzaError::new(StanzaCondition::ResourceConstraint, text);
        return Err((error, Registration::RateLimited));
    }
    let user = BareJid::from_parts(Some(&local), domain);
    if jid::parse(user.as_str()).is_err() {
        return Err(refused(StanzaCondition::JidMalformed, "no user can have that name"));
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
