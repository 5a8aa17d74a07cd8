//! XEP-0160: Best Practices for Handling Offline Messages. Its feature; the rest is what becomes of messages for who is
//! not there: `server/src/delivery/keep.rs`, and `server/src/session/actor/drain.rs` when somebody comes.

use althing_proto::ns;

use super::{Feature, Module, Spec};
use crate::pipeline::{At, View};

/// The module.
pub(super) const MODULE: Offline = Offline;

const SPEC: Spec = Spec {
    name: "offline",
    document: "XEP-0160",
    version: "1.0.1",
    title: "Best Practices for Handling Offline Messages",
};

pub(super) struct Offline;

impl Module for Offline {
    fn spec(&self) -> Spec {
        SPEC
    }

    /// §4.
    fn features(&self, view: &View<'_>) -> Vec<Feature> {
        let offered = view.node.config().offline.enabled;
        offered.then_some(Feature { var: ns::OFFLINE, at: At::SERVER }).into_iter().collect()
    }
}
