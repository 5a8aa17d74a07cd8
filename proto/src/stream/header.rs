//! Stream headers: the client's, checked, and ours (RFC 6120 §4.7, §4.8).

use super::error::{StreamCondition, StreamError};
use super::framing::Framing;
use crate::jid::{self, BareJid, DomainPart, Jid};
use crate::ns;
use crate::xml::reader::StreamHeader;
use crate::xml::writer::write_attribute;

/// Longest `xml:lang` that is kept, in bytes: real language tags (RFC 5646) are far shorter.
const MAX_LANG: usize = 64;

/// The language of our texts, and the default of what we send (§4.7.4).
pub(super) const LANG: &str = "en";

/// What a client's header says, once it is found in order.
pub(super) struct Opening {
    pub(super) domain: DomainPart,
    /// `from`, where it is a JID.
    pub(super) from: Option<Jid>,
    /// `xml:lang`, where it looks like a language tag.
    pub(super) lang: Option<String>,
}

/// Checks a client's header: namespaces first, for without them the rest means nothing; then the root's name,
/// the version, the domain.
pub(super) fn check(header: &StreamHeader, domains: &[DomainPart]) -> Result<Opening, StreamError> {
    if header.namespace != ns::STREAM {
        return Err(StreamError::new(
            StreamCondition::InvalidNamespace,
            "the root is not in the stream namespace",
        ));
    }
    // Without a default namespace each stanza names its own (§4.8.3).
    if header.content_namespace.as_deref().is_some_and(|content| content != ns::CLIENT) {
        return Err(StreamError::new(StreamCondition::InvalidNamespace, "the content is not jabber:client"));
    }
    if header.name != "stream" {
        return Err(StreamError::new(StreamCondition::BadFormat, "the root is not <stream/>"));
    }
    if !header.version.as_deref().is_some_and(is_supported) {
        return Err(StreamError::new(StreamCondition::UnsupportedVersion, "version 1.0 is needed"));
    }
    let domain = match &header.to {
        None => domains.first(),
        Some(to) => {
            let to = BareJid::new(to).ok().filter(|to| to.node().is_none());
            domains
                .iter()
                .find(|domain| to.as_ref().is_some_and(|to| to.domain().as_str() == domain.as_str()))
        }
    };
    Ok(Opening {
        domain: domain.ok_or(StreamCondition::HostUnknown)?.clone(),
        from: header.from.as_deref().and_then(|from| jid::parse(from).ok()),
        lang: header.lang.clone().filter(|lang| is_language_tag(lang)),
    })
}

/// Whether a version is 1.0 or later (§4.7.5: two numbers, compared one by one).
fn is_supported(version: &str) -> bool {
    let number =
        |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u32>().ok()).flatten();
    match version.split_once('.') {
        Some((major, minor)) => number(major).is_some_and(|major| major >= 1) && number(minor).is_some(),
        None => false,
    }
}

fn is_language_tag(lang: &str) -> bool {
    !lang.is_empty() && lang.len() <= MAX_LANG && lang.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// Writes our header: the XML declaration and `<stream:stream>`, or the element `<open/>` (RFC 7395 §3.4). `to`
/// answers the client's `from` (§4.7.2).
pub(super) fn write(
    framing: Framing,
    id: &str,
    from: Option<&DomainPart>,
    to: Option<&Jid>,
    out: &mut Vec<u8>,
) {
    match framing {
        Framing::Tcp => {
            out.extend_from_slice(b"<?xml version='1.0'?><stream:stream");
            write_attribute("xmlns", ns::CLIENT, out);
            write_attribute("xmlns:stream", ns::STREAM, out);
        }
        Framing::WebSocket => {
            out.extend_from_slice(b"<open");
            write_attribute("xmlns", ns::FRAMING, out);
        }
    }
    write_attribute("id", id, out);
    if let Some(from) = from {
        write_attribute("from", from.as_str(), out);
    }
    if let Some(to) = to {
        write_attribute("to", to.as_str(), out);
    }
    write_attribute("version", "1.0", out);
    write_attribute("xml:lang", LANG, out);
    out.extend_from_slice(if framing == Framing::Tcp { b">" } else { b"/>" });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(change: impl FnOnce(&mut StreamHeader)) -> Result<Opening, StreamCondition> {
        let mut header = StreamHeader {
            name: "stream".into(),
            namespace: ns::STREAM.into(),
            content_namespace: Some(ns::CLIENT.into()),
            to: Some("example.com".into()),
            from: None,
            id: None,
            version: Some("1.0".into()),
            lang: None,
        };
        change(&mut header);
        let domains =
            ["example.com", "example.net"].map(|domain| DomainPart::new(domain).unwrap().into_owned());
        check(&header, &domains).map_err(|error| error.condition)
    }

    fn domain(change: impl FnOnce(&mut StreamHeader)) -> Result<String, StreamCondition> {
        header(change).map(|opening| opening.domain.as_str().to_owned())
    }

    #[test]
    fn the_domain_is_the_one_asked_for_or_the_first() {
        assert_eq!(domain(|_| ()), Ok("example.com".into()));
        assert_eq!(domain(|h| h.to = None), Ok("example.com".into()));
        assert_eq!(domain(|h| h.to = Some("EXAMPLE.net".into())), Ok("example.net".into()));
        for bad in ["example.org", "", "u@example.com", "example.com/r", "@", &"x".repeat(5000)] {
            assert_eq!(domain(|h| h.to = Some(bad.into())), Err(StreamCondition::HostUnknown), "{bad}");
        }
    }

    #[test]
    fn namespaces_and_root_are_checked() {
        assert!(header(|h| h.content_namespace = None).is_ok());
        let bad = StreamCondition::InvalidNamespace;
        assert_eq!(domain(|h| h.content_namespace = Some(ns::SERVER.into())), Err(bad));
        assert_eq!(domain(|h| h.namespace = "jabber:client".into()), Err(bad));
        assert_eq!(domain(|h| h.name = "html".into()), Err(StreamCondition::BadFormat));
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        for good in ["1.0", "1.1", "1.10", "01.00", "2.0"] {
            assert!(header(|h| h.version = Some(good.into())).is_ok(), "{good}");
        }
        for bad in ["0.9", "", "1", "1.", ".0", "1.x", "+1.0", "-1.0", "99999999999.0"] {
            let result = domain(|h| h.version = Some(bad.into()));
            assert_eq!(result, Err(StreamCondition::UnsupportedVersion), "{bad}");
        }
        assert_eq!(domain(|h| h.version = None), Err(StreamCondition::UnsupportedVersion));
    }

    #[test]
    fn senseless_from_and_lang_are_left_out() {
        let opening = header(|h| {
            h.from = Some("Juliet@example.com".into());
            h.lang = Some("de-AT".into());
        });
        let opening = opening.ok().unwrap();
        assert_eq!(opening.from.unwrap().as_str(), "juliet@example.com");
        assert_eq!(opening.lang.as_deref(), Some("de-AT"));
        let opening = header(|h| {
            h.from = Some("a@b@c".into());
            h.lang = Some("'><x".into());
        });
        let opening = opening.ok().unwrap();
        assert!(opening.from.is_none() && opening.lang.is_none());
    }
}
