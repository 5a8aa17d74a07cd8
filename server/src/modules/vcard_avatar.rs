//! XEP-0153: vCard-Based Avatars. The server puts the hash of the photo into presence, as XEP-0398 asks of servers.
//!
//! What is put in is decided in `server/src/session/avatar.rs`; the presence module asks for it, for presence that is
//! broadcast and presence to one address alike.

use althing_proto::ns;

use super::{Module, Spec};
use crate::session::avatar::Avatar;
use crate::storage::profile::DocumentHead;

/// The module.
pub(super) const MODULE: VcardAvatar = VcardAvatar;

const SPEC: Spec = Spec {
    name: "vcard_avatar",
    document: "XEP-0153",
    version: "1.1.1",
    title: "vCard-Based Avatars, put into presence by the server",
};

pub(super) struct VcardAvatar;

// It has no feature of its own: XEP-0153 names none, and that of XEP-0398 is about PEP.
impl Module for VcardAvatar {
    fn spec(&self) -> Spec {
        SPEC
    }
}

/// The documents whose heads a session wants when it begins.
pub const LOGIN_DOCUMENTS: &[&str] = &[ns::VCARD];

/// The avatar that the head of a vCard speaks of.
#[must_use]
pub fn avatar(vcard: Option<DocumentHead>) -> Avatar {
    vcard.map_or_else(Avatar::default, |head| {
        let hash = String::from_utf8(head.note.to_vec()).ok().filter(|hash| !hash.is_empty());
        Avatar { revision: head.revision, hash }
    })
}
