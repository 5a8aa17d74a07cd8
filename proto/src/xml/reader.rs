//! The bytes of one stream, as they come, to its header, its elements and its end (RFC 6120 §4).

use minidom::Element;
use rxml::error::EndOrError;
use rxml::{AttrMap, Namespace, NcName, Options, Parse, RawEvent, RawParser, WithOptions};

use super::error::not_well_formed;
pub use super::error::{LimitExceeded, XmlError};
use super::limits::{Limits, TOKEN_BYTES};
use super::scope::Scope;
use crate::ns;

/// What a stream is made of. Whitespace between elements (RFC 6120 §4.6.1) is not told.
#[derive(Debug)]
pub enum XmlEvent {
    /// The start tag of the root element.
    StreamStart(StreamHeader),
    /// A complete first-level element, its namespaces resolved.
    Element(Element),
    /// The end tag of the root element.
    StreamEnd,
}

/// The root element of a stream, as it was sent: nothing in it is checked but that it is
/// namespace-well-formed (RFC 6120 §4.7, §4.8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamHeader {
    /// Local name; `stream` in a right header.
    pub name: String,
    /// Namespace of the element; [`ns::STREAM`](crate::ns::STREAM) in a right header.
    pub namespace: String,
    /// The content namespace: the default namespace that the element declares (§4.8.2).
    pub content_namespace: Option<String>,
    /// `to` (§4.7.2).
    pub to: Option<String>,
    /// `from` (§4.7.1).
    pub from: Option<String>,
    /// `id` (§4.7.3).
    pub id: Option<String>,
    /// `version` (§4.7.5).
    pub version: Option<String>,
    /// `xml:lang` (§4.7.4).
    pub lang: Option<String>,
}

/// Where in the document the reader stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Before the end of the root's start tag.
    Prolog,
    /// Inside the root.
    Stream,
    /// After the root's end tag.
    Ended,
}

/// A start tag that is not complete yet.
#[derive(Debug)]
struct Head {
    prefix: Option<NcName>,
    name: NcName,
    attributes: AttrMap,
    /// Attributes with a prefix: what it stands for may be declared after them.
    prefixed: Vec<(NcName, NcName, String)>,
    /// Attributes and namespace declarations so far.
    count: usize,
    mark: usize,
}

/// An element whose end tag has not come yet.
#[derive(Debug)]
struct Open {
    element: Element,
    mark: usize,
}

/// Reads one stream. A stream restart (RFC 6120 §4.3.3) takes a new reader.
///
/// It does no I/O: bytes are pushed in, events are pulled out. How the bytes are cut makes no
/// difference. Between stanzas it holds a few hundred bytes of heap.
#[derive(Debug)]
pub struct StreamReader {
    parser: RawParser,
    limits: Limits,
    /// The content namespace that is told as `jabber:client`.
    content: Option<&'static str>,
    phase: Phase,
    /// Bytes of the element under way; zero exactly between elements.
    used: usize,
    /// Elements below the stanza under way.
    children: usize,
    /// Attributes with a prefix other than `xml` in the stanza under way.
    prefixed: usize,
    /// Whitespace came first: an XML declaration may not follow (XML 1.0 §2.8).
    padded: bool,
    /// The header was `<stream/>`, perhaps: ask the tokenizer before looking at more bytes.
    drain: bool,
    /// The root is itself the element: one document, not a stream.
    document: bool,
    scope: Scope,
    head: Option<Head>,
    open: Vec<Open>,
    failed: Option<XmlError>,
}

