//! Elements to bytes (RFC 6120 §11).
//!
//! An own writer, not minidom's: it leaves out namespaces that are in force, needs no state from one
//! element to the next, and allocates only where the namespace changes.

use minidom::{Element, Node};
use rxml::Namespace;

use crate::ns;

/// Serializes `element`, leaving out its namespace where it equals the one in force.
///
/// `default_ns` is the default namespace at the place of writing: the stream's content namespace, or
/// `""` for XML that stands on its own (storage, the road between nodes). If `element` itself is in
/// [`ns::STREAM`] and that is not the default, it is written with the prefix `stream`, which every
/// stream header binds (RFC 6120 §4.8.5); elements below it never lean on a prefix of the header.
///
/// Names are taken on trust: they are literals or come from the reader. Text and values are escaped
/// as [`write_text`] and [`write_attr_value`] say.
pub fn write_element(element: &Element, default_ns: &str, out: &mut Vec<u8>) {
    if default_ns != ns::STREAM && element.has_ns(ns::STREAM) {
        write_tree(element, "stream:", None, default_ns, out);
    } else {
        write_below(element, default_ns, out);
    }
}

/// [`write_element`] to a string of its own.
#[must_use]
pub fn to_string(element: &Element, default_ns: &str) -> String {
    let mut out = Vec::with_capacity(256);
    write_element(element, default_ns, &mut out);
    String::from_utf8(out).unwrap_or_default()
}

/// Writes an attribute, a space before it: ` to='romeo@example.net'`.
pub fn write_attribute(name: &str, value: &str, out: &mut Vec<u8>) {
    out.push(b' ');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"='");
    write_attr_value(value, out);
    out.push(b'\'');
}

/// Writes an attribute's value, without the quotes, so that a reader gets the same characters.
///
/// Whitespace other than the space becomes a character reference, for attribute values are normalized
/// (XML 1.0 §3.3.3). A character that XML 1.0 cannot hold at all becomes U+FFFD: sent as it is, it would
/// end the receiver's stream.
pub fn write_attr_value(value: &str, out: &mut Vec<u8>) {
    escape(value, true, out);
}

/// Writes text, so that a reader gets the same characters. `>` is escaped, lest `]]>` appear; CR becomes a
/// character reference, for line ends are normalized (XML 1.0 §2.11). What XML 1.0 cannot hold at
/// all becomes U+FFFD.
pub fn write_text(text: &str, out: &mut Vec<u8>) {
    escape(text, false, out);
}

fn write_below(element: &Element, default_ns: &str, out: &mut Vec<u8>) {
    if element.has_ns(default_ns) {
        write_tree(element, "", None, default_ns, out);
    } else {
        let namespace = element.ns();
        write_tree(element, "", Some(&namespace), &namespace, out);
    }
}

fn write_tree(element: &Element, prefix: &str, declare: Option<&str>, default_ns: &str, out: &mut Vec<u8>) {
    out.push(b'<');
    out.extend_from_slice(prefix.as_bytes());
    out.extend_from_slice(element.name().as_bytes());
    if let Some(namespace) = declare {
        write_attribute("xmlns", namespace, out);
    }
    write_attributes(element, |_| false, out);
    if element.nodes().len() == 0 {
        out.extend_from_slice(b"/>");
        return;
    }
    out.push(b'>');
    for node in element.nodes() {
        match node {
            Node::Element(child) => write_below(child, default_ns, out),
            Node::Text(text) => write_text(text, out),
        }
    }
    out.extend_from_slice(b"</");
    out.extend_from_slice(prefix.as_bytes());
    out.extend_from_slice(element.name().as_bytes());
    out.push(b'>');
}

/// Writes the attributes of `element`, less those without a namespace that `skip` names.
pub(crate) fn write_attributes(element: &Element, skip: impl Fn(&str) -> bool, out: &mut Vec<u8>) {
    // The map is ordered by namespace, so attributes that share a prefix are neighbours.
    let mut last: Option<&Namespace<'_>> = None;
    let mut generated = 0_usize;
    for ((namespace, name), value) in element.attrs() {
        if namespace.is_none() {
            if !skip(name) {
                write_attribute(name, value, out);
            }
            continue;
        }
        if namespace == Namespace::xml() {
            out.extend_from_slice(b" xml:");
        } else {
            if last != Some(namespace) {
                generated += 1;
                last = Some(namespace);
                write_attribute(&format!("xmlns:a{generated}"), namespace, out);
            }
            out.extend_from_slice(format!(" a{generated}:").as_bytes());
        }
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"='");
        write_attr_value(value, out);
        out.push(b'\'');
    }
}

