//! XEP-0202: Entity Time. The server tells its clock's UTC.

use althing_proto::ns;
use althing_proto::xml::Element;

use super::{Feature, Module, Spec};
use crate::pipeline::{At, Interest, Outcome, Packet, View};

/// The module.
pub(super) const MODULE: Time = Time;

const SPEC: Spec = Spec { name: "time", document: "XEP-0202", version: "2.0", title: "Entity Time" };

pub(super) struct Time;

impl Module for Time {
    fn spec(&self) -> Spec {
        SPEC
    }

    fn interests(&self) -> &'static [Interest] {
        const { &[Interest::iq_get(ns::TIME, At::SERVER)] }
    }

    fn features(&self, _: &View<'_>) -> Vec<Feature> {
        vec![Feature { var: ns::TIME, at: At::SERVER }]
    }

    fn process(&self, packet: &Packet, view: &View<'_>) -> Outcome {
        // A server has users in many zones: its own offset says nothing, so it is UTC's.
        let time = Element::builder("time", ns::TIME)
            .append(Element::builder("tzo", ns::TIME).append("+00:00"))
            .append(Element::builder("utc", ns::TIME).append(view.now.to_xep0082()))
            .build();
        Outcome::reply(packet.stanza.result(Some(time)))
    }
}