impl StreamReader {
    /// A reader at the start of a stream.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let options = Options { max_token_length: TOKEN_BYTES, ..Options::default() };
        StreamReader {
            parser: RawParser::with_options(options),
            limits,
            content: None,
            phase: Phase::Prolog,
            used: 0,
            children: 0,
            prefixed: 0,
            padded: false,
            drain: false,
            document: false,
            scope: Scope::default(),
            head: None,
            open: Vec::new(),
            failed: None,
        }
    }

    /// A reader of one document that is one element, such as a message of a WebSocket (RFC 7395 §3.3.3).
    #[must_use]
    pub fn document(limits: Limits) -> Self {
        StreamReader { document: true, ..StreamReader::new(limits) }
    }

    /// The limits in force.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Tells elements in the namespace `content` as those of [`ns::CLIENT`](crate::ns::CLIENT), at every depth: the
    /// content namespaces of streams differ in nothing but their name (RFC 6120 §4.8.3). The header is told as it is.
    #[must_use]
    pub fn with_content(self, content: &'static str) -> Self {
        StreamReader { content: Some(content), ..self }
    }

    /// Changes the limits from the next byte on, also for an element under way.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// The next event, or `None` when all of `input` is consumed and more is needed.
    ///
    /// Takes from the front of `input` what it consumes, never a byte past the end of the event that
    /// it returns. An error ends the stream: from then on every call returns it again.
    ///
    /// # Errors
    /// [`XmlError`], whose [`condition`](XmlError::condition) is the stream error to send.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<XmlEvent>, XmlError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let result = self.advance(input);
        if self.used == 0 && input.is_empty() {
            // The tokenizer has room for the longest token from its first byte on. Whoever waits now, for a login or for the
            // end, does not keep it: thousands may wait at once.
            self.release();
        }
        if let Err(error) = &result {
            self.failed = Some(error.clone());
            self.head = None;
            self.open = Vec::new();
            self.release();
        }
        result
    }

    fn advance(&mut self, input: &mut &[u8]) -> Result<Option<XmlEvent>, XmlError> {
        loop {
            if self.used == 0 && !self.drain {
                self.skip_whitespace(input);
                match input.first() {
                    None => return Ok(None),
                    Some(b'<') if self.phase != Phase::Ended => {}
                    Some(&byte) => return Err(self.stray(byte)),
                }
            }
            // The tokenizer sees no byte past the limit, so a stanza that needs one cannot complete.
            let limit = self.limits.stanza_bytes;
            let room = if self.drain { 0 } else { limit.saturating_sub(self.used) };
            let mut window = &input[..room.min(input.len())];
            let offered = window.len();
            let result = self.parser.parse(&mut window, false);
            let consumed = offered - window.len();
            self.used += consumed;
            *input = &input[consumed..];
            match result {
                Ok(Some(event)) => {
                    if let Some(event) = self.handle(event)? {
                        return Ok(Some(event));
                    }
                }
                Err(EndOrError::NeedMoreData) if self.drain => self.drain = false,
                Err(EndOrError::NeedMoreData) if self.used >= limit => {
                    return Err(LimitExceeded::StanzaBytes(limit).into());
                }
                Err(EndOrError::NeedMoreData) => return Ok(None),
                Err(EndOrError::Error(error)) => return Err(error.into()),
                // Only for an end of file, which is never told to the tokenizer.
                Ok(None) => return Err(not_well_formed("unexpected end")),
            }
        }
    }

    /// Whitespace between elements never reaches the tokenizer, which would keep it for a text event.
    fn skip_whitespace(&mut self, input: &mut &[u8]) {
        let blank = input.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count();
        self.padded |= blank > 0;
        *input = &input[blank..];
    }

    /// A byte between elements that neither opens one nor is whitespace.
    fn stray(&self, byte: u8) -> XmlError {
        match byte {
            // No character of UTF-8 begins with these; UTF-16 begins with 0xFE or 0xFF.
            0x80..=0xC1 | 0xF5.. => XmlError::Encoding(format!("byte 0x{byte:02x}")),
            0x00..=0x1F => not_well_formed(format!("character U+{byte:04X} is not allowed")),
            _ => match self.phase {
                Phase::Prolog => not_well_formed("text before the stream header"),
                Phase::Stream => XmlError::Format("text between stanzas"),
                Phase::Ended => not_well_formed("content after the end of the document"),
            },
        }
    }

    fn handle(&mut self, event: RawEvent) -> Result<Option<XmlEvent>, XmlError> {
        match event {
            RawEvent::XmlDeclaration(..) if self.padded => {
                Err(not_well_formed("XML declaration after whitespace"))
            }
            RawEvent::XmlDeclaration(..) => Ok(None),
            RawEvent::ElementHeadOpen(_, (prefix, name)) => self.begin(prefix, name).map(|()| None),
            RawEvent::Attribute(_, (prefix, name), value) => {
                self.attribute(prefix, name, value).map(|()| None)
            }
            RawEvent::ElementHeadClose(_) => self.head_complete(),
            RawEvent::Text(_, text) => match self.open.last_mut() {
                Some(open) => {
                    // Long text comes in pieces.
                    open.element.append_text(text);
                    Ok(None)
                }
                None => Err(XmlError::Format("text between stanzas")),
            },
            RawEvent::ElementFoot(_) => Ok(self.end()),
        }
    }

    fn begin(&mut self, prefix: Option<NcName>, name: NcName) -> Result<(), XmlError> {
        if self.document {
            self.phase = Phase::Stream;
        }
        if self.phase == Phase::Stream {
            if self.open.len() >= self.limits.depth {
                return Err(LimitExceeded::Depth(self.limits.depth).into());
            }
            if self.open.is_empty() {
                self.children = 0;
                self.prefixed = 0;
            } else if self.children >= self.limits.children {
                return Err(LimitExceeded::Children(self.limits.children).into());
            } else {
                self.children += 1;
            }
        }
        self.head = Some(Head {
            prefix,
            name,
            attributes: AttrMap::new(),
            prefixed: Vec::new(),
            count: 0,
            mark: self.scope.mark(),
        });
        Ok(())
    }

    fn attribute(&mut self, prefix: Option<NcName>, name: NcName, value: String) -> Result<(), XmlError> {
        let Some(head) = &mut self.head else { return Err(not_well_formed("attribute outside a tag")) };
        if head.count >= self.limits.attributes {
            return Err(LimitExceeded::Attributes(self.limits.attributes).into());
        }
        head.count += 1;
        match prefix {
            None if name == "xmlns" => self.scope.declare(head.mark, None, value),
            Some(prefix) if prefix == "xmlns" => self.scope.declare(head.mark, Some(name), value),
            Some(prefix) => {
                if prefix != "xml" {
                    if self.prefixed >= self.limits.attributes {
                        return Err(LimitExceeded::Prefixed(self.limits.attributes).into());
                    }
                    self.prefixed += 1;
                }
                head.prefixed.push((prefix, name, value));
                Ok(())
            }
            None => insert(&mut head.attributes, Namespace::NONE, name, value),
        }
    }

    fn head_complete(&mut self) -> Result<Option<XmlEvent>, XmlError> {
        let Some(mut head) = self.head.take() else { return Err(not_well_formed("no tag to end")) };
        for (prefix, name, value) in head.prefixed {
            let namespace = self.scope.prefixed(&prefix)?.clone();
            insert(&mut head.attributes, namespace, name, value)?;
        }
        let namespace = match &head.prefix {
            Some(prefix) => self.scope.prefixed(prefix)?,
            None => self.scope.default_namespace(),
        };
        if self.phase == Phase::Prolog {
            let header = self.header(head.name, namespace.to_string(), head.attributes);
            self.phase = Phase::Stream;
            self.used = 0;
            self.drain = true;
            return Ok(Some(XmlEvent::StreamStart(header)));
        }
        let namespace = namespace.as_str();
        let namespace = if self.content == Some(namespace) { ns::CLIENT } else { namespace };
        let mut element = Element::bare(head.name, namespace);
        *element.attrs_mut() = head.attributes;
        self.open.push(Open { element, mark: head.mark });
        Ok(None)
    }

    fn header(&self, name: NcName, namespace: String, mut attributes: AttrMap) -> StreamHeader {
        let content = self.scope.default_namespace();
        let lang = attributes.remove(Namespace::xml(), "lang");
        let mut plain = |name: &str| attributes.remove(Namespace::none(), name);
        StreamHeader {
            name: name.into(),
            namespace,
            content_namespace: content.is_some().then(|| content.to_string()),
            to: plain("to"),
            from: plain("from"),
            id: plain("id"),
            version: plain("version"),
            lang,
        }
    }

    fn end(&mut self) -> Option<XmlEvent> {
        let Some(Open { element, mark }) = self.open.pop() else {
            self.phase = Phase::Ended;
            self.used = 0;
            self.drain = false;
            return Some(XmlEvent::StreamEnd);
        };
        self.scope.rewind(mark);
        match self.open.last_mut() {
            Some(parent) => {
                parent.element.append_child(element);
                None
            }
            None => {
                self.used = 0;
                if self.document {
                    self.phase = Phase::Ended;
                }
                Some(XmlEvent::Element(element))
            }
        }
    }

    /// Gives back what only an element under way needs: most connections are silent most of the time.
    fn release(&mut self) {
        self.parser.release_temporaries();
        self.open.shrink_to_fit();
        self.scope.shrink();
    }
}

