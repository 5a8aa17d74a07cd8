//! XEP-0092: Software Version. The server tells its name and version, not its operating system (§5).

use althing_proto::ns;
use althing_proto::xml::Element;

use super::{Feature, Module, Spec};
use crate::pipeline::{At, Interest, Outcome, Packet, View};

/// The module.
pub(super) const MODULE: Version = Version;

const SPEC: Spec = Spec { name: "version", document: "XEP-0092", version: "1.1", title: "Software Version" };

pub(super) struct Version;

impl Module for Version {
    fn spec(&self) -> Spec {
        SPEC
    }

    fn interests(&self) -> &'static [Interest] {
        const { &[Interest::iq_get(ns::VERSION, At::SERVER)] }
    }

    fn features(&self, _: &View<'_>) -> Vec<Feature> {
        vec![Feature { var: ns::VERSION, at: At::SERVER }]
    }

    fn process(&self, packet: &Packet, _: &View<'_>) -> Outcome {
        let query = Element::builder("query", ns::VERSION)
            .append(Element::builder("name", ns::VERSION).append("Althing"))
            .append(Element::builder("version", ns::VERSION).append(env!("CARGO_PKG_VERSION")))
            .build();
        Outcome::reply(packet.stanza.result(Some(query)))
    }
}
