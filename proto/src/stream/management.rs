//! Stream management (XEP-0198): how stanzas are counted, and the elements that tell it.

use std::fmt;

use minidom::Element;
use serde::{Deserialize, Serialize};

use crate::ns;
use crate::stanza::StanzaCondition;
use crate::xml::build::{BuilderExt as _, ElementExt as _};
use crate::xml::name;
use crate::xml::writer::{write_attribute, write_element};

/// Longest SM-ID that is looked at; §5 asks for no more.
pub const MAX_PREVID: usize = 4_000;

/// A number of stanzas, which goes from 2^32-1 back to zero (§4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
pub struct Count(pub u32);

impl Count {
    /// One stanza more.
    #[must_use]
    pub const fn next(self) -> Count {
        self.plus(1)
    }

    /// So many stanzas more.
    #[must_use]
    pub const fn plus(self, stanzas: u32) -> Count {
        Count(self.0.wrapping_add(stanzas))
    }

    /// How many stanzas come after `earlier`, up to this one. The two are less than 2^31 apart, or this one is before
    /// the other: `None`.
    #[must_use]
    pub const fn since(self, earlier: Count) -> Option<u32> {
        let stanzas = self.0.wrapping_sub(earlier.0);
        if stanzas < 1 << 31 { Some(stanzas) } else { None }
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a client says of stream management.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// §3: `<enable/>`.
    Enable {
        /// Whether it wants to be able to resume the stream.
        resume: bool,
        /// For how many seconds at most.
        max: Option<u64>,
    },
    /// §5: `<resume/>`.
    Resume {
        /// The SM-ID of the former stream.
        previd: String,
        /// The last stanza of the server that it has handled.
        handled: Count,
    },
    /// §4: `<r/>`.
    Ask,
    /// §4: `<a/>`.
    Answer {
        /// The last stanza of the server that it has handled.
        handled: Count,
    },
}

/// An element of stream management that breaks its schema (§13), or that no client sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

impl Request {
    /// What the element says; `None` for one of another namespace.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn read(element: &Element) -> Option<Result<Request, Malformed>> {
        element.is_ns(ns::STREAM_MANAGEMENT).then(|| Request::read_own(element).ok_or(Malformed))
    }

    fn read_own(element: &Element) -> Option<Request> {
        let handled = || element.attr("h")?.trim().parse().ok().map(Count);
        Some(match element.name() {
            "enable" => Request::Enable {
                resume: match element.attr("resume").map(str::trim) {
                    None | Some("false" | "0") => false,
                    Some("true" | "1") => true,
                    Some(_) => return None,
                },
                max: element.attr("max").map(|max| positive(max.trim()).ok_or(())).transpose().ok()?,
            },
            "resume" => {
                let previd = element.attr("previd").filter(|previd| previd.len() <= MAX_PREVID)?;
                Request::Resume { previd: previd.to_owned(), handled: handled()? }
            }
            "r" => Request::Ask,
            "a" => Request::Answer { handled: handled()? },
            _ => return None,
        })
    }
}

/// `xs:positiveInteger` has no end: one that is too large for us is as large as can be.
fn positive(text: &str) -> Option<u64> {
    let digits = text.strip_prefix('+').unwrap_or(text);
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(u64::MAX)).filter(|number| *number > 0)
}

/// The start tag's beginning of an element of ours.
fn begin(name: &str) -> Vec<u8> {
    let mut out = format!("<{name}").into_bytes();
    write_attribute("xmlns", ns::STREAM_MANAGEMENT, &mut out);
    out
}

fn end(mut out: Vec<u8>) -> Vec<u8> {
    out.extend_from_slice(b"/>");
    out
}

/// `<enabled/>` (§3): with the SM-ID and the seconds for which the stream can be resumed, where it can.
#[must_use]
pub fn enabled(resumable: Option<(&str, u64)>) -> Vec<u8> {
    let mut out = begin("enabled");
    if let Some((id, max)) = resumable {
        write_attribute("id", id, &mut out);
        write_attribute("resume", "true", &mut out);
        write_attribute("max", &max.to_string(), &mut out);
    }
    end(out)
}

/// `<r/>` (§4).
#[must_use]
pub fn ask() -> Vec<u8> {
    end(begin("r"))
}

/// `<a/>` (§4).
#[must_use]
pub fn answer(handled: Count) -> Vec<u8> {
    let mut out = begin("a");
    write_attribute("h", &handled.to_string(), &mut out);
    end(out)
}

