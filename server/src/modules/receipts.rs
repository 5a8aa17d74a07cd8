//! Receipts of clients for each message, in the namespace `urn:althing:receipts:0`: what a client has not said to have
//! stays in the store, is sent again by its age, and its session ends where it says nothing for too long. Off by default
//! (`receipts.enabled`): XEP-0198 does that between a client and its server, XEP-0184 from end to end.
//!
//! | who | what |
//! |---|---|
//! | client | `<iq type='set' id='1'><enable xmlns='urn:althing:receipts:0'/></iq>` |
//! | server | `<iq type='result' id='1'><enabled xmlns='urn:althing:receipts:0' validity='10' repeat='3'/></iq>`, in seconds |
//! | server | messages with a `<stanza-id/>` (XEP-0359), the same again after `repeat` |
//! | client | `<message><received xmlns='urn:althing:receipts:0' id=''/>…</message>` with those ids, to no address or its own |
//! | server | the stream error `connection-timeout` after `validity`: what has no receipt waits for the next session |
//!
//! With `receipts.legacy_crs` a message or an IQ of type `crs` without content is one too: its `id` is that of the message.

use althing_proto::jid::{BareJid, Jid};
use althing_proto::stanza::{Kind, StanzaCondition, StanzaError};
use althing_proto::stanza_id::StanzaId;
use althing_proto::xml::build::BuilderExt;
use althing_proto::xml::{Element, name};

use super::{Feature, Module, Spec};
use crate::delivery::kept;
use crate::node::NodeContext;
use crate::pipeline::{At, Interest, Outcome, Packet, Pass, View};
use crate::session::core::SessionState;
use crate::session::effect::{Effect, Receipt, SessionChange};

/// The namespace.
const RECEIPTS: &str = "urn:althing:receipts:0";

/// The module.
pub(super) const MODULE: Receipts = Receipts;

const SPEC: Spec =
    Spec { name: "receipts", document: RECEIPTS, version: "", title: "Receipts of clients for each message" };

pub(super) struct Receipts;

impl Module for Receipts {
    fn spec(&self) -> Spec {
        SPEC
    }

    fn interests(&self) -> &'static [Interest] {
        const {
            let accounts = At::OWN_ACCOUNT.or(At::OTHER_ACCOUNT);
            &[Interest::iq_set(RECEIPTS, accounts), Interest::message(At::OUTBOUND)]
        }
    }

    fn features(&self, view: &View<'_>) -> Vec<Feature> {
        let config = view.node.config();
        let somewhere = config.offline.enabled && config.messages.commits_somewhere(&config.xmpp.domains);
        let is_on = config.receipts.enabled && somewhere;
        is_on.then_some(Feature { var: RECEIPTS, at: At::SERVER }).into_iter().collect()
    }

    fn process(&self, packet: &Packet, view: &View<'_>) -> Outcome {
        let Some(session) = view.session else { return Outcome::Pass };
        match (packet.stanza.kind(), &packet.pass) {
            (Kind::Message(_), Pass::Outbound) => match receipts(packet, session, view.node) {
                Some(receipts) => Outcome::Done(receipts.into_iter().map(given).collect()),
                None => Outcome::Pass,
            },
            (Kind::Iq(_), Pass::Account(_)) if is_on(view.node, session.account()) => {
                enable(packet, view.node)
            }
            _ => Outcome::Pass,
        }
    }
}

fn given(receipt: Receipt) -> Effect {
    Effect::Session(SessionChange::Receipt(receipt))
}

/// What goes to a session has to be in the inbox until it has arrived.
fn is_on(node: &NodeContext, account: &BareJid) -> bool {
    node.config().receipts.enabled && kept::is_pending(node, account)
}

fn enable(packet: &Packet, node: &NodeContext) -> Outcome {
    if packet.at() != At::OWN_ACCOUNT {
        return Outcome::refuse(packet, StanzaCondition::Forbidden);
    }
    if packet.stanza.payload().is_none_or(|payload| payload.name() != "enable") {
        return Outcome::refuse(packet, StanzaError::new(StanzaCondition::BadRequest, "no <enable/>"));
    }
    let config = node.config();
    let enabled = Element::builder("enabled", RECEIPTS)
        .set(name!("validity"), config.receipts.validity_s.to_string())
        .set(name!("repeat"), config.receipts.repeat_s.to_string());
    let answer = packet.stanza.result(Some(enabled.build()));
    Outcome::Done(vec![Effect::Session(SessionChange::GivesReceipts), Effect::Route(answer)])
}

/// The receipts that a message is; `None` where it is something else. One without an id says nothing.
fn receipts(packet: &Packet, session: &SessionState, node: &NodeContext) -> Option<Vec<Receipt>> {
    let (message, config) = (packet.stanza.element(), node.config());
    if config.receipts.legacy_crs
        && message.attr("type") == Some("crs")
        && message.children().next().is_none()
    {
        let name = packet.stanza.id().filter(|name| !name.is_empty());
        return Some(name.map(|name| Receipt::Name(name.to_owned())).into_iter().collect());
    }
    if !session.gives_receipts() || !packet.stanza.to().is_none_or(|to| is_own(to, session)) {
        return None;
    }
    let mut received = message.children().filter(|child| child.is("received", RECEIPTS)).peekable();
    received.peek()?;
    let id = |child: &Element| child.attr("id")?.parse::<StanzaId>().ok();
    Some(received.filter_map(id).map(Receipt::Id).collect())
}

fn is_own(to: &Jid, session: &SessionState) -> bool {
    to.as_str() == session.account().as_str()
        || (to.node().is_none() && to.domain() == session.account().domain())
}
