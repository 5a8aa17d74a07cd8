//! XEP-0198: Stream Management. Its feature; the rest is in `server/src/session/actor/management.rs`, for it is no stanza.

use minidom::Element;

use althing_proto::ns;

use super::{Module, Spec};

/// The module.
pub(super) const MODULE: StreamManagement = StreamManagement;

const SPEC: Spec =
    Spec { name: "stream_management", document: "XEP-0198", version: "1.6.3", title: "Stream Management" };

pub(super) struct StreamManagement;

impl Module for StreamManagement {
    fn spec(&self) -> Spec {
        SPEC
    }

    fn stream_features(&self) -> Vec<Element> {
        vec![Element::bare("sm", ns::STREAM_MANAGEMENT)]
    }
}
