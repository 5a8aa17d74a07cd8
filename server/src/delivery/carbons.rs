//! Which messages are copied to the other resources of an account, and what a copy is (XEP-0280 §6 to §9).
//!
//! A copy is a message from the account to one of its resources, so it is delivered in the order of all else that
//! comes to that resource, and wherever it is. Nobody else can send one: a client's `from` has its resource. The session
//! decides whether it wants it (`modules/carbons.rs`). It is for that resource only: absent, it is for nobody.

use althing_cluster::routes::{BindIndex, Routes};
use althing_proto::jid::{BareJid, FullJid};
use althing_proto::ns;
use althing_proto::stanza::{Kind, MessageType, Stanza};
use althing_proto::xml::build::ElementExt;
use althing_proto::xml::{Element, name};

use crate::pipeline::Effects;
use crate::pipeline::packet::is_of_account;
use crate::session::effect::Effect;

/// Which way the message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// To the account (§7).
    Received,
    /// From one of its resources (§8).
    Sent,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Way::Received => "received",
            Way::Sent => "sent",
        }
    }
}

/// §6.1. An error is looked at where the message was sent that it answers: nothing in it says what that was.
#[must_use]
pub fn is_eligible(stanza: &Stanza, way: Way) -> bool {
    let Kind::Message(kind @ (MessageType::Chat | MessageType::Normal | MessageType::Headline)) =
        stanza.kind()
    else {
        return false;
    };
    let (mut spoken, mut invites, mut from_room) = (false, false, false);
    for child in stanza.element().children() {
        match (child.name(), child.ns().as_str()) {
            // §9. A copy is not copied, nor is what pretends to be one.
            ("private" | "received" | "sent", ns::CARBONS) | ("no-copy", ns::HINTS) => return false,
            ("body", ns::CLIENT) => spoken |= kind == MessageType::Normal,
            (_, ns::RECEIPTS | ns::CHAT_STATES | ns::CHAT_MARKERS) => spoken = true,
            ("x", ns::DIRECT_INVITATION) => invites = true,
            ("x", ns::MUC_USER) if child.children().any(|child| child.is("invite", ns::MUC_USER)) => {
                invites = true;
            }
            ("x", ns::MUC_USER) => from_room = true,
            _ => {}
        }
    }
    // A room sends what one occupant says to another to each of the account's resources that are there.
    let by_occupant = from_room && stanza.from().is_some_and(|from| from.resource().is_some());
    if way == Way::Received && by_occupant && !invites {
        return false;
    }
    kind == MessageType::Chat || spoken || invites
}

/// The copies of a message for the account's resources, but for its sender and whoever gets the message itself.
#[must_use]
pub fn copies(
    routes: &dyn Routes,
    stanza: &Stanza,
    way: Way,
    account: &BareJid,
    gets_it: impl Fn(&FullJid, BindIndex) -> bool,
) -> Effects {
    let mut others = Vec::new();
    routes.visit_account(account, &mut |jid, route| {
        let sender = stanza.from().is_some_and(|from| from.as_str() == jid.as_str());
        if !sender && !gets_it(jid, route.index) {
            others.push(jid.clone());
        }
    });
    if others.is_empty() {
        return Effects::new();
    }
    let copy = copy(stanza, way, account);
    others.into_iter().map(|jid| Effect::Route(copy.with_to(jid))).collect()
}

/// The message in its wrapping (XEP-0297), without the resource that it is for.
fn copy(stanza: &Stanza, way: Way, account: &BareJid) -> Stanza {
    // RFC 6120 §10.3.1: without an address it is for the own account.
    let original = match stanza.to() {
        Some(_) => stanza.to_element(),
        None => stanza.with_to(account.clone()).to_element(),
    };
    let forwarded = Element::builder("forwarded", ns::FORWARD).append(original).build();
    let mut element = Element::bare("message", ns::CLIENT);
    if let Kind::Message(kind) = stanza.kind()
        && kind != MessageType::Normal
    {
        element.set(name!("type"), kind.name());
    }
    element.append_child(Element::builder(way.name(), ns::CARBONS).append(forwarded).build());
    Stanza::from_parts(stanza.kind(), Some(account.clone().into()), None, element)
}

/// Whether a stanza is a copy for a resource: what was copied, and its way.
#[must_use]
pub fn copied(stanza: &Stanza) -> Option<(Way, &Element)> {
    let (Kind::Message(_), Some(from), Some(to)) = (stanza.kind(), stanza.from(), stanza.to()) else {
        return None;
    };
    let account = from.try_as_full().err().filter(|from| from.node().is_some())?;
    if to.resource().is_none() || !is_of_account(to, account) {
        return None;
    }
    let (way, wrapping) = [Way::Received, Way::Sent]
        .into_iter()
        .find_map(|way| Some((way, stanza.element().get_child(way.name(), ns::CARBONS)?)))?;
    let original = wrapping.get_child("forwarded", ns::FORWARD)?.get_child("message", ns::CLIENT)?;
    Some((way, original))
}