/// Adds an attribute; two of one expanded name are refused (Namespaces in XML 1.0 §6.3).
fn insert(
    attributes: &mut AttrMap,
    namespace: Namespace<'static>,
    name: NcName,
    value: String,
) -> Result<(), XmlError> {
    match attributes.insert(namespace, name, value) {
        None => Ok(()),
        Some(_) => Err(not_well_formed("duplicate attribute")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_told_as_header_stanzas_and_end() {
        let document = "\n<stream:stream to='a.example' from='b@a.example' id='1' version='1.0' xml:lang='is' \
             xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'> \
             <message><body>a<![CDATA[<b>]]>c</body></message>\n</stream:stream> \n";
        let mut bytes = document.as_bytes();
        let mut reader = StreamReader::new(Limits::BEFORE_LOGIN);
        let Ok(Some(XmlEvent::StreamStart(header))) = reader.next(&mut bytes) else { panic!("no header") };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            header,
            StreamHeader {
                name: "stream".into(),
                namespace: ns::STREAM.into(),
                content_namespace: some(ns::CLIENT),
                to: some("a.example"),
                from: some("b@a.example"),
                id: some("1"),
                version: some("1.0"),
                lang: some("is"),
            }
        );
        assert!(bytes.starts_with(b" <message>"), "not a byte past the header is consumed");
        let Ok(Some(XmlEvent::Element(message))) = reader.next(&mut bytes) else { panic!("no element") };
        let body = message.get_child("body", ns::CLIENT).unwrap();
        assert_eq!(body.nodes().count(), 1, "text is one node");
        assert_eq!(body.text(), "a<b>c");
        assert!(matches!(reader.next(&mut bytes), Ok(Some(XmlEvent::StreamEnd))));
        assert!(matches!(reader.next(&mut bytes), Ok(None)));
        assert!(bytes.is_empty());
        let more = reader.next(&mut &b"<a/>"[..]).unwrap_err();
        assert_eq!(more, not_well_formed("content after the end of the document"));
    }

    #[test]
    fn an_empty_stream_begins_and_ends() {
        let mut reader = StreamReader::new(Limits::BEFORE_LOGIN);
        let mut bytes = &b"<stream/>"[..];
        assert!(matches!(reader.next(&mut bytes), Ok(Some(XmlEvent::StreamStart(_)))));
        assert!(matches!(reader.next(&mut bytes), Ok(Some(XmlEvent::StreamEnd))));
    }
}
