//! The corpus of hostile openings: what a peer says before it has logged in, and what it gets for it.

use althing_tests::stream::header_text;

/// Where the peer knocks.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Port {
    /// Plain XML is expected there.
    StartTls,
    /// TLS is expected there.
    DirectTls,
}

/// What the peer gets. In any case the connection ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Expected {
    /// A stream error of one of these conditions.
    Error(&'static [&'static str]),
    /// The end is enough: there is no XML to speak.
    Closed,
}

/// One way to be a bad guest.
pub(crate) struct Opening {
    /// What it is.
    pub(crate) name: &'static str,
    /// Where.
    pub(crate) port: Port,
    /// The bytes for a domain, in the writes in which they are sent. Then the peer waits.
    pub(crate) chunks: fn(&str) -> Vec<Vec<u8>>,
    /// The answer.
    pub(crate) expected: Expected,
}

const POLICY: Expected = Expected::Error(&["policy-violation"]);
const RESTRICTED: Expected = Expected::Error(&["restricted-xml"]);
const MALFORMED: Expected = Expected::Error(&["not-well-formed"]);
/// RFC 6120 §4.9.3.13 and §4.9.3.22 both claim octets that are no UTF-8.
const ENCODING: Expected = Expected::Error(&["not-well-formed", "unsupported-encoding"]);

const fn plain(name: &'static str, chunks: fn(&str) -> Vec<Vec<u8>>, expected: Expected) -> Opening {
    Opening { name, port: Port::StartTls, chunks, expected }
}

/// A stream header, then `text`.
fn then(domain: &str, text: &str) -> Vec<Vec<u8>> {
    vec![header_text(domain).into_bytes(), text.as_bytes().to_vec()]
}

/// One write.
fn only(text: &str) -> Vec<Vec<u8>> {
    vec![text.as_bytes().to_vec()]
}

/// A stream header made from pieces.
fn header(domain: &str, namespace: &str, content: &str, version: &str) -> Vec<Vec<u8>> {
    only(&format!(
        "<stream:stream xmlns='{content}' xmlns:stream='{namespace}' to='{domain}' version='{version}'>"
    ))
}

fn billion_laughs(_: &str) -> Vec<Vec<u8>> {
    let mut text = String::from("<?xml version='1.0'?><!DOCTYPE lolz [<!ENTITY lol0 'lol'>");
    for level in 1..10 {
        let inner = format!("&lol{};", level - 1).repeat(10);
        text.push_str(&format!("<!ENTITY lol{level} '{inner}'>"));
    }
    text.push_str("]><lolz>&lol9;</lolz>");
    only(&text)
}

fn pieces(text: &str) -> Vec<Vec<u8>> {
    text.as_bytes().chunks(64 * 1024).map(<[u8]>::to_vec).collect()
}

fn ten_mebibyte_tag(domain: &str) -> Vec<Vec<u8>> {
    pieces(&format!("{}<{}", header_text(domain), "a".repeat(10 << 20)))
}

fn ten_mebibyte_header(_: &str) -> Vec<Vec<u8>> {
    pieces(&format!("<stream:stream to='{}", "a".repeat(10 << 20)))
}

fn deep(domain: &str) -> Vec<Vec<u8>> {
    pieces(&format!("{}{}", header_text(domain), "<a>".repeat(100_000)))
}

fn attributes(domain: &str) -> Vec<Vec<u8>> {
    let list: String = (0..100_000).map(|index| format!(" a{index}='x'")).collect();
    pieces(&format!("{}<iq{list}/>", header_text(domain)))
}

fn children(domain: &str) -> Vec<Vec<u8>> {
    pieces(&format!("{}<iq>{}</iq>", header_text(domain), "<a/>".repeat(100_000)))
}

fn split_utf8(domain: &str) -> Vec<Vec<u8>> {
    // A whole character in two writes is fine; the second one then is cut short by a tag.
    let mut chunks = vec![header_text(domain).into_bytes(), b"<auth>\xe2\x82".to_vec()];
    chunks.extend([b"\xac\xe2\x82".to_vec(), b"</auth>".to_vec()]);
    chunks
}

fn bad_utf8(domain: &str) -> Vec<Vec<u8>> {
    vec![header_text(domain).into_bytes(), b"<auth>\xff\xfe</auth>".to_vec()]
}

fn overlong_utf8(domain: &str) -> Vec<Vec<u8>> {
    vec![header_text(domain).into_bytes(), b"<auth>\xc0\xbc</auth>".to_vec()]
}

fn utf16(_: &str) -> Vec<Vec<u8>> {
    vec!["<?xml version='1.0'?>".encode_utf16().flat_map(u16::to_be_bytes).collect()]
}

