//! XEP-0157: Contact Addresses for XMPP Services. The lists of `[contact]`, in what service discovery says of the
//! server.

use althing_proto::form::{Field, Form};
use althing_proto::ns;

use super::{Module, Spec};
use crate::pipeline::{At, View};

/// The module.
pub(super) const MODULE: Contact = Contact;

const SPEC: Spec = Spec {
    name: "contact",
    document: "XEP-0157",
    version: "1.1.1",
    title: "Contact Addresses for XMPP Services",
};

pub(super) struct Contact;

impl Module for Contact {
    fn spec(&self) -> Spec {
        SPEC
    }

    fn extensions(&self, view: &View<'_>) -> Vec<(At, Form)> {
        let config = view.node.config();
        let lists = config.contact.lists();
        let fields: Vec<Field> = lists
            .into_iter()
            .filter(|(_, addresses)| !addresses.is_empty())
            .map(|(name, addresses)| {
                // Without a type, as in the examples: a list would need options.
                Field { kind: None, ..Field::text(format!("{name}-addresses")) }.all(addresses)
            })
            .collect();
        if fields.is_empty() {
            return Vec::new();
        }
        let form = Form::result().typed(ns::SERVER_INFO);
        vec![(At::SERVER, fields.into_iter().fold(form, Form::with))]
    }
}
