//! What the reader refuses, and what it says: conditions and limits.

use minidom::Element;

use super::limits::{BINDINGS, Limits, NAMESPACE_BYTES, TOKEN_BYTES};
use super::reader::{LimitExceeded, StreamReader, XmlError, XmlEvent};
use crate::stream::error::StreamCondition as C;

const HEADER: &str = "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>";
const SMALL: Limits = Limits { stanza_bytes: 300, depth: 3, attributes: 4, children: 5 };

/// A reader inside a client's stream.
fn in_stream(limits: Limits) -> StreamReader {
    let mut reader = StreamReader::new(limits);
    let mut header = HEADER.as_bytes();
    assert!(matches!(reader.next(&mut header), Ok(Some(XmlEvent::StreamStart(_)))));
    reader
}

/// Feeds one stanza to a stream: the element, or the error.
fn stanza(limits: Limits, xml: &str) -> Result<Element, XmlError> {
    let mut bytes = xml.as_bytes();
    match in_stream(limits).next(&mut bytes)? {
        Some(XmlEvent::Element(element)) => Ok(element),
        other => panic!("{other:?} for {xml}"),
    }
}

fn refused(reader: &mut StreamReader, mut bytes: &[u8]) -> Option<C> {
    loop {
        match reader.next(&mut bytes) {
            Ok(None) => return None,
            Ok(Some(_)) => {}
            Err(error) => {
                assert_eq!(reader.next(&mut bytes).unwrap_err(), error, "the reader stays failed");
                return Some(error.condition());
            }
        }
    }
}

#[test]
fn bad_openings_have_their_condition() {
    let cases: &[(&[u8], C)] = &[
        (b"GET / HTTP/1.1\r\n", C::NotWellFormed),
        (b"\x16\x03\x01", C::NotWellFormed),
        (b"\xEF\xBB\xBF<stream>", C::NotWellFormed),
        (b"\xFF\xFE<\0s\0", C::UnsupportedEncoding),
        (b"<\0s\0", C::NotWellFormed),
        (b"<?xml version='1.0' encoding='UTF-16'?>", C::UnsupportedEncoding),
        (b"<?xml version='1.0' encoding='ISO-8859-1'?>", C::UnsupportedEncoding),
        (b"<?xml version='1.1'?>", C::BadFormat),
        (b" <?xml version='1.0'?><stream>", C::NotWellFormed),
        (b"<?xml version='1.0'?>x", C::NotWellFormed),
        (b"<!DOCTYPE lolz [<!ENTITY lol 'lol'>", C::RestrictedXml),
        (b"<!-- hello --><stream>", C::RestrictedXml),
        (b"<?php?><stream>", C::RestrictedXml),
        (b"<stream:stream>", C::NotWellFormed),
    ];
    for (bytes, condition) in cases {
        let mut reader = StreamReader::new(Limits::BEFORE_LOGIN);
        assert_eq!(refused(&mut reader, bytes), Some(*condition), "{}", bytes.escape_ascii());
    }
}

#[test]
fn bad_stanzas_have_their_condition() {
    let cases: &[(&[u8], C)] = &[
        (b"text", C::BadFormat),
        (b"<![CDATA[text]]><a/>", C::BadFormat),
        (b"\0", C::NotWellFormed),
        (b"<a>\x01", C::NotWellFormed),
        (b"<a>&#1;", C::NotWellFormed),
        (b"<a>\xED\xA0\x80</a>", C::UnsupportedEncoding),
        (b"<a b='\xC3'/>", C::UnsupportedEncoding),
        (b"\x80", C::UnsupportedEncoding),
        (b"<a></b>", C::NotWellFormed),
        (b"<a b='1' b='2'/>", C::NotWellFormed),
        (b"<a xmlns:p='u' xmlns:q='u' p:b='1' q:b='2'/>", C::NotWellFormed),
        (b"<a xmlns='u' xmlns='v'/>", C::NotWellFormed),
        (b"<a xmlns:p='u' xmlns:p='u'/>", C::NotWellFormed),
        (b"<a xmlns:p='http://www.w3.org/2000/xmlns/'/>", C::NotWellFormed),
        (b"<a xmlns:xml='u'/>", C::NotWellFormed),
        (b"<a xmlns:p=''/>", C::NotWellFormed),
        (b"<p:a/>", C::NotWellFormed),
        (b"<a p:b='1'/>", C::NotWellFormed),
        (b"<a><b xmlns:p='u'/><p:c/></a>", C::NotWellFormed),
        (b"<xmlns:a/>", C::NotWellFormed),
        (b"<a b='<'/>", C::NotWellFormed),
        (b"<a b=1/>", C::NotWellFormed),
        (b"<a>]]></a>", C::NotWellFormed),
        (b"<a>&lol;</a>", C::RestrictedXml),
        (b"<a><!-- c --></a>", C::RestrictedXml),
        (b"<a><?pi?></a>", C::RestrictedXml),
        (b"<!DOCTYPE a>", C::RestrictedXml),
        (b"<?xml version='1.0'?>", C::RestrictedXml),
    ];
    for (bytes, condition) in cases {
        let mut reader = in_stream(Limits::AFTER_LOGIN);
        assert_eq!(refused(&mut reader, bytes), Some(*condition), "{}", bytes.escape_ascii());
    }
}

