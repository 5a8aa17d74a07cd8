//! XEP-0115: Entity Capabilities. What the server can do, as a SHA-1 hash in its stream features.

use althing_proto::ns;

use super::{Discovered, Feature, Module, Spec};
use crate::pipeline::{At, Packet, Pass, View};

/// The module.
pub(super) const MODULE: Caps = Caps;

const SPEC: Spec =
    Spec { name: "caps", document: "XEP-0115", version: "1.6.0", title: "Entity Capabilities" };

pub(super) struct Caps;

impl Module for Caps {
    fn spec(&self) -> Spec {
        SPEC
    }

    fn features(&self, _: &View<'_>) -> Vec<Feature> {
        vec![Feature { var: ns::CAPS, at: At::SERVER }]
    }

    fn discover(&self, packet: &Packet, node: &str, view: &View<'_>) -> Option<Discovered> {
        let capabilities = view.node.capabilities();
        let known = packet.pass == Pass::Server && capabilities.is_verification_node(node);
        known.then(|| Discovered::leaf(packet, capabilities.info.clone()))
    }
}
