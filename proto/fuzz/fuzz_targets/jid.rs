//! Any text as an address: no panic, a normal form that stays, parts within their bounds (RFC 7622 §3).
#![no_main]

use althing_proto::jid::Jid;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(jid) = Jid::new(text) else { return };
    let normal = jid.to_string();
    assert_eq!(Jid::new(&normal).as_ref(), Ok(&jid), "the normal form {normal:?} of {text:?} is not kept");
    let parts = [
        jid.node().map(|part| part.as_str()),
        Some(jid.domain().as_str()),
        jid.resource().map(|part| part.as_str()),
    ];
    for part in parts.into_iter().flatten() {
        assert!((1..=1023).contains(&part.len()), "{part:?}");
    }
});
