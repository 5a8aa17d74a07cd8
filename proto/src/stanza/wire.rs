//! Stanzas as bytes on a client's stream: made once, shared by all receivers.

use bytes::Bytes;
use minidom::Node;

use super::Stanza;
use crate::jid::Jid;
use crate::ns;
use crate::xml::build::ElementExt;
use crate::xml::{name, writer};

impl Stanza {
    /// The bytes on a client's stream, in its default namespace `jabber:client`. Made once per value.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        self.inner
            .wire
            .get_or_init(|| {
                let mut out = Vec::with_capacity(512);
                self.write_name(&mut out);
                if let Some(to) = self.to() {
                    writer::write_attribute("to", to.as_str(), &mut out);
                }
                self.write_rest(&mut out);
                Bytes::from(out)
            })
            .clone()
    }

    /// The stanza as XML that stands on its own, with its namespace: for storage and for other nodes.
    #[must_use]
    pub fn to_standalone(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        self.write_name(&mut out);
        writer::write_attribute("xmlns", ns::CLIENT, &mut out);
        if let Some(to) = self.to() {
            writer::write_attribute("to", to.as_str(), &mut out);
        }
        self.write_rest(&mut out);
        out
    }

    /// Reads what [`Stanza::to_standalone`] wrote; `None` if it is no stanza. For bytes that this server
    /// made: what comes from the network goes through [`crate::xml::reader`] and its limits.
    #[must_use]
    pub fn from_standalone(xml: &[u8]) -> Option<Stanza> {
        let element = minidom::Element::from_reader(xml).ok()?;
        Stanza::parse(element).ok()
    }

    /// Reads what [`Stanza::to_bytes`] wrote; as [`Stanza::from_standalone`].
    #[must_use]
    pub fn from_bytes(xml: &[u8]) -> Option<Stanza> {
        let element = minidom::Element::from_reader_with_prefixes(xml, ns::CLIENT.to_owned()).ok()?;
        Stanza::parse(element).ok()
    }

    /// The element with the head's addresses: a copy, for those who must have one.
    #[must_use]
    pub fn to_element(&self) -> minidom::Element {
        let mut element = self.element().clone();
        for (name, jid) in [(name!("from"), self.from()), (name!("to"), self.to())] {
            match jid {
                Some(jid) => element.set(name, jid.as_str()),
                None => drop(element.unset(name)),
            }
        }
        element
    }

    fn write_name(&self, out: &mut Vec<u8>) {
        out.push(b'<');
        out.extend_from_slice(self.kind().element_name().as_bytes());
    }

    /// All after the name and `to`: the other attributes and the content.
    fn write_rest(&self, out: &mut Vec<u8>) {
        if let Some(from) = self.from() {
            writer::write_attribute("from", from.as_str(), out);
        }
        let element = self.element();
        writer::write_attributes(element, |name| matches!(name, "to" | "from"), out);
        if element.nodes().next().is_none() {
            out.extend_from_slice(b"/>");
            return;
        }
        out.push(b'>');
        for node in element.nodes() {
            match node {
                Node::Element(child) => writer::write_element(child, ns::CLIENT, out),
                Node::Text(text) => writer::write_text(text, out),
            }
        }
        out.extend_from_slice(b"</");
        out.extend_from_slice(self.kind().element_name().as_bytes());
        out.push(b'>');
    }
}

/// One stanza for many receivers: serialized once, each copy differs only in its `to`.
#[derive(Debug)]
pub struct Broadcast {
    stanza: Stanza,
    rest: Vec<u8>,
}

impl Broadcast {
    /// Prepares `stanza`; its own `to` is left out.
    #[must_use]
    pub fn new(stanza: Stanza) -> Self {
        let mut rest = Vec::with_capacity(512);
        stanza.write_rest(&mut rest);
        Broadcast { stanza, rest }
    }

    /// The stanza that is sent to all.
    #[must_use]
    pub fn stanza(&self) -> &Stanza {
        &self.stanza
    }

    /// The copy for one receiver: shares the element, its bytes are a plain concatenation.
    #[must_use]
    pub fn copy_for(&self, to: impl Into<Jid>) -> Stanza {
        let to = to.into();
        let mut out = Vec::with_capacity(self.rest.len() + to.as_str().len() + 24);
        self.stanza.write_name(&mut out);
        writer::write_attribute("to", to.as_str(), &mut out);
        out.extend_from_slice(&self.rest);
        let copy = self.stanza.with_to(to);
        // The cell of a fresh value is empty: this sets it.
        let _ = copy.inner.wire.set(Bytes::from(out));
        copy
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jid::BareJid;

    #[test]
    fn copies_of_a_broadcast_equal_single_stanzas() {
        let xml = "<presence xmlns='jabber:client' from='a@b/c' xml:lang='en'><show>away</show>\
                   <c xmlns='http://jabber.org/protocol/caps' ver='&apos;&lt;'/></presence>";
        let stanza = Stanza::parse(xml.parse().unwrap()).unwrap();
        let broadcast = Broadcast::new(stanza.clone());
        for to in ["x@y", "über@example.org"] {
            let to = BareJid::new(to).unwrap();
            let copy = broadcast.copy_for(to.clone());
            assert_eq!(copy.to().map(Jid::as_str), Some(to.as_str()));
            assert_eq!(copy.to_bytes(), stanza.with_to(to).to_bytes());
        }
    }

    #[test]
    fn standalone_xml_is_read_back() {
        let xml = "<presence xmlns='jabber:client' type='subscribe'><status>hi &amp; you</status></presence>";
        let stanza = Stanza::parse(xml.parse().unwrap()).unwrap().with_from(BareJid::new("a@b").unwrap());
        let back = Stanza::from_standalone(&stanza.to_standalone()).unwrap();
        assert_eq!(back.to_bytes(), stanza.to_bytes());
        let back = Stanza::from_bytes(&stanza.to_bytes()).unwrap();
        assert_eq!(back.to_standalone(), stanza.to_standalone());
    }
}
