//! PURE: which messages are kept: to wait for who is not there, and in archives.
//!
//! | message                                          | waits (XEP-0160 §3) | archive (XEP-0313 §5.1.1) |
//! |--------------------------------------------------|-----|-----|
//! | normal, chat: with a text                        | yes | yes |
//! | normal, chat: a receipt (XEP-0184), a chat marker (XEP-0333) | yes | yes |
//! | normal, chat: other content                      | yes | no  |
//! | normal, chat: chat states only (XEP-0085), nothing | no | no |
//! | headline                                         | no  | no  |
//! | groupchat, error, whatever they contain          | no  | no  |
//! | a carbon copy (XEP-0280), or what looks like one  | no | no |
//! | with `<store/>` (XEP-0334): normal, chat, headline | yes | yes |
//! | with `<no-permanent-store/>`                     | as above | no |
//! | with `<no-store/>`                               | no  | no  |
//!
//! Where hints contradict each other the one that keeps less counts. What says only how a message is to be handled
//! (hints, ids, threads, delays) is no content. A headline with `<store/>` is kept only where something else asks for it:
//! the router ignores headlines for the absent (RFC 6121 §8.5.2.2.1). A room keeps what is said in it itself.

use minidom::Element;

use althing_proto::ns;
use althing_proto::stanza::{Kind, MessageType, Stanza};

/// Where a message is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Keeping {
    /// Whether it waits for a receiver who is not there.
    pub waits: bool,
    /// Whether it may go into archives.
    pub archive: bool,
}

impl Keeping {
    const NOWHERE: Keeping = Keeping { waits: false, archive: false };
}

/// The table.
#[must_use]
pub fn keeping(stanza: &Stanza) -> Keeping {
    let Kind::Message(kind) = stanza.kind() else { return Keeping::NOWHERE };
    let mut keeping = match kind {
        // XEP-0334 §5: hints in errors are those of what was refused.
        MessageType::Error | MessageType::Groupchat => return Keeping::NOWHERE,
        MessageType::Headline => Keeping::NOWHERE,
        MessageType::Normal | MessageType::Chat => by_content(stanza.element()),
    };
    let hint = |name| stanza.element().children().any(|child| child.is(name, ns::HINTS));
    if hint("store") {
        keeping = Keeping { waits: true, archive: true };
    }
    if hint("no-permanent-store") {
        keeping.archive = false;
    }
    let copy = |child: &Element| matches!(child.name(), "received" | "sent") && child.has_ns(ns::CARBONS);
    if hint("no-store") || stanza.element().children().any(copy) {
        keeping = Keeping::NOWHERE;
    }
    keeping
}

fn by_content(message: &Element) -> Keeping {
    let mut keeping = Keeping::NOWHERE;
    for child in message.children() {
        match weight(child) {
            Weight::None => {}
            Weight::Passing => keeping.waits = true,
            Weight::Lasting => return Keeping { waits: true, archive: true },
        }
    }
    keeping
}

/// What a part of a message counts for.
enum Weight {
    /// For nothing.
    None,
    /// Whoever it is for should get it.
    Passing,
    /// Somebody may look it up later.
    Lasting,
}

