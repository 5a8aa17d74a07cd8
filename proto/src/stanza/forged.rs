//! What only the recipient's server may say in a stanza: taken out of what others send.

use std::sync::Arc;

use minidom::{Element, Node};

use super::{Kind, Stanza};
use crate::{jid, ns};

impl Stanza {
    /// The stanza without what only this server may put into it: a stanza id `by` one of its own addresses
    /// (XEP-0359 §3), and the note that it was delayed here (XEP-0203 §5). `is_ours` says whether a domain is served
    /// here. For every stanza that comes in, from whomever; costs a look at the children of messages and presences.
    #[must_use]
    pub fn without_forgeries(mut self, is_ours: impl Fn(&str) -> bool) -> Stanza {
        let forged = |child: &Element| is_forged(child, &is_ours);
        if matches!(self.kind(), Kind::Iq(_)) || !self.element().children().any(forged) {
            return self;
        }
        let mut element = self.element().clone();
        for node in element.take_nodes() {
            match node {
                Node::Element(child) if forged(&child) => {}
                node => element.append_node(node),
            }
        }
        match Arc::get_mut(&mut self.inner) {
            // Nobody else has it yet.
            Some(inner) => {
                inner.element = Arc::new(element);
                inner.wire = std::sync::OnceLock::new();
                self
            }
            None => Stanza::from_parts(self.kind(), self.from().cloned(), self.to().cloned(), element),
        }
    }
}

fn is_forged(child: &Element, is_ours: impl Fn(&str) -> bool) -> bool {
    // What is no address names nobody, but whoever reads it may be less exact.
    let address = |name| child.attr(name).map(|text| jid::parse(text).ok());
    match child.name() {
        "stanza-id" if child.is("stanza-id", ns::STANZA_ID) => {
            address("by").is_some_and(|by| by.is_none_or(|by| is_ours(by.domain().as_str())))
        }
        "delay" if child.is("delay", ns::DELAY) => address("from")
            .flatten()
            .is_some_and(|from| from.node().is_none() && is_ours(from.domain().as_str())),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cleaned(inside: &str) -> String {
        let xml = format!("<message xmlns='jabber:client' to='a@here'>{inside}</message>");
        let stanza = Stanza::parse(xml.parse().unwrap()).unwrap();
        let clean = stanza.without_forgeries(|domain| domain == "here");
        assert_eq!(clean.to().unwrap().as_str(), "a@here");
        let wire = String::from_utf8(clean.to_bytes().to_vec()).unwrap();
        wire.replace("<message to='a@here'/>", "")
            .replace("<message to='a@here'>", "")
            .replace("</message>", "")
    }

    /// XEP-0359 §3: a stanza id by an address of this server's is this server's to give; others pass.
    #[test]
    fn a_forged_stanza_id_is_taken_out() {
        for by in ["a@here", "A@HERE", "here", "b@here/r", "@@"] {
            let id = format!("<stanza-id xmlns='urn:xmpp:sid:0' id='1' by='{by}'/>");
            assert_eq!(cleaned(&format!("{id}<body>x</body>{id}")), "<body>x</body>", "{by}");
        }
        for kept in [
            "<stanza-id xmlns='urn:xmpp:sid:0' by='room@there' id='1'/>",
            "<stanza-id xmlns='urn:xmpp:sid:0' by='room@rooms.here' id='1'/>",
            "<origin-id xmlns='urn:xmpp:sid:0' id='1'/>",
            "<x xmlns='urn:x'><stanza-id xmlns='urn:xmpp:sid:0' by='a@here' id='1'/></x>",
        ] {
            assert_eq!(cleaned(kept), kept);
        }
    }

    /// XEP-0203 §5: nobody but this server says that this server has delayed a stanza.
    #[test]
    fn a_forged_delay_is_taken_out() {
        let delay = |from: &str| {
            format!("<delay xmlns='urn:xmpp:delay' from='{from}' stamp='2002-09-10T23:08:25Z'/>")
        };
        assert_eq!(cleaned(&delay("here")), "");
        for kept in ["a@here/r", "there", "room@there"] {
            assert_eq!(cleaned(&delay(kept)), delay(kept));
        }
    }
}
