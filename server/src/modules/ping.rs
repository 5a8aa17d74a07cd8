//! XEP-0199: XMPP Ping. The server and one's own account answer. That the server asks silent clients is the connection's
//! affair: `server/src/stream/silence.rs`.

use althing_proto::ns;

use super::{Feature, Module, Spec};
use crate::pipeline::{At, Interest, Outcome, Packet, View};

/// The module.
pub(super) const MODULE: Ping = Ping;

const SPEC: Spec = Spec { name: "ping", document: "XEP-0199", version: "2.0.1", title: "XMPP Ping" };

/// The places that answer: §4.2 (server) and §4.1 with no `to` (account).
const ANSWERS: At = At::SERVER.or(At::OWN_ACCOUNT);

pub(super) struct Ping;

impl Module for Ping {
    fn spec(&self) -> Spec {
        SPEC
    }

    fn interests(&self) -> &'static [Interest] {
        const { &[Interest::iq_get(ns::PING, ANSWERS)] }
    }

    fn features(&self, _: &View<'_>) -> Vec<Feature> {
        vec![Feature { var: ns::PING, at: ANSWERS }]
    }

    fn process(&self, packet: &Packet, _: &View<'_>) -> Outcome {
        Outcome::reply(packet.stanza.result(None))
    }
}
