//! XEP-0280: Message Carbons. The sender's copies, and which copies a session takes; those of the receiver are made
//! where the router chooses who gets the message (`router/steps.rs`), by the rules of `delivery/carbons.rs`.
//!
//! A copy goes to every other resource, and the session there drops it where its client wants none: so the route table
//! need not know who does, and a copy takes the ways of any message, in order, also to a stream that is being resumed.
//! It is kept nowhere. `<private/>` stays where the sender has put it (§9: who gets the message may know of it).

use std::hash::BuildHasher;

use althing_proto::jid::{self, Jid};
use althing_proto::ns;
use althing_proto::privacy::Kinds;
use althing_proto::stanza::{Kind, MessageType, Stanza, StanzaCondition, StanzaError};
use althing_proto::stanza_id::StanzaId;

use super::{Feature, Module, Spec};
use crate::delivery::carbons::{Way, copied, copies, is_eligible};
use crate::delivery::keeping::keeping;
use crate::delivery::kept::stanza_id;
use crate::metrics::Dropped;
use crate::node::NodeContext;
use crate::pipeline::packet::is_of_account;
use crate::pipeline::{At, Effects, Interest, Outcome, Packet, Pass, Verdict, View};
use crate::session::core::SessionState;
use crate::session::effect::{Effect, SessionChange};
use crate::session::rules::Decision;

/// The module.
pub(super) const MODULE: Carbons = Carbons;

const SPEC: Spec = Spec { name: "carbons", document: "XEP-0280", version: "1.0.1", title: "Message Carbons" };

/// §6.2: the recommended rules, all of them.
const RULES: &str = "urn:xmpp:carbons:rules:0";

pub(super) struct Carbons;

impl Module for Carbons {
    fn spec(&self) -> Spec {
        SPEC
    }

    fn interests(&self) -> &'static [Interest] {
        const {
            &[
                Interest::iq_set(ns::CARBONS, At::OWN_ACCOUNT.or(At::OTHER_ACCOUNT).or(At::SERVER)),
                Interest::message(At::OUTBOUND.or(At::INBOUND)),
            ]
        }
    }

    fn features(&self, _: &View<'_>) -> Vec<Feature> {
        [ns::CARBONS, RULES].map(|var| Feature { var, at: At::SERVER }).into()
    }

    /// Which copies the session takes.
    fn preprocess(&self, packet: &Packet, view: &View<'_>) -> Verdict {
        let (Pass::Inbound, Some(session)) = (&packet.pass, view.session) else { return Verdict::Pass };
        let Some((way, original)) = copied(&packet.stanza) else { return Verdict::Pass };
        if !session.wants_carbons() {
            view.node.metrics.dropped(Dropped::Rule);
            return Verdict::Block(Vec::new());
        }
        // It passes the list of this very session: another one may have got the message by a list of its own.
        let from =
            original.attr("from").and_then(|from| jid::parse(from).ok()).filter(|_| way == Way::Received);
        let kinds = Kinds::inbound(packet.stanza.kind());
        if from.is_some_and(|from| session.decide(&from, kinds) != Decision::Allow) {
            view.node.metrics.dropped(Dropped::Blocked);
            return Verdict::Block(Vec::new());
        }
        Verdict::Pass
    }

    fn process(&self, packet: &Packet, view: &View<'_>) -> Outcome {
        let Some(session) = view.session else { return Outcome::Pass };
        match packet.pass {
            Pass::Outbound => sent(&packet.stanza, session, view.node),
            Pass::Inbound => received_error(&packet.stanza, session, view.node),
            Pass::Server | Pass::Account(_) => asked(packet),
        }
    }
}

/// §4, §5: the client wants copies, or no more. To say so twice is no error (§10.1).
fn asked(packet: &Packet) -> Outcome {
    if packet.at() != At::OWN_ACCOUNT {
        return Outcome::refuse(packet, StanzaCondition::NotAllowed);
    }
    let enabled = match packet.stanza.payload().map(|payload| payload.name()) {
        Some("enable") => true,
        Some("disable") => false,
        _ => {
            let text = "neither <enable/> nor <disable/>";
            return Outcome::refuse(packet, StanzaError::new(StanzaCondition::BadRequest, text));
        }
    };
    Outcome::Done(vec![
        Effect::Session(SessionChange::Carbons(enabled)),
        Effect::Route(packet.stanza.result(None)),
    ])
}

/// §8: what the client sends is copied to the other resources.
fn sent(stanza: &Stanza, session: &SessionState, node: &NodeContext) -> Outcome {
    let account = session.account();
    // What is for the account itself is copied where it arrives: each resource gets it once.
    let to = stanza.to().filter(|to| !is_of_account(to, account));
    let Some(to) = to.filter(|_| is_eligible(stanza, Way::Sent)) else { return Outcome::Pass };
    let known = archived_as(stanza, session, node).map(|id| stanza.with_child(stanza_id(account, id)));
    let known = known.as_ref().unwrap_or(stanza);
    let copies = copies(&*node.routes, known, Way::Sent, account, |jid, _| jid == session.jid());
    if copies.is_empty() {
        return Outcome::Pass;
    }
    let mut effects = Effects::with_capacity(copies.len() + 2);
    effects.push(Effect::Route(stanza.clone()));
    effects.extend(copies);
    effects.extend(hash(to, stanza, node).map(|hash| Effect::Session(SessionChange::Copied(hash))));
    Outcome::Done(effects)
}

/// Under which id the message will be in the sender's archive (XEP-0313 §3.5), where that is known before it is kept: on
/// streams with XEP-0198.
fn archived_as(stanza: &Stanza, session: &SessionState, node: &NodeContext) -> Option<StanzaId> {
    let default = || node.config().archive.default.into();
    let archived = || {
        node.config().archive.enabled
            && keeping(stanza).archive
            && stanza.to().is_some_and(|to| session.archives(to, default()))
    };
    let (hold, secret) = session.in_hand().zip(node.stream_secret.get()).filter(|_| archived())?;
    hold.stanza_id(secret, stanza, &stanza.to_standalone())
}

/// §6.1: an error is copied where the message was that it answers.
fn received_error(stanza: &Stanza, session: &SessionState, node: &NodeContext) -> Outcome {
    let Some(from) = stanza.from().filter(|_| stanza.kind() == Kind::Message(MessageType::Error)) else {
        return Outcome::Pass;
    };
    if copied(stanza).is_some() || !hash(from, stanza, node).is_some_and(|hash| session.was_copied(hash)) {
        return Outcome::Pass;
    }
    let mut effects = vec![Effect::Deliver(stanza.clone())];
    let own = |jid: &_, _| jid == session.jid();
    effects.extend(copies(&*node.routes, stanza, Way::Received, session.account(), own));
    Outcome::Done(effects)
}

/// By what a message and its error are known: its id, and whom it was for, whatever resource of theirs answers.
fn hash(peer: &Jid, stanza: &Stanza, node: &NodeContext) -> Option<u64> {
    let bare = peer.as_str().split('/').next();
    stanza.id().map(|id| node.seen_keys.hash_one((bare, id)))
}
