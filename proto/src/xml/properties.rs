//! Properties of reader and writer together, over generated documents.

use minidom::{Element, Node};
use proptest::prelude::*;
use rxml::{Namespace, NcName};

use super::limits::Limits;
use super::reader::{StreamReader, XmlError, XmlEvent};
use super::writer::{to_string, write_element};
use crate::ns;

const HEADER: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' \
     xmlns:stream='http://etherx.jabber.org/streams' xmlns:p='urn:p' to='example.net' version='1.0'>";

/// What a reader told, in a form that can be compared.
type Story = (Vec<String>, Option<XmlError>);

/// Reads `chunks` one after the other, to the end or to the first error.
fn read<'a>(chunks: impl IntoIterator<Item = &'a [u8]>, limits: Limits) -> Story {
    let mut reader = StreamReader::new(limits);
    let mut told = Vec::new();
    for mut chunk in chunks {
        loop {
            match reader.next(&mut chunk) {
                Ok(Some(XmlEvent::Element(element))) => told.push(format!("{element:?}")),
                Ok(Some(event)) => told.push(format!("{event:?}")),
                Ok(None) => break,
                Err(error) => return (told, Some(error)),
            }
        }
        assert!(chunk.is_empty(), "bytes are left although no event was told");
    }
    (told, None)
}

/// The one element that `xml` holds, read inside a client's stream.
fn read_back(xml: &str) -> Element {
    let document = format!("{HEADER}{xml}");
    let mut bytes = document.as_bytes();
    let mut reader = StreamReader::new(Limits::OWN);
    assert!(matches!(reader.next(&mut bytes), Ok(Some(XmlEvent::StreamStart(_)))));
    match reader.next(&mut bytes) {
        Ok(Some(XmlEvent::Element(element))) => {
            assert!(bytes.is_empty(), "left over: {}", String::from_utf8_lossy(bytes));
            element
        }
        other => panic!("{other:?} for {xml}"),
    }
}

/// Any character that XML 1.0 §2.2 allows, the troublesome ones often.
fn legal_char() -> impl Strategy<Value = char> {
    prop_oneof![
        4 => proptest::sample::select(vec!['<', '>', '&', '\'', '"', ']', '\r', '\n', '\t', ' ', '\u{85}', '\u{FFFD}', '\u{EFFF}', '\u{10FFFF}']),
        4 => proptest::char::range('a', 'z'),
        2 => any::<char>().prop_filter("not in XML 1.0", |c| {
            !matches!(c, '\0'..='\u{8}' | '\u{B}' | '\u{C}' | '\u{E}'..='\u{1F}' | '\u{FFFE}' | '\u{FFFF}')
        }),
    ]
}

fn legal_text() -> impl Strategy<Value = String> {
    proptest::collection::vec(legal_char(), 1..20).prop_map(String::from_iter)
}

fn local_name() -> impl Strategy<Value = String> {
    "[a-zé_][a-z0-9.é-]{0,5}"
}

fn namespace() -> impl Strategy<Value = String> {
    proptest::sample::select(vec!["", ns::CLIENT, ns::STREAM, ns::SERVER, "urn:p", "urn:q'<&>", ns::XML])
        .prop_map(str::to_owned)
}

/// An element with attributes and nothing in it.
fn childless() -> impl Strategy<Value = Element> {
    // No element may be in the namespace of `xml:`, for it cannot be a default (Namespaces §3).
    let element_ns = namespace().prop_filter("not for elements", |ns| ns != ns::XML);
    let attributes = proptest::collection::vec((namespace(), local_name(), legal_text()), 0..5);
    (local_name(), element_ns, attributes).prop_map(|(name, ns, attributes)| {
        let mut element = Element::bare(name, ns);
        for (namespace, name, value) in attributes {
            let name = NcName::try_from(name).expect("a name");
            element.attrs_mut().insert(Namespace::from(namespace), name, value);
        }
        element
    })
}

fn element() -> impl Strategy<Value = Element> {
    childless().prop_recursive(5, 40, 5, |inner| {
        let node = prop_oneof![legal_text().prop_map(Node::Text), inner.prop_map(Node::Element)];
        (childless(), proptest::collection::vec(node, 0..5)).prop_map(|(mut element, nodes)| {
            for node in nodes {
                match node {
                    // Neighbouring texts are one text to a reader.
                    Node::Text(text) => element.append_text(text),
                    Node::Element(child) => {
                        element.append_child(child);
                    }
                }
            }
            element
        })
    })
}

