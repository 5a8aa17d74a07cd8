//! XEP-0352: Client State Indication. Its feature; the rest is in `server/src/session/actor/client_state.rs`, for it is no
//! stanza, and in the queue to the client, where presence and chat states wait (`server/src/session/outbox/queue.rs`).

use minidom::Element;

use althing_proto::ns;

use super::{Module, Spec};

/// The module.
pub(super) const MODULE: ClientState = ClientState;

const SPEC: Spec =
    Spec { name: "client_state", document: "XEP-0352", version: "1.0.0", title: "Client State Indication" };

pub(super) struct ClientState;

impl Module for ClientState {
    fn spec(&self) -> Spec {
        SPEC
    }

    /// §4.1.
    fn stream_features(&self) -> Vec<Element> {
        vec![Element::bare("csi", ns::CLIENT_STATE)]
    }
}