/// `<resumed/>` (§5).
#[must_use]
pub fn resumed(previd: &str, handled: Count) -> Element {
    Element::builder("resumed", ns::STREAM_MANAGEMENT)
        .set(name!("previd"), previd)
        .set(name!("h"), handled.to_string())
        .build()
}

/// `<failed/>` (§6), with the last stanza of the former stream that was handled, where that is known (§5).
#[must_use]
pub fn failed(condition: StanzaCondition, handled: Option<Count>) -> Element {
    let mut failed = Element::builder("failed", ns::STREAM_MANAGEMENT);
    if let Some(handled) = handled {
        failed = failed.set(name!("h"), handled.to_string());
    }
    failed.append(Element::bare(condition.name(), ns::STANZA_ERRORS)).build()
}

/// [`failed`] as bytes.
#[must_use]
pub fn failed_bytes(condition: StanzaCondition) -> Vec<u8> {
    let mut out = Vec::new();
    write_element(&failed(condition, None), ns::CLIENT, &mut out);
    out
}

/// A peer acknowledges more stanzas than it was sent (§6): it ends the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooHigh {
    /// What it acknowledges.
    pub handled: Count,
    /// What it was sent.
    pub sent: Count,
}

impl TooHigh {
    /// The condition beside `undefined-condition` of the stream error.
    #[must_use]
    pub fn to_element(self) -> Element {
        Element::builder("handled-count-too-high", ns::STREAM_MANAGEMENT)
            .set(name!("h"), self.handled.to_string())
            .set(name!("send-count"), self.sent.to_string())
            .build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(xml: &str) -> Option<Result<Request, Malformed>> {
        Request::read(&xml.replace("/>", " xmlns='urn:xmpp:sm:3'/>").parse().unwrap())
    }

    #[test]
    fn counts_go_round() {
        let last = Count(u32::MAX);
        assert_eq!(last.next(), Count(0));
        assert_eq!(Count(3).since(last), Some(4));
        assert_eq!(last.since(Count(3)), None);
        assert_eq!(last.since(last), Some(0));
    }

    #[test]
    fn what_a_client_says_is_read() {
        let enable = |resume, max| Some(Ok(Request::Enable { resume, max }));
        assert_eq!(read("<enable/>"), enable(false, None));
        assert_eq!(read("<enable resume='1' max='300'/>"), enable(true, Some(300)));
        assert_eq!(read("<enable resume='0' max='99999999999999999999'/>"), enable(false, Some(u64::MAX)));
        assert_eq!(read("<r/>"), Some(Ok(Request::Ask)));
        assert_eq!(read("<a h='4294967295'/>"), Some(Ok(Request::Answer { handled: Count(u32::MAX) })));
        let resume = Request::Resume { previd: "x".to_owned(), handled: Count(0) };
        assert_eq!(read("<resume previd='x' h='0'/>"), Some(Ok(resume)));
        assert_eq!(Request::read(&"<r xmlns='urn:xmpp:sm:2'/>".parse().unwrap()), None);
    }

    #[test]
    fn what_breaks_the_schema_is_malformed() {
        let long = format!("<resume h='1' previd='{}'/>", "x".repeat(MAX_PREVID + 1));
        for xml in [
            "<a/>",
            "<a h='-1'/>",
            "<a h='4294967296'/>",
            "<a h=''/>",
            "<enable resume='yes'/>",
            "<enable max='0'/>",
            "<enable max='-3'/>",
            "<resume h='1'/>",
            "<resume previd='x'/>",
            "<enabled/>",
            &long,
        ] {
            assert_eq!(read(xml), Some(Err(Malformed)), "{xml}");
        }
    }

    #[test]
    fn ours_are_as_the_schema_says() {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        assert_eq!(text(enabled(None)), "<enabled xmlns='urn:xmpp:sm:3'/>");
        assert_eq!(
            text(enabled(Some(("i'd", 600)))),
            "<enabled xmlns='urn:xmpp:sm:3' id='i&apos;d' resume='true' max='600'/>"
        );
        assert_eq!(text(ask()), "<r xmlns='urn:xmpp:sm:3'/>");
        assert_eq!(text(answer(Count(7))), "<a xmlns='urn:xmpp:sm:3' h='7'/>");
        let bytes = text(failed_bytes(StanzaCondition::UnexpectedRequest));
        assert_eq!(
            bytes,
            "<failed xmlns='urn:xmpp:sm:3'><unexpected-request \
             xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>"
        );
    }
}