/// Bytes that are nearly XML: every construct, in any order.
fn soup() -> impl Strategy<Value = Vec<u8>> {
    let pieces: Vec<&'static [u8]> = vec![
        b"<a>",
        b"</a>",
        b"<a/>",
        b"<b xmlns='urn:b' c='1'>",
        b"</b>",
        b"<p:e p:f='&lt;&#x41;'>",
        b"</p:e>",
        b" ",
        b"\r\n",
        b"\r",
        b"text",
        b"&amp;",
        b"&#13;",
        b"&nbsp;",
        b"<![CDATA[",
        b"]]>",
        b"]",
        b"<!--x-->",
        b"<?xml version='1.0'?>",
        b"<?pi?>",
        b"<!DOCTYPE a>",
        b"\xC3\xA9",
        b"\xC3",
        b"\xF0\x9F\x98\x80",
        b"\xFF",
        b"\0",
        b"<",
        b">",
        b"</stream:stream>",
        b"<q:r/>",
        b"<a a='1' a='2'/>",
    ];
    proptest::collection::vec(proptest::sample::select(pieces), 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(element in element(), default_ns in namespace()) {
        prop_assert_eq!(&read_back(&to_string(&element, ns::CLIENT)), &element);
        // Inside an element that declares another default namespace.
        prop_assume!(default_ns != ns::XML);
        let mut xml = b"<wrap".to_vec();
        super::writer::write_attribute("xmlns", &default_ns, &mut xml);
        xml.push(b'>');
        write_element(&element, &default_ns, &mut xml);
        xml.extend_from_slice(b"</wrap>");
        let wrap = read_back(std::str::from_utf8(&xml).expect("UTF-8"));
        prop_assert_eq!(wrap.children().next(), Some(&element));
        // A second time through gives the same bytes.
        let again = to_string(&read_back(&to_string(&element, ns::CLIENT)), ns::CLIENT);
        prop_assert_eq!(again, to_string(&element, ns::CLIENT));
    }

    #[test]
    fn any_string_can_be_sent(text in any::<String>()) {
        let mut element = Element::bare("body", ns::CLIENT);
        element.append_text(text.clone());
        element.attrs_mut().insert(Namespace::NONE, NcName::try_from("a").expect("a name"), text.clone());
        let back = read_back(&to_string(&element, ns::CLIENT));
        let expected: String = text.chars().map(|c| match c {
            '\0'..='\u{8}' | '\u{B}' | '\u{C}' | '\u{E}'..='\u{1F}' | '\u{FFFE}' | '\u{FFFF}' => '\u{FFFD}',
            other => other,
        }).collect();
        prop_assert_eq!(back.text(), expected.clone());
        prop_assert_eq!(back.attr("a"), Some(expected.as_str()));
    }

    /// T1: bytes, characters, tags.
    #[test]
    fn a_document_may_be_cut_anywhere(
        elements in proptest::collection::vec((element(), "[ \r\n\t]{0,3}"), 0..3), soup in soup(),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6), bytes in 40_usize..4000,
    ) {
        let mut document = HEADER.as_bytes().to_vec();
        for (element, blank) in &elements {
            write_element(element, ns::CLIENT, &mut document);
            document.extend_from_slice(blank.as_bytes());
        }
        document.extend_from_slice(&soup);
        let limits = Limits { stanza_bytes: bytes, ..Limits::BEFORE_LOGIN };
        let whole = read([&document[..]], limits);
        prop_assert_eq!(&read(document.chunks(1), limits), &whole);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(document.len())).collect();
        cuts.sort_unstable();
        let mut rest = &document[..];
        let mut parts = Vec::new();
        for cut in cuts {
            let (part, tail) = rest.split_at(cut - (document.len() - rest.len()));
            parts.push(part);
            rest = tail;
        }
        parts.push(rest);
        prop_assert_eq!(&read(parts, limits), &whole);
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), inside in any::<bool>()) {
        let head = if inside { HEADER.as_bytes() } else { b"" };
        let whole = read([head, &bytes[..]], Limits::BEFORE_LOGIN);
        let document = [head, &bytes[..]].concat();
        prop_assert_eq!(read(document.chunks(1), Limits::BEFORE_LOGIN), whole);
    }
}
