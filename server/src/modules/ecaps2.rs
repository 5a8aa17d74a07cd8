//! XEP-0390: Entity Capabilities 2.0. What the server can do, as a SHA-256 hash in its stream features.

use althing_proto::ns;

use super::{Discovered, Feature, Module, Spec};
use crate::pipeline::{At, Packet, Pass, View};

/// The module.
pub(super) const MODULE: Ecaps2 = Ecaps2;

const SPEC: Spec =
    Spec { name: "ecaps2", document: "XEP-0390", version: "0.3.2", title: "Entity Capabilities 2.0" };

pub(super) struct Ecaps2;

impl Module for Ecaps2 {
    fn spec(&self) -> Spec {
        SPEC
    }

    fn features(&self, _: &View<'_>) -> Vec<Feature> {
        vec![Feature { var: ns::ECAPS2, at: At::SERVER }]
    }

    fn discover(&self, packet: &Packet, node: &str, view: &View<'_>) -> Option<Discovered> {
        let capabilities = view.node.capabilities();
        let known = packet.pass == Pass::Server && capabilities.is_hash_node(node);
        known.then(|| Discovered::leaf(packet, capabilities.info.clone()))
    }
}