#[cfg(test)]
mod tests {
    use althing_cluster::node_id::{Incarnation, NodeId};
    use althing_cluster::routes::LocalRoutes;
    use althing_proto::jid;

    use super::*;

    const STATE: &str = "<composing xmlns='http://jabber.org/protocol/chatstates'/>";
    const INVITED: &str = "<x xmlns='http://jabber.org/protocol/muc#user'><invite to='a@here'/></x>";
    const OCCUPANT: &str = "<x xmlns='http://jabber.org/protocol/muc#user'/>";

    fn message(kind: &str, content: &str) -> Stanza {
        let xml = format!(
            "<message xmlns='jabber:client' type='{kind}' from='r@rooms/b' to='a@here/x'>{content}</message>"
        );
        Stanza::parse(xml.parse().unwrap()).unwrap()
    }

    #[test]
    fn section_6_1_of_xep_0280_rule_by_rule() {
        let body = "<body>x</body>";
        let receipt = "<received xmlns='urn:xmpp:receipts' id='1'/>";
        let marker = "<displayed xmlns='urn:xmpp:chat-markers:0' id='1'/>";
        let direct = "<x xmlns='jabber:x:conference' jid='r@rooms'/>";
        let other = "<x xmlns='urn:x'/>";
        for (kind, content, received, sent) in [
            ("chat", "", true, true),
            ("chat", other, true, true),
            ("normal", "", false, false),
            ("normal", other, false, false),
            ("normal", body, true, true),
            ("headline", body, false, false),
            ("normal", receipt, true, true),
            ("normal", STATE, true, true),
            ("normal", marker, true, true),
            ("headline", marker, true, true),
            ("groupchat", body, false, false),
            ("groupchat", STATE, false, false),
            ("error", body, false, false),
            ("normal", direct, true, true),
            ("normal", INVITED, true, true),
            ("chat", OCCUPANT, false, true),
            ("chat", &format!("{body}{OCCUPANT}"), false, true),
        ] {
            let stanza = message(kind, content);
            let found = [Way::Received, Way::Sent].map(|way| is_eligible(&stanza, way));
            assert_eq!(found, [received, sent], "{kind} {content}");
            for hint in [
                "<private xmlns='urn:xmpp:carbons:2'/>",
                "<no-copy xmlns='urn:xmpp:hints'/>",
                "<received xmlns='urn:xmpp:carbons:2'/>",
                "<sent xmlns='urn:xmpp:carbons:2'/>",
            ] {
                let stanza = message(kind, &format!("{content}{hint}"));
                assert!(!is_eligible(&stanza, Way::Received) && !is_eligible(&stanza, Way::Sent), "{hint}");
            }
        }
        let bare = message("chat", OCCUPANT).with_from(BareJid::new("r@rooms").unwrap());
        assert!(is_eligible(&bare, Way::Received), "said by the room itself");
    }

    #[tokio::test]
    async fn a_copy_is_for_whoever_has_not_got_the_message_and_tells_its_way() {
        let routes = LocalRoutes::new(NodeId::new(1), Incarnation(1));
        let mut binds = Vec::new();
        for resource in ["x", "y", "z"] {
            let jid = FullJid::new(&format!("a@here/{resource}")).unwrap();
            binds.push(routes.bind(&jid).await.unwrap().index);
        }
        let account = BareJid::new("a@here").unwrap();
        let made = |stanza: &Stanza, way| -> Vec<Stanza> {
            let effects = copies(&routes, stanza, way, &account, |_, index| index == binds[0]);
            let stanza = |effect| match effect {
                Effect::Route(stanza) => stanza,
                other => panic!("{other:?}"),
            };
            effects.into_iter().map(stanza).collect()
        };
        let received = made(&message("chat", "<body>x</body>"), Way::Received);
        let to: Vec<&str> = received.iter().map(|copy| copy.to().unwrap().as_str()).collect();
        assert_eq!(to, ["a@here/y", "a@here/z"]);
        assert_eq!(
            received[0].to_bytes(),
            "<message to='a@here/y' from='a@here' type='chat'><received xmlns='urn:xmpp:carbons:2'>\
             <forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' from='r@rooms/b' \
             to='a@here/x' type='chat'><body>x</body></message></forwarded></received></message>"
        );
        let (way, original) = copied(&received[0]).unwrap();
        assert_eq!((way, original.attr("from")), (Way::Received, Some("r@rooms/b")));

        let own = message("normal", "<body>x</body>").with_from(FullJid::new("a@here/z").unwrap());
        let sent = made(&own, Way::Sent);
        assert_eq!(sent.len(), 1, "not for its sender");
        assert!(matches!(copied(&sent[0]), Some((Way::Sent, _))) && sent[0].element().attr("type").is_none());
        for (from, to) in [("a@here/x", "a@here/y"), ("b@here", "a@here/y"), ("a@here", "a@here")] {
            let forged = received[0].with_from(jid::parse(from).unwrap()).with_to(jid::parse(to).unwrap());
            assert!(copied(&forged).is_none(), "{from} {to}");
        }
    }
}