/// What stands for U+FFFE, U+FFFF and control characters.
const REPLACEMENT: &[u8] = "\u{FFFD}".as_bytes();

fn escape(text: &str, attribute: bool, out: &mut Vec<u8>) {
    let bytes = text.as_bytes();
    let mut plain = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        // Most bytes are letters; one comparison each lets them pass.
        if byte > b'>' && byte != 0xEF {
            continue;
        }
        let (with, length): (&[u8], usize) = match byte {
            b'&' => (b"&amp;", 1),
            b'<' => (b"&lt;", 1),
            b'>' => (b"&gt;", 1),
            b'\'' if attribute => (b"&apos;", 1),
            b'\t' if attribute => (b"&#9;", 1),
            b'\n' if attribute => (b"&#10;", 1),
            b'\r' => (b"&#13;", 1),
            b'\t' | b'\n' => continue,
            0x00..=0x1F => (REPLACEMENT, 1),
            0xEF if matches!(bytes.get(at + 1..at + 3), Some([0xBF, 0xBE | 0xBF])) => (REPLACEMENT, 3),
            _ => continue,
        };
        out.extend_from_slice(&bytes[plain..at]);
        out.extend_from_slice(with);
        plain = at + length;
    }
    out.extend_from_slice(&bytes[plain..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xml::build::{BuilderExt, ElementExt};
    use crate::xml::name;

    #[test]
    fn namespaces_in_force_are_left_out() {
        let message = Element::builder("message", ns::CLIENT)
            .set(name!("to"), "juliet@example.net")
            .append(Element::builder("body", ns::CLIENT).append("O, Romeo"))
            .append(Element::builder("delay", ns::DELAY).append(Element::bare("x", ns::CLIENT)))
            .append(Element::bare("bare", ""))
            .build();
        assert_eq!(
            to_string(&message, ns::CLIENT),
            "<message to='juliet@example.net'><body>O, Romeo</body>\
             <delay xmlns='urn:xmpp:delay'><x xmlns='jabber:client'/></delay><bare xmlns=''/></message>"
        );
        assert!(to_string(&message, "").starts_with("<message xmlns='jabber:client' to="));
    }

    #[test]
    fn stream_elements_bear_the_prefix_of_the_header_only_at_the_top() {
        let features = Element::builder("features", ns::STREAM)
            .append(Element::bare("starttls", ns::TLS))
            .append(Element::bare("inner", ns::STREAM))
            .build();
        assert_eq!(
            to_string(&features, ns::CLIENT),
            "<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>\
             <inner xmlns='http://etherx.jabber.org/streams'/></stream:features>"
        );
        assert!(to_string(&features, ns::STREAM).starts_with("<features><starttls"));
    }

    #[test]
    fn attributes_with_namespaces_get_prefixes() {
        let mut element = Element::bare("a", ns::CLIENT);
        element.set_attr(Namespace::XML, name!("lang").to_owned(), "is");
        element.set_attr(Namespace::from("urn:a"), name!("x").to_owned(), "1");
        element.set_attr(Namespace::from("urn:a"), name!("y").to_owned(), "2");
        element.set_attr(Namespace::from("urn:b"), name!("x").to_owned(), "3");
        assert_eq!(
            to_string(&element, ns::CLIENT),
            "<a xml:lang='is' xmlns:a1='urn:a' a1:x='1' a1:y='2' xmlns:a2='urn:b' a2:x='3'/>"
        );
        assert_eq!(element.lang(), Some("is"));
    }

    #[test]
    fn what_xml_cannot_hold_is_replaced() {
        let mut out = Vec::new();
        write_text("a\0b\u{1F}\u{FFFE}\u{FFFF}\u{FFFD}\u{F000}]]>\r\n\t'\"", &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "a\u{FFFD}b\u{FFFD}\u{FFFD}\u{FFFD}\u{FFFD}\u{F000}]]&gt;&#13;\n\t'\""
        );
        let mut out = Vec::new();
        write_attr_value("a\0\r\n\t'\"<&>", &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "a\u{FFFD}&#13;&#10;&#9;&apos;\"&lt;&amp;&gt;");
    }
}
