//! XEP-0359: Unique and Stable Stanza IDs. What a stanza id says of an account here, this server has said.
//!
//! Forged ones go as soon as a stanza comes in (`Stanza::without_forgeries` in `proto/src/stanza/forged.rs`), so that
//! no module ever sees one. None is added yet: an id stands for a place in the archive, and whatever keeps a message
//! there gives it its id, at this place in the order of modules.

use althing_proto::ns;

use super::{Feature, Module, Spec};
use crate::pipeline::{At, View};

/// The module.
pub(super) const MODULE: StanzaId = StanzaId;

const SPEC: Spec = Spec {
    name: "stanza_id",
    document: "XEP-0359",
    version: "0.7.0",
    title: "Unique and Stable Stanza IDs: forged ones are taken out",
};

pub(super) struct StanzaId;

impl Module for StanzaId {
    fn spec(&self) -> Spec {
        SPEC
    }

    /// §5: the rules hold for the server and for accounts.
    fn features(&self, _: &View<'_>) -> Vec<Feature> {
        vec![Feature { var: ns::STANZA_ID, at: At::SERVER.or(At::OWN_ACCOUNT) }]
    }
}
