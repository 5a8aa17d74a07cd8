//! Any text as an address: no panic, parts within their bounds (RFC 7622 §3), and a normal form that is the
//! same address after it went over the wire or through storage.
#![no_main]

use althing_proto::jid;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(jid) = jid::parse(text) else { return };
    assert_eq!(jid::parse(jid.as_str()).as_ref(), Ok(&jid), "the normal form of {text:?}");
    let parts = [
        jid.node().map(|part| part.as_str()),
        Some(jid.domain().as_str()),
        jid.resource().map(|part| part.as_str()),
    ];
    for part in parts.into_iter().flatten() {
        assert!((1..=1023).contains(&part.len()), "{part:?}");
    }
});
