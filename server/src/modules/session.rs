//! RFC 3921 §3: session establishment, obsolete. Old clients ask; the answer changes nothing.

use althing_proto::ns;

use super::{Module, Spec};
use crate::pipeline::{At, Interest, Outcome, Packet, View};

/// The module. Its stream feature, marked optional, is part of RFC 6120's stream machine.
pub(super) const MODULE: Session = Session;

const SPEC: Spec =
    Spec { name: "session", document: "RFC 3921 §3", version: "", title: "Session Establishment (no-op)" };

pub(super) struct Session;

impl Module for Session {
    fn spec(&self) -> Spec {
        SPEC
    }

    fn interests(&self) -> &'static [Interest] {
        const { &[Interest::iq_set(ns::SESSION, At::SERVER.or(At::OWN_ACCOUNT))] }
    }

    fn process(&self, packet: &Packet, _: &View<'_>) -> Outcome {
        Outcome::reply(packet.stanza.result(None))
    }
}
