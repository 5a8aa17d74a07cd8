//! How what is said on a stream becomes bytes: one XML document (RFC 6120 §4), or a WebSocket message for each
//! element (RFC 7395 §3.3).

use super::error::StreamError;
use super::frames;
use crate::ns;
use crate::xml::writer::{write_attribute, write_element};

/// The form of a stream on its transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Over TCP and TLS: elements follow each other in one document.
    Tcp,
    /// Over a WebSocket: each element is a message, and a document of its own (RFC 7395 §3.3.3).
    WebSocket,
}

impl Framing {
    /// Writes a first-level element, given as it stands in a stream whose header binds `jabber:client` and the
    /// prefix `stream`: what [`Stanza::to_bytes`](crate::stanza::Stanza::to_bytes) and [`write_element`] make.
    pub fn write(self, element: &[u8], out: &mut Vec<u8>) {
        match self {
            Framing::Tcp => out.extend_from_slice(element),
            Framing::WebSocket => {
                let (name, declared, rest) = stand_alone(element);
                frames::write_text_head(name.len() + declared.len() + rest.len(), out);
                for part in [name, declared.as_bytes(), rest] {
                    out.extend_from_slice(part);
                }
            }
        }
    }

    /// The number of bytes that [`write`](Self::write) makes of an element.
    #[must_use]
    pub fn length(self, element: &[u8]) -> usize {
        match self {
            Framing::Tcp => element.len(),
            Framing::WebSocket => {
                let length = element.len() + stand_alone(element).1.len();
                frames::text_head_length(length) + length
            }
        }
    }

    /// The last words of a stream: the error, if there is one, and the end (RFC 6120 §4.4; RFC 7395 §3.5, §3.6).
    #[must_use]
    pub fn last_words(self, error: Option<&StreamError>) -> Vec<u8> {
        let mut out = Vec::new();
        if let Some(error) = error {
            let mut element = Vec::new();
            write_element(&error.to_element(), ns::CLIENT, &mut element);
            self.write(&element, &mut out);
        }
        self.write_end(&mut out);
        if self == Framing::WebSocket {
            frames::write_close(frames::NORMAL, &mut out);
        }
        out
    }

    /// The end of our side of the stream.
    pub(super) fn write_end(self, out: &mut Vec<u8>) {
        match self {
            Framing::Tcp => out.extend_from_slice(b"</stream:stream>"),
            Framing::WebSocket => {
                let mut close = b"<close".to_vec();
                write_attribute("xmlns", ns::FRAMING, &mut close);
                close.extend_from_slice(b"/>");
                self.write(&close, out);
            }
        }
    }
}

/// Declares `jabber:client` and the prefix `stream`, as a stream's header would.
const FOR_STREAM: &str = " xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'";
/// Declares `jabber:client`.
const FOR_CLIENT: &str = " xmlns='jabber:client'";

/// An element up to the end of its name, the declarations that it leaves to a stream's header, and the rest of it.
fn stand_alone(element: &[u8]) -> (&[u8], &'static str, &[u8]) {
    let end = element.iter().position(|byte| matches!(byte, b' ' | b'/' | b'>')).unwrap_or(element.len());
    let (name, rest) = element.split_at(end);
    // Our own writer puts a declaration first.
    let declared = if rest.starts_with(b" xmlns=") {
        ""
    } else if name.starts_with(b"<stream:") {
        FOR_STREAM
    } else {
        FOR_CLIENT
    };
    (name, declared, rest)
}

#[cfg(test)]
mod tests {
    use minidom::Element;

    use super::*;
    use crate::stanza::Stanza;
    use crate::stream::error::StreamCondition;

    fn message(element: &[u8]) -> String {
        let mut out = Vec::new();
        Framing::WebSocket.write(element, &mut out);
        assert_eq!(out.len(), Framing::WebSocket.length(element));
        let text = frames::texts(&out);
        assert_eq!(text.len(), 1);
        text[0].clone()
    }

    #[test]
    fn each_message_is_a_document_of_its_own() {
        for (element, document) in [
            ("<presence/>", "<presence xmlns='jabber:client'/>"),
            ("<iq id='1'/>", "<iq xmlns='jabber:client' id='1'/>"),
            (
                "<message><body>&gt;</body></message>",
                "<message xmlns='jabber:client'><body>&gt;</body></message>",
            ),
            ("<success xmlns='urn:a'>x</success>", "<success xmlns='urn:a'>x</success>"),
            (
                "<stream:features><x xmlns='urn:a'/></stream:features>",
                "<stream:features xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>\
                 <x xmlns='urn:a'/></stream:features>",
            ),
        ] {
            assert_eq!(message(element.as_bytes()), document);
            assert!(document.parse::<Element>().is_ok());
        }
    }

    #[test]
    fn a_stanza_is_the_same_as_on_tcp() {
        let xml = "<message xmlns='jabber:client' to='a@b' xml:lang='is'><x xmlns='urn:a' b='c'>d</x>\
                   <body>e</body></message>";
        let stanza = Stanza::parse(xml.parse().unwrap()).unwrap();
        let element: Element = message(&stanza.to_bytes()).parse().unwrap();
        assert_eq!(element, stanza.to_element());
    }

    #[test]
    fn the_length_is_told_in_the_shortest_form() {
        for (body, head) in [(10, 2), (500, 4), (70_000, 10)] {
            let element = format!("<a xmlns='b'>{}</a>", "x".repeat(body));
            let mut out = Vec::new();
            Framing::WebSocket.write(element.as_bytes(), &mut out);
            assert_eq!(out.len() - element.len(), head);
            assert_eq!(message(element.as_bytes()), element);
        }
    }

    #[test]
    fn last_words_are_error_end_and_closing_handshake() {
        let error = StreamError::from(StreamCondition::Conflict);
        let words = Framing::WebSocket.last_words(Some(&error));
        assert_eq!(
            frames::texts(&words),
            [
                "<stream:error xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>\
                 <conflict xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>",
                "<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>",
                "close 1000",
            ]
        );
        assert_eq!(Framing::Tcp.last_words(None), b"</stream:stream>");
    }
}
