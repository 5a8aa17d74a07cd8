//! Streams over a WebSocket (RFC 7395): messages to documents, documents to what the machine knows.

use minidom::Element;

use super::action::Output;
use super::error::{StreamCondition, StreamError};
use super::frames::{self, Frame, FrameReader};
use super::machine::StreamMachine;
use super::state::State;
use crate::ns;
use crate::xml::build::ElementExt as _;
use crate::xml::error::XmlError;
use crate::xml::reader::{StreamHeader, StreamReader, XmlEvent};

/// Bytes of a message that are unmasked at a time.
const CHUNK_BYTES: usize = 1024;

/// What a connection needs for a WebSocket besides.
#[derive(Debug, Default)]
pub(super) struct WebSocket {
    frames: FrameReader,
    /// Whether a byte of the message under way was read.
    begun: bool,
    /// The element of the message under way, when all of it has come.
    element: Option<Element>,
    /// The code of our part of the closing handshake, where it is not the normal one.
    code: Option<u16>,
    /// It was sent, or nobody is there to read it.
    pub(super) closed: bool,
}

impl WebSocket {
    /// Writes our part of the closing handshake, once.
    pub(super) fn close(&mut self, out: &mut Output<'_>) {
        if !self.closed {
            self.closed = true;
            frames::write_close(self.code.unwrap_or(frames::NORMAL), out.bytes());
        }
    }
}

impl StreamMachine {
    pub(super) fn read_frames(&mut self, mut input: &[u8], out: &mut Output<'_>) {
        let mut chunk = [0; CHUNK_BYTES];
        let limit = |machine: &StreamMachine| machine.reader.limits().stanza_bytes;
        loop {
            match self.state {
                State::Ended => return,
                _ if self.state.waits() => return self.keep(input, out),
                _ => {}
            }
            let limit = limit(self);
            let Some(websocket) = &mut self.websocket else { return };
            match websocket.frames.next(&mut input, limit, &mut chunk) {
                Ok(None) => return,
                Ok(Some(Frame::Text(count))) => self.document_bytes(&chunk[..count], out),
                Ok(Some(Frame::End)) => self.document_end(input, out),
                Ok(Some(Frame::Ping(payload))) => frames::write_pong(&payload, out.bytes()),
                Ok(Some(Frame::Close(code))) => {
                    // The stream ends with it, said or not (RFC 7395 §3.6); the code is given back (RFC 6455 §5.5.1).
                    websocket.code = code;
                    return self.close(out);
                }
                Err(violation) => {
                    let condition = match violation.code {
                        frames::TOO_BIG | frames::POLICY => StreamCondition::PolicyViolation,
                        _ => StreamCondition::BadFormat,
                    };
                    let error = StreamError::new(condition, violation.text);
                    return self.fail_frames(violation.code, error, out);
                }
            }
        }
    }

    /// Bytes of a message. Its element is looked at when the message has ended: what comes behind it may be wrong.
    fn document_bytes(&mut self, mut bytes: &[u8], out: &mut Output<'_>) {
        let Some(websocket) = &mut self.websocket else { return };
        if !std::mem::replace(&mut websocket.begun, true) && bytes.first() != Some(&b'<') {
            // §3.3.3, §3.8: so there is no whitespace between stanzas either.
            let error = StreamError::new(StreamCondition::BadFormat, "a message begins with <");
            return self.fail(error, out);
        }
        loop {
            match self.reader.next(&mut bytes) {
                Ok(None) => return,
                Ok(Some(XmlEvent::Element(element))) => websocket.element = Some(element),
                Ok(Some(_)) => {}
                Err(error) => {
                    let code = match error {
                        XmlError::Encoding(_) => frames::NOT_UTF_8,
                        _ => frames::NORMAL,
                    };
                    return self.fail_frames(code, (&error).into(), out);
                }
            }
        }
    }

    fn document_end(&mut self, rest: &[u8], out: &mut Output<'_>) {
        let Some(websocket) = &mut self.websocket else { return };
        websocket.begun = false;
        let Some(element) = websocket.element.take() else {
            let text = "a message holds one whole element";
            return self.fail(StreamError::new(StreamCondition::NotWellFormed, text), out);
        };
        self.reader = StreamReader::document(self.reader.limits());
        if element.is("open", ns::FRAMING) {
            self.event(XmlEvent::StreamStart(header(&element)), rest, out);
        } else if element.is("close", ns::FRAMING) {
            self.event(XmlEvent::StreamEnd, rest, out);
        } else if matches!(self.state, State::Header { .. }) {
            // §3.4
            self.fail(StreamError::new(StreamCondition::BadFormat, "a stream begins with <open/>"), out);
        } else {
            self.event(XmlEvent::Element(element), rest, out);
        }
    }

    fn fail_frames(&mut self, code: u16, error: StreamError, out: &mut Output<'_>) {
        if let Some(websocket) = &mut self.websocket {
            websocket.code = Some(code);
        }
        self.fail(error, out);
    }
}

/// §3.4: `<open/>` has the attributes of a stream's header; its namespaces are those of the subprotocol.
fn header(open: &Element) -> StreamHeader {
    let attribute = |name: &str| open.attr(name).map(str::to_owned);
    StreamHeader {
        name: "stream".to_owned(),
        namespace: ns::STREAM.to_owned(),
        content_namespace: Some(ns::CLIENT.to_owned()),
        to: attribute("to"),
        from: attribute("from"),
        id: attribute("id"),
        version: attribute("version"),
        lang: open.lang().map(str::to_owned),
    }
}
