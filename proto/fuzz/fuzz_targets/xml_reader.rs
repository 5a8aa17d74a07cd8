//! Any bytes, in any pieces: no panic, the same story however they are cut, nothing accepted that the
//! tokenizer's own namespace resolver refuses, and what is written anew is read back the same.
#![no_main]

use althing_proto::ns;
use althing_proto::xml::Element;
use althing_proto::xml::limits::Limits;
use althing_proto::xml::reader::{StreamReader, XmlError, XmlEvent};
use althing_proto::xml::writer::to_string;
use libfuzzer_sys::fuzz_target;
use rxml::Parse;

const HEADER: &str = "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>";

/// Elements, the other events as text, and how it ended.
type Story = (Vec<Element>, Vec<String>, Option<XmlError>);

fn read<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> Story {
    let mut reader = StreamReader::new(Limits::BEFORE_LOGIN);
    let (mut elements, mut others) = (Vec::new(), Vec::new());
    for mut chunk in chunks {
        loop {
            match reader.next(&mut chunk) {
                Ok(Some(XmlEvent::Element(element))) => elements.push(element),
                Ok(Some(event)) => others.push(format!("{event:?} after {}", elements.len())),
                Ok(None) => break,
                Err(error) => return (elements, others, Some(error)),
            }
        }
        assert!(chunk.is_empty());
    }
    (elements, others, None)
}

/// Cuts `data` into pieces whose sizes depend on nothing but the data.
fn pieces(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut state = data.iter().fold(7_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(*byte)));
    let mut rest = data;
    std::iter::from_fn(move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (piece, tail) = rest.split_at_checked((state >> 24) as usize % 17).unwrap_or((rest, &[]));
        let more = !rest.is_empty();
        rest = tail;
        more.then_some(piece)
    })
}

fn read_back(xml: &str) -> Element {
    let mut reader = StreamReader::new(Limits::OWN);
    reader.next(&mut HEADER.as_bytes()).expect("the header is right");
    match reader.next(&mut xml.as_bytes()) {
        Ok(Some(XmlEvent::Element(element))) => element,
        other => panic!("{other:?} for {xml}"),
    }
}

fuzz_target!(|data: &[u8]| {
    let whole = read(std::iter::once(data));
    assert_eq!(read(pieces(data)), whole);
    if whole.2.is_none() {
        let mut parser = rxml::Parser::new();
        let mut rest = data.trim_ascii_start();
        while !rest.is_empty() {
            match parser.parse(&mut rest, false) {
                Ok(_) | Err(rxml::error::EndOrError::NeedMoreData) => {}
                Err(rxml::error::EndOrError::Error(error)) => panic!("accepted, but: {error}"),
            }
        }
    }
    for element in &whole.0 {
        for default_ns in [ns::CLIENT, ""] {
            let xml = to_string(element, default_ns);
            // Where no default is in force the element stands on its own, so it may be read anywhere.
            let wrapped = if default_ns.is_empty() { format!("<w xmlns=''>{xml}</w>") } else { xml.clone() };
            let back = read_back(&wrapped);
            let back = if default_ns.is_empty() { back.children().next().expect("one child") } else { &back };
            assert_eq!(back, element);
            assert_eq!(to_string(back, default_ns), xml);
        }
    }
});