#[test]
fn each_limit_holds_at_its_bound_and_not_one_past_it() {
    let padded = |bytes: usize| format!("<a>{}</a>", "x".repeat(bytes - 7));
    assert_eq!(stanza(SMALL, &padded(300)).unwrap().text().len(), 293);
    assert_eq!(stanza(SMALL, &padded(301)), Err(LimitExceeded::StanzaBytes(300).into()));

    assert!(stanza(SMALL, "<a><b><c/></b></a>").is_ok());
    assert_eq!(stanza(SMALL, "<a><b><c><d/></c></b></a>"), Err(LimitExceeded::Depth(3).into()));

    assert!(stanza(SMALL, "<a xmlns='u' b='' c='' d=''/>").is_ok());
    assert_eq!(stanza(SMALL, "<a xmlns='u' b='' c='' d='' e=''/>"), Err(LimitExceeded::Attributes(4).into()));

    assert!(stanza(SMALL, "<a><b><c/><c/></b><b/><b/></a>").is_ok());
    assert_eq!(stanza(SMALL, "<a><b><c/><c/></b><b/><b/><b/></a>"), Err(LimitExceeded::Children(5).into()));

    assert!(
        stanza(SMALL, "<a xmlns:p='u'><b p:a='' xml:a=''/><b p:a='' p:b=''/><b p:a='' xml:a=''/></a>")
            .is_ok()
    );
    assert_eq!(
        stanza(SMALL, "<a xmlns:p='u'><b p:a='' p:b=''/><b p:a='' p:b=''/><b p:a=''/></a>"),
        Err(LimitExceeded::Prefixed(4).into())
    );

    let long = |bytes: usize| format!("<a xmlns='{}'/>", "u".repeat(bytes));
    assert!(stanza(Limits::AFTER_LOGIN, &long(NAMESPACE_BYTES)).is_ok());
    assert_eq!(
        stanza(Limits::AFTER_LOGIN, &long(NAMESPACE_BYTES + 1)),
        Err(LimitExceeded::NamespaceBytes(NAMESPACE_BYTES).into())
    );

    let declared =
        |level: usize| format!("<a{}>", (0..level).map(|i| format!(" xmlns:p{i}='u'")).collect::<String>());
    let nested = format!("{}{}", declared(64).repeat(3), declared(62));
    let full = format!("{nested}</a></a></a></a>");
    assert!(stanza(Limits::AFTER_LOGIN, &full).is_ok());
    assert_eq!(
        stanza(Limits::AFTER_LOGIN, &format!("{nested}<b xmlns='u'/>")),
        Err(LimitExceeded::Bindings(BINDINGS).into())
    );

    let value = |bytes: usize| format!("<a b='{}'/>", "x".repeat(bytes));
    assert!(stanza(Limits::AFTER_LOGIN, &value(TOKEN_BYTES)).is_ok());
    assert_eq!(
        stanza(Limits::AFTER_LOGIN, &value(TOKEN_BYTES + 1)),
        Err(LimitExceeded::TokenBytes(TOKEN_BYTES).into())
    );
}

#[test]
fn limits_count_for_each_stanza_anew_and_not_for_whitespace() {
    let mut reader = in_stream(SMALL);
    let stanza = "<a><b/><b/><b/><b/><b/></a>";
    let bytes = format!("{stanza}{}", " ".repeat(1000)).repeat(50);
    assert_eq!(refused(&mut reader, bytes.as_bytes()), None);
}

#[test]
fn the_header_is_limited_too() {
    let long = format!("<stream a='{}", "x".repeat(300));
    let mut reader = StreamReader::new(SMALL);
    assert_eq!(refused(&mut reader, long.as_bytes()), Some(C::PolicyViolation));
    let many = "<stream a='' b='' c='' d='' e=''>";
    assert_eq!(refused(&mut StreamReader::new(SMALL), many.as_bytes()), Some(C::PolicyViolation));
}

#[test]
fn floods_end_at_the_limit() {
    let floods = [
        format!("<{}", "x".repeat(10 << 20)),
        format!("<a b='{}", "x".repeat(10 << 20)),
        format!("<a>{}", "x".repeat(10 << 20)),
        format!("<a>{}", "\r".repeat(10 << 20)),
        "<a>".repeat(100_000),
        format!("<a{}", (0..100_000).map(|i| format!(" a{i}=''")).collect::<String>()),
        format!("<a{}", (0..100_000).map(|i| format!(" xmlns:a{i}='u'")).collect::<String>()),
        format!("<a>{}", "<b/>".repeat(100_000)),
    ];
    for flood in floods {
        let mut reader = in_stream(Limits::AFTER_LOGIN);
        let mut bytes = flood.as_bytes();
        let error = reader.next(&mut bytes).unwrap_err();
        assert_eq!(error.condition(), C::PolicyViolation, "{}", &flood[..20]);
        let read = flood.len() - bytes.len();
        assert!(read <= Limits::AFTER_LOGIN.stanza_bytes, "{read} bytes of {}", &flood[..20]);
    }
}