fn weight(child: &Element) -> Weight {
    const MARKERS: [&str; 3] = ["received", "displayed", "acknowledged"];
    match (child.name(), child.ns().as_str()) {
        // XEP-0424 §5: who has fetched the message before learns from the archive that it was retracted.
        ("body", ns::CLIENT) | ("received", ns::RECEIPTS) | ("retract", ns::RETRACTION) => Weight::Lasting,
        (name, ns::CHAT_MARKERS) if MARKERS.contains(&name) => Weight::Lasting,
        // They ask for something, or say how the rest is to be taken.
        (_, ns::RECEIPTS | ns::CHAT_MARKERS | ns::CHAT_STATES | ns::HINTS | ns::STANZA_ID | ns::DELAY)
        | ("thread", ns::CLIENT) => Weight::None,
        _ => Weight::Passing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = "<body>x</body>";
    const RECEIPT: &str = "<received xmlns='urn:xmpp:receipts' id='1'/>";
    const MARKER: &str = "<displayed xmlns='urn:xmpp:chat-markers:0' id='1'/>";
    const OTHER: &str = "<x xmlns='jabber:x:conference' jid='r@m'/>";
    const STATE: &str = "<composing xmlns='http://jabber.org/protocol/chatstates'/><thread>t</thread>";
    const ASKS: &str = "<request xmlns='urn:xmpp:receipts'/><markable xmlns='urn:xmpp:chat-markers:0'/>\
                        <origin-id xmlns='urn:xmpp:sid:0' id='1'/>";
    const NOTHING: &str = "";
    const CONTENTS: [&str; 7] = [BODY, RECEIPT, MARKER, OTHER, STATE, ASKS, NOTHING];

    /// For each type and hints a column a content, in the order of [`CONTENTS`]: `A` waits and is archived, `w` waits,
    /// `-` neither.
    const TABLE: &str = "
        normal    ''                        A A A w - - -
        chat      ''                        A A A w - - -
        headline  ''                        - - - - - - -
        groupchat ''                        - - - - - - -
        error     ''                        - - - - - - -
        normal    store                     A A A A A A A
        chat      store                     A A A A A A A
        headline  store                     A A A A A A A
        groupchat store                     - - - - - - -
        error     store                     - - - - - - -
        normal    no-permanent-store        w w w w - - -
        chat      no-permanent-store        w w w w - - -
        headline  no-permanent-store        - - - - - - -
        chat      store+no-permanent-store  w w w w w w w
        normal    no-store                  - - - - - - -
        chat      no-store                  - - - - - - -
        chat      store+no-store            - - - - - - -
        headline  store+no-store            - - - - - - -
        chat      no-copy                   A A A w - - -
    ";

    /// S14, R18: what is kept of messages of each type, by what is in them and by what their senders ask for.
    #[test]
    fn s14_r18_xep_0160_and_xep_0334_cell_by_cell() {
        let mut cells = 0;
        for row in TABLE.lines().filter(|line| !line.trim().is_empty()) {
            let mut words = row.split_whitespace();
            let (kind, hints) = (words.next().unwrap(), words.next().unwrap());
            let hints: String = hints
                .split('+')
                .filter(|hint| *hint != "''")
                .map(|hint| format!("<{hint} xmlns='urn:xmpp:hints'/>"))
                .collect();
            for content in CONTENTS {
                let xml = format!("<message xmlns='jabber:client' type='{kind}'>{content}{hints}</message>");
                let found = keeping(&Stanza::parse(xml.parse().unwrap()).unwrap());
                let expected = match words.next().unwrap() {
                    "A" => Keeping { waits: true, archive: true },
                    "w" => Keeping { waits: true, archive: false },
                    "-" => Keeping::NOWHERE,
                    other => panic!("{other}"),
                };
                assert_eq!(found, expected, "{xml}");
                cells += 1;
            }
        }
        assert_eq!(cells, 19 * CONTENTS.len());
    }

    /// R7: presence never is, nor what asks for an answer now.
    #[test]
    fn r7_no_other_stanza_is_kept() {
        for xml in
            ["<iq xmlns='jabber:client' type='get' id='1'><body/></iq>", "<presence xmlns='jabber:client'/>"]
        {
            let stanza = Stanza::parse(xml.parse().unwrap()).unwrap();
            assert_eq!(keeping(&stanza), Keeping::NOWHERE);
        }
        let copy =
            "<message xmlns='jabber:client' type='chat'><body/><sent xmlns='urn:xmpp:carbons:2'/></message>";
        assert_eq!(keeping(&Stanza::parse(copy.parse().unwrap()).unwrap()), Keeping::NOWHERE);
        let hidden =
            "<message xmlns='jabber:client'><x xmlns='u:x'><no-store xmlns='urn:xmpp:hints'/></x></message>";
        let stanza = Stanza::parse(hidden.parse().unwrap()).unwrap();
        assert!(keeping(&stanza).waits, "a hint is a child of the message");
    }
}
