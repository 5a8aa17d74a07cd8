//! Time to read and to write one chat message of 256 bytes: `cargo bench -p althing-proto`.
#![allow(clippy::disallowed_methods, reason = "a bench reads the clock; the library does not")]
#![allow(clippy::print_stdout, clippy::expect_used, reason = "a bench is run by hand")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use althing_proto::ns;
use althing_proto::xml::Element;
use althing_proto::xml::limits::Limits;
use althing_proto::xml::reader::{StreamReader, XmlEvent};
use althing_proto::xml::writer::write_element;

const HEADER: &[u8] =
    b"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>";
const MESSAGE: &[u8] = b"<message to='juliet@capulet.example/balcony' from='romeo@montague.example/orchard' \
    id='ktx7v4' type='chat'><body>Art thou not Romeo, and a Montague?</body>\
    <request xmlns='urn:xmpp:receipts'/><active xmlns='http://jabber.org/protocol/chatstates'/></message>";

/// The best of five rounds, in nanoseconds for one call.
fn measure(what: &str, mut call: impl FnMut()) {
    let mut best = f64::MAX;
    for _ in 0..5 {
        let begin = Instant::now();
        let mut calls = 0_u32;
        while begin.elapsed() < Duration::from_millis(300) {
            for _ in 0..100 {
                call();
            }
            calls += 100;
        }
        best = best.min(begin.elapsed().as_secs_f64() * 1e9 / f64::from(calls));
    }
    println!("{what:<40} {best:>10.0} ns");
}

fn stream() -> StreamReader {
    let mut reader = StreamReader::new(Limits::AFTER_LOGIN);
    reader.next(&mut &HEADER[..]).expect("a header");
    reader
}

/// Reads until all input is consumed, as a connection does.
fn read(reader: &mut StreamReader, mut input: &[u8]) -> Option<Element> {
    let mut last = None;
    while let Some(event) = reader.next(&mut input).expect("well-formed") {
        if let XmlEvent::Element(element) = event {
            last = Some(element);
        }
    }
    last
}

fn main() {
    println!("message of {} bytes", MESSAGE.len());
    let mut reader = stream();
    measure("read, one in a packet", || drop(black_box(read(&mut reader, black_box(MESSAGE)))));
    let ten = MESSAGE.repeat(10);
    measure("read, ten in a packet", || drop(black_box(read(&mut reader, black_box(&ten)))));
    let (head, tail) = MESSAGE.split_at(MESSAGE.len() / 2);
    measure("read, cut in two packets", || {
        read(&mut reader, black_box(head));
        drop(black_box(read(&mut reader, black_box(tail))));
    });
    let message = read(&mut reader, MESSAGE).expect("a message");
    let mut out = Vec::with_capacity(1024);
    measure("write into a kept buffer", || {
        out.clear();
        write_element(black_box(&message), ns::CLIENT, &mut out);
        black_box(&out);
    });
    assert_eq!(out.len(), MESSAGE.len(), "the message is written as it came");
    let refs = format!("<message><body>{}</body></message>", "&lt;".repeat(65_000));
    measure("read 65,000 references (260 KB)", || {
        drop(black_box(read(&mut reader, black_box(refs.as_bytes()))))
    });
    let hostile = hostile();
    println!("hostile stanza of {} bytes", hostile.len());
    measure("read 4,000 names with far prefixes", || drop(black_box(read(&mut reader, hostile.as_bytes()))));
}

/// A stanza of many prefixed names, each of which is looked up among as many prefixes as may be.
fn hostile() -> String {
    let mut xml = String::new();
    for level in 0..4 {
        let uri = "u".repeat(200);
        let declared = (0..63).map(|i| format!(" xmlns:p{level}x{i}='{uri}{i}'")).collect::<String>();
        xml.push_str(&format!("<a{declared}>"));
    }
    xml.push_str(&"<p0x0:a/>".repeat(4000));
    xml + &"</a>".repeat(4)
}
