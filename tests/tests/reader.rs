//! What the XML readers of connections that wait keep.

#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

use althing_proto::xml::limits::Limits;
use althing_proto::xml::reader::StreamReader;

/// Bytes that this process has for data, in use or not.
fn data() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmData:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().trim().parse::<usize>().unwrap() << 10
}

/// The tokenizer has room for the longest token, 64 KiB, from its first byte on. A reader that waits for the next element has
/// given it back.
#[test]
fn a_reader_that_waits_keeps_no_room_for_a_token() {
    const READERS: usize = 4_000;
    const ALL: &str = "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>\
                       <presence/>";
    let before = data();
    let readers: Vec<StreamReader> = (0..READERS)
        .map(|_| {
            let mut reader = StreamReader::new(Limits::AFTER_LOGIN);
            let (mut input, mut events) = (ALL.as_bytes(), 0);
            while reader.next(&mut input).unwrap().is_some() {
                events += 1;
            }
            assert_eq!(events, 2);
            reader
        })
        .collect();
    let each = data().saturating_sub(before) / readers.len();
    assert!(each < 16 << 10, "{each} bytes for each reader");
}
