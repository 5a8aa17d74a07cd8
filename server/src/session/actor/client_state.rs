//! XEP-0352 in the session: the client says whether anybody looks at it, and what may wait where nobody does.

use minidom::Element;

use althing_proto::ns;
use althing_proto::stanza::{Kind, MessageType, PresenceType, Stanza};

use super::Session;
use crate::delivery::carbons::{Way, copied};
use crate::session::outbox::Entry;

impl Session {
    /// Takes an element that says so, which is no stanza and is not counted; gives others back.
    pub(super) fn client_state(&mut self, element: Element) -> Option<Element> {
        let unwatched = match element.name() {
            "active" if element.has_ns(ns::CLIENT_STATE) => false,
            "inactive" if element.has_ns(ns::CLIENT_STATE) => true,
            _ => return Some(element),
        };
        let most = self.node.config().limits.inactive_bytes;
        let most = Some(most).filter(|most| unwatched && *most > 0);
        self.outbox.set_inactive(most);
        self.shown.set_unwatched(unwatched);
        None
    }
}

/// How a stanza waits while nobody looks, where that is not as ever.
pub(super) fn entry(stanza: &Stanza) -> Option<Entry<'_>> {
    let from = stanza.from()?.as_str();
    match stanza.kind() {
        Kind::Presence(PresenceType::Available | PresenceType::Unavailable) => {
            let alone = stanza.to().is_some_and(|to| to.resource().is_some());
            alone.then_some(Entry::Directed(from))
        }
        Kind::Message(MessageType::Error) => None,
        Kind::Message(_) => match copied(stanza) {
            None => is_state(stanza.element()).then_some(Entry::State(from)),
            Some((_, original)) if !is_state(original) => None,
            // What somebody is doing is the same to whichever resource it was told.
            Some((Way::Received, original)) => original.attr("from").map(Entry::State),
            Some((Way::Sent, _)) => Some(Entry::Directed(from)),
        },
        _ => None,
    }
}

/// Whether a message tells what its sender is doing, and nothing else.
fn is_state(message: &Element) -> bool {
    let mut tells = false;
    let all = message.children().all(|child| {
        tells |= child.has_ns(ns::CHAT_STATES);
        child.has_ns(ns::CHAT_STATES)
            || child.has_ns(ns::HINTS)
            || child.has_ns(ns::STANZA_ID)
            || child.is("thread", ns::CLIENT)
    });
    all && tells
}

#[cfg(test)]
mod tests {
    use althing_proto::jid::BareJid;

    use super::*;

    #[test]
    fn what_may_wait_is_told_from_what_matters() {
        let state = "<composing xmlns='http://jabber.org/protocol/chatstates'/><thread>t</thread>";
        let stanza = |xml: &str| Stanza::parse(xml.parse().unwrap()).unwrap();
        let message = |kind: &str, content: &str| {
            stanza(&format!(
                "<message xmlns='jabber:client' type='{kind}' from='b@c/d' to='a@b/x'>{content}</message>"
            ))
        };
        assert_eq!(entry(&message("chat", state)), Some(Entry::State("b@c/d")));
        for content in
            ["", "<thread>t</thread>", "<body>x</body>", "<received xmlns='urn:xmpp:receipts' id='1'/>"]
        {
            assert_eq!(entry(&message("chat", content)), None, "{content}");
            let both = format!("{state}{content}");
            let waits = content.is_empty() || content.starts_with("<thread");
            assert_eq!(entry(&message("chat", &both)).is_some(), waits, "{both}");
        }
        assert_eq!(entry(&message("error", state)), None);
        let copy = |way: &str, content: &str| {
            let inner = String::from_utf8(message("chat", content).to_standalone()).unwrap();
            let content = format!(
                "<{way} xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'>{inner}</forwarded></{way}>"
            );
            message("chat", &content).with_from(BareJid::new("a@b").unwrap())
        };
        assert_eq!(entry(&copy("received", state)), Some(Entry::State("b@c/d")));
        assert_eq!(entry(&copy("sent", state)), Some(Entry::Directed("a@b")));
        assert_eq!(entry(&copy("received", "<body>x</body>")), None);

        let presence = |kind: &str, to: &str| {
            stanza(&format!("<presence xmlns='jabber:client' {kind} from='r@c/d' to='{to}'/>"))
        };
        assert_eq!(entry(&presence("", "a@b/x")), Some(Entry::Directed("r@c/d")));
        assert_eq!(entry(&presence("", "a@b")), None, "as under pressure");
        assert_eq!(entry(&presence("type='subscribe'", "a@b/x")), None);
        assert_eq!(
            entry(&stanza("<iq xmlns='jabber:client' type='get' id='1' from='b@c/d'><q/></iq>")),
            None
        );
    }
}