fn tls_hello(_: &str) -> Vec<Vec<u8>> {
    vec![b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa".to_vec()]
}

/// Bytes that look like chance, the same each time.
fn garbage(_: &str) -> Vec<Vec<u8>> {
    let mut state = 0x9e37_79b9_u32;
    let byte = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    vec![(0..4096).map(byte).collect()]
}

/// All openings.
pub(crate) const ALL: &[Opening] = &[
    plain("billion laughs", billion_laughs, RESTRICTED),
    plain(
        "an external entity",
        |_| only("<?xml version='1.0'?><!DOCTYPE a SYSTEM 'file:///etc/passwd'><a/>"),
        RESTRICTED,
    ),
    plain("a comment", |domain| then(domain, "<!-- hello -->"), RESTRICTED),
    plain("a processing instruction", |domain| then(domain, "<?php exit ?>"), RESTRICTED),
    plain("an entity of its own", |domain| then(domain, "<auth>&evil;</auth>"), RESTRICTED),
    plain("a tag of 10 MiB", ten_mebibyte_tag, POLICY),
    plain("a header of 10 MiB", ten_mebibyte_header, POLICY),
    plain("100,000 deep", deep, POLICY),
    plain("100,000 attributes", attributes, POLICY),
    plain("100,000 children", children, POLICY),
    plain("a character cut by a tag", split_utf8, ENCODING),
    plain("octets that are no UTF-8", bad_utf8, ENCODING),
    plain("an overlong character", overlong_utf8, ENCODING),
    plain("UTF-16", utf16, ENCODING),
    plain(
        "another encoding declared",
        |_| only("<?xml version='1.0' encoding='ISO-8859-1'?><a/>"),
        Expected::Error(&["unsupported-encoding"]),
    ),
    plain("a NUL", |domain| then(domain, "<auth>\0</auth>"), MALFORMED),
    plain("crossed tags", |domain| then(domain, "<a><b></a></b>"), MALFORMED),
    plain("an attribute twice", |domain| then(domain, "<iq id='a' id='b'/>"), MALFORMED),
    plain(
        "text between stanzas",
        |domain| then(domain, "hello"),
        Expected::Error(&["not-well-formed", "bad-format"]),
    ),
    plain("a second root", |domain| then(domain, "</stream:stream><stream:stream>"), Expected::Closed),
    plain(
        "a header inside a stream",
        |domain| then(domain, &header_text(domain)),
        Expected::Error(&[
            "not-well-formed",
            "restricted-xml",
            "unsupported-stanza-type",
            "bad-format",
            "not-authorized",
        ]),
    ),
    plain(
        "a prefix nobody declared",
        |domain| then(domain, "<x:iq/>"),
        Expected::Error(&["not-well-formed", "bad-namespace-prefix"]),
    ),
    plain(
        "an early message",
        |domain| then(domain, "<message to='a@localhost'><body>x</body></message>"),
        Expected::Error(&["not-authorized", "policy-violation"]),
    ),
    plain(
        "an early presence",
        |domain| then(domain, "<presence/>"),
        Expected::Error(&["not-authorized", "policy-violation"]),
    ),
    plain(
        "another domain",
        |_| header("example.net", "http://etherx.jabber.org/streams", "jabber:client", "1.0"),
        Expected::Error(&["host-unknown"]),
    ),
    plain(
        "another stream namespace",
        |domain| header(domain, "urn:example:stream", "jabber:client", "1.0"),
        Expected::Error(&["invalid-namespace"]),
    ),
    plain(
        "another content namespace",
        |domain| header(domain, "http://etherx.jabber.org/streams", "urn:example:content", "1.0"),
        Expected::Error(&["invalid-namespace"]),
    ),
    plain(
        "no version",
        |domain| header(domain, "http://etherx.jabber.org/streams", "jabber:client", "0.9"),
        Expected::Error(&["unsupported-version"]),
    ),
    plain(
        "plain HTTP",
        |_| only("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        Expected::Error(&["not-well-formed", "bad-format"]),
    ),
    plain("TLS where XML is expected", tls_hello, Expected::Closed),
    plain("garbage", garbage, Expected::Closed),
    plain("silence", |_| Vec::new(), Expected::Closed),
    plain(
        "half a header and silence",
        |_| only("<?xml version='1.0'?><stream:str"),
        Expected::Error(&["connection-timeout"]),
    ),
    plain("a header and silence", |domain| then(domain, ""), Expected::Error(&["connection-timeout"])),
    plain(
        "whitespace and silence",
        |domain| then(domain, &" ".repeat(100_000)),
        Expected::Error(&["connection-timeout", "policy-violation"]),
    ),
    Opening {
        name: "garbage where TLS is expected",
        port: Port::DirectTls,
        chunks: garbage,
        expected: Expected::Closed,
    },
    Opening {
        name: "XML where TLS is expected",
        port: Port::DirectTls,
        chunks: |domain| then(domain, ""),
        expected: Expected::Closed,
    },
    Opening {
        name: "half a handshake and silence",
        port: Port::DirectTls,
        chunks: tls_hello,
        expected: Expected::Closed,
    },
    Opening {
        name: "silence where TLS is expected",
        port: Port::DirectTls,
        chunks: |_| Vec::new(),
        expected: Expected::Closed,
    },
];
