//! Any text as an address: no panic, parts within their bounds (RFC 7622 §3), and no address that stands for
//! another one after its normal form went over the wire or through storage.
#![no_main]

use althing_proto::jid::Jid;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(jid) = Jid::new(text) else { return };
    let normal = jid.to_string();
    // The crate checks a domain before it maps it, so a normal form may be refused: `ß` becomes `ss`, and a
    // label grows past 63 bytes. It may never be read as something else.
    if let Ok(again) = Jid::new(&normal) {
        assert_eq!(again, jid, "the normal form of {text:?} stands for another address");
    }
    let parts = [
        jid.node().map(|part| part.as_str()),
        Some(jid.domain().as_str()),
        jid.resource().map(|part| part.as_str()),
    ];
    for part in parts.into_iter().flatten() {
        assert!((1..=1023).contains(&part.len()), "{part:?}");
    }
});
